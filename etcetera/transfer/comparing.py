"""A local dataset, compared with an index."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from etcetera.errors import os_errors
from etcetera.transfer.descend import NO_FILE, Descent
from etcetera.transfer.digest import kind_code
from etcetera.transfer.flow import ordered
from etcetera.transfer.options import MiB
from etcetera.transfer.pack import open_root
from etcetera.transfer.paths import order_key
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import Entry

_BATCH = 8 * MiB
"""Bytes that one job reads, apart from single files that are larger."""
_BATCH_FILES = 256
_PIECE = MiB

Expected = tuple[Entry, str]
"""What should be there, and the SHA-256 of its content."""


@dataclass(slots=True)
class Differences:
    """What is not as it should be; paths in the order of the archive."""

    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Of another kind, size, content, target or executable bit."""
    extra: list[str] = field(default_factory=list)
    files: int = 0
    """That are there and should be."""
    bytes: int = 0
    """Of them."""


class Comparison:
    """Compares one scanned dataset with what should be in it."""

    def __init__(
        self,
        scanned: Scan,
        *,
        quick: bool,
        wanted: Callable[[str], bool],
        stop: threading.Event,
        report: Callable[[int], object],
    ) -> None:
        """Prepare to compare.

        Args:
            scanned: What is there.
            quick: Whether sizes and times are enough, so that no file is read.
            wanted: Tells what has to be there; whatever else is expected may be.
            stop: Makes :meth:`run` end early, once set by another thread.
            report: Told, in several threads, of bytes that were read.
        """
        self._scan = scanned
        self._quick = quick
        self._wanted = wanted
        self._stop = stop
        self._report = report
        self._found = Differences()
        self._lock = threading.Lock()
        self._unreported = 0

    def run(self, expected: Iterable[Expected], threads: int) -> Differences:
        """Compare with *expected*, which comes by path.

        Raises:
            InterruptedError: Stopped.
            NotAllowed: A file cannot be read.
        """
        found = self._found
        with os_errors(f"reading {self._scan.root}"):
            root = open_root(self._scan.root)
        try:
            jobs = _batches(self._same_so_far(expected))
            results = ordered(
                lambda job: self._read(root, job), jobs, threads=threads, window=2 * threads + 4
            )
            for _, changed in results:
                found.changed += changed
        finally:
            os.close(root)
        found.changed.sort(key=order_key)
        return found

    def _same_so_far(self, expected: Iterable[Expected]) -> Iterator[Expected]:
        """Yield the files of which only the content can tell whether they are the same."""
        found = self._found
        for should, sha256, entry in _matched(expected, self._scan.entries(), found.extra):
            if self._stop.is_set():
                raise InterruptedError
            if entry is None:
                if self._wanted(should.path):
                    found.missing.append(should.path)
                continue
            if entry.kind == "f":
                found.files += 1
                found.bytes += entry.size
            if _looks(entry) != _looks(should):
                found.changed.append(entry.path)
            elif entry.kind == "f" and not self._quick:
                yield entry, sha256
            elif entry.kind == "f" and entry.mtime != should.mtime:
                found.changed.append(entry.path)

    def _read(self, root: int, files: list[Expected]) -> list[str]:
        """Read files and tell which have another content."""
        buffer = memoryview(bytearray(min(_PIECE, max(entry.size for entry, _ in files) + 1)))
        with Descent(root) as descent:
            return [
                entry.path
                for entry, sha256 in files
                if self._sha256(descent, entry.path, buffer) != sha256
            ]

    def _sha256(self, descent: Descent, path: str, buffer: memoryview) -> str:
        """Of a file's content; empty if it is gone, or is none any more."""
        digest = hashlib.sha256()
        with os_errors(f"reading {self._scan.root / path}"):
            try:
                descriptor = descent.open(path)
            except OSError as error:
                if error.errno in NO_FILE:
                    return ""
                raise
            try:
                while count := os.readv(descriptor, [buffer]):
                    if self._stop.is_set():
                        raise InterruptedError
                    digest.update(buffer[:count])
                    self._count(count)
            except IsADirectoryError:
                return ""
            finally:
                os.close(descriptor)
        return digest.hexdigest()

    def _count(self, size: int) -> None:
        """Report what was read, but not for each small file."""
        with self._lock:
            self._unreported += size
            if self._unreported < _BATCH:
                return
            size, self._unreported = self._unreported, 0
        self._report(size)


def _looks(entry: Entry) -> tuple[str, int, str]:
    """What can be told of an entry without reading it, apart from its time."""
    return kind_code(entry), entry.size, entry.target


def _matched(
    expected: Iterable[Expected], present: Iterable[Entry], extra: list[str]
) -> Iterator[tuple[Entry, str, Entry | None]]:
    """Pair what should be there with what is, both by path; what else is there goes to *extra*."""
    entries = iter(present)
    entry = next(entries, None)
    for should, sha256 in expected:
        key = order_key(should.path)
        while entry is not None and order_key(entry.path) < key:
            extra.append(entry.path)
            entry = next(entries, None)
        if entry is not None and entry.path == should.path:
            yield should, sha256, entry
            entry = next(entries, None)
        else:
            yield should, sha256, None
    if entry is not None:
        extra.append(entry.path)
    extra.extend(one.path for one in entries)


def _batches(files: Iterable[Expected]) -> Iterator[list[Expected]]:
    batch: list[Expected] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file[0].size
        if size >= _BATCH or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
