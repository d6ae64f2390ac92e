"""Readers of bytes that anybody may have written, and what they may do with any of them.

Each target takes bytes, and lets nothing out but a failed assertion or an error that nobody should
see. What has a checksum gets the right one, so that what is behind it is reached.
"""

import asyncio
import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from etcetera import staging
from etcetera.config import Config
from etcetera.errors import ArchiveError, ConfigError, CorruptArchive, UsageError
from etcetera.links import parse_link
from etcetera.locks import locked
from etcetera.receipts import Receipts
from etcetera.transfer.gunzip import gunzip
from etcetera.transfer.index import TAIL, Footer, SegmentPlace, parse_footer, parse_root
from etcetera.transfer.index import parse_segment as parse
from etcetera.transfer.index_copy import KeptIndex
from etcetera.transfer.journal import DamagedJournal, Journal
from etcetera.transfer.paths import link_problem, path_problem
from etcetera.transfer.stream import ByteStream
from etcetera.transfer.tar import Entry, header, read_members
from tests.forge import Forgery, inflate, line, member, stored
from tests.hostile import REFUSED
from tests.tars import BLOCK, END, POSIX, tgz
from tests.unusual import ACCEPTED

Target: TypeAlias = Callable[[bytes, Path], object]
"""Reads bytes; may use an empty directory."""


class Change(NamedTuple):
    """One change of some bytes."""

    place: int
    """Modulo their length."""
    remove: int
    insert: bytes


def change(data: bytes, changes: Iterable[Change]) -> bytes:
    """*data* with all *changes* made."""
    for one in changes:
        place = one.place % (len(data) + 1)
        data = data[:place] + one.insert + data[place + one.remove :]
    return data


def with_checksums(tar: bytes) -> bytes:
    """*tar* with the right checksum in all that looks like a header."""
    blocks = [tar[start : start + BLOCK] for start in range(0, len(tar), BLOCK)]
    for number, block in enumerate(blocks):
        if block[257:262] == POSIX[:5] and len(block) == BLOCK:
            blank = block[:148] + b" " * 8 + block[156:]
            blocks[number] = block[:148] + b"%06o\0 " % sum(blank) + block[156:]
    return b"".join(blocks)


def _tar(data: bytes, place: Path) -> None:
    size = 0
    with suppress(ArchiveError):
        for one in read_members(ByteStream([with_checksums(data)])):
            path, kind, length, mode, mtime, target, _ = one.entry
            assert path_problem(path) is None
            assert not {"", ".", ".."}.intersection(path.split("/"))
            assert kind != "l" or link_problem(path, target) is None
            assert mode & ~0o777 == 0 <= mtime < 8**11
            size += length
        assert size <= len(data)


def _gunzip(data: bytes, place: Path) -> None:
    with suppress(ArchiveError):
        assert b"".join(gunzip([data])) == gzip.decompress(data)


def _footer(data: bytes, place: Path) -> None:
    with suppress(CorruptArchive):
        parse_footer(data, len(data) + 10_000)


def _root(data: bytes, place: Path) -> None:
    footer = Footer(0, 0, len(data), hashlib.sha256(data).hexdigest(), "", 0, 0)
    with suppress(CorruptArchive):
        parse_root(stored(data[:65_535]), footer)
    offset = 10 + 5 + BLOCK
    with suppress(CorruptArchive):
        parse_root(stored(data[:65_535]), replace(footer, root_offset=offset))


def _segment(data: bytes, place: Path) -> None:
    try:
        value = json.loads(data)
        lengths, sizes = value["frames"]["length"], value["frames"]["size"]
        paths = sorted(value["entries"]["path"])
        counts = (len(lengths), len(paths), sum(lengths), sum(sizes))
    except (ValueError, LookupError, TypeError, RecursionError):
        paths, counts = [""], (1, 1, 1, 1)
    sums = zlib.crc32(data), hashlib.sha256(data).hexdigest()
    where = SegmentPlace(
        0, 0, len(data), *sums, counts[0], counts[1], 10, counts[2], 0, counts[3],
        paths[0] if paths else "", paths[-1] if paths else "",
    )  # fmt: skip
    with suppress(CorruptArchive):
        for one in parse(stored(data[:65_535]), where).members:
            assert path_problem(one.entry.path) is None
            assert one.header_size == len(header(one.entry))


def _kept(data: bytes, place: Path) -> None:
    (place / "index").write_bytes(data)
    with suppress(CorruptArchive), KeptIndex(place / "index") as index:
        list(index.entries())


def _journal(data: bytes, place: Path) -> None:
    (place / "frames").write_bytes(b"")
    (place / "checkpoint").write_bytes(data + hashlib.sha256(data).digest())
    with suppress(DamagedJournal):
        Journal(place, {}).load()


def _receipt(data: bytes, place: Path) -> None:
    (place / "set").mkdir(exist_ok=True)
    (place / "set" / "7.json").write_bytes(data)
    receipt = Receipts(place).read("set", 7)
    assert receipt is None or (receipt.name, receipt.inode) == ("set", 7)


def _owner(data: bytes, place: Path) -> None:
    claimed = place / "set.0123"
    claimed.mkdir(exist_ok=True)
    (claimed / "owner.json").write_bytes(data)
    (claimed / "resume.json").write_bytes(data)
    staging.sweep(place)


def _lock(data: bytes, place: Path) -> None:
    async def hold() -> None:
        async with locked(place / "set.lock"):
            pass

    (place / "set.lock").write_bytes(data)
    asyncio.run(hold())


