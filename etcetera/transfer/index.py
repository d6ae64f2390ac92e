"""The archive's table of contents ⇄ bytes.

The last member of the tar stream, ``.etcetera-index.jsonl``, is lines of JSON: segments, each with
the places of a run of frames and the entries that begin in them; the root, which says where the
segments are; and the footer, of fixed length, which says where the root is. ``docs/format.md``
specifies it.

All of it is a claim: whoever reads an archive by it checks every frame and every header.
"""

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from etcetera.errors import CorruptArchive
from etcetera.transfer import codec
from etcetera.transfer.options import MiB
from etcetera.transfer.pack import Frame, PackedMember, make_frame
from etcetera.transfer.paths import INDEX_NAME, link_problem, order_key, path_problem
from etcetera.transfer.scan import Totals
from etcetera.transfer.tar import BLOCK, END, Entry, header, padded

VERSION = 1
MAX_SEGMENT = 4096
"""Entries, or frames, after which a segment is closed."""
MAX_LINE = 64 * MiB
"""Bytes of one JSON line, and so of one index frame, that a reader accepts."""
FOOTER = BLOCK
"""Bytes of the footer."""
TAIL = codec.stored_size(FOOTER + len(END)) + len(codec.FINAL_BLOCK) + codec.TRAILER.size
"""Bytes from the footer's frame to the end of the object."""

_MARK = b'{"etcetera-index":'
_MAX_SEGMENT_READ = 16384


class DatasetDigest:
    """Names a version of the data: paths, kinds, executable bits and contents, nothing else."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._last = ""

    def add(self, path: str, row: bytes) -> None:
        """Add the next entry, in the order of :func:`etcetera.transfer.paths.order_key`.

        Args:
            path: Of the entry.
            row: What :func:`digest_row` gives for it.

        Raises:
            CorruptArchive: It does not come after the one before, or is the same.
        """
        key = order_key(path)
        if key <= self._last:
            raise CorruptArchive(f"archive is corrupt: {path!r} is in it twice")
        self._last = key
        self._hash.update(row)

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


# --- Writing -------------------------------------------------------------------------------


class _OpenSegment:
    """The columns of a segment that is not encoded yet."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.lengths, self.sizes = array("Q"), array("Q")
        self.crcs, self.compressed_crcs = array("L"), array("L")
        self.paths: list[str] = []
        self.kinds: list[str] = []
        self.entry_sizes, self.mtimes, self.headers = array("Q"), array("Q"), array("L")
        self.digests: list[str] = []
        self.targets: list[str] = []
        self.unknown = 0
        """Rows whose SHA-256 is still to come."""

    def encode(self) -> bytes:
        return _line(
            {
                "frames": {
                    "length": self.lengths.tolist(),
                    "size": self.sizes.tolist(),
                    "crc32": self.crcs.tolist(),
                    "compressed_crc32": self.compressed_crcs.tolist(),
                },
                "entries": {
                    "start": self.start,
                    "path": self.paths,
                    "kind": "".join(self.kinds),
                    "size": self.entry_sizes.tolist(),
                    "mtime": self.mtimes.tolist(),
                    "header": self.headers.tolist(),
                    "sha256": self.digests,
                    "target": self.targets,
                },
            }
        )


