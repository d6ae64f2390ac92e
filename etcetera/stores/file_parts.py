"""The hidden files in a directory of objects, and whose they are.

Whoever uses one holds a lock on it, which the system takes back when the process dies, so a file
whose lock can be taken is nobody's. Where a file system knows no locks, they are left alone.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from etcetera.errors import StoreError

FILE_MODE = 0o644
"""Less the umask; a file repository is there to be shared."""

_NO_LOCKS = {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EBADF}
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW
_PREFIX_LENGTH = 40
"""Characters that are left of a key that is cut in the name of its hidden file."""
_MAX_UNCUT = 120
"""Bytes of a key that is not cut. Source: eCryptfs has names of 143 bytes, others 255."""
_OLD_DAYS = 30
"""After these a hidden file is removed whose name, of an earlier version, may mean another key."""
_ANY_PART = re.compile(r"\.(.+)\.[0-9a-f]{16}\.part", re.DOTALL)
_CUT = re.compile(r".{40}~[0-9a-f]{16}", re.DOTALL)


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
        path = directory / f".{_name(key)}.{secrets.token_hex(8)}.part"
        number = os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE)
        if _take(number) is not False and _is_at(path, number):
            return path, Descriptor(number)
        # Between the two calls somebody took it for a dead one.
        os.close(number)
        path.unlink(missing_ok=True)


def adopt_part(directory: Path, key: str, path: Path) -> Descriptor | None:
    """Hold the hidden file of an upload of *key* that a dead process left; ``None`` without one."""
    names = (_name(key), key[:_PREFIX_LENGTH])
    if path.parent != directory or not any(_pattern(name).fullmatch(path.name) for name in names):
        return None
    try:
        number = os.open(path, _FLAGS | os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    # Where there are no locks, nobody knows whether it is held.
    if _take(number) and _is_at(path, number):
        return Descriptor(number)
    os.close(number)
    return None


def remove_dead_parts(directory: Path, key: str) -> None:
    """Remove the hidden files of uploads of *key* that no living process holds, where possible."""
    mine, old = _pattern(_name(key)), _pattern(key[:_PREFIX_LENGTH])
    with suppress(OSError):
        for found in os.listdir(directory):  # noqa: PTH208 - names are enough
            path = directory / found
            if mine.fullmatch(found) or (
                old.fullmatch(found) and path.lstat().st_mtime < time.time() - _OLD_DAYS * 86400
            ):
                remove_dead_part(directory, key, path)


def remove_dead_part(directory: Path, key: str, path: Path) -> None:
    """Remove the hidden file of one upload of *key*, if no living process holds it."""
    held = adopt_part(directory, key, path)
    if held is not None:
        try:
            path.unlink()
        finally:
            held.close()


def dead_parts(directory: Path, before: float) -> list[tuple[str, Path, os.stat_result]]:
    """The hidden files that no living process holds, unchanged since *before*; with their keys.

    Very long keys are cut in such names, and their uploads are left out.
    """
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = _ANY_PART.fullmatch(entry.name)
            if match is None or len(match[1]) == _PREFIX_LENGTH or _CUT.fullmatch(match[1]):
                continue
            with suppress(OSError):  # gone meanwhile, or somebody else's
                held = adopt_part(directory, match[1], Path(entry.path))
                if held is not None:
                    held.close()
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        found.append((match[1], Path(entry.path), entry.stat()))
    return found


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.part", re.DOTALL)


def _name(key: str) -> str:
    """What stands for *key* in hidden names; it is never too long where the key is not."""
    content = os.fsencode(key)
    # A key of this very length would look as longer ones did in earlier versions.
    if len(content) <= _MAX_UNCUT and len(key) != _PREFIX_LENGTH:
        return key
    return f"{key[:_PREFIX_LENGTH]}~{hashlib.sha256(content).hexdigest()[:16]}"


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
