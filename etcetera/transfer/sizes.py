"""What each partition takes, in the dataset and in its archive."""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass

from etcetera.transfer.archive import Index
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import MemberPlace, Segment
from etcetera.transfer.paths import partition_of
from etcetera.transfer.tar import Entry


@dataclass(slots=True)
class PartitionSize:
    """Sums over one partition, or over what lies outside all of them."""

    files: int = 0
    bytes: int = 0
    archive_bytes: int | None = None
    """Of its frames; ``None`` where that is not known."""

    def add(self, entry: Entry) -> None:
        """Count one entry, if it is a file."""
        if entry.kind == "f":
            self.files += 1
            self.bytes += entry.size


def sizes_of_entries(entries: Iterable[Entry]) -> dict[str, PartitionSize]:
    """Sums by partition; ``""`` is all that lies outside."""
    sizes: dict[str, PartitionSize] = {}
    for entry in entries:
        sizes.setdefault(partition_of(entry.path), PartitionSize()).add(entry)
    return sizes


async def sizes_of_index(index: Index) -> dict[str, PartitionSize]:
    """The same, with the bytes of the frames: a frame never spans two partitions."""
    sizes: dict[str, PartitionSize] = {}
    last: MemberPlace | None = None
    async with aclosing(index.segments()) as segments:
        async for segment in segments:
            last = await in_thread(_add_segment, segment, last, sizes)
    return sizes


def _add_segment(
    segment: Segment, last: MemberPlace | None, sizes: dict[str, PartitionSize]
) -> MemberPlace | None:
    """Add one segment; *last* is the last member before it, and the last one in it is returned."""
    members = iter(segment.members)
    following = next(members, None)
    for frame in segment.frames:
        while following is not None and following.start < frame.stop:
            last = following
            size = sizes.setdefault(partition_of(last.entry.path), PartitionSize(archive_bytes=0))
            size.add(last.entry)
            following = next(members, None)
        if last is not None:
            size = sizes[partition_of(last.entry.path)]
            size.archive_bytes = (size.archive_bytes or 0) + frame.length
    return last
