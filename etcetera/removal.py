"""Deleting trees: never following a link, at any depth, and read-only directories too."""

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

_BATCH = 10_000
"""Names held in memory at once."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: Path) -> None:
    """Delete *path* and all below it; no error if there is nothing.

    A directory found inside is first moved to the top. So nothing is ever deeper than two levels:
    neither the length of paths, nor recursion, nor open files set a limit. When it fails, the
    tree is left in pieces, so call it only on what nobody will look at again.

    Args:
        path: A tree, or a file or link, of which only itself is deleted.

    Raises:
        OSError: Something cannot be deleted; ``filename`` says what.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        top = _open_directory(str(path), None)
    except FileNotFoundError:
        return
    try:
        _empty_top(top)
    except OSError as error:
        # Only the name within its directory is known down there.
        error.filename = str(path / os.fsdecode(error.filename or ""))
        raise
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        path.rmdir()


def _empty_top(top: int) -> None:
    prefix = f".removed-{os.urandom(8).hex()}-"  # as nothing in the tree is called
    new_names = (f"{prefix}{number}" for number in count())
    with os.scandir(top) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    waiting = deque(name for name, is_directory in names if is_directory)
    for name, is_directory in names:
        if not is_directory:
            _unlink(name, top)
    while waiting:
        name = waiting.popleft()
        try:
            descriptor = _open_directory(name, top)
        except FileNotFoundError:  # somebody else deletes it as well
            continue
        try:
            _empty(descriptor, top, waiting, new_names)
        finally:
            os.close(descriptor)
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=top)


def _empty(directory: int, top: int, waiting: deque[str], new_names: Iterator[str]) -> None:
    """Unlink what *directory* holds, and move its directories to *top* and into *waiting*."""
    while True:
        with os.scandir(directory) as entries:
            batch = list(islice(entries, _BATCH))
        if not batch:
            return
        for entry in batch:
            if entry.is_dir(follow_symlinks=False):
                new_name = next(new_names)
                if _move_up(entry.name, directory, top, new_name):
                    waiting.append(new_name)
            else:
                _unlink(entry.name, directory)


def _move_up(name: str, directory: int, top: int, new_name: str) -> bool:
    """Tell whether there was something to move."""
    while True:
        try:
            os.rename(name, new_name, src_dir_fd=directory, dst_dir_fd=top)
        except FileNotFoundError:
            return False
        except PermissionError:
            # Moving changes "..": the directory itself has to be writable.
            if _status(name, directory).st_mode & stat.S_IWUSR:
                raise
            _make_writable(name, directory)
        else:
            return True


def _open_directory(name: str, parent: int | None) -> int:
    status = _status(name, parent)
    if stat.S_IMODE(status.st_mode) & stat.S_IRWXU != stat.S_IRWXU:
        # Failing here would hide the better error of what needed the permission.
        with suppress(PermissionError):
            _make_writable(name, parent)
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def _status(name: str, parent: int | None) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def _make_writable(name: str, parent: int | None) -> None:
    os.chmod(name, stat.S_IRWXU, dir_fd=parent)


def _unlink(name: str, directory: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
