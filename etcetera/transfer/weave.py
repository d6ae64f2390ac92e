"""Weave: the frames of an older archive that stay, and those packed anew, into one archive.

The old ones keep their order and come in long copies, the new ones behind them. Only if the very
first frame does not stay, something has to be sent before the first copy: the gzip header, and as
much as makes a part.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple

from etcetera.transfer import codec
from etcetera.transfer.codec import KnownFrame
from etcetera.transfer.contents import Contents, begins
from etcetera.transfer.index import FramePlace, MemberPlace, parse_segment
from etcetera.transfer.index_writer import IndexWriter
from etcetera.transfer.options import MiB
from etcetera.transfer.parts import Copy, Piece, length_of
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import Entry
from etcetera.transfer.update import Update

COPY = 128 * MiB
"""Bytes of one copy: many run at once, and each has to be done before its request times out."""

Packed = tuple[bytes, int] | KnownFrame
"""A frame, with the tar bytes it stands for; or one that an earlier push has packed."""
Pack = Callable[[Iterable[Entry]], Generator[Packed]]


class _Frame(NamedTuple):
    """A frame that stays."""

    place: FramePlace
    held: list[MemberPlace]
    left: int
    """Bytes of its run from here on."""


class _Kept:
    """The frames that stay, one after another."""

    def __init__(self, update: Update) -> None:
        self._frames = _kept_frames(update)
        self.next = next(self._frames, None)
        """The first that was not taken; ``None`` after the last."""

    def take(self) -> _Frame:
        """Go on to the next one."""
        frame = self.next
        assert frame is not None, "there is a next one"  # noqa: S101
        self.next = next(self._frames, None)
        return frame

    def take_members(self) -> list[MemberPlace]:
        """Go on behind the members that begin in the next frame, however many frames that takes."""
        held = self.take().held
        while self.next is not None and not begins(self.next.place, self.next.held):
            self.take()
        return held


def _kept_frames(update: Update) -> Iterator[_Frame]:
    runs = iter(update.runs)
    run = next(runs)
    contents = Contents()
    for place, data in update.segments:
        for frame, held in contents.of(parse_segment(data, place)):
            if frame.offset >= run.stop:
                following = next(runs, None)
                if following is None:
                    return
                run = following
            if frame.offset >= run.start:
                yield _Frame(frame, held, run.stop - frame.offset)


def weave(
    update: Update, scanned: Scan, index: IndexWriter, pack: Pack, part_size: int
) -> Generator[Piece | KnownFrame]:
    """Yield the archive up to its index.

    Args:
        update: What stays.
        scanned: The dataset.
        index: Told of the frames that stay.
        pack: Makes frames of entries, and tells the index of them.
        part_size: Bytes of a part; more than two of the largest frames above ``update.least``.
    """
    kept = _Kept(update)
    changed = (entry for number, entry in scanned.numbered() if not update.kept[number])
    with closing(pack(changed)) as packed:
        if update.runs[0].start > 0:
            yield codec.GZIP_HEADER, 0
            yield from _until_part(update, scanned, index, pack, packed, kept, part_size)
        yield from _copies(update, index, kept)
        yield from packed


def _until_part(
    update: Update,
    scanned: Scan,
    index: IndexWriter,
    pack: Pack,
    packed: Iterator[Packed],
    kept: _Kept,
    part_size: int,
) -> Iterator[Piece | KnownFrame]:
    """Pack what a first part needs before there can be a copy: the least that is possible."""
    length = len(codec.GZIP_HEADER)
    for piece in packed:
        yield piece
        length += length_of(piece)
        if length % part_size >= update.least and not index.within_file:
            return
    # What changed is less than a part: the next best is what comes first.
    while (following := kept.next) is not None and (
        length % part_size < update.least or following.left < update.least
    ):
        entries = [scanned.find(member.entry.path) for member in kept.take_members()]
        with closing(pack(entry for _, entry in filter(None, entries))) as again:
            for piece in again:
                yield piece
                length += length_of(piece)


def _copies(update: Update, index: IndexWriter, kept: _Kept) -> Iterator[Copy]:
    while kept.next is not None:
        start = stop = kept.next.place.offset
        crc32, size = 0, 0
        if start == len(codec.GZIP_HEADER):
            start, crc32 = 0, codec.crc32(codec.GZIP_HEADER)
        while (
            (following := kept.next) is not None
            and following.place.offset == stop
            and (stop - start < COPY or following.left < update.least)
        ):
            place, held, _ = kept.take()
            index.add_kept(place, held if begins(place, held) else [])
            crc32 = codec.crc32_combine(crc32, place.compressed_crc32, place.length)
            size += place.size
            stop = place.offset + place.length
        yield Copy(start, stop, crc32, size)
