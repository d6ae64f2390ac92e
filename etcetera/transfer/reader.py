"""Single files out of an archive, by its index: path → segment → frames → one ranged read.

No more than the frames that hold what is asked for is fetched, and everything that is handed out
has been checked: the segment against the root, each frame against its checksums, the tar header
against the index's entry, the content against its SHA-256. Of a large file that is not read from
front to back, only the SHA-256 cannot be.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from anyio import Lock

from etcetera.errors import CorruptArchive, StoreError
from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.children import Children
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import wrong_content
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import (
    FramePlace,
    MemberPlace,
    Segment,
    SegmentPlace,
    parse_segment,
)
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import order_key
from etcetera.transfer.scan import Totals
from etcetera.transfer.sizes import PartitionSize, sizes_of_index
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import check_content, check_header, inflate_checked

_KEPT_SEGMENTS = 4
"""Segments that are held decoded, each of some thousand entries."""
_KEPT_PLACES = 4
"""Places of one file of which the frames are kept, together at most some 20 MiB. Who reads a column
of a table comes by the same frames again and again."""
_FIRST_AHEAD = MiB
_MOST_AHEAD = 4 * MiB
"""Bytes of a file that are fetched at once when it is read from front to back."""


class TooLarge(StoreError):
    """A file is larger than its reader wants to hold in memory."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A segment, decoded, and its members by path."""

    segment: Segment
    members: dict[str, MemberPlace]


