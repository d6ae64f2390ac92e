"""A new version over an older archive: what stays is copied, and the result is whole."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etcetera.errors import (
    CorruptArchive,
    NetworkError,
    NotAllowed,
    RemoteChanged,
    SourceChanged,
)
from etcetera.stores import CannotCopy, PartLimits
from etcetera.stores.memory import MemoryStore
from etcetera.transfer import flow, index_writer, pack, parts, push, weave
from etcetera.transfer.archive import open_archive
from etcetera.transfer.journal import Journal
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.push import Pushed, prepare
from etcetera.transfer.reader import Reader
from etcetera.transfer.scan import scan
from etcetera.transfer.tar import Entry
from etcetera.transfer.update import ScanDigest, plan_update
from etcetera.transfer.workers import Workers
from tests import trees
from tests.archives import KEY, ignore, packed, pull_from, push_to, run, small

LEAST = 40_000
"""Bytes of a part at the least, here."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make frames and copies so small that little data has many."""
    for module in (pack, push, parts):
        monkeypatch.setattr(module, "FRAME_MAX", 16_384)
    monkeypatch.setattr(pack, "FRAME_TARGET", 8_192)
    monkeypatch.setattr(pack, "FRAME_MIN", 2_048)
    monkeypatch.setattr(weave, "COPY", 150_000)


def store() -> MemoryStore:
    """A store that takes no short parts, of any length above."""
    limits = PartLimits(min_part=LEAST, max_part=5 << 20, max_parts=10_000)
    return MemoryStore(url="memory://update", limits=limits)


def options(**changes: int) -> TransferOptions:
    """Parts as small as the store takes them."""
    return small(**({"part_size": LEAST} | changes))


def content(size: int, seed: object = None) -> bytes:
    """Bytes that do not compress."""
    return random.Random(f"{seed}").randbytes(size) if seed is not None else os.urandom(size)


def flat(count: int = 200, size: int = 3_000) -> trees.Tree:
    """Files in a few directories, and some other things."""
    tree: trees.Tree = {
        f"data/{'test' if i % 4 == 0 else 'train'}/{i // 50}/{i:04}": trees.file(content(size, i))
        for i in range(count)
    }
    tree["data/train/alias"] = trees.link("0/0001")
    tree["meta.json"] = trees.file(b"{}\n")
    return tree


def change(root: Path, tree: trees.Tree, changes: dict[str, trees.Node | None]) -> trees.Tree:
    """Apply *changes* to a tree on disk, and leave the times of directories as they were."""
    tree = dict(trees.complete(tree))
    for path, node in changes.items():
        (root / path).unlink(missing_ok=True)
        tree.pop(path, None)
        if node is not None:
            tree[path] = node
    tree = trees.complete(tree)
    for path, node in tree.items():
        if node.kind == "d":
            (root / path).mkdir(exist_ok=True)
        elif path in changes and node.kind == "l":
            (root / path).symlink_to(node.target)
        elif path in changes:
            (root / path).write_bytes(node.content)
            (root / path).chmod(0o755 if node.executable else 0o644)
    for path in sorted(tree, reverse=True):
        node = tree[path]
        if node.kind == "d" or path in changes:
            os.utime(root / path, (node.mtime, node.mtime), follow_symlinks=False)
    return tree


def trusting(_etag: str) -> bool:
    """Whoever made the older archive is believed."""
    return True


async def push_over(
    target: MemoryStore,
    root: Path,
    *,
    key: str = KEY,
    base: str = KEY,
    how: TransferOptions | None = None,
    journal: Journal | None = None,
    report: push.Report = ignore,
) -> Pushed:
    """Push *root* as an update of *base*."""
    how = how or options()
    prepared = await prepare(root, target, how)
    update = await plan_update(target, base, prepared.scan, prepared.plan, how, trusting)
    assert update is not None
    return await push.push(
        prepared, target, key, how,
        overwrite=True, report=report, update=update, journal=journal,
    )  # fmt: skip


async def check(target: MemoryStore, root: Path, place: Path, pushed: Pushed) -> None:
    """The archive is what a push of everything gives, apart from its order."""
    data = target.objects[KEY][1]
    assert not target.uploads
    assert pushed.info.size == len(data)
    whole = store()
    assert pushed.digest == (await push_to(whole, root, options())).digest
    expected = trees.read(root)
    for indexed in (True, False):
        pulled = await pull_from(data, place / f"pulled-{indexed}", indexed=indexed)
        assert pulled.digest == pushed.digest
        assert trees.read(place / f"pulled-{indexed}") == expected
    run("gzip", "-t", data=data)
    (place / "unpacked").mkdir()
    run("tar", "xzf", "-", "-C", place / "unpacked", "--exclude=.etcetera-index.jsonl", data=data)
    assert trees.contents(trees.read(place / "unpacked")) == trees.contents(expected)


