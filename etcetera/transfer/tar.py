"""Tar headers ⇄ bytes, and the strict reader.

What is written is plain ustar, with a pax header where a name, a link target or a size does not
fit. What is read is also GNU tar's dialect, but nothing that two readers could understand
differently: such a header is refused, never guessed at.

Sources: POSIX.1-2017, ``pax`` ("ustar Interchange Format", "pax Extended Header"); GNU tar
manual, "Basic Tar Format".
"""

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32

from etcetera.errors import CorruptArchive, UnsafeArchive
from etcetera.transfer.options import MiB
from etcetera.transfer.paths import check_link, normal_path
from etcetera.transfer.stream import ByteStream

BLOCK = 512
END = bytes(2 * BLOCK)
"""What closes a tar stream."""

MAX_EXTENSION = MiB
"""Bytes that an extended header may claim; the longest path needs a fraction of it."""

OCTAL_SIZE = 8**11
"""The least size that a header cannot hold."""
SHORT_PATH = 100
"""An ASCII path shorter than this needs no extended header."""
MAX_MTIME = 8**11 - 1
"""Seconds: the latest time that a header can hold."""
_LAYOUT = struct.Struct("100s8s16s12s12s8s356s")
_BEFORE_SUM = 148
"""Bytes before the checksum."""
_TAIL = struct.Struct("1s100s8s80x155s12x")
_READ_TAIL = struct.Struct("1s100s8s64x16s155s12s")
_POSIX, _GNU = b"ustar\x0000", b"ustar  \x00"
_NO_MAGIC = "not a tar header (no ustar magic)"
_PADDING = bytes(12)
_OWNERS = re.compile(rb"(?:[0-7]{7}\0){2}")
_NO_DEVICES = (bytes(16), b"0000000\0" * 2)
"""What nearly every header has."""
_SHOWN = 500
"""Characters of what is wrong, in which a name may stand, that a message has."""
_BLANK_SUM = 8 * ord(" ")
"""What the checksum field itself counts as."""


class Entry(NamedTuple):
    """What a dataset holds at one path."""

    path: str
    """Relative, ``/`` between components, no ``.`` or ``..``."""
    kind: str
    """``f`` a file, ``d`` a directory, ``l`` a symbolic link."""
    size: int
    """Bytes of a file, 0 otherwise."""
    mode: int
    """0o644 or 0o755 for files in archives of ours."""
    mtime: int
    """Whole seconds since 1970, never negative."""
    target: str = ""
    """Of a link."""
    stamp: int = 0
    """Of a file that was scanned: its status change time in ns, which every change moves."""


def padded(size: int) -> int:
    """Bytes that *size* bytes of content occupy in a tar stream."""
    return -(-size // BLOCK) * BLOCK


def header_size(path: str, size: int, target: str = "", kind: str = "d") -> int:
    """The length of :func:`header`, without making it where that can be told at a glance.

    As a directory, whose name gets a slash, no path has a shorter one.
    """
    plain = len(path) < SHORT_PATH and path.isascii() and len(target) <= 100 and target.isascii()
    if plain and size < OCTAL_SIZE:
        return BLOCK
    return len(header(Entry(path, kind, size, 0, 0, target)))


def header(entry: Entry) -> bytes:
    """The header blocks of *entry*: 512 bytes, or more with a pax header."""
    path, kind, size, mode, mtime, target, _ = entry
    name = path.encode() + (b"/" if kind == "d" else b"")
    link = target.encode()
    prefix = b""
    records: list[tuple[str, bytes]] = []
    if not name.isascii() or len(name) > 100:
        prefix, short = _split(name)
        if not short:
            records.append(("path", name))
            prefix, short = b"", _shortened(name)
        name = short
    if link and (not link.isascii() or len(link) > 100):
        records.append(("linkpath", link))
        link = _shortened(link)
    if size >= OCTAL_SIZE:
        records.append(("size", b"%d" % size))
        size = 0
    if kind == "f":
        typeflag = b"0"
    elif kind == "d":
        typeflag, mode = b"5", 0o755
    else:
        typeflag, mode = b"2", 0o777
    block = _ustar(name, mode, size, mtime, typeflag, link, prefix)
    if not records:
        return block
    data = b"".join(_record(key, value) for key, value in records)
    extended = _ustar(b"././@PaxHeader", 0o644, len(data), 0, b"x", b"", b"")
    return extended + data.ljust(padded(len(data)), b"\0") + block


def _ustar(
    name: bytes, mode: int, size: int, mtime: int, typeflag: bytes, link: bytes, prefix: bytes
) -> bytes:
    tail, tail_sum = _tail(typeflag, link, prefix)
    head = b"%b%07o\x000000000\x000000000\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"), mode, size, mtime,
    )  # fmt: skip
    checksum = byte_sum(head) + _BLANK_SUM + tail_sum
    return b"%b%06o\0 %b" % (head, checksum, tail)


