"""A remote archive, opened: its index if it has one, and its bytes."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from etcetera.errors import CorruptArchive, NotAnArchive, StoreError
from etcetera.stores import ObjectInfo, RemoteObject
from etcetera.transfer import codec
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import (
    FOOTER,
    TAIL,
    Footer,
    MemberPlace,
    Root,
    Segment,
    SegmentPlace,
    index_entry,
    parse_footer,
    parse_root,
    parse_segment,
)
from etcetera.transfer.options import KiB, MiB
from etcetera.transfer.paths import order_key
from etcetera.transfer.tar import END, header
from etcetera.transfer.unpack import check_content, inflate_checked

_FIRST_READ = 256 * KiB
"""Bytes read from the end at first: all of a small archive, the root of any."""
_INDEX_READ = 4 * MiB
"""Bytes of segments read at once."""


class TooLarge(StoreError):
    """A file is larger than its reader wants to hold in memory."""


class Archive:
    """One version of one archive; what its tail holds is not fetched twice."""

    def __init__(self, remote: RemoteObject, tail: bytes) -> None:
        self._remote = remote
        self._tail = tail
        self._tail_start = remote.info.size - len(tail)

    @property
    def info(self) -> ObjectInfo:
        """The object."""
        return self._remote.info

    @property
    def tail(self) -> bytes:
        """The bytes read first, from the end of the object."""
        return self._tail

    async def read(self, start: int, stop: int) -> codec.Buffer:
        """Exactly the bytes from *start* to *stop*."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        middle = min(stop, self._tail_start)
        data = await self._remote.read(start, middle)
        return b"".join((data, self._tail[: stop - middle])) if stop > middle else data


class Segments:
    """Decodes the segments of an index, one after another."""

    def __init__(self, root: Root) -> None:
        self._size = root.data_size
        self._position = 0

    def parse(self, frame: codec.Buffer, place: SegmentPlace) -> Segment:
        """Decode the next one, see :func:`parse_segment`.

        Raises:
            CorruptArchive: It does not fit the root, or its members do not follow the last ones.
        """
        segment = parse_segment(frame, place)
        if segment.start != self._position:
            raise CorruptArchive("archive is corrupt: its index does not fit it (a segment)")
        if segment.members:
            self._position = segment.members[-1].stop
        return segment

    def check_end(self) -> None:
        """Raise CorruptArchive unless the members end where the root says."""
        if self._position != self._size:
            raise CorruptArchive("archive is corrupt: its index does not fit it (the last entry)")


