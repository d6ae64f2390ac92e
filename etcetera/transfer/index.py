"""The archive's table of contents: what it is made of, and reading it.

The last member of the tar stream, ``.etcetera-index.jsonl``, is lines of JSON: segments, each with
the places of a run of frames and the entries that begin in them; the root, which says where the
segments are; and the footer, of fixed length, which says where the root is. ``docs/format.md``
specifies it.

All of it is a claim: whoever reads an archive by it checks every frame and every header.
"""

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from etcetera.transfer import codec
from etcetera.transfer.index_line import (
    Form,
    check_simple,
    dictionary,
    integers,
    is_sha256,
    list_of,
    numbers,
    parse_line,
    strings,
    wrong_line,
)
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import INDEX_NAME, link_problem, order_key, path_problem
from etcetera.transfer.scan import Totals
from etcetera.transfer.tar import (
    BLOCK,
    END,
    MAX_MTIME,
    OCTAL_SIZE,
    SHORT_PATH,
    Entry,
    header_size,
    padded,
)

VERSION = 1
MAX_LINE = 8 * MiB
"""Bytes of one JSON line, and so of one index frame, that a reader accepts."""
FOOTER = BLOCK
"""Bytes of the footer."""
TAIL = codec.stored_size(FOOTER + len(END)) + len(codec.FINAL_BLOCK) + codec.TRAILER.size
"""Bytes from the footer's frame to the end of the object."""

MARK = b'{"etcetera-index":'
_MAX_SEGMENT_READ = 16384


NUMBER_COLUMNS = (
    "frames", "entries", "data_length", "data_size", "length", "size", "crc32",
)  # fmt: skip
STRING_COLUMNS = ("sha256", "first", "last")
"""What the root says of each segment."""

MAX_SEGMENTS = 16384
"""Of an archive; each is closed only after thousands of entries or frames, or 256 KiB of paths."""
MAX_PARTITIONS = 100_000


_ROOT = Form(13, 5, 21, 3 * MAX_SEGMENTS + MAX_PARTITIONS, 10 * MAX_SEGMENTS + 3 * MAX_PARTITIONS)


def index_entry(size: int) -> Entry:
    """The index as a member of the tar stream."""
    return Entry(INDEX_NAME, "f", size, 0o644, 0)


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

    @property
    def stop(self) -> int:
        """Where the next frame begins in the tar stream."""
        return self.start + self.size


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
    crc32: int | None = None
    """Of the object's bytes from where the data frames end to the footer's frame."""


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

    @property
    def ordered(self) -> bool:
        """Whether all paths of a segment come before those of the next one."""
        places = [place for place in self.segments if place.entries]
        return all(order_key(one.last) < order_key(two.first) for one, two in pairwise(places))


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
    if len(tail) < TAIL or tail[1:start] != footer[1:] or tail[start:][: len(MARK)] != MARK:
        return None
    if tail[0] != footer[0]:  # five bits of it mean nothing to whoever inflates
        raise wrong_line("footer")
    if tail[start + FOOTER : -codec.TRAILER.size] != END + codec.FINAL_BLOCK:
        raise wrong_line("the end of the tar stream")
    value = parse_line(tail[start : start + FOOTER], "footer")
    if value.get("etcetera-index") != VERSION:
        return None
    offset, length, size, files, size_of_files = numbers(
        [*list_of(value.get("root")), value.get("files"), value.get("bytes")], 5, "footer"
    )
    if (
        offset + length + TAIL != object_size
        or not 0 < size <= MAX_LINE
        or not 0 < length <= codec.stored_size(size)
        or not is_sha256(value.get("sha256"))
        or not isinstance(value.get("digest"), str)
        or value["digest"][:7] != "sha256:"
        or not is_sha256(value["digest"][7:])
    ):
        raise wrong_line("footer")
    crc32 = value.get("crc32")  # archives of earlier versions have none
    if crc32 is not None:
        numbers([crc32], 1, "footer")
    return Footer(
        offset, length, size, value["sha256"], value["digest"], files, size_of_files, crc32
    )