class Reader:
    """Reads an archive that has an index; from one event loop, by any number of tasks."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._segments: OrderedDict[int, _Known] = OrderedDict()
        self._loading = Lock()
        self.checked: set[int] = set()
        """Where members begin whose headers were found right: of large files, and of links."""

    @property
    def archive(self) -> Archive:
        """What is read."""
        return self.index.archive

    @property
    def digest(self) -> str:
        """Of the dataset, as the index has it."""
        return self.index.footer.digest

    async def partitions(self) -> dict[str, Totals]:
        """Files and bytes of each partition, as the index has them."""
        return dict(sorted(self.index.root.partitions.items()))

    async def find(self, path: str) -> Entry | None:
        """What the dataset has at *path*; ``None`` if nothing."""
        member = await self.member(path)
        return member.entry if member is not None else None

    async def member(self, path: str) -> MemberPlace | None:
        """Look one path up in the index; ``None`` if it is not there.

        Raises:
            CorruptArchive: It is there twice.
        """
        found: MemberPlace | None = None
        for number in await in_thread(self._candidates, path):
            member = (await self._segment(number)).members.get(path)
            if member is not None and found is not None:
                raise _twice(path)
            found = found or member
        return found

    async def children(self, path: str) -> Children:
        """What lies directly below *path*, a directory; or the file itself.

        Of the dataset itself and of ``data`` no more is read than has to be: sums over partitions
        are in the root.
        """
        children = Children(path)
        if path in ("", "data"):
            for name, totals in self.index.root.partitions.items():
                children.add_partition(name, totals)
        if path == "data":
            return children
        wanted = _outside_data if path == "" else partial(touches, path)
        async with aclosing(self.index.segments(wanted)) as segments:
            async for segment in segments:
                await in_thread(_add_entries, children, segment)
        return children

    async def sizes(self) -> dict[str, PartitionSize]:
        """Sums by partition, with the bytes that its frames take; ``""`` is all the rest."""
        return await sizes_of_index(self.index)

    async def open(self, path: str) -> "MemberFile | None":
        """Open the file at *path*; ``None`` if there is none."""
        member = await self.member(path)
        if member is not None and member.entry.kind == "f":
            return MemberFile(self, member)
        await self.check_entry(path)
        return None

    async def check_entry(self, path: str) -> None:
        """Make sure that the archive has what the index says is at *path*, if that is anything.

        Raises:
            CorruptArchive: It has something else.
        """
        member = await self.member(path)
        if member is not None:
            await self.check_header(member)

    async def read_file(self, path: str, limit: int) -> bytes | None:
        """The content of one file of at most *limit* bytes; ``None`` if there is none.

        Raises:
            TooLarge: It is longer than *limit*.
            CorruptArchive: Frames, header or content are not what the index says.
        """
        file = await self.open(path)
        if file is None:
            return None
        size = file.entry.size
        if size > limit:
            raise TooLarge(f"{path} has {size:,} bytes, more than {limit:,}: not read")
        return await file.read(0, size)

    async def frames(self, start: int, stop: int) -> list[FramePlace]:
        """The frames that hold the tar stream from *start* to *stop*.

        Raises:
            CorruptArchive: There are none.
        """
        places = self.index.root.segments
        first = max(0, bisect_right(places, start, key=_data_start) - 1)
        found: list[FramePlace] = []
        for number in range(first, len(places)):
            if places[number].data_start >= stop:
                break
            found += frames_between((await self._segment(number)).segment.frames, start, stop)
        if not found or found[0].start > start or found[-1].stop < stop:
            raise CorruptArchive("archive is corrupt: its index does not fit it (an entry)")
        return found

    async def check_header(self, member: MemberPlace) -> None:
        """Fetch the frame that *member* begins with, unless that was done, and check its header.

        Raises:
            CorruptArchive: The header is not what the index says.
        """
        if member.start not in self.checked:
            frames = await self.frames(member.start, member.start + member.header_size)
            await in_thread(_check_begin, await self.fetch(frames), frames, member)
            self.checked.add(member.start)

    async def fetch(self, frames: list[FramePlace]) -> Buffer:
        """The bytes of consecutive frames, as they are in the archive."""
        return await self.archive.read(frames[0].offset, frames[-1].offset + frames[-1].length)

    def _candidates(self, path: str) -> list[int]:
        """Which segments can have an entry of this path."""
        key = order_key(path)
        return [
            number
            for number, place in enumerate(self.index.root.segments)
            if place.entries and order_key(place.first) <= key <= order_key(place.last)
        ]

    async def _segment(self, number: int) -> _Known:
        async with self._loading:
            known = self._segments.get(number)
            if known is None:
                place = self.index.root.segments[number]
                frame = await self.archive.read(place.offset, place.offset + place.length)
                known = await in_thread(_decode, frame, place)
                while len(self._segments) >= _KEPT_SEGMENTS:
                    self._segments.popitem(last=False)
                self._segments[number] = known
            self._segments.move_to_end(number)
            return known


class MemberFile:
    """One file of an archive, read by position; used by one task at a time.

    What was fetched last is kept, in whole frames. Who reads on where it ends gets more and more
    at once, up to 4 MiB; who jumps about costs the frames that hold what is asked for, and may
    come back to the last few places.
    """

    def __init__(self, reader: Reader, member: MemberPlace) -> None:
        self._reader = reader
        self._member = member
        self._kept: deque[tuple[int, memoryview]] = deque(maxlen=_KEPT_PLACES)
        self._ahead = 0
        self._sha256 = hashlib.sha256()
        self._hashed = 0

    @property
    def entry(self) -> Entry:
        """What is read."""
        return self._member.entry

    async def read(self, start: int, stop: int) -> bytes:
        """The bytes from *start* to *stop*, or to the end of the file.

        Raises:
            CorruptArchive: Frames, header or content are not what the index says. The content of a
                file that lies in several frames is known for wrong only at the end of reading it
                from front to back.
        """
        pieces: list[memoryview] = []
        stop = min(stop, self.entry.size)
        while start < stop:
            first, content = self._find(start) or await self._fetch(start, stop)
            pieces.append(content[start - first : stop - first])
            start += len(pieces[-1])
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()

    def _find(self, start: int) -> tuple[int, memoryview] | None:
        """What is kept around a position, and where in the file it begins."""
        for first, content in reversed(self._kept):
            if first <= start < first + len(content):
                return first, content
        return None

    async def _fetch(self, start: int, stop: int) -> tuple[int, memoryview]:
        """Keep the frames that hold the bytes from *start* on, as many as are due."""
        follows = bool(self._kept) and start == self._kept[-1][0] + len(self._kept[-1][1])
        if follows:
            self._kept.clear()
        self._ahead = min(max(_FIRST_AHEAD, 2 * self._ahead), _MOST_AHEAD) if follows else 0
        stop = min(max(stop, start + self._ahead), start + _MOST_AHEAD, self.entry.size)
        member = self._member
        begin = member.start + member.header_size
        frames = await self._reader.frames(begin + start, begin + stop)
        if frames[0].start > member.start:
            await self._reader.check_header(member)
        data = await self._reader.fetch(frames)
        first, content = await in_thread(self._decode, data, frames)
        self._kept.append((first, content))
        if len(content) < self.entry.size:
            self._reader.checked.add(member.start)
        return first, content

    def _decode(self, data: Buffer, frames: list[FramePlace]) -> tuple[int, memoryview]:
        """Where what the frames hold of the file begins in it, and that."""
        member = self._member
        if len(frames) == 1 and frames[0].start <= member.start and member.stop <= frames[0].stop:
            content = inflate_checked(data, frames[0])
            return 0, check_content(content, member.start - frames[0].start, member)
        if frames[0].start <= member.start:
            content = _check_begin(data, frames, member)
        else:
            content = inflate_frames(data, frames)
        if frames[-1].stop > member.stop:
            raise misfit(member)
        begin = member.start + member.header_size - frames[0].start
        view = memoryview(content)[max(0, begin) : begin + self.entry.size]
        start = max(0, -begin)
        if start == self._hashed:
            self._sha256.update(view)
            self._hashed += len(view)
            if self._hashed == self.entry.size and self._sha256.hexdigest() != member.sha256:
                raise wrong_content(self.entry)
        return start, view


def frames_between(frames: list[FramePlace], start: int, stop: int) -> list[FramePlace]:
    """Those of a segment's frames that hold the tar stream from *start* to *stop*."""
    first = max(0, bisect_right(frames, start, key=_start) - 1)
    return frames[first : bisect_left(frames, stop, key=_start)]


