"""The hidden files in a directory of objects, and whose they are.

Whoever uses one holds a lock on it, which the system takes back when the process dies, so a file
whose lock can be taken is nobody's. Where a file system knows no locks, they are left alone.
"""

import errno
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from etcetera.errors import StoreError

FILE_MODE = 0o644
"""Less the umask; a file repository is there to be shared."""

_NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF}
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Descriptor:
    """An open file, closed when it is and nobody uses it: its number never means another one."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._users = 1
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def use(self) -> Iterator[int]:
        """Lend the number.

        Raises:
            OSError: It is closed already.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._users += 1
        try:
            yield self._number
        finally:
            self._leave()

    def close(self) -> None:
        """Close it, at the latest when the last user is done."""
        with self._lock:
            closed, self._closed = self._closed, True
        if not closed:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            unused = not self._users
        if unused:
            os.close(self._number)


def create_part(directory: Path, key: str) -> tuple[Path, Descriptor]:
    """Make a hidden file to be written, and hold it."""
    while True:
        path = directory / f"{_prefix(key)}{secrets.token_hex(8)}.part"
        number = os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        if _take(number) is not False and _is_at(path, number):
            return path, Descriptor(number)
        # Between the two calls somebody took it for a dead one.
        os.close(number)
        path.unlink(missing_ok=True)


def remove_dead_parts(directory: Path, key: str) -> None:
    """Remove the hidden files of uploads of *key* that no living process holds, where possible."""
    name = re.compile(re.escape(_prefix(key)) + r"[0-9a-f]{16}\.part")
    with suppress(OSError):
        for found in os.listdir(directory):  # noqa: PTH208 - names are enough
            if name.fullmatch(found):
                _remove_if_dead(directory / found)


def _remove_if_dead(path: Path) -> None:
    with suppress(OSError):
        number = os.open(path, _FLAGS | os.O_RDWR | os.O_NONBLOCK)
        try:
            if _take(number):
                path.unlink()
        finally:
            os.close(number)


def _prefix(key: str) -> str:
    # The key is cut so that the hidden name is never too long where the key is not.
    return f".{key[:40]}."


@contextmanager
def guarded(target: Path) -> Iterator[None]:
    """Keep other processes from publishing *target* meanwhile.

    Raises:
        StoreError: Somebody is publishing it.
    """
    guard = target.with_name(f".{target.name}.guard")
    number = _take_guard(guard, target)
    try:
        yield
    finally:
        guard.unlink(missing_ok=True)
        os.close(number)


def _take_guard(guard: Path, target: Path) -> int:
    while True:
        number, created = _open_guard(guard)
        taken = _take(number)
        if (taken or (taken is None and created)) and _is_at(guard, number):
            return number
        os.close(number)
        if taken is False:
            raise StoreError(f"{target} is being published by somebody else; try again")
        if taken is None:
            raise StoreError(
                f"{target} is being published by somebody else; if not, remove {guard}"
            )


def _open_guard(guard: Path) -> tuple[int, bool]:
    """Return a descriptor, and whether the file is new."""
    while True:
        with suppress(FileExistsError):
            return os.open(guard, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        with suppress(FileNotFoundError):
            return os.open(guard, _FLAGS | os.O_RDWR), False


def _take(number: int) -> bool | None:
    """Lock an open file for as long as it is open; ``None`` where that is not supported."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _is_at(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(number))
    except FileNotFoundError:
        return False
