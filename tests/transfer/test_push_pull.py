"""Directory → archive → directory, whole pipelines through memory."""

import asyncio
import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given

from etcetera.errors import (
    AlreadyExists,
    ArchiveError,
    NetworkError,
    NotAllowed,
    NotAnArchive,
    RemoteChanged,
    SourceChanged,
)
from etcetera.stores.memory import MemoryStore
from etcetera.transfer import index_writer
from etcetera.transfer.archive import open_archive
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pack import FRAME_MAX
from etcetera.transfer.parts import Buffers
from etcetera.transfer.pull import pull
from etcetera.transfer.push import prepare, push
from tests import trees
from tests.archives import KEY, holding, ignore, memory, packed, pull_from, push_to, small

LONG = "data/train/" + "long name " * 12 + "/" + "n" * 200
TREE: trees.Tree = trees.SMALL | {
    "data/train/naïve ☃.txt": trees.file(b"snow"),
    "data/test/to-long": trees.link("../../" + LONG),
    LONG: trees.file(b"far"),
    "data/alias": trees.link("train"),  # a partition, too
}
SLICED: trees.Tree = {
    "data/train/before": trees.file(b"b"),
    "data/train/large": trees.file(os.urandom(700_000) * 5, executable=True),
    "data/train/zeros": trees.file(bytes(2 * FRAME_MAX)),
}


def source(tmp_path: Path, tree: trees.Tree = TREE) -> Path:
    """A dataset on disk."""
    return trees.write(tmp_path / "source", tree)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
async def test_round_trip(level: int, indexed: bool, tmp_path: Path) -> None:
    """What is pulled is what was pushed, at every level, by the index and without it."""
    data = await packed(source(tmp_path), small(level=level))
    await pull_from(data, tmp_path / "target", indexed=indexed)
    assert trees.read(tmp_path / "target") == trees.complete(TREE)


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("threads", [1, 2, 5])
async def test_slices(threads: int, indexed: bool, tmp_path: Path) -> None:
    """Files in many slices come out whole, whichever thread is first."""
    options = small(part_size=300_000, threads=threads)
    data = await packed(source(tmp_path, SLICED), options)
    await pull_from(data, tmp_path / "target", options, indexed=indexed)
    assert trees.read(tmp_path / "target") == trees.complete(SLICED)


@trees.few
@given(trees.random_trees())
def test_random_trees(tree: trees.Tree) -> None:
    """PK-20: any tree comes back, by the index and from front to back, with the same digest."""
    with TemporaryDirectory() as directory:
        place = Path(directory)
        root = trees.write(place / "source", tree)
        options = small(part_size=50_000)
        data = asyncio.run(packed(root, options))
        digests = set()
        for indexed in (True, False):
            target = place / str(indexed)
            digests.add(asyncio.run(pull_from(data, target, options, indexed=indexed)).digest)
            assert trees.read(target) == trees.complete(tree)
        assert len(digests) == 1


