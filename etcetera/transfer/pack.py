"""Checked entries → frames.

Plain blocking code over bytes. A frame holds whole members, or a slice of one that is too large;
which members share a frame depends on their own paths and sizes, not on what stands far before
them, so one added file moves few borders.
"""

import hashlib
import os
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from etcetera.errors import SourceChanged, os_errors
from etcetera.transfer.codec import Frame, make_frame
from etcetera.transfer.descend import NO_FILE, Descent
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.options import KiB, MiB
from etcetera.transfer.tar import BLOCK, Entry, header, header_size, padded

FRAME_TARGET = 512 * KiB
"""Tar bytes that a frame of several members has on average."""
FRAME_MIN = 128 * KiB
"""No border is chosen before this, except between partitions and around slices."""
FRAME_MAX = MiB
"""Tar bytes at most; a longer member is cut into slices of this length."""


_ZEROS = bytes(BLOCK)
_sha256 = hashlib.sha256


class Group:
    """Whole members that share a frame."""

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries

    def pack(self, root: int, level: int) -> tuple[Frame, list[PackedMember]]:
        """Read the files and make the frame.

        Args:
            root: Descriptor of the dataset's directory.
            level: Compression, see :class:`TransferOptions`.

        Raises:
            SourceChanged: A file is not what the scan saw, or changed while it was read.
        """
        frame = _frame_buffer()
        members: list[PackedMember] = []
        size = 0
        # For small files this loop is most of a push.
        with Descent(root) as descent:
            for entry in self.entries:
                head = header(entry)
                start = size + len(head)
                frame[size:start] = head
                size = start
                sha256 = ""
                if entry.kind == "f":
                    size = stop = start + entry.size
                    content = frame[start:stop]
                    _read_file(descent, entry, content)
                    sha256 = _sha256(content).hexdigest()
                    if rest := -stop % BLOCK:
                        size = stop + rest
                        frame[stop:size] = _ZEROS[:rest]
                members.append(PackedMember(entry, len(head), sha256))
        return make_frame(frame[:size], level), members


class _Local(threading.local):
    def __init__(self) -> None:
        self.frame = memoryview(bytearray(FRAME_MAX))


_local = _Local()


def _frame_buffer() -> memoryview:
    """One thread's own: fresh memory for every frame would cost as much as compressing it."""
    return _local.frame


class LargeFile:
    """A file that is read in slices, by several threads; hashed in order all the same."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.head = header(entry)
        self.size = len(self.head) + padded(entry.size)
        """Tar bytes of the whole member."""
        self.slices = -(-self.size // FRAME_MAX)
        self._lock = threading.Lock()
        self._descriptor = -1
        self._packed = 0
        self._sha256 = hashlib.sha256()
        self._waiting: dict[int, memoryview] = {}
        self._hashed = 0
        self._hashing = False

    def pack(self, root: int, level: int, number: int) -> tuple[Frame, list[PackedMember]]:
        """Make the frame of slice *number*; the member comes with the last one to be packed."""
        data, content = self._load(root, number)
        frame = make_frame(data, level)
        self._hash(number, content)
        with self._lock:
            self._packed += 1
            last = self._packed == self.slices
        if last:
            self._finish()
        return frame, []

    def skip(self, root: int, count: int, stop: threading.Event) -> None:
        """Take the first slices for packed: they are only read again, for the SHA-256.

        Args:
            root: Descriptor of the dataset's directory.
            count: How many; not all of them.
            stop: Makes it end early, once set by another thread.

        Raises:
            InterruptedError: *stop* was set.
        """
        for number in range(count):
            if stop.is_set():
                raise InterruptedError
            self._sha256.update(self._load(root, number)[1])
        self._packed = self._hashed = count

    def slice_size(self, number: int) -> int:
        """Tar bytes of one slice."""
        return min(FRAME_MAX, self.size - number * FRAME_MAX)

    def member(self) -> PackedMember:
        """What the index says, once every slice has been packed."""
        return PackedMember(self.entry, len(self.head), self._sha256.hexdigest())

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _load(self, root: int, number: int) -> tuple[memoryview, memoryview]:
        """The tar bytes of one slice, and which of them are the file's."""
        data = view = memoryview(bytearray(self.slice_size(number)))
        if number == 0:
            view[: len(self.head)] = self.head
            view = view[len(self.head) :]
        first = max(0, number * FRAME_MAX - len(self.head))
        content = view[: max(0, min(len(view), self.entry.size - first))]
        self._read(root, content, first)
        return data, content

    def _read(self, root: int, content: memoryview, offset: int) -> None:
        with self._lock:
            if self._descriptor < 0:
                with Descent(root) as descent:
                    descriptor = _open(descent, self.entry)
                try:
                    # Early, rather than after reading a terabyte of something else.
                    _check_unchanged(self.entry, os.fstat(descriptor))
                except BaseException:
                    os.close(descriptor)
                    raise
                self._descriptor = descriptor
        with os_errors(f"reading {self.entry.path}"):
            while content:
                count = os.preadv(self._descriptor, [content], offset)
                if not count:
                    raise _changed(self.entry)
                content, offset = content[count:], offset + count

    def _hash(self, number: int, content: memoryview) -> None:
        # Whoever has the next slice also hashes those that wait behind it, so no thread waits.
        with self._lock:
            self._waiting[number] = content
            if self._hashing:
                return
            self._hashing = True
        while True:
            with self._lock:
                following = self._waiting.pop(self._hashed, None)
                if following is None:
                    self._hashing = False
                    return
            self._sha256.update(following)
            self._hashed += 1

    def _finish(self) -> None:
        _check_unchanged(self.entry, os.fstat(self._descriptor))
        self.close()


