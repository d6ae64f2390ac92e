"""Exact amounts out of pieces of any length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import TruncatedArchive
from etcetera.transfer.stream import ByteStream


@given(st.lists(st.binary(max_size=20)), st.lists(st.integers(0, 30)))
def test_reads_exactly(pieces: list[bytes], sizes: list[int]) -> None:
    """Whatever the pieces, reading gives the same bytes, and the end is an error."""
    whole, stream, position = b"".join(pieces), ByteStream(pieces), 0
    for size in sizes:
        if position + size > len(whole):
            with pytest.raises(TruncatedArchive):
                stream.read(size)
            return
        assert stream.read(size) == whole[position : position + size]
        position += size
        assert stream.offset == position
    assert b"".join(stream.rest()) == whole[position:]
    assert stream.offset == len(whole)


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_takes_at_most(pieces: list[bytes], limit: int) -> None:
    """Taking gives something until the end, and never more than asked for."""
    stream, whole = ByteStream(pieces), b""
    while taken := stream.take(limit):
        assert len(taken) <= limit
        whole += taken
    assert whole == b"".join(pieces)


def test_skips() -> None:
    """Skipping moves on, and past the end is an error."""
    stream = ByteStream([b"abc", b"def"])
    stream.skip(4)
    assert stream.read(2) == b"ef"
    with pytest.raises(TruncatedArchive, match="byte 6"):
        stream.skip(1)
