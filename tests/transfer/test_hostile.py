"""Archives that nobody should trust, read from front to back.

The ids are those of the project's catalogue of cases: TF tar framing, PL paths and links, RX
resources, GZ the gzip layer.
"""

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

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
from tests.tars import (
    END,
    GNU,
    base256,
    block,
    chunked,
    dataset,
    directory,
    file,
    gnu_long,
    hard_link,
    pax,
    pax_data,
    record,
    symlink,
)

Pieces = Callable[[bytes], tuple[bytes, ...]]
"""Given the path of a directory outside, the members behind ``data/train/``."""

F = b"data/train/f"
D = b"data/train/d"
HIDDEN = file(b"data/train/hidden", b"never seen")


def _spoiled(head: bytes) -> bytes:
    """A header whose checksum no longer fits."""
    return head[:1] + b"X" + head[2:]


def _field(**fields: Any) -> Pieces:
    return lambda out: (block(F, **fields),)


def _pax_bytes(data: bytes) -> Pieces:
    return lambda out: (pax_data(data), file(F, b"x"))


def _named(name: bytes) -> Pieces:
    return lambda out: (file(name, b"x"),)


def _linked(name: bytes) -> Pieces:
    return lambda out: (symlink(name, b"data"),)


def _record(key: bytes, value: bytes, typeflag: bytes = b"x") -> Pieces:
    return lambda out: (pax((key, value), typeflag=typeflag), file(F, b"x"))


def _extension(typeflag: bytes) -> Pieces:
    return lambda out: (block(b"x", size=1 << 30, typeflag=typeflag), bytes(4_096))


def _special(typeflag: bytes) -> Pieces:
    return lambda out: (block(F, typeflag=typeflag),)