@lru_cache(64)
def _tail(typeflag: bytes, link: bytes, prefix: bytes) -> tuple[bytes, int]:
    """What follows the checksum, and its sum: the same for the files of a directory."""
    tail = _TAIL.pack(typeflag, link, _POSIX, prefix)
    return tail, byte_sum(tail)


def byte_sum(block: bytes) -> int:
    """The sum of at most 512 bytes.

    ``sum`` takes 20 times as long. The lower half of an Adler-32 is 1 and the sum of the bytes
    modulo 65521, which 256 bytes cannot reach. Source: RFC 1950.
    """
    if len(block) <= 256:
        return (adler32(block) & 0xFFFF) - 1
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Cut a long ASCII path between ustar's prefix and name; empty where it cannot be."""
    if not name.isascii():
        return b"", b""
    cut = name.find(b"/", max(0, len(name) - 101), len(name) - 1)
    return (name[:cut], name[cut + 1 :]) if 0 < cut <= 155 else (b"", b"")


def _shortened(name: bytes) -> bytes:
    return name.decode().encode("ascii", "replace")[:100]


def _record(key: str, value: bytes) -> bytes:
    body = b" %s=%s\n" % (key.encode(), value)
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


class Member(NamedTuple):
    """One member as the strict reader found it; its content comes next in the stream."""

    entry: Entry
    """A hard link is given as a file of size 0 whose ``target`` is the file it equals."""
    offset: int
    """Of the first header block, in the tar stream."""


def read_members(stream: ByteStream) -> Iterator[Member]:
    """Read a whole tar stream, strictly; the caller reads each content before the next member.

    The entry of the root itself (``./``) is left out. After the last member the end blocks and
    everything behind them have been read.

    Raises:
        TruncatedArchive: The stream ends before two zero blocks.
        CorruptArchive: A header is damaged, ambiguous or of an unknown kind.
        UnsafeArchive: A path or link that leaves the target, or a special file.
    """
    dialects: set[str] = set()
    while True:
        offset = stream.offset
        entry = read_header(stream, dialects)
        if entry is None:
            break
        if entry.path:
            content = padded(entry.size)
            yield Member(entry, offset)
            if stream.offset < (end := stream.mark + content):
                stream.skip(end - stream.offset)
    end = stream.offset
    for piece in stream.rest():
        if piece.count(0) != len(piece):
            raise _corrupt(end, "something behind the end of the tar stream")


def read_header(stream: ByteStream, dialects: set[str] | None = None) -> Entry | None:
    """Read one member's header blocks; ``None`` at the two zero blocks that end the stream.

    Args:
        stream: Stands at a header; afterwards at the content, with ``mark`` set there.
        dialects: Which kinds of extended header the stream had so far; updated.
    """
    offset = stream.offset
    dialects = set() if dialects is None else dialects
    pax: dict[str, str] = {}
    longs: dict[bytes, str] = {}
    extended = False
    while True:
        block = stream.read(BLOCK)
        if not block[0] and block.count(0) == BLOCK:
            if extended or longs:
                raise _corrupt(offset, "an extended header without a member")
            if stream.read(BLOCK).count(0) != BLOCK:
                raise _corrupt(offset, "a single zero block between members")
            return None
        raw = _parse(block, offset)
        if raw.typeflag not in b"xgLK":
            break
        data = _read_extension(stream, raw, offset)
        if raw.typeflag in b"xg":
            if extended or longs:
                raise _corrupt(offset, "several extended headers for one member")
            records = _parse_pax(data, offset)
            if raw.typeflag == b"g":
                _check_global(records, offset)
                continue
            dialects.add("pax")
            extended, pax = True, records
        else:
            if raw.typeflag in longs or extended:
                raise _corrupt(offset, "several extended headers for one member")
            dialects.add("GNU")
            longs[raw.typeflag] = _text(data.rstrip(b"\0"), offset)
            if not longs[raw.typeflag]:
                raise _corrupt(offset, "an empty long name")
        if len(dialects) > 1:
            raise _corrupt(offset, "extended headers of pax and of GNU in one archive")
    stream.mark = stream.offset
    return _entry(raw, pax, longs, offset)


