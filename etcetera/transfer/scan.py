"""A directory → checked entries, in archive order.

The scan refuses what cannot be packed before any request is sent, and keeps a compact record of
what it saw: one column per property and directory, about 100 bytes a file, so that a million
files fit.
"""

import errno
import os
import stat
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from etcetera.errors import InvalidDataset, SourceChanged, os_errors
from etcetera.transfer.descend import Descent
from etcetera.transfer.paths import INDEX_NAME, link_problem, path_problem, rank
from etcetera.transfer.tar import MAX_MTIME, Entry, header_size, padded

_SHOWN = 5
"""Problems listed in one message."""


class Totals:
    """Sums over the files of a dataset, or of one partition."""

    __slots__ = ("bytes", "files")

    def __init__(self, files: int = 0, bytes: int = 0) -> None:  # noqa: A002
        self.files = files
        self.bytes = bytes

    def add(self, size: int) -> None:
        """Count one file of *size* bytes."""
        self.files += 1
        self.bytes += size

    def merge(self, files: int, bytes: int) -> None:  # noqa: A002
        """Count some files at once."""
        self.files += files
        self.bytes += bytes


class Fingerprint:
    """A quick hash over entries, in any order; contents are not read."""

    __slots__ = ("sum",)

    def __init__(self) -> None:
        self.sum = 0
        """What all entries add up to."""

    def add(self, path: str, kind: str, size: int, mtime: int, target: str) -> None:
        """Add one entry.

        Args:
            path: Of the entry.
            kind: ``f``, ``x`` (an executable file), ``d`` or ``l``.
            size: Bytes of a file.
            mtime: Nanoseconds; 0 for a directory, whose time is not looked at.
            target: Of a link.
        """
        self.sum += crc32(f"{path}\0{kind}\0{size}\0{mtime}\0{target}".encode())

    def value(self) -> str:
        """16 hexadecimal digits."""
        return f"{self.sum & (1 << 64) - 1:016x}"


class _Directory:
    """What one directory holds, as columns in archive order."""

    __slots__ = ("below", "first", "mtimes", "names", "path", "sizes", "stamps", "targets", "types")

    def __init__(self, path: str) -> None:
        self.path = path
        self.first = 0
        """The number of its first entry, and the others' follow."""
        self.names: list[str] = []
        self.types = bytearray()  # of the characters d, l, f and, for executable files, x
        self.sizes = array("Q")
        self.mtimes = array("Q")
        self.stamps = array("Q")
        self.targets: dict[int, str] = {}
        self.below: dict[int, _Directory] = {}

    def entry(self, i: int) -> Entry:
        """What lies at one place."""
        path, kind, mtime = self.path + self.names[i], self.types[i], self.mtimes[i]
        if kind == _DIRECTORY:
            return Entry(path, "d", 0, 0o755, mtime)
        if kind == _LINK:
            return Entry(path, "l", 0, 0o777, mtime, self.targets[i])
        mode = 0o755 if kind == _EXECUTABLE else 0o644
        return Entry(path, "f", self.sizes[i], mode, mtime, "", self.stamps[i])

    def find(self, name: str) -> int:
        """Where *name* is, or -1."""
        if self.path:
            i = bisect_left(self.names, name)
        else:
            i = bisect_left(self.names, (rank(name), name), key=lambda one: (rank(one), one))
        return i if i < len(self.names) and self.names[i] == name else -1


class Scan:
    """A dataset's directory as it was when scanned."""

    def __init__(self, root: Path, top: _Directory) -> None:
        self.root = root
        self.inode = 0
        """Of the root."""
        self.newest = 0
        """When anything below the root was last changed, in any way: status change time in ns."""
        self._top = self._last = top
        self.entries_count = 0
        self.path_bytes = 0
        """UTF-8 bytes of all paths and link targets together."""
        self.tar_size = 0
        """Bytes that all members take in the tar stream."""
        self.total = Totals()
        self.partitions: dict[str, Totals] = {}
        self.fingerprint = ""
        """Changes when an entry comes, goes or changes its kind, size, time or target; contents
        are not read."""

    def entries(self) -> Iterator[Entry]:
        """Yield every entry, directories before what they hold, in the order of the archive."""
        for _, entry in self.numbered():
            yield entry

    def numbered(self) -> Iterator[tuple[int, Entry]]:
        """The same, each with its number, from 0 to ``entries_count`` - 1 in another order."""
        stack = [(self._top, 0)]
        while stack:
            directory, position = stack.pop()
            for i in range(position, len(directory.names)):
                yield directory.first + i, directory.entry(i)
                if i in directory.below:
                    stack.append((directory, i + 1))
                    stack.append((directory.below[i], 0))
                    break

    def find(self, path: str) -> tuple[int, Entry] | None:
        """Look one entry up; with its number as :meth:`numbered` gives it."""
        where, slash, name = path.rpartition("/")
        directory: _Directory | None = self._last
        if directory is None or directory.path != where + slash:
            directory = self._top
            for part in where.split("/") if slash else ():
                directory = directory.below.get(directory.find(part))
                if directory is None:
                    return None
            self._last = directory
        i = directory.find(name)
        return None if i < 0 else (directory.first + i, directory.entry(i))