class IndexWriter:
    """Collects frames and entries in archive order, then gives the index's own frames."""

    def __init__(self) -> None:
        self._open = deque([_OpenSegment(0)])
        self._segments: list[bytes] = []
        self._columns: dict[str, list[Any]] = {name: [] for name in _SEGMENT_COLUMNS}
        self._digest = DatasetDigest()
        self._partitions: dict[str, Totals] = {}
        self._total = Totals()
        self._crc32 = 0
        self._size = 0
        self._length = len(codec.GZIP_HEADER)
        self._position = 0  # where in the tar stream the next member begins
        self.digest = ""
        """Of the dataset; known once finished."""

    def add_frame(self, frame: Frame, members: Sequence[PackedMember]) -> None:
        """Add the next frame and the members that begin in it."""
        segment = self._open[-1]
        if len(segment.lengths) >= MAX_SEGMENT or len(segment.paths) >= MAX_SEGMENT:
            self._open.append(segment := _OpenSegment(self._position))
            self._encode_known()
        segment.lengths.append(len(frame.data))
        segment.sizes.append(frame.size)
        segment.crcs.append(frame.crc32)
        segment.compressed_crcs.append(frame.compressed_crc32)
        self._count(frame)
        for member in members:
            self._add_row(segment, member.entry, member.header_size)
            if member.entry.kind == "f":
                segment.digests.append(member.sha256)
            self._digest.add(member.entry.path, digest_row(member.entry, member.sha256))

    def begin_large(self, entry: Entry, header_size: int) -> None:
        """Add a file whose first slice is the frame just added; its SHA-256 comes later."""
        segment = self._open[-1]
        self._add_row(segment, entry, header_size)
        segment.digests.append("")
        segment.unknown += 1

    def finish_large(self, member: PackedMember) -> None:
        """Fill in the SHA-256 of the last file begun."""
        segment = next(segment for segment in reversed(self._open) if segment.unknown)
        segment.digests[-1] = member.sha256
        segment.unknown -= 1
        self._digest.add(member.entry.path, digest_row(member.entry, member.sha256))

    def finish(self, level: int) -> Iterator[bytes]:
        """Yield the index's frames, the end of the tar stream and the gzip trailer."""
        self._open.append(_OpenSegment(self._position))
        self._encode_known()
        self.digest = self._digest.value()
        columns = self._columns
        data_length, data_size = self._length, self._size
        header_length = len(codec.store(bytes(BLOCK)))
        root = _line(
            {
                "data": {"length": data_length, "size": data_size},
                "header": {"length": header_length, "size": BLOCK},
                "segments": columns,
                "partitions": {
                    name: [totals.files, totals.bytes] for name, totals in self._partitions.items()
                },
            }
        )
        # Blanks at the end of the line put the footer on a block of its own.
        total = sum(columns["size"]) + len(root)
        root = root[:-1] + b" " * (-total % BLOCK) + b"\n"
        size = sum(columns["size"]) + len(root) + FOOTER
        yield self._count(make_frame(header(index_entry(size)), 0))
        yield from self._take_segments()
        root_frame = make_frame(root, level)
        place = [self._length, len(root_frame.data), len(root)]
        yield self._count(root_frame)
        footer = {
            "etcetera-index": VERSION,
            "root": place,
            "sha256": hashlib.sha256(root).hexdigest(),
            "digest": self.digest,
            "files": self._total.files,
            "bytes": self._total.bytes,
        }
        line = _line(footer)[:-1].ljust(FOOTER - 1) + b"\n"
        yield self._count(make_frame(line + END, 0))
        yield codec.FINAL_BLOCK + codec.TRAILER.pack(self._crc32, self._size & 0xFFFFFFFF)

    def _take_segments(self) -> Iterator[bytes]:
        columns = self._columns
        for i, data in enumerate(self._segments):
            crc, size = columns["crc32"][i], columns["size"][i]
            yield self._count(Frame(data, size, crc, 0))
        self._segments.clear()

    def _add_row(self, segment: _OpenSegment, entry: Entry, header_size: int) -> None:
        segment.paths.append(entry.path)
        segment.kinds.append(kind_code(entry))
        segment.entry_sizes.append(entry.size)
        segment.mtimes.append(entry.mtime)
        segment.headers.append(header_size)
        self._position += header_size + padded(entry.size)
        if entry.kind == "l":
            segment.targets.append(entry.target)
        partition = partition_of(entry)
        if partition and partition not in self._partitions:
            self._partitions[partition] = Totals()
        if entry.kind == "f":
            self._total.add(entry.size)
            if partition:
                self._partitions[partition].add(entry.size)

    def _count(self, frame: Frame) -> bytes:
        self._crc32 = codec.crc32_combine(self._crc32, frame.crc32, frame.size)
        self._size += frame.size
        self._length += len(frame.data)
        return frame.data

    def _encode_known(self) -> None:
        """Encode every segment but the last, from the front, while all its rows are known."""
        while len(self._open) > 1 and not self._open[0].unknown:
            segment = self._open.popleft()
            if not segment.lengths:
                continue
            line = segment.encode()
            frame = make_frame(line, 1)
            self._segments.append(frame.data)
            paths = sorted(segment.paths, key=order_key) or [""]
            row = {
                "frames": len(segment.lengths),
                "entries": len(segment.paths),
                "data_length": sum(segment.lengths),
                "data_size": sum(segment.sizes),
                "length": len(frame.data),
                "size": len(line),
                "crc32": frame.crc32,
                "sha256": hashlib.sha256(line).hexdigest(),
                "first": paths[0],
                "last": paths[-1],
            }
            for name, value in row.items():
                self._columns[name].append(value)


