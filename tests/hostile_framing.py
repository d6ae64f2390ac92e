"""The catalogue of archives that must be refused: how a tar stream is framed, and resources.

The ids are those of the project's catalogue of cases: TF tar framing, RX resources. Everything is
made here, block by block.
"""

from collections.abc import Callable
from typing import Any

from etcetera.errors import ArchiveError, CorruptArchive, TruncatedArchive, UnsafeArchive
from tests.tars import (
    BLOCK,
    END,
    GNU,
    base256,
    block,
    directory,
    file,
    gnu_long,
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


def _replaced(member: bytes, position: int, value: bytes) -> bytes:
    """A member with something else in its header, whose checksum fits."""
    head = member[:position] + value + member[position + len(value) : BLOCK]
    blank = head[:148] + b" " * 8 + head[156:]
    return head[:148] + b"%06o\0 " % sum(blank) + head[156:] + member[BLOCK:]


def field(**fields: Any) -> Pieces:
    """One member with this field."""
    return lambda out: (block(F, **fields),)


def _pax_bytes(data: bytes) -> Pieces:
    return lambda out: (pax_data(data), file(F, b"x"))


def named(name: bytes) -> Pieces:
    """A file of this name."""
    return lambda out: (file(name, b"x"),)


def linked(name: bytes) -> Pieces:
    """A link of this name."""
    return lambda out: (symlink(name, b"data"),)


def _record(key: bytes, value: bytes, typeflag: bytes = b"x") -> Pieces:
    return lambda out: (pax((key, value), typeflag=typeflag), file(F, b"x"))


def _extension(typeflag: bytes) -> Pieces:
    return lambda out: (block(b"x", size=1 << 30, typeflag=typeflag), bytes(4_096))


def special(typeflag: bytes) -> Pieces:
    """A member of this type."""
    return lambda out: (block(F, typeflag=typeflag),)


FRAMING: dict[str, tuple[type[ArchiveError], Pieces]] = {
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
    "TF-07-checksum-blank": (CorruptArchive, field(checksum=b" " * 8)),
    "TF-11-member-after-end": (CorruptArchive, lambda out: (file(F, b"x"), END, HIDDEN)),
    "TF-11-byte-after-end": (CorruptArchive, lambda out: (file(F, b"x"), END, b"x")),
    "TF-12-single-zero-block": (CorruptArchive, lambda out: (file(F, b"x"), bytes(512), HIDDEN)),
    "TF-12-single-zero-block-then-one": (
        CorruptArchive,
        lambda out: (file(F, b"x"), bytes(512), directory(D)),
    ),
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
    "TF-14-negative-size": (CorruptArchive, field(size=base256(-1))),
    "TF-14-size-2^63": (CorruptArchive, field(size=base256(1 << 63))),
    "TF-14-size-2^87": (CorruptArchive, field(size=base256((1 << 87) - 1))),
    "TF-14-base256-first-byte": (CorruptArchive, field(size=b"\x81" + bytes(11))),
    "TF-14-base256-first-byte-of-mode": (CorruptArchive, field(mode=b"\x81" + bytes(7))),
    "TF-14-pax-size-negative": (CorruptArchive, lambda out: (pax((b"size", b"-1")), file(F, b"x"))),
    "TF-14-pax-size-2^63": (
        CorruptArchive,
        lambda out: (pax((b"size", b"%d" % (1 << 63))), file(F, b"x")),
    ),
    "TF-15-8-EiB": (TruncatedArchive, field(size=base256((1 << 63) - 1))),
    "TF-15-4-GiB": (TruncatedArchive, field(size=base256(4 << 30))),
    "TF-15-1-MiB": (TruncatedArchive, field(size=1 << 20)),
    "TF-16-not-octal": (CorruptArchive, field(size=b"00000000008\0")),
    "TF-16-letters": (CorruptArchive, field(size=b"0000000000x\0")),
    "TF-16-minus": (CorruptArchive, field(size=b"-0000000001\0")),
    "TF-16-underscore": (CorruptArchive, field(size=b"0000_000001\0")),
    "TF-16-no-terminator": (CorruptArchive, field(size=b"000000000000")),
    "TF-16-after-terminator": (CorruptArchive, field(size=b"00000001\0001 ")),
    "TF-16-blank-size": (CorruptArchive, field(size=bytes(12))),
    "TF-16-mode": (CorruptArchive, field(mode=b"rw-r--r-")),
    "TF-16-mtime": (CorruptArchive, field(mtime=b"yesterday..\0")),
    "TF-17-length-0": (CorruptArchive, _pax_bytes(b"0 path=x\n")),
    "TF-17-too-long": (CorruptArchive, _pax_bytes(b"99 path=x\n")),
    "TF-17-too-short": (CorruptArchive, _pax_bytes(b"7 path=x\n")),
    "TF-17-no-newline": (CorruptArchive, _pax_bytes(b"9 path=x!")),
    "TF-17-no-equals": (CorruptArchive, _pax_bytes(b"9 path x\n")),
    "TF-17-no-length": (CorruptArchive, _pax_bytes(b" path=x\n")),
    "TF-17-20-digits": (CorruptArchive, _pax_bytes(b"00000000000000000028 path=x\n")),
    "TF-17-leading-zero": (CorruptArchive, _pax_bytes(b"011 path=x\n")),
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
    "TF-25-typeflag-S": (UnsafeArchive, special(b"S")),
    "TF-27-binary": (
        CorruptArchive,
        lambda out: (pax((b"hdrcharset", b"BINARY"), (b"path", F)), file(b"x")),
    ),
    "TF-27-latin-1": (CorruptArchive, named(b"data/train/caf\xe9")),
    "TF-27-latin-1-pax": (
        CorruptArchive,
        lambda out: (pax((b"path", b"data/train/caf\xe9")), file(b"x")),
    ),
    "TF-27-surrogate": (CorruptArchive, named(b"data/train/\xed\xa0\x80")),
    "TF-27-overlong-slash": (CorruptArchive, named(b"data/train/..\xc0\xafx")),
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
    "TF-28-fifo-with-size": (UnsafeArchive, field(typeflag=b"6", size=512)),
    **{
        f"TF-29-typeflag-{flag.decode()}": (UnsafeArchive, special(flag))
        for flag in (b"Z", b"V", b"M", b"D", b"7", b"N", b"X")
    },
    "TF-29-typeflag-with-target": (UnsafeArchive, field(typeflag=b"Z", link=b"g")),
    "TF-29-typeflag-high": (UnsafeArchive, special(b"\xff")),
    "TF-30-v7": (CorruptArchive, field(magic=bytes(8))),
    "TF-30-no-version": (CorruptArchive, field(magic=b"ustar\0\0\0")),
    "TF-30-other-magic": (CorruptArchive, field(magic=b"tarus\x0000")),
    "TF-13-slash-file-pax": (
        CorruptArchive,
        lambda out: (pax((b"path", F + b"/")), file(b"f", b"x")),
    ),
    "TF-14-negative-size-long-name": (
        CorruptArchive,
        lambda out: (block(b"././@LongLink", size=base256(-512), typeflag=b"L", magic=GNU),),
    ),
    "TF-14-negative-size-pax": (CorruptArchive, field(size=base256(-512), typeflag=b"x")),
    "TF-14-sum-overflows": (
        TruncatedArchive,
        lambda out: (file(F, b"x"), block(D, size=base256((1 << 63) - 1)), HIDDEN),
    ),
    **{
        f"TF-14-pax-size-{value.decode()}": (CorruptArchive, _record(b"size", value))
        for value in (
            b"9" * 19, b"1_0", b"+1", b" 1", b"1 ", b"0x1", b"1.0", b"1\0", "\u0661".encode(),
            b"1e1", b"9" * 5_000,
        )
    },
    **{
        f"TF-16-{name}": (CorruptArchive, field(size=raw))
        for name, raw in {
            "NUL-first": b"\x000000000001\0", "two-numbers": b"0001 0000001",
            "tab": b"\t0000000001\0", "hexadecimal": b"0x000000001\0", "plus": b"+0000000001\0",
        }.items()
    },
    "TF-16-checksum-letters": (CorruptArchive, field(checksum=b"checksum")),
    "TF-16-owner": (CorruptArchive, lambda out: (_replaced(file(F), 108, b"root\0\0\0\0"), HIDDEN)),
    "TF-16-group": (CorruptArchive, lambda out: (_replaced(file(F), 116, b"00000x0\0"), HIDDEN)),
    "TF-16-device": (CorruptArchive, lambda out: (_replaced(file(F), 329, b"00000090"), HIDDEN)),
    "TF-17-NUL-in-key": (CorruptArchive, _record(b"path\0x", b"data/train/other")),
    "TF-17-blank-before-key": (CorruptArchive, _pax_bytes(b"28  path=data/train/outside\n")),
    "TF-17-tab-before-key": (CorruptArchive, _record(b"\tpath", b"data/train/outside")),
    **{
        f"TF-17-{key.decode()}-no-number": (CorruptArchive, _record(key, b"x"))
        for key in (b"uid", b"gid", b"atime", b"ctime")
    },
    "TF-17-empty-key": (CorruptArchive, _record(b"", b"x")),
    "TF-17-key-not-UTF-8": (CorruptArchive, _record(b"pa\xff", b"x")),
    "TF-17-length-over-the-next": (
        CorruptArchive,
        _pax_bytes(b"30 path=data/train/other\n12 size=5000\n"),
    ),
    "TF-20-two-sizes": (
        CorruptArchive,
        lambda out: (pax((b"size", b"1"), (b"size", b"600")), file(F, b"x")),
    ),
    "TF-20-two-comments": (
        CorruptArchive,
        lambda out: (pax((b"comment", b"a"), (b"comment", b"b")), file(F, b"x")),
    ),
    "TF-22-global-after-long-name": (
        CorruptArchive,
        lambda out: (gnu_long(F), pax((b"comment", b"x"), typeflag=b"g"), file(b"x")),
    ),
    "TF-22-pax-then-truncation": (
        CorruptArchive,
        lambda out: (pax((b"path", F)), END, file(b"x")),
    ),
    "TF-22-two-long-links": (
        CorruptArchive,
        lambda out: (gnu_long(b"a", b"K"), gnu_long(b"b", b"K"), symlink(F, b"x")),
    ),
    "TF-25-typeflag-S-gnu": (UnsafeArchive, field(typeflag=b"S", magic=GNU)),
    "TF-25-sparse-in-header": (
        CorruptArchive,
        field(typeflag=b"0", magic=GNU, prefix=bytes(41) + b"00000000001\0" + bytes(100)),
    ),
    "TF-28-directory-with-pax-size": (
        CorruptArchive,
        lambda out: (pax((b"size", b"%d" % len(HIDDEN))), directory(D), HIDDEN),
    ),
    "TF-28-link-with-pax-size": (
        CorruptArchive,
        lambda out: (pax((b"size", b"%d" % len(HIDDEN))), symlink(F, b"x"), HIDDEN),
    ),
    "TF-28-file-with-target": (CorruptArchive, field(link=b"../../../canary")),
    "TF-30-xstar": (
        CorruptArchive,
        lambda out: (
            _replaced(
                file(b"f", prefix=b"d" * 131 + b"00000000000 00000000000"), 508, b"tar\0"
            ),
        ),
    ),
    "TF-30-padding": (CorruptArchive, lambda out: (_replaced(file(F), 500, b"x"), HIDDEN)),
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
