"""Which of a dataset's files are wanted."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from etcetera.errors import NothingSelected, UsageError
from etcetera.transfer.paths import partition_of

_ALWAYS = ("meta.json", "README.md")
"""What a dataset is described by comes with any part of it."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A part of a dataset: partitions, and files by patterns of their paths.

    Each partition and each pattern to include adds to what is wanted; without any, that is
    everything. What a pattern excludes is left out in any case. ``meta.json`` and ``README.md``
    come along unless they are excluded.

    In a pattern ``*`` and ``?`` stand for characters other than a slash, ``**`` for any, and
    ``[abc]`` for one of these. One that fits a directory means everything in it.
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
        if self._exclude is not None and self._exclude.match(path):
            return False
        if not (self.partitions or self.include) or path in _ALWAYS:
            return True
        return (partition_of(path) in self.partitions and path.startswith("data/")) or (
            self._include is not None and self._include.match(path) is not None
        )

    @cached_property
    def _include(self) -> re.Pattern[str] | None:
        return _compile(self.include)

    @cached_property
    def _exclude(self) -> re.Pattern[str] | None:
        return _compile(self.exclude)


def wanted_by(selections: Sequence[Selection], path: str) -> bool:
    """Whether any of *selections* wants *path*; everything is wanted if there is none."""
    return not selections or any(one.wants(path) for one in selections)


class Unmatched:
    """The partitions and patterns of a selection that no path has fitted yet."""

    def __init__(self, selection: Selection) -> None:
        self._patterns = {
            pattern: _compile((pattern,)) for pattern in (*selection.include, *selection.exclude)
        }
        self._partitions = set(selection.partitions)

    def see(self, path: str) -> None:
        """Strike out what *path* fits."""
        if self._partitions and path.startswith("data/"):
            self._partitions.discard(partition_of(path))
        if self._patterns:
            for pattern, compiled in list(self._patterns.items()):
                if compiled is not None and compiled.match(path):
                    del self._patterns[pattern]

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


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[([!^]?)(\]?[^\]]+)\]|.", re.DOTALL)
_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _compile(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns), re.DOTALL)


def _translate(pattern: str) -> str:
    """A regular expression for the paths that *pattern* fits, and for what lies in them.

    Raises:
        UsageError: It can fit no path.
    """
    stripped = pattern.strip("/")
    if not stripped or not {"", ".", ".."}.isdisjoint(stripped.split("/")):
        raise UsageError(f"{pattern!r} fits no path in a dataset; one is like 'data/train/*.json'")
    parts: list[str] = []
    for token in _TOKEN.finditer(stripped):
        negated, characters = token.groups()
        if characters:
            within = re.sub(r"([\\\[\]^&~|])", r"\\\1", characters)
            parts.append(f"(?!/)[{'^' if negated else ''}{within}]")
        else:
            parts.append(_WILD.get(token[0]) or re.escape(token[0]))
    try:
        re.compile("".join(parts))
    except re.error as error:  # a range like [z-a]
        raise UsageError(f"{pattern!r} is no pattern: {error}") from error
    return rf"{''.join(parts)}(?:/.*)?\Z"