_SEGMENT_COLUMNS = (
    "frames", "entries", "data_length", "data_size", "length", "size", "crc32", "sha256",
    "first", "last",
)  # fmt: skip


def index_entry(size: int) -> Entry:
    """The index as a member of the tar stream."""
    return Entry(INDEX_NAME, "f", size, 0o644, 0)


def partition_of(entry: Entry) -> str:
    """The partition that *entry* is, or lies in; empty outside ``data``."""
    components = entry.path.split("/", 2)
    if components[0] != "data" or len(components) < 2:
        return ""
    return components[1]


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


# --- Reading -------------------------------------------------------------------------------


class FramePlace(NamedTuple):
    """Where a frame is, and what it must be."""

    offset: int
    """In the object."""
    length: int
    start: int
    """In the tar stream."""
    size: int
    crc32: int
    compressed_crc32: int


class MemberPlace(NamedTuple):
    """Where a member is in the tar stream, and what it must be."""

    entry: Entry
    start: int
    """Of its first header block."""
    header_size: int
    sha256: str

    @property
    def stop(self) -> int:
        """Where the next member begins."""
        return self.start + self.header_size + padded(self.entry.size)


@dataclass(frozen=True, slots=True)
class SegmentPlace:
    """Where a segment is, and which frames it speaks of."""

    offset: int
    """Of the segment's own frame, in the object."""
    length: int
    size: int
    crc32: int
    sha256: str
    frames: int
    entries: int
    data_offset: int
    """Of its first data frame, in the object."""
    data_length: int
    data_start: int
    """Of its first data frame, in the tar stream."""
    data_size: int
    first: str
    """The least path, by :func:`order_key`, of the entries that begin in it."""
    last: str


@dataclass(frozen=True, slots=True)
class Footer:
    """The fixed end of the index."""

    root_offset: int
    root_length: int
    root_size: int
    root_sha256: str
    digest: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Root:
    """Where everything is."""

    data_stop: int
    """Where the data frames end in the object."""
    data_size: int
    """Where the data members end in the tar stream."""
    header_length: int
    segments: list[SegmentPlace]
    partitions: dict[str, Totals]
    crc32: int
    """Of the root line itself."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment, decoded and consistent in itself."""

    start: int
    """Where in the tar stream its first member begins."""
    frames: list[FramePlace]
    members: list[MemberPlace]


