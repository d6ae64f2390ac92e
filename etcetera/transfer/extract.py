"""Files into a staging tree, never outside it.

Every path is walked from the tree's own descriptor, one component at a time, without following
links; files are created exclusively; links come last. So nothing that an archive names can reach
what is outside, and nothing can be written twice.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from etcetera.errors import CorruptArchive, NoSpace, UnsafeArchive, os_errors
from etcetera.space import existing
from etcetera.transfer.codec import Buffer
from etcetera.transfer.descend import DIRECTORY, Descent
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import link_problem
from etcetera.transfer.tar import Entry

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BACK = MiB


def check_space(path: Path, needed: int) -> None:
    """Raise NoSpace, with both numbers, if *needed* bytes are not free below *path*."""
    path = existing(path)
    with os_errors(f"looking at {path}"):
        status = os.statvfs(path)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise NoSpace(
            f"The dataset needs {needed:,} bytes and only {free:,} are free at {path}; "
            "free some space or choose another --home, then try again"
        )


class Extractor:
    """One tree that is being filled; its methods may be called from several threads."""

    def __init__(self, tree: Path) -> None:
        """Begin to fill *tree*, an empty directory that nobody else writes to."""
        with os_errors(f"writing {tree}"):
            self._root = os.open(tree, DIRECTORY)
        self._lock = threading.Lock()
        self._links: list[Entry] = []
        self._directories: list[Entry] = []
        self._large: set[LargeTarget] = set()
        self._linked: dict[int, str] = {}

    def close(self) -> None:
        """Close every descriptor."""
        for target in list(self._large):
            target.close()
        os.close(self._root)

    def writer(self) -> "Writer":
        """A writer for one thread."""
        return Writer(self, self._root)

    def add_link(self, entry: Entry) -> None:
        """Remember a link for :meth:`finish`."""
        with self._lock:
            self._links.append(entry)

    def add_directory(self, entry: Entry) -> None:
        """Remember a directory's time for :meth:`finish`: what is put into it changes it."""
        with self._lock:
            self._directories.append(entry)

    def take_deferred(self) -> tuple[list[Entry], list[Entry]]:
        """Hand over the links and directories that wait for :meth:`finish`."""
        with self._lock:
            deferred = self._links, self._directories
            self._links, self._directories = [], []
        return deferred

    def digest_of(self, directory: int, name: str, status: os.stat_result) -> str:
        """The SHA-256 of a file that has several names; read once, however many they are."""
        known = self._linked.get(status.st_ino)
        if known is None:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            with (
                os_errors(f"reading {name} back"),
                open(os.open(name, flags, dir_fd=directory), "rb") as file,  # noqa: PTH123
            ):
                known = hashlib.file_digest(file, "sha256").hexdigest()
            self._linked[status.st_ino] = known
        return known

    def large(self, entry: Entry, sha256: str) -> "LargeTarget":
        """A file to be written by position; *sha256* is what it must have in the end."""
        target = LargeTarget(self, entry, sha256)
        with self._lock:
            self._large.add(target)
        return target

    def forget(self, target: "LargeTarget") -> None:
        """No longer close *target* on leaving."""
        with self._lock:
            self._large.discard(target)

    def finish(self) -> None:
        """Create the links, then set the directories' times.

        Raises:
            CorruptArchive: A large file is not complete.
            UnsafeArchive: A link's path is taken.
        """
        if self._large:
            entry = next(iter(self._large)).entry
            raise CorruptArchive(f"archive is corrupt: {entry.path!r} is not complete")
        with self.writer() as writer:
            for entry in self._links:
                writer.link(entry)
            for entry in self._directories:
                writer.set_directory_time(entry)


