"""Files into a staging tree, never outside it."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive, NoSpace, UnsafeArchive
from etcetera.transfer.extract import Extractor, check_space
from etcetera.transfer.tar import Entry
from tests import trees


@pytest.fixture
def extractor(tmp_path: Path) -> Iterator[Extractor]:
    """One that fills ``tree``; it must leave no descriptor open."""
    (tmp_path / "tree").mkdir()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    made = Extractor(tmp_path / "tree")
    yield made
    made.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def file(path: str, size: int = 0) -> Entry:
    """A file."""
    return Entry(path, "f", size, 0o644, 7)


@pytest.mark.parametrize("swapped", ["d", "d/e"])
def test_links_are_not_followed(swapped: str, extractor: Extractor, tmp_path: Path) -> None:
    """PL-04: even a link that somebody else puts into the tree is not followed."""
    canary = trees.write(tmp_path / "canary", {"e/x": trees.file(b"precious")})
    before = trees.everything(canary)
    place = tmp_path / "tree" / swapped
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(canary)
    with extractor.writer() as writer:
        for path in ("d/e/x", "d/e/y", "d/e"):
            with pytest.raises(UnsafeArchive):
                writer.file(file(path), b"")
        with pytest.raises(UnsafeArchive):
            writer.directory(Entry("d/e/f", "d", 0, 0o755, 7))
        with pytest.raises(UnsafeArchive):
            writer.hard_link(file("copy")._replace(target="d/e/x"))
    assert trees.everything(canary) == before


def test_files_are_exclusive(extractor: Extractor, tmp_path: Path) -> None:
    """PL-15: what is there is never opened for writing, not even through a link."""
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "tree/link").symlink_to(tmp_path / "precious")
    (tmp_path / "tree/hard").hardlink_to(tmp_path / "precious")
    with extractor.writer() as writer:
        for name in ("link", "hard"):
            with pytest.raises(UnsafeArchive):
                writer.file(file(name), b"overwritten")
    assert (tmp_path / "precious").read_bytes() == b"precious"


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.randoms(use_true_random=False), st.integers(1, 50))
def test_large_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, order: "object", size: int
) -> None:
    """DN-17: slices may come in any order; the file is whole and its SHA-256 checked."""
    assert hasattr(order, "shuffle")
    tree = tmp_path_factory.mktemp("large")
    extractor = Extractor(tree)
    target = extractor.large(file("a/b", len(content)), sha256(content).hexdigest())
    starts = list(range(0, len(content), size)) or [0]
    order.shuffle(starts)
    for start in starts:
        target.write(start, content[start : start + size])
    extractor.finish()
    extractor.close()
    assert (tree / "a/b").read_bytes() == content
    assert (tree / "a/b").stat().st_mtime == 7


def test_large_incomplete(extractor: Extractor) -> None:
    """A file with a slice missing is no file."""
    target = extractor.large(file("a", 10), "0" * 64)
    target.write(5, b"56789")
    with pytest.raises(CorruptArchive, match="not complete"):
        extractor.finish()


def test_large_wrong(extractor: Extractor) -> None:
    """A file with another SHA-256 is refused with its last slice."""
    target = extractor.large(file("a", 4), sha256(b"good").hexdigest())
    with pytest.raises(CorruptArchive, match="SHA-256"):
        target.write(0, b"evil")


def test_no_space(tmp_path: Path) -> None:
    """RX-01: what does not fit is refused with both numbers, also before the home exists."""
    check_space(tmp_path / "not" / "there", 0)
    with pytest.raises(NoSpace, match=r"needs 4,611,686,018,427,387,904 bytes and only"):
        check_space(tmp_path, 1 << 62)


def test_times_of_directories(extractor: Extractor, tmp_path: Path) -> None:
    """PK-16: a directory's time survives what is put into it afterwards."""
    with extractor.writer() as writer:
        writer.directory(Entry("d", "d", 0, 0o755, 1_000))
        writer.directory(Entry("d/e", "d", 0, 0o755, 2_000))
        writer.file(file("d/e/f"), b"")
        extractor.add_link(Entry("d/l", "l", 0, 0o777, 3_000, "e"))
    extractor.finish()
    times = {path: int((tmp_path / "tree" / path).lstat().st_mtime) for path in ("d", "d/e", "d/l")}
    assert times == {"d": 1_000, "d/e": 2_000, "d/l": 3_000}


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_mask(mask: int, extractor: Extractor, tmp_path: Path) -> None:
    """PL-23: the caller's mask holds."""
    before = os.umask(mask)
    try:
        with extractor.writer() as writer:
            writer.file(Entry("d/x", "f", 0, 0o755, 7), b"")
    finally:
        os.umask(before)
    assert (tmp_path / "tree/d/x").stat().st_mode & 0o777 == 0o755 & ~mask
    assert (tmp_path / "tree/d").stat().st_mode & 0o777 == 0o755 & ~mask
