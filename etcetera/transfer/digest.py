"""The digest of a dataset: a name for one version of the data."""

import hashlib

from etcetera.errors import CorruptArchive
from etcetera.transfer.paths import order_key
from etcetera.transfer.tar import Entry


class DatasetDigest:
    """Names a version of the data: paths, kinds, executable bits and contents, nothing else."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = ""
        self._within: list[str] = []

    def add(self, path: str, row: bytes) -> None:
        """Add the next entry, in the order of :func:`etcetera.transfer.paths.order_key`.

        Args:
            path: Of the entry.
            row: What :func:`digest_row` gives for it.

        Raises:
            CorruptArchive: It does not come after the one before, is the same, or lies in a
                directory that was not added.
        """
        key = order_key(path)
        if key <= self._last:
            raise CorruptArchive(f"archive is corrupt: {path!r} is in it twice")
        self._last = key
        # Canonical order is that of a walk, so that the directories around an entry are a stack.
        parent = path.rpartition("/")[0]
        while self._within and self._within[-1] != parent:
            self._within.pop()
        if parent and not self._within:
            raise CorruptArchive(f"archive is corrupt: {path!r} is in no directory it names")
        if row.startswith(b"d "):
            self._within.append(path)
        self._hash.update(row)

    def add_entry(self, entry: Entry, sha256: str) -> None:
        """Add the next entry, in the same order; *sha256* is that of a file, hexadecimal."""
        self.add(entry.path, digest_row(entry, sha256))

    def value(self) -> str:
        """``sha256:`` and 64 hexadecimal digits."""
        return f"sha256:{self._hash.hexdigest()}"


def digest_row(entry: Entry, sha256: str) -> bytes:
    """What one entry adds to the dataset's digest."""
    kind = kind_code(entry)
    what = entry.target if kind == "l" else sha256
    return f"{kind} {what}\0{entry.path}\0".encode()


def kind_code(entry: Entry) -> str:
    """``f``, ``x`` (an executable file), ``d`` or ``l``."""
    return "x" if entry.kind == "f" and entry.mode & 0o100 else entry.kind
