"""A remote archive, opened: its index if it has one, and its bytes."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from etcetera.errors import CorruptArchive, NotAnArchive
from etcetera.stores import ObjectInfo, RemoteObject
from etcetera.transfer import codec
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import (
    FOOTER,
    TAIL,
    Footer,
    Root,
    Segment,
    SegmentPlace,
    index_entry,
    parse_footer,
    parse_root,
    parse_segment,
)
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.options import KiB, MiB
from etcetera.transfer.tar import END, header

_FIRST_READ = 256 * KiB
"""Bytes read from the end at first: all of a small archive, the root of any."""
_INDEX_READ = 4 * MiB
"""Bytes of segments read at once."""


class Archive:
    """One version of one archive; what its tail holds is not fetched twice."""

    def __init__(self, remote: RemoteObject, tail: bytes) -> None:
        self._remote = remote
        self._tail = tail
        self._tail_start = remote.info.size - len(tail)
        self._copy: IndexCopy | None = None

    @property
    def info(self) -> ObjectInfo:
        """The object."""
        return self._remote.info

    @property
    def tail(self) -> bytes:
        """The bytes read first, from the end of the object."""
        return self._tail

    async def hold(self, start: int, most: int) -> None:
        """Fetch what lies from *start* on and keep it, unless that is more than *most* bytes."""
        if 0 < self._tail_start - start <= most:
            begin = await self._remote.read(start, self._tail_start)
            self._tail = await in_thread(b"".join, (begin, self._tail))
            self._tail_start = start

    async def read(self, start: int, stop: int) -> codec.Buffer:
        """Exactly the bytes from *start* to *stop*."""
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : stop - self._tail_start]
        middle = min(stop, self._tail_start)
        data = await self._remote.read(start, middle)
        if self._copy is not None:
            await in_thread(self._copy.put, start, data)
        return b"".join((data, self._tail[: stop - middle])) if stop > middle else data

    async def copy_from(self, start: int, copy: IndexCopy) -> None:
        """Have *copy* take down whatever is read from byte *start* on."""
        await in_thread(copy.begin, start)
        await in_thread(copy.put, self._tail_start, self._tail)
        self._copy = copy

    async def copy_rest(self) -> None:
        """Read what the copy still lacks."""
        if self._copy is not None:
            for start, stop in self._copy.gaps(self.info.size):
                for position in range(start, stop, _INDEX_READ):
                    await self.read(position, min(position + _INDEX_READ, stop))


Wanted = Callable[[SegmentPlace], bool]
"""Whether a segment is to be read."""


class Segments:
    """Decodes the segments of an index, one after another; some may be left out."""

    def __init__(self, root: Root) -> None:
        places = root.segments
        self._size = root.data_size
        self._end = places[-1].offset + places[-1].length if places else 0
        self._stop = places[0].offset if places else 0  # where in the object the next one begins
        self._position = 0  # where in the tar stream its first member begins

    def parse(self, frame: codec.Buffer, place: SegmentPlace) -> Segment:
        """Decode the next one, see :func:`parse_segment`.

        Raises:
            CorruptArchive: It does not fit the root, or its members do not follow the last ones.
        """
        segment = parse_segment(frame, place)
        if place.offset == self._stop and segment.start != self._position:
            raise CorruptArchive("archive is corrupt: its index does not fit it (a segment)")
        self._stop = place.offset + place.length
        self._position = segment.members[-1].stop if segment.members else segment.start
        return segment

    def check_end(self) -> None:
        """Raise CorruptArchive unless the members end where the root says."""
        if self._stop == self._end and self._position != self._size:
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

    async def segments(self, wanted: Wanted = lambda _: True) -> AsyncGenerator[Segment]:
        """Yield each segment that is wanted, in order; in bounded memory.

        Raises:
            CorruptArchive: Segments do not fit the root, or their members do not tile the stream.
        """
        segments = Segments(self.root)
        async with aclosing(self.segment_frames(wanted)) as frames:
            async for place, frame in frames:
                yield await in_thread(segments.parse, frame, place)
        segments.check_end()

    async def segment_frames(
        self, wanted: Wanted = lambda _: True
    ) -> AsyncGenerator[tuple[SegmentPlace, codec.Buffer]]:
        """Yield the own frame of each segment that is wanted, as it is; in bounded memory."""
        places = self.root.segments
        data: codec.Buffer = b""
        data_start = 0
        for number, place in enumerate(places):
            if not wanted(place):
                continue
            if place.offset + place.length > data_start + len(data):
                data_start = stop = place.offset
                for following in places[number:]:
                    if stop > data_start and following.offset - data_start > _INDEX_READ:
                        break
                    if not wanted(following):
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

    async def check_index(self) -> None:
        """Check every byte between the data frames and the footer, also those without a meaning.

        Raises:
            CorruptArchive: One is not as it was written; not noticed without a checksum in the
                footer, which earlier versions did not write.
        """
        start, stop = self.root.data_stop, self.archive.info.size - TAIL
        crc32 = 0
        for position in range(start, stop, _INDEX_READ):
            data = await self.archive.read(position, min(position + _INDEX_READ, stop))
            crc32 = await in_thread(codec.crc32, data, crc32)
        if self.footer.crc32 not in (None, crc32):
            raise CorruptArchive("archive is corrupt: wrong checksum of the index")


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
