"""Pushes that break off and go on, through memory."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from etcetera.errors import AlreadyExists, NetworkError, NotAllowed
from etcetera.stores import CannotResume, UploadInfo
from etcetera.stores.memory import MemoryStore
from etcetera.transfer.journal import CHECKPOINT, DamagedJournal, Journal
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.push import Pushed, prepare, push
from tests import trees
from tests.archives import KEY, ignore, memory, packed, pull_from, small

PART = 100_000
DEAD = NetworkError("the line is dead")


def options(**changes: int) -> TransferOptions:
    """Parts that a journal is written after."""
    return small(**({"part_size": PART, "workers": 2} | changes))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset with a file of many slices between small ones."""
    tree: trees.Tree = {
        f"data/train/a/{number:02}": trees.file(os.urandom(9_000)) for number in range(40)
    }
    tree["data/train/large"] = trees.file(os.urandom(2_500_000))
    tree["data/val/text"] = trees.file(b"text " * 100_000)
    return trees.write(tmp_path / "source", tree)


def journal_at(tmp_path: Path, every: int = PART) -> Journal:
    """What one process uses."""
    return Journal(tmp_path / "journal", {"name": "set"}, every)


async def push_on(
    tmp_path: Path,
    root: Path,
    store: MemoryStore,
    chosen: TransferOptions | None = None,
    *,
    report: Callable[[int, int], None] = ignore,
    every: int = PART,
) -> Pushed:
    """Push as a new process would."""
    chosen = chosen or options()
    prepared = await prepare(root, store, chosen)
    journal = journal_at(tmp_path, every)
    return await push(prepared, store, KEY, chosen, overwrite=False, report=report, journal=journal)


async def break_off(tmp_path: Path, root: Path, part: int, every: int = PART) -> MemoryStore:
    """A store in which a push ended at the sending of *part*."""
    store = memory()
    store.faults["put_part", part] = DEAD
    with pytest.raises(NetworkError):
        await push_on(tmp_path, root, store, every=every)
    store.faults.clear()
    return store


@pytest.mark.parametrize("part", [3, 5, 9, 17, 25, "complete"])
async def test_goes_on(part: int | str, tmp_path: Path, root: Path) -> None:
    """Wherever the line dies, the next push goes on, and the archive is that of a single run."""
    expected = await packed(root, options())
    store = memory()
    store.latency = 0.001
    store.faults[("complete", 1) if part == "complete" else ("put_part", int(part))] = DEAD
    with pytest.raises(NetworkError) as caught:
        await push_on(tmp_path, root, store)
    assert any("give the same command again" in note for note in caught.value.__notes__)
    DEAD.__notes__.clear()
    store.faults.clear()
    before = store.bytes_sent
    seen: list[tuple[int, int]] = []
    pushed = await push_on(
        tmp_path, root, store, report=lambda tar, archive: seen.append((tar, archive))
    )
    assert store.objects[KEY][1] == expected
    assert pushed.resumed >= PART
    assert store.bytes_sent - before == len(expected) - pushed.resumed
    prepared = await prepare(root, store, options())
    assert sum(tar for tar, _ in seen) == prepared.scan.tar_size
    assert sum(archive for _, archive in seen) == len(expected) - pushed.resumed
    assert not store.uploads
    assert not (tmp_path / "journal").exists()


async def test_breaks_off_again_and_again(tmp_path: Path, root: Path) -> None:
    """Any number of pushes that break off make one archive, which can be read."""
    expected = await packed(root, options())
    store = memory()
    store.latency = 0.001
    pushes = 0
    while KEY not in store.objects:
        store.calls.clear()
        store.faults["put_part", 6] = DEAD
        with suppress(NetworkError):
            await push_on(tmp_path, root, store)
        pushes += 1
        assert pushes < 30
    assert pushes > 3
    assert store.objects[KEY][1] == expected
    await pull_from(expected, tmp_path / "target")
    assert trees.read(tmp_path / "target") == trees.read(root)


async def test_too_little_to_keep(tmp_path: Path, root: Path) -> None:
    """Before the first checkpoint nothing is kept, here or there."""
    store = await break_off(tmp_path, root, 9, every=1 << 30)
    assert not store.uploads
    assert not (tmp_path / "journal").exists()


