"""Single files and partitions out of an archive: what is fetched for them, and what is refused."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from etcetera.errors import ArchiveError, CorruptArchive
from etcetera.stores.memory import MemoryStore
from etcetera.transfer import index_writer, read_ahead
from etcetera.transfer.archive import open_archive
from etcetera.transfer.options import MiB
from etcetera.transfer.pack import FRAME_MAX
from etcetera.transfer.read_ahead import files_ahead
from etcetera.transfer.reader import Reader, TooLarge
from tests import trees
from tests.archives import KEY, holding, packed
from tests.forge import Forgery
from tests.transfer.test_forged_index import LIES
from tests.transfer.test_forged_index import TREE as FORGED_TREE

LARGE = "data/train/large"
TREE: trees.Tree = trees.SMALL | {
    LARGE: trees.file(random.Random(1).randbytes(5 * FRAME_MAX + 12_345)),
    "data/train/middling": trees.file(random.Random(2).randbytes(FRAME_MAX + 7)),
    "data/train/z": trees.file(b"behind"),
}


@asynccontextmanager
async def reading(data: bytes) -> AsyncIterator[tuple[Reader, MemoryStore]]:
    """A reader of an archive, and the store that counts."""
    store = holding(data)
    async with store.open(KEY) as remote:
        assert remote is not None
        index = (await open_archive(remote))[1]
        assert index is not None
        yield Reader(index), store


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good archive."""
    return asyncio.run(packed(trees.write(tmp_path_factory.mktemp("source"), TREE)))


