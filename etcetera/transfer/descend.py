"""Directories below a root, reached one component at a time and never through a link.

A path given to the system in one piece would follow whatever link somebody puts in its middle,
however shortly before it was looked at.
"""

import errno
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
"""What opening a file fails with where there is none, or a link or socket."""


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


def _make(name: str, descriptor: int) -> int:
    with suppress(FileExistsError):  # Another thread was faster.
        os.mkdir(name, 0o755, dir_fd=descriptor)
    return os.open(name, DIRECTORY, dir_fd=descriptor)