class Slice:
    """One run of a large file's tar bytes."""

    def __init__(self, file: LargeFile, number: int) -> None:
        self.file = file
        self.number = number

    @property
    def size(self) -> int:
        """Tar bytes."""
        return min(FRAME_MAX, self.file.size - self.number * FRAME_MAX)

    def pack(self, root: int, level: int) -> tuple[Frame, list[PackedMember]]:
        """Make the frame; its member is known from :meth:`LargeFile.member` after the last."""
        return self.file.pack(root, level, self.number)


def group(entries: Iterable[Entry]) -> Iterator[Group | Slice]:
    """Decide which members share a frame.

    A border lies between partitions, around members longer than a frame, and, once a frame has
    its least size, where the directory changes or a hash of the path says so; in the mean that
    gives :data:`FRAME_TARGET`.
    """
    members: list[Entry] = []
    total, place, partition = 0, "", ""
    for entry in entries:
        directory = entry.path.rpartition("/")[0]
        if directory != place or entry.kind == "d":
            inside = f"{entry.path}/" if entry.kind == "d" else f"{directory}/"
            here = "/".join(inside.split("/", 2)[:2]) if inside.startswith("data/") else ""
        else:
            here = partition
        size = header_size(entry.path, entry.size, entry.target) + padded(entry.size)
        border = here != partition or total + size > FRAME_MAX
        if not border and total >= FRAME_MIN:
            # The chance of a border grows with the member, so that frames of small and of
            # large files come out alike.
            chance = zlib.crc32(entry.path.encode()) / (1 << 32)
            border = directory != place or chance < size / (FRAME_TARGET - FRAME_MIN)
        if border and members:
            yield Group(members)
            members, total = [], 0
        place, partition = directory, here
        if size > FRAME_MAX:
            file = LargeFile(entry)
            for number in range(file.slices):
                yield Slice(file, number)
            continue
        members.append(entry)
        total += size
    if members:
        yield Group(members)


def open_root(root: Path) -> int:
    """A descriptor of the dataset's directory, for :meth:`Group.pack`."""
    with os_errors(f"reading {root}"):
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY)


def _open(descent: Descent, entry: Entry) -> int:
    try:
        return descent.open(entry.path)
    except OSError as error:
        if error.errno in NO_FILE:
            raise _changed(entry) from None
        with os_errors(f"reading {entry.path}"):
            raise error


def _read_file(descent: Descent, entry: Entry, content: memoryview) -> None:
    """Read a whole file into *content*, which is as long as the scan said."""
    descriptor = _open(descent, entry)
    try:
        count = os.readv(descriptor, [content]) if content else 0
        while count < entry.size:
            more = os.readv(descriptor, [content[count:]])
            if not more:
                raise _changed(entry)
            count += more
        _check_unchanged(entry, os.fstat(descriptor))
    except OSError as error:
        _check_unchanged(entry, os.fstat(descriptor))  # a directory now, perhaps
        with os_errors(f"reading {entry.path}"):
            raise error
    finally:
        os.close(descriptor)


def have_contents(
    root: int, files: Iterable[tuple[Entry, str]], stop: threading.Event | None = None
) -> bool:
    """Whether the files still have the contents whose SHA-256, hexadecimal, comes with each.

    Args:
        root: Descriptor of the dataset's directory.
        files: As the scan saw them.
        stop: Makes it end early, once set by another thread; the answer is no then.

    Raises:
        SourceChanged: A file is not what the scan saw, or changed while it was read.
    """
    with Descent(root) as descent:
        for entry, sha256 in files:
            if _hash_file(descent, entry, stop) != sha256:
                return False
    return True


def _hash_file(descent: Descent, entry: Entry, stop: threading.Event | None) -> str:
    sha256, left = _sha256(), entry.size
    descriptor = _open(descent, entry)
    try:
        while left and not (stop is not None and stop.is_set()):
            piece = _frame_buffer()[:left]
            with os_errors(f"reading {entry.path}"):
                count = os.readv(descriptor, [piece])
            if not count:
                raise _changed(entry)
            sha256.update(piece[:count])
            left -= count
        _check_unchanged(entry, os.fstat(descriptor))
    finally:
        os.close(descriptor)
    return "" if left else sha256.hexdigest()


def _check_unchanged(entry: Entry, now: os.stat_result) -> None:
    """Compare with the scan: so what was read since is what was there then, all of it."""
    if now.st_size != entry.size or now.st_ctime_ns != entry.stamp:
        raise _changed(entry)


def _changed(entry: Entry) -> SourceChanged:
    return SourceChanged(
        f"{entry.path} changed while it was packed; nothing was published. "
        "Push again when nobody writes to the dataset."
    )
