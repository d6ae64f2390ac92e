"""The table of contents of an archive: read alone, and used to find one file."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive, InvalidDataset
from etcetera.transfer import codec, index, index_writer, push
from etcetera.transfer.archive import Index, open_archive
from etcetera.transfer.digest import DatasetDigest, digest_row
from etcetera.transfer.paths import INDEX_NAME
from etcetera.transfer.tar import BLOCK, Entry, header_size
from tests import trees
from tests.archives import KEY, holding, packed, pull_from, push_to, small
from tests.archives import memory as memory_store

TREE: trees.Tree = trees.SMALL | {
    "data/train/large": trees.file(b"0123456789abcdef" * 200_000),
    "data/train/z": trees.file(b"behind"),
}


AWKWARD = st.one_of(
    st.lists(st.sampled_from("/.\0\\a:\u00e9\n"), max_size=8).map("".join),
    st.sampled_from(["C:", "data/C:", INDEX_NAME, f"{INDEX_NAME}/a", "a" * 100]),
)


@given(st.lists(AWKWARD, max_size=4))
def test_plain_paths(paths: list[str]) -> None:
    """What the quick look at all paths of a segment lets pass, the look at each does as well."""
    if index._are_plain(paths):
        for path in paths:
            assert index._is_normal(path)
            assert header_size(path, 0) == BLOCK


async def indexed(data: bytes) -> Index:
    """The index of an archive."""
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        index = (await open_archive(remote))[1]
        assert index is not None
        return index


@pytest.mark.parametrize("segment", [1, 3, 4096])
async def test_members(segment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames tile the object, members the tar stream, and the sums are those of the data."""
    monkeypatch.setattr(index_writer, "MAX_SEGMENT", segment)
    index = await indexed(await packed(trees.write(tmp_path / "source", TREE)))
    offset, start, member_start, paths = 10, 0, 0, []
    async for part in index.segments():
        for frame in part.frames:
            assert (frame.offset, frame.start) == (offset, start)
            offset, start = offset + frame.length, start + frame.size
        for member in part.members:
            assert member.start == member_start
            member_start = member.stop
            paths.append(member.entry.path)
    assert (offset, start) == (index.root.data_stop, index.root.data_size)
    assert member_start == start
    assert sorted(paths) == sorted(trees.complete(TREE))
    sums = {name: (one.files, one.bytes) for name, one in index.root.partitions.items()}
    assert sums == {
        name: (len(contents), sum(map(len, contents)))
        for name in ("train", "test")
        if (contents := _contents(f"data/{name}/"))
    }


def _contents(directory: str) -> list[bytes]:
    return [
        node.content
        for path, node in TREE.items()
        if path.startswith(directory) and node.kind == "f"
    ]


async def test_one_read_finds_a_small_index(tmp_path: Path) -> None:
    """The footer and the root of a small archive come with one ranged read."""
    store = holding(await packed(trees.write(tmp_path / "source", TREE)))
    async with store.open(KEY) as remote:
        assert remote is not None
        await open_archive(remote)
    assert store.calls["read"] == 1


async def test_claims_are_what_is_installed(tmp_path: Path) -> None:
    """Digest, files and bytes of the footer are those of push, of pull and of both readers."""
    store = memory_store()
    pushed = await push_to(store, trees.write(tmp_path / "source", TREE), small())
    data = store.objects[KEY][1]
    footer = (await indexed(data)).footer
    for number, by_index in enumerate((True, False)):
        pulled = await pull_from(data, tmp_path / str(number), indexed=by_index)
        assert pulled.digest == footer.digest == pushed.digest
        assert (pulled.files, pulled.bytes) == (footer.files, footer.bytes)


def entry(path: str, kind: str = "f", mode: int = 0o644, mtime: int = 0) -> Entry:
    """An entry."""
    return Entry(path, kind, 3, mode, mtime, "t" if kind == "l" else "")


def digest(*rows: tuple[Entry, str]) -> str:
    """The digest of some entries."""
    made = DatasetDigest()
    for one, sha256 in rows:
        made.add(one.path, digest_row(one, sha256))
    return made.value()


