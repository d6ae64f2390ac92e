"""Links: archives, and parts of archives, behind a URL.

A link is an ``https://`` URL of an archive. What follows a ``#`` never reaches a server: it says
how the dataset is to be called, and where in the archive the only bytes are that the URL opens.
None of it is believed: what comes is checked as any archive without an index is.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from etcetera.dataset import check_name, check_partition
from etcetera.errors import CorruptArchive, InvalidName, UsageError, os_errors
from etcetera.settings import redact_url
from etcetera.stores import PinnedRange, open_url
from etcetera.transfer.archive import Archive, Index, open_archive
from etcetera.transfer.excerpt import Excerpt, ExcerptObject

VERSION = "1"
_PART = ("etcetera", "partition", "range", "size", "crc32", "etag")
"""What the fragment of a link to a partition says, beside the name."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_RANGE = re.compile(r"(0|[1-9][0-9]{0,18})-([1-9][0-9]{0,18})", re.ASCII)
_ETAG = re.compile(r"[!#-~]{1,200}")
_ASCII = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One archive, or one partition of it."""

    url: str = field(repr=False)
    """Without fragment; may open the archive to whoever knows it."""
    name: str
    """How the dataset is called here."""
    partition: str = ""
    """The only one; empty for the whole archive."""
    excerpt: Excerpt | None = field(default=None, repr=False)
    """Where that is."""

    @property
    def shown(self) -> str:
        """The URL without its secrets."""
        return redact_url(self.url)

    def text(self) -> str:
        """The link as it is handed on."""
        if self.excerpt is None:
            return self.url
        place = self.excerpt.place
        fields = {
            "etcetera": VERSION,
            "name": self.name,
            "partition": self.partition,
            "range": f"{place.start}-{place.stop - 1}",
            "size": self.excerpt.size,
            "crc32": self.excerpt.crc32,
            "etag": place.etag,
        }
        return f"{self.url}#{urlencode(fields)}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[tuple[Archive, Index | None]]:
        """Open the archive; one version of it, whatever happens meanwhile.

        Raises:
            DatasetNotFound: There is nothing.
            NotAllowed: The link does not work, or no longer.
        """
        if self.excerpt is not None:
            async with open_url(self.url, self.excerpt.place) as remote:
                yield Archive(ExcerptObject(self.excerpt, remote), b""), None
            return
        async with open_url(self.url) as remote:
            if remote.sequential:
                # Its end, where an index would be, comes last.
                yield Archive(remote, b""), None
            else:
                yield await open_archive(remote)

    def check(self, tree: Path) -> None:
        """Refuse what was unpacked into *tree* if it is more than the partition.

        Raises:
            CorruptArchive: It is.
        """
        if not self.partition:
            return
        with os_errors(f"reading {tree}"):
            found = {path.name for path in tree.iterdir()} | {
                f"data/{path.name}" for path in (tree / "data").iterdir()
            }
        if found != {"data", f"data/{self.partition}"}:
            raise CorruptArchive(
                f"what the link opens is not the partition {self.partition} alone; ask for a new "
                "one"
            )


def is_link(name: object) -> bool:
    """Tell whether *name* is meant to be a link."""
    return isinstance(name, str) and name.strip()[:8].lower().startswith(("https://", "http://"))


def parse_link(text: str) -> Link:
    """Understand a link.

    Raises:
        UsageError: It is none, or says something that cannot be.
        InvalidName: The dataset cannot be called as it says.
    """
    url, _, fragment = text.strip().partition("#")
    url = quote(url, safe=_ASCII, errors="backslashreplace")
    try:
        urlsplit(url).port  # noqa: B018 - looks at it
    except ValueError as error:
        raise UsageError(f"{redact_url(url)} is no address: {error}") from error
    fields = _fields(fragment, redact_url(url))
    name = fields.pop("name", None) or _name_in(url)
    if not fields:
        return Link(url=url, name=check_name(name))
    return _parse_part(url, check_name(name), fields)


def called(text: str, name: str) -> str:
    """Return the link *text* with another name for the dataset.

    Raises:
        UsageError: It is no link.
    """
    if not is_link(text):
        raise UsageError(f"Only what a link leads to can be called otherwise: pull {text} as it is")
    url, _, fragment = text.strip().partition("#")
    fields = _fields(fragment, redact_url(url)) | {"name": check_name(name)}
    return f"{url}#{urlencode(fields)}"


def _fields(fragment: str, shown: str) -> dict[str, str]:
    """What a fragment says.

    Raises:
        UsageError: It is none of a link of ours.
    """
    try:
        pairs = parse_qsl(
            fragment, keep_blank_values=True, strict_parsing=bool(fragment), errors="strict",
            max_num_fields=len(_PART) + 1,
        )  # fmt: skip
    except ValueError:
        pairs = [("", "")]
    fields = dict(pairs)
    if len(fields) != len(pairs) or not fields.keys() <= {"name", *_PART}:
        raise UsageError(f"{shown}: what follows the # in the link cannot be understood")
    return fields


def _name_in(url: str) -> str:
    """The name that the last component of the path gives a dataset."""
    last = unquote(urlsplit(url).path.rpartition("/")[2])
    name = last.removesuffix(".tgz").removesuffix(".tar.gz")
    try:
        return check_name(name)
    except InvalidName as error:
        raise InvalidName(
            f"{redact_url(url)} does not say how the dataset is to be called: "
            "etc pull LINK as NAME does"
        ) from error


def _parse_part(url: str, name: str, fields: dict[str, str]) -> Link:
    wrong = UsageError(
        f"{redact_url(url)}: the link to a partition is not whole, or of another version: ask for "
        "a new one"
    )
    if fields.get("etcetera") != VERSION or fields.keys() != set(_PART):
        raise wrong
    span = _RANGE.fullmatch(fields["range"])
    numbers = [_NUMBER.fullmatch(fields[key]) for key in ("size", "crc32")]
    if span is None or None in numbers or not _ETAG.fullmatch(fields["etag"]):
        raise wrong
    start, stop = int(span[1]), int(span[2]) + 1
    size, crc32 = int(fields["size"]), int(fields["crc32"])
    if start >= stop or crc32 >= 1 << 32:
        raise wrong
    place = PinnedRange(start, stop, fields["etag"])
    return Link(
        url=url,
        name=name,
        partition=check_partition(fields["partition"]),
        excerpt=Excerpt(place=place, size=size, crc32=crc32),
    )
