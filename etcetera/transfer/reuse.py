"""Files that are here already → the staging tree, so that they need not be fetched.

A donor is a directory that may hold some of them: the dataset that is about to be replaced, or
what an interrupted pull has left. Nothing is believed of it: a file is taken if its content has
the SHA-256 that the index wants; of a large one each slice by its CRC-32, and in the end all of it
by its SHA-256.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from etcetera.transfer import codec
from etcetera.transfer.descend import DIRECTORY, Descent
from etcetera.transfer.extract import Extractor, LargeTarget, Writer
from etcetera.transfer.index import FramePlace, MemberPlace
from etcetera.transfer.tar import header
from etcetera.transfer.unpack import FrameJob

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Donor:
    """A directory laid out as a dataset, or as part of one."""

    tree: Path
    ours: bool
    """Whether nobody else has it, so that files can be moved out of it instead of copied."""


class Donors:
    """Takes what it can from some directories; its methods may be called from several threads."""

    def __init__(self, donors: Iterable[Donor], extractor: Extractor) -> None:
        """Look into *donors*, in this order, for files that *extractor* is to write."""
        self._extractor = extractor
        self._roots: list[tuple[int, bool]] = []
        for donor in donors:
            with suppress(OSError):  # gone, or never there: then it has nothing to give
                self._roots.append((os.open(donor.tree, DIRECTORY), donor.ours))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._roots)

    def close(self) -> None:
        """Close every descriptor."""
        for root, _ in self._roots:
            os.close(root)
        self._roots.clear()

    def take(self, jobs: list[FrameJob]) -> list[FrameJob]:
        """Write what is here of the files in *jobs*; return what is left to be fetched."""
        for root, ours in self._roots:
            with Descent(root) as descent, self._extractor.writer() as writer:
                left = [_take_job(job, descent, writer, ours=ours) for job in jobs]
            jobs = [job for job in left if job is not None]
        return jobs


def _take_job(job: FrameJob, descent: Descent, writer: Writer, *, ours: bool) -> FrameJob | None:
    """Write what a donor has of one frame; return what it has not."""
    if job.large is not None:
        taken = _take_slice(job.place, job.members[0], job.large, descent, ours=ours)
        return None if taken else job
    left = [member for member in job.members if not _take_file(member, descent, writer, ours=ours)]
    return job._replace(members=left) if left else None


def _take_file(member: MemberPlace, descent: Descent, writer: Writer, *, ours: bool) -> bool:
    entry = member.entry
    with _opened(entry.path, entry.size, descent) as descriptor:
        if descriptor < 0:
            return False
        content = _read(descriptor, 0, entry.size)
    if hashlib.sha256(content).hexdigest() != member.sha256:
        return False
    writer.file(entry, content)
    if ours:  # never twice on the disk
        directory, _, name = entry.path.rpartition("/")
        with suppress(OSError):
            os.unlink(name, dir_fd=descent.enter(directory))
    return True


def _take_slice(
    place: FramePlace, member: MemberPlace, target: LargeTarget, descent: Descent, *, ours: bool
) -> bool:
    offset, size = slice_of(place, member)
    if ours:
        directory, _, name = member.entry.path.rpartition("/")
        try:
            parent = descent.enter(directory)
        except OSError:
            parent = -1
        if not target.adopt(parent, name):
            return False
        content = target.read(offset, size)
    else:
        with _opened(member.entry.path, member.entry.size, descent) as descriptor:
            content = _read(descriptor, offset, size) if descriptor >= 0 else b""
    if len(content) != size or not _is_slice(content, place, member):
        return False
    if ours:
        target.keep(offset, size)
    else:
        target.write(offset, content)
    return True


def slice_of(place: FramePlace, member: MemberPlace) -> tuple[int, int]:
    """Which bytes of a large file a frame holds: the first one's offset, and how many."""
    body = member.start + member.header_size
    offset = max(0, place.start - body)
    return offset, max(0, min(member.entry.size, place.start + place.size - body) - offset)


def _is_slice(content: bytes, place: FramePlace, member: MemberPlace) -> bool:
    """Whether the frame holds this very content."""
    head = header(member.entry) if place.start == member.start else b""
    padding = place.size - len(head) - len(content)
    crc32 = codec.crc32(head)
    for piece in (content, bytes(max(0, padding))):
        crc32 = codec.crc32(piece, crc32)
    return padding >= 0 and crc32 == place.crc32


@contextmanager
def _opened(path: str, size: int, descent: Descent) -> Iterator[int]:
    """A file of *size* bytes; -1 if there is none, or it cannot be read."""
    directory, _, name = path.rpartition("/")
    descriptor = -1
    try:
        descriptor = os.open(name, _READ, dir_fd=descent.enter(directory))
        status = os.fstat(descriptor)
        fits = stat.S_ISREG(status.st_mode) and status.st_size == size
    except OSError:
        fits = False
    try:
        yield descriptor if fits else -1
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _read(descriptor: int, offset: int, size: int) -> bytes:
    """Some bytes of a file; fewer if it ends before, or cannot be read."""
    pieces: list[bytes] = []
    with suppress(OSError):
        while size and (piece := os.pread(descriptor, size, offset)):
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
    return b"".join(pieces)
