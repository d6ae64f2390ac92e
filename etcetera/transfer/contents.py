"""Which members a frame holds."""

from collections.abc import Iterator

from etcetera.errors import CorruptArchive
from etcetera.transfer.index import FramePlace, MemberPlace, Segment


class Contents:
    """Matches the frames of one segment after another with the members they hold."""

    def __init__(self) -> None:
        self._member: MemberPlace | None = None

    def of(self, segment: Segment) -> Iterator[tuple[FramePlace, list[MemberPlace]]]:
        """Yield each frame of *segment*, in order, with whole members or the one it is a slice of.

        Raises:
            CorruptArchive: A frame holds neither whole members nor a slice of exactly one.
        """
        members = segment.members
        position = 0
        for frame in segment.frames:
            stop = frame.start + frame.size
            if self._member is None:
                first = position
                while position < len(members) and members[position].start < stop:
                    position += 1
                held = members[first:position]
                if not held or held[0].start != frame.start:
                    raise _misfit(frame)
                if held[-1].stop <= stop:
                    if held[-1].stop != stop:
                        raise _misfit(frame)
                    yield frame, held
                    continue
                if len(held) > 1 or held[0].header_size > frame.size:
                    raise _misfit(frame)
                self._member = held[0]
            member = self._member
            if stop > member.stop:
                raise _misfit(frame)
            if stop == member.stop:
                self._member = None
            yield frame, [member]
        if position != len(members):
            raise CorruptArchive("archive is corrupt: its index does not fit it (an entry)")


def _misfit(frame: FramePlace) -> CorruptArchive:
    return CorruptArchive(
        f"archive is corrupt: the frame at byte {frame.offset} holds neither whole members "
        "nor a slice of one"
    )


def is_slice(frame: FramePlace, held: list[MemberPlace]) -> bool:
    """Whether a frame holds only part of its member."""
    return held[0].stop - held[0].start > frame.size


def begins(frame: FramePlace, held: list[MemberPlace]) -> bool:
    """Whether what a frame holds begins in it, and not in one before."""
    return held[0].start == frame.start
