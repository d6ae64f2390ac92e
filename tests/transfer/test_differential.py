"""What GNU tar, bsdtar and Python's tarfile make of the same archives.

Where one of them sees another tree than we do, or refuses, we either refuse or say why not.
"""

import gzip
import io
import subprocess
import tarfile
from pathlib import Path
from typing import TypeAlias

import pytest

from etcetera.errors import ArchiveError
from tests import trees
from tests.archives import unpack
from tests.hostile_framing import HIDDEN, D, F
from tests.tars import (
    BLOCK,
    END,
    GNU,
    POSIX,
    base256,
    block,
    directory,
    file,
    gnu_long,
    hard_link,
    pad,
    pax,
    pax_data,
    record,
    symlink,
)  # fmt: skip
from tests.unusual import ACCEPTED

Seen: TypeAlias = "dict[str, tuple[str, bytes, str]] | None"
"""The tree that somebody sees, ``None`` if it is refused."""

TOOLS = {
    "tar": (
        "tar",
        "--warning=no-unknown-keyword",
        "--warning=no-timestamp",
        "--no-same-owner",
        "-xf",
        "-",
        "-C",
    ),
    "bsdtar": ("bsdtar", "--no-same-owner", "-xf", "-", "-C"),
}


def ours(tar: bytes, place: Path) -> Seen:
    """What we see."""
    try:
        unpack([gzip.compress(tar, 1)], place)
    except ArchiveError:
        return None
    return trees.contents(trees.read(place))


def tool(name: str, tar: bytes, place: Path) -> Seen:
    """What a tool sees, which must not warn."""
    place.mkdir()
    done = subprocess.run([*TOOLS[name], place], input=tar, capture_output=True, check=False)
    if done.returncode or done.stderr:
        return None
    return trees.contents(trees.read(place))


def python(tar: bytes, place: Path) -> Seen:
    """What ``tarfile`` sees."""
    place.mkdir()
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            archive.extractall(place, filter="data")
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return None
    return trees.contents(trees.read(place))


def sweep() -> dict[str, tuple[bytes, ...]]:
    """Archives that differ from a plain one in one respect each, whether or not they are good."""
    made: dict[str, tuple[bytes, ...]] = {}
    for place, width, what in ((100, 8, "mode"), (108, 8, "user"), (116, 8, "group"),
                               (124, 12, "size"), (136, 12, "mtime"), (329, 8, "major"),
                               (337, 8, "minor"), (500, 12, "padding")):  # fmt: skip
        for name, value in _values(width).items():
            made[f"{what}-{name}"] = (changed(file(F, b"x"), place, value), HIDDEN)
    for flag in range(256):
        made[f"typeflag-{flag}"] = (block(F, typeflag=bytes([flag])), HIDDEN)
    for key in (b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"uname", b"charset",
                b"hdrcharset", b"comment", b"atime", b"SCHILY.dev", b"SCHILY.filetype",
                b"GNU.sparse.name", b"LIBARCHIVE.symlinktype", b"PATH", b" path"):  # fmt: skip
        for number, text in enumerate((b"1", b"data/train/1", b"-1", b"1.5", b"x", b"a=b", b"\0")):
            made[f"pax-{key.decode()}-{number}"] = (pax((key, text)), file(F, b"x"), HIDDEN)
    for magic in (POSIX, GNU, b"ustar\x0000"[:6] + b"  ", b"ustar  0", b"ustar\x0001", bytes(8)):
        for prefix in (b"", b"data/p", b"\0data", b"d" * 155):
            made[f"magic-{magic!r}-{prefix[:6]!r}"] = (
                file(b"train/f", b"x", magic=magic, prefix=prefix), HIDDEN,
            )  # fmt: skip
    return made


def _values(width: int) -> dict[str, bytes]:
    return {
        "NULs": bytes(width),
        "blanks": b" " * width,
        "digits": b"1".rjust(width, b"0"),
        "blank-behind": b"1 ".rjust(width, b"0"),
        "blanks-before": b"1\0".rjust(width),
        "NUL-first": b"\0" + b"1\0".rjust(width - 1, b"0"),
        "NUL-inside": b"1\0" + b"7\0".rjust(width - 2, b"0"),
        "nine": b"9\0".rjust(width, b"0"),
        "minus": b"-" + b"1\0".rjust(width - 1, b"0"),
        "letters": b"abcdefghijkl"[:width],
        "base256": base256(1, width),
        "base256-negative": base256(-1, width),
        "base256-first": b"\x81" + bytes(width - 2) + b"\1",
    }


def changed(member: bytes, place: int, value: bytes) -> bytes:
    """A member with another value in its header, whose checksum fits."""
    head = member[:place] + value + member[place + len(value) : BLOCK]
    blank = head[:148] + b" " * 8 + head[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:] + member[BLOCK:]