_DIRECTORY, _LINK, _FILE, _EXECUTABLE = b"dlfx"


def scan(root: Path, stop: threading.Event | None = None) -> Scan:
    """Look at everything below *root*, which is followed if it is a link itself.

    Args:
        root: The dataset's directory.
        stop: Makes the scan end early, once set by another thread.

    Raises:
        InterruptedError: *stop* was set.
        InvalidDataset: It holds sockets, devices, unreadable files, links that leave it, or names
            that cannot be restored; the first few are listed.
        NotAllowed: A directory cannot be read.
    """
    top = _Directory("")
    result = Scan(root, top)
    problems: list[str] = []
    # Access is only worth asking for where it can be refused.
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    fingerprint = Fingerprint()
    pending = [top]
    newest = path_bytes = tar_size = 0
    with _opened(root) as descent:
        result.inode = os.fstat(descent.descriptor).st_ino
        while pending:
            directory = pending.pop()
            directory.first = result.entries_count
            if stop is not None and stop.is_set():
                raise InterruptedError
            names, types, sizes = directory.names, directory.types, directory.sizes
            mtimes, stamps = directory.mtimes, directory.stamps
            # Of the partition that the directory lies in; directly in data, each entry is one.
            where, _, rest = directory.path.partition("/")
            totals = result.partitions.get(rest.partition("/")[0]) if where == "data" else None
            # This loop runs once for each of as many as a million files.
            for child in _sorted_children(descent, root, directory.path):
                name = child.name
                path = directory.path + name
                try:
                    status = child.stat(follow_symlinks=False)
                    kind, target, problem = _look(
                        path, status.st_mode, descent.descriptor, is_root=is_root
                    )
                except OSError as error:
                    with os_errors(f"reading {root / path}"):
                        raise error
                if problem:
                    problems.append(f"{path!r}: {problem}")
                    continue
                is_file = kind in b"fx"
                size = status.st_size if is_file else 0
                time, stamp = status.st_mtime_ns, status.st_ctime_ns
                if directory.path == "data/":
                    totals = result.partitions[name] = Totals()
                if is_file:
                    result.total.add(size)
                    if totals is not None:
                        totals.add(size)
                elif kind == _LINK:
                    directory.targets[len(names)] = target
                else:
                    directory.below[len(names)] = inner = _Directory(f"{path}/")
                    pending.append(inner)
                # The time of a directory changes with what is put into it.
                fingerprint.add(path, chr(kind), size, 0 if kind == _DIRECTORY else time, target)
                names.append(name)
                types.append(kind)
                sizes.append(size)
                mtimes.append(min(max(0, time // 1_000_000_000), MAX_MTIME))
                stamps.append(stamp)
                if stamp > newest:
                    newest = stamp
                path_bytes += len(path if path.isascii() else path.encode()) + len(target.encode())
                # As long as the header of any kind: only path, target and size matter.
                tar_size += header_size(path, size, target) + padded(size)
            result.entries_count += len(names)
    result.newest, result.path_bytes, result.tar_size = newest, path_bytes, tar_size
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidDataset(
            f"{root} cannot be packed: {'; '.join(problems[:_SHOWN])}{more}. "
            "Remove or rename these, or put copies in place of links, and try again."
        )
    result.fingerprint = fingerprint.value()
    return result


def _look(path: str, mode: int, directory: int, *, is_root: bool) -> tuple[int, str, str | None]:
    """Kind and target of one entry, and why it cannot be packed."""
    problem = path_problem(path)
    name = path.rpartition("/")[2]
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFREG:
        if not is_root and not os.access(name, os.R_OK, dir_fd=directory):
            problem = problem or "it cannot be read"
        return (_EXECUTABLE if mode & 0o100 else _FILE), "", problem
    if kind == stat.S_IFDIR:
        return _DIRECTORY, "", problem
    if kind == stat.S_IFLNK:
        target = os.readlink(name, dir_fd=directory)
        return _LINK, target, problem or link_problem(path, target)
    return _FILE, "", "it is no file, directory or link"


@contextmanager
def _opened(root: Path) -> Iterator[Descent]:
    with os_errors(f"reading {root}"):
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Descent(descriptor) as descent:
            yield descent
    finally:
        os.close(descriptor)


def _sorted_children(descent: Descent, root: Path, path: str) -> "list[os.DirEntry[str]]":
    """What a directory holds; only of use until the next one is entered."""
    with os_errors(f"reading {root / path}"):
        try:
            descriptor = descent.enter(path.rstrip("/"))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise SourceChanged(
                    f"{root / path} changed while it was looked at; try again when nobody writes"
                ) from error
            raise
        with os.scandir(descriptor) as children:
            if path:
                return sorted(children, key=lambda child: child.name)
            return sorted(
                (child for child in children if child.name != INDEX_NAME),
                key=lambda child: (rank(child.name), child.name),
            )