async def test_what_no_resuming_cures(tmp_path: Path, root: Path) -> None:
    """Any other error removes the upload and the journal."""
    store = memory()
    store.latency = 0.001
    store.faults["put_part", 9] = NotAllowed("go away")
    with pytest.raises(NotAllowed):
        await push_on(tmp_path, root, store)
    assert not store.uploads
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("change", ["content", "level", "part size", "upload", "part"])
async def test_begins_anew(change: str, tmp_path: Path, root: Path) -> None:
    """What does not fit any more is removed, and the push begins anew."""
    store = await break_off(tmp_path, root, 17)
    (name, upload), chosen = next(iter(store.uploads.items())), options()
    if change == "content":
        (root / "data/train/a/00").write_bytes(bytes(9_000))
    elif change == "level":
        chosen = options(level=2)
    elif change == "part size":
        chosen = options(part_size=PART + 1)
    elif change == "upload":
        del store.uploads[name]
    else:
        upload.parts[1] = bytes(PART)
    pushed = await push_on(tmp_path, root, store, chosen)
    assert pushed.resumed == 0
    assert store.objects[KEY][1] == await packed(root, chosen)
    assert not store.uploads
    assert not (tmp_path / "journal").exists()


async def test_refused_on_the_way(tmp_path: Path, root: Path) -> None:
    """A store that takes no more parts of an earlier upload gets another one."""
    store = await break_off(tmp_path, root, 9)
    store.calls.clear()
    store.faults["put_part", 3] = CannotResume("they cannot be replaced")
    seen: list[int] = []
    pushed = await push_on(tmp_path, root, store, report=lambda tar, _: seen.append(tar))
    assert pushed.resumed == 0
    assert store.objects[KEY][1] == await packed(root, options())
    assert min(seen) < 0
    assert sum(seen) == (await prepare(root, store, options())).scan.tar_size
    assert not store.uploads
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize("name", ["checkpoint", "frames"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer"])
async def test_damaged(name: str, damage: str, tmp_path: Path, root: Path) -> None:
    """A damaged journal is not used, and stops nobody."""
    store = await break_off(tmp_path, root, 17)
    path = tmp_path / "journal" / name
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "cut": data[:middle],
            "empty": b"",
            "longer": data + b"\0",
        }[damage]
    )
    journal = journal_at(tmp_path)
    # What a process wrote last, and died before it counted, does no harm.
    harmless = (name, damage) == ("frames", "longer")
    if harmless:
        assert journal.load() is not None
    else:
        with pytest.raises(DamagedJournal):
            journal.load()
    pushed = await push_on(tmp_path, root, store)
    assert (pushed.resumed > 0) == harmless
    assert store.objects[KEY][1] == await packed(root, options())


async def test_one_at_a_time(tmp_path: Path, root: Path) -> None:
    """While one process has the journal, another one pushes without."""
    store = await break_off(tmp_path, root, 17)
    first = journal_at(tmp_path)
    assert first.lock()
    pushed = await push_on(tmp_path, root, store)
    assert pushed.resumed == 0
    assert (tmp_path / "journal" / CHECKPOINT).exists()
    first.close()
    with pytest.raises(AlreadyExists):
        await push_on(tmp_path, root, store)


async def test_nothing_secret_is_written(tmp_path: Path, root: Path) -> None:
    """SE-08: only the owner may look at a journal."""
    await break_off(tmp_path, root, 17)
    directory = tmp_path / "journal"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


async def test_cannot_be_written(tmp_path: Path, root: Path) -> None:
    """Where no journal can be written, a push is one that cannot be gone on with."""
    (tmp_path / "journal").write_text("in the way")
    store = await break_off(tmp_path, root, 17)
    assert not store.uploads
    assert (await push_on(tmp_path, root, store)).resumed == 0


async def test_unfinished(tmp_path: Path, root: Path) -> None:
    """A store tells of what was kept, and drops it."""
    store = await break_off(tmp_path, root, 17)
    upload = next(iter(store.uploads.values()))
    found: list[UploadInfo] = [one async for one in store.unfinished(upload.modified)]
    assert found == []
    upload.modified = upload.modified.replace(year=2020)
    found = [one async for one in store.unfinished(upload.modified.replace(year=2021))]
    assert [(one.key, one.id) for one in found] == [(KEY, upload.id)]
    assert found[0].size == sum(map(len, upload.parts.values()))
    await store.abandon(KEY, upload.id)
    await store.abandon(KEY, upload.id)
    assert not store.uploads
