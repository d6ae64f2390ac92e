"""Frames → files, checked: the blocking half of a pull."""

import hashlib
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

from etcetera.errors import CorruptArchive, UnsafeArchive
from etcetera.transfer import codec
from etcetera.transfer.contents import Contents, begins, is_slice
from etcetera.transfer.extract import Extractor, LargeTarget, Writer, wrong_content
from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import INDEX_NAME
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tally import Part, Tally
from etcetera.transfer.tar import Entry, header, read_members


class FrameJob(NamedTuple):
    """One frame, and what it holds."""

    place: FramePlace
    members: list[MemberPlace]
    """Whole members, or the one that this frame is a slice of."""
    large: LargeTarget | None
    """Where the slice goes."""


class Layout:
    """Finds out what is to be done with the frames of one segment after another."""

    def __init__(self, extractor: Extractor) -> None:
        self._extractor = extractor
        self._contents = Contents()
        self._target: LargeTarget | None = None

    def jobs(self, segment: Segment, wanted: Container[int] | None = None) -> list[FrameJob]:
        """One job for each frame of *segment*, in order.

        Args:
            segment: The next one.
            wanted: Where the members begin in the tar stream that are wanted; frames without any
                are left out. By default all are.

        Raises:
            CorruptArchive: A frame holds neither whole members nor a slice of exactly one.
        """
        jobs: list[FrameJob] = []
        for frame, held in self._contents.of(segment):
            chosen = held if wanted is None else [one for one in held if one.start in wanted]
            if begins(frame, held):
                sliced = chosen and is_slice(frame, held)
                member = held[0]
                self._target = (
                    self._extractor.large(member.entry, member.sha256) if sliced else None
                )
            if self._target is not None:
                jobs.append(FrameJob(frame, held, self._target))
            elif chosen and not is_slice(frame, held):
                jobs.append(FrameJob(frame, chosen, None))
        return jobs


def inflate_checked(data: codec.Buffer, place: FramePlace) -> bytes:
    """The tar bytes of one frame.

    Raises:
        CorruptArchive: A checksum or a length is not what the index says.
    """
    if len(data) != place.length or codec.crc32(data) != place.compressed_crc32:
        raise CorruptArchive(
            f"archive is corrupt: wrong checksum of the frame at byte {place.offset}"
        )
    content = codec.inflate(data, place.size)
    if codec.crc32(content) != place.crc32:
        raise CorruptArchive(
            f"archive is corrupt: wrong checksum inside the frame at byte {place.offset}"
        )
    return content


def unpack_frames(
    data: codec.Buffer, offset: int, jobs: list[FrameJob], extractor: Extractor
) -> int:
    """Write what consecutive frames hold.

    Args:
        data: Bytes of the object, from *offset* on.
        offset: Where *data* begins in the object.
        jobs: Frames that lie in *data*.
        extractor: Where the files go.

    Returns:
        Tar bytes written.

    Raises:
        CorruptArchive: A frame, a header or a content is not what the index says.
    """
    view = memoryview(data)
    size = 0
    with extractor.writer() as writer:
        for job in jobs:
            place = job.place
            start = place.offset - offset
            content = inflate_checked(view[start : start + place.length], place)
            if job.large is not None:
                _write_slice(content, job.members[0], place, job.large)
            else:
                _write_members(content, place.start, job.members, writer, extractor)
            size += place.size
    return size


def _write_slice(
    content: bytes, member: MemberPlace, place: FramePlace, target: LargeTarget
) -> None:
    view = memoryview(content)
    offset = place.start - member.start - member.header_size
    if offset < 0:
        check_header(content, 0, member)
        view, offset = view[member.header_size :], 0
    target.write(offset, view[: max(0, member.entry.size - offset)])


def _write_members(
    content: bytes, start: int, members: list[MemberPlace], writer: Writer, extractor: Extractor
) -> None:
    """Write whole members; *content* begins at byte *start* of the tar stream."""
    view = memoryview(content)
    for member in members:
        entry = member.entry
        first = member.start - start
        check_header(content, first, member)
        if entry.kind == "f":
            first += member.header_size
            body = view[first : first + entry.size]
            _check_sha256(member, body)
            writer.file(entry, body)
        elif entry.kind == "d":
            writer.directory(entry)
        else:
            extractor.add_link(entry)


def check_header(content: bytes, first: int, member: MemberPlace) -> None:
    """Raise CorruptArchive unless *content* has the header of exactly this member at *first*."""
    # Format version 1 says exactly how a header is written, so there is nothing to interpret.
    expected = header(member.entry)
    if len(expected) != member.header_size or not content.startswith(expected, first):
        raise CorruptArchive(
            f"archive is corrupt: the header of {member.entry.path!r} is not what the index says"
        )


def _check_sha256(member: MemberPlace, body: memoryview) -> None:
    if hashlib.sha256(body).hexdigest() != member.sha256:
        raise wrong_content(member.entry)


def check_content(content: bytes, first: int, member: MemberPlace) -> memoryview:
    """The content of one file, whose header is at *first* in *content*.

    Raises:
        CorruptArchive: Its header or its SHA-256 is not what the index says.
    """
    check_header(content, first, member)
    first += member.header_size
    body = memoryview(content)[first : first + member.entry.size]
    _check_sha256(member, body)
    return body


def unpack_stream(
    chunks: Iterable[codec.Buffer], extractor: Extractor, part: Part | None = None
) -> Tally:
    """Unpack an archive without an index, front to back.

    Args:
        chunks: The object's bytes.
        extractor: Where the files go.
        part: What is wanted; by default everything. All of the archive is read and checked.

    Raises:
        ArchiveError: It is no .tgz, truncated, corrupt, or holds what a dataset cannot.
        NothingSelected: There is no such part.
    """
    stream = ByteStream(gunzip(chunks))
    with extractor.writer() as writer:
        unpacking = _Unpacking(extractor, writer, part)
        for member in read_members(stream):
            entry = member.entry
            if entry.path.partition("/")[0] == INDEX_NAME:
                _check_index_member(entry)
            else:
                unpacking.take(entry, stream)
        if part is not None:
            part.finish(writer, unpacking.tally)
    return unpacking.tally


class _Unpacking:
    """Writes one member after another of a tar stream."""

    def __init__(self, extractor: Extractor, writer: Writer, part: Part | None) -> None:
        self.tally = Tally(ordered=False)
        self._extractor = extractor
        self._writer = writer
        self._part = part
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
            self._writer.file(entry, content)
            self.tally.add(entry, hashlib.sha256(content).hexdigest())
        else:
            self.tally.add(entry, self._writer.stream(entry, stream.pieces(entry.size)))

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


def segment_crc(segment: Segment, crc32: int) -> int:
    """*crc32* of the tar stream before *segment*, carried over its frames."""
    for frame in segment.frames:
        crc32 = codec.crc32_combine(crc32, frame.crc32, frame.size)
    return crc32
