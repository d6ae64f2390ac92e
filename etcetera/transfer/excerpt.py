"""One partition's frames, as an archive of their own.

Frames refer to nothing before them, and none holds two partitions. So the bytes of a partition,
with a gzip header before them and the end of a tar stream behind, are a .tgz: one request fetches
it, and no other byte of the archive.
"""

from dataclasses import dataclass

from etcetera.errors import CorruptArchive, PartitionNotFound, StoreError
from etcetera.stores import ObjectInfo, PinnedRange, RemoteObject
from etcetera.transfer import codec
from etcetera.transfer.archive import Index
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import Segment
from etcetera.transfer.paths import partition_of
from etcetera.transfer.tar import END

_DEFLATED_END = bytes.fromhex("6360 1805 a360 148c 5400 00")
"""The two zero blocks that end a tar stream, as the final block of a deflate stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Where a partition lies in an archive, and what its bytes must be."""

    place: PinnedRange
    size: int
    """Tar bytes."""
    crc32: int
    """Of the tar bytes."""

    @property
    def length(self) -> int:
        """Bytes of the object."""
        return self.place.stop - self.place.start

    @property
    def head(self) -> bytes:
        """What has to come before the frames."""
        return codec.GZIP_HEADER

    @property
    def end(self) -> bytes:
        """What has to follow the frames."""
        crc32 = codec.crc32_combine(self.crc32, codec.crc32(END), len(END))
        return _DEFLATED_END + codec.TRAILER.pack(crc32, (self.size + len(END)) & 0xFFFFFFFF)


class ExcerptObject:
    """A partition as an object: header, frames, end; see :class:`etcetera.stores.RemoteObject`."""

    def __init__(self, excerpt: Excerpt, frames: RemoteObject) -> None:
        """Read the frames from *frames*, which holds nothing else."""
        self._pieces: tuple[bytes | RemoteObject, ...] = (excerpt.head, frames, excerpt.end)
        self._sizes = (len(excerpt.head), excerpt.length, len(excerpt.end))
        info = frames.info
        self.info = ObjectInfo(
            key=info.key, size=sum(self._sizes), modified=info.modified, etag=excerpt.place.etag
        )

    async def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from *start* to *stop*."""
        found: list[codec.Buffer] = []
        for piece, size in zip(self._pieces, self._sizes, strict=True):
            first, last = max(start, 0), min(stop, size)
            if first < last:
                if isinstance(piece, bytes):
                    found.append(piece[first:last])
                else:
                    found.append(await piece.read(first, last))
            start, stop = start - size, stop - size
        return b"".join(found)


async def find_excerpt(index: Index, partition: str) -> Excerpt:
    """Find the frames of one partition.

    Raises:
        PartitionNotFound: There is none of that name.
        StoreError: They hold something else as well, or do not lie beside each other.
    """
    info = index.archive.info
    if not info.etag:
        raise StoreError(
            f"{info.key}: the store does not say which version it has, so no part of it can be "
            "shared: share the whole"
        )
    if partition not in index.root.partitions:
        known = ", ".join(sorted(index.root.partitions)) or "none"
        raise PartitionNotFound(f"{info.key} has no partition {partition!r} (it has: {known})")
    run = Run(partition)
    async for segment in index.segments():
        await in_thread(run.add, segment)
    if not 0 <= run.offset < run.end:
        raise CorruptArchive(f"archive is corrupt: its index has no entry of {partition!r}")
    place = PinnedRange(run.offset, run.end, info.etag)
    return Excerpt(place=place, size=run.stop - run.start, crc32=run.crc32)


class Run:
    """The members of a partition, one after another, and the frames that hold them."""

    def __init__(self, partition: str) -> None:
        self._partition = partition
        self.start = self.stop = -1
        """Of the members, in the tar stream."""
        self.offset = self.end = -1
        """Of the frames, in the object."""
        self.crc32 = 0

    def add(self, segment: Segment) -> None:
        """Take what belongs to the partition.

        Raises:
            StoreError: It does not lie behind what was taken before, or shares a frame.
        """
        for member in segment.members:
            if partition_of(member.entry.path) == self._partition:
                if self.start < 0:
                    self.start = self.stop = member.start
                if self.stop != member.start:
                    raise self._refused("its files are scattered over the archive")
                self.stop = member.stop
        # Members that begin in a frame are in the same segment, so those that hold the run so
        # far can be told from its neighbours already.
        for frame in segment.frames:
            stop = frame.start + frame.size
            if frame.start < self.stop and stop > self.start:
                if stop > self.stop or (self.offset < 0 and frame.start != self.start):
                    raise self._refused("it shares a part of the archive with other files")
                self.offset = frame.offset if self.offset < 0 else self.offset
                self.end = frame.offset + frame.length
                self.crc32 = codec.crc32_combine(self.crc32, frame.crc32, frame.size)

    def _refused(self, reason: str) -> StoreError:
        return StoreError(
            f"the partition {self._partition} cannot be shared alone: {reason}; share the whole, "
            "or push the dataset under another name first"
        )
