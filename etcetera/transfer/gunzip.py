"""A gzip stream → bytes, strictly, front to back.

For archives without our index, whoever made them: one member or many, each checked against its
trailer. Zeros may follow the last member, as tapes leave them; anything else is refused.

Source: RFC 1952.
"""

from collections.abc import Iterable, Iterator

from etcetera.errors import CorruptArchive, NotAnArchive, TruncatedArchive
from etcetera.transfer import codec
from etcetera.transfer.options import KiB, MiB

_OUTPUT = MiB
"""Bytes that one call of the codec may give, so that a bomb cannot fill the memory."""
_FLAG_CRC, _FLAG_EXTRA, _FLAG_NAME, _FLAG_COMMENT, _FLAGS_RESERVED = 2, 4, 8, 16, 0xE0
_MAX_FIELD = 64 * KiB
_INPUT = 64 * KiB
"""Bytes that one call of the codec is given: what it leaves is copied, however little it took."""


def gunzip(chunks: Iterable[codec.Buffer]) -> Iterator[bytes]:
    """Yield what *chunks*, of any length, hold compressed; at most 1 MiB at a time.

    Raises:
        NotAnArchive: It does not begin as gzip.
        CorruptArchive: A checksum or length is wrong, or something else follows the last member.
        TruncatedArchive: It ends too early.
    """
    source = _Source(chunks)
    first = True
    while source.fill():
        if not first and source.buffer[0] == 0:
            break
        _read_header(source, first=first)
        yield from _inflate(source)
        first = False
    if first:
        raise NotAnArchive("the object is empty: not a .tgz")
    while source.fill():
        if source.buffer.count(0) != len(source.buffer):
            raise CorruptArchive("archive is corrupt: something follows the gzip stream")
        source.buffer = b""


def _divided(chunks: Iterable[codec.Buffer]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _INPUT):
            yield bytes(chunk[start : start + _INPUT])


class _Source:
    """Compressed bytes with a little push-back."""

    def __init__(self, chunks: Iterable[codec.Buffer]) -> None:
        self._chunks = _divided(chunks)
        self.buffer = b""

    def fill(self) -> bool:
        while not self.buffer:
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self.buffer = chunk
        return True

    def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise _truncated()
            self.buffer += chunk
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def take_text(self) -> bytes:
        """A zero-terminated field."""
        text = b""
        while not text.endswith(b"\0"):
            if not self.fill():
                raise _truncated()
            text += self.take(self.buffer.find(b"\0") + 1 or len(self.buffer))
            if len(text) > _MAX_FIELD:
                raise CorruptArchive("archive is corrupt: a gzip header field without an end")
        return text


def _read_header(source: _Source, *, first: bool) -> None:
    start = source.buffer[:2]
    if len(start) < 2:
        start = source.take(2)
        source.buffer = start + source.buffer
    if start != b"\x1f\x8b":
        if first:
            raise NotAnArchive(f"the object is not a .tgz: it begins with {start.hex(' ')}")
        raise CorruptArchive("archive is corrupt: something follows the gzip stream")
    head = source.take(10)
    method, flags = head[2], head[3]
    if method != 8 or flags & _FLAGS_RESERVED:
        raise CorruptArchive("archive is corrupt: an unknown kind of gzip header")
    if flags & _FLAG_EXTRA:
        length = source.take(2)
        head += length + source.take(int.from_bytes(length, "little"))
    if flags & _FLAG_NAME:
        head += source.take_text()
    if flags & _FLAG_COMMENT:
        head += source.take_text()
    if flags & _FLAG_CRC:
        check = int.from_bytes(source.take(2), "little")
        if check != codec.crc32(head) & 0xFFFF:
            raise CorruptArchive("archive is corrupt: wrong checksum of a gzip header")


def _inflate(source: _Source) -> Iterator[bytes]:
    inflater = codec.decompressobj(-15)
    crc, size = 0, 0
    waiting = b""
    while not inflater.eof:
        if not waiting:
            if not source.fill():
                raise _truncated()
            waiting, source.buffer = source.buffer, b""
        try:
            data: bytes = inflater.decompress(waiting, _OUTPUT)
        except codec.CodecError as error:
            raise CorruptArchive(f"archive is corrupt: it cannot be inflated ({error})") from error
        waiting = inflater.unconsumed_tail
        if data:
            crc = codec.crc32(data, crc)
            size += len(data)
            yield data
    source.buffer = inflater.unused_data + source.buffer
    expected = codec.TRAILER.pack(crc, size & 0xFFFFFFFF)
    if source.take(codec.TRAILER.size) != expected:
        raise CorruptArchive("archive is corrupt: wrong checksum or length in the gzip trailer")


def _truncated() -> TruncatedArchive:
    return TruncatedArchive("archive is truncated: its gzip stream ends too early")
