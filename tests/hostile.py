"""The catalogue of archives that must be refused: PL paths and links, and all of them."""

from etcetera.errors import ArchiveError, CorruptArchive, UnsafeArchive
from tests.hostile_framing import FRAMING, HIDDEN, D, F, Pieces, field, linked, named, special
from tests.tars import (
    GNU,
    base256,
    block,
    directory,
    file,
    gnu_long,
    hard_link,
    pax,
    symlink,
)

PATHS: dict[str, tuple[type[ArchiveError], Pieces]] = {
    **{
        f"PL-01-{name.decode()}": (UnsafeArchive, named(name))
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
        f"PL-03-{name.decode()}": (UnsafeArchive, named(name))
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
        f"PL-12-file-{name.decode() or 'empty'}": (ArchiveError, named(name))
        for name in (b"", b".", b"./", b"/", b"././", b".//")
    },
    **{
        f"PL-12-link-{name.decode() or 'empty'}": (
            ArchiveError,
            linked(name),
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
    "PL-18-file-dot": (CorruptArchive, named(F + b"/.")),
    "PL-18-link-slash": (CorruptArchive, lambda out: (symlink(F + b"/", b"x"),)),
    **{
        f"PL-22-{name}": (UnsafeArchive, special(flag))
        for name, flag in (("char", b"3"), ("block", b"4"), ("fifo", b"6"), ("contiguous", b"7"))
    },
    "PL-26-nan": (CorruptArchive, lambda out: (pax((b"mtime", b"nan")), file(F, b"x"))),
    "PL-26-inf": (CorruptArchive, lambda out: (pax((b"mtime", b"-inf")), file(F, b"x"))),
    "PL-26-exponent": (CorruptArchive, lambda out: (pax((b"mtime", b"1e9")), file(F, b"x"))),
    "PL-26-pax-huge": (CorruptArchive, lambda out: (pax((b"mtime", b"9" * 400)), file(F, b"x"))),
    "PL-26-2^63": (CorruptArchive, field(mtime=base256(1 << 63))),
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
    "PL-01-link-prefix": (
        UnsafeArchive,
        lambda out: (block(b"x", typeflag=b"2", link=b"data", prefix=b"a/.."),),
    ),
    "PL-01-mode-of-root": (UnsafeArchive, lambda out: (directory(b"data/..", mode=0o777),)),
    "PL-02-prefix": (UnsafeArchive, lambda out: (file(b"file", b"x", prefix=out),)),
    "PL-02-prefix-slash": (UnsafeArchive, lambda out: (file(b"file", b"x", prefix=b"/"),)),
    "PL-02-long": (UnsafeArchive, lambda out: (gnu_long(out + b"/file"), file(b"x", b"x"))),
    "PL-04-link-long-then-file": (
        UnsafeArchive,
        lambda out: (gnu_long(out, b"K"), symlink(D, b"f"), file(D + b"/file", b"x")),
    ),
    "PL-04-two-archives-in-one": (
        UnsafeArchive,
        lambda out: (symlink(D, b"../../.."), file(D + b"/canary/file", b"x")),
    ),
    "PL-05-through-two-links": (
        ArchiveError,
        lambda out: (
            symlink(b"data/a", b"train"), symlink(b"data/train/b", b".."),
            file(b"data/a/b/c", b"x"),
        ),
    ),
    "PL-05-up-through-a-link-up": (
        UnsafeArchive,
        lambda out: (symlink(b"data/train/s", b"../.."), symlink(b"data/train/e", b"s/..")),
    ),
    "PL-05-long-chain": (
        UnsafeArchive,
        lambda out: (
            *(symlink(b"data/%d" % n, b"./" * 10 + b"train") for n in range(20)),
            symlink(b"data/out", b"19/../../.."),
        ),
    ),
    "PL-09-then-write-through": (
        ArchiveError,
        lambda out: (symlink(F, b"g"), hard_link(b"data/train/h", F), file(F, b"x")),
    ),
    "PL-09-link-to-absolute-link": (
        UnsafeArchive,
        lambda out: (symlink(D, out + b"/file"), hard_link(F, D)),
    ),
    "PL-09-itself-long": (
        UnsafeArchive,
        lambda out: (gnu_long(F, b"K"), block(F, typeflag=b"1", link=b"x", magic=GNU)),
    ),
    "PL-09-absolute-pax": (
        UnsafeArchive,
        lambda out: (pax((b"linkpath", out + b"/file")), hard_link(F, b"x")),
    ),
    "PL-11-directory-through-link": (
        ArchiveError,
        lambda out: (symlink(D, b"../train"), directory(D + b"/sub", mode=0o777)),
    ),
    "PL-14-directory-then-link": (ArchiveError, lambda out: (directory(D), symlink(D, b"f"))),
    "PL-14-hard-link-then-child": (
        UnsafeArchive,
        lambda out: (file(F, b"x"), hard_link(D, F), file(D + b"/x", b"y")),
    ),
    "PL-14-directory-then-hard-link": (
        UnsafeArchive,
        lambda out: (file(F, b"x"), directory(D), hard_link(D, F)),
    ),
    "PL-15-hard-link-twice": (
        UnsafeArchive,
        lambda out: (
            file(F, b"x"), hard_link(D, F), hard_link(D, F),
        ),
    ),
}  # fmt: skip

REFUSED = FRAMING | PATHS
"""What follows the members of a good dataset, and the error that it must be."""
