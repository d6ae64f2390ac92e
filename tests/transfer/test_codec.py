"""Frames and checksums, with isal and zlib-ng and without them."""

import importlib.util
import random
import struct
import sys
import zlib
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive
from etcetera.transfer import codec

CONTENTS = {
    "empty": b"",
    "one": b"x",
    "zeros": bytes(200_000),
    "text": b"the quick brown fox " * 9_000,
    "noise": random.Random(1).randbytes(150_000),
    "noise-block": random.Random(2).randbytes(0xFFFF),
    "noise-blocks": random.Random(3).randbytes(2 * 0xFFFF + 1),
    "noise-then-text": random.Random(4).randbytes(70_000) + b"abc" * 50_000,
}


def plain() -> ModuleType:
    """A private copy of the codec as it is on a machine without isal and zlib-ng."""
    spec = importlib.util.find_spec("etcetera.transfer.codec")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    missing = ("isal", "zlib_ng")
    before = {
        name: sys.modules.pop(name)
        for name in tuple(sys.modules)
        if name.partition(".")[0] in missing
    }
    try:
        # Importing them fails now.
        sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type]
        spec.loader.exec_module(module)
    finally:
        for name in missing:
            del sys.modules[name]
        sys.modules.update(before)
    return module


PLAIN = plain()
BOTH = pytest.mark.parametrize("module", [codec, PLAIN], ids=["isal", "zlib"])


def test_names() -> None:
    """These tests see two codecs."""
    assert (codec.CODEC, PLAIN.CODEC) == ("isal", "zlib")
    assert max(codec.LADDER) > max(PLAIN.LADDER)


@BOTH
@pytest.mark.parametrize("level", codec.LEVELS)
@pytest.mark.parametrize("name", CONTENTS)
def test_frames(name: str, level: int, module: ModuleType) -> None:
    """Either codec reads what the other wrote; no frame is longer than its stored form."""
    data = CONTENTS[name]
    frame = module.deflate(data, level)
    assert len(frame) <= codec.stored_size(len(data)) == len(codec.store(data))
    assert zlib.decompress(frame + codec.FINAL_BLOCK, -15) == data
    if data:
        assert codec.inflate(frame, len(data)) == data
        assert PLAIN.inflate(frame, len(data)) == data


@BOTH
def test_frames_follow_each_other(module: ModuleType) -> None:
    """Frames of any kind make one deflate stream, and each stands alone."""
    frames = [module.deflate(data, level) for data in CONTENTS.values() for level in (0, 1, 3)]
    whole = b"".join(data for data in CONTENTS.values() for _ in range(3))
    assert zlib.decompress(b"".join(frames) + codec.FINAL_BLOCK, -15) == whole


@BOTH
@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("level", [0, 1])
def test_other_size(level: int, change: int, module: ModuleType) -> None:
    """A frame that gives more or less than it should is refused."""
    with pytest.raises(CorruptArchive):
        module.inflate(codec.deflate(b"abc" * 100, level), 300 + change)


@BOTH
@pytest.mark.parametrize("level", [0, 1])
def test_every_cut_and_every_byte_more(level: int, module: ModuleType) -> None:
    """A frame is only accepted where whatever follows reads the same from the front."""
    data = random.Random(5).randbytes(40) + b"abc" * 30
    frame = codec.deflate(data, level)
    followers = [b"", b"z" * 70, bytes(9), random.Random(6).randbytes(99)]
    frames = [frame[:length] for length in range(len(frame))]
    frames += [frame + bytes([more]) for more in range(256)]
    frames += [frame + bytes([more, 0]) for more in range(256)]
    accepted = 0
    for damaged in frames:
        try:
            module.inflate(damaged, len(data))
        except CorruptArchive:
            continue
        accepted += 1
        for following in followers:
            for number in (0, 1, 3):
                stream = damaged + codec.deflate(following, number) + codec.FINAL_BLOCK
                assert zlib.decompress(stream, -15) == data + following
    assert accepted <= 5


BLOCK = codec.STORED_BLOCK


@pytest.mark.parametrize("size", [1, 9, BLOCK, BLOCK + 9])
def test_every_lie_of_a_stored_frame(size: int) -> None:
    """Whatever bit of a block's head is wrong, what is accepted reads the same from the front."""
    data = bytes(size)
    frame = codec.store(data)
    heads = [place + byte for place in range(0, len(frame), BLOCK + 5) for byte in range(5)]
    for place in heads:
        for bit in range(8):
            lie = bytearray(frame)
            lie[place] ^= 1 << bit
            try:
                assert codec.inflate(lie, size) == data
            except CorruptArchive:
                continue
            following = codec.store(b"following") + codec.FINAL_BLOCK
            assert zlib.decompress(bytes(lie) + following, -15) == data + b"following"


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=6), st.data())
def test_blocks_of_any_kind(blocks: list[tuple[bool, bytes]], choice: st.DataObject) -> None:
    """Also frames that are like stored ones give what the standard library says, or nothing."""
    frame = b"".join(
        struct.pack("<BHH", final, len(data), len(data) ^ 0xFFFF) + data for final, data in blocks
    )
    frame = frame[: choice.draw(st.integers(0, len(frame)))]
    size = choice.draw(st.integers(0, 100))
    try:
        data = codec.inflate(frame, size)
    except CorruptArchive:
        return
    assert len(data) == size
    assert zlib.decompress(frame + codec.FINAL_BLOCK, -15) == data


@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_damage(seed: int, module: ModuleType) -> None:
    """RX-07: damage gives another content of the same size, or the one error; never a crash."""
    noise = random.Random(seed)
    data = bytes(noise.choices(b"abcdefgh", k=2_000))
    frame = bytearray(codec.deflate(data, 1))
    for _ in range(20):
        frame[noise.randrange(len(frame))] ^= 1 << noise.randrange(8)
        try:
            assert len(module.inflate(bytes(frame), len(data))) == len(data)
        except CorruptArchive:
            continue


@BOTH
def test_past_is_refused(module: ModuleType) -> None:
    """A frame that refers to bytes before itself is refused."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    first, second = random.Random(6).randbytes(500), random.Random(6).randbytes(500)
    compressor.compress(first)
    compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = compressor.compress(second) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(frame) < 100
    with pytest.raises(CorruptArchive):
        module.inflate(frame, 500)


@BOTH
def test_final_block_is_refused(module: ModuleType) -> None:
    """A frame that ends the stream is refused."""
    with pytest.raises(CorruptArchive):
        module.inflate(zlib.compress(b"abc", wbits=-15), 3)


@given(st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 1 << 45))
def test_combine(first: bytes, second: bytes, zeros: int) -> None:
    """The checksum of two runs of bytes follows from that of each."""
    expected = zlib.crc32(first + second)
    arguments = zlib.crc32(first), zlib.crc32(second), len(second)
    assert codec.crc32_combine(*arguments) == expected
    assert PLAIN.crc32_combine(*arguments) == expected
    # Lengths far beyond what can be tried: both must say the same.
    assert PLAIN.crc32_combine(7, 9, zeros) == codec.crc32_combine(7, 9, zeros)
