"""Files and directories of a remote dataset, in the manner of pathlib."""

import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, overload

from etcetera.errors import PathNotFound, UsageError
from etcetera.remote_reading import AnyFile
from etcetera.times import time_from
from etcetera.transfer.children import Child
from etcetera.transfer.options import KiB
from etcetera.transfer.tar import Entry

if TYPE_CHECKING:
    from etcetera.remote_dataset import RemoteDataset

Run = Callable[[Callable[[Any], Awaitable[bytes]]], bytes]

_BUFFER = 64 * KiB
"""Bytes that a file asks for at once; what was fetched with them is kept."""


class RemotePath:
    """A file or directory of a remote dataset: what a ``pathlib.Path`` is for a local one.

    Iterating over a directory yields all files below it, in the order of the archive and fetched
    ahead, so that reading them waits for nothing.

    Attributes:
        dataset: The dataset.
        path: Relative to it, with slashes; ``""`` is all of it.
    """

    __slots__ = ("_content", "_entry", "dataset", "path")

    def __init__(
        self,
        dataset: "RemoteDataset",
        path: str,
        entry: Entry | None = None,
        content: bytes | None = None,
    ) -> None:
        self.dataset = dataset
        self.path = path
        self._entry = entry
        self._content = content

    @property
    def name(self) -> str:
        """The last component of the path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """What the name ends with, from its last dot on."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> "RemotePath":
        """The directory that it lies in."""
        return self.dataset.file(PurePosixPath(self.path).parent)

    def __truediv__(self, other: str | PurePosixPath) -> "RemotePath":
        return self.dataset.file(self.path, other)

    def exists(self) -> bool:
        """Whether there is such a file or directory."""
        return self._look() is not None

    def is_file(self) -> bool:
        """Whether it is a file, or a link to one."""
        entry = self._look()
        return entry is not None and entry.kind == "f"

    def is_dir(self) -> bool:
        """Whether it is a directory, or a link to one."""
        entry = self._look()
        return entry is not None and entry.kind == "d"

    @property
    def size(self) -> int:
        """Bytes of the file; of a directory that was listed, of all files below it.

        Raises:
            PathNotFound: There is no such file or directory.
        """
        return self._entry_there().size

    @property
    def modified(self) -> datetime:
        """When the file was last modified; UTC, in whole seconds.

        Raises:
            PathNotFound: There is no such file or directory.
        """
        return time_from(self._entry_there().mtime)

    def iterdir(self) -> "Iterator[RemotePath]":
        """Yield what lies directly in the directory, sorted by name.

        Raises:
            PathNotFound: There is no such directory.
        """
        for row in self.dataset.list_directory(self.path):
            yield self.listed(self.dataset, row)

    @classmethod
    def listed(cls, dataset: "RemoteDataset", row: Child) -> "RemotePath":
        """The path of what a directory lists."""
        entry = Entry(row.path, row.kind, row.size, 0, row.mtime or 0)
        # What a link leads to has to be looked up.
        return cls(dataset, row.path, entry if row.kind != "l" else None)

    @overload
    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedIOBase: ...

    @overload
    def open(
        self, mode: Literal["r", "rt"], encoding: str = "utf-8", newline: str | None = None
    ) -> io.TextIOWrapper: ...

    def open(
        self, mode: str = "rb", encoding: str = "utf-8", newline: str | None = None
    ) -> io.BufferedIOBase | io.TextIOWrapper:
        """Open the file as a seekable one; see :meth:`RemoteDataset.open`.

        Args:
            mode: ``"rb"`` for bytes, ``"r"`` for text.
            encoding: Of text.
            newline: As for the built-in function ``open``.

        Raises:
            UsageError: It is another mode: remote datasets are only read.
        """
        if mode not in ("rb", "r", "rt"):
            raise UsageError(f"A remote file is opened with mode 'rb' or 'r', not {mode!r}")
        file = self.dataset.open(self.path) if self._content is None else io.BytesIO(self._content)
        return file if mode == "rb" else io.TextIOWrapper(file, encoding, newline=newline)

    def read_bytes(self) -> bytes:
        """Return the content of the file, which is there already in a loop over a directory."""
        return self.dataset.read(self.path) if self._content is None else self._content

    async def aread_bytes(self) -> bytes:
        """The same as :meth:`read_bytes`."""
        return await self.dataset.aread(self.path) if self._content is None else self._content

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content of the file as text."""
        return self.read_bytes().decode(encoding)

    def __iter__(self) -> "Iterator[RemotePath]":
        return self.dataset.files(self.path)

    def __aiter__(self) -> "AsyncIterator[RemotePath]":
        return self.dataset.afiles(self.path)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemotePath):
            return NotImplemented
        return (self.dataset, self.path) == (other.dataset, other.path)

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"RemotePath({self.path!r}, of {self.dataset!r})"

    def __str__(self) -> str:
        return self.path

    def _look(self) -> Entry | None:
        if self._entry is None:
            self._entry = self.dataset.look_up(self.path)
        return self._entry

    def _entry_there(self) -> Entry:
        entry = self._look()
        if entry is None:
            raise PathNotFound(f"There is no {self.path} in {self.dataset}")
        return entry


class RemoteFile(io.BufferedReader):
    """A file of a remote dataset that is open: seekable, binary, to be read only.

    Attributes:
        size: Bytes of the file.
    """

    def __init__(self, file: AnyFile, run: Run) -> None:
        """Begin at the first byte.

        Args:
            file: What is read.
            run: Has an async function called on the event loop that *file* belongs to.
        """
        super().__init__(_RawFile(file, run), _BUFFER)
        self.size = file.entry.size


class _RawFile(io.RawIOBase):
    """What the buffer asks."""

    def __init__(self, file: AnyFile, run: Run) -> None:
        self._file = file
        self._run = run
        self._position = 0
        self._process = os.getpid()

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be read from anywhere: yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, which may lie behind the end; return it."""
        size = self._file.entry.size
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}
        if whence not in origins or origins[whence] + offset < 0:
            raise ValueError(f"cannot seek to {offset} from {whence}")
        self._position = origins[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* with what comes next; return how much came, 0 at the end."""
        if self._process != os.getpid():
            raise UsageError(f"{self._file.entry.path} was opened before a fork: open it again")
        start = self._position
        view = memoryview(buffer).cast("B")
        data = self._run(lambda _: self._file.read(start, start + len(view)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of what is kept of the file."""
        if not self.closed:
            self._file.close()
        super().close()