@dataclass(frozen=True, slots=True)
class Index:
    """The claims of an archive that has an index."""

    archive: Archive
    footer: Footer
    root: Root

    @property
    def length(self) -> int:
        """Bytes of its segments in the object."""
        return sum(place.length for place in self.root.segments)

    async def segments(self) -> AsyncGenerator[Segment]:
        """Yield each segment in order; in bounded memory.

        Raises:
            CorruptArchive: Segments do not fit the root, or their members do not tile the stream.
        """
        segments = Segments(self.root)
        async with aclosing(self.segment_frames()) as frames:
            async for place, frame in frames:
                yield await in_thread(segments.parse, frame, place)
        segments.check_end()

    async def segment_frames(self) -> AsyncGenerator[tuple[SegmentPlace, codec.Buffer]]:
        """Yield each segment's own frame in order, as it is; in bounded memory."""
        places = self.root.segments
        data: codec.Buffer = b""
        data_start = 0
        for number, place in enumerate(places):
            if place.offset + place.length > data_start + len(data):
                data_start = stop = place.offset
                for following in places[number:]:
                    if stop > data_start and following.offset - data_start > _INDEX_READ:
                        break
                    stop = following.offset + following.length
                data = await self.archive.read(data_start, stop)
            yield place, data[place.offset - data_start :][: place.length]

    async def check_whole(self, crc32: int) -> None:
        """Check what lies around the data frames and the segments.

        Args:
            crc32: Of the tar stream up to the index's own header.

        Raises:
            CorruptArchive: The gzip header, the index's header, or the length or checksum in the
                gzip trailer is wrong.
        """
        root, footer = self.root, self.footer
        index_size = sum(place.size for place in root.segments) + footer.root_size + FOOTER
        head = header(index_entry(index_size))
        frame = await self.archive.read(root.data_stop, root.data_stop + root.header_length)
        gzip_header = await self.archive.read(0, len(codec.GZIP_HEADER))
        end = self.archive.tail[-TAIL:][codec.STORED_OVERHEAD :][: FOOTER + len(END)]
        sizes = [(codec.crc32(head), len(head))]
        sizes += [(place.crc32, place.size) for place in root.segments]
        sizes += [(root.crc32, footer.root_size), (codec.crc32(end), len(end))]
        size = root.data_size
        for crc, length in sizes:
            crc32 = codec.crc32_combine(crc32, crc, length)
            size += length
        trailer = codec.TRAILER.pack(crc32, size & 0xFFFFFFFF)
        if (
            codec.inflate(frame, len(head)) != head
            or gzip_header != codec.GZIP_HEADER
            or not self.archive.tail.endswith(codec.FINAL_BLOCK + trailer)
        ):
            raise CorruptArchive("archive is corrupt: wrong checksum, length or header")

    async def find(self, path: str) -> tuple[MemberPlace, list[SegmentPlace]] | None:
        """Look one path up; ``None`` if it is not there.

        Returns:
            The member, and the segments whose frames hold it.
        """
        for number in await in_thread(self._candidates, path):
            segment = await self._segment(self.root.segments[number])
            for member in segment.members:
                if member.entry.path == path:
                    following = self.root.segments[number:]
                    return member, [one for one in following if one.data_start < member.stop]
        return None

    def _candidates(self, path: str) -> list[int]:
        """Which segments can have an entry of this path."""
        key = order_key(path)
        return [
            number
            for number, place in enumerate(self.root.segments)
            if place.entries and order_key(place.first) <= key <= order_key(place.last)
        ]

    async def read_file(self, path: str, limit: int) -> bytes | None:
        """The content of one file of at most *limit* bytes, checked; ``None`` if there is none.

        Raises:
            TooLarge: It is longer than *limit*.
            CorruptArchive: Frames, header or content are not what the index says.
        """
        found = await self.find(path)
        if found is None or found[0].entry.kind != "f":
            return None
        member, places = found
        if member.entry.size > limit:
            raise TooLarge(f"{path} has {member.entry.size:,} bytes, more than {limit:,}: not read")
        content = bytearray()
        start = 0
        for place in places:
            segment = await self._segment(place)
            for frame in segment.frames:
                if frame.start < member.stop and member.start < frame.start + frame.size:
                    start = start if content else frame.start
                    data = await self.archive.read(frame.offset, frame.offset + frame.length)
                    content += await in_thread(inflate_checked, data, frame)
        tar = bytes(memoryview(content)[member.start - start :])
        return bytes(await in_thread(check_content, member, tar))

    async def _segment(self, place: SegmentPlace) -> Segment:
        frame = await self.archive.read(place.offset, place.offset + place.length)
        return await in_thread(parse_segment, frame, place)


async def open_archive(remote: RemoteObject) -> tuple[Archive, Index | None]:
    """Read an archive's tail, and its index's root if it has one.

    Raises:
        NotAnArchive: The object is empty.
        CorruptArchive: It has an index that cannot be true.
    """
    size = remote.info.size
    if not size:
        raise NotAnArchive(f"{remote.info.key} is empty: not a .tgz")
    start = max(0, size - _FIRST_READ)
    archive = Archive(remote, bytes(await remote.read(start, size)))
    footer = parse_footer(archive.tail[-TAIL:], size)
    if footer is None:
        begin = await archive.read(0, min(2, size))
        if begin != codec.GZIP_HEADER[:2]:
            raise NotAnArchive(f"the object is not a .tgz: it begins with {bytes(begin).hex(' ')}")
        return archive, None
    frame = await archive.read(footer.root_offset, footer.root_offset + footer.root_length)
    root = await in_thread(parse_root, frame, footer)
    return archive, Index(archive, footer, root)
