"""Archives that nobody should trust, with an index that looks valid.

The members are written as ours are wherever that is possible, so that it is what is wrong with them
that has to be noticed, and not how they are written. The index says either what another reader
finds in the tar stream, or that nothing is the matter.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from etcetera.errors import ArchiveError, CorruptArchive
from etcetera.transfer.archive import open_archive
from etcetera.transfer.tar import Entry
from tests import trees
from tests.archives import KEY, holding, pull_from
from tests.forge import TAIL, Forgery, member
from tests.hostile import REFUSED
from tests.tars import BLOCK, pad

TIME = 1_000_000_000
GOOD = b"".join(member(Entry(path, "d", 0, 0o755, TIME)) for path in ("data", "data/train"))


class Row(NamedTuple):
    """What the index says of one member."""

    path: str
    kind: str
    size: int
    header: int
    content: bytes = b""
    target: str = ""


def as_ours(tar: bytes) -> bytes:
    """*tar* with the device numbers of its headers left empty, as ours are."""
    blocks = [tar[start : start + BLOCK] for start in range(0, len(tar), BLOCK)]
    return b"".join(map(_without_devices, blocks))


def _without_devices(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    if (
        block[257:262] != b"ustar"
        or block[329:345] != b"0000000\0" * 2
        or block[148:156] != b"%06o\0 " % sum(blank)
    ):
        return block
    blank = blank[:329] + bytes(16) + blank[345:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def innocent(tar: bytes) -> list[Row]:
    """Everything is one file."""
    return [Row("data/train/innocent", "f", len(tar) - BLOCK, BLOCK, tar[BLOCK:])]


def truthful(tar: bytes) -> list[Row]:
    """What ``tarfile`` finds, as far as members follow each other; the rest is one file."""
    rows, position = [], 0
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            for one in archive:
                size = one.size if one.isreg() else 0
                end = one.offset_data + -(-size // BLOCK) * BLOCK
                if one.offset != position or end > len(tar):
                    break
                content = tar[one.offset_data : one.offset_data + size]
                kind = "d" if one.isdir() else "l" if one.issym() else "f"
                target = one.linkname if kind == "l" else ""
                name = one.name.rstrip("/") if kind == "d" else one.name
                rows.append(Row(name, kind, size, one.offset_data - position, content, target))
                position = end
    except (tarfile.TarError, ValueError, OverflowError, RecursionError):
        pass
    return rows + (innocent(tar[position:]) if position < len(tar) else [])


def forged(tar: bytes, rows: list[Row]) -> Forgery:
    """An archive with *tar* behind the members that make a dataset, and *rows* in its index."""
    rows = [Row("data", "d", 0, BLOCK), Row("data/train", "d", 0, BLOCK), *rows]
    entries: dict[str, Any] = {
        "start": 0,
        "path": [row.path.encode("utf-8", "replace").decode() for row in rows],
        "kind": "".join(row.kind for row in rows),
        "size": [row.size for row in rows],
        "mtime": [TIME for _ in rows],
        "header": [row.header for row in rows],
        "sha256": [hashlib.sha256(row.content).hexdigest() for row in rows if row.kind == "f"],
        "target": [
            row.target.encode("utf-8", "replace").decode() for row in rows if row.kind == "l"
        ],
    }
    places: dict[str, Any] = {name: [0] for name in ("length", "size", "crc32", "compressed_crc32")}
    files = [row.size for row in rows if row.kind == "f"]
    forgery = Forgery(
        [b""], [b""], [{"frames": places, "entries": entries}], {"train": [len(files), sum(files)]}
    )
    forgery.set_frame(0, GOOD + tar)
    return forgery


def indexed(tar: bytes, rows: list[Row]) -> bytes:
    """The same, put together."""
    return forged(tar, rows).build()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the targets that must be as it was, whatever happens."""
    canary = trees.write(tmp_path / "canary", {"file": trees.file(b"precious")})
    before = trees.everything(canary)
    yield canary
    assert trees.everything(canary) == before
    assert {place.name for place in tmp_path.iterdir()} <= {"canary", "0", "1", "front", "user"}


async def test_accepted(outside: Path) -> None:
    """What these tests build is accepted, as long as index and members are what they should be."""
    tar = member(Entry("data/train/innocent", "f", 700, 0o644, TIME), b"x" * 700)
    rows = [Row("data/train/innocent", "f", 700, BLOCK, b"x" * 700)]
    assert as_ours(tar) == tar
    assert truthful(tar) == rows
    await pull_from(indexed(tar, rows), outside.parent / "0", indexed=True)
    assert (outside.parent / "0/data/train/innocent").read_bytes() == b"x" * 700


