"""What a push leaves on the disk while it runs, so that another process can go on with it.

A journal is a directory of two files. ``frames`` only grows: for each frame a row, which is its
length, size, CRC-32 and compressed CRC-32, then the SHA-256 of every file that ends in it.
``checkpoint`` is replaced as a whole: a line of JSON
that says what is pushed, where to, and how much of ``frames`` counts; a line of JSON for each part
that the store has, without a gap from the first on; those bytes of the archive that follow the
last of these parts and are in a frame that counts; and a SHA-256 of all that.

It holds no secret, and is not trusted: what is damaged, or does not fit, is not used.
"""

import fcntl
import hashlib
import json
import logging
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from etcetera import atomic
from etcetera.stores import Unfinished
from etcetera.transfer.codec import Frame, KnownFrame
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.options import MiB

VERSION = 2
CHECKPOINT = "checkpoint"
CHECKPOINT_BYTES = 64 * MiB
"""It is written each time so much more of the archive is in the store without a gap."""
MAX_CHECKPOINT = 64 * MiB
"""Bytes that are read at most: 10,000 parts and one frame need a fraction of it."""

_FRAMES, _LOCK = "frames", "lock"
_ROW = struct.Struct("<IIII")
_SHA256 = 32
_NUMBERS = ("parts", "sent", "frames", "frames_length", "frames_crc32", "rest", "tar")

_TIMES = ("began", "written")

Facts = Mapping[str, str | int]

_logger = logging.getLogger("etcetera")


class DamagedJournal(ValueError):
    """A journal that was not written like this."""


def encode_row(frame: Frame, members: Iterable[PackedMember]) -> bytes:
    """What is kept of a frame, and of the members that end in it."""
    sums = _ROW.pack(frame.length, frame.size, frame.crc32, frame.compressed_crc32)
    return sums + b"".join([bytes.fromhex(member.sha256) for member in members])


class Rows:
    """Reads rows; who reads knows which files end in each frame."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._position = 0

    def __bool__(self) -> bool:
        """Whether there is more."""
        return self._position < len(self._data)

    def frame(self) -> KnownFrame:
        """The next frame.

        Raises:
            DamagedJournal: There is none.
        """
        return KnownFrame(*_ROW.unpack(self._take(_ROW.size)))

    def sha256(self) -> str:
        """The next file's, hexadecimal.

        Raises:
            DamagedJournal: There is none.
        """
        return self._take(_SHA256).hex()

    def _take(self, count: int) -> memoryview:
        start = self._position
        self._position += count
        if self._position > len(self._data):
            raise DamagedJournal("it knows of fewer frames than it says")
        return self._data[start : self._position]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How far a push has come."""

    facts: Facts
    """What is pushed, how, and where to."""
    upload: str
    """Its id."""
    state: Mapping[str, str]
    """Of the upload."""
    parts: Sequence[bytes]
    """What the upload says of each, as a line of JSON."""
    sent: int
    """Bytes of the archive in these parts."""
    tar: int
    """Tar bytes that were reported with them."""
    frames: int
    """How many are known, not counting those of the index."""
    rows: bytes
    """What is known of the frames that are new since it was last saved."""
    rest: bytes | memoryview
    """Of the archive: what follows the parts and is in these frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a journal holds."""

    facts: Facts
    upload: Unfinished
    written: datetime
    sent: int
    """Bytes of the archive in the parts."""
    tar: int
    """Tar bytes that were reported with them."""
    frames: int
    """How many are known, not counting those of the index."""
    rows: bytes
    """What is known of them, for :class:`Rows`."""
    rest: bytes
    """Of the archive: what follows the parts and is in these frames."""