def parse_footer(tail: bytes, object_size: int) -> Footer | None:
    """Find the footer at the end of an archive.

    Args:
        tail: The last :data:`TAIL` bytes of the object, or all if it is shorter.
        object_size: Bytes of the object.

    Returns:
        ``None`` if there is no index, or one of an unknown version: such an archive is read from
        front to back.

    Raises:
        CorruptArchive: There is a footer, but it cannot be true.
    """
    footer = codec.store(bytes(FOOTER + len(END)))[: codec.STORED_OVERHEAD]
    start = codec.STORED_OVERHEAD
    if len(tail) < TAIL or tail[:start] != footer or tail[start:][: len(_MARK)] != _MARK:
        return None
    if tail[start + FOOTER : -codec.TRAILER.size] != END + codec.FINAL_BLOCK:
        raise _wrong("the end of the tar stream")
    value = _parse(tail[start : start + FOOTER], "footer")
    if value.get("etcetera-index") != VERSION:
        return None
    place = value.get("root")
    if not _integers(place, 3):
        raise _wrong("footer")
    offset, length, size = place
    if (
        offset + length + TAIL != object_size
        or not 0 < size <= MAX_LINE
        or not 0 < length <= codec.stored_size(size)
        or not _integers([value.get("files"), value.get("bytes")], 2)
        or not _is_sha256(value.get("sha256"))
        or not isinstance(value.get("digest"), str)
        or value["digest"][:7] != "sha256:"
        or not _is_sha256(value["digest"][7:])
    ):
        raise _wrong("footer")
    return Footer(
        offset, length, size, value["sha256"], value["digest"], value["files"], value["bytes"]
    )


def parse_root(frame: bytes, footer: Footer) -> Root:
    """Decode the root line.

    Args:
        frame: ``root_length`` bytes of the object from ``root_offset`` on.
        footer: What the archive ends with.

    Raises:
        CorruptArchive: It is not what the footer says, or the places do not tile the object.
    """
    line = codec.inflate(frame, footer.root_size)
    if hashlib.sha256(line).hexdigest() != footer.root_sha256:
        raise _wrong("root")
    value = _parse(line, "root")
    data, head, columns = value.get("data"), value.get("header"), value.get("segments")
    if not (isinstance(data, dict) and isinstance(head, dict) and isinstance(columns, dict)):
        raise _wrong("root")
    numbers = [data.get("length"), data.get("size"), head.get("length"), head.get("size")]
    if not _integers(numbers, 4):
        raise _wrong("root")
    data_stop, data_size, header_length, header_size = numbers
    count = len(columns["frames"]) if isinstance(columns.get("frames"), list) else -1
    if header_size != BLOCK or not all(
        _integers(columns.get(name), count) for name in _SEGMENT_COLUMNS[:7]
    ):
        raise _wrong("root")
    for name in ("first", "last", "sha256"):
        if not _strings(columns.get(name), count):
            raise _wrong("root")
    segments: list[SegmentPlace] = []
    offset, data_offset, data_start = data_stop + header_length, len(codec.GZIP_HEADER), 0
    for i in range(count):
        place = SegmentPlace(
            offset,
            columns["length"][i],
            columns["size"][i],
            columns["crc32"][i],
            columns["sha256"][i],
            columns["frames"][i],
            columns["entries"][i],
            data_offset,
            columns["data_length"][i],
            data_start,
            columns["data_size"][i],
            columns["first"][i],
            columns["last"][i],
        )
        if (
            not 0 < place.size <= MAX_LINE
            or not 0 < place.length <= codec.stored_size(place.size)
            or not 0 < place.frames <= _MAX_SEGMENT_READ
            or place.entries > _MAX_SEGMENT_READ
        ):
            raise _wrong("root")
        segments.append(place)
        offset += place.length
        data_offset += place.data_length
        data_start += place.data_size
    if offset != footer.root_offset or data_offset != data_stop or data_start != data_size:
        raise _wrong("root: its places leave gaps or overlap")
    partitions: dict[str, Totals] = {}
    for name, sums in _dictionary(value.get("partitions")).items():
        if not _integers(sums, 2):
            raise _wrong("root")
        partitions[name] = Totals(*sums)
    return Root(data_stop, data_size, header_length, segments, partitions, codec.crc32(line))


