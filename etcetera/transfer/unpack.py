"""Frames → files, checked: the blocking half of a pull."""

import hashlib
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import pairwise
from typing import NamedTuple

from etcetera.errors import CorruptArchive, UnsafeArchive
from etcetera.transfer import codec
from etcetera.transfer.contents import Contents, begins, is_slice
from etcetera.transfer.digest import (
    DatasetDigest,
    digest_row,
    from_sortable_row,
    kind_code,
    sortable_row,
)
from etcetera.transfer.extract import Extractor, LargeTarget, Writer, wrong_content
from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.index import Footer, FramePlace, MemberPlace, Root, Segment
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import INDEX_NAME, order_key, partition_of
from etcetera.transfer.scan import Fingerprint, Totals
from etcetera.transfer.stream import ByteStream
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

    def jobs(self, segment: Segment) -> list[FrameJob]:
        """One job for each frame of *segment*, in order.

        Raises:
            CorruptArchive: A frame holds neither whole members nor a slice of exactly one.
        """
        jobs: list[FrameJob] = []
        for frame, held in self._contents.of(segment):
            if begins(frame, held):
                member = held[0]
                self._target = (
                    self._extractor.large(member.entry, member.sha256)
                    if is_slice(frame, held)
                    else None
                )
            jobs.append(FrameJob(frame, held, self._target))
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


def check_content(member: MemberPlace, content: bytes) -> memoryview:
    """The content of one file, from its tar bytes.

    Raises:
        CorruptArchive: Its header or its SHA-256 is not what the index says.
    """
    check_header(content, 0, member)
    body = memoryview(content)[member.header_size : member.header_size + member.entry.size]
    _check_sha256(member, body)
    return body


_RUN = 10_000
"""Rows that are sorted at once."""


class Tally:
    """What a pull has installed: sums, digest and fingerprint."""

    def __init__(self, *, ordered: bool) -> None:
        self.total = Totals()
        self.partitions: dict[str, Totals] = {}
        self.fingerprint = Fingerprint()
        self._digest = DatasetDigest()
        self._ordered = ordered
        self._rows: list[bytes] = []
        self._runs: list[list[bytes]] = []

    @classmethod
    def of(cls, root: Root) -> "Tally":
        """For an index: rows are only collected if its segments overlap."""
        places = [place for place in root.segments if place.entries]
        return cls(
            ordered=all(order_key(one.last) < order_key(two.first) for one, two in pairwise(places))
        )

    def add_segment(self, segment: Segment) -> None:
        """Add the members of the next segment."""
        members = segment.members
        if self._ordered:
            members = sorted(members, key=lambda member: order_key(member.entry.path))
        for member in members:
            self.add(member.entry, member.sha256)

    def add(self, entry: Entry, sha256: str) -> None:
        """Add one member."""
        kind = kind_code(entry)
        mtime = 0 if kind == "d" else entry.mtime * 1_000_000_000
        self.fingerprint.add(entry.path, kind, entry.size, mtime, entry.target)
        if partition := partition_of(entry.path):
            totals = self.partitions.get(partition)
            if totals is None:
                totals = self.partitions[partition] = Totals()
            if entry.kind == "f":
                totals.add(entry.size)
        if entry.kind == "f":
            self.total.add(entry.size)
        if self._ordered:
            self._digest.add(entry.path, digest_row(entry, sha256))
        else:
            self._rows.append(sortable_row(entry, sha256))
            if len(self._rows) >= _RUN:
                self._end_run()

    def _end_run(self) -> None:
        # One sort of everything would hold the interpreter's lock, and so the event loop.
        self._rows.sort()
        self._runs.append(self._rows)
        self._rows = []

    def digest(self) -> str:
        """Of the dataset, once everything was added.

        Raises:
            CorruptArchive: A path occurs twice.
        """
        self._end_run()
        for row in merge(*self._runs):
            self._digest.add(*from_sortable_row(row))
        self._runs.clear()
        return self._digest.value()


def check_claims(footer: Footer, root: Root, tally: Tally, digest: str) -> None:
    """Raise CorruptArchive unless digest and sums of the index are those of what was unpacked."""
    claimed = [footer.digest, (footer.files, footer.bytes), _sums(root.partitions)]
    if claimed != [digest, (tally.total.files, tally.total.bytes), _sums(tally.partitions)]:
        raise CorruptArchive("archive is corrupt: its index does not fit it (the digest or a sum)")


def _sums(partitions: dict[str, Totals]) -> dict[str, tuple[int, int]]:
    return {name: (totals.files, totals.bytes) for name, totals in partitions.items()}


def unpack_stream(chunks: Iterable[codec.Buffer], extractor: Extractor) -> Tally:
    """Unpack an archive without an index, front to back.

    Raises:
        ArchiveError: It is no .tgz, truncated, corrupt, or holds what a dataset cannot.
    """
    tally = Tally(ordered=False)
    directories = {""}
    named = 0
    stream = ByteStream(gunzip(chunks))
    with extractor.writer() as writer:
        for member in read_members(stream):
            entry = member.entry
            if entry.path.partition("/")[0] == INDEX_NAME:
                _check_index_member(entry)
                continue
            named += 1
            for implied in _parents(entry, directories):
                tally.add(implied, "")
            if len(directories) > MAX_IMPLIED + 16 * named:
                raise UnsafeArchive(
                    f"archive refused: its first {named} members lie in {len(directories)} "
                    "directories, most of which it does not name"
                )
            if entry.kind == "d":
                writer.directory(entry)
                if entry.path not in directories:
                    directories.add(entry.path)
                    tally.add(entry, "")
            elif entry.kind == "l":
                extractor.add_link(entry)
                tally.add(entry, "")
            elif entry.target:
                tally.add(*writer.hard_link(entry))
            elif entry.size <= MiB:
                content = stream.read(entry.size)
                writer.file(entry, content)
                tally.add(entry, hashlib.sha256(content).hexdigest())
            else:
                tally.add(entry, writer.stream(entry, stream.pieces(entry.size)))
    return tally


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
