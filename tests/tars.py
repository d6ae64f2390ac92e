"""Tar streams made by hand, block by block, with every field open to abuse.

Nothing here uses the product: what these functions write is what POSIX and GNU tar say, or
deliberately not.
"""

import gzip
import struct
from collections.abc import Iterable

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX = b"ustar\x0000"
GNU = b"ustar  \x00"

_LAYOUT = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")


def octal(value: int, width: int) -> bytes:
    """A number as POSIX writes it: octal digits and a NUL."""
    return b"%0*o\0" % (width - 1, value)


def base256(value: int, width: int = 12) -> bytes:
    """A number as GNU tar writes what octal digits cannot hold."""
    if value < 0:
        return value.to_bytes(width, "big", signed=True)
    return b"\x80" + value.to_bytes(width - 1, "big")


def pad(content: bytes) -> bytes:
    """*content* filled up with NULs to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def block(
    name: bytes = b"data/train/a",
    *,
    size: int | bytes = 0,
    typeflag: bytes = b"0",
    mode: int | bytes = 0o644,
    mtime: int | bytes = 1_000_000_000,
    link: bytes = b"",
    magic: bytes = POSIX,
    prefix: bytes = b"",
    owner: int = 0,
    user: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block, its checksum right by default; numbers may be given as raw fields."""

    def number(value: int | bytes, width: int) -> bytes:
        return value if isinstance(value, bytes) else octal(value, width)

    def pack(total: bytes) -> bytes:
        return _LAYOUT.pack(
            name, number(mode, 8), octal(owner, 8), octal(owner, 8), number(size, 12),
            number(mtime, 12), total, typeflag, link, magic, user, user, octal(0, 8),
            octal(0, 8), prefix,
        )  # fmt: skip

    if checksum is None:
        checksum = b"%06o\0 " % sum(pack(b" " * 8))
    return pack(checksum)


def file(name: bytes, content: bytes = b"", **fields: bytes | int) -> bytes:
    """A regular file: its header and its content."""
    fields.setdefault("size", len(content))
    return block(name, **fields) + pad(content)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755) -> bytes:
    """A directory."""
    return block(name, typeflag=b"5", mode=mode)


def symlink(name: bytes, target: bytes) -> bytes:
    """A symbolic link."""
    return block(name, typeflag=b"2", link=target, mode=0o777)


def hard_link(name: bytes, target: bytes) -> bytes:
    """A hard link."""
    return block(name, typeflag=b"1", link=target)


def record(key: bytes, value: bytes) -> bytes:
    """One pax record, its length counting itself."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax_data(data: bytes, typeflag: bytes = b"x") -> bytes:
    """A pax header with any bytes for its records."""
    return block(b"PaxHeaders/x", size=len(data), typeflag=typeflag) + pad(data)


def pax(*records: tuple[bytes, bytes], typeflag: bytes = b"x") -> bytes:
    """A pax header: ``x`` for the next member, ``g`` for all that follow."""
    return pax_data(b"".join(record(key, value) for key, value in records), typeflag)


def gnu_long(text: bytes, typeflag: bytes = b"L") -> bytes:
    """GNU tar's carrier of a long name (``L``) or link target (``K``)."""
    content = text + b"\0"
    head = block(b"././@LongLink", size=len(content), typeflag=typeflag, magic=GNU)
    return head + pad(content)


def tgz(*pieces: bytes, end: bytes = END) -> bytes:
    """The pieces as one gzip member, closed by the two zero blocks."""
    return gzip.compress(b"".join(pieces) + end, 1, mtime=0)


def dataset(*pieces: bytes) -> bytes:
    """The pieces behind the members that make a dataset of any archive."""
    return tgz(directory(b"data/"), directory(b"data/train/"), *pieces)


def chunked(data: bytes, size: int) -> Iterable[bytes]:
    """*data* in chunks of *size* bytes."""
    return (data[start : start + size] for start in range(0, len(data), size))
