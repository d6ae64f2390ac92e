"""Changes to the file system that happen whole or not at all, and outlast a power loss."""

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
# The kernel, the C library or the file system does not know the call or its flag.
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def rename_new(source: Path, target: Path) -> None:
    """Rename *source* to *target*, which must not exist.

    Raises:
        FileExistsError: It does exist.
        OSError: Renaming failed; nothing has changed.
    """
    if _renameat2(source, target, _RENAME_NOREPLACE):
        return
    # Not exclusive, but as close as such a file system allows: at worst, two that install the
    # same name at the same moment replace an empty directory or a link of each other.
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    source.rename(target)


def replace(source: Path, target: Path, aside: Path) -> None:
    """Put *source* in the place of *target*, which moves to *aside*.

    Where the system can exchange two names, *target* exists at every moment. Elsewhere it is
    absent for an instant.

    Args:
        source: A file, link or directory.
        target: What has to give way; a link is not followed.
        aside: A free path on the same file system.

    Raises:
        FileNotFoundError: There is no *target* any more; nothing has changed.
        OSError: Renaming failed; everything is back in its place.
    """
    _make_movable(target)
    # Source goes to the final place of target first: whenever the process dies, what used to be
    # target is at target or at aside, never where it would count as rubbish.
    rename_new(source, aside)
    try:
        if _renameat2(aside, target, _RENAME_EXCHANGE):
            return
    except BaseException:
        aside.rename(source)
        raise
    aside.rename(source)
    rename_new(target, aside)
    try:
        rename_new(source, target)
    except BaseException:
        aside.rename(target)
        raise


def move(source: Path, target: Path) -> None:
    """Rename *source* to *target*, which must not exist; a read-only directory moves too.

    Raises:
        OSError: Renaming failed; nothing has changed.
    """
    _make_movable(source)
    rename_new(source, target)


def sync_filesystem(path: Path) -> None:
    """Wait until all that was written to the file system of *path* is on the disk.

    One call for a whole tree: syncing a million files one by one would take hours.

    Raises:
        OSError: Something could not be written.
    """
    syncfs = getattr(_libc(), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(descriptor):
            number = ctypes.get_errno()
            _ignore_unsupported(OSError(number, os.strerror(number), str(path)))
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until one file, or the names in one directory, are on the disk.

    Raises:
        OSError: They could not be written.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        _ignore_unsupported(error)
    finally:
        os.close(descriptor)


def _ignore_unsupported(error: OSError) -> None:
    if error.errno not in _UNSUPPORTED:
        raise error
    logging.getLogger("etcetera").debug("syncing is not supported: %s", error)


def _make_movable(path: Path) -> None:
    """Let a read-only directory move: its ``..`` changes, so the system wants it writable."""
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode) and not os.access(path, os.W_OK):
        path.chmod(stat.S_IMODE(status.st_mode) | stat.S_IRWXU)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Rename with a flag of Linux; false if that is not supported here.

    Source: man 2 renameat2.
    """
    call = getattr(_libc(), "renameat2", None)
    if call is None:
        return False
    if not call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag):
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def write(path: Path, fill: Callable[[BinaryIO], object]) -> bool:
    """Write a private file, whole or not at all; return whether it was.

    Args:
        path: Of the file; an older one is replaced.
        fill: Writes it; ``False`` means that there is to be none.

    Raises:
        OSError: It cannot be written; what was there before still is.
    """
    temporary = path.with_name(f".{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            filled = fill(file)
        if filled is not False:
            sync(temporary)
            temporary.replace(path)
            return True
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    temporary.unlink()
    return False