def parse_segment(frame: bytes, place: SegmentPlace) -> Segment:
    """Decode one segment.

    Args:
        frame: ``place.length`` bytes of the object from ``place.offset`` on.
        place: What the root says of it.

    Raises:
        CorruptArchive: It is not what the root says, or frames or entries do not fit.
    """
    line = codec.inflate(frame, place.size)
    if hashlib.sha256(line).hexdigest() != place.sha256 or codec.crc32(line) != place.crc32:
        raise _wrong("a segment")
    value = _parse(line, "a segment")
    columns = _dictionary(value.get("frames"))
    names = ("length", "size", "crc32", "compressed_crc32")
    if not all(_integers(columns.get(name), place.frames) for name in names):
        raise _wrong("a segment")
    frames: list[FramePlace] = []
    offset, start = place.data_offset, place.data_start
    for length, size, crc, compressed_crc in zip(
        *(columns[name] for name in names), strict=True
    ):
        if not 0 < size <= MAX_FRAME or not 0 < length <= codec.stored_size(size):
            raise _wrong("a segment: a frame's length or size")
        frames.append(FramePlace(offset, length, start, size, crc, compressed_crc))
        offset += length
        start += size
    if offset != place.data_offset + place.data_length or start != (
        place.data_start + place.data_size
    ):
        raise _wrong("a segment: its frames leave gaps or overlap")
    entries = _dictionary(value.get("entries"))
    if not _integers([entries.get("start")], 1):
        raise _wrong("a segment")
    members = _parse_members(entries, place)
    paths = sorted((member.entry.path for member in members), key=order_key) or [""]
    if (place.first, place.last) != (paths[0], paths[-1]):
        raise _wrong("a segment: its paths")
    return Segment(entries["start"], frames, members)


MAX_FRAME = 8 * MiB
"""Tar bytes of one data frame that a reader accepts."""


def _parse_members(columns: dict[str, Any], place: SegmentPlace) -> list[MemberPlace]:
    start, count, kinds = columns["start"], place.entries, columns.get("kind")
    if (
        not isinstance(kinds, str)
        or len(kinds) != count
        or kinds.count("f") + kinds.count("x") + kinds.count("d") + kinds.count("l") != count
        or not _strings(columns.get("path"), count)
        or not all(_integers(columns.get(name), count) for name in ("size", "mtime", "header"))
        or not _strings(columns.get("sha256"), kinds.count("f") + kinds.count("x"))
        or not _strings(columns.get("target"), kinds.count("l"))
    ):
        raise _wrong("a segment")
    digests, targets = iter(columns["sha256"]), iter(columns["target"])
    members: list[MemberPlace] = []
    for path, kind, size, mtime, header_size in zip(
        columns["path"], kinds, columns["size"], columns["mtime"], columns["header"], strict=True
    ):
        digest = target = ""
        if kind in "fx":
            digest = next(digests)
            entry = Entry(path, "f", size, 0o755 if kind == "x" else 0o644, mtime)
            wrong = not _is_sha256(digest)
        elif kind == "d":
            entry = Entry(path, "d", size, 0o755, mtime)
            wrong = size != 0
        else:
            target = next(targets)
            entry = Entry(path, "l", size, 0o777, mtime, target)
            wrong = size != 0 or link_problem(path, target) is not None
        if wrong or header_size % BLOCK or not header_size or not _is_normal(path):
            raise _wrong(f"a segment: the entry {path!r}")
        member = MemberPlace(entry, start, header_size, digest)
        members.append(member)
        start = member.stop
    return members


def _is_normal(path: str) -> bool:
    return (
        path_problem(path) is None
        and path != INDEX_NAME
        and all(part not in ("", ".", "..") for part in path.split("/"))
    )


def _parse(line: bytes, what: str) -> dict[str, Any]:
    try:
        return _dictionary(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise _wrong(what) from error


def _dictionary(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong("a line is not as specified")
    return value


def _integers(value: object, count: int) -> bool:
    """Whether *value* is a list of *count* numbers from 0 to 2**63 - 1."""
    return (
        isinstance(value, list)
        and len(value) == count
        and (not value or set(map(type, value)) == {int})
        and (not value or (min(value) >= 0 and max(value) < 1 << 63))
    )


def _strings(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and (not value or set(map(type, value)) == {str})
    )


def _is_sha256(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) == 64
        and not value.strip("0123456789abcdef")
    )


def _wrong(what: str) -> CorruptArchive:
    return CorruptArchive(f"archive is corrupt: its index does not fit it ({what})")
