"""Entries in any order, given back in the order of the digest, in little memory."""

import struct
from collections.abc import Iterator
from heapq import merge
from itertools import chain

from etcetera.transfer.digest import kind_code
from etcetera.transfer.paths import order_key
from etcetera.transfer.tar import Entry

_RUN = 10_000
"""Rows that are sorted at once."""
_ORDINARY = 512
"""Bytes of a row, as nearly all paths need at most."""
_NUMBERS = struct.Struct(">QQ")
"""Size and time."""


class Rows:
    """Some 150 bytes for each entry, and its path."""

    def __init__(self) -> None:
        self._rows: list[bytes] = []
        self._runs: list[list[bytes]] = []
        self.excess = 0
        """Bytes by which rows are longer than :data:`_ORDINARY`."""

    def add(self, entry: Entry, sha256: str) -> None:
        """Add one entry and, if it is a file, the SHA-256 of its content."""
        row = _pack(entry, sha256)
        self._rows.append(row)
        if len(row) > _ORDINARY:
            self.excess += len(row) - _ORDINARY
        if len(self._rows) >= _RUN:
            self._end_run()

    def packed(self) -> list[bytes]:
        """What was added, for :meth:`add_packed`."""
        return [*chain(*self._runs), *self._rows]

    def add_packed(self, rows: list[bytes]) -> None:
        """Add what other rows have packed."""
        self._rows += rows
        self.excess += sum(len(row) - _ORDINARY for row in rows if len(row) > _ORDINARY)
        if len(self._rows) >= _RUN:
            self._end_run()

    def take(self) -> Iterator[tuple[Entry, str]]:
        """Yield what was added, by path; it is gone then."""
        self._end_run()
        runs, self._runs = self._runs, []
        for row in merge(*runs):
            yield _unpack(row)

    def _end_run(self) -> None:
        # One sort of everything would hold the interpreter's lock, and so the event loop.
        self._rows.sort()
        self._runs.append(self._rows)
        self._rows = []


def _pack(entry: Entry, sha256: str) -> bytes:
    """One entry in the least memory, sorted as the digest wants it."""
    what = entry.target.encode() if entry.kind == "l" else bytes.fromhex(sha256)
    key = order_key(entry.path).encode()
    numbers = _NUMBERS.pack(entry.size, entry.mtime)
    # No path has two NULs in a row, and nothing sorts before a NUL.
    return b"%s\0\0%s%s%s" % (key, kind_code(entry).encode(), numbers, what)


def _unpack(row: bytes) -> tuple[Entry, str]:
    key, _, rest = row.partition(b"\0\0")
    path = key[1:].replace(b"\0", b"/").decode()
    kind, what = rest[:1], rest[1 + _NUMBERS.size :]
    size, mtime = _NUMBERS.unpack_from(rest, 1)
    if kind == b"l":
        return Entry(path, "l", 0, 0o777, mtime, what.decode()), ""
    if kind == b"d":
        return Entry(path, "d", 0, 0o755, mtime), ""
    return Entry(path, "f", size, 0o755 if kind == b"x" else 0o644, mtime), what.hex()
