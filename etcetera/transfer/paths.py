"""Which paths and links a dataset may hold: one rule for packing and unpacking."""

import re
from pathlib import PurePosixPath

from etcetera.errors import UnsafeArchive, UsageError

MAX_PATH = 4096
"""Bytes of UTF-8. Source: Linux, ``PATH_MAX``."""
MAX_COMPONENT = 255
"""Bytes of UTF-8. Source: Linux, ``NAME_MAX``."""

INDEX_NAME = ".etcetera-index.jsonl"
"""The archive's index; never part of a dataset."""

_FIRST = ("meta.json", "README.md")
_DRIVE = re.compile(r"[A-Za-z]:")


def path_in_dataset(path: str | PurePosixPath) -> str:
    """The normal form of a path in a dataset, ``""`` for the dataset itself.

    Raises:
        UsageError: It is absolute, or leads out of the dataset.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        raise UsageError(f"{str(path)!r} is no path in a dataset, like data/train/x.json")
    return "/".join(pure.parts)


def path_problem(path: str) -> str | None:
    """Why *path* cannot be stored and restored everywhere; ``None`` if it can.

    Args:
        path: Relative, normal: components without ``.``, ``..`` or empty ones.
    """
    if len(path) > MAX_COMPONENT or not path.isascii():
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            return "its name is not UTF-8"
        if len(encoded) > MAX_PATH:
            return f"its path is longer than {MAX_PATH} bytes"
        if any(len(component) > MAX_COMPONENT for component in encoded.split(b"/")):
            return f"a name in its path is longer than {MAX_COMPONENT} bytes"
    if "\\" in path or "\0" in path:
        return "its path has a backslash or a NUL, which others read differently"
    if _DRIVE.match(path):
        return "its path begins like a Windows drive"
    return None


def link_problem(path: str, target: str) -> str | None:
    """Why the symbolic link *path* → *target* is refused; ``None`` if it stays inside.

    ``..`` may only lead the target: after a name, which may be a link itself, it could lead
    anywhere, however the text looks.
    """
    if problem := path_problem(target):
        return problem.replace("its", "its target's")
    if not target:
        return "it leads nowhere"
    if target.startswith("/"):
        return f"it leads to an absolute path, {target!r}"
    depth = path.count("/")
    named = False
    for component in target.split("/"):
        if component == "..":
            depth -= 1
            if named:
                return f"'..' follows a name in its target, {target!r}"
            if depth < 0:
                return f"it leaves the dataset, {target!r}"
        elif component not in ("", "."):
            named = True
    return None


def normal_path(name: str, offset: int) -> str:
    """The path that a tar member's *name* means; empty for the root itself.

    Raises:
        UnsafeArchive: It leads outside, or cannot be restored.
    """
    path = name.removeprefix("./")
    # Nearly every name is normal then.
    if path.startswith(("/", "./")) or path.endswith(("/", "/.")) or "//" in path or "/./" in path:
        path = "/".join(part for part in path.split("/") if part not in ("", "."))
    elif path == ".":
        path = ""
    if name.startswith("/") or not name:
        problem: str | None = "its path is absolute or empty"
    elif ".." in path and ".." in path.split("/"):
        problem = "its path has '..'"
    else:
        problem = path_problem(path)
    if problem:
        raise UnsafeArchive(f"archive refused: {name!r} at byte {offset} of the tar: {problem}")
    return path


def check_link(path: str, target: str, offset: int) -> None:
    """Raise UnsafeArchive unless the link stays inside."""
    if problem := link_problem(path, target):
        raise UnsafeArchive(
            f"archive refused: the link {path!r} at byte {offset} of the tar: {problem}"
        )


def order_key(path: str) -> str:
    """Sorts paths as archives and digests do.

    ``meta.json``, ``README.md``, everything else outside ``data``, then ``data``; component by
    component, each by code point (which is the order of its UTF-8 bytes).
    """
    # No component holds a NUL, so that comparing the whole compares component by component.
    if path.startswith("data/"):
        return _DATA + path.replace("/", "\0")
    return f"{rank(path.partition('/')[0])}{path.replace('/', chr(0))}"


def rank(top: str) -> int:
    """The place of a top-level name among the others, equal ones being sorted by name."""
    if top in _FIRST:
        return _FIRST.index(top)
    return len(_FIRST) + (top == "data")


_DATA = str(rank("data"))
"""Nearly everything lies below it."""


def partition_of(path: str) -> str:
    """The partition that *path* is, or lies in; empty outside ``data``."""
    return path.split("/", 2)[1] if path.startswith("data/") else ""
