"""Frames ⇄ bytes: deflate without a past, stored blocks, CRC-32.

isal does the work where it is installed, and zlib-ng at the levels that isal lacks; the standard
library otherwise, several times slower and with other, equally valid, bytes.

Source: RFC 1951 (deflate), RFC 1952 (gzip).
"""

import os
import platform
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from etcetera import crc
from etcetera.errors import CorruptArchive
from etcetera.transfer.options import KiB

try:
    from isal import isal_zlib as _zlib

    CODEC = "isal"
except ImportError:  # No wheel for this machine.
    import zlib as _zlib  # type: ignore[no-redef]  # the same interface

    CODEC = "zlib"

try:
    from zlib_ng import zlib_ng as _thorough

    LADDER: tuple[int, ...] = (1, 3, 4, 5, 7)
except ImportError:  # The extra "fast" is not installed.
    import zlib as _thorough  # type: ignore[no-redef]  # the same interface

    LADDER = (1, 3, 6)

LEVELS = range(10)
"""0 stores; 1 to 3 are isal's; 4 to 9 those of zlib-ng, or of zlib, which takes twice as long.

Those that are chosen automatically are in ``LADDER``: each makes Python's own sources at least 1 %
smaller than the one before. zlib-ng's 9 does not, and makes other data larger.
"""

Buffer = bytes | bytearray | memoryview

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Deflate, no name, no time, no system: the same for everybody."""
FINAL_BLOCK = b"\x03\x00"
"""The empty block that ends a deflate stream."""
TRAILER = struct.Struct("<II")
"""CRC-32 and length modulo 2**32 of everything before compression."""

STORED_BLOCK = 0xFFFF
"""Bytes that a stored block can hold."""
STORED_OVERHEAD = 5
"""Bytes before each stored block."""

_PROBE = b"\xff" + os.urandom(15)
"""Nobody who makes an archive knows it; its first byte cannot complement a length."""
_FINAL_PROBE = struct.pack("<BHH", 1, len(_PROBE), len(_PROBE) ^ 0xFFFF) + _PROBE
"""A final stored block: read one bit late, it is no final block."""

_ISAL_LEVELS = 3
"""Levels of isal, from 1."""
_INSTRUCTIONS = ("avx", "sse", "bmi", "pclmul", "vpclmul", "asimd", "sve", "crc32", "pmull")
"""How the names of those begin that codecs choose by."""
_SAMPLE = 16 * KiB
_WORTH = 0.95
"""A sample that shrinks to no less than this is not worth compressing the rest for."""

crc32: Callable[..., int] = _zlib.crc32
compressobj: Callable[..., Any] = _zlib.compressobj
decompressobj: Callable[..., Any] = _zlib.decompressobj
CodecError: Any = _zlib.error


def identity() -> str:
    """Name the codecs and the kind of processor: where it is the same, so are the frames.

    A codec may give other bytes where it can use other instructions.
    """
    instructions: set[str] = set()
    with suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                instructions = {one for one in value.split() if one.startswith(_INSTRUCTIONS)}
                break
    known = crc32(" ".join(sorted(instructions)).encode())
    versions = " ".join(f"{module.__name__} {_version(module)}" for module in (_zlib, _thorough))
    return f"{versions} {platform.machine()} {known:08x}"


def _version(module: Any) -> str:
    package = sys.modules[module.__name__.partition(".")[0]]
    runtime = getattr(module, "ZLIB_RUNTIME_VERSION", "")
    return f"{getattr(package, '__version__', '')} {runtime}".strip()


class Frame(NamedTuple):
    """One frame, compressed."""

    data: bytes
    size: int
    """Tar bytes, before compression."""
    crc32: int
    """Of the tar bytes."""
    compressed_crc32: int

    @property
    def length(self) -> int:
        """Bytes in the archive."""
        return len(self.data)

    @property
    def stored(self) -> bool:
        """Whether it did not shrink, and was not compressed."""
        return len(self.data) == stored_size(self.size)


class KnownFrame(NamedTuple):
    """What the index says of a frame whose bytes are elsewhere."""

    length: int
    """Bytes in the archive."""
    size: int
    crc32: int
    compressed_crc32: int


def make_frame(data: Buffer, level: int) -> Frame:
    """Compress and sum up *data*."""
    compressed = deflate(data, level)
    return Frame(compressed, len(data), crc32(data), crc32(compressed))


def stored_size(size: int) -> int:
    """Bytes that *size* bytes take as stored blocks: the most a frame can need."""
    return size + STORED_OVERHEAD * max(1, -(-size // STORED_BLOCK))


def store(data: Buffer) -> bytes:
    """A frame of stored blocks."""
    view = memoryview(data)
    pieces: list[Buffer] = []
    for start in range(0, len(view) or 1, STORED_BLOCK):
        block = view[start : start + STORED_BLOCK]
        pieces.append(struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF))
        pieces.append(block)
    return b"".join(pieces)


def deflate(data: Buffer, level: int) -> bytes:
    """A frame: raw deflate that refers to nothing before it and ends on a byte border.

    What does not shrink is stored; at level 0 everything is.
    """
    if level == 0 or not _shrinks(data):
        return store(data)
    if level <= _ISAL_LEVELS:
        compressor = compressobj(level, _zlib.DEFLATED, -15)
    else:
        compressor = _thorough.compressobj(level, _zlib.DEFLATED, -15)
    frame = bytes(compressor.compress(data)) + bytes(compressor.flush(_zlib.Z_SYNC_FLUSH))
    return frame if len(frame) < stored_size(len(data)) else store(data)


def _shrinks(data: Buffer) -> bool:
    """Whether a sample from the middle shrinks; small data is worth a full try."""
    if len(data) < 4 * _SAMPLE:
        return True
    start = (len(data) - _SAMPLE) // 2
    compressor = compressobj(1, _zlib.DEFLATED, -15)
    size = len(compressor.compress(memoryview(data)[start : start + _SAMPLE]))
    return bool(size + len(compressor.flush(_zlib.Z_SYNC_FLUSH)) < _WORTH * _SAMPLE)


def inflate(frame: Buffer, size: int) -> bytes:
    """The *size* bytes of one frame.

    Raises:
        CorruptArchive: It is damaged, has another size, refers to bytes before it, or does not
            end where it should: with a final stored block of unpredictable bytes appended it
            must be a whole deflate stream that gives just these bytes more, or else its end
            would be a border inside a block, which a reader from the front would not see. (The
            usual empty block could be part of a crafted Huffman block.)
    """
    decompressor = decompressobj(-15)
    try:
        data: bytes = decompressor.decompress(frame, size + 1)
        if len(data) != size or decompressor.eof or decompressor.unconsumed_tail:
            raise CorruptArchive("archive is corrupt: a frame has not the size the index says")
        rest = decompressor.decompress(_FINAL_PROBE, len(_PROBE) + 1)
    except CodecError as error:
        raise CorruptArchive(f"archive is corrupt: a frame cannot be inflated ({error})") from error
    if rest != _PROBE or not decompressor.eof or decompressor.unused_data:
        raise CorruptArchive("archive is corrupt: a frame does not end at its end")
    return data


# The standard library's zlib may have none.
crc32_combine: Callable[[int, int, int], int] = getattr(
    _zlib, "crc32_combine", partial(crc.combine, crc.CRC32)
)
"""The CRC-32 of two runs of bytes, from that of each and the length of the second."""