@pytest.mark.parametrize("segment", [1, 2, 5])
async def test_many_segments(segment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of many segments reads like an index of one."""
    monkeypatch.setattr(index_writer, "MAX_SEGMENT", segment)
    tree = TREE | SLICED
    data = await packed(source(tmp_path, tree), small(part_size=300_000))
    pulled = await pull_from(data, tmp_path / "target", small(part_size=300_000), indexed=True)
    assert trees.read(tmp_path / "target") == trees.complete(tree)
    assert pulled.files == sum(node.kind == "f" for node in tree.values())
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        index = (await open_archive(remote))[1]
        assert index is not None
        assert len(index.root.segments) > 2


async def test_same_bytes(tmp_path: Path) -> None:
    """GZ-09: the same files, times and level give the same bytes, however they are packed."""
    root = source(tmp_path)
    other = trees.write(tmp_path / "other", dict(reversed(TREE.items())))
    for level in (1, 6):
        expected = await packed(root, small(level=level))
        assert await packed(other, small(level=level)) == expected
        options = small(level=level, part_size=500, workers=1, threads=1)
        assert await packed(root, options) == expected
        assert await packed(root, TransferOptions(level=level, threads=4)) == expected


async def test_digest_names_the_data(tmp_path: Path) -> None:
    """Level and times do not change the digest; contents, names and executable bits do."""
    root = source(tmp_path)

    async def digest(level: int = 1) -> str:
        return (await push_to(memory(), root, small(level=level))).digest

    first = await digest()
    assert await digest(0) == first
    os.utime(root / "README.md", (5, 5))
    assert await digest() == first
    seen = {first}
    for change in (
        lambda: (root / "README.md").write_text("other"),
        lambda: (root / "README.md").chmod(0o755),
        lambda: (root / "README.md").rename(root / "READYOU.md"),
        lambda: (root / "new").mkdir(),
        lambda: (root / "new-link").symlink_to("new"),
    ):
        change()
        seen.add(await digest())
    assert len(seen) == 6


async def test_nobody_is_named(tmp_path: Path) -> None:
    """The archive does not say who packed it: other owners and masks give the same bytes."""
    root = source(tmp_path)
    expected = await packed(root)
    os.chown(root / "README.md", 1234, 1234)
    (root / "README.md").chmod(0o600)
    (root / "data").chmod(0o700)
    assert await packed(root) == expected


@pytest.mark.parametrize("part_size", [70, 511, 4_096, 1 << 20])
@pytest.mark.parametrize("workers", [1, 4])
async def test_parts(part_size: int, workers: int, tmp_path: Path) -> None:
    """UP-14: parts of any size make the same object, and what is reported adds up."""
    root = source(tmp_path, {"data/train/a": trees.file(os.urandom(5_000))})
    expected = await packed(root)
    store, options = memory(), small(part_size=part_size, workers=workers)
    seen: list[tuple[int, int]] = []
    prepared = await prepare(root, store, options)
    pushed = await push(
        prepared, store, KEY, options, overwrite=False,
        report=lambda tar, archive: seen.append((tar, archive)),
    )  # fmt: skip
    assert store.objects[KEY][1] == expected
    assert sum(archive for _, archive in seen) == len(expected)
    assert sum(tar for tar, _ in seen) == prepared.scan.tar_size
    assert len(seen) == -(-len(expected) // part_size)
    assert pushed.info.size == len(expected)
    assert not store.uploads


@pytest.mark.parametrize("part_size", [100, 4_096, 1 << 20])
@pytest.mark.parametrize("indexed", [True, False])
async def test_ranges(part_size: int, indexed: bool, tmp_path: Path) -> None:
    """DN-16, DN-17: ranges of any size, answered late, give the same tree."""
    data = await packed(source(tmp_path))
    store = holding(data)
    store.latency = 0.001
    seen: list[int] = []
    async with store.open(KEY) as remote:
        assert remote is not None
        archive, index = await open_archive(remote)
        (tmp_path / "target").mkdir()
        await pull(
            archive, index if indexed else None, tmp_path / "target", small(part_size=part_size),
            lambda tar, fetched: seen.append(fetched),
        )  # fmt: skip
    assert trees.read(tmp_path / "target") == trees.complete(TREE)
    assert sum(seen) <= len(data)


async def test_name_taken(tmp_path: Path) -> None:
    """UP-19: a name that exists is refused by the store, whatever was there before packing."""
    root, store = source(tmp_path), memory()
    options = small()
    free = await prepare(root, store, options)
    await push_to(store, root)
    before = store.objects[KEY]
    with pytest.raises(AlreadyExists):
        await push_to(store, root)
    with pytest.raises(AlreadyExists):  # it was free when looked at
        await push(free, store, KEY, options, overwrite=False, report=ignore)
    assert store.objects[KEY] == before
    assert not store.uploads
    await push(free, store, KEY, options, overwrite=True, report=ignore)
    assert store.objects[KEY][1] == before[1]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("method", ["upload", "put_part", "complete", "put"])
async def test_store_fails(method: str, workers: int, tmp_path: Path) -> None:
    """UP-24, UP-25, UP-31: one error comes out, alone; nothing is published, nothing left open."""
    root, store = source(tmp_path), memory()
    size = 1 << 20 if method == "put" else 500
    number = 3 if method == "put_part" else 1
    store.faults[method, number] = NetworkError("planned")
    threads = threading.active_count()
    with pytest.raises(NetworkError, match="planned"):
        await push_to(store, root, small(part_size=size, workers=workers))
    assert not store.objects
    assert not store.uploads
    assert threading.active_count() <= threads + workers + 3


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("number", [1, 2, 5])
async def test_read_fails(number: int, indexed: bool, workers: int, tmp_path: Path) -> None:
    """DN-09: one range that fails ends the pull with its error, alone."""
    tree = {f"data/train/{i}/f": trees.file(os.urandom(200_000)) for i in range(6)}
    store = holding(await packed(source(tmp_path, tree)))
    (tmp_path / "target").mkdir()
    async with store.open(KEY) as remote:
        assert remote is not None
        archive, index = await open_archive(remote)
        store.faults["read", store.calls["read"] + number] = NetworkError("planned")
        with pytest.raises(NetworkError, match="planned"):
            await pull(
                archive, index if indexed else None, tmp_path / "target",
                small(part_size=50_000, workers=workers), ignore,
            )  # fmt: skip


@pytest.mark.parametrize("indexed", [True, False])
async def test_replaced_while_read(indexed: bool, tmp_path: Path) -> None:
    """An object that is replaced during a pull is never mixed with the new one."""
    tree = {"data/train/a": trees.file(os.urandom(600_000))}
    data = await packed(source(tmp_path, tree))
    store = holding(data)
    (tmp_path / "target").mkdir()
    async with store.open(KEY) as remote:
        assert remote is not None
        archive, index = await open_archive(remote)
        store.publish(KEY, data, overwrite=True)
        with pytest.raises(RemoteChanged):
            await pull(archive, index if indexed else None, tmp_path / "target", small(), ignore)


@pytest.mark.parametrize("workers", [1, 3])
async def test_corrupt_from_the_front(workers: int, tmp_path: Path) -> None:
    """What the reader in the thread finds wrong is what the pull raises, whatever is in flight."""
    data = bytearray(await packed(source(tmp_path, {"data/train/a": trees.file(bytes(9_000))})))
    data[10] ^= 0xFF
    data += os.urandom(100_000)
    with pytest.raises(ArchiveError):
        await pull_from(
            bytes(data), tmp_path / "target", small(part_size=100, workers=workers), indexed=False
        )


async def test_empty_object(tmp_path: Path) -> None:
    """GZ-07: an empty object is told from an archive without a ranged read."""
    store = holding(b"")
    async with store.open(KEY) as remote:
        assert remote is not None
        with pytest.raises(NotAnArchive, match="empty"):
            await open_archive(remote)
    assert store.calls["read"] == 0


# --- Sources that change


def grow(path: Path) -> None:
    """One byte more."""
    with path.open("ab") as file:
        file.write(b"!")


def shrink(path: Path) -> None:
    """One byte less."""
    os.truncate(path, path.stat().st_size - 1)


def rewrite(path: Path) -> None:
    """As long as before."""
    path.write_bytes(b"z" * path.stat().st_size)


def delete(path: Path) -> None:
    """Gone."""
    path.unlink()


def delete_directory(path: Path) -> None:
    """Gone, and its directory with it."""
    path.parent.rename(path.parent.with_name("elsewhere"))


def replace_by_link(path: Path) -> None:
    """A link to a file outside."""
    path.rename(path.parents[3] / "outside")
    path.symlink_to("../../../outside")


def replace_by_pipe(path: Path) -> None:
    """A pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    """A directory."""
    path.unlink()
    path.mkdir()


def replace_parent_by_file(path: Path) -> None:
    """The directory is a file now."""
    delete_directory(path)
    path.parent.write_bytes(b"")


CHANGES = [
    grow, shrink, rewrite, delete, delete_directory, replace_by_link, replace_by_pipe,
    replace_by_directory, replace_parent_by_file,
]  # fmt: skip


async def parts_begun(level: int | None, data: bytes, directory: Path) -> int:
    """Parts that are begun before it is known whether anything may be sent, with 5 workers."""
    root = source(directory, {"data/a/f": trees.file(data)})
    store, options = memory(), TransferOptions(part_size=FRAME_MAX, workers=5, level=level)
    prepared = await prepare(root, store, options)
    taken: list[bytearray] = []

    class Counted(Buffers):
        def take(self) -> bytearray:
            taken.append(super().take())
            return taken[-1]

    async def look() -> None:
        before = -1
        while before < len(taken):
            before = len(taken)
            await asyncio.sleep(0.3)
        raise NotAllowed("not here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etcetera.transfer.packing.Buffers", Counted)
        with pytest.raises(NotAllowed, match="not here"):
            await push(prepared, store, KEY, options, overwrite=True, report=ignore, look=look)
    assert not store.calls
    return len(taken)


@pytest.mark.parametrize("level", [None, 1])
async def test_packed_ahead(level: int | None, tmp_path: Path) -> None:
    """Packing begins while the store is looked at, as far as memory allows; nothing is sent."""
    assert await parts_begun(level, os.urandom(9 * FRAME_MAX), tmp_path) == 5


async def test_not_packed_too_far_ahead(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What shrinks waits until the line is known, unless the level is fixed."""
    text = base64.b64encode(os.urandom(9 * FRAME_MAX))
    assert await parts_begun(None, text, tmp_path_factory.mktemp("automatic")) <= 2
    assert await parts_begun(1, text, tmp_path_factory.mktemp("fixed")) == 5


@pytest.mark.parametrize("size", [1, 40_000, 3 * FRAME_MAX])
@pytest.mark.parametrize("change", CHANGES)
async def test_changed_before_packing(
    change: Callable[[Path], None], size: int, tmp_path: Path
) -> None:
    """PK-01, PK-02, PK-03, PK-04: a file that is not what the scan saw ends the push."""
    tree = {"data/a/first": trees.file(os.urandom(30_000)), "data/b/f": trees.file(b"x" * size)}
    root, store = source(tmp_path, tree), memory()
    prepared = await prepare(root, store, small())
    change(root / "data/b/f")
    with pytest.raises(SourceChanged, match="data/b/f"):
        await push(prepared, store, KEY, small(), overwrite=False, report=ignore)
    assert not store.objects
    assert not store.uploads


@pytest.mark.parametrize("change", [grow, shrink, rewrite])
async def test_changed_while_packed(change: Callable[[Path], None], tmp_path: Path) -> None:
    """PK-01, PK-02, PK-03: a file that changes while it is read ends the push."""
    tree = {
        "data/a/large": trees.file(os.urandom(FRAME_MAX) * 12),
        "data/b/f": trees.file(b"x" * 5_000),
    }
    root, store = source(tmp_path, tree), memory()
    options = small(part_size=100_000, workers=1, threads=1)
    prepared = await prepare(root, store, options)
    changed: list[int] = []

    def report(tar: int, archive: int) -> None:
        if not changed:
            change(root / "data/a/large")
        changed.append(archive)

    with pytest.raises(SourceChanged, match="data/a/large"):
        await push(prepared, store, KEY, options, overwrite=False, report=report)
    assert changed
    assert not store.objects
    assert not store.uploads


async def test_old_object_survives_a_failed_push(tmp_path: Path) -> None:
    """UP-24: while a forced push fails, the name keeps what it had."""
    root = source(tmp_path)
    store: MemoryStore = holding(b"old")
    prepared = await prepare(root, store, small())
    grow(root / "data/train/c")
    with pytest.raises(SourceChanged):
        await push(prepared, store, KEY, small(), overwrite=True, report=ignore)
    assert store.objects[KEY][1] == b"old"
    assert not store.uploads
