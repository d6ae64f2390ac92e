"""Archives that nobody should trust, read from front to back.

The ids are those of the project's catalogue of cases: TF tar framing, PL paths and links, RX
resources, GZ the gzip layer.
"""

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from etcetera.errors import (
    ArchiveError,
    CorruptArchive,
    NotAnArchive,
    TruncatedArchive,
    UnsafeArchive,
)
from etcetera.removal import remove_tree
from tests import trees
from tests.archives import pull_from, unpack
from tests.hostile import REFUSED
from tests.hostile_framing import D, F
from tests.tars import (
    END,
    base256,
    block,
    chunked,
    dataset,
    directory,
    file,
    hard_link,
    pax,
)
from tests.unusual import ACCEPTED, DEEP


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the target that must be as it was, whatever happens."""
    canary = tmp_path / "home" / "canary"
    trees.write(canary, {"file": trees.file(b"precious"), "link": trees.link("file")})
    (canary / "file").chmod(0o600)
    trees.write(tmp_path / "home" / "before", {"data/train/f": trees.file(b"before")})
    before = trees.everything(canary), trees.everything(tmp_path / "home" / "before")
    yield canary
    assert (trees.everything(canary), trees.everything(tmp_path / "home" / "before")) == before
    assert {place.name for place in (tmp_path / "home").iterdir()} <= {
        "canary", "before", "target",
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 511, 513, 1 << 20])
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, size: int, outside: Path) -> None:
    """A hostile archive is refused for what it is, however it is cut, and harms nothing."""
    error, pieces = REFUSED[case]
    data = dataset(*pieces(bytes(outside)))
    with pytest.raises(error):
        unpack(chunked(data, size), outside.parent / "target")


@pytest.mark.parametrize("size", [1, 511, 513, 1 << 20])
@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str, size: int, outside: Path) -> None:
    """PL-28: what is unusual but clear gives exactly its tree, and nothing in it leads out."""
    pieces, expected = ACCEPTED[case]
    unpack(chunked(dataset(*pieces), size), outside.parent / "target")
    base = {"data/train": trees.directory(), "data": trees.directory()}
    tree = trees.read(outside.parent / "target")
    assert trees.contents(tree) == trees.contents(trees.complete(base | expected))
    for path, node in expected.items():
        assert tree[path].mtime == node.mtime
    root = os.path.realpath(outside.parent / "target")
    for path in tree:
        assert f"{os.path.realpath(outside.parent / 'target' / path)}/".startswith(f"{root}/")


def test_deep_nesting(outside: Path) -> None:
    """PL-30: 2,000 levels are unpacked, and removed again, without recursion."""
    target = outside.parent / "target"
    try:
        unpack([dataset(pax((b"path", DEEP.encode())), file(b"x", b"y"))], target)
        levels, directory = 0, os.open(target / "data" / "train", os.O_RDONLY)
        while (names := os.listdir(directory)) == ["d"]:  # noqa: PTH208 - a descriptor
            below = os.open("d", os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            levels, directory = levels + 1, below
        os.close(directory)
        assert (levels, names) == (2_000, ["f"])
    finally:
        remove_tree(target)
    assert not target.exists()


@pytest.mark.parametrize("mode", [0, 0o4755, 0o2777, 0o1777, 0o666, 0o600, 0o7777])
def test_modes_are_reduced(mode: int, outside: Path) -> None:
    """PL-23, PL-24: no special bits, never writable for others, never wider than the archive."""
    target = outside.parent / "target"
    pieces = (file(F, b"x", mode=mode), directory(D, mode=mode), file(D + b"/x", b"y"))
    unpack([dataset(*pieces)], target)
    kept = (target / "data/train/f").stat().st_mode & 0o7777
    assert kept & ~0o755 == 0
    assert kept & ~(mode | 0o600) == 0
    assert (target / "data/train/d").stat().st_mode & 0o7777 & ~0o755 == 0


def test_owner_is_the_caller(outside: Path) -> None:
    """PL-25: the owner that an archive names is not asked for."""
    unpack([dataset(file(F, b"x", owner=12_345, user=b"nobody"))], outside.parent / "target")
    status = (outside.parent / "target/data/train/f").stat()
    assert (status.st_uid, status.st_gid) == (
        outside.parent.stat().st_uid,
        outside.parent.stat().st_gid,
    )


def test_hard_links_stay_links(outside: Path) -> None:
    """PL-10: names of one file share it, so that thousands of them cost no more than one."""
    target = outside.parent / "target"
    names = [hard_link(f"data/train/{number}".encode(), F) for number in range(100)]
    tally = unpack([dataset(file(F, b"same"), *names)], target)
    assert (target / "data/train/f").stat().st_nlink == 101
    assert (target / "data/train/99").read_bytes() == b"same"
    assert tally.total.bytes == 101 * len(b"same")


def test_implied_directories_are_bounded(outside: Path) -> None:
    """RX-03: a few long paths cannot make directories by the hundred thousand."""
    target = outside.parent / "target"
    paths = [f"data/train/{number}/" + "d/" * 1900 + "f" for number in range(20)]
    members = [pax((b"path", path.encode())) + file(b"f") for path in paths]
    try:
        with pytest.raises(UnsafeArchive, match="does not name"):
            unpack([dataset(*members)], target)
    finally:
        remove_tree(target)  # pytest cannot


def test_long_paths_are_bounded(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RX-03: a few compressed bytes a path cannot fill the memory; ordinary ones count nothing."""
    monkeypatch.setattr("etcetera.transfer.tally.MOST_EXCESS", 100_000)
    ordinary = [file(f"data/train/{number}-{'x' * 60}".encode()) for number in range(300)]
    target = outside.parent / "target"
    assert unpack([dataset(*ordinary)], target).total.files == 300
    remove_tree(target)
    deep = "data/train/" + f"{'d' * 250}/" * 14
    members = [pax((b"path", f"{deep}{number}".encode())) + file(b"f") for number in range(50)]
    with pytest.raises(UnsafeArchive, match="paths are so long"):
        unpack([dataset(*members)], target)


