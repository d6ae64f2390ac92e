"""Which of a dataset's files are wanted."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from etcetera.errors import NothingSelected, UsageError
from etcetera.transfer.paths import partition_of

_ALWAYS = ("meta.json", "README.md")
"""What a dataset is described by comes with any part of it."""


class Pattern:
    """Fits paths; takes time in proportion to their length, whatever an archive calls its files."""

    def __init__(self, text: str) -> None:
        """Read a pattern.

        Raises:
            UsageError: It can fit no path.
        """
        parts = text.strip("/").split("/")
        if not {"", ".", ".."}.isdisjoint(parts):
            raise UsageError(f"{text!r} fits no path in a dataset; one is like 'data/train/*.json'")
        # Expressions that fnmatch makes never go back behind a star.
        self._parts = [
            None if part == "**" else re.compile(fnmatch.translate(part)).match for part in parts
        ]

    def fits(self, names: list[str]) -> bool:
        """Whether it fits the path of these components, or that of a directory around it."""
        position = part = 0
        again = after = -1
        while part < len(self._parts):
            match = self._parts[part]
            if match is None:
                # Only the last one has to be tried again: the first place where what is before it
                # fits leaves the most.
                part += 1
                again, after = position, part
            elif position < len(names) and match(names[position]):
                position, part = position + 1, part + 1
            elif 0 <= again < len(names):
                again += 1
                position, part = again, after
            else:
                return False
        return True


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A part of a dataset: partitions, and files by patterns of their paths.

    Each partition and each pattern to include adds to what is wanted; without any, that is
    everything. What a pattern excludes is left out in any case. ``meta.json`` and ``README.md``
    come along unless they are excluded.

    In a pattern ``*`` and ``?`` stand for characters of one name, ``[abc]`` for one of these, and
    ``**`` for any number of directories. One that fits a directory means everything in it.
    """

    partitions: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        partitions: Iterable[str] = (),
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
    ) -> "Selection":
        """Make one of any iterables.

        Raises:
            UsageError: A string stands where a list of strings is meant, or is no pattern.
        """
        lists = []
        for given in (partitions, include, exclude):
            if isinstance(given, str):
                raise UsageError(f"A list of strings is wanted: [{given!r}], not {given!r}")
            lists.append(tuple(given))
            if not all(isinstance(text, str) for text in lists[-1]):
                raise UsageError(f"A list of strings is wanted, not {given!r}")
        selection = cls(partitions=lists[0], include=lists[1], exclude=lists[2])
        _ = selection._include, selection._exclude  # a wrong pattern is told at once
        return selection

    def __bool__(self) -> bool:
        """Whether it can leave anything out."""
        return bool(self.partitions or self.include or self.exclude)

    def wants(self, path: str) -> bool:
        """Whether the file, link or empty directory at *path* is wanted."""
        names = path.split("/")
        if any(pattern.fits(names) for pattern in self._exclude):
            return False
        if not (self.partitions or self.include) or path in _ALWAYS:
            return True
        return (partition_of(path) in self.partitions and path.startswith("data/")) or any(
            pattern.fits(names) for pattern in self._include
        )

    @cached_property
    def _include(self) -> tuple[Pattern, ...]:
        return tuple(map(Pattern, self.include))

    @cached_property
    def _exclude(self) -> tuple[Pattern, ...]:
        return tuple(map(Pattern, self.exclude))


def wanted_by(selections: Sequence[Selection], path: str) -> bool:
    """Whether any of *selections* wants *path*; everything is wanted if there is none."""
    return not selections or any(one.wants(path) for one in selections)


class Unmatched:
    """The partitions and patterns of a selection that no path has fitted yet."""

    def __init__(self, selection: Selection) -> None:
        self._patterns = {text: Pattern(text) for text in (*selection.include, *selection.exclude)}
        self._partitions = set(selection.partitions)

    def see(self, path: str) -> None:
        """Strike out what *path* fits."""
        if self._partitions and path.startswith("data/"):
            self._partitions.discard(partition_of(path))
        if self._patterns:
            names = path.split("/")
            for text, pattern in list(self._patterns.items()):
                if pattern.fits(names):
                    del self._patterns[text]

    def refuse(self, partitions: Iterable[str]) -> None:
        """Raise NothingSelected if anything is left.

        Args:
            partitions: What the dataset has, for the message.
        """
        if self._partitions:
            raise NothingSelected(
                f"There is no partition {', '.join(sorted(self._partitions))}; "
                f"there is {', '.join(sorted(partitions))}"
            )
        if self._patterns:
            raise NothingSelected(
                f"Nothing in the dataset fits {', '.join(map(repr, self._patterns))}; "
                "patterns are of whole paths, like 'data/train/*.json'"
            )
