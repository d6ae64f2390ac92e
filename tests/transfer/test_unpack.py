"""Frames → files: what a frame must be, and what a pull has installed."""

import hashlib
from pathlib import Path

import pytest

from etcetera.errors import CorruptArchive
from etcetera.transfer.codec import make_frame
from etcetera.transfer.digest import DatasetDigest, digest_row
from etcetera.transfer.extract import Extractor
from etcetera.transfer.index import FramePlace, MemberPlace, Segment
from etcetera.transfer.tar import END, Entry, header, padded
from etcetera.transfer.unpack import (
    Layout,
    check_content,
    check_header,
    inflate_checked,
    unpack_frames,
)
from tests import trees
from tests.archives import unpack
from tests.tars import directory, file, gnu_long, tgz

CONTENT = b"some words " * 300


def place(data: bytes) -> tuple[bytes, FramePlace]:
    """A frame and its place, at the beginning of everything."""
    frame = make_frame(data, 1)
    return frame.data, FramePlace(
        0, len(frame.data), 0, len(data), frame.crc32, frame.compressed_crc32
    )


def member(path: str, content: bytes, start: int = 0) -> MemberPlace:
    """A file's place."""
    entry = Entry(path, "f", len(content), 0o644, 7)
    return MemberPlace(entry, start, len(header(entry)), hashlib.sha256(content).hexdigest())


def tar(one: MemberPlace, content: bytes) -> bytes:
    """A file's tar bytes."""
    return header(one.entry) + content.ljust(padded(len(content)), b"\0")


@pytest.mark.parametrize("field", ["length", "size", "crc32", "compressed_crc32"])
@pytest.mark.parametrize("change", [-1, 1])
def test_frame_is_what_its_place_says(field: str, change: int) -> None:
    """Length, size and both checksums are compared."""
    data, good = place(CONTENT)
    assert inflate_checked(data, good) == CONTENT
    with pytest.raises(CorruptArchive):
        inflate_checked(data, good._replace(**{field: getattr(good, field) + change}))


@pytest.mark.parametrize("position", [0, 5, -1])
def test_damaged_frame(position: int) -> None:
    """A damaged frame is refused by the checksum of its compressed bytes."""
    data, good = place(CONTENT)
    damaged = bytearray(data)
    damaged[position] ^= 1
    with pytest.raises(CorruptArchive, match="checksum"):
        inflate_checked(bytes(damaged), good)


def test_headers_of_other_writers() -> None:
    """A header that says the same in another dialect is not the one that the format specifies."""
    one = member("data/train/" + "n" * 120, b"")
    other = gnu_long(one.entry.path.encode()) + file(b"short", mtime=7)
    check_header(header(one.entry), 0, one)
    with pytest.raises(CorruptArchive):
        check_header(other, 0, one._replace(header_size=len(other)))


def test_content_is_checked() -> None:
    """A file's content is what the index says, to the last byte."""
    one = member("a", CONTENT)
    assert bytes(check_content(tar(one, CONTENT), 0, one)) == CONTENT
    with pytest.raises(CorruptArchive, match="SHA-256"):
        check_content(tar(one, CONTENT[:-1] + b"!"), 0, one)


def jobs_of(tree: Path, sizes: list[int], members: list[MemberPlace]) -> None:
    """Match frames of these sizes with *members*, and write them from what they should hold."""
    stream = b"".join(tar(one, CONTENT) for one in members)
    frames, data, start = [], b"", 0
    for size in sizes:
        frame, at = place(stream[start : start + size])
        frames.append(at._replace(offset=len(data), start=start))
        data, start = data + frame, start + size
    extractor = Extractor(tree)
    try:
        layout = Layout(extractor)
        jobs = layout.jobs(Segment(0, frames, members))
        unpack_frames(data, 0, jobs, extractor)
        extractor.finish()
    finally:
        extractor.close()


TWO = [member("a", CONTENT), member("b", CONTENT, 512 + padded(len(CONTENT)))]
SIZE = TWO[1].start


@pytest.mark.parametrize(
    "sizes",
    [[2 * SIZE], [SIZE, SIZE], [1024, SIZE - 1024, SIZE], [SIZE, 512, SIZE - 512],
     [1025, SIZE - 1025, SIZE]],
)  # fmt: skip
def test_good_frames(sizes: list[int], tmp_path: Path) -> None:
    """Frames hold whole members, or a slice of exactly one."""
    (tmp_path / "tree").mkdir()
    jobs_of(tmp_path / "tree", sizes, TWO)
    assert {path: node.content for path, node in trees.read(tmp_path / "tree").items()} == {
        "a": CONTENT, "b": CONTENT,
    }  # fmt: skip


@pytest.mark.parametrize(
    "sizes",
    [
        [SIZE - 512, SIZE + 512], [SIZE + 512, SIZE - 512], [SIZE], [100, SIZE - 100, SIZE],
        [2 * SIZE - 512], [SIZE, 511, SIZE - 511],
    ],
)  # fmt: skip
def test_bad_frames(sizes: list[int], tmp_path: Path) -> None:
    """A frame with parts of two members, or less than a header, is refused."""
    with pytest.raises(CorruptArchive):
        jobs_of(tmp_path, sizes, TWO)


def test_implied_directories(tmp_path: Path) -> None:
    """Directories that an archive does not name count as if it did."""
    named = [directory(b"data/"), directory(b"data/train/"), file(b"data/train/f", b"x")]
    first = unpack([tgz(*named)], tmp_path / "named")
    second = unpack([tgz(named[-1], END)], tmp_path / "implied")
    assert first.total.files == second.total.files == 1
    assert first.fingerprint.value() == second.fingerprint.value()
    expected = DatasetDigest()
    for entry, sha256 in (
        (Entry("data", "d", 0, 0o755, 0), ""),
        (Entry("data/train", "d", 0, 0o755, 0), ""),
        (Entry("data/train/f", "f", 1, 0o644, 0), hashlib.sha256(b"x").hexdigest()),
    ):
        expected.add(entry.path, digest_row(entry, sha256))
    assert first.digest() == second.digest()


def test_order_does_not_matter(tmp_path: Path) -> None:
    """The digest is that of the data, in whatever order an archive has it."""
    members = [file(b"data/train/a", b"x"), file(b"README.md", b"y"), file(b"b/c", b"z")]
    digests = {
        unpack([tgz(*order)], tmp_path / str(number)).total.bytes
        for number, order in enumerate((members, members[::-1]))
    }
    assert digests == {3}
