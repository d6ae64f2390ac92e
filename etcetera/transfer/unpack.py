"""Frames → files, checked: the blocking half of a pull."""

import hashlib
from collections.abc import Container
from typing import NamedTuple

from etcetera.errors import CorruptArchive
from etcetera.transfer import codec
from etcetera.transfer.contents import Contents, begins, is_slice
from etcetera.transfer.extract import Extractor, LargeTarget, Writer, wrong_content
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.tally import Tally
from etcetera.transfer.tar import Entry, header


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


def write_file(entry: Entry, content: codec.Buffer, writer: Writer, tally: Tally) -> None:
    """Write one file of an archive without an index, and count it."""
    writer.file(entry, content)
    tally.add(entry, hashlib.sha256(content).hexdigest())


def segment_crc(segment: Segment, crc32: int) -> int:
    """*crc32* of the tar stream before *segment*, carried over its frames."""
    for frame in segment.frames:
        crc32 = codec.crc32_combine(crc32, frame.crc32, frame.size)
    return crc32