@pytest.mark.parametrize("segment", [1, 3, 4096])
async def test_read_file(segment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file is found and checked without the others, in slices or not."""
    monkeypatch.setattr(index_writer, "MAX_SEGMENT", segment)
    data = await packed(trees.write(tmp_path / "source", TREE))
    async with reading(data) as (reader, _):
        for path, node in TREE.items():
            found = await reader.read_file(path, 1 << 30)
            assert found == (node.content if node.kind == "f" else None)
        assert await reader.read_file("data/train/nothing", 9) is None
        assert await reader.read_file("zzz", 9) is None
        with pytest.raises(TooLarge):
            await reader.read_file("meta.json", 3)


async def test_fetches_the_frames_of_a_file_alone(tmp_path: Path) -> None:
    """Behind the index, one file costs the frames that hold it, to the byte."""
    source = random.Random(3)
    tree = {
        f"data/train/{number:04}": trees.file(source.randbytes(100_000)) for number in range(60)
    }
    async with reading(await packed(trees.write(tmp_path / "source", tree))) as (reader, store):
        path = "data/train/0007"
        found = await reader.locate(path)
        assert found is not None
        frames = await reader.frames(found[0].start, found[0].stop, found[1])
        before = store.bytes_read
        assert await reader.read_file(path, MiB) == tree[path].content
        assert store.bytes_read - before == sum(frame.length for frame in frames)
        assert store.bytes_read - before < MiB + 1000


async def test_reads_by_position(archive: bytes) -> None:
    """Any piece of a large file is right, and costs no more than its frames and the header's."""
    content = TREE[LARGE].content
    chance = random.Random(4)
    async with reading(archive) as (reader, store):
        file = await reader.open(LARGE)
        assert file is not None
        assert await file.read(4 * FRAME_MAX, 4 * FRAME_MAX + 5) == content[4 * FRAME_MAX :][:5]
        assert store.bytes_read < 4 * FRAME_MAX  # the tail, the header's frame, and one or two
        for _ in range(50):
            start, stop = sorted(chance.choices(range(len(content) + 9), k=2))
            assert await file.read(start, stop) == content[start:stop]
        assert await file.read(9, 9) == b""
        assert await file.read(len(content), len(content) + 5) == b""


async def test_reads_on_in_larger_pieces(archive: bytes) -> None:
    """Reading from front to back fetches nothing twice, and asks for more and more."""
    content = TREE[LARGE].content
    async with reading(archive) as (reader, store):
        file = await reader.open(LARGE)
        assert file is not None
        await file.read(0, 1)
        requests, before = store.calls["read"], store.bytes_read
        step = 10_000
        pieces = [await file.read(start, start + step) for start in range(0, len(content), step)]
        assert b"".join(pieces) == content
        assert store.bytes_read - before < len(content)
        assert store.calls["read"] - requests <= 4


@pytest.mark.parametrize("whole", [True, False])
async def test_content_of_several_frames(whole: bool, archive: bytes) -> None:
    """A wrong SHA-256 of a large file is noticed by who reads it from front to back."""
    forgery = Forgery.of(archive)
    forgery.set_digest(LARGE, "0" * 64)
    async with reading(forgery.build()) as (reader, _):
        file = await reader.open(LARGE)
        assert file is not None
        size = file.entry.size
        if whole:
            with pytest.raises(CorruptArchive, match="SHA-256"):
                await file.read(0, size)
        else:
            assert await file.read(2 * MiB, size) == TREE[LARGE].content[2 * MiB :]


@pytest.mark.parametrize("below", ["", "data", "data/train", "data/train/deep", "assets"])
@pytest.mark.parametrize("segment", [2, 4096])
async def test_files_ahead(
    segment: int, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files below a directory come in the order of the archive, large ones without content."""
    monkeypatch.setattr(index_writer, "MAX_SEGMENT", segment)
    monkeypatch.setattr(read_ahead, "WHOLE", 2 * FRAME_MAX)
    data = await packed(trees.write(tmp_path / "source", TREE))
    async with reading(data) as (reader, _):
        order = [
            member.entry.path
            async for part in reader.index.segments()
            for member in part.members
            if member.entry.kind == "f" and member.entry.path.startswith(f"{below}/" * bool(below))
        ]
        found = [one async for files in files_ahead(reader, below) for one in files]
    assert [entry.path for entry, _ in found] == order
    for entry, content in found:
        if content is None:
            assert entry.path in (LARGE, "data/train/middling")
        else:
            assert content == TREE[entry.path].content
    if segment == 4096:
        assert [entry.path for entry, content in found if content is None] == [LARGE] * (
            LARGE in order
        )


async def test_files_ahead_fetches_a_partition_alone(tmp_path: Path) -> None:
    """A loop over one partition costs its frames, in large ranges, and none of the others."""
    source = random.Random(5)
    tree = {
        f"data/{name}/{number:03}": trees.file(source.randbytes(200_000))
        for name in ("test", "train", "val")
        for number in range(60)
    }
    async with reading(await packed(trees.write(tmp_path / "source", tree))) as (reader, store):
        sizes = await reader.sizes()
        requests, before = store.calls["read"], store.bytes_read
        count = 0
        async for files in files_ahead(reader, "data/train"):
            count += len(files)
        assert count == 60
        assert store.bytes_read - before == sizes["train"].archive_bytes
        assert store.calls["read"] - requests <= 5


async def test_closing_cancels_what_is_under_way(archive: bytes) -> None:
    """Who leaves a loop early leaves no task behind."""
    async with reading(archive) as (reader, store):
        store.latency = 0.01
        before = asyncio.all_tasks()
        async with aclosing(files_ahead(reader, "")) as batches:
            await anext(batches)
        assert asyncio.all_tasks() == before


async def test_a_failing_request_ends_the_loop(archive: bytes) -> None:
    """What breaks a request ahead comes out of the loop."""
    async with reading(archive) as (reader, store):
        store.faults[("read", store.calls["read"] + 2)] = ConnectionError("broken")
        with pytest.raises(ConnectionError):
            async for _ in files_ahead(reader, ""):
                pass


async def test_children(archive: bytes) -> None:
    """A directory is listed with sums, and data/ without reading more than the root."""
    async with reading(archive) as (reader, store):
        top = {row.path: row for row in (await reader.children("")).rows()}
        assert set(top) == {"README.md", "meta.json", "assets", "data"}
        assert (top["assets"].files, top["assets"].size) == (2, 1280 + 10)
        assert top["data"].files == sum(path.startswith("data/") for path in TREE) - 2
        before = store.bytes_read
        partitions = {row.path: row.size for row in (await reader.children("data")).rows()}
        assert partitions.keys() == {"data/test", "data/train"}
        assert store.bytes_read == before
        train = (await reader.children("data/train")).rows()
        assert sum(row.size for row in train) == partitions["data/train"]
        assert [row.kind for row in train if row.path == "data/train/deep"] == ["d"]
        (link,) = (await reader.children("data/test/link")).rows()
        assert (link.kind, link.target) == ("l", "../train/a")
        void = await reader.children("data/train/void")
        assert (void.is_directory, void.rows()) == (True, [])
        assert not (await reader.children("data/nothing")).is_directory


async def _everything(reader: Reader) -> dict[str, bytes | None]:
    """All that an archive can be asked for."""
    found: dict[str, bytes | None] = {}
    await reader.sizes()
    await reader.children("")
    await reader.children("data/train")
    for path in FORGED_TREE:
        found[path] = await reader.read_file(path, 1 << 30)
    async for files in files_ahead(reader, ""):
        for entry, content in files:
            if content is not None:
                assert found.setdefault(entry.path, content) == content
    return found


@pytest.fixture(scope="module")
def forged(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the lies are told about."""
    return asyncio.run(packed(trees.write(tmp_path_factory.mktemp("forged"), FORGED_TREE)))


UNSEEN = (
    # What only a reader of everything can know: sums, and what lies around the data.
    "digest", "files-", "bytes-", "partition", "trailer", "gzip-header", "index-header",
    "hidden-member", "directory-twice", "link-as-file", "file-as-directory",
    # Nothing is written, so that these lead nowhere: they are read as what they are called.
    "through-link-in-tar-too", "below-file-in-tar-too",
    # Nobody asked for what is called so, and nothing else has gone.
    "name-of-directory", "name-of-link",
)  # fmt: skip


# A sum of that many digits does not fit into the footer: such an archive has no index.
@pytest.mark.parametrize("lie", [lie for lie in LIES if lie != "size-10^400"])
async def test_forgeries(lie: str, forged: bytes) -> None:
    """Where index and archive disagree, what was asked for is refused, and never wrong."""
    forgery = Forgery.of(forged)
    LIES[lie](forgery)
    try:
        async with reading(forgery.build()) as (reader, _):
            found = await _everything(reader)
    except ArchiveError:
        return
    assert lie.startswith(UNSEEN)
    for path, content in found.items():
        if path in FORGED_TREE and content is not None:
            assert content == FORGED_TREE[path].content


@pytest.mark.parametrize("how", ["name", "content"])
async def test_empty_files_are_checked_too(how: str, forged: bytes) -> None:
    """What has no content must at least be there, and be nothing."""
    empty = next(
        path for path, node in FORGED_TREE.items() if node.kind == "f" and not node.content
    )
    forgery = Forgery.of(forged)
    if how == "name":
        forgery.rename(empty, f"{empty}x")
    else:
        forgery.set_digest(empty, "0" * 64)
    async with reading(forgery.build()) as (reader, _):
        with pytest.raises(ArchiveError):
            await reader.open(f"{empty}x" if how == "name" else empty)
