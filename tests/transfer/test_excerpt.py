"""A partition's frames as an archive of their own."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from etcetera.errors import PartitionNotFound, StoreError
from etcetera.stores import PinnedRange
from etcetera.transfer.archive import open_archive
from etcetera.transfer.excerpt import Excerpt, ExcerptObject, Run, find_excerpt
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.tar import END, Entry
from tests.archives import KEY, holding, packed, run, small
from tests.datasets import make_dataset, settle


async def excerpt_of(data: bytes, partition: str) -> Excerpt:
    """Find a partition in an archive."""
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        _, index = await open_archive(remote)
        assert index is not None
        return await find_excerpt(index, partition)


def alone(data: bytes, excerpt: Excerpt) -> bytes:
    """The archive that the excerpt is."""
    return excerpt.head + data[excerpt.place.start : excerpt.place.stop] + excerpt.end


def contents(data: bytes) -> dict[str, object]:
    """What an archive holds, read as a stream."""
    found: dict[str, object] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|gz") as tar:
        for one in tar:
            file = tar.extractfile(one) if one.isfile() else None
            found[one.name] = one.linkname if file is None else file.read()
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of several partitions, with a large file, many small ones, and none."""
    root = make_dataset(tmp_path / "set")
    (root / "data" / "val").mkdir()
    (root / "data" / "val" / "large.bin").write_bytes(bytes(range(256)) * 10_000)
    (root / "data" / "vast").mkdir()
    for number in range(5000):
        (root / "data" / "vast" / f"{number}.txt").write_text(f"{number}\n" * (number % 90))
    (root / "data" / "void").mkdir()
    settle(root)
    return root


@pytest.mark.parametrize("level", [0, 1, 6])
async def test_each_partition_is_an_archive(root: Path, level: int) -> None:
    """Each excerpt is a .tgz that holds the partition and nothing else, byte for byte."""
    data = await packed(root, small(level=level))
    members = contents(data)
    for partition in ("test", "train", "val", "vast", "void"):
        content = alone(data, await excerpt_of(data, partition))
        run("gzip", "-t", data=content)
        found = contents(content)
        inside = f"data/{partition}"
        assert found == {
            name: value
            for name, value in members.items()
            if name == inside or name.startswith(f"{inside}/")
        }
        assert found


async def test_object_reads_like_the_archive(root: Path) -> None:
    """Reading the parts of an excerpt gives the same bytes, wherever they are cut."""
    data = await packed(root)
    excerpt = await excerpt_of(data, "val")
    content = alone(data, excerpt)
    frames = data[excerpt.place.start : excerpt.place.stop]
    async with holding(frames).open(KEY) as remote:
        assert remote is not None
        one = ExcerptObject(excerpt, remote)
        assert one.info.size == len(content)
        for size in (1, 7, 1000, len(content)):
            starts = range(0, min(len(content), 40 * size), size)
            assert (
                b"".join([await one.read(start, start + size) for start in starts])
                == (content[: len(starts) * size])
            )
        end = len(content)
        assert await one.read(end - 25, end) == content[-25:]


def test_end() -> None:
    """The end is that of an empty tar stream, if nothing comes before it."""
    excerpt = Excerpt(place=PinnedRange(0, 0, "x"), size=0, crc32=0)
    assert gzip.decompress(excerpt.head + excerpt.end) == END


async def test_unknown_partition(root: Path) -> None:
    """A partition that is not there is not found; the error says which are."""
    with pytest.raises(PartitionNotFound, match=r"'vall' \(it has: test, train, val, vast, void\)"):
        await excerpt_of(await packed(root), "vall")


def segment(*paths: str, frames: list[int], start: int = 0) -> Segment:
    """A segment of members of 512 bytes, in frames of so many members each."""
    members = [
        MemberPlace(Entry(path, "f", 0, 0o644, 0), start + 512 * number, 512, "")
        for number, path in enumerate(paths)
    ]
    places = []
    for count in frames:
        places.append(FramePlace(10 + start, 100 * count, start, 512 * count, 0, 0))
        start += 512 * count
    return Segment(members[0].start if members else start, places, members)


@pytest.mark.parametrize(
    ("paths", "frames", "reason"),
    [
        (["data/a/1", "data/b/1", "data/a/2"], [1, 1, 1], "scattered"),
        (["data/a/1", "data/b/1"], [2], "shares"),
        (["meta.json", "data/a/1"], [2], "shares"),
        (["data/a/1", "data/a/2", "data/b/1"], [1, 2], "shares"),
        (["meta.json", "data/a/1", "data/a/2"], [2, 1], "shares"),
    ],
)
def test_what_does_not_lie_alone_is_refused(
    paths: list[str], frames: list[int], reason: str
) -> None:
    """Bytes of other files are never part of an excerpt."""
    with pytest.raises(StoreError, match=reason):
        Run("a").add(segment(*paths, frames=frames))


def test_scattered_over_segments() -> None:
    """A partition that goes on in a later segment, after others, is scattered."""
    found = Run("a")
    found.add(segment("data/a/1", "data/b/1", frames=[1, 1]))
    with pytest.raises(StoreError, match="scattered"):
        found.add(segment("data/a/2", frames=[1], start=1024))
