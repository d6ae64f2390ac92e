"""Archives whose size alone is the attack."""

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tar import read_members
from tests import trees
from tests.archives import packed, pull_from, small, unpack
from tests.tars import END, block, dataset, file, hard_link

Record = Callable[[str, object], None]
MiB = 1 << 20


@pytest.fixture
def traced() -> Iterator[None]:
    """Python's memory is counted."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.timeout(600)
def test_more_than_4_gib() -> None:
    """GZ-08: the length in the trailer, which wraps at 4 GiB, is compared as it wraps."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    piece, count = bytes(16 * MiB), 257
    data = b"".join(compressor.compress(piece) for _ in range(count)) + compressor.flush()
    assert int.from_bytes(data[-4:], "little") == 16 * MiB
    assert sum(map(len, gunzip([data]))) == 257 * 16 * MiB


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("traced")
def test_members_without_end(record_property: Record) -> None:
    """RX-03: a hundred thousand members are read in the memory of a few."""
    count = 100_000
    members = (block(b"data/train/f") for _ in range(count))
    stream = ByteStream(piece for pieces in (members, [END]) for piece in pieces)
    assert sum(1 for _ in read_members(stream)) == count
    peak = tracemalloc.get_traced_memory()[1]
    record_property("peak", peak)
    print(f"{count:,} members: at most {peak:,} bytes")  # noqa: T201
    assert peak < MiB


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("traced")
def test_links_without_end(tmp_path: Path, record_property: Record) -> None:
    """RX-03, PL-10: names of one file by the thousand cost a row each, not a file."""
    count = 5_000
    names = [hard_link(b"data/train/%d" % number, b"data/train/f") for number in range(count)]
    data = dataset(file(b"data/train/f", bytes(MiB)), *names)
    tracemalloc.reset_peak()
    tally = unpack([data], tmp_path / "tree")
    assert tally.total.files == count + 1
    peak = tracemalloc.get_traced_memory()[1]
    record_property("peak", peak)
    print(f"{count:,} links: at most {peak:,} bytes")  # noqa: T201
    assert peak < 32 * MiB


@pytest.mark.timeout(600)
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.usefixtures("traced")
async def test_many_at_once(indexed: bool, tmp_path: Path, record_property: Record) -> None:
    """RX-09: a hundred pulls in one event loop take no more than a hundred times their ranges."""
    content = random.Random(1).randbytes(4 * MiB)
    tree = {f"data/train/{n}": trees.file(content[n * MiB : (n + 1) * MiB]) for n in range(4)}
    data = await packed(trees.write(tmp_path / "source", tree))
    base = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    await asyncio.gather(
        *(
            pull_from(data, tmp_path / str(number), small(part_size=256 << 10), indexed=indexed)
            for number in range(100)
        )
    )
    peak = tracemalloc.get_traced_memory()[1] - base
    record_property("peak", peak)
    print(f"100 pulls of 4 MiB, indexed={indexed}: at most {peak:,} bytes")  # noqa: T201
    assert trees.contents(trees.read(tmp_path / "99")) == trees.contents(trees.complete(tree))
    assert peak < 100 * 4 * MiB


def test_gzip_of_gzip_of_gzip(tmp_path: Path) -> None:
    """RX-06: only one layer is taken off, however many there are."""
    layers = bytes(64 * MiB)
    for _ in range(3):
        layers = gzip.compress(layers, 9)
    unpack([dataset(file(b"data/train/f", layers))], tmp_path / "tree")
    assert (tmp_path / "tree/data/train/f").read_bytes() == layers
