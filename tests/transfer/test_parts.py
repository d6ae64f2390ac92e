"""How large, how many at once, and cutting."""

import asyncio
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import StoreError
from etcetera.stores import PartLimits
from etcetera.transfer.options import GiB, KiB, MiB, TransferOptions
from etcetera.transfer.parts import (
    PARTS_MEMORY,
    Buffers,
    CopiedPart,
    Part,
    archive_bound,
    cut,
    plan,
)
from etcetera.transfer.scan import scan
from tests import trees
from tests.archives import packed, small

TiB = 1 << 40
S3 = PartLimits(min_part=5 * MiB, max_part=5 * GiB, max_parts=10_000)
PIECES = st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 100)), max_size=20)


def sent(parts: Iterable[Part | CopiedPart]) -> list[Part]:
    """Those that are sent, which are all."""
    found = list(parts)
    assert all(isinstance(part, Part) for part in found)
    return [part for part in found if isinstance(part, Part)]


@given(PIECES, st.integers(1, 30))
def test_cut(pieces: list[tuple[bytes, int]], part_size: int) -> None:
    """UP-14: parts are equal but the last, never empty, numbered from 1, and add up."""
    whole = b"".join(data for data, _ in pieces)
    parts = sent(cut(pieces, Buffers(part_size)))
    assert b"".join(part.data for part in parts) == whole
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True] * bool(parts)
    assert all(len(part.data) == part_size for part in parts[:-1])
    assert all(0 < len(part.data) <= part_size for part in parts)
    assert all(part.crc32 == zlib.crc32(part.data) for part in parts)
    assert all(part.size >= 0 for part in parts)
    if parts:
        assert sum(part.size for part in parts) == sum(size for _, size in pieces)


def test_cut_is_lazy() -> None:
    """A part leaves before what comes after the next byte is asked for."""
    seen: list[int] = []

    def pieces() -> Iterator[tuple[bytes, int]]:
        for number in range(10):
            seen.append(number)
            yield b"1234", 4

    first = next(cut(pieces(), Buffers(8)))
    assert isinstance(first, Part)
    assert bytes(first.data) == b"12341234"
    assert seen == [0, 1, 2]


def test_buffers_are_used_again() -> None:
    """However many parts there are, as many buffers are made as are held at once."""
    buffers = Buffers(4)
    seen: set[int] = set()
    for part in cut([(bytes([number] * 4), 4) for number in range(20)], buffers):
        assert isinstance(part, Part)
        assert bytes(part.data) == bytes([part.number - 1] * 4)
        seen.add(id(part.data.obj))
        buffers.give_back(part)
    assert len(seen) <= 2


@given(
    st.one_of(st.integers(1, 48 * TiB), st.sampled_from([1, 5 * MiB, 80_000 * MiB, 48 * TiB])),
    st.integers(5 * MiB, 64 * MiB),
    st.integers(1, 32),
)
def test_plan(bound: int, part_size: int, workers: int) -> None:
    """UP-15, SY-08: from one byte to 48 TiB at most 10,000 equal parts, in the memory promised."""
    options = TransferOptions(part_size=part_size, workers=workers)
    planned = plan(bound, S3, options)
    assert planned.bound == bound
    assert S3.min_part <= planned.part_size <= S3.max_part
    assert -(-bound // planned.part_size) <= S3.max_parts
    assert planned.part_size == part_size or planned.part_size < bound / S3.max_parts + MiB
    assert 1 <= planned.workers <= workers
    assert planned.memory == (planned.workers + 1) * planned.part_size
    assert planned.memory <= max(PARTS_MEMORY, 3 * planned.part_size)


@pytest.mark.parametrize(("bound", "size"), [(1, 8), (80_000 * MiB, 8), (80_000 * MiB + 1, 9)])
def test_default_parts(bound: int, size: int) -> None:
    """Parts have 8 MiB until 10,000 of them are not enough."""
    planned = plan(bound, S3, TransferOptions())
    assert planned.part_size == size * MiB
    assert planned.workers == 8


def test_one_tebibyte() -> None:
    """Large parts mean fewer in flight: 1 TiB needs 105 MiB each, and two at once."""
    planned = plan(TiB, S3, TransferOptions())
    assert (planned.part_size, planned.workers) == (105 * MiB, 2)


def test_too_large() -> None:
    """What no object can hold is refused before it is sent."""
    with pytest.raises(StoreError, match="split"):
        plan(49 * TiB, S3, TransferOptions())


def test_least_part() -> None:
    """Options below what the store accepts are raised to it."""
    assert plan(1, S3, TransferOptions(part_size=KiB)).part_size == 5 * MiB


@trees.few
@given(trees.random_trees(), st.integers(0, 3))
def test_bound_of_random_trees(tree: trees.Tree, level: int) -> None:
    """UP-17: no archive is larger than its bound, which is what parts are planned by."""
    with TemporaryDirectory() as directory:
        root = trees.write(Path(directory) / "set", tree)
        data = asyncio.run(packed(root, small(level=level, part_size=MiB)))
        assert len(data) <= archive_bound(scan(root))


NASTY: dict[str, trees.Tree] = {
    "control-characters": {
        f"data/train/{chr(1) * 200}{number}": trees.file() for number in range(300)
    },
    "quotes": {f'data/train/{chr(34) * 200}{number}': trees.file() for number in range(300)},
    "tiny": {f"data/train/{number}": trees.file(b"x") for number in range(1_000)},
    "links": {f"l{number}": trees.link("é") for number in range(500)},
    "long-links": {f"l{number}": trees.link("é" * 120) for number in range(300)},
    "directories": {"n" * 96 + f"{number:04}": trees.directory() for number in range(500)},
    "long-names": {"é" * 120 + f"{number:04}": trees.file() for number in range(300)},
    "partitions": {f"data/{chr(2) * 240}{number}": trees.directory() for number in range(300)},
    "noise": {f"data/train/{number}": trees.file(os.urandom(70_000)) for number in range(30)},
    "borders": {
        f"data/{number}/{half}": trees.file(os.urandom(513)) for number in range(200)
        for half in "ab"
    },
}  # fmt: skip


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("name", NASTY)
async def test_bound_of_nasty_trees(name: str, level: int, tmp_path: Path) -> None:
    """UP-17: nor of one made to be larger than it seems."""
    root = trees.write(tmp_path / "set", NASTY[name])
    data = await packed(root, small(level=level, part_size=MiB))
    bound = archive_bound(scan(root))
    assert len(data) <= bound
