"""The table of contents of an archive: read alone, and used to find one file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive
from etcetera.transfer import index, index_writer
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