def parse_root(frame: codec.Buffer, footer: Footer) -> Root:
    """Decode the root line.

    Args:
        frame: ``root_length`` bytes of the object from ``root_offset`` on.
        footer: What the archive ends with.

    Raises:
        CorruptArchive: It is not what the footer says, or the places do not tile the object.
    """
    line = codec.inflate(frame, footer.root_size)
    if hashlib.sha256(line).hexdigest() != footer.root_sha256:
        raise wrong_line("root")
    check_simple(line, "root", _ROOT)
    value = parse_line(line, "root")
    data, head = dictionary(value.get("data")), dictionary(value.get("header"))
    data_stop, data_size, header_length, header_bytes = numbers(
        [data.get("length"), data.get("size"), head.get("length"), head.get("size")], 4, "root"
    )
    if header_bytes != BLOCK or header_length > codec.stored_size(BLOCK):
        raise wrong_line("root")
    segments = _place_segments(dictionary(value.get("segments")), data_stop + header_length)
    last = segments[-1] if segments else None
    if (
        (last.offset + last.length if last else data_stop + header_length) != footer.root_offset
        or (last.data_offset + last.data_length if last else len(codec.GZIP_HEADER)) != data_stop
        or (last.data_start + last.data_size if last else 0) != data_size
    ):
        raise wrong_line("root: its places leave gaps or overlap")
    partitions = _partitions(dictionary(value.get("partitions")))
    return Root(data_stop, data_size, header_length, segments, partitions, codec.crc32(line))


def _partitions(columns: dict[str, Any]) -> dict[str, Totals]:
    names = columns.get("name")
    count = len(list_of(names))
    if count > MAX_PARTITIONS or not strings(names, count) or len(set(list_of(names))) != count:
        raise wrong_line("root")
    files = numbers(columns.get("files"), count, "root")
    size = numbers(columns.get("bytes"), count, "root")
    return {name: Totals(*sums) for name, *sums in zip(list_of(names), files, size, strict=True)}


def _place_segments(columns: dict[str, Any], offset: int) -> list[SegmentPlace]:
    """The segments, one after another from *offset* in the object on, and what they speak of."""
    count = len(list_of(columns.get("frames")))
    if (
        count > MAX_SEGMENTS
        or not all(integers(columns.get(name), count) for name in NUMBER_COLUMNS)
        or not all(strings(columns.get(name), count) for name in STRING_COLUMNS)
    ):
        raise wrong_line("root")
    segments: list[SegmentPlace] = []
    data_offset, data_start = len(codec.GZIP_HEADER), 0
    for row in zip(*(columns[name] for name in (*NUMBER_COLUMNS, *STRING_COLUMNS)), strict=True):
        frames, entries, data_length, data_size, length, size, crc32, sha256, first, last = row
        if (
            not 0 < size <= MAX_LINE
            or not 0 < length <= codec.stored_size(size)
            or not 0 < frames <= _MAX_SEGMENT_READ
            or entries > _MAX_SEGMENT_READ
        ):
            raise wrong_line("root")
        segments.append(
            SegmentPlace(
                offset,
                length,
                size,
                crc32,
                sha256,
                frames,
                entries,
                data_offset,
                data_length,
                data_start,
                data_size,
                first,
                last,
            )
        )
        offset += length
        data_offset += data_length
        data_start += data_size
    return segments