class Journal:
    """The journal of one push; every method blocks, and is for one thread at a time.

    Nothing is on the disk before it is first saved. Who reads or writes it holds its lock, which
    the system takes back when the process dies; where there are no locks, there is no journal.
    """

    def __init__(self, directory: Path, about: Facts, every: int = CHECKPOINT_BYTES) -> None:
        """Use *directory*, which need not exist, as its parent does.

        Args:
            directory: Of the one push.
            about: What whoever cleans up has to know of it, to be kept in the journal.
            every: Bytes after which it is written again.
        """
        self.directory = directory
        self.about = about
        self.every = every
        self._lock = -1
        self._began = ""
        self._length = self._crc32 = 0
        """Of the rows that count."""

    def exists(self) -> bool:
        """Whether anything was saved."""
        return (self.directory / CHECKPOINT).exists()

    def lock(self) -> bool:
        """Hold it until it is closed; false if another process or task does, or none can."""
        if self._lock < 0:
            path = self.directory / _LOCK
            with suppress(OSError):
                self.directory.mkdir(mode=0o700, exist_ok=True)
                if self.directory.is_symlink():
                    return False
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Whoever had it may just have removed it.
                    if os.path.samestat(path.lstat(), os.fstat(lock)):
                        self._lock, lock = lock, -1
                finally:
                    if lock >= 0:
                        os.close(lock)
        return self._lock >= 0

    def load(self) -> Saved | None:
        """Read it, once it is locked; ``None`` without one.

        Raises:
            DamagedJournal: It cannot be used.
        """
        try:
            with _opened(self.directory / CHECKPOINT) as file:
                head, parts, rest = _parse(file.read(MAX_CHECKPOINT + 1))
            with _opened(self.directory / _FRAMES) as file:
                length = min(head["frames_length"], os.fstat(file.fileno()).st_size)
                rows = file.read(length)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise DamagedJournal(f"{self.directory} cannot be read: {error}") from error
        if len(rows) != head["frames_length"] or zlib.crc32(rows) != head["frames_crc32"]:
            raise DamagedJournal(f"{self.directory} is damaged")
        self._began, self._length, self._crc32 = head["began"], len(rows), head["frames_crc32"]
        return Saved(
            facts=head["facts"],
            upload=Unfinished(id=head["upload"], state=head["state"], parts=parts),
            written=datetime.fromisoformat(head["written"]),
            sent=head["sent"],
            tar=head["tar"],
            frames=head["frames"],
            rows=rows,
            rest=rest,
        )

    def save(self, done: "Done") -> None:
        """Put what is done now in the place of what was saved before, if anything was.

        Raises:
            OSError: It cannot be written; what was saved before still counts.
        """
        frames = self.directory / _FRAMES
        descriptor = os.open(frames, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            # Beyond is what a process wrote that died before it said so.
            file.truncate(self._length)
            file.seek(self._length)
            file.write(done.rows)
            file.flush()
            os.fsync(file.fileno())
        length, crc32 = self._length + len(done.rows), zlib.crc32(done.rows, self._crc32)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        began = self._began or now
        head = {
            "etcetera-journal": VERSION,
            "facts": dict(done.facts),
            "upload": done.upload,
            "state": dict(done.state),
            "began": began,
            "written": now,
            "parts": len(done.parts),
            "sent": done.sent,
            "tar": done.tar,
            "frames": done.frames,
            "frames_length": length,
            "frames_crc32": crc32,
            "rest": len(done.rest),
        }
        lines = [json.dumps(head).encode(), *done.parts]
        _replace(self.directory / CHECKPOINT, lines, done.rest)
        self._began, self._length, self._crc32 = began, length, crc32

    def remove(self) -> None:
        """Delete it, and let go of it.

        Raises:
            OSError: It cannot be deleted.
        """
        try:
            # The lock goes last of the files: until then nobody else begins one here.
            for name in (CHECKPOINT, f"{CHECKPOINT}.new", _FRAMES, _LOCK):
                (self.directory / name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                self.directory.rmdir()
        finally:
            self.close()
            self._began, self._length, self._crc32 = "", 0, 0

    def discard(self) -> None:
        """Delete it, as far as that is possible."""
        try:
            self.remove()
        except OSError as error:
            _logger.warning("Could not delete %s: %s", self.directory, error.strerror)

    def close(self) -> None:
        """Let go of it; may be called twice, and takes no time."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _opened(path: Path) -> BinaryIO:
    """Open a file to be read.

    Raises:
        ValueError: It is a link, a pipe or the like.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("it is no file")
    return os.fdopen(descriptor, "rb")


def _parse(data: bytes) -> tuple[dict[str, Any], list[dict[str, str]], bytes]:
    """The head of a checkpoint, its parts, and the rest.

    Raises:
        ValueError: It is damaged, or from another version.
    """
    content, digest = data[:-_SHA256], data[-_SHA256:]
    if len(data) > MAX_CHECKPOINT or hashlib.sha256(content).digest() != digest:
        raise ValueError("its checksum is wrong")
    line, _, content = content.partition(b"\n")
    head = json.loads(line)
    if head["etcetera-journal"] != VERSION:
        raise ValueError("it is from another version")
    times = [datetime.fromisoformat(head[name]) for name in _TIMES]
    numbers = [head[name] for name in _NUMBERS]
    if (
        not isinstance(head["upload"], str)
        or not all(time.tzinfo == UTC and 1 < time.year < 9999 for time in times)
        or not all(type(one) is int and 0 <= one < 1 << 63 for one in numbers)
        or not _is_table(head["facts"], str | int)
        or not _is_table(head["state"], str)
        or head["parts"] < 1
    ):
        raise ValueError("its first line makes no sense")
    *lines, rest = content.split(b"\n", head["parts"])
    parts = [json.loads(one) for one in lines]
    if (
        len(parts) != head["parts"]
        or not all(_is_table(part, str) for part in parts)
        or len(rest) != head["rest"]
    ):
        raise ValueError("its lines are not those that it names")
    return head, parts, rest


def _is_table(value: object, kind: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, kind) for one in value.values())


def _replace(path: Path, lines: Iterable[bytes], rest: bytes | memoryview) -> None:
    """Write a file whole: after a power loss it is the old one or the new one."""
    content = b"".join([line + b"\n" for line in lines])
    digest = hashlib.sha256(content)
    digest.update(rest)
    new = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
        file.writelines([content, rest, digest.digest()])
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    atomic.sync(path.parent)
