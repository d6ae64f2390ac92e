"""Single files and partitions out of an archive without an index: all of it is read each time.

The first reading makes a catalogue, checks the gzip checksum, and so vouches for the contents that
later ones take: the object is pinned.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import IO, TypeVar

from anyio import CancelScope, Lock, create_memory_object_stream

from etcetera.errors import CorruptArchive, os_errors
from etcetera.transfer.archive import Archive
from etcetera.transfer.children import ENTRY, MOST_HELD, Children, too_many
from etcetera.transfer.codec import Buffer
from etcetera.transfer.flow import in_thread
from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.in_order import read_in_order
from etcetera.transfer.options import GiB, MiB, TransferOptions
from etcetera.transfer.paths import INDEX_NAME
from etcetera.transfer.read_ahead import WHOLE, FileContent
from etcetera.transfer.reader import TooLarge
from etcetera.transfer.scan import Totals
from etcetera.transfer.sizes import PartitionSize, sizes_of_entries
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tar import Entry, read_members

Result = TypeVar("Result")

LARGEST_COPY = GiB
"""Bytes of the largest file that is read out of such an archive; it takes a temporary file."""
_IN_MEMORY = 4 * MiB
_BATCH = 4 * MiB
_BATCH_FILES = 1000


class FrontReader:
    """Reads an archive that has no index; what :class:`etcetera.transfer.reader.Reader` can."""

    digest: str | None = None

    def __init__(self, archive: Archive, options: TransferOptions) -> None:
        self.archive = archive
        # Two ranges at once: what is read has to leave room for who uses it.
        self._options = replace(options, workers=min(2, options.workers))
        self._catalogue: dict[str, Entry] = {}
        self._loading = Lock()

    async def entries(self) -> dict[str, Entry]:
        """Everything in the archive by its path; read once.

        A hard link is given as the file that it equals, with that one's path as its target.
        """
        async with self._loading:
            if not self._catalogue:
                self._catalogue = await self._read(_catalogue)
        return self._catalogue

    async def partitions(self) -> dict[str, Totals]:
        """Files and bytes of each partition."""
        sizes = await self.sizes()
        return {name: Totals(one.files, one.bytes) for name, one in sorted(sizes.items()) if name}

    async def find(self, path: str) -> Entry | None:
        """What the dataset has at *path*; ``None`` if nothing."""
        return (await self.entries()).get(path)

    async def check_entry(self, path: str) -> None:
        """Nothing to do: the catalogue comes from the archive itself."""

    async def children(self, path: str) -> Children:
        """What lies directly below *path*, a directory; or the file itself."""
        entries = await self.entries()
        return await in_thread(_children, path, entries)

    async def sizes(self) -> dict[str, PartitionSize]:
        """Sums by partition; ``""`` is all the rest."""
        entries = await self.entries()
        return await in_thread(sizes_of_entries, entries.values())

    async def open(self, path: str) -> "SpooledFile | None":
        """Copy the file at *path* out of the archive; ``None`` if there is none.

        Raises:
            TooLarge: It has more than :data:`LARGEST_COPY` bytes.
            NoSpace: There is no room for a temporary file.
        """
        entry = await self.find(path)
        if entry is None or entry.kind != "f":
            return None
        if entry.size > LARGEST_COPY:
            raise TooLarge(
                f"{path} has {entry.size:,} bytes, and the archive has no index: so large a file "
                "is not taken out of it alone; pull the dataset (etc pull)"
            )
        copy = await self._read(partial(_copy_out, path=entry.target or path))
        return SpooledFile(entry, copy)

    async def files_ahead(self, below: str) -> AsyncGenerator[list[FileContent]]:
        """Yield the files at or below the path *below* in the order of the archive.

        Closing the generator cancels the reading.
        """
        entries = await self.entries()
        loop = asyncio.get_running_loop()
        send, receive = create_memory_object_stream[list[FileContent]](0)

        def hand_over(files: list[FileContent]) -> None:
            asyncio.run_coroutine_threadsafe(send.send(files), loop).result()

        async def run() -> None:
            async with send:
                await self._read(partial(_take_files, entries, below, hand_over))

        reading = asyncio.ensure_future(run())
        try:
            async with receive:
                async for files in receive:
                    yield files
            await reading
        finally:
            reading.cancel()
            with CancelScope(shield=True), suppress(asyncio.CancelledError):
                await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # Seen: it came out above, or nobody waits for it.

    async def _read(self, read: Callable[[Iterator[Buffer]], Result]) -> Result:
        return await read_in_order(self.archive, read, self._options, lambda _tar, _archive: None)


class SpooledFile:
    """A file that was copied out of an archive; read by position, by one task at a time."""

    def __init__(self, entry: Entry, copy: IO[bytes]) -> None:
        self.entry = entry
        self._copy = copy

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes from *start* to *stop*, or to the end of the file."""
        return await in_thread(self._read, start, stop)

    def close(self) -> None:
        """Drop the copy."""
        self._copy.close()

    def _read(self, start: int, stop: int) -> bytes:
        with os_errors(f"reading the copy of {self.entry.path}"):
            self._copy.seek(start)
            return self._copy.read(max(0, stop - start))


def _members(chunks: Iterator[Buffer]) -> Iterator[tuple[Entry, ByteStream]]:
    """Each member, and the stream that stands at its content; an index is skipped."""
    stream = ByteStream(gunzip(chunks))
    for member in read_members(stream):
        if member.entry.path.partition("/")[0] != INDEX_NAME:
            yield member.entry, stream


def _catalogue(chunks: Iterator[Buffer]) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    held = 0
    for entry, _ in _members(chunks):
        path = entry.path
        held += ENTRY + len(path) + len(entry.target)
        if held > MOST_HELD:
            raise too_many("the archive")
        if entry.kind == "f" and entry.target:
            original = entries.get(entry.target)
            if original is None or original.kind != "f":
                raise CorruptArchive(
                    f"archive is corrupt: {path!r} is a hard link to {entry.target!r}, "
                    "which is no file that came before"
                )
            entry = original._replace(path=path, target=original.target or original.path)
        present = entries.get(path)
        if present is not None and (present.kind, entry.kind) != ("d", "d"):
            raise CorruptArchive(f"archive is corrupt: {path!r} is in it twice")
        entries[path] = entry
    return entries


def _children(path: str, entries: dict[str, Entry]) -> Children:
    children = Children(path)
    for entry in entries.values():
        children.add(entry)
    return children


def _copy_out(chunks: Iterator[Buffer], path: str) -> IO[bytes]:
    copy = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - its reader closes it
    try:
        for entry, stream in _members(chunks):
            if entry.path == path:
                with os_errors(f"copying {path} to a temporary file"):
                    for piece in stream.pieces(entry.size):
                        copy.write(piece)
    except BaseException:
        copy.close()
        raise
    return copy


def _take_files(
    entries: dict[str, Entry],
    below: str,
    hand_over: Callable[[list[FileContent]], None],
    chunks: Iterator[Buffer],
) -> None:
    prefix = f"{below}/" if below else ""
    files: list[FileContent] = []
    size = 0
    for entry, stream in _members(chunks):
        path = entry.path
        if entry.kind != "f" or not (path.startswith(prefix) or path == below):
            continue
        here = not entry.target and entry.size <= WHOLE
        files.append(FileContent(entries[path], stream.read(entry.size) if here else None))
        size += entry.size if here else 0
        if size >= _BATCH or len(files) >= _BATCH_FILES:
            hand_over(files)
            files, size = [], 0
    if files:
        hand_over(files)