def touches(path: str, place: SegmentPlace) -> bool:
    """Whether a segment can have an entry at *path*, or below it."""
    if not path or not place.entries:
        return bool(place.entries)
    key = order_key(path)
    # What lies below follows on "\0", which comes before all else.
    return key <= order_key(place.last) and order_key(place.first) < f"{key}\1"


def _outside_data(place: SegmentPlace) -> bool:
    return bool(place.entries) and order_key(place.first) < order_key("data")


def _add_entries(children: Children, segment: Segment) -> None:
    for member in segment.members:
        children.add(member.entry)


def _decode(frame: Buffer, place: SegmentPlace) -> _Known:
    segment = parse_segment(frame, place)
    return _Known(segment, members_by_path(segment))


def members_by_path(segment: Segment) -> dict[str, MemberPlace]:
    """The members that begin in a segment.

    Raises:
        CorruptArchive: Two have one path.
    """
    members: dict[str, MemberPlace] = {}
    for member in segment.members:
        if members.setdefault(member.entry.path, member) is not member:
            raise _twice(member.entry.path)
    return members


def inflate_frames(data: Buffer, frames: list[FramePlace]) -> bytes:
    """The tar bytes of consecutive frames; *data* begins with the first one.

    Raises:
        CorruptArchive: A checksum or a length is not what the index says.
    """
    view, offset = memoryview(data), frames[0].offset
    return b"".join(
        inflate_checked(view[frame.offset - offset :][: frame.length], frame) for frame in frames
    )


def _check_begin(data: Buffer, frames: list[FramePlace], member: MemberPlace) -> bytes:
    """Inflate the frames that a member begins with, and check its header."""
    first = member.start - frames[0].start
    if first and member.stop > frames[0].stop:
        raise misfit(member)
    content = inflate_frames(data, frames)
    check_header(content, first, member)
    return content


def misfit(member: MemberPlace) -> CorruptArchive:
    """The error for a member whose frames are not as the format has them."""
    return CorruptArchive(
        f"archive is corrupt: {member.entry.path!r} neither lies in one frame nor has its own"
    )


def _twice(path: str) -> CorruptArchive:
    return CorruptArchive(f"archive is corrupt: {path!r} is in it twice")


def _data_start(place: SegmentPlace) -> int:
    return place.data_start


def _start(frame: FramePlace) -> int:
    return frame.start