@pytest.mark.parametrize("key", ["SCHILY.realsize", "SUN.holesdata"])
def test_other_sizes(key: str, outside: Path) -> None:
    """TF-25: what gives a file another size to some readers is refused."""
    with pytest.raises(CorruptArchive, match="another size"):
        unpack(
            [dataset(pax((key.encode(), b"4")) + file(F, b"x" * 600))], outside.parent / "target"
        )


THREE = (directory(b"data/"), file(F, b"x" * 600), file(D, b"y"))
WHOLE = b"".join(THREE) + END
MEMBER = gzip.compress(WHOLE, 6, mtime=0)


@pytest.mark.parametrize("blocks", range(7))
def test_cut_at_every_block(blocks: int, outside: Path) -> None:
    """TF-08, TF-09: a tar stream that stops at a block's border is truncated, not finished."""
    assert len(WHOLE) == 512 * 8
    with pytest.raises(TruncatedArchive):
        unpack([gzip.compress(WHOLE[: 512 * blocks])], outside.parent / "target")


@pytest.mark.parametrize("length", range(len(MEMBER)))
def test_cut_at_every_byte(length: int, outside: Path) -> None:
    """TF-10, GZ-02: no proper prefix of an archive is accepted."""
    with pytest.raises((TruncatedArchive, NotAnArchive)):
        unpack(chunked(MEMBER[:length], 7), outside.parent / "target")


@pytest.mark.parametrize("position", range(10, len(MEMBER)))
def test_flipped_bits(position: int, outside: Path) -> None:
    """GZ-01: no flipped bit is accepted, unless what it unfolds to is the same."""
    damaged = bytearray(MEMBER)
    damaged[position] ^= 1 << position % 8
    with suppress(zlib.error):
        # A match may be copied from elsewhere among equal bytes.
        if zlib.decompress(damaged, 31) == WHOLE:
            return
    with pytest.raises(ArchiveError):
        unpack([bytes(damaged)], outside.parent / "target")


def _gzip_header(flags: int, *fields: bytes, check: bytes = b"") -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + b"".join(fields)
    return head + check


def _with_header(head: bytes) -> bytes:
    return head + MEMBER[10:]


