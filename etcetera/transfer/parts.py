"""Frames → parts: how large, how many at once, and cutting."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from etcetera.errors import StoreError
from etcetera.stores import PartLimits
from etcetera.transfer import codec
from etcetera.transfer.index import TAIL
from etcetera.transfer.index_writer import MAX_SEGMENT, MAX_TEXT
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.pack import FRAME_MAX
from etcetera.transfer.paths import MAX_PATH
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import END

PARTS_MEMORY = 160 * MiB
"""Bytes of parts that are held at once, where parts are small enough for three of them."""

_JSON_ESCAPE = 6
"""Bytes that one byte of a path takes in JSON at most (``\\u0000``)."""
_ROW = 160
"""Bytes of an index row at most, of an entry (apart from the path), a frame or a partition."""
_SEGMENT_ROW = 1024
"""Bytes that a segment adds to its own line and to the root at most, apart from two paths."""


@dataclass(frozen=True, slots=True)
class PartPlan:
    """How an archive is cut."""

    bound: int
    """Bytes that the archive has at most."""
    part_size: int
    """Bytes of every part but the last."""
    workers: int
    """Parts sent at once."""

    @property
    def memory(self) -> int:
        """Bytes of parts held at most: those being sent and the one being cut."""
        return (self.workers + 1) * self.part_size


@dataclass(frozen=True, slots=True)
class Part:
    """One unit of an upload."""

    number: int
    """From 1."""
    data: memoryview
    """Of a buffer that holds another part once this one was given back."""
    crc32: int
    last: bool
    size: int
    """Tar bytes that were packed since the part before."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes of an older archive that become a part as they are."""

    start: int
    """In the older object."""
    stop: int
    crc32: int
    size: int
    """Tar bytes that they stand for."""

    @property
    def length(self) -> int:
        """Bytes of the part."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class CopiedPart:
    """One unit of an upload that is not sent, but copied inside the store."""

    number: int
    """From 1."""
    copy: Copy
    last: Literal[False] = False


Piece = tuple[bytes, int] | Copy
"""Bytes of an archive, with the tar bytes they stand for."""


def length_of(piece: Piece | codec.KnownFrame) -> int:
    """Bytes that a piece has in the archive."""
    return piece.length if isinstance(piece, Copy | codec.KnownFrame) else len(piece[0])


class Buffers:
    """Memory for parts: taken in one thread, given back in another, used again.

    Fresh memory for each part would cost as much time as filling it, and the allocator would keep
    twice as much.
    """

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._free: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """A buffer of the size of a part, with anything in it."""
        try:
            return self._free.pop()
        except IndexError:
            return bytearray(self._part_size)

    def give_back(self, part: Part) -> None:
        """Let the memory of *part* be used again; nobody may look at its data any more."""
        buffer = part.data.obj
        part.data.release()
        self._free.append(buffer)  # type: ignore[arg-type]  # what take() gave


def archive_bound(scan: Scan, kept: int = 0) -> int:
    """Bytes that the archive of *scan* has at most: all of it stored, paths at their longest.

    Args:
        scan: What is in it.
        kept: Tar bytes that do not count, because they are copied from an older archive.
    """
    entries = scan.entries_count
    # Every entry is in one frame, but for those that are longer than a frame.
    frames = entries + scan.tar_size // FRAME_MAX + 1
    segments = (frames + entries) // MAX_SEGMENT + scan.path_bytes // MAX_TEXT + 2
    index = _ROW * (entries + frames) + _JSON_ESCAPE * scan.path_bytes
    index += segments * (_SEGMENT_ROW + 2 * _JSON_ESCAPE * MAX_PATH) + _ROW * len(scan.partitions)
    index += _JSON_ESCAPE * sum(len(name.encode()) for name in scan.partitions)
    tar = scan.tar_size - kept + index + _SEGMENT_ROW + len(END)
    return codec.stored_size(tar) + codec.STORED_OVERHEAD * (frames + segments) + TAIL


def plan(bound: int, limits: PartLimits, options: TransferOptions) -> PartPlan:
    """Choose one part size for the whole upload, before it starts.

    All parts but the last are equal, because some stores insist. Where the size of the archive
    forces larger parts, fewer are in flight, but never fewer than two.

    Raises:
        StoreError: The archive may be larger than the store's largest object.
    """
    needed = -(-bound // limits.max_parts)
    part_size = max(options.part_size, limits.min_part)
    if needed > part_size:
        part_size = -(-needed // MiB) * MiB
    if part_size > limits.max_part:
        raise StoreError(
            f"the archive may have {bound} bytes, more than the store can hold in one object "
            f"({limits.max_parts} parts of {limits.max_part} bytes): split the dataset"
        )
    return PartPlan(bound, part_size, requests_at_once(part_size, options))


def requests_at_once(size: int, options: TransferOptions) -> int:
    """How many parts or ranges of *size* bytes may be under way: fewer if they are large."""
    return min(options.workers, max(2, PARTS_MEMORY // size - 1))


def cut(
    pieces: Iterable[Piece],
    buffers: Buffers,
    first: int = 1,
    note: Callable[[int, memoryview], None] | None = None,
) -> Iterator[Part | CopiedPart]:
    """Regroup *pieces* into numbered parts.

    Args:
        pieces: Bytes of any length; a copy becomes a part of its own.
        buffers: Give the size of every part but the last and those before a copy, which have 1 to
            that many bytes.
        first: Number of the first part.
        note: Told the number of each part but the last when it is cut, and which bytes of the
            last piece are in the next one.
    """
    number, size, filled = first, 0, 0
    buffer = buffers.take()
    nothing = memoryview(b"")
    for piece in pieces:
        if isinstance(piece, Copy):
            if filled:
                if note is not None:
                    note(number, nothing)
                yield _part(number, buffer, filled, size, last=False)
                number, size, filled = number + 1, 0, 0
                buffer = buffers.take()
            if note is not None:
                note(number, nothing)
            yield CopiedPart(number, piece)
            number += 1
            continue
        data, tar_size = piece
        view = memoryview(data)
        size += tar_size
        while view:
            if filled == len(buffer):
                # Only now is it known that this part is not the last.
                if note is not None:
                    note(number, view)
                yield _part(number, buffer, filled, size - tar_size, last=False)
                number, size, filled = number + 1, tar_size, 0
                buffer = buffers.take()
            taken = view[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            filled += len(taken)
            view = view[len(taken) :]
    if filled:
        yield _part(number, buffer, filled, size, last=True)


def _part(number: int, buffer: bytearray, filled: int, size: int, *, last: bool) -> Part:
    data = memoryview(buffer)[:filled]
    return Part(number, data, codec.crc32(data), last, size)