OTHERS: dict[str, tuple[bytes, ...]] = {
    "pax-empty": (pax_data(b""), file(F, b"x")),
    "pax-equals-in-path": (pax((b"path", b"data/train/a=b")), file(b"x")),
    "pax-newline-in-path": (pax((b"path", b"data/train/a\n9 path=b")), file(b"x")),
    "pax-size-of-pax": (pax((b"size", b"512")), file(F, b"x" * 512)),
    "pax-size-0": (pax((b"size", b"0")), block(F, size=512), HIDDEN),
    "pax-size-0-of-directory": (pax((b"size", b"0")), block(D, typeflag=b"5", size=512), HIDDEN),
    "pax-size-of-link": (pax((b"size", b"0")), symlink(F, b"g"), HIDDEN),
    "pax-linkpath-of-file": (pax((b"linkpath", b"g")), file(F, b"x")),
    "pax-padding": (block(b"x", size=9, typeflag=b"x") + record(b"a", b"bcd").ljust(BLOCK, b"x"),
                    file(F, b"x")),
    "pax-global-then-pax": (pax((b"comment", b"x"), typeflag=b"g"), pax((b"path", F)), file(b"x")),
    "pax-global-twice": (pax((b"comment", b"x"), typeflag=b"g") * 2, file(F, b"x")),
    "pax-global-last": (file(F, b"x"), pax((b"comment", b"x"), typeflag=b"g")),
    "pax-directory-without-slash": (pax((b"path", D)), directory(b"x")),
    "pax-directory-with-slash": (pax((b"path", D + b"/")), directory(b"x")),
    "long-without-NUL": (block(b"l", size=len(F), typeflag=b"L", magic=GNU) + pad(F), file(b"x")),
    "long-NULs-behind": (block(b"l", size=99, typeflag=b"L", magic=GNU) + pad(F.ljust(99, b"\0")),
                         file(b"x", magic=GNU)),
    "long-in-posix": (gnu_long(F).replace(GNU, POSIX), file(b"x")),
    "long-and-link": (gnu_long(b"g", b"K"), gnu_long(F), symlink(b"x", b"y")),
    "long-link-of-file": (gnu_long(b"g", b"K"), file(F, b"x")),
    "long-link-first-name-then": (gnu_long(F), gnu_long(b"g", b"K"), symlink(b"x", b"y")),
    "old-file-with-slash": (file(D + b"/", typeflag=b"\0"), HIDDEN),
    "name-of-100": (file(b"data/train/".ljust(100, b"n"), b"x"),),
    "name-NUL-inside": (file(F + b"\0/../x", b"x"),),
    "link-of-100": (symlink(F, b"n" * 100),),
    "prefix-slash": (file(b"f", b"x", prefix=b"data/train/"),),
    "padding-of-content": (block(F, size=1) + b"x" * BLOCK, HIDDEN),
    "size-0-hard-link": (file(F, b"x"), hard_link(D, F)),
    "hard-link-with-content": (file(F, b"x"), block(D, typeflag=b"1", link=F, size=512), HIDDEN),
    "case": (file(b"data/train/A", b"x"), file(b"data/train/a", b"y")),
    "composed": (file("data/train/é".encode(), b"x"), file("data/train/e\u0301".encode(), b"y")),
    "nothing": (),
}  # fmt: skip

ARCHIVES = {name: pieces for name, (pieces, _) in ACCEPTED.items() if "TF-11" not in name} | OTHERS
LISTED: dict[str, dict[str, str]] = {
    "index-of-a-tool": dict.fromkeys(
        ("tar", "bsdtar", "tarfile"), "the index of an older archive is no part of the dataset"
    ),
    "pax-global-last": {
        "tarfile": "wants a member behind a global header, which git does not write for no files"
    },
    **{
        key: {"tar": "unpacks the same, but calls blanks an error, which old writers leave"}
        for key in ("mode-blanks", "user-blanks", "group-blanks", "mtime-blanks")
    },
    **{
        key: {"tar": "unpacks the same, but knows no negative owners; owners are not used"}
        for key in ("user-base256-negative", "group-base256-negative")
    },
}
"""Archives that we accept, and who does not see the same in them: why."""


def differing(pieces: tuple[bytes, ...], place: Path) -> set[str] | None:
    """Who sees the archive otherwise than we do; ``None`` if we refuse it."""
    tar = b"".join((directory(b"data/"), directory(b"data/train/"), *pieces, END))
    seen = ours(tar, place / "ours")
    if seen is None:
        return None
    others = {tool_: tool(tool_, tar, place / tool_) for tool_ in TOOLS}
    others["tarfile"] = python(tar, place / "tarfile")
    return {other for other, tree in others.items() if tree != seen}


@pytest.mark.parametrize("name", ARCHIVES)
def test_differences(name: str, tmp_path: Path) -> None:
    """TF-33: whoever reads what we accept reads the same, or it is said here why not."""
    assert (differing(ARCHIVES[name], tmp_path) or set()) == set(LISTED.get(name, {}))
