"""Links to datasets, for people without credentials."""

import re
import shlex
from dataclasses import replace

from etcetera.api import loaded
from etcetera.config import Config
from etcetera.errors import UsageError
from etcetera.links import Link
from etcetera.repository import open_repository, split_name
from etcetera.results import ShareResult
from etcetera.transfer.excerpt import Excerpt, find_excerpt

_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 60 * 60, "d": 24 * 60 * 60}


async def ashare(
    name: str,
    expires: str = "7d",
    partition: str | None = None,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> ShareResult:
    """Make a link by which anybody can pull a remote dataset, or one partition of it.

    The link to a dataset opens whatever archive has its name; the one to a partition opens these
    bytes of this archive, and nothing any more once that is replaced.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        expires: How long the link works, as ``90s``, ``15m``, ``12h`` or ``7d``, which is the
            longest.
        partition: Open this one alone.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
        PartitionNotFound: It has no such partition.
        UsageError: The repository has no links, or none that live so long.
        NotAllowed: Everybody can read the repository, so no partition can be shared alone.
        StoreError: The partition does not lie on its own in the archive.
    """
    seconds = _parse_duration(expires)
    repository, name = split_name(name, repository)
    config = await loaded(config)
    async with open_repository(config, repository) as remotes, remotes.open(name) as opened:
        archive, index = opened
        excerpt = None
        if partition is not None:
            if index is None:
                raise UsageError(
                    f"{remotes.url(name)} has no index that says where its partitions are: share "
                    "the whole"
                )
            excerpt = await find_excerpt(index, partition)
        shared = await remotes.store.share(
            remotes.key(name), seconds, excerpt.place if excerpt else None
        )
    if excerpt is not None and shared.part is not None:
        excerpt = replace(excerpt, place=shared.part)
    link = Link(url=shared.url, name=name, partition=partition or "", excerpt=excerpt)
    return ShareResult(
        name=name,
        partition=partition,
        url=link.text(),
        command=_command(shared.url, excerpt),
        bytes=excerpt.length if excerpt else archive.info.size,
        expires=shared.expires,
        temporary=shared.temporary,
    )


def _parse_duration(text: str) -> int:
    """Seconds.

    Raises:
        UsageError: It is no duration.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(f"{text!r} is no time that a link can live: 90s, 15m, 12h or 7d")
    return int(match[1]) * _SECONDS[match[2]]


def _command(url: str, excerpt: Excerpt | None) -> str:
    """What fetches and unpacks in any shell.

    Where a part is fetched, and that fails, the end is left out: so tar fails as well.
    """
    words = ["curl", "-gfL"]  # -g: brackets in a URL are what they are
    if url.startswith("https:"):
        words += ["--proto-redir", "-all,https"]  # a redirect must not take it into the clear
    for name, value in (excerpt.place.headers() if excerpt else {}).items():
        words += ["-H", f"{name}: {value}"]
    fetch = shlex.join([*words, url])
    if excerpt is not None:
        head, end = _printf(excerpt.head), _printf(excerpt.end)
        fetch = f"{{ {head} && {fetch} && {end}; }}"
    return f"{fetch} | tar xzf -"


def _printf(data: bytes) -> str:
    """A command that prints bytes; octal is what every ``printf`` understands."""
    return f"printf '{''.join(f'{chr(92)}{byte:03o}' for byte in data)}'"