@pytest.mark.parametrize("case", REFUSED)
async def test_refused(case: str, outside: Path) -> None:
    """Whatever the index says, a hostile archive is refused by it, and from the front as well."""
    tar = as_ours(pad(b"".join(REFUSED[case][1](bytes(outside)))))
    claims = [innocent(tar)]
    if case != "TF-18-digits":  # a regular expression of tarfile's would take minutes
        claims.append(truthful(tar))
    for number, claim in enumerate(claims):
        data = indexed(tar, claim)
        with pytest.raises(ArchiveError, match=r"'.*'|at byte \d+|index"):
            await pull_from(data, outside.parent / str(number), indexed=True)
    if "orphan" not in case:  # now they have a member: the index
        with pytest.raises(ArchiveError):
            await pull_from(data, outside.parent / "front", indexed=False)


@pytest.mark.parametrize("bit", range(8))
async def test_first_byte_of_the_footer(bit: int, outside: Path) -> None:
    """TF-07: not even bits that mean nothing to whoever inflates may be others."""
    content = member(Entry("data/train/f", "f", 3, 0o644, TIME), b"abc")
    data = bytearray(indexed(content, truthful(content)))
    data[-TAIL] ^= 1 << bit
    with pytest.raises(CorruptArchive):
        await pull_from(bytes(data), outside.parent / "0")


@pytest.mark.parametrize("size", [7 << 20, 9 << 20])
async def test_largest_frame(size: int, outside: Path) -> None:
    """RX-02: a frame of more than 8 MiB, which would be inflated at once, is refused."""
    tar = member(Entry("data/train/f", "f", size, 0o644, TIME), bytes(size))
    data = indexed(tar, truthful(tar))
    if size < 8 << 20:
        await pull_from(data, outside.parent / "0", indexed=True)
        return
    with pytest.raises(CorruptArchive, match="length or size"):
        await pull_from(data, outside.parent / "0", indexed=True)


async def test_header_of_the_index(outside: Path) -> None:
    """TF-07: it is looked at itself, should the gzip trailer speak of another one."""
    tar = member(Entry("data/train/f", "f", 3, 0o644, TIME), b"abc")
    forgery = forged(tar, truthful(tar))
    trailer = forgery.build()[-8:]
    forgery.index_header = lambda head: head.replace(b"index", b"xedni")
    forgery.trailer = lambda _: trailer
    with pytest.raises(CorruptArchive, match="header"):
        await pull_from(forgery.build(), outside.parent / "0")


async def test_checksum_in_capitals(outside: Path) -> None:
    """TF-16: a SHA-256 is written in one way only."""
    tar = member(Entry("data/train/f", "f", 3, 0o644, TIME), b"abc")
    forgery = forged(tar, truthful(tar))
    forgery.set_digest("data/train/f", hashlib.sha256(b"abc").hexdigest().upper())
    with pytest.raises(CorruptArchive, match="a checksum"):
        await pull_from(forgery.build(), outside.parent / "0")


CLAIMS: dict[str, tuple[str, Callable[[Forgery], object]]] = {
    "size-of-directory": ("the entry", lambda one: one.set("size", "data", 512)),
    "time": ("the entry", lambda one: one.set("mtime", "data/train/f", 8**11)),
    "up": ("the entry", lambda one: one.rename("data/train/f", "data/../f")),
    "drive": ("the entry", lambda one: one.rename("data/train/f", "C:/train/f")),
    "index": ("the entry", lambda one: one.rename("data/train/f", ".etcetera-index.jsonl/x")),
    "start": ("a segment", lambda one: one.entries.update(start=512)),
    "end": ("the last entry", lambda one: one.set("size", "data/train/f", 513)),
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_index_alone(claim: str) -> None:
    """PL-01, PL-03, TF-11: who only lists an archive compares the index with nothing else."""
    tar = member(Entry("data/train/f", "f", 3, 0o644, TIME), b"abc")
    problem, lie = CLAIMS[claim]
    forgery = forged(tar, truthful(tar))
    lie(forgery)
    async with holding(forgery.build()).open(KEY) as remote:
        assert remote is not None
        _, index = await open_archive(remote)
        assert index is not None
        with pytest.raises(CorruptArchive, match=problem):
            async for _segment in index.segments():
                pass


async def test_link_in_the_index(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PL-04: a link that leaves is refused where the index is read, not only where it is made."""
    monkeypatch.setattr("etcetera.transfer.extract.link_problem", lambda *_: None)
    tar = member(Entry("data/train/l", "l", 0, 0o777, TIME, "../../../canary"))
    with pytest.raises(CorruptArchive, match="the entry"):
        await pull_from(indexed(tar, truthful(tar)), outside.parent / "0")
