"""Single files out of an archive, by its index: path → segment → frames → one ranged read.

No more than the frames that hold what is asked for is fetched, and everything that is handed out
has been checked: the segment against the root, each frame against its checksums, the tar header
against the index's entry, the content against its SHA-256. Of a large file that is not read from
front to back, only the SHA-256 cannot be.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable
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
from etcetera.transfer.member_file import MemberFile, check_begin
from etcetera.transfer.paths import order_key
from etcetera.transfer.scan import Totals
from etcetera.transfer.sizes import PartitionSize, sizes_of_index
from etcetera.transfer.tar import Entry

_KEPT_SEGMENTS = 8
"""Segments that are held decoded, each of some thousand entries and 2 MiB."""
_NOTHING = hashlib.sha256().hexdigest()


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
        self._loading: dict[int, Lock] = {}
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
        found = await self.locate(path)
        return found[0].entry if found is not None else None

    async def locate(self, path: str) -> tuple[MemberPlace, Segment] | None:
        """Look one path up in the index: what it says, and where; ``None`` if it is not there.

        Raises:
            CorruptArchive: It is there twice.
        """
        found: tuple[MemberPlace, Segment] | None = None
        for number in await in_thread(self._candidates, path):
            known = await self._segment(number)
            if (member := known.members.get(path)) is not None:
                if found is not None:
                    raise _twice(path)
                found = member, known.segment
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
        places = self.index.root.segments
        numbers = await in_thread(_numbers, wanted, places)
        if len(numbers) <= _KEPT_SEGMENTS:
            for number in numbers:
                await in_thread(_add_entries, children, (await self._segment(number)).segment)
            return children
        async with aclosing(self.index.segments(wanted)) as segments:
            async for segment in segments:
                await in_thread(_add_entries, children, segment)
        return children

    async def sizes(self) -> dict[str, PartitionSize]:
        """Sums by partition, with the bytes that its frames take; ``""`` is all the rest."""
        return await sizes_of_index(self.index)

    async def open(self, path: str) -> "MemberFile | None":
        """Open the file at *path*; ``None`` if there is none."""
        found = await self.locate(path)
        if found is None:
            return None
        member, segment = found
        # What has no content is not fetched, so its header is all there is to be checked.
        if member.entry.kind != "f" or not member.entry.size:
            await self.check_header(member, segment)
            if member.entry.kind == "f" and member.sha256 != _NOTHING:
                raise wrong_content(member.entry)
        return MemberFile(self, member, segment) if member.entry.kind == "f" else None

    async def check_entry(self, path: str) -> None:
        """Make sure that the archive has what the index says is at *path*, if that is anything.

        Raises:
            CorruptArchive: It has something else.
        """
        found = await self.locate(path)
        if found is not None:
            await self.check_header(*found)

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

    async def frames(self, start: int, stop: int, segment: Segment) -> list[FramePlace]:
        """The frames that hold the tar stream from *start* to *stop*; most likely in *segment*.

        Raises:
            CorruptArchive: There are none.
        """
        found = frames_between(segment.frames, start, stop)
        if found and found[0].start <= start and stop <= found[-1].stop:
            return found
        places = self.index.root.segments
        first = max(0, bisect_right(places, start, key=_data_start) - 1)
        found = []
        for number in range(first, len(places)):
            if places[number].data_start >= stop:
                break
            found += frames_between((await self._segment(number)).segment.frames, start, stop)
        if not found or found[0].start > start or found[-1].stop < stop:
            raise CorruptArchive("archive is corrupt: its index does not fit it (an entry)")
        return found

    async def check_header(self, member: MemberPlace, segment: Segment) -> None:
        """Fetch the frame that *member* begins with, unless that was done, and check its header.

        Raises:
            CorruptArchive: The header is not what the index says.
        """
        if member.start not in self.checked:
            stop = member.start + member.header_size
            frames = await self.frames(member.start, stop, segment)
            await in_thread(check_begin, await self.fetch(frames), frames, member)
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
        async with self._loading.setdefault(number, Lock()):
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


def _numbers(wanted: Callable[[SegmentPlace], bool], places: list[SegmentPlace]) -> list[int]:
    return [number for number, place in enumerate(places) if wanted(place)]


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


def _twice(path: str) -> CorruptArchive:
    return CorruptArchive(f"archive is corrupt: {path!r} is in it twice")


def _data_start(place: SegmentPlace) -> int:
    return place.data_start


def _start(frame: FramePlace) -> int:
    return frame.start