CHANGES: dict[str, Callable[[], dict[str, trees.Node | None]]] = {
    "nothing": dict,
    "first": lambda: {"meta.json": trees.file(b'{"new": 1}\n')},
    "added": lambda: {f"data/train/new/{i}": trees.file(content(3_000)) for i in range(30)},
    "middle": lambda: {"data/train/2/0109": trees.file(content(3_000))},
    "last": lambda: {"data/train/3/0199": trees.file(content(2_000))},
    "removed": lambda: {f"data/test/0/{i:04}": None for i in range(0, 50, 4)},
    "time": lambda: {"data/train/2/0109": trees.file(content(3_000, 109), mtime=5)},
    "executable": lambda: {"data/train/2/0109": trees.file(content(3_000, 109), executable=True)},
    "link": lambda: {"data/train/alias": trees.link("0/0002")},
    "a link now": lambda: {"data/train/2/0109": trees.link("0110")},
    "large": lambda: {"data/train/2/big": trees.file(content(100_000))},
    "large and first": lambda: {
        "meta.json": trees.file(b'{"new": 1}\n'),
        "data/train/2/big": trees.file(content(100_000)),
    },
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_changes(kind: str, tmp_path: Path) -> None:
    """Whatever changes, the rest is copied, and the result is whole."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    sent, old = target.bytes_sent, target.objects[KEY][1]
    changes = CHANGES[kind]()
    change(root, tree, changes)
    pushed = await push_over(target, root)
    sent = target.bytes_sent - sent
    assert pushed.copied == target.bytes_copied > len(old) / 2
    assert sent + pushed.copied == pushed.info.size
    # The changes, two frames cut by each, a part before the first copy, and the index.
    new = sum(len(node.content) + 1_024 for node in changes.values() if node)
    assert sent < new + 2 * 16_384 + (2 * LEAST if "meta.json" in changes else 0) + 30_000
    await check(target, root, tmp_path, pushed)


@pytest.mark.parametrize("seed", range(8))
async def test_again_and_again(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Update after update, of anything at random, in any number of segments."""
    chance = random.Random(seed)
    monkeypatch.setattr(index_writer, "MAX_SEGMENT", chance.choice([3, 20, 4096]))
    tree, target = flat(), store()
    tree["data/train/large"] = trees.file(content(chance.choice([100_000, 16_384, 300_000])))
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    for step in range(3):
        files = [path for path, node in tree.items() if node.kind == "f"]
        changes: dict[str, trees.Node | None] = {}
        for path in chance.sample(files, chance.randint(0, 8)):
            changes[path] = chance.choice(
                [None, trees.file(content(chance.randint(0, 40_000))), trees.file(b"", mtime=step)]
            )
        for number in range(chance.choice([0, 1, 20])):
            place = chance.choice(["data/test/0", "data/new", "other/place", "."])
            changes[f"{place}/{step}-{number}".removeprefix("./")] = trees.file(content(2_500))
        if chance.random() < 0.3:
            changes["data/train/large"] = trees.file(content(100_000))
        tree = change(root, tree, changes)
        pushed = await push_over(target, root, how=options(threads=chance.choice([1, 3])))
        assert pushed.copied > 0
        (tmp_path / str(step)).mkdir()
        await check(target, root, tmp_path / str(step), pushed)


async def test_large_files_stay(tmp_path: Path) -> None:
    """A file in many frames is copied whole, or not at all."""
    tree: trees.Tree = {
        "data/train/a": trees.file(content(200_000)),
        "data/train/b": trees.file(content(200_000)),
    }
    target = store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    change(root, tree, {"data/train/b": trees.file(content(200_000))})
    pushed = await push_over(target, root)
    assert 200_000 < pushed.copied < 202_000
    await check(target, root, tmp_path, pushed)


async def test_contents_are_compared(tmp_path: Path) -> None:
    """A file of the same size and time, but other content, is not taken for the same."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    change(root, tree, {"data/train/2/0109": trees.file(content(3_000, "other"))})
    pushed = await push_over(target, root)
    await check(target, root, tmp_path, pushed)


async def test_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes compare many small files as well."""
    monkeypatch.setattr(flow, "_MANY_FILES", 1)
    asked: list[int] = []
    have_contents = Workers.have_contents

    def ask(self: Workers, files: list[tuple[Entry, str]]) -> bool:
        asked.append(len(files))
        return have_contents(self, files)

    monkeypatch.setattr(Workers, "have_contents", ask)
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    change(root, tree, {"data/train/2/0109": trees.file(content(3_000, "other"))})
    pushed = await push_over(target, root)
    assert sum(asked) > 100
    await check(target, root, tmp_path, pushed)


async def test_another_name(tmp_path: Path) -> None:
    """The older archive stays what it is when the new one gets another name."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    target.publish("old.tgz", target.objects.pop(KEY)[1], overwrite=False)
    old = target.objects["old.tgz"]
    change(root, tree, CHANGES["added"]())
    pushed = await push_over(target, root, base="old.tgz")
    assert target.objects["old.tgz"] == old
    await check(target, root, tmp_path, pushed)


@pytest.mark.parametrize(
    ("method", "number"),
    [("upload", 1), ("copy_part", 1), ("copy_part", 2), ("put_part", 1), ("put_part", 2),
     ("complete", 1)],
)  # fmt: skip
async def test_failure_leaves_the_old_version(method: str, number: int, tmp_path: Path) -> None:
    """Whatever fails, the old archive is there, and nothing is left open."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    old = target.objects[KEY]
    change(root, tree, CHANGES["large and first"]())
    target.calls.clear()
    target.faults[method, number] = NetworkError("planned")
    threads = threading.active_count()
    with pytest.raises(NetworkError, match="planned"):
        await push_over(target, root)
    assert target.objects[KEY] == old
    assert not target.uploads
    assert threading.active_count() <= threads + 3


@pytest.mark.parametrize("kind", ["large", "large and first"])
@pytest.mark.parametrize(
    ("method", "number"),
    [("copy_part", 3), ("put_part", 2), ("put_part", 3), ("put_part", 4), ("complete", 1)],
)
async def test_goes_on(kind: str, method: str, number: int, tmp_path: Path) -> None:
    """Wherever an update breaks off, the next one goes on, and the result is that of one run."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    old = target.objects[KEY]
    added = {f"data/train/new/{i}": trees.file(content(3_000)) for i in range(60)}
    change(root, tree, {**CHANGES[kind](), **added})
    await push_over(target, root)
    expected = target.objects[KEY][1]
    target.objects[KEY] = old

    def journal() -> Journal:
        return Journal(tmp_path / "journal", {"name": "set"}, 50_000)

    target.latency = 0.001
    target.calls.clear()
    target.faults[method, number] = NetworkError("planned")
    with pytest.raises(NetworkError, match="planned"):
        await push_over(target, root, journal=journal())
    assert target.objects[KEY] == old
    target.faults.clear()
    sent, copied = target.bytes_sent, target.bytes_copied
    seen: list[int] = []
    pushed = await push_over(
        target, root, journal=journal(), report=lambda tar, _: seen.append(tar)
    )
    assert target.objects[KEY][1] == expected
    moved = target.bytes_sent - sent + target.bytes_copied - copied
    assert 50_000 <= pushed.resumed == len(expected) - moved
    assert sum(seen) == (await prepare(root, target, options())).scan.tar_size
    assert not (tmp_path / "journal").exists()
    await check(target, root, tmp_path, pushed)


async def test_goes_on_with_everything(tmp_path: Path) -> None:
    """A push of everything that broke off is not begun anew because something could be copied."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)

    def journal() -> Journal:
        return Journal(tmp_path / "journal", {"name": "set"}, 50_000)

    target.latency = 0.001
    target.faults["put_part", 9] = NetworkError("planned")
    prepared = await prepare(root, target, options())
    with pytest.raises(NetworkError, match="planned"):
        await push.push(
            prepared, target, KEY, options(), overwrite=True, report=ignore, journal=journal()
        )
    target.faults.clear()
    target.publish(KEY, await packed(root, options()), overwrite=False)
    pushed = await push_over(target, root, journal=journal())
    assert pushed.resumed > 50_000
    assert not pushed.copied
    await check(target, root, tmp_path, pushed)


async def test_another_base_begins_anew(tmp_path: Path) -> None:
    """What was copied from an archive that was replaced is not used."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())

    def journal() -> Journal:
        return Journal(tmp_path / "journal", {"name": "set"}, 50_000)

    change(root, tree, CHANGES["added"]())
    target.faults["complete", 2] = NetworkError("planned")
    with pytest.raises(NetworkError, match="planned"):
        await push_over(target, root, journal=journal())
    assert target.uploads
    target.publish(KEY, target.objects[KEY][1], overwrite=True)
    pushed = await push_over(target, root, journal=journal())
    assert not pushed.resumed
    await check(target, root, tmp_path, pushed)


@pytest.mark.parametrize("when", ["copy_part", "complete"])
async def test_replaced_meanwhile(when: str, tmp_path: Path) -> None:
    """Nobody else's new version is overwritten."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    change(root, tree, CHANGES["added"]())
    enter = MemoryStore.enter

    async def replace(self: MemoryStore, method: str) -> None:
        if method == when and self is target:
            self.publish(KEY, b"theirs", overwrite=True)
        await enter(self, method)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStore, "enter", replace)
        with pytest.raises(RemoteChanged, match="push again"):
            await push_over(target, root)
    assert target.objects[KEY][1] == b"theirs"
    assert not target.uploads