class Writer:
    """Writes files from one thread, keeping the directory it last used open."""

    def __init__(self, extractor: Extractor, root: int) -> None:
        self._extractor = extractor
        self._descent = Descent(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._descent.__exit__(kind, error, traceback)

    def directory(self, entry: Entry) -> None:
        """Create a directory, or use the one that a member before has implied."""
        self._enter(entry.path)
        self._extractor.add_directory(entry)

    def file(self, entry: Entry, content: Buffer) -> None:
        """Create a file with all its content."""
        descriptor = self.create(entry)
        time = entry.mtime * 1_000_000_000
        # For as many as a million files: what the methods below do, without their calls.
        try:
            count = os.write(descriptor, content)
            if count < len(content):
                _write(descriptor, memoryview(content)[count:], entry.path)
            os.utime(descriptor, ns=(time, time))
        except OSError as error:
            _refuse(entry.path, error)
        finally:
            os.close(descriptor)

    def stream(self, entry: Entry, pieces: Iterable[Buffer]) -> str:
        """Create a file from pieces and return its SHA-256."""
        sha256 = hashlib.sha256()
        descriptor = self.create(entry)
        try:
            for piece in pieces:
                sha256.update(piece)
                _write(descriptor, piece, entry.path)
            _set_time(descriptor, entry)
        finally:
            os.close(descriptor)
        return sha256.hexdigest()

    def create(self, entry: Entry) -> int:
        """Create an empty file and return its descriptor.

        Raises:
            UnsafeArchive: The path is taken, or a part of it is no directory.
        """
        directory, _, name = entry.path.rpartition("/")
        parent = self._enter(directory)
        try:
            return os.open(name, _CREATE, entry.mode, dir_fd=parent)
        except OSError as error:
            _refuse(entry.path, error)

    def adopt(self, entry: Entry, directory: int, name: str) -> int:
        """Move a file here that an interrupted pull has left, and return its descriptor.

        Args:
            entry: What it is to be.
            directory: Descriptor of where it is.
            name: What it is called there.

        Returns:
            -1 if it is of no use.
        """
        where, _, new = entry.path.rpartition("/")
        parent = self._enter(where)
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            useful = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not useful or (status.st_mode ^ entry.mode) & 0o100:
                return -1
            os.rename(name, new, src_dir_fd=directory, dst_dir_fd=parent)
        except OSError:
            return -1
        with os_errors(f"writing {entry.path}"):
            descriptor = os.open(new, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                os.ftruncate(descriptor, min(status.st_size, entry.size))
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def hard_link(self, entry: Entry) -> tuple[Entry, str]:
        """Give the file ``entry.target``, which exists already, another name.

        Returns:
            What the file is, under its new name, and its SHA-256.

        Raises:
            UnsafeArchive: The target is no file that came before, or the path is taken.
        """
        directory, _, name = entry.target.rpartition("/")
        try:
            source = os.dup(self._descent.enter(directory))
        except OSError as error:
            raise no_target(entry) from error
        try:
            status = os.lstat(name, dir_fd=source)
            if not stat.S_ISREG(status.st_mode):
                raise no_target(entry)
            sha256 = self._extractor.digest_of(source, name, status)
            where, _, new = entry.path.rpartition("/")
            parent = self._enter(where)
            try:
                os.link(name, new, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                _refuse(entry.path, error)
        except FileNotFoundError as error:
            raise no_target(entry) from error
        finally:
            os.close(source)
        linked = Entry(
            entry.path, "f", status.st_size, status.st_mode & 0o777, int(status.st_mtime)
        )
        return linked, sha256

    def link(self, entry: Entry) -> None:
        """Create a symbolic link.

        Raises:
            UnsafeArchive: It leaves the tree, which whoever read it should have noticed, or the
                path is taken.
        """
        if problem := link_problem(entry.path, entry.target):
            raise UnsafeArchive(f"archive refused: the link {entry.path!r}: {problem}")
        directory, _, name = entry.path.rpartition("/")
        parent = self._enter(directory)
        try:
            os.symlink(entry.target, name, dir_fd=parent)
            time = entry.mtime * 1_000_000_000
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            _refuse(entry.path, error)

    def set_directory_time(self, entry: Entry) -> None:
        """Set the time of a directory that nothing more will be put into."""
        _set_time(self._enter(entry.path, create=False), entry)

    def _enter(self, path: str, *, create: bool = True) -> int:
        """Go to the directory *path*."""
        try:
            return self._descent.enter(path, create=create)
        except OSError as error:
            _refuse(path, error)


class LargeTarget:
    """A file that several threads write by position; hashed in order all the same."""

    def __init__(self, extractor: Extractor, entry: Entry, sha256: str) -> None:
        self.entry = entry
        self._extractor = extractor
        self._descriptor = -1
        self._adopted = False
        self._expected = sha256
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._written: dict[int, int] = {}
        self._hashing = False

    def adopt(self, directory: int, name: str) -> bool:
        """Go on with a file that is moved here, unless this one was begun already.

        Args:
            directory: Descriptor of where it is.
            name: What it is called there.

        Returns:
            Whether this is that file now, by this call or one before.
        """
        with self._lock:
            if self._descriptor < 0:
                with self._extractor.writer() as writer:
                    self._descriptor = writer.adopt(self.entry, directory, name)
                self._adopted = self._descriptor >= 0
            return self._adopted

    def read(self, offset: int, size: int) -> bytes:
        """What the file holds already; less than *size* bytes if it ends before."""
        with os_errors(f"reading {self.entry.path} back"):
            return os.pread(self._descriptor, size, offset)

    def keep(self, offset: int, size: int) -> None:
        """Count a slice as written that the file holds already.

        Raises:
            CorruptArchive: Complete, but its SHA-256 is not the expected one.
        """
        self._add(offset, size, None)

    def write(self, offset: int, content: Buffer) -> None:
        """Write one slice; the last one to be written closes the file.

        Raises:
            CorruptArchive: Complete, but its SHA-256 is not the expected one.
        """
        with self._lock:
            if self._descriptor < 0:
                with self._extractor.writer() as writer:
                    self._descriptor = writer.create(self.entry)
        view = memoryview(content)
        position = offset
        with os_errors(f"writing {self.entry.path}"):
            while view:
                count = os.pwrite(self._descriptor, view, position)
                view, position = view[count:], position + count
        self._add(offset, len(content), content)

    def _add(self, offset: int, size: int, content: Buffer | None) -> None:
        if self._hash(offset, size, content):
            self._finish()

    def _hash(self, offset: int, size: int, content: Buffer | None) -> bool:
        """Hash what is next; what comes early is read back from the file when its turn comes."""
        with self._lock:
            self._written[offset] = size
            if self._hashing:
                return False
            self._hashing = True
        while True:
            with self._lock:
                following = self._written.pop(self._hashed, None)
                if following is None:
                    self._hashing = False
                    return self._hashed == self.entry.size
            if self._hashed == offset and content is not None:
                self._sha256.update(content)
            else:
                self._hash_back(self._hashed, following)
            self._hashed += following

    def _hash_back(self, offset: int, size: int) -> None:
        with os_errors(f"reading {self.entry.path} back"):
            while size:
                content = os.pread(self._descriptor, min(size, _READ_BACK), offset)
                if not content:
                    raise CorruptArchive(f"{self.entry.path!r} was cut while it was written")
                self._sha256.update(content)
                offset, size = offset + len(content), size - len(content)

    def _finish(self) -> None:
        if self._sha256.hexdigest() != self._expected:
            raise wrong_content(self.entry)
        _set_time(self._descriptor, self.entry)
        self.close()

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self._extractor.forget(self)
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def wrong_content(entry: Entry) -> CorruptArchive:
    """The error for a file whose SHA-256 is not the index's."""
    return CorruptArchive(f"archive is corrupt: the content of {entry.path!r} has another SHA-256")


def no_target(entry: Entry) -> UnsafeArchive:
    """The error for a hard link to what is no file before it."""
    return UnsafeArchive(
        f"archive refused: {entry.path!r} is a hard link to {entry.target!r}, "
        "which is no file that came before"
    )


def _refuse(path: str, error: OSError) -> NoReturn:
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        raise UnsafeArchive(f"archive refused: {path!r} is in it twice, or below a file") from error
    with os_errors(f"writing {path}"):
        raise error


def _set_time(descriptor: int, entry: Entry) -> None:
    time = entry.mtime * 1_000_000_000
    with os_errors(f"writing {entry.path}"):
        os.utime(descriptor, ns=(time, time))


def _write(descriptor: int, content: Buffer, path: str) -> None:
    try:
        count = os.write(descriptor, content)
        if count < len(content):
            view = memoryview(content)[count:]
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError as error:
        with os_errors(f"writing {path}"):
            raise error
