"""The files of a partition in the order of the archive, fetched ahead in large ranges.

segments → pieces → batches, each one ranged read → inflate, check → files
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from anyio import CancelScope

from etcetera.transfer.codec import Buffer
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.member_file import inflate_frames, misfit
from etcetera.transfer.options import MiB
from etcetera.transfer.reader import Reader, frames_between, members_by_path, touches
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import check_content

WHOLE = 8 * MiB
"""Bytes of the largest file that comes with its content; a larger one has to be opened."""
_RANGE = 4 * MiB
"""Bytes that one request asks for at most, and another one that reaches beyond the last file."""
_RANGE_CONTENT = 8 * MiB
"""Bytes that it gives at most, once inflated."""
_AHEAD = 3
"""Requests whose files wait, or are under way, while those of another one are used: together at
most some 50 MiB."""


class FileContent(NamedTuple):
    """One file, as it comes by."""

    entry: Entry
    content: bytes | None
    """``None`` if it has more than :data:`WHOLE` bytes."""


class _Piece(NamedTuple):
    """Files in one frame, or one file in several; without frames it is one that is not fetched."""

    frames: list[FramePlace]
    members: list[MemberPlace]


async def files_ahead(reader: Reader, below: str) -> AsyncGenerator[list[FileContent]]:
    """Yield the files at or below the path *below* in the order of the archive; links are left out.

    Closing the generator cancels what is under way.

    Raises:
        CorruptArchive: Frames, headers or contents are not what the index says.
    """
    under_way: deque[asyncio.Task[list[FileContent]]] = deque()
    try:
        async with aclosing(reader.index.segments(partial(touches, below))) as segments:
            async for segment in segments:
                for batch in await in_thread(_batches, segment, below):
                    under_way.append(asyncio.ensure_future(_fetch(reader, batch)))
                    if len(under_way) > _AHEAD:
                        files = await under_way[0]
                        under_way.popleft()
                        yield files
        while under_way:
            files = await under_way[0]
            under_way.popleft()
            yield files
    finally:
        await _cancel(under_way)


async def _cancel(tasks: deque[asyncio.Task[list[FileContent]]]) -> None:
    for task in tasks:
        task.cancel()
    with CancelScope(shield=True):
        await asyncio.gather(*tasks, return_exceptions=True)


def _batches(segment: Segment, below: str) -> list[list[_Piece]]:
    """Pieces that lie next to each other, as many as one request may ask for."""
    batches: list[list[_Piece]] = []
    length = size = offset = 0
    for piece in _pieces(segment, below):
        more = sum(frame.length for frame in piece.frames)
        content = sum(frame.size for frame in piece.frames)
        if (
            not batches
            or (piece.frames and offset and piece.frames[0].offset != offset)
            or (length and (length + more > _RANGE or size + content > _RANGE_CONTENT))
        ):
            batches.append([])
            length = size = offset = 0
        batches[-1].append(piece)
        length, size = length + more, size + content
        if piece.frames:
            offset = piece.frames[-1].offset + piece.frames[-1].length
    return batches


def _pieces(segment: Segment, below: str) -> Iterator[_Piece]:
    prefix = f"{below}/" if below else ""
    stop = segment.frames[-1].stop
    members_by_path(segment)
    shared: _Piece | None = None
    for member in segment.members:
        path = member.entry.path
        if member.entry.kind != "f" or not (path.startswith(prefix) or path == below):
            continue
        if member.entry.size > WHOLE or member.stop > stop:
            # One that reaches into the next segment is not worth a plan of its own.
            yield from (shared,) if shared else ()
            shared = None
            yield _Piece([], [member])
            continue
        frames = frames_between(segment.frames, member.start, member.stop)
        if not frames:
            raise misfit(member)
        if shared is not None and shared.frames == frames:
            shared.members.append(member)
            continue
        yield from (shared,) if shared else ()
        shared = _Piece(frames, [member])
    yield from (shared,) if shared else ()


async def _fetch(reader: Reader, batch: list[_Piece]) -> list[FileContent]:
    frames = [frame for piece in batch for frame in piece.frames]
    data = await reader.fetch(frames) if frames else b""
    return await in_thread(_unpack, data, frames[0].offset if frames else 0, batch)


def _unpack(data: Buffer, offset: int, batch: list[_Piece]) -> list[FileContent]:
    """The files of a batch, checked; *data* begins at byte *offset* of the archive."""
    view = memoryview(data)
    files: list[FileContent] = []
    for frames, members in batch:
        if not frames:
            files.append(FileContent(members[0].entry, None))
            continue
        content = inflate_frames(view[frames[0].offset - offset :], frames)
        for member in members:
            _check_fit(frames, member)
            body = check_content(content, member.start - frames[0].start, member)
            files.append(FileContent(member.entry, bytes(body)))
    return files


def _check_fit(frames: list[FramePlace], member: MemberPlace) -> None:
    """Raise CorruptArchive unless *member* lies in one frame, or has several of its own."""
    start, stop = frames[0].start, frames[-1].stop
    if not start <= member.start or stop < member.stop:
        raise misfit(member)
    if len(frames) > 1 and (start, stop) != (member.start, member.stop):
        raise misfit(member)
