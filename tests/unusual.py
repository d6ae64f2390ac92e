"""The catalogue of archives that are unusual but clear, each with the tree that it must give."""

import gzip

from tests import trees
from tests.hostile_framing import HIDDEN, D, F
from tests.tars import END, GNU, base256, block, directory, file, gnu_long, hard_link, pax, symlink

LONG = "data/train/" + "/".join(["n" * 255] * 10)
DEEP = "data/train/" + "d/" * 2_000 + "f"
ACCEPTED: dict[str, tuple[tuple[bytes, ...], trees.Tree]] = {
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