async def test_base_replaced_meanwhile(tmp_path: Path) -> None:
    """What was copied from is looked at once more, on whatever server."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    enter = MemoryStore.enter

    async def replace(self: MemoryStore, method: str) -> None:
        if method == "head":
            self.publish(KEY, b"theirs", overwrite=True)
        await enter(self, method)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStore, "enter", replace)
        with pytest.raises(RemoteChanged, match="replaced"):
            await push_over(target, root, key="new.tgz")
    assert set(target.objects) == {KEY}


async def test_source_changes(tmp_path: Path) -> None:
    """A file that changes after the scan, but before it is compared, is an error."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    prepared = await prepare(root, target, options())
    path = root / "data/train/2/0109"
    path.write_bytes(content(3_000))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with pytest.raises(SourceChanged, match="0109"):
        await plan_update(target, KEY, prepared.scan, prepared.plan, options(), trusting)


async def why(target: MemoryStore, root: Path) -> str:
    """Why everything has to be sent."""
    prepared = await prepare(root, target, options())
    with pytest.raises(CannotCopy) as raised:
        await plan_update(target, KEY, prepared.scan, prepared.plan, options(), trusting)
    return str(raised.value)


async def test_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be copied, there is a reason."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    prepared = await prepare(root, target, options())
    assert await plan_update(target, KEY, prepared.scan, prepared.plan, options(), trusting) is None
    data = await packed(root, options())
    target.publish(KEY, data[:-1] + bytes([data[-1] ^ 1]), overwrite=True)
    await plan_update(
        target, KEY, prepared.scan, prepared.plan, options(), trusting
    )  # for a pull to refuse
    target.publish(KEY, run("tar", "czf", "-", "-C", root, "."), overwrite=True)
    assert "no index" in await why(target, root)
    target.publish(KEY, b"no archive " * 10_000, overwrite=True)
    assert "not a .tgz" in await why(target, root)
    target.publish(KEY, b"", overwrite=True)
    assert "small" in await why(target, root)
    index = data.rindex(b'{"etcetera-index":1,')
    lie = data[index:].replace(b'"digest":"sha256:', b'"digest":"sha255:', 1)
    target.publish(KEY, data[:index] + lie, overwrite=True)
    assert "does not fit" in await why(target, root)
    other = await packed(trees.write(tmp_path / "other", {"data/t/x": trees.file(content(99_000))}))
    target.publish(KEY, other, overwrite=True)
    assert "too little" in await why(target, root)
    target.publish(KEY, data, overwrite=True)
    target.faults["read", target.calls["read"] + 1] = NotAllowed("planned")
    assert "cannot be read" in await why(target, root)
    monkeypatch.setattr("etcetera.transfer.update._MOST_INDEX", 0)
    monkeypatch.setattr("etcetera.transfer.update._INDEX_ROW", 1)
    assert "far more" in await why(target, root)