def parse_segment(frame: codec.Buffer, place: SegmentPlace) -> Segment:
    """Decode one segment.

    Args:
        frame: ``place.length`` bytes of the object from ``place.offset`` on.
        place: What the root says of it.

    Raises:
        CorruptArchive: It is not what the root says, or frames or entries do not fit.
    """
    line = codec.inflate(frame, place.size)
    if hashlib.sha256(line).hexdigest() != place.sha256 or codec.crc32(line) != place.crc32:
        raise wrong_line("a segment")
    frames, entries = place.frames, place.entries
    form = Form(10, 3, 14, 1 + 2 * entries, 4 * frames + 5 * entries)
    check_simple(line, "a segment", form)
    value = parse_line(line, "a segment")
    columns = dictionary(value.get("frames"))
    names = ("length", "size", "crc32", "compressed_crc32")
    if not all(integers(columns.get(name), place.frames) for name in names):
        raise wrong_line("a segment")
    found: list[FramePlace] = []
    offset, start = place.data_offset, place.data_start
    for length, size, crc, compressed_crc in zip(*(columns[name] for name in names), strict=True):
        if not 0 < size <= MAX_FRAME or not 0 < length <= codec.stored_size(size):
            raise wrong_line("a segment: a frame's length or size")
        found.append(FramePlace(offset, length, start, size, crc, compressed_crc))
        offset += length
        start += size
    if offset != place.data_offset + place.data_length or start != (
        place.data_start + place.data_size
    ):
        raise wrong_line("a segment: its frames leave gaps or overlap")
    rows = dictionary(value.get("entries"))
    if not integers([rows.get("start")], 1):
        raise wrong_line("a segment")
    members = _parse_members(rows, place)
    paths = [member.entry.path for member in members] or [""]
    if (place.first, place.last) != (min(paths, key=order_key), max(paths, key=order_key)):
        raise wrong_line("a segment: its paths")
    return Segment(rows["start"], found, members)


MAX_FRAME = 8 * MiB
"""Tar bytes of one data frame that a reader accepts."""


def _parse_members(columns: dict[str, Any], place: SegmentPlace) -> list[MemberPlace]:
    start, count, kinds = columns["start"], place.entries, columns.get("kind")
    if (
        not isinstance(kinds, str)
        or len(kinds) != count
        or kinds.count("f") + kinds.count("x") + kinds.count("d") + kinds.count("l") != count
        or not strings(columns.get("path"), count)
        or not all(integers(columns.get(name), count) for name in ("size", "mtime", "header"))
        or not strings(columns.get("sha256"), kinds.count("f") + kinds.count("x"))
        or not strings(columns.get("target"), kinds.count("l"))
    ):
        raise wrong_line("a segment")
    digests, targets = iter(columns["sha256"]), iter(columns["target"])
    if not _are_sha256(columns["sha256"]):
        raise wrong_line("a segment: a checksum")
    plain = _are_plain(columns["path"])
    members: list[MemberPlace] = []
    for path, kind, size, mtime, header_length in zip(
        columns["path"], kinds, columns["size"], columns["mtime"], columns["header"], strict=True
    ):
        digest = target = ""
        if kind in "fx":
            digest = next(digests)
            entry = Entry(path, "f", size, 0o755 if kind == "x" else 0o644, mtime)
            wrong = False
        elif kind == "d":
            entry = Entry(path, "d", size, 0o755, mtime)
            wrong = size != 0
        else:
            target = next(targets)
            entry = Entry(path, "l", size, 0o777, mtime, target)
            wrong = size != 0 or link_problem(path, target) is not None
        if (
            wrong
            or mtime > MAX_MTIME
            or not (plain or _is_normal(path))
            or header_length
            != (
                BLOCK
                if plain and size < OCTAL_SIZE and not target
                else header_size(path, size, target, entry.kind)
            )
        ):
            raise wrong_line(f"a segment: the entry {path!r}")
        members.append(MemberPlace(entry, start, header_length, digest))
        start += header_length + padded(size)
    return members


_SUSPICIOUS = re.compile(r"\\|[\0/]\.{0,2}[\0/]|\0[A-Za-z]:")


def _are_plain(paths: list[str]) -> bool:
    """Whether all are normal, and short enough for a plain header: most are, and it is quick."""
    if max(map(len, paths), default=0) >= SHORT_PATH:
        return False
    text = "\0".join(("", *paths, ""))
    return (
        text.isascii()
        and text.count("\0") == len(paths) + 1
        and INDEX_NAME not in text
        and _SUSPICIOUS.search(text) is None
    )


def _are_sha256(digests: list[str]) -> bool:
    if any(length != 64 for length in map(len, digests)):
        return False
    return _HEXADECIMAL.fullmatch("".join(digests)) is not None


_HEXADECIMAL = re.compile(r"[0-9a-f]*")


def _is_normal(path: str) -> bool:
    return (
        path_problem(path) is None
        and path.partition("/")[0] != INDEX_NAME
        and all(part not in ("", ".", "..") for part in path.split("/"))
    )
