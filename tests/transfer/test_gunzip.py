"""A gzip stream → bytes; what is refused is in ``test_hostile``."""

import gzip
import itertools
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive
from etcetera.transfer.gunzip import gunzip
from tests.tars import chunked


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4),
    st.integers(1, 200),
    st.integers(0, 9),
    st.integers(0, 30),
)
def test_members_and_chunks(contents: list[bytes], size: int, level: int, zeros: int) -> None:
    """GZ-04: any number of members gives their contents, wherever chunks end."""
    data = b"".join(gzip.compress(content, level) for content in contents) + bytes(zeros)
    assert b"".join(gunzip(chunked(data, size))) == b"".join(contents)
    assert b"".join(gunzip([b"", *chunked(data, size), b""])) == b"".join(contents)


def test_pieces_are_bounded() -> None:
    """RX-02: however much a few bytes unfold to, it comes a MiB at a time."""
    data = gzip.compress(bytes(30 << 20), 9)
    sizes = [len(piece) for piece in gunzip([data])]
    assert sum(sizes) == 30 << 20
    assert max(sizes) <= 1 << 20


def test_many_members_in_one_chunk() -> None:
    """A large chunk of tiny members is not copied again for each of them."""
    empty = gzip.compress(b"", 1, mtime=0)
    assert b"".join(gunzip([empty * 50_000 + gzip.compress(b"end")])) == b"end"


def test_noise() -> None:
    """Stored blocks come through."""
    noise = random.Random(7).randbytes(300_000)
    compressor = zlib.compressobj(0, zlib.DEFLATED, 31)
    data = compressor.compress(noise) + compressor.flush()
    assert b"".join(gunzip(chunked(data, 70_001))) == noise


@pytest.mark.parametrize("flags", [8, 16])
def test_endless_field(flags: int) -> None:
    """GZ-05: a name or comment without an end is not waited for."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    with pytest.raises(CorruptArchive, match="without an end"):
        list(gunzip(itertools.chain([head], itertools.repeat(b"n" * 1024, 1024))))