def _config(data: bytes, place: Path) -> None:
    (place / "etc.toml").write_bytes(data)
    (place / "etc.toml").chmod(0o600)
    with suppress(ConfigError):
        repr(Config.load(place / "etc.toml").settings())


def _link(data: bytes, place: Path) -> None:
    with suppress(UsageError):
        parse_link(data.decode("utf-8", "replace"))


TARGETS: dict[str, Target] = {
    "tar": _tar, "gunzip": _gunzip, "footer": _footer, "root": _root, "segment": _segment,
    "kept-index": _kept, "journal": _journal, "receipt": _receipt, "owner": _owner, "lock": _lock,
    "config": _config, "link": _link,
}  # fmt: skip


@cache
def seeds(target: str) -> list[bytes]:
    """Bytes from which changes lead somewhere."""
    if target == "tar":
        bad = [pieces(b"/canary") for _, pieces in REFUSED.values()]
        all_ = [b"".join(pieces) + END for pieces in (*bad, *(one for one, _ in ACCEPTED.values()))]
        return [tar for tar in all_ if len(tar) < 20_000]
    if target == "gunzip":
        return [tgz(b"x" * 5_000), tgz(b"x") + tgz(b"y"), tgz(b"")]
    if target in ("footer", "root", "segment", "kept-index"):
        return [_index()[target]]
    return OTHERS[target]


@cache
def _index() -> dict[str, bytes]:
    entries = {
        "start": 0, "path": ["data", "data/f", "data/l"], "kind": "dfl", "size": [0, 3, 0],
        "mtime": [1, 2, 3], "header": [BLOCK] * 3, "sha256": [hashlib.sha256(b"abc").hexdigest()],
        "target": ["f"],
    }  # fmt: skip
    tar = (
        member(Entry("data", "d", 0, 0o755, 1))
        + member(Entry("data/f", "f", 3, 0o644, 2), b"abc")
        + member(Entry("data/l", "l", 0, 0o777, 3, "f"))
    )
    places = {name: [0] for name in ("length", "size", "crc32", "compressed_crc32")}
    segment = {"frames": places, "entries": entries}
    forgery = Forgery([b""], [b""], [segment], {"f": [1, 3]})
    forgery.set_frame(0, tar)
    data = forgery.build()
    footer = json.loads(data[-TAIL + 5 :][:BLOCK])
    offset, length, _ = footer["root"]
    start = 10 + len(forgery.frames[0])
    return {
        "footer": data[-TAIL:],
        "root": inflate(data[offset : offset + length]),
        "segment": line(segment),
        "kept-index": struct.pack("<Q", start) + data[start:],
    }


_RECEIPT = {
    "operation": "pull", "name": "set", "repository": "s3://b", "etag": "e", "digest": "sha256:0",
    "files": 1, "bytes": 1, "fingerprint": "f", "newest": 1, "inode": 7, "time": "t",
    "pulled": True, "selections": [{"partitions": ["train"]}],
}  # fmt: skip
_HEAD = {
    "etcetera-journal": 2, "began": "2026-01-01T00:00:00+00:00", "upload": "u", "parts": 1,
    "written": "2026-01-01T00:00:00+00:00", "facts": {"name": "set"}, "state": {}, "sent": 1,
    "frames": 0, "frames_length": 0, "frames_crc32": 0, "rest": 2, "tar": 1,
}  # fmt: skip
OTHERS = {
    "journal": [line(_HEAD) + line({"etag": "e"}) + b"xy"],
    "receipt": [line(_RECEIPT), b"[" * 100_000, b"9" * 5_000],
    "owner": [
        line({"host": "h", "pid": 1, "started": 5}),
        line({"released": True, "name": "set"}),
        line({"host": staging._host(), "pid": 1 << 70, "started": None}),
        b"[" * 100_000,
    ],
    "lock": [b"", b"1234\nhost\n", b"\xff" * 100],
    "config": [
        b'url = "s3://b/p"\nhome = "~/x"\nworkers = 3\npart_size = "8 MiB"\nlevel = "auto"\n'
        b'[repositories.lab]\nurl = "file:///x"\npublic = true\nprofile = "p"\n',
        b"workers = " + b"9" * 5_000,
        b"url = " + b"[" * 5_000 + b"]" * 5_000,
        b"a" + b".a" * 5_000 + b" = 1",
        b'home = "a\\u0000b"',
        b"workers = 1979-05-27T07:32:00Z\nlevel = inf\nthreads = nan\npart_size = -0x1",
        b'home = "' + b"h" * 5_000 + b'"',
    ],
    "link": [
        b"https://h/x.tgz?X-Amz-Signature=1#etcetera=1&name=set&partition=train&range=10-99"
        b"&size=512&crc32=7&etag=abc",
        b"http://[::1",
        b"https://h:99999/x.tgz",
        b"https://\xc2\xbd/x",
    ],
}
TOKENS = (
    b"", b"\0", b"\xff", b"\x80", b"[", b"{", b'"', b"..", b"../", b"/", b"-1", b"9" * 20, b"null",
    b"1e999", b"\\ud800", b"\n", b" ", b"=", bytes(BLOCK), b"ustar\x0000", b"ustar  \0", b"x", b"g",
    b"L", b"K", b"7", b"true", b"NaN", b"'''", b"#", b"%00", "\u2028".encode(),
)  # fmt: skip
"""What is worth inserting."""
