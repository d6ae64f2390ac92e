"""What the stores have in common."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import anyio

from etcetera.errors import InvalidName, StoreError

GRACE_SECONDS = 10.0
"""How long what must not be torn may hold up a cancellation."""

_T = TypeVar("_T")


def leave_note(error: BaseException, note: str) -> None:
    """Say with *error*, whatever becomes of it, what could not be cleaned up."""
    error.add_note(note)
    if not isinstance(error, Exception):
        # Nobody is shown a cancellation.
        logging.getLogger("etcetera").warning("%s", note)


def check_key(key: str) -> str:
    """Return *key* if it can name an object in every store.

    Raises:
        InvalidName: It is empty, hidden, or more than one path component.
    """
    if not key or key.startswith(".") or "/" in key or "\0" in key:
        raise InvalidName(f"{key!r} cannot name an object: it is empty, hidden or holds a slash")
    return key


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


def check_parts(sizes: Mapping[int, int], part_size: int) -> int:
    """Return the bytes of all parts together, if they make one whole object.

    Args:
        sizes: Bytes by part number.
        part_size: Bytes in every part but the last.

    Raises:
        StoreError: A part is missing, or one before the last is short.
    """
    count = len(sizes)
    if not count or set(sizes) != set(range(1, count + 1)):
        raise StoreError(
            f"cannot complete the upload: of {max(sizes, default=0)} parts {count} came"
        )
    short = [number for number in range(1, count) if sizes[number] != part_size]
    if short:
        raise StoreError(f"cannot complete the upload: part {short[0]} is shorter than {part_size}")
    return sum(sizes.values())


async def uninterrupted(request: Coroutine[Any, Any, _T]) -> _T:
    """Let *request* end even if the caller is cancelled meanwhile, for at most GRACE_SECONDS.

    Tearing it would leave open what it did. It runs as a task of its own, because shielding alone
    does not stop a plain ``Task.cancel``. What it returns is lost when the caller is cancelled, so
    it should keep elsewhere whatever has to be cleaned up.
    """
    task = asyncio.create_task(request)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await asyncio.wait([task], timeout=GRACE_SECONDS)
        raise
    finally:
        if not task.done():
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([task], timeout=GRACE_SECONDS)
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio complains that nobody looked