def test_digest_tells_what_matters() -> None:
    """Paths, kinds, executable bits and contents; neither times nor other modes."""
    zero, one = "0" * 64, "1" * 64
    first = digest((entry("a"), zero))
    assert first == digest((entry("a", mtime=5), zero)) == digest((entry("a", mode=0o600), zero))
    others = [
        digest(), digest((entry("b"), zero)), digest((entry("a"), one)),
        digest((entry("a", mode=0o755), zero)), digest((entry("a", "d"), "")),
        digest((entry("a", "l"), "")), digest((entry("a"), zero), (entry("b"), zero)),
    ]  # fmt: skip
    assert len({first, *others}) == len(others) + 1
    assert first.startswith("sha256:")
    assert len(first) == 71


@pytest.mark.parametrize("paths", [("a", "a"), ("b", "a"), ("data/a", "a"), ("a", "meta.json")])
def test_digest_wants_order(paths: tuple[str, str]) -> None:
    """The same path twice, or one out of order, has no digest."""
    with pytest.raises(CorruptArchive):
        digest(*[(entry(path), "") for path in paths])


ROOT = (
    '{"data":{"length":10,"size":0},"header":{"length":517,"size":512},"segments":{"frames":[],'
    '"entries":[],"data_length":[],"data_size":[],"length":[],"size":[],"crc32":[],"sha256":[],'
    '"first":[],"last":[]},"partitions":{"name":[NAMES],"files":[FILES],"bytes":[FILES]}}\n'
)


def parse_root(names: str, files: str) -> index.Root:
    """Decode a root with columns of partitions."""
    line = ROOT.replace("NAMES", names).replace("FILES", files).encode()
    sha256 = hashlib.sha256(line).hexdigest()
    return index.parse_root(
        codec.store(line), index.Footer(527, len(line), len(line), sha256, "", 0, 0)
    )


def test_commas_and_colons_in_names() -> None:
    """Names of any characters are names."""
    names = ["," * 100_000, ":" * 100_000, '",":' * 30_000, "\\", '\\"']
    root = parse_root(index_writer._strings(names)[1:-1], "1,1,1,1,1")
    assert set(root.partitions) == set(names)


def test_as_many_partitions_as_there_may_be() -> None:
    """A root at its limit is read."""
    count = index.MAX_PARTITIONS
    names = ",".join(f'"a,{i}"' for i in range(count))
    assert len(parse_root(names, ",".join(["1"] * count)).partitions) == count


@pytest.mark.parametrize(
    ("names", "files"),
    [
        ("", ",".join(["1"] * 1_000_000)),
        (",".join(['""'] * 1_000_000), ""),
        ("", '"' * 1_000_000),
        (",".join(['"\\""'] * 1_000_000), ""),
        ('"a"],' + '"b":0,' * 1_000_000 + '"c":["d"', ""),
        ("[" * 1_000_000, ""),
        ("", "{" * 1_000_000),
    ],
)
def test_more_than_a_root_may_hold(names: str, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would stall every thread is refused before it is parsed."""
    monkeypatch.setattr("json.loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(CorruptArchive, match="root"):
        parse_root(names, files)


@pytest.mark.parametrize("more", ['"x":0,' * 1_000, "1," * 1_000, '"",' * 1_000])
def test_more_than_a_segment_may_hold(more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are those that the root says it has."""
    monkeypatch.setattr("json.loads", lambda _: pytest.fail("it was parsed"))
    line = (
        '{"frames":{"length":[1],"size":[1],"crc32":[1],"compressed_crc32":[1]},"entries":{"start"'
        f':0,{more}"path":["a"],"kind":"f","size":[0],"mtime":[0],"header":[512],"sha256":["a"],'
        '"target":[]}}\n'
    ).encode()
    sha256 = hashlib.sha256(line).hexdigest()
    place = index.SegmentPlace(
        0, 0, len(line), codec.crc32(line), sha256, 1, 1, 10, 1, 0, 1, "a", "a"
    )
    with pytest.raises(CorruptArchive, match="a segment"):
        index.parse_segment(codec.store(line), place)


async def test_too_many_partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset that no index can name is refused before anything is sent."""
    monkeypatch.setattr(push, "MAX_PARTITIONS", 1)
    with pytest.raises(InvalidDataset, match="2 partitions"):
        await packed(trees.write(tmp_path / "source", TREE))
