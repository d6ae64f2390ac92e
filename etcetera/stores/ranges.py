"""Ranges of remote objects: filled however often the connection breaks, and checked."""

import re
from collections.abc import Awaitable, Callable

import anyio

from etcetera.errors import NetworkError, RemoteChanged, StoreError, TruncatedArchive
from etcetera.stores import ObjectInfo, patience

SLOWEST_BYTES_PER_SECOND = 4096
"""A body that comes more slowly is asked for again."""
READ_BYTES = 1 << 20
"""At most so much is taken from a body at once."""
PROGRESS_BYTES = 1 << 16
"""Attempts are counted anew once a body has brought so much."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class Range:
    """Some bytes of an object, as they come; pieces to be joined would take twice as much."""

    def __init__(self, start: int, stop: int) -> None:
        self.stop = stop
        self.data = bytearray(stop - start)
        self._filled = 0

    @property
    def position(self) -> int:
        """Of the next byte that is to come."""
        return self.stop - len(self.data) + self._filled

    @property
    def missing(self) -> int:
        """Bytes that are still to come."""
        return len(self.data) - self._filled

    def add(self, piece: bytes) -> bool:
        """Take what follows; tell whether it is more than was wanted."""
        end = min(self._filled + len(piece), len(self.data))
        excess = len(piece) - (end - self._filled)
        self.data[self._filled : end] = piece[:-excess] if excess else piece
        self._filled = end
        return excess > 0


async def fill(
    wanted: Range, receive: Callable[[Range], Awaitable[None]], attempts: Callable[[], int]
) -> bytearray:
    """Call *receive* until all that is wanted has come.

    Args:
        wanted: Nothing of it has come yet.
        receive: Adds what one request brings; a NetworkError is worth another one.
        attempts: How often to try at most, counted anew whenever something has come.
    """
    counted = wanted.position
    pauses = patience.delays(attempts())
    while wanted.missing:
        try:
            await receive(wanted)
        except NetworkError:
            if wanted.position - counted >= PROGRESS_BYTES:
                counted, pauses = wanted.position, patience.delays(attempts())
            pause = next(pauses, None)
            if pause is None:
                raise
            await anyio.sleep(pause)
    return wanted.data


async def take_body(
    wanted: Range, read: Callable[[int], Awaitable[bytes]], info: ObjectInfo, *, ends: bool
) -> None:
    """Add what the body of an answer holds.

    Args:
        wanted: Takes it.
        read: At most so many bytes of the body; none at its end.
        info: Of the object.
        ends: Whether the body must hold no more than is wanted.
    """
    excess = False
    while wanted.missing:
        piece = await read(READ_BYTES)
        if not piece:
            raise NetworkError(f"{info.key}: the server sent less than it has")
        excess = wanted.add(piece)
    if ends and (excess or await read(READ_BYTES)):
        raise StoreError(f"{info.key}: the server sent more than asked for")


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Return the first byte, the one after the last, and the size of the object, if it is told."""
    match = _CONTENT_RANGE.fullmatch(text)
    if match is None:
        return None
    first, last, total = match.groups()
    return int(first), int(last) + 1, None if total == "*" else int(total)


def check_content_range(
    text: str, length: int | None, begin: int, stop: int, info: ObjectInfo
) -> bool:
    """Check which bytes an answer brings; its status tells nothing.

    Some servers answer a range with 200, and send the range.

    Args:
        text: ``Content-Range``, or nothing.
        length: ``Content-Length``.
        begin: Of what was asked for.
        stop: Of what was asked for.
        info: Of the object, as it was when it was opened.

    Returns:
        Whether the body ends at or before *stop*.
    """
    got = parse_content_range(text)
    if got is None:
        if begin == 0 and length == info.size:
            return stop == info.size
        raise StoreError(
            f"{info.key}: the server, or a proxy before it, ignores byte ranges; "
            "etcetera cannot read from it"
        )
    first, end, total = got
    if total is not None and total < info.size:
        raise TruncatedArchive(f"{info.key} was cut to {total} bytes; push it again with --force")
    if total is not None and total > info.size:
        raise changed(info)
    if first != begin or end > stop:
        raise NetworkError(f"{info.key}: the server sent other bytes than asked for")
    return True


def changed(info: ObjectInfo) -> RemoteChanged:
    """Return the error for an object that is not the one that was opened."""
    return RemoteChanged(f"{info.key} was replaced while it was read; start again")
