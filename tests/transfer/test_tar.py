"""Headers ⇄ bytes."""

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import CorruptArchive
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tar import (
    END,
    Entry,
    byte_sum,
    header,
    header_size,
    padded,
    read_header,
    read_members,
)
from tests import trees
from tests.tars import block, file

TIMES = st.integers(0, 8**11 - 1)
SIZES = st.one_of(
    st.integers(0, 1_000), st.integers(0, (1 << 63) - 1), st.sampled_from([8**11 - 1, 8**11])
)
PATHS = (
    st.lists(trees.names, min_size=1, max_size=12)
    .map("/".join)
    .filter(lambda path: len(path.encode()) <= 4_096)
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Any entry that a dataset may have."""
    path, mtime = draw(PATHS), draw(TIMES)
    kind = draw(st.sampled_from("fdl"))
    if kind == "f":
        return Entry(path, "f", draw(SIZES), draw(st.sampled_from([0o644, 0o755])), mtime)
    if kind == "d":
        return Entry(path, "d", 0, 0o755, mtime)
    up = "../" * draw(st.integers(0, path.count("/")))
    target = up + draw(PATHS.filter(lambda target: len(target.encode()) < 4_000))
    return Entry(path, "l", 0, 0o777, mtime, target)


@given(entries())
def test_round_trip(entry: Entry) -> None:
    """What is written is read back, and is as long as was said."""
    head = header(entry)
    assert len(head) % 512 == 0
    size = header_size(entry.path, entry.size, entry.target)
    assert len(head) <= size <= len(head) + 1024
    stream = ByteStream([head])
    assert read_header(stream) == entry
    assert stream.offset == stream.mark == len(head)


@given(st.one_of(st.binary(max_size=512), st.sampled_from([b"\xff" * 256, b"\xff" * 512])))
def test_byte_sum(data: bytes) -> None:
    """The quick sum is the sum."""
    assert byte_sum(data) == sum(data)


@given(entries())
def test_python_agrees(entry: Entry) -> None:
    """TF-33: the standard library reads the same from our headers."""
    with tarfile.open(fileobj=io.BytesIO(header(entry) + END), mode="r:") as tar:
        (member,) = tar.getmembers() if entry.size == 0 else [tar.next()]
    assert member is not None
    assert member.name == entry.path
    assert (member.size, member.mtime) == (entry.size, entry.mtime)
    assert (member.isfile(), member.isdir(), member.issym()) == tuple(
        entry.kind == kind for kind in "fdl"
    )
    assert member.linkname == entry.target
    assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")


@pytest.mark.parametrize("kind", "fd")
@pytest.mark.parametrize("slash", [0, 1, 50, 89])
def test_every_length(kind: str, slash: int) -> None:
    """Paths around the borders of ustar's fields are written so that they can be read."""
    for length in range(1, 256):
        entry = Entry("p" * slash + "/" * bool(slash) + "n" * length, kind, 0, 0o755, 1)
        # A directory's name is a slash longer.
        size = header_size(entry.path, entry.size, entry.target)
        assert size == len(header(entry._replace(kind="d"))) >= len(header(entry))
        assert read_header(ByteStream([header(entry)])) == entry


@pytest.mark.parametrize(
    ("size", "blocks"), [(0, 0), (1, 1), (511, 1), (512, 1), (513, 2), (1 << 40, 1 << 31)]
)
def test_padded(size: int, blocks: int) -> None:
    """Content occupies whole blocks."""
    assert padded(size) == blocks * 512


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 1 << 40, (1 << 63) - 1])
def test_large_sizes(size: int) -> None:
    """PK-15: sizes around and beyond 8 GiB are kept."""
    entry = Entry("data/train/a", "f", size, 0o644, 1)
    assert read_header(ByteStream([header(entry)])) == entry


def test_content_is_skipped() -> None:
    """A caller that does not read a content finds the next member all the same."""
    pieces = [file(b"a", b"x" * 700), file(b"b", b"y"), END]
    stream = ByteStream(pieces)
    assert [member.entry.path for member in read_members(stream)] == ["a", "b"]
    assert stream.offset == sum(map(len, pieces))


def test_offsets() -> None:
    """Members say where their first header block is, and errors name the byte."""
    members = list(read_members(ByteStream([file(b"a", b"x"), file(b"b"), END])))
    assert [member.offset for member in members] == [0, 1024]
    with pytest.raises(CorruptArchive, match="byte 1024"):
        list(read_members(ByteStream([file(b"a", b"x"), block(b"b", size=b"x" * 12), END])))
