"""Symbolic links inside a dataset, followed without a file system."""

import posixpath
from typing import Protocol

from etcetera.errors import StoreError
from etcetera.transfer.descend import MAX_LINKS
from etcetera.transfer.tar import Entry


class Finder(Protocol):
    """Knows what a dataset has."""

    async def find(self, path: str) -> Entry | None:
        """What is at *path*; ``None`` if nothing."""

    async def check_entry(self, path: str) -> None:
        """Make sure that what was found at *path* is really there."""


async def follow(path: str, finder: Finder) -> str:
    """The path of what *path* leads to, which may be nothing.

    Args:
        path: Relative to the dataset, and normal.
        finder: Knows the dataset.

    Raises:
        StoreError: One link leads to another for ever.
    """
    for _ in range(MAX_LINKS):
        if (goal := await _one_link(path, finder)) is None:
            return path
        path = goal
    raise StoreError(f"{path} is one of too many links that lead to each other")


async def _one_link(path: str, finder: Finder) -> str | None:
    """Where the path leads by the link that it is or lies below; ``None`` if there is none."""
    parts = path.split("/")
    # First the whole, which is nearly always there, and no link.
    for count in (len(parts), *range(1, len(parts))):
        start = "/".join(parts[:count])
        entry = await finder.find(start)
        if entry is not None and entry.kind == "l":
            await finder.check_entry(start)
            return _joined(entry, "/".join(parts[count:]))
        if entry is not None and count == len(parts):
            return None
    return None


def _joined(link: Entry, rest: str) -> str:
    # Reading it as text is enough: '..' only leads a target, and never leaves the dataset.
    goal = posixpath.join(posixpath.dirname(link.path), link.target, rest)
    goal = posixpath.normpath(goal)
    return "" if goal == "." else goal.removeprefix("./")
