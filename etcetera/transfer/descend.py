"""Directories below a root, reached one component at a time and never through a link.

A path given to the system in one piece would follow whatever link somebody puts in its middle,
however shortly before it was looked at.
"""

import errno
import os
import posixpath
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from etcetera.errors import InvalidDataset
from etcetera.transfer.paths import link_problem

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
"""What opening a file fails with where there is none, or a link or socket."""
MAX_LINKS = 40
"""On the way to one file. Source: Linux, ``MAXSYMLINKS``."""


class Descent:
    """For one thread; keeps the directory it was in last open, since the next is often the same."""

    def __init__(self, root: int) -> None:
        """Begin at *root*, a descriptor that stays the caller's."""
        self._root = root
        self._path = ""
        self.descriptor = root
        """Of the directory entered last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def enter(self, path: str, *, create: bool = False) -> int:
        """Go to the directory *path*, relative to the root, and return its descriptor.

        Args:
            path: Components without ``.`` or ``..``; empty for the root.
            create: Make what is missing.

        Raises:
            OSError: A component is missing, or is a link or file (NotADirectoryError, or ELOOP).
        """
        if path == self._path:
            return self.descriptor
        self._leave()
        descriptor = self._root
        try:
            for name in path.split("/") if path else ():
                try:
                    below = os.open(name, DIRECTORY, dir_fd=descriptor)
                except FileNotFoundError:
                    if not create:
                        raise
                    below = _make(name, descriptor)
                if descriptor != self._root:
                    os.close(descriptor)
                descriptor = below
        except OSError:
            if descriptor != self._root:
                os.close(descriptor)
            raise
        self._path, self.descriptor = path, descriptor
        return descriptor

    def open(self, path: str) -> int:
        """Open the file *path*, relative to the root, for reading; nothing is waited for.

        Raises:
            OSError: It cannot be opened; one of :data:`NO_FILE` if there is no such file.
        """
        directory, _, name = path.rpartition("/")
        return os.open(name, _FILE, dir_fd=self.enter(directory))

    def _leave(self) -> None:
        if self.descriptor != self._root:
            os.close(self.descriptor)
        self._path, self.descriptor = "", self._root


def open_inside(root: Path, path: str) -> int:
    """Open a file of a dataset for reading; of links only those that stay in it are followed.

    Args:
        root: The dataset's directory, with every link resolved.
        path: Relative to it, and normal.

    Raises:
        InvalidDataset: A link leads out of the dataset.
        FileNotFoundError: There is nothing, or no file.
        IsADirectoryError: There is a directory.
        OSError: It cannot be opened.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Descent(top) as descent:
            for _ in range(MAX_LINKS):
                if (goal := _one_link(descent, root, path)) is None:
                    return _open_file(descent, path)
                path = goal
    except OSError as error:
        if error.errno in NO_FILE:
            raise FileNotFoundError(error.errno, os.strerror(error.errno), path) from error
        raise
    finally:
        os.close(top)
    raise FileNotFoundError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _one_link(descent: Descent, root: Path, path: str) -> str | None:
    """Where *path* leads by the first link in it; ``None`` if there is none."""
    parts = path.split("/")
    for count in range(len(parts)):
        directory = "/".join(parts[:count])
        try:
            target = os.readlink(parts[count], dir_fd=descent.enter(directory))
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is a link
                raise
            continue
        link = posixpath.join(directory, parts[count])
        if problem := link_problem(link, target):
            raise InvalidDataset(
                f"{str(root / link)!r} is a link: {problem}; put a copy in its place"
            )
        # Reading it as text is enough: '..' only leads a target, and never leaves the dataset.
        return posixpath.normpath(posixpath.join(directory, target, *parts[count + 1 :]))
    return None


def _open_file(descent: Descent, path: str) -> int:
    descriptor = descent.open(path)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENOENT
    raise OSError(code, os.strerror(code), path)


def _make(name: str, descriptor: int) -> int:
    with suppress(FileExistsError):  # Another thread was faster.
        os.mkdir(name, 0o755, dir_fd=descriptor)
    return os.open(name, DIRECTORY, dir_fd=descriptor)
