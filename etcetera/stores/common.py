"""What the stores have in common."""

import asyncio
import logging
from collections.abc import Collection, Coroutine, Mapping
from math import inf
from typing import Any, TypeVar

import anyio

from etcetera.errors import (
    ExpiredCredentials,
    InvalidName,
    NetworkError,
    RemoteChanged,
    StoreError,
    UsageError,
    without_queries,
)
from etcetera.times import time_from as time_from

GRACE_SECONDS = 10.0
"""How long what must not be torn may hold up a cancellation."""

_T = TypeVar("_T")
MOST_NAMES = 2_000_000
"""That a listing may have: more tell of no end, and each takes memory."""
MOST_PAGES = 20_000
"""That it may come in."""


class Refused(StoreError):
    """An error answer that the caller of a request said it can deal with."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        """As in the answer; where that has none, the status."""
        self.status = status
        """Of HTTP."""

    def is_one_of(self, answers: Collection[str | int]) -> bool:
        """Tell whether the code or the status is among *answers*."""
        return self.code in answers or self.status in answers


class Listed:
    """Counts what a server lists: some never come to an end."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._names = self._pages = 0

    def count(self, names: int) -> None:
        """Take another page of so many names.

        Raises:
            StoreError: It is too much, and so it would be if asked for again.
        """
        self._names += names
        self._pages += 1
        if self._names > MOST_NAMES or self._pages > MOST_PAGES:
            raise StoreError(
                f"{self._endpoint} lists without end: {self._names:,} names on {self._pages:,} "
                "pages so far; use a prefix of its own for each repository"
            )


def leave_note(error: BaseException, note: str) -> None:
    """Say with *error*, whatever becomes of it, what could not be cleaned up."""
    note = without_queries(note)
    error.add_note(note)
    if not isinstance(error, Exception):
        # Nobody is shown a cancellation.
        logging.getLogger("etcetera").warning("%s", note)


def is_curable(error: BaseException | None) -> bool:
    """Whether the same transfer, begun again later, may well go on where *error* ended it."""
    curable = (NetworkError, ExpiredCredentials, asyncio.CancelledError, KeyboardInterrupt)
    return isinstance(error, curable)


def replaced(what: str) -> RemoteChanged:
    """Return the error for an object that is another version now than the one that was meant."""
    return RemoteChanged(
        f"{what} was replaced by somebody else meanwhile; nothing was published. "
        "Look at it (etc ls -r --long), then push again"
    )


def check_key(key: str) -> str:
    """Return *key* if it can name an object in every store.

    Raises:
        InvalidName: It is empty, hidden, or more than one path component.
    """
    if not key or key.startswith(".") or "/" in key or "\0" in key:
        raise InvalidName(f"{key!r} cannot name an object: it is empty, hidden or holds a slash")
    return key


def no_links(url: str) -> UsageError:
    """Return the error for a repository whose archives no URL opens to others."""
    return UsageError(
        f"{url} has no links that others could follow: push the dataset to an s3:// or gs:// "
        "repository to share it from there, or hand over the archive itself"
    )


def check_range(start: int, stop: int, size: int) -> None:
    """Refuse a range that is not within an object of *size* bytes.

    Raises:
        ValueError: A mistake of the caller.
    """
    if not 0 <= start <= stop <= size:
        raise ValueError(f"bytes {start} to {stop} are not within {size} bytes")


def check_part(number: int, length: int, part_size: int, max_parts: int) -> None:
    """Refuse a part that no store would take.

    Raises:
        ValueError: A mistake of the caller.
    """
    if not 1 <= number <= max_parts:
        raise ValueError(f"part {number} is not between 1 and {max_parts}")
    if not 1 <= length <= part_size:
        raise ValueError(f"part {number} has {length} bytes, not 1 to {part_size}")


def check_parts(sizes: Mapping[int, int], least: int) -> int:
    """Return the bytes of all parts together, if they make one whole object.

    Args:
        sizes: Bytes by part number.
        least: Bytes in every part but the last.

    Raises:
        StoreError: A part is missing, or one before the last is short.
    """
    count = len(sizes)
    if not count or set(sizes) != set(range(1, count + 1)):
        raise StoreError(
            f"cannot complete the upload: of {max(sizes, default=0)} parts {count} came"
        )
    short = [number for number in range(1, count) if sizes[number] < least]
    if short:
        raise StoreError(f"cannot complete the upload: part {short[0]} is shorter than {least}")
    return sum(sizes.values())


async def uninterrupted(request: Coroutine[Any, Any, _T], *, patient: bool = False) -> _T:
    """Let *request* end however often the caller is cancelled meanwhile.

    Tearing it would leave open what it did. It runs as a task of its own, because shielding alone
    does not stop a plain ``Task.cancel``. What it returns is lost when the caller is cancelled, so
    it should keep elsewhere whatever has to be cleaned up.

    Args:
        request: At most GRACE_SECONDS after the first cancellation it is cancelled, too.
        patient: Never cancel it: a thread goes on anyway.
    """
    task = asyncio.create_task(request)
    task.add_done_callback(_look_at)
    try:
        cancellation = await _outlive(task, inf if patient else GRACE_SECONDS, None)
        if not task.done():
            task.cancel()
            cancellation = await _outlive(task, GRACE_SECONDS, cancellation)
        if cancellation is not None:
            raise cancellation
        return task.result()
    finally:
        del cancellation  # its traceback leads back here, and this to what was being sent


async def _outlive(
    task: "asyncio.Task[_T]", seconds: float, cancellation: asyncio.CancelledError | None
) -> asyncio.CancelledError | None:
    """Wait for *task* until *seconds* after the first cancellation; return the last one."""
    now = asyncio.get_running_loop().time
    deadline = inf if cancellation is None else now() + seconds
    while not task.done() and (left := deadline - now()) > 0:
        try:
            # After the first one only native cancellations come. The last of them is to be raised:
            # the scope of an earlier one would take it for its own and go on.
            with anyio.CancelScope(shield=cancellation is not None):
                await asyncio.wait([task], timeout=None if left == inf else left)
        except asyncio.CancelledError as error:
            if cancellation is None:
                deadline = now() + seconds
            cancellation = error
    return cancellation


def _look_at(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()  # else asyncio complains that nobody looked


async def clean_up(
    request: Coroutine[Any, Any, str],
    error: BaseException | None,
    *,
    left: str,
    patient: bool = False,
) -> None:
    """Let *request* remove what is unfinished; never without a word if that fails.

    A cancellation that comes meanwhile does not take the place of an error.

    Args:
        request: Returns what is left then, or nothing.
        error: The one in flight, which gets a note.
        left: What is left if the request does not even end.
        patient: As for :func:`uninterrupted`.

    Raises:
        StoreError: Something is left and there is no error in flight.
    """

    async def run() -> None:
        nonlocal left
        left = await request

    try:
        with anyio.CancelScope(shield=True):
            await uninterrupted(run(), patient=patient)
    except asyncio.CancelledError as cancellation:
        if error is None or isinstance(error, asyncio.CancelledError):
            if left:
                leave_note(cancellation, left)
            raise
    if left and error is None:
        raise StoreError(left)
    if left and error is not None:
        leave_note(error, left)