def _checked(head: bytes) -> bytes:
    return head + (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")


EXTRA = b"\x06\x00" + b"BC\x02\x00ab"
GOOD_GZIP = {
    "GZ-03-zeros-behind": MEMBER + bytes(9_000),
    "GZ-04-two-members": gzip.compress(WHOLE[:700]) + gzip.compress(WHOLE[700:]),
    "GZ-04-empty-members": gzip.compress(b"") + MEMBER + gzip.compress(b""),
    "GZ-04-a-member-a-block": b"".join(map(gzip.compress, chunked(WHOLE, 512))),
    "GZ-04-1000-members": b"".join(gzip.compress(piece, 1) for piece in chunked(WHOLE, 4)),
    "GZ-04-a-byte-a-member": b"".join(gzip.compress(piece, 1) for piece in chunked(WHOLE, 1)),
    "GZ-05-text": _with_header(_gzip_header(1)),
    "GZ-05-extra": _with_header(_gzip_header(4, EXTRA)),
    "GZ-05-longest-extra": _with_header(_gzip_header(4, b"\xff\xff", bytes(0xFFFF))),
    "GZ-05-name": _with_header(_gzip_header(8, b"a.tar\0")),
    "GZ-05-long-name": _with_header(_gzip_header(8, b"n" * 60_000 + b"\0")),
    "GZ-05-comment": _with_header(_gzip_header(16, b"hello\0")),
    "GZ-05-all": _with_header(_checked(_gzip_header(31, EXTRA, b"a.tar\0", b"hello\0"))),
    "GZ-05-check": _with_header(_checked(_gzip_header(2))),
}
BAD_GZIP: dict[str, tuple[type[ArchiveError], bytes]] = {
    "GZ-02-no-trailer": (TruncatedArchive, MEMBER[:-8]),
    "GZ-03-garbage-behind": (CorruptArchive, MEMBER + b"garbage"),
    "GZ-03-garbage-behind-zeros": (CorruptArchive, MEMBER + bytes(100) + b"x"),
    "GZ-03-member-behind-zeros": (CorruptArchive, MEMBER + bytes(100) + MEMBER),
    "GZ-04-second-member-cut": (
        TruncatedArchive,
        gzip.compress(WHOLE[:700]) + gzip.compress(WHOLE[700:])[:-1],
    ),
    "GZ-04-archive-twice": (CorruptArchive, MEMBER + MEMBER),
    "GZ-05-reserved": (CorruptArchive, _with_header(_gzip_header(0x20))),
    "GZ-05-wrong-check": (CorruptArchive, _with_header(_gzip_header(2, b"\0\0"))),
    "GZ-05-endless-name": (CorruptArchive, _with_header(_gzip_header(8, b"n" * (1 << 20)))),
    "GZ-05-method": (CorruptArchive, MEMBER[:2] + b"\x07" + MEMBER[3:]),
    "GZ-06-tar": (NotAnArchive, WHOLE),
    "GZ-06-zip": (NotAnArchive, b"PK\x03\x04" + bytes(100)),
    "GZ-06-zstd": (NotAnArchive, b"\x28\xb5\x2f\xfd" + bytes(100)),
    "GZ-06-html": (NotAnArchive, b"<!DOCTYPE html><html>Sign in</html>"),
    "GZ-06-one-byte": (ArchiveError, b"x"),  # too short to tell
    "GZ-06-no-tar": (CorruptArchive, gzip.compress(b"x" * 10_000)),
    "GZ-06-empty-gzip": (TruncatedArchive, gzip.compress(b"")),
    "GZ-07-empty": (NotAnArchive, b""),
}


@pytest.mark.parametrize("size", [1, 9, 511, 1 << 20])
@pytest.mark.parametrize("case", GOOD_GZIP)
def test_gzip_accepted(case: str, size: int, outside: Path) -> None:
    """GZ-03 to GZ-05: what RFC 1952 allows is read, wherever chunks end."""
    unpack(chunked(GOOD_GZIP[case], size), outside.parent / "target")
    assert set(trees.read(outside.parent / "target")) == {
        "data", "data/train", "data/train/f", "data/train/d",
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 9, 511, 1 << 20])
@pytest.mark.parametrize("case", BAD_GZIP)
def test_gzip_refused(case: str, size: int, outside: Path) -> None:
    """GZ-02 to GZ-07: what is no whole gzip stream is refused, wherever chunks end."""
    error, data = BAD_GZIP[case]
    with pytest.raises(error):
        unpack(chunked(data, size), outside.parent / "target")


async def test_not_an_archive_shows_its_first_bytes(tmp_path: Path) -> None:
    """GZ-06: whoever points at a wrong object learns what it begins with."""
    with pytest.raises(NotAnArchive, match="50 4b"):
        await pull_from(b"PK\x03\x04" + bytes(100), tmp_path / "tree")


def test_bomb_in_little_memory(tmp_path: Path) -> None:
    """RX-02: what a small archive unfolds to is never held in memory."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = compressor.compress(directory(b"data/") + block(F, size=base256(1 << 40)))
    zeros = bytes(1 << 20)
    data += b"".join(compressor.compress(zeros) for _ in range(64)) + compressor.flush()
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(TruncatedArchive):
            unpack([data], tmp_path / "tree")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
