"""Directory trees: written from a description, and looked at as a whole."""

import os
import random
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from etcetera.transfer.pack import FRAME_MAX


@dataclass(frozen=True, slots=True)
class Node:
    """What lies at one path."""

    kind: str
    """``f`` a file, ``d`` a directory, ``l`` a symbolic link."""
    content: bytes = b""
    target: str = ""
    executable: bool = False
    mtime: int = 1_000_000_000


Tree: TypeAlias = dict[str, Node]


def file(content: bytes = b"", **properties: int) -> Node:
    """A file."""
    return Node("f", content, "", bool(properties.get("executable")),
                properties.get("mtime", 1_000_000_000))  # fmt: skip


def link(target: str, mtime: int = 1_000_000_000) -> Node:
    """A symbolic link."""
    return Node("l", target=target, mtime=mtime)


def directory(mtime: int = 1_000_000_000) -> Node:
    """A directory."""
    return Node("d", executable=True, mtime=mtime)


def complete(tree: Mapping[str, Node]) -> Tree:
    """*tree* with the directories that its paths imply, parents first."""
    result: Tree = {}
    for path in sorted(tree):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            result.setdefault("/".join(parts[:depth]), directory())
        result[path] = tree[path]
    return result


def write(root: Path, tree: Mapping[str, Node]) -> Path:
    """Make *tree*, with the directories it implies, below *root*; return *root*."""
    nodes = complete(tree)
    root.mkdir(parents=True, exist_ok=True)
    for path, node in nodes.items():
        place = root / path
        if node.kind == "d":
            place.mkdir()
        elif node.kind == "l":
            place.symlink_to(node.target)
        else:
            place.write_bytes(node.content)
            place.chmod(0o755 if node.executable else 0o644)
    for path in sorted(nodes, reverse=True):
        time = nodes[path].mtime * 1_000_000_000
        os.utime(root / path, ns=(time, time), follow_symlinks=False)
    return root


def read(root: Path) -> Tree:
    """Everything below *root* that an archive keeps."""
    tree: Tree = {}
    for place in sorted(root.rglob("*")):
        status = place.lstat()
        mtime = int(status.st_mtime_ns // 1_000_000_000)
        path = place.relative_to(root).as_posix()
        if stat.S_ISLNK(status.st_mode):
            tree[path] = link(os.readlink(place), mtime)  # noqa: PTH115 - a Path would tidy it
        elif stat.S_ISDIR(status.st_mode):
            tree[path] = directory(mtime)
        else:
            executable = bool(status.st_mode & 0o100)
            tree[path] = Node("f", place.read_bytes(), "", executable, mtime)
    return tree


def contents(tree: Mapping[str, Node]) -> dict[str, tuple[str, bytes, str]]:
    """What any tool restores: kinds, contents and link targets, but neither times nor modes."""
    return {path: (node.kind, node.content, node.target) for path, node in tree.items()}


def everything(root: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """All that can be seen of what is below *root*: a canary that must not change."""
    seen: dict[str, tuple[int, int, int, int, bytes]] = {}
    for place in [root, *sorted(root.rglob("*"))]:
        status = place.lstat()
        if stat.S_ISLNK(status.st_mode):
            content = os.fsencode(place.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = place.read_bytes()
        else:
            content = b""
        seen[str(place)] = (
            status.st_mode, status.st_ino, status.st_nlink, status.st_mtime_ns, content
        )  # fmt: skip
    return seen


SMALL: Tree = {
    "meta.json": file(b'{"classes": 2}\n'),
    "README.md": file(b"A small one.\n", mtime=1_600_000_000),
    "assets/logo.bin": file(bytes(range(256)) * 5),
    "assets/run.sh": file(b"#!/bin/sh\n", executable=True),
    "data/test/empty": file(),
    "data/test/link": link("../train/a"),
    "data/train/a": file(b"a" * 511),
    "data/train/b": file(b"b" * 512),
    "data/train/c": file(os.urandom(513)),
    "data/train/deep/er/d": file(b"d" * 5_000, mtime=0),
    "data/train/void": directory(),
}
"""A dataset with one of everything."""


few = settings(
    max_examples=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
"""For properties of whole trees: each example costs, and simplifying one would take minutes."""

_LETTERS = st.characters(codec="utf-8", exclude_characters="/\\\0", max_codepoint=0x1FFFF)
names = st.one_of(
    st.text("abAB.-_ 1", min_size=1, max_size=12),
    st.text(_LETTERS, min_size=1, max_size=20),
    st.text("\x01\x07\x1b\x7f\n\t\"'", min_size=1, max_size=40),
    st.text("xyz", min_size=80, max_size=255),
    st.text("é漢𝄞", min_size=20, max_size=60),
).filter(
    lambda name: (
        name not in (".", "..", ".etcetera-index.jsonl")
        and len(name.encode()) <= 255
        and name[1:2] != ":"
    )
)
"""Names of files that a dataset may hold, nasty ones included."""

sizes = st.one_of(
    st.integers(0, 2_000),
    st.sampled_from([0, 1, 511, 512, 513, 1023, 1024, 1025]),
    st.sampled_from([
        FRAME_MAX - 1024, FRAME_MAX - 513, FRAME_MAX - 512, FRAME_MAX - 511, FRAME_MAX - 1,
        FRAME_MAX, FRAME_MAX + 1, 2 * FRAME_MAX - 512, 2 * FRAME_MAX + 513, 3 * FRAME_MAX,
    ]),
)  # fmt: skip
"""Sizes around every border of the format."""


@st.composite
def random_content(draw: st.DrawFn) -> bytes:
    """Bytes of an interesting length that compress well, or not at all."""
    size = draw(sizes)
    seed = draw(st.integers(0, 255))
    if draw(st.booleans()):
        return bytes([seed]) * size
    return random.Random(seed).randbytes(size)


@st.composite
def random_trees(draw: st.DrawFn) -> Tree:
    """A dataset of any shape."""
    tree: Tree = {"data": directory(), "data/train": directory()}
    times = st.integers(0, 8**11 - 1)
    tops = st.sampled_from(["", "data/", "data/train/"])
    places = [f"{draw(tops)}{name}/" for name in draw(st.lists(names, max_size=3, unique=True))]
    tree |= {place.rstrip("/"): directory(draw(times)) for place in places}
    places.append("data/train/")
    for name in draw(st.lists(names, max_size=8, unique=True)):
        place = draw(st.sampled_from(places))
        path = f"{place}{name}"
        if path in tree or len(path.encode()) > 1_000:
            continue
        if draw(st.integers(0, 5)):
            tree[path] = Node("f", draw(random_content()), "", draw(st.booleans()), draw(times))
        else:
            target = "../" * draw(st.integers(0, path.count("/"))) + draw(names)
            if target[1:2] != ":":
                tree[path] = link(target, draw(times))
    return tree
