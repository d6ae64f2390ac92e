"""An archive without an index → files, front to back: the other blocking half of a pull.

One thread inflates and finds the members, since each begins where the one before ends; it alone
judges headers, paths and links. Once there were many small files, worker processes write them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from typing import Protocol, runtime_checkable

from etcetera.errors import UnsafeArchive
from etcetera.transfer import codec
from etcetera.transfer.crowd import Crowd
from etcetera.transfer.extract import Extractor, Writer
from etcetera.transfer.flow import ahead
from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import INDEX_NAME
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tally import Part, Tally
from etcetera.transfer.tar import Entry, read_members
from etcetera.transfer.unpack import write_file

_AHEAD = 4
"""Pieces, of at most 1 MiB each, that are inflated before they are looked at."""


def unpack_stream(
    chunks: Iterable[codec.Buffer],
    extractor: Extractor,
    part: Part | None = None,
    crowd: Crowd | None = None,
) -> Tally:
    """Unpack an archive without an index, front to back.

    Args:
        chunks: The object's bytes.
        extractor: Where the files go.
        part: What is wanted; by default everything. All of the archive is read and checked.
        crowd: Writes small files once there are many; entered and left here.

    Raises:
        ArchiveError: It is no .tgz, truncated, corrupt, or holds what a dataset cannot.
        NothingSelected: There is no such part.
    """
    with (
        closing(ahead(gunzip(chunks), _AHEAD)) as pieces,
        _stopped(chunks),
        extractor.writer() as writer,
        crowd or nullcontext(),
    ):
        stream = ByteStream(pieces)
        unpacking = _Unpacking(extractor, writer, part, crowd)
        for member in read_members(stream):
            entry = member.entry
            if entry.path.partition("/")[0] == INDEX_NAME:
                _check_index_member(entry)
            else:
                unpacking.take(entry, stream)
        unpacking.wait()
        if part is not None:
            part.finish(writer, unpacking.tally)
    return unpacking.tally


@runtime_checkable
class _Stoppable(Protocol):
    def stop(self) -> None: ...


@contextmanager
def _stopped(chunks: Iterable[codec.Buffer]) -> Iterator[None]:
    """Lets no thread wait for more of *chunks* once the block is left."""
    try:
        yield
    finally:
        if isinstance(chunks, _Stoppable):
            chunks.stop()


class _Unpacking:
    """Writes one member after another of a tar stream."""

    def __init__(
        self, extractor: Extractor, writer: Writer, part: Part | None, crowd: Crowd | None
    ) -> None:
        self.tally = Tally(ordered=False)
        self._extractor = extractor
        self._writer = writer
        self._part = part
        self._crowd = crowd
        self._directories = {""}
        self._named = 0

    def take(self, entry: Entry, stream: ByteStream) -> None:
        """Write what *entry* is, if it is wanted; *stream* is where its content begins."""
        self._imply(entry)
        wanted = self._part is None or self._part.wants(entry)
        if entry.kind == "d":
            self._directory(entry)
        elif entry.kind == "l":
            if wanted:
                self._extractor.add_link(entry)
            self.tally.add(entry, "", taken=wanted)
        elif entry.target:
            self._hard_link(entry, wanted=wanted)
        elif not wanted:
            self.tally.add(entry, _sha256(stream.pieces(entry.size)), taken=False)
        elif entry.size <= MiB:
            content = stream.read(entry.size)
            if self._crowd is None or not self._crowd.take(entry, content, self.tally):
                write_file(entry, content, self._writer, self.tally)
        else:
            self.tally.add(entry, self._writer.stream(entry, stream.pieces(entry.size)))

    def wait(self) -> None:
        """Return once every file is written and counted."""
        if self._crowd is not None:
            self._crowd.wait(self.tally)

    def _imply(self, entry: Entry) -> None:
        """Count the directories around *entry* that nothing has named before."""
        self._named += 1
        for implied in _parents(entry, self._directories):
            self.tally.add(implied, "", taken=self._part is None)
            if self._part is not None:
                self._part.wants(implied)
        if len(self._directories) > MAX_IMPLIED + 16 * self._named:
            raise UnsafeArchive(
                f"archive refused: its first {self._named} members lie in "
                f"{len(self._directories)} directories, most of which it does not name"
            )

    def _directory(self, entry: Entry) -> None:
        # Those of a part come last, once it is known which it needs.
        if self._part is None:
            self._writer.directory(entry)
        if entry.path not in self._directories:
            self._directories.add(entry.path)
            self.tally.add(entry, "", taken=self._part is None)

    def _hard_link(self, entry: Entry, *, wanted: bool) -> None:
        if self._part is not None and not (wanted and self._part.wanted(entry.target)):
            raise UnsafeArchive(
                f"{entry.path!r} is a hard link to {entry.target!r}, and not both of them are "
                "asked for; of this archive, pull everything"
            )
        make = partial(self._make_hard_link, entry)
        if self._crowd is None:
            make()
        else:
            self._crowd.link(entry, make, self.tally)

    def _make_hard_link(self, entry: Entry) -> None:
        self.tally.add(*self._writer.hard_link(entry))


def _sha256(pieces: Iterable[codec.Buffer]) -> str:
    sha256 = hashlib.sha256()
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


MAX_IMPLIED = 4096
"""Directories that an archive may have without naming them, and a few more for each member: a
single long path would otherwise cost thousands."""


def _check_index_member(entry: Entry) -> None:
    """Raise UnsafeArchive if the index is no file that can be skipped."""
    if entry.path != INDEX_NAME or entry.kind != "f" or entry.target:
        raise UnsafeArchive(f"archive refused: {entry.path!r} takes the place of its index")


def _parents(entry: Entry, known: set[str]) -> Iterator[Entry]:
    """The directories that *entry* lies in and that no member before has named."""
    missing: list[str] = []
    parent = entry.path.rpartition("/")[0]
    while parent not in known:
        known.add(parent)
        missing.append(parent)
        parent = parent.rpartition("/")[0]
    for path in reversed(missing):
        yield Entry(path, "d", 0, 0o755, 0)