def _read_extension(stream: ByteStream, raw: "_Raw", offset: int) -> bytes:
    if raw.size > MAX_EXTENSION:
        raise _corrupt(offset, f"an extended header of {raw.size} bytes")
    return stream.read(padded(raw.size))[: raw.size]


class _Raw(NamedTuple):
    name: bytes
    mode: int
    size: int
    mtime: int
    typeflag: bytes
    link: bytes


def _parse(block: bytes, offset: int) -> _Raw:
    name, mode, owners, size, mtime, checksum, tail = _LAYOUT.unpack(block)
    typeflag, link, prefix, tail_sum, problem = _parse_tail(tail)
    if problem is _NO_MAGIC:
        raise _corrupt(offset, problem)
    expected = byte_sum(block[:_BEFORE_SUM]) + _BLANK_SUM + tail_sum
    if _number(checksum, offset, "checksum") != expected:
        raise _corrupt(offset, "wrong header checksum")
    if problem:
        raise _corrupt(offset, problem)
    if not _OWNERS.match(owners):
        # Not used, but to some readers the archive ends at a header that is not all numbers.
        for number in (owners[:8], owners[8:]):
            _number(number, offset, "owner or device", blank=True, signed=True)
    name = name.partition(b"\0")[0]
    return _Raw(
        b"%b/%b" % (prefix, name) if prefix else name,
        _number(mode, offset, "mode", blank=True),
        _number(size, offset, "size"),
        max(0, _number(mtime, offset, "mtime", blank=True, signed=True)),
        typeflag,
        link,
    )


@lru_cache(64)
def _parse_tail(tail: bytes) -> tuple[bytes, bytes, bytes, int, str]:
    """What follows the checksum: most members of an archive have the same.

    Returns:
        Type, target, the prefix of the name, the sum of the bytes, and what is wrong.
    """
    typeflag, link, magic, devices, prefix, padding = _READ_TAIL.unpack(tail)
    problem = ""
    if magic not in (_POSIX, _GNU):
        problem = _NO_MAGIC
    elif padding != _PADDING:
        # Of star, whose prefix is shorter: what follows it some readers take for a part of it.
        problem = "a header with more behind it"
    elif magic == _GNU and prefix.strip(b"\0"):
        # Some readers take it for a part of the path, others for times.
        problem = "a GNU header with more in it than a name"
    elif devices not in _NO_DEVICES:
        try:
            for number in (devices[:8], devices[8:]):
                _number(number, 0, "owner or device", blank=True, signed=True)
        except CorruptArchive:
            problem = "owner or device is not a number"
    link, prefix = link.partition(b"\0")[0], prefix.partition(b"\0")[0]
    return typeflag, link, prefix, byte_sum(tail), problem


_OCTAL = re.compile(rb" *([0-7]+)[ \0]+\Z|[ \0]*\Z")


def _number(
    field: bytes, offset: int, what: str, *, blank: bool = False, signed: bool = False
) -> int:
    """A numeric field: octal with a terminator, or GNU's base 256; below 2**63."""
    digits = field.rstrip(b" \0")
    if digits.isdigit() and len(digits) < len(field):
        try:
            return int(digits, 8)  # What nearly every writer writes.
        except ValueError:
            pass  # An 8 or 9.
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] == 0xFF:
            value = int.from_bytes(field, "big", signed=True)
        elif field[0] != 0x80:
            raise _corrupt(offset, f"{what} out of range")
        if not (-(1 << 63) if signed else 0) <= value < 1 << 63:
            raise _corrupt(offset, f"{what} out of range")
        return value
    match = _OCTAL.match(field)
    if match is None or (match[1] is None and not blank):
        raise _corrupt(offset, f"{what} is not a number")
    return int(match[1] or b"0", 8)


