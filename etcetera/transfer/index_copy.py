"""A copy of an archive's index, kept with a receipt.

It holds what the archive ends with, from where its data frames stop, so that the one strict parser
reads it too and nothing is encoded twice. Eight bytes before it say where in the object that was.
"""

import logging
import os
import shutil
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from etcetera.errors import CorruptArchive, InvalidDataset
from etcetera.transfer.codec import Buffer, Frame
from etcetera.transfer.descend import open_inside
from etcetera.transfer.index import TAIL, Segment, parse_footer, parse_root, parse_segment
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.pack import Group, group
from etcetera.transfer.paths import order_key
from etcetera.transfer.rows import Rows
from etcetera.transfer.tar import Entry, header_size, padded

_START = struct.Struct(">Q")
_logger = logging.getLogger("etcetera")


class IndexCopy:
    """Takes an index down while it is sent or read, in any order, from any thread.

    Where it cannot be written, the transfer goes on all the same, and there is no copy.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        """Write to *file*, which is empty; to nowhere without one."""
        self._file = file
        self._start = -1
        self._pieces: list[tuple[int, int]] = []

    def begin(self, start: int) -> None:
        """Say at which byte of the object the data frames end; called first, or to begin anew."""
        self._start = start
        self._pieces.clear()
        with self._giving_up():
            if self._file is not None:
                self._file.truncate(0)
        self._write(0, _START.pack(start))

    def put(self, offset: int, data: Buffer) -> None:
        """Take down what of *data* belongs to the index.

        Args:
            offset: Where *data* begins in the object.
            data: Bytes of the object.
        """
        stop = offset + len(data)
        if not 0 <= self._start < stop:
            return
        first = max(offset, self._start)
        self._write(_START.size + first - self._start, memoryview(data)[first - offset :])
        self._pieces.append((first, stop))

    def gaps(self, stop: int) -> list[tuple[int, int]]:
        """What is missing up to byte *stop*, where the object ends."""
        gaps = []
        position = self._start
        for first, last in sorted(self._pieces):
            if first > position:
                gaps.append((position, first))
            position = max(position, last)
        if position < stop:
            gaps.append((position, stop))
        return gaps if self._file is not None else []

    def save(self, file: BinaryIO) -> bool:
        """Write the copy into *file*; false if there is none.

        Raises:
            OSError: It cannot be written.
        """
        if self._file is None or self._start < 0:
            return False
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        return True

    def _write(self, position: int, data: Buffer) -> None:
        view = memoryview(data)
        with self._giving_up():
            while view and self._file is not None:
                count = os.pwrite(self._file.fileno(), view, position)
                view, position = view[count:], position + count

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Go on without a copy when it cannot be written."""
        try:
            yield
        except OSError as error:
            self._file = None  # whoever opened it closes it
            _logger.warning("The index is not kept, so etc verify will not work: %s", error)


def write_index(rows: Iterable[tuple[Entry, str]], copy: IndexCopy) -> str:
    """Make the index that an archive has not, and return the digest of the dataset.

    Its frames are as they would be, but have one byte each: there is no such object.

    Args:
        rows: Every entry and its SHA-256, by path.
        copy: Gets the index.

    Raises:
        CorruptArchive: A path occurs twice.
    """
    index = IndexWriter()
    sha256: deque[str] = deque()

    def entries() -> Iterator[Entry]:
        for entry, digest in rows:
            sha256.append(digest)
            yield entry

    for job in group(entries()):
        if isinstance(job, Group):
            members = [_member(entry, sha256.popleft()) for entry in job.entries]
            size = sum(one.header_size + padded(one.entry.size) for one in members)
            index.add_frame(Frame(b"\0", size, 0, 0), members)
            continue
        file = job.file
        index.add_frame(Frame(b"\0", job.size, 0, 0), [])
        if job.number == 0:
            index.begin_large(file.entry, len(file.head))
        if job.number == file.slices - 1:
            index.finish_large(_member(file.entry, sha256.popleft()))
    position = index.length
    copy.begin(position)
    try:
        for data in index.finish(level=1):
            copy.put(position, data)
            position += len(data)
    except InvalidDataset as error:  # more partitions than any index can name
        _logger.debug("no index is kept: %s", error)
    return index.digest


def _member(entry: Entry, sha256: str) -> PackedMember:
    head = header_size(entry.path, entry.size, entry.target, entry.kind)
    return PackedMember(entry, head, sha256)


class KeptIndex:
    """An index, read from the copy of it."""

    def __init__(self, path: Path) -> None:
        """Open the copy at *path*.

        Raises:
            CorruptArchive: It is none, or damaged.
            InvalidDataset: It is a link.
            OSError: It cannot be read.
        """
        self._file = os.fdopen(open_inside(path.parent, path.name), "rb")
        try:
            head = self._file.read(_START.size)
            if len(head) < _START.size:
                raise _damaged()
            (self._start,) = _START.unpack(head)
            size = self._start + os.fstat(self._file.fileno()).st_size - _START.size
            footer = parse_footer(self._read(max(self._start, size - TAIL), size), size)
            if footer is None:
                raise _damaged()
            self.footer = footer
            offset = footer.root_offset
            self.root = parse_root(self._read(offset, offset + footer.root_length), footer)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def entries(self) -> Iterator[tuple[Entry, str]]:
        """Yield every entry with its SHA-256, by path; in bounded memory but for overlaps.

        Raises:
            CorruptArchive: The copy is damaged.
        """
        rows = Rows()
        for segment in self._segments():
            if self.root.ordered:
                members = sorted(segment.members, key=lambda one: order_key(one.entry.path))
                yield from ((member.entry, member.sha256) for member in members)
            else:
                for member in segment.members:
                    rows.add(member.entry, member.sha256)
        yield from rows.take()

    def _segments(self) -> Iterator[Segment]:
        for place in self.root.segments:
            frame = self._read(place.offset, place.offset + place.length)
            yield parse_segment(frame, place)

    def _read(self, start: int, stop: int) -> bytes:
        if start < self._start:
            raise _damaged()
        self._file.seek(_START.size + start - self._start)
        return self._file.read(stop - start)


def _damaged() -> CorruptArchive:
    return CorruptArchive("the copy of the index is damaged")