REFUSED: dict[str, tuple[type[ArchiveError], Pieces]] = {
    # --- Tar framing
    "TF-04-pax-then-gnu": (
        CorruptArchive,
        lambda out: (pax((b"path", F)), file(b"x"), gnu_long(D), file(b"y")),
    ),
    "TF-04-gnu-then-pax": (
        CorruptArchive,
        lambda out: (gnu_long(D), file(b"y"), pax((b"path", F)), file(b"x")),
    ),
    "TF-04-both-for-one": (
        CorruptArchive,
        lambda out: (gnu_long(D), pax((b"path", F)), file(b"x")),
    ),
    "TF-07-checksum-first": (CorruptArchive, lambda out: (_spoiled(file(F, b"x")), HIDDEN)),
    "TF-07-checksum-middle": (
        CorruptArchive,
        lambda out: (file(F, b"x"), _spoiled(file(D, b"y")), HIDDEN),
    ),
    "TF-07-checksum-last": (CorruptArchive, lambda out: (HIDDEN, _spoiled(file(F, b"x")))),
    "TF-07-checksum-blank": (CorruptArchive, _field(checksum=b" " * 8)),
    "TF-11-member-after-end": (CorruptArchive, lambda out: (file(F, b"x"), END, HIDDEN)),
    "TF-11-byte-after-end": (CorruptArchive, lambda out: (file(F, b"x"), END, b"x")),
    "TF-12-single-zero-block": (CorruptArchive, lambda out: (file(F, b"x"), bytes(512), HIDDEN)),
    "TF-13-slash-file": (CorruptArchive, lambda out: (file(F + b"/", b"x"),)),
    "TF-13-slash-file-old": (CorruptArchive, lambda out: (file(F + b"/", b"x", typeflag=b"\0"),)),
    "TF-13-slash-file-long": (
        CorruptArchive,
        lambda out: (gnu_long(F + b"/"), file(b"f", b"x", typeflag=b"\0")),
    ),
    "TF-13-empty-long-name": (CorruptArchive, lambda out: (gnu_long(b""), file(F, b"x"))),
    "TF-13-empty-long-link": (
        CorruptArchive,
        lambda out: (gnu_long(b"", b"K"), symlink(F, b"g")),
    ),
    "TF-14-negative-size": (CorruptArchive, _field(size=base256(-1))),
    "TF-14-size-2^63": (CorruptArchive, _field(size=base256(1 << 63))),
    "TF-14-size-2^87": (CorruptArchive, _field(size=base256((1 << 87) - 1))),
    "TF-14-base256-first-byte": (CorruptArchive, _field(size=b"\x81" + bytes(11))),
    "TF-14-pax-size-negative": (CorruptArchive, lambda out: (pax((b"size", b"-1")), file(F, b"x"))),
    "TF-14-pax-size-2^63": (
        CorruptArchive,
        lambda out: (pax((b"size", b"%d" % (1 << 63))), file(F, b"x")),
    ),
    "TF-15-8-EiB": (TruncatedArchive, _field(size=base256((1 << 63) - 1))),
    "TF-15-4-GiB": (TruncatedArchive, _field(size=base256(4 << 30))),
    "TF-15-1-MiB": (TruncatedArchive, _field(size=1 << 20)),
    "TF-16-not-octal": (CorruptArchive, _field(size=b"00000000008\0")),
    "TF-16-letters": (CorruptArchive, _field(size=b"0000000000x\0")),
    "TF-16-minus": (CorruptArchive, _field(size=b"-0000000001\0")),
    "TF-16-underscore": (CorruptArchive, _field(size=b"0000_000001\0")),
    "TF-16-no-terminator": (CorruptArchive, _field(size=b"000000000000")),
    "TF-16-after-terminator": (CorruptArchive, _field(size=b"00000001\0001 ")),
    "TF-16-blank-size": (CorruptArchive, _field(size=bytes(12))),
    "TF-16-mode": (CorruptArchive, _field(mode=b"rw-r--r-")),
    "TF-16-mtime": (CorruptArchive, _field(mtime=b"yesterday..\0")),
    "TF-17-length-0": (CorruptArchive, _pax_bytes(b"0 path=x\n")),
    "TF-17-too-long": (CorruptArchive, _pax_bytes(b"99 path=x\n")),
    "TF-17-too-short": (CorruptArchive, _pax_bytes(b"7 path=x\n")),
    "TF-17-no-newline": (CorruptArchive, _pax_bytes(b"9 path=x!")),
    "TF-17-no-equals": (CorruptArchive, _pax_bytes(b"9 path x\n")),
    "TF-17-no-length": (CorruptArchive, _pax_bytes(b" path=x\n")),
    "TF-17-20-digits": (CorruptArchive, _pax_bytes(b"00000000000000000028 path=x\n")),
    "TF-17-leading-zero": (CorruptArchive, _pax_bytes(b"010 path=x\n")),
    "TF-17-plus": (CorruptArchive, _pax_bytes(b"+10 path=x\n")),
    "TF-17-other-digits": (CorruptArchive, _pax_bytes("\u0669 path=x\n".encode())),
    "TF-17-NULs-behind": (CorruptArchive, _pax_bytes(record(b"path", F) + bytes(9))),
    "TF-17-only-digits": (CorruptArchive, _pax_bytes(b"9" * 512)),
    "TF-18-backtracking": (CorruptArchive, _pax_bytes(b"1 " * (1 << 19))),
    "TF-18-digits": (CorruptArchive, _pax_bytes(b"1" * (1 << 20))),
    "TF-20-two-paths": (
        CorruptArchive,
        lambda out: (pax((b"path", F), (b"path", D)), file(b"x")),
    ),
    **{
        f"TF-21-empty-{key.decode()}": (
            CorruptArchive,
            _record(key, b""),
        )
        for key in (b"path", b"linkpath", b"size", b"mtime")
    },
    "TF-22-two-pax": (
        CorruptArchive,
        lambda out: (pax((b"path", F)), pax((b"size", b"1")), file(b"x", b"x")),
    ),
    "TF-22-pax-then-global": (
        CorruptArchive,
        lambda out: (pax((b"path", F)), pax((b"comment", b"x"), typeflag=b"g"), file(b"x")),
    ),
    "TF-22-orphan-pax": (CorruptArchive, lambda out: (pax((b"path", F)),)),
    "TF-22-orphan-long-name": (CorruptArchive, lambda out: (gnu_long(F),)),
    "TF-22-two-long-names": (CorruptArchive, lambda out: (gnu_long(F), gnu_long(D), file(b"x"))),
    **{
        f"TF-23-global-{key.decode()}": (
            CorruptArchive,
            _record(key, b"1", b"g"),
        )
        for key in (b"path", b"linkpath", b"size", b"mtime", b"hdrcharset", b"GNU.sparse.major")
    },
    **{
        f"TF-25-{key.decode()}": (
            CorruptArchive,
            _record(key, b"1"),
        )
        for key in (b"GNU.sparse.major", b"GNU.sparse.name", b"GNU.sparse.map", b"GNU.sparse.size")
    },
    "TF-25-typeflag-S": (UnsafeArchive, _special(b"S")),
    "TF-27-binary": (
        CorruptArchive,
        lambda out: (pax((b"hdrcharset", b"BINARY"), (b"path", F)), file(b"x")),
    ),
    "TF-27-latin-1": (CorruptArchive, _named(b"data/train/caf\xe9")),
    "TF-27-latin-1-pax": (
        CorruptArchive,
        lambda out: (pax((b"path", b"data/train/caf\xe9")), file(b"x")),
    ),
    "TF-27-surrogate": (CorruptArchive, _named(b"data/train/\xed\xa0\x80")),
    "TF-27-overlong-slash": (CorruptArchive, _named(b"data/train/..\xc0\xafx")),
    "TF-28-directory-with-size": (
        CorruptArchive,
        lambda out: (block(D, typeflag=b"5", size=len(HIDDEN)), HIDDEN),
    ),
    "TF-28-symlink-with-size": (
        CorruptArchive,
        lambda out: (block(F, typeflag=b"2", link=b"g", size=len(HIDDEN)), HIDDEN),
    ),
    "TF-28-hard-link-with-size": (
        CorruptArchive,
        lambda out: (file(F, b"x"), block(D, typeflag=b"1", link=F, size=len(HIDDEN)), HIDDEN),
    ),
    "TF-28-fifo-with-size": (UnsafeArchive, _field(typeflag=b"6", size=512)),
    **{
        f"TF-29-typeflag-{flag.decode()}": (UnsafeArchive, _special(flag))
        for flag in (b"Z", b"V", b"M", b"D", b"7", b"N", b"X")
    },
    "TF-29-typeflag-high": (UnsafeArchive, _special(b"\xff")),
    "TF-30-v7": (CorruptArchive, _field(magic=bytes(8))),
    "TF-30-no-version": (CorruptArchive, _field(magic=b"ustar\0\0\0")),
    "TF-30-other-magic": (CorruptArchive, _field(magic=b"tarus\x0000")),
    # --- Paths and links
    **{
        f"PL-01-{name.decode()}": (UnsafeArchive, _named(name))
        for name in (
            b"../x", b"a/../../x", b"./../x", b"a/..", b"..", b"../canary/file",
            b"data/../meta.json",
            b"data/train/../../../canary/file", b".//../x",
        )
    },
    "PL-01-pax": (UnsafeArchive, lambda out: (pax((b"path", b"../canary/file")), file(b"x", b"x"))),
    "PL-01-gnu": (UnsafeArchive, lambda out: (gnu_long(b"../canary/file"), file(b"x", b"x"))),
    "PL-01-prefix": (UnsafeArchive, lambda out: (file(b"canary/file", b"x", prefix=b".."),)),
    "PL-01-directory": (UnsafeArchive, lambda out: (directory(b"../canary/"),)),
    "PL-01-directory-mode": (UnsafeArchive, lambda out: (directory(b"..", mode=0o777),)),
    "PL-02-absolute": (UnsafeArchive, lambda out: (file(out + b"/file", b"x"),)),
    "PL-02-two-slashes": (UnsafeArchive, lambda out: (file(b"/" + out + b"/file", b"x"),)),
    "PL-02-pax": (UnsafeArchive, lambda out: (pax((b"path", out + b"/file")), file(b"x", b"x"))),
    "PL-02-root": (UnsafeArchive, lambda out: (directory(b"/"),)),
    **{
        f"PL-03-{name.decode()}": (UnsafeArchive, _named(name))
        for name in (
            b"C:\\x", b"C:x", b"c:/x", b"\\\\srv\\s", b"a\\..\\..\\x", b"data/train/a\\b", b"./C:x",
        )
    },
    "PL-03-link": (UnsafeArchive, lambda out: (symlink(F, b"..\\..\\x"),)),
    "PL-04-through-absolute": (UnsafeArchive, lambda out: (symlink(D, out), file(D + b"/x", b"x"))),
    "PL-04-absolute-alone": (UnsafeArchive, lambda out: (symlink(D, out),)),
    "PL-04-escaping": (UnsafeArchive, lambda out: (symlink(D, b"../../../canary"),)),
    "PL-04-escaping-long": (
        UnsafeArchive,
        lambda out: (gnu_long(b"../../../canary", b"K"), symlink(D, b"f")),
    ),
    "PL-04-escaping-pax": (
        UnsafeArchive,
        lambda out: (pax((b"linkpath", b"../../../canary")), symlink(D, b"f")),
    ),
    "PL-04-empty-target": (UnsafeArchive, lambda out: (symlink(D, b""),)),
    "PL-04-NUL-target": (
        UnsafeArchive,
        lambda out: (pax((b"linkpath", b"f\0/../../x")), symlink(D, b"f")),
    ),
    "PL-05-up": (UnsafeArchive, lambda out: (symlink(b"d", b".."), file(b"d/x", b"x"))),
    "PL-05-inside": (
        ArchiveError,
        lambda out: (symlink(D, b".."), file(D + b"/x", b"x"), file(D + b"/d/x", b"x")),
    ),
    "PL-05-link-below-link": (
        ArchiveError,
        lambda out: (symlink(D, b".."), symlink(D + b"/x", b"../..")),
    ),
    "PL-05-name-then-up": (UnsafeArchive, lambda out: (symlink(D, b"e/../../../.."),)),
    "PL-05-two-steps": (
        UnsafeArchive,
        lambda out: (symlink(b"a", b"data/train"), symlink(b"b", b"a/../../.."), HIDDEN),
    ),
    "PL-09-absolute": (UnsafeArchive, lambda out: (hard_link(F, out + b"/file"),)),
    "PL-09-up": (UnsafeArchive, lambda out: (hard_link(F, b"../canary/file"),)),
    "PL-09-not-yet": (UnsafeArchive, lambda out: (hard_link(F, D), file(D, b"x"))),
    "PL-09-not-yet-deep": (UnsafeArchive, lambda out: (hard_link(F, b"no/such/x"), HIDDEN)),
    "PL-09-below-file": (UnsafeArchive, lambda out: (file(D), hard_link(F, D + b"/x"))),
    "PL-09-itself": (UnsafeArchive, lambda out: (hard_link(F, F),)),
    "PL-09-itself-later": (UnsafeArchive, lambda out: (file(F, b"x"), hard_link(F, b"./" + F))),
    "PL-09-directory": (UnsafeArchive, lambda out: (hard_link(F, b"data/train"),)),
    "PL-09-root": (UnsafeArchive, lambda out: (hard_link(F, b"./"),)),
    "PL-09-symlink": (UnsafeArchive, lambda out: (symlink(D, b"f"), hard_link(b"data/train/g", D))),
    "PL-09-through-symlink": (
        UnsafeArchive,
        lambda out: (symlink(b"s", b"data"), hard_link(F, b"s/train/g")),
    ),
    "PL-09-empty": (UnsafeArchive, lambda out: (hard_link(F, b""),)),
    "PL-09-index": (
        UnsafeArchive,
        lambda out: (file(b".etcetera-index.jsonl", b"x"), hard_link(F, b".etcetera-index.jsonl")),
    ),
    "PL-11-link-then-directory-dot": (
        ArchiveError,
        lambda out: (symlink(D, b"."), directory(D + b"/.", mode=0o777)),
    ),
    "PL-11-link-then-directory": (
        ArchiveError,
        lambda out: (symlink(D, b"../train"), directory(D, mode=0o777)),
    ),
    "PL-11-directory-then-link": (ArchiveError, lambda out: (directory(D), symlink(D, b"x"))),
    **{
        f"PL-12-file-{name.decode() or 'empty'}": (ArchiveError, _named(name))
        for name in (b"", b".", b"./", b"/", b"././", b".//")
    },
    **{
        f"PL-12-link-{name.decode() or 'empty'}": (
            ArchiveError,
            _linked(name),
        )
        for name in (b"", b".", b"./", b"/")
    },
    "PL-13-root-link": (ArchiveError, lambda out: (symlink(b".", out), file(b"x", b"x"))),
    "PL-13-root-hard-link": (
        ArchiveError,
        lambda out: (file(F, b"x"), hard_link(b".", F)),
    ),
    "PL-14-file-then-child": (UnsafeArchive, lambda out: (file(F), file(F + b"/x", b"x"))),
    "PL-14-file-then-directory": (UnsafeArchive, lambda out: (file(F), directory(F))),
    "PL-14-file-then-link-child": (ArchiveError, lambda out: (file(F), symlink(F + b"/x", b"y"))),
    "PL-14-directory-then-file": (UnsafeArchive, lambda out: (directory(D), file(D, b"x"))),
    "PL-14-child-then-file": (UnsafeArchive, lambda out: (file(D + b"/x"), file(D, b"x"))),
    "PL-14-link-then-child": (ArchiveError, lambda out: (symlink(F, b"g"), file(F + b"/x"))),
    "PL-15-same-file": (UnsafeArchive, lambda out: (file(F, b"x"), file(F, b"x"))),
    "PL-15-other-file": (UnsafeArchive, lambda out: (file(F, b"x"), file(F, b"yy"))),
    "PL-15-other-spelling": (UnsafeArchive, lambda out: (file(F), file(b"./data//train/./f"))),
    "PL-15-file-and-link": (ArchiveError, lambda out: (file(F), symlink(F, b"x"))),
    "PL-15-link-and-file": (ArchiveError, lambda out: (symlink(F, b"x"), file(F))),
    "PL-15-two-links": (ArchiveError, lambda out: (symlink(F, b"x"), symlink(F, b"x"))),
    "PL-15-hard-link": (UnsafeArchive, lambda out: (file(D), file(F), hard_link(F, D))),
    "PL-15-large": (UnsafeArchive, lambda out: (file(F, bytes(2 << 20)), file(F, bytes(2 << 20)))),
    "PL-18-file-dot": (CorruptArchive, _named(F + b"/.")),
    "PL-18-link-slash": (CorruptArchive, lambda out: (symlink(F + b"/", b"x"),)),
    **{
        f"PL-22-{name}": (UnsafeArchive, _special(flag))
        for name, flag in (("char", b"3"), ("block", b"4"), ("fifo", b"6"), ("contiguous", b"7"))
    },
    "PL-26-nan": (CorruptArchive, lambda out: (pax((b"mtime", b"nan")), file(F, b"x"))),
    "PL-26-inf": (CorruptArchive, lambda out: (pax((b"mtime", b"-inf")), file(F, b"x"))),
    "PL-26-exponent": (CorruptArchive, lambda out: (pax((b"mtime", b"1e9")), file(F, b"x"))),
    "PL-26-pax-huge": (CorruptArchive, lambda out: (pax((b"mtime", b"9" * 400)), file(F, b"x"))),
    "PL-26-2^63": (CorruptArchive, _field(mtime=base256(1 << 63))),
    "PL-30-256-bytes": (
        UnsafeArchive,
        lambda out: (pax((b"path", b"data/train/" + b"n" * 256)), file(b"x")),
    ),
    "PL-30-256-bytes-not-characters": (
        UnsafeArchive,
        lambda out: (pax((b"path", b"data/train/" + "é".encode() * 128)), file(b"x")),
    ),
    "PL-30-path-too-long": (
        UnsafeArchive,
        lambda out: (pax((b"path", b"data/train/" + b"d/" * 2_050 + b"f")), file(b"x")),
    ),
    "PL-30-link-too-long": (
        UnsafeArchive,
        lambda out: (pax((b"linkpath", b"d/" * 2_050 + b"f")), symlink(F, b"x")),
    ),
    "PL-31-NUL": (
        UnsafeArchive,
        lambda out: (pax((b"path", b"data/train/x\0y")), file(b"x")),
    ),
    "PL-31-NUL-long": (UnsafeArchive, lambda out: (gnu_long(b"data/train/x\0y"), file(b"x"))),
    "index-below": (UnsafeArchive, lambda out: (file(b".etcetera-index.jsonl/x", b"x"),)),
    # --- Resources
    **{
        f"RX-04-{flag.decode()}-of-1-GiB": (
            CorruptArchive,
            _extension(flag),
        )
        for flag in (b"x", b"g", b"L", b"K")
    },
    "RX-04-pax-over-the-limit": (CorruptArchive, _pax_bytes(record(b"comment", b"c" * (1 << 20)))),
    "RX-05-nested": (CorruptArchive, lambda out: (pax((b"comment", b"x")) * 2_000,)),
}  # fmt: skip
"""What follows the members of a good dataset, and the error that it must be."""


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