def _parse_pax(data: bytes, offset: int) -> dict[str, str]:
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position:space] if space > position else b""
        if not digits.isdigit() or digits.startswith(b"0"):
            raise _corrupt(offset, "a damaged pax record")
        end = position + int(digits)
        body = data[space + 1 : end]
        if end > len(data) or not body.endswith(b"\n") or b"=" not in body:
            raise _corrupt(offset, "a damaged pax record")
        key, value = body[:-1].split(b"=", 1)
        name = _text(key, offset)
        if not name or "\0" in name or name != name.strip():  # GNU tar skips blanks before it
            raise _corrupt(offset, f"a pax record {name!r}")
        if name in records:
            raise _corrupt(offset, f"two pax records {name!r}")
        # Values that are not used may be binary (extended attributes).
        records[name] = _text(value, offset) if name in _PAX_USED else ""
        if name in _PAX_USED and not value:
            raise _corrupt(offset, f"an empty pax record {name!r}")
        if name.startswith("GNU."):
            raise _corrupt(offset, f"a pax record {name!r}: sparse files are not supported")
        position = end
    if any(name.startswith(_SIZE_RECORDS) for name in records):
        raise _corrupt(offset, "a pax record that gives the file another size to some readers")
    for name in _PAX_NUMBERS:
        _pax_number(records.get(name, "0"), offset, name)
    for name in _PAX_TIMES:
        _pax_time(records.get(name, "0"), offset, name)
    if records.get("hdrcharset", _UTF8) != _UTF8:
        raise _corrupt(offset, "names in another encoding than UTF-8")
    return records


_PAX_NUMBERS = ("uid", "gid")
_PAX_TIMES = ("atime", "ctime")
"""Not applied, but readers refuse the archive if these are no numbers."""
_PAX_USED = frozenset(
    {"path", "linkpath", "size", "mtime", "hdrcharset", *_PAX_NUMBERS, *_PAX_TIMES}
)
_SIZE_RECORDS = ("SCHILY.realsize", "SUN.")
_UTF8 = "ISO-IR 10646 2000 UTF-8"


def _check_global(records: dict[str, str], offset: int) -> None:
    if used := _PAX_USED.intersection(records):
        raise _corrupt(offset, f"a global pax record {min(used)!r}")


def _entry(raw: _Raw, pax: dict[str, str], longs: dict[bytes, str], offset: int) -> Entry:
    raw_name, mode, size, mtime, typeflag, raw_link = raw
    if pax or longs:
        name = pax.get("path") or longs.get(b"L") or _text(raw_name, offset)
        link = pax.get("linkpath") or longs.get(b"K") or _text(raw_link, offset)
        size = _pax_number(pax["size"], offset, "size") if "size" in pax else size
        mtime = _pax_time(pax["mtime"], offset, "mtime") if "mtime" in pax else mtime
    else:
        name, link = _text(raw_name, offset), _text(raw_link, offset)
    mtime = min(mtime, MAX_MTIME)
    path = normal_path(name, offset)
    mode = mode & 0o755 | 0o600
    if link and typeflag in b"0\0005":
        raise _corrupt(offset, f"{name!r} is no link but has a target")
    if typeflag in b"0\0":
        if not path or name.endswith(("/", "/.")):
            raise _corrupt(offset, f"a file with the name of a directory, {name!r}")
        return Entry(path, "f", size, mode, mtime)
    if typeflag not in b"125":
        raise UnsafeArchive(
            f"archive refused: {name!r} at byte {offset} is of type {typeflag!r}; "
            "datasets hold only files, directories and links"
        )
    if size:
        raise _corrupt(offset, f"{name!r} is no file but has {size} bytes")
    if typeflag == b"5":
        return Entry(path, "d", 0, 0o755, mtime)
    if not path or name.endswith(("/", "/.")):
        raise _corrupt(offset, f"a link with the name of a directory, {name!r}")
    if typeflag == b"1":
        target = normal_path(link, offset)
        if not target or target == path:
            raise UnsafeArchive(f"archive refused: {name!r} at byte {offset} is a link to itself")
        return Entry(path, "f", 0, mode, mtime, target)
    check_link(path, link, offset)
    return Entry(path, "l", 0, 0o777, mtime, link)


def _pax_number(value: str, offset: int, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", value, re.ASCII) or int(value) >= 1 << 63:
        raise _corrupt(offset, f"{what} out of range")
    return int(value)


def _pax_time(value: str, offset: int, what: str) -> int:
    match = re.fullmatch(r"(-?[0-9]{1,18})(\.[0-9]*)?", value, re.ASCII)
    if match is None:
        raise _corrupt(offset, f"{what} is not a number")
    return max(0, int(match[1]))


def _text(data: bytes, offset: int) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _corrupt(offset, f"a name that is not UTF-8, {data[:100]!r}") from None


def _corrupt(offset: int, what: str) -> CorruptArchive:
    shown = what if len(what) <= _SHOWN else f"{what[:_SHOWN]}…"
    return CorruptArchive(f"archive is corrupt: {shown}, at byte {offset} of the tar stream")
