"""Remote datasets: which object holds which dataset."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from etcetera.config import Config, RepositorySettings
from etcetera.dataset import check_name, is_name
from etcetera.errors import DatasetNotFound, InvalidName, UsageError, archive_errors
from etcetera.stores import ObjectInfo, Store, open_store
from etcetera.transfer.archive import Archive, Index, open_archive
from etcetera.transfer.front import FrontReader
from etcetera.transfer.reader import Reader

SUFFIX = ".tgz"


class Repository:
    """The archives below one URL."""

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


@asynccontextmanager
async def open_repository(config: Config, name: str | None) -> AsyncIterator[Repository]:
    """Connect to a repository of the configuration, by default the one at its top.

    Raises:
        ConfigError: There is none of that name, or it cannot be used.
    """
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


def split_name(name: str, repository: str | None = None) -> tuple[str | None, str]:
    """Take ``lab:MNIST`` apart.

    Args:
        name: Of a dataset, perhaps with that of a repository before it.
        repository: Named elsewhere.

    Returns:
        The repository, ``None`` for the default one, and the dataset.

    Raises:
        InvalidName: The dataset's name cannot be one.
        UsageError: Two different repositories are named.
    """
    before, colon, after = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not colon:
        return repository, check_name(name)
    if not before:
        raise InvalidName(f"{name!r} names no repository before the colon")
    if repository not in (None, before):
        raise UsageError(f"Two repositories for one dataset: {repository} and {before}")
    return before, check_name(after)
