"""Which of a dataset's files are wanted."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from etcetera.errors import UsageError
from etcetera.transfer.paths import partition_of

_ALWAYS = ("meta.json", "README.md")
"""What a dataset is described by comes with any part of it."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A part of a dataset: partitions, and files by the pattern of their path.

    Of several, each adds to what is wanted; what is to be left out is left out in any case.
    Without partitions and patterns to include, everything is wanted that is not left out.
    ``meta.json`` and ``README.md`` come along, unless a pattern leaves them out.

    In a pattern ``*`` and ``?`` stand for characters other than a slash, ``**`` for any, and
    ``[abc]`` for one of these. One that fits a directory means everything in it.
    """

    partitions: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, partitions: Iterable[str], include: Iterable[str], exclude: Iterable[str]
    ) -> "Selection":
        """Make one of any iterables.

        Raises:
            UsageError: A string stands where a list of strings is meant.
        """
        lists = (partitions, include, exclude)
        for one in lists:
            if isinstance(one, str):
                raise UsageError(f"partitions, include and exclude are lists of strings: [{one!r}]")
        return cls(partitions=tuple(lists[0]), include=tuple(lists[1]), exclude=tuple(lists[2]))

    def __bool__(self) -> bool:
        """Whether anything is left out."""
        return bool(self.partitions or self.include or self.exclude)

    def wants(self, path: str) -> bool:
        """Whether the file, link or empty directory at *path* is wanted."""
        if self._exclude is not None and self._exclude.match(path):
            return False
        if not (self.partitions or self.include):
            return True
        return (
            path in _ALWAYS
            or (partition_of(path) in self.partitions and path.startswith("data/"))
            or (self._include is not None and self._include.match(path) is not None)
        )

    def picks(self, path: str) -> bool:
        """The same, but false for what only comes along."""
        return self.wants(path) and (path not in _ALWAYS or self._names(path))

    def _names(self, path: str) -> bool:
        return not (self.partitions or self.include) or (
            self._include is not None and self._include.match(path) is not None
        )

    @cached_property
    def _include(self) -> re.Pattern[str] | None:
        return _compile(self.include)

    @cached_property
    def _exclude(self) -> re.Pattern[str] | None:
        return _compile(self.exclude)


_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[(?P<negated>[!^]?)(?P<set>\]?[^\]]+)\]|.", re.DOTALL)


def _compile(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    return re.compile("|".join(f"(?:{_translate(pattern)})" for pattern in patterns))


def _translate(pattern: str) -> str:
    """A regular expression that matches the paths that *pattern* fits, and what lies in them.

    Of any quantifiers, no two can match the same characters in more than one way often enough to
    matter: a path has at most 4096.

    Raises:
        UsageError: It is empty, or fits no path.
    """
    stripped = pattern.strip("/")
    if not stripped or ".." in stripped.split("/"):
        raise UsageError(f"{pattern!r} is no pattern for paths in a dataset, like 'data/train/*'")
    parts: list[str] = []
    for token in _TOKEN.finditer(stripped):
        match token[0]:
            case "**/":
                parts.append("(?:.*/)?")
            case "**":
                parts.append(".*")
            case "*":
                parts.append("[^/]*")
            case "?":
                parts.append("[^/]")
            case text if token["set"]:
                characters = re.escape(token["set"]).replace(r"\-", "-")
                parts.append(f"(?!/)[{'^' if token['negated'] else ''}{characters}]")
                del text
            case text:
                parts.append(re.escape(text))
    return rf"{''.join(parts)}(?:/.*)?\Z"
