"""Renaming without replacing, for file systems without hard links."""

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

from etcetera.errors import StoreError

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_UNKNOWN = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


def rename_exclusive(source: Path, target: Path) -> None:
    """Rename *source* to *target* unless that exists.

    Raises:
        FileExistsError: *target* exists.
        StoreError: Another publication of *target* is going on, or died in the middle.
    """
    try:
        _rename_noreplace(source, target)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        _rename_guarded(source, target)


def _rename_noreplace(source: Path, target: Path) -> None:
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    names = os.fsencode(source), os.fsencode(target)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(source), None, str(target))


def _rename_guarded(source: Path, target: Path) -> None:
    """Look, then rename, while a guard file keeps other publishers out."""
    guard = target.with_name(f".{target.name}.guard")
    try:
        descriptor = os.open(guard, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise StoreError(
            f"{target} is being published by someone else; if not, remove {guard}"
        ) from error
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        source.rename(target)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            guard.unlink()