async def test_damaged_copy(tmp_path: Path) -> None:
    """Frames that are not what their index says are noticed when they are copied."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    data = bytearray(await packed(root, options()))
    data[len(data) // 2] ^= 1
    target.publish(KEY, bytes(data), overwrite=True)
    with pytest.raises(CannotCopy, match="other bytes"):
        await push_over(target, root)
    assert target.objects[KEY][1] == data


async def test_a_path_twice(tmp_path: Path) -> None:
    """An index that names a path twice is of no use, and neither is a digest made of one."""
    root = trees.write(tmp_path / "source", trees.SMALL)
    scanned = scan(root)
    digest = ScanDigest(scanned)
    entry = next(scanned.entries())
    digest.add_entry(entry, "00" * 32)
    with pytest.raises(CorruptArchive, match="twice"):
        digest.add_entry(entry, "00" * 32)
    with pytest.raises(CorruptArchive, match="lack"):
        digest.value()


async def test_the_index_is_read_by_path(tmp_path: Path) -> None:
    """Single files are found in an archive whose segments overlap."""
    tree, target = flat(), store()
    root = trees.write(tmp_path / "source", tree)
    await push_to(target, root, options())
    changed: dict[str, trees.Node | None] = {
        f"data/{name}/0/new": trees.file(name.encode()) for name in ("test", "train")
    }
    change(root, tree, changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_writer, "MAX_SEGMENT", 20)
        await push_over(target, root)
    async with target.open(KEY) as remote:
        assert remote is not None
        index = (await open_archive(remote))[1]
        assert index is not None
        assert list(index.root.partitions) == ["test", "train"]
        for path in ("data/test/0/new", "data/train/0/new", "data/train/2/0109", "meta.json"):
            expected = (root / path).read_bytes()
            assert await Reader(index).read_file(path, 1 << 20) == expected