@pytest.mark.parametrize("case", REFUSED)
async def test_refused_by_pull(case: str, outside: Path) -> None:
    """The pull itself raises the one error, not a group, and harms nothing."""
    error, pieces = REFUSED[case]
    with pytest.raises(error):
        await pull_from(dataset(*pieces(bytes(outside))), outside.parent / "target")


LONG = "data/train/" + "/".join(["n" * 255] * 10)
DEEP = "data/train/" + "d/" * 2_000 + "f"
GOOD: dict[str, tuple[tuple[bytes, ...], trees.Tree]] = {
    "TF-01-pax-size": (
        (pax((b"size", b"%d" % len(HIDDEN))), block(F), HIDDEN),
        {"data/train/f": trees.file(HIDDEN)},
    ),
    "TF-02-pax-size-wins": (
        (pax((b"size", b"%d" % len(HIDDEN))), block(F, size=7), HIDDEN),
        {"data/train/f": trees.file(HIDDEN)},
    ),
    "TF-02-pax-size-smaller": (
        (pax((b"size", b"3")), block(F, size=1_000), b"abc".ljust(512, b"\0")),
        {"data/train/f": trees.file(b"abc")},
    ),
    "TF-05-gnu": (
        (
            gnu_long(b"data/train/" + b"g" * 120),
            file(b"data/train/" + b"g" * 89, b"x", magic=GNU),
            gnu_long(b"../" + b"t" * 100, b"K"), gnu_long(b"data/train/" + b"h" * 120),
            block(b"data/train/h", typeflag=b"2", link=b"../ttt", magic=GNU),
            file(F, b"abc", size=base256(3), magic=GNU),
        ),
        {
            "data/train/" + "g" * 120: trees.file(b"x"),
            "data/train/" + "h" * 120: trees.link("../" + "t" * 100),
            "data/train/f": trees.file(b"abc"),
        },
    ),
    "TF-11-zeros-after-end": (
        (file(F, b"x"), END, bytes(9_999)),
        {"data/train/f": trees.file(b"x")},
    ),
    "TF-16-spaces": (
        (file(F, b"x", size=b"          1 ", mode=b"   644 \0"),),
        {"data/train/f": trees.file(b"x")},
    ),
    "TF-16-blank-mode": ((file(F, b"x", mode=bytes(8)),), {"data/train/f": trees.file(b"x")}),
    "TF-23-git-archive": (
        (pax((b"comment", b"5e" * 20), typeflag=b"g"), file(F, b"x")),
        {"data/train/f": trees.file(b"x")},
    ),
    "TF-24-vendors": (
        (
            pax(
                (b"SCHILY.xattr.user.mime", b"\xff\0\xfe"), (b"LIBARCHIVE.creationtime", b"1"),
                (b"uname", b"root"), (b"atime", b"1.5"), (b"charset", b"x"),
            ),
            file(F, b"x"),
        ),
        {"data/train/f": trees.file(b"x")},
    ),
    "TF-26-digits": ((pax((b"path", b"12345")), file(b"x", b"y")), {"12345": trees.file(b"y")}),
    "TF-34-blocking-factor": (
        (file(F, b"x"), bytes(10_240 - 4 * 512)),
        {"data/train/f": trees.file(b"x")},
    ),
    "PL-10-hard-link": (
        (file(F, b"same"), hard_link(b"data/train/g", F), hard_link(b"new/h", b"./data/train/g")),
        {
            "data/train/f": trees.file(b"same"), "data/train/g": trees.file(b"same"),
            "new/h": trees.file(b"same"),
        },
    ),
    "PL-12-root": (
        (directory(b"./"), directory(b"."), file(b"./x", b"y")),
        {"x": trees.file(b"y")},
    ),
    "PL-15-directory-twice": (
        (directory(D), directory(D + b"/")),
        {"data/train/d": trees.directory()},
    ),
    "PL-18-spellings": (
        (file(b"./data/train//a/./b", b"x"), directory(b"data/train/c/.")),
        {"data/train/a/b": trees.file(b"x"), "data/train/c": trees.directory()},
    ),
    "PL-19-link-inside": (
        (symlink(b"data/test/x", b"../train/x"), symlink(b"y", b"./data//train/")),
        {"data/test/x": trees.link("../train/x"), "y": trees.link("./data//train/")},
    ),
    "PL-20-dangling": ((symlink(F, b"nowhere"),), {"data/train/f": trees.link("nowhere")}),
    "PL-21-loop": (
        (symlink(b"a", b"b"), symlink(b"b", b"a"), symlink(b"c", b"c")),
        {"a": trees.link("b"), "b": trees.link("a"), "c": trees.link("c")},
    ),
    "PL-26-negative": (
        (file(F, b"x", mtime=base256(-5)), pax((b"mtime", b"-1.5")), file(D, b"y")),
        {"data/train/f": trees.file(b"x", mtime=0), "data/train/d": trees.file(b"y", mtime=0)},
    ),
    "PL-26-fraction": (
        (pax((b"mtime", b"1234567890.999999999")), file(F, b"x")),
        {"data/train/f": trees.file(b"x", mtime=1_234_567_890)},
    ),
    "PL-26-far-future": (
        (pax((b"mtime", b"9" * 18)), file(F, b"x")),
        {"data/train/f": trees.file(b"x", mtime=8**11 - 1)},
    ),
    "PL-30-255-bytes": (
        (pax((b"path", LONG.encode())), file(b"x", b"y")),
        {LONG: trees.file(b"y")},
    ),
    "PL-31-control-characters": (
        (file(b"data/train/\x1b[31m\n\r\t\x7f", b"x"), file("data/train/\u202egpj".encode(), b"y")),
        {
            "data/train/\x1b[31m\n\r\t\x7f": trees.file(b"x"),
            "data/train/\u202egpj": trees.file(b"y"),
        },
    ),
    "RX-06-gzip-in-gzip": (
        (file(F, gzip.compress(b"inner", mtime=0)),),
        {"data/train/f": trees.file(gzip.compress(b"inner", mtime=0))},
    ),
    "index-of-a-tool": (
        (file(b".etcetera-index.jsonl", b"{}"), file(F, b"x")),
        {"data/train/f": trees.file(b"x")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 511, 513, 1 << 20])
@pytest.mark.parametrize("case", GOOD)
def test_accepted(case: str, size: int, outside: Path) -> None:
    """What is unusual but clear gives exactly its tree."""
    pieces, expected = GOOD[case]
    unpack(chunked(dataset(*pieces), size), outside.parent / "target")
    base = {"data/train": trees.directory(), "data": trees.directory()}
    tree = trees.read(outside.parent / "target")
    assert trees.contents(tree) == trees.contents(trees.complete(base | expected))
    for path, node in expected.items():
        assert tree[path].mtime == node.mtime


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
