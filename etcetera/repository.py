"""Remote datasets: which object holds which dataset."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from etcetera.config import Config
from etcetera.dataset import check_name, is_name
from etcetera.errors import DatasetNotFound, InvalidName, UsageError, archive_errors, quoted
from etcetera.links import Link, is_link, parse_link
from etcetera.settings import RepositorySettings, redact_url
from etcetera.stores import ObjectInfo, Store, open_store
from etcetera.transfer.archive import Archive, Index, open_archive
from etcetera.transfer.front import FrontReader
from etcetera.transfer.reader import Reader
from etcetera.transfer.selection import Selection

SUFFIX = ".tgz"


class Repository:
    """The archives below one URL."""

    selections: tuple[Selection, ...] = ()
    """What part of a dataset its archive holds; empty if it holds all of it."""

    def __init__(self, store: Store, settings: RepositorySettings) -> None:
        self.store = store
        self.settings = settings

    def key(self, name: str) -> str:
        """The object that holds the dataset *name*."""
        return check_name(name) + SUFFIX

    def url(self, name: str) -> str:
        """Where the dataset *name* is, or would be."""
        return f"{self.store.url.rstrip('/')}/{self.key(name)}"

    async def list(self) -> dict[str, ObjectInfo]:
        """The datasets by name, sorted; objects whose key is no dataset's are left out."""
        found: dict[str, ObjectInfo] = {}
        async for info in self.store.list():
            name = info.key.removesuffix(SUFFIX)
            if name != info.key and is_name(name):
                found[name] = info
        return dict(sorted(found.items()))

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[tuple[Archive, Index | None]]:
        """Open a dataset's archive; one version of it, whatever happens meanwhile.

        Raises:
            DatasetNotFound: There is none.
        """
        async with self.store.open(self.key(name)) as remote:
            if remote is None:
                raise DatasetNotFound(
                    f"There is no dataset {name} in {self.store.url}; etc ls -r shows what there is"
                )
            yield await open_archive(remote)

    def check(self, tree: Path) -> None:
        """Refuse what has come from here into *tree*; anything that is a dataset may."""


class LinkedArchive(Repository):
    """What a link leads to: one archive, which can be read."""

    def __init__(self, link: Link) -> None:
        self.settings = RepositorySettings(name="link", url=link.shown)
        self._link = link
        if link.partition:
            self.selections = (Selection(partitions=(link.partition,)),)

    def url(self, name: str) -> str:  # noqa: ARG002 - a link leads to one archive
        """Where the archive is; without what opens it."""
        return self._link.shown

    async def list(self) -> dict[str, ObjectInfo]:
        """Refuse: a link leads to one archive."""
        raise UsageError("A link leads to one dataset, not to a repository: etc pull LINK")

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[tuple[Archive, Index | None]]:  # noqa: ARG002 - a link leads to one archive
        """Open the archive, however *name* may call the dataset."""
        async with self._link.open() as opened:
            yield opened

    def check(self, tree: Path) -> None:
        """Refuse what is more than the link is said to open."""
        self._link.check(tree)


@asynccontextmanager
async def open_repository(config: Config, name: str | None) -> AsyncIterator[Repository]:
    """Connect to a repository of the configuration, by default the one at its top.

    Args:
        config: Settings.
        name: Of the repository; or a link.

    Raises:
        ConfigError: There is none of that name, or it cannot be used.
    """
    if name is not None and is_link(name):
        yield LinkedArchive(parse_link(name))
        return
    settings = config.repository(name)
    async with open_store(settings) as store:
        yield Repository(store, settings)


@asynccontextmanager
async def open_reader(
    config: Config, repository: str | None, name: str
) -> AsyncIterator[tuple[str, Reader | FrontReader]]:
    """Open a dataset's archive, to read single files; what its errors are named after comes along.

    Raises:
        DatasetNotFound: There is none.
        ArchiveError: It is none, or its index is damaged.
    """
    async with open_repository(config, repository) as remotes:
        url = remotes.url(name)
        with archive_errors(url):
            async with remotes.open(name) as (archive, index):
                yield url, Reader(index) if index else FrontReader(archive, config.transfer)


def split_name(
    name: str, repository: str | None = None, *, links: bool = False
) -> tuple[str | None, str]:
    """Take ``lab:MNIST`` apart.

    Args:
        name: Of a dataset, perhaps with that of a repository before it.
        repository: Named elsewhere.
        links: Whether *name* may also be a link, which takes the place of the repository.

    Returns:
        The repository, ``None`` for the default one, and the dataset.

    Raises:
        InvalidName: The dataset's name cannot be one.
        UsageError: Two different repositories are named; or a link that must not be one, or
            cannot be.
    """
    if is_link(name):
        if not links:
            raise UsageError(
                f"{redact_url(name)}: a link can only be pulled (etc pull LINK) and described "
                "(etc info LINK)"
            )
        if repository is not None:
            raise UsageError(f"A link needs no repository: leave out {redact_url(repository)}")
        return name, parse_link(name).name
    if isinstance(name, str) and "://" in name:
        raise UsageError(
            f"{quoted(name)} is the URL of something, not the name of a dataset: put the URL of a "
            "repository into the configuration, or behind --url"
        )
    before, colon, after = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon:
        return repository, check_name(name)
    if not before:
        raise InvalidName(f"{quoted(name)} names no repository before the colon")
    if repository not in (None, before):
        raise UsageError(
            f"Two repositories for one dataset: {quoted(str(repository))} and {quoted(before)}"
        )
    return before, check_name(after)
