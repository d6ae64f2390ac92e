"""One file out of an archive, read by position."""

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anyio import Semaphore

from etcetera.errors import CorruptArchive
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import wrong_content
from etcetera.transfer.flow import in_thread, task_group
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.options import MiB
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import check_content, check_header, inflate_checked

if TYPE_CHECKING:
    from etcetera.transfer.reader import Reader

_KEPT_PLACES = 4
"""Places of one file of which the frames are kept, together at most some 20 MiB. Who reads a column
of a table comes by the same frames again and again."""
_AT_ONCE = 8
"""Requests for places of one file."""
_FIRST_AHEAD = MiB
_MOST_AHEAD = 4 * MiB
"""Bytes of a file that are fetched at once when it is read from front to back."""


class MemberFile:
    """One file of an archive, read by position; used by one task at a time.

    What was fetched last is kept, in whole frames. Who reads on where it ends gets more and more
    at once, up to 4 MiB; who jumps about costs the frames that hold what is asked for, and may
    come back to the last few places.
    """

    def __init__(self, reader: "Reader", member: MemberPlace, segment: Segment) -> None:
        """Read *member*, which begins in *segment*."""
        self._reader = reader
        self._member = member
        self._segment = segment
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

    async def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes from a start to a stop, several times; of what shares frames all at once.

        Raises:
            CorruptArchive: Frames, header or content are not what the index says.
        """
        runs = await self._runs(ranges)
        if any(first > 0 for first, _ in runs):  # once for all of them
            await self._reader.check_header(self._member, self._segment)
        contents = [b""] * len(runs)
        limit = Semaphore(_AT_ONCE)

        async def read(number: int) -> None:
            async with limit:
                file = MemberFile(self._reader, self._member, self._segment)
                contents[number] = await file.read(*runs[number])

        async with task_group() as tasks:
            for number in range(len(runs)):
                tasks.start_soon(read, number)
        pieces = []
        for start, stop in ranges:
            number = bisect_right(runs, start, key=_first) - 1 if start < stop else -1
            first = runs[number][0] if number >= 0 else start
            pieces.append(contents[number][start - first : stop - first] if number >= 0 else b"")
        return pieces

    async def _runs(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """What whole frames hold around *ranges*, sorted, and joined where they meet."""
        begin = self._member.start + self._member.header_size
        runs: list[tuple[int, int]] = []
        for start, stop in sorted(ranges):
            stop = min(stop, self.entry.size)
            if start >= stop:
                continue
            if not runs or stop > runs[-1][1]:
                frames = await self._reader.frames(begin + start, begin + stop, self._segment)
                first = max(0, frames[0].start - begin)
                last = min(self.entry.size, frames[-1].stop - begin)
                if runs and first <= runs[-1][1]:
                    first = runs.pop()[0]
                runs.append((first, last))
        return runs

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
        frames = await self._reader.frames(begin + start, begin + stop, self._segment)
        if frames[0].start > member.start:
            await self._reader.check_header(member, self._segment)
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
            content = check_begin(data, frames, member)
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


def _first(run: tuple[int, int]) -> int:
    return run[0]


def inflate_frames(data: Buffer, frames: list[FramePlace]) -> bytes:
    """The tar bytes of consecutive frames; *data* begins with the first one.

    Raises:
        CorruptArchive: A checksum or a length is not what the index says.
    """
    view, offset = memoryview(data), frames[0].offset
    return b"".join(
        inflate_checked(view[frame.offset - offset :][: frame.length], frame) for frame in frames
    )


def check_begin(data: Buffer, frames: list[FramePlace], member: MemberPlace) -> bytes:
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
