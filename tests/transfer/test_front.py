"""Archives without an index, looked into from front to back."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from etcetera.errors import ArchiveError, CorruptArchive
from etcetera.transfer import front
from etcetera.transfer.archive import open_archive
from etcetera.transfer.front import FrontReader
from etcetera.transfer.options import MiB
from etcetera.transfer.reader import TooLarge
from tests.archives import KEY, holding, small

FILES = {
    "README.md": b"# Plain\n",
    "data/train/a": b"a" * 1000,
    "data/train/deep/b": bytes(range(256)) * 9000,
    "data/val/c": b"",
}


def member(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    """A header."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, target, size, 1_000_000_000
    return info


def plain(*more: tarfile.TarInfo) -> bytes:
    """An archive as Python makes it, without an entry for any directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for path, content in FILES.items():
            tar.addfile(member(path, size=len(content)), io.BytesIO(content))
        tar.addfile(member("data/val/hard", tarfile.LNKTYPE, "data/train/a"))
        tar.addfile(member("data/val/harder", tarfile.LNKTYPE, "data/val/hard"))
        tar.addfile(member("data/val/soft", tarfile.SYMTYPE, "../train/a"))
        for info in more:
            tar.addfile(info)
    return out.getvalue()


@asynccontextmanager
async def reading(data: bytes) -> AsyncIterator[FrontReader]:
    """A reader of an archive."""
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        archive, index = await open_archive(remote)
        assert index is None
        yield FrontReader(archive, small())


async def test_files() -> None:
    """Each file is found, hard links as what they equal, and can be read by position."""
    async with reading(plain()) as reader:
        for path, content in FILES.items():
            file = await reader.open(path)
            assert file is not None
            assert file.entry.size == len(content)
            assert await file.read(0, len(content)) == content
            assert await file.read(100, 300) == content[100:300]
            file.close()
        for path in ("data/val/hard", "data/val/harder"):
            file = await reader.open(path)
            assert file is not None
            assert (file.entry.path, await file.read(0, 2000)) == (path, FILES["data/train/a"])
            file.close()
        assert await reader.open("data/val/soft") is None
        assert await reader.open("data/train") is None


async def test_directories() -> None:
    """Partitions and directories have their sums, though no entry names them."""
    async with reading(plain()) as reader:
        partitions = await reader.partitions()
        assert {name: (one.files, one.bytes) for name, one in partitions.items()} == {
            "train": (2, 1000 + 256 * 9000),
            "val": (3, 2000),
        }
        rows = (await reader.children("data/train")).rows()
        assert [(row.path, row.kind, row.size) for row in rows] == [
            ("data/train/a", "f", 1000),
            ("data/train/deep", "d", 256 * 9000),
        ]
        sizes = await reader.sizes()
        assert (sizes["train"].archive_bytes, sizes[""].files) == (None, 1)


async def test_files_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop gets the files in the order of the archive, large ones and hard links to be opened."""
    monkeypatch.setattr(front, "WHOLE", MiB)
    async with reading(plain()) as reader:
        found = [one async for files in reader.files_ahead("data") for one in files]
    assert [entry.path for entry, _ in found] == [
        "data/train/a", "data/train/deep/b", "data/val/c", "data/val/hard", "data/val/harder",
    ]  # fmt: skip
    contents = [content for _, content in found]
    assert contents == [FILES["data/train/a"], None, b"", None, None]


async def test_closing_early_leaves_nothing() -> None:
    """Who leaves a loop early leaves no task and no thread that reads on."""
    async with reading(plain()) as reader:
        before = asyncio.all_tasks()
        async with aclosing(reader.files_ahead("")) as batches:
            await anext(batches)
        assert asyncio.all_tasks() == before


@pytest.mark.parametrize("cut", [1, 9, 600])
async def test_truncated(cut: int) -> None:
    """A truncated archive is refused before anything of it is handed out."""
    async with reading(plain()[:-cut]) as reader:
        with pytest.raises(ArchiveError):
            await reader.open("README.md")
        with pytest.raises(ArchiveError):
            await anext(reader.files_ahead(""))


async def test_wrong_checksum() -> None:
    """So is one whose content is damaged."""
    data = bytearray(plain())
    data[-6] ^= 1
    async with reading(bytes(data)) as reader:
        with pytest.raises(CorruptArchive):
            await reader.open("README.md")


@pytest.mark.parametrize(
    "more",
    [
        member("data/train/a"),
        member("../escapes"),
        member("data/val/x", tarfile.LNKTYPE, "data/val/nothing"),
        member("data/val/x", tarfile.SYMTYPE, "../../../etc/passwd"),
        member("data/val/x", tarfile.FIFOTYPE),
    ],
    ids=["twice", "escapes", "dangling hard link", "link escapes", "fifo"],
)
async def test_refused(more: tarfile.TarInfo) -> None:
    """What a pull would refuse is refused here as well."""
    async with reading(plain(more)) as reader:
        with pytest.raises(ArchiveError):
            await reader.partitions()


async def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that would fill the disk for temporary files is left to a pull."""
    monkeypatch.setattr(front, "LARGEST_COPY", 2000)
    async with reading(plain()) as reader:
        with pytest.raises(TooLarge, match="etc pull"):
            await reader.open("data/train/deep/b")


async def test_an_unused_index_is_skipped() -> None:
    """An index of another kind is no part of the dataset."""
    async with reading(plain(member(".etcetera-index.jsonl"))) as reader:
        assert ".etcetera-index.jsonl" not in await reader.entries()
