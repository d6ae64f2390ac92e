"""What lies directly in one directory of a dataset, made up from entries in any order."""

from typing import NamedTuple

from etcetera.errors import CorruptArchive, StoreError
from etcetera.transfer.options import MiB
from etcetera.transfer.scan import Totals
from etcetera.transfer.tar import Entry

MOST_HELD = 256 * MiB
"""Of entries at once, each counted as its path and :data:`ENTRY` bytes more: some million."""
ENTRY = 100


class Child(NamedTuple):
    """One file, directory or link."""

    path: str
    kind: str
    """``f`` a file, ``d`` a directory, ``l`` a symbolic link."""
    files: int
    """1 for a file, 0 for a link; of a directory those anywhere below it."""
    size: int
    """Bytes of a file, or of all files below a directory."""
    mtime: int | None
    """Whole seconds since 1970; ``None`` for a directory."""
    target: str
    """Of a link."""


class Children:
    """Collects what lies below one path."""

    def __init__(self, path: str) -> None:
        """Begin with nothing.

        Args:
            path: Of a directory, ``""`` for the dataset itself.
        """
        self._path = path
        self._prefix = f"{path}/" if path else ""
        self._itself: Entry | None = None
        self._files: dict[str, Entry] = {}
        self._directories: dict[str, Totals] = {}
        self._partitions_known = False
        self._held = 0

    def add_partition(self, name: str, totals: Totals) -> None:
        """Add what a partition holds; single entries of ``data`` are left out from now on."""
        self._partitions_known = True
        directory = self._directories.setdefault(f"data/{name}" if self._path else "data", Totals())
        directory.files += totals.files
        directory.bytes += totals.bytes

    def add(self, entry: Entry) -> None:
        """Add one entry, if it lies below the path.

        Raises:
            CorruptArchive: Its path is taken.
            StoreError: There are more of them than can be held.
        """
        path = entry.path
        if path == self._path:
            if self._itself is not None and entry.kind != "d":
                raise _twice(path)
            self._itself = entry
            return
        if not path.startswith(self._prefix) or (
            self._partitions_known and path.startswith("data/")
        ):
            return
        name, deeper, _ = path[len(self._prefix) :].partition("/")
        child = self._prefix + name
        if deeper or entry.kind == "d":
            totals = self._directories.get(child)
            if totals is None:
                totals = self._directories[child] = Totals()
                self._hold(child)
            if entry.kind == "f":
                totals.add(entry.size)
        elif child in self._files:
            raise _twice(child)
        else:
            self._files[child] = entry
            self._hold(child)

    def _hold(self, child: str) -> None:
        self._held += ENTRY + len(child)
        if self._held > MOST_HELD:
            raise too_many(self._path or "the dataset")

    @property
    def is_directory(self) -> bool:
        """Whether the path is a directory, perhaps an empty one."""
        if self._files or self._directories or not self._path:
            return True
        return self._itself is not None and self._itself.kind == "d"

    def rows(self) -> list[Child]:
        """What was found, sorted by name; of a path that is no directory, that itself.

        Raises:
            CorruptArchive: A path is a file, and a directory as well.
        """
        if both := self._files.keys() & self._directories.keys():
            raise _twice(min(both))
        found = [
            Child(path, "d", totals.files, totals.bytes, None, "")
            for path, totals in self._directories.items()
        ]
        found += [_child(entry) for entry in self._files.values()]
        if self._itself is not None and self._itself.kind != "d":
            if found:
                raise _twice(self._path)
            return [_child(self._itself)]
        return sorted(found)


def too_many(where: str) -> StoreError:
    """The error for more entries than can be listed."""
    return StoreError(f"{where} has too many entries to be looked into: pull it (etc pull)")


def _child(entry: Entry) -> Child:
    files = 1 if entry.kind == "f" else 0
    return Child(entry.path, entry.kind, files, entry.size, entry.mtime, entry.target)


def _twice(path: str) -> CorruptArchive:
    return CorruptArchive(f"archive is corrupt: {path!r} is in it twice, or below a file")
