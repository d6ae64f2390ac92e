"""What etcetera can do, asynchronously."""

import logging
import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from etcetera.config import Config
from etcetera.dataset import Dataset, check_name
from etcetera.describe import local_info, local_listing, remote_info
from etcetera.errors import (
    AlreadyExists,
    DatasetNotFound,
    UsageError,
    archive_errors,
)
from etcetera.home import Home
from etcetera.links import is_link
from etcetera.pins import check_digest, require_digest
from etcetera.progress import ProgressCallback
from etcetera.pulling import Pulling
from etcetera.pushing import Pushing
from etcetera.remote_dataset import RemoteDataset
from etcetera.repository import open_repository, split_name
from etcetera.results import DatasetInfo, Listing, PullResult, PushResult
from etcetera.settings import RepositorySettings, redact_url
from etcetera.singleflight import share
from etcetera.transfer.flow import in_thread
from etcetera.transfer.selection import Selection

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

_logger = logging.getLogger("etcetera")


async def adataset(
    name: str,
    auto_pull: bool = False,
    auto_install: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    digest: str | None = None,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Open a local dataset.

    Args:
        name: Of the dataset; ``lab:NAME`` to pull it from the repository *lab*.
        auto_pull: Pull it if it is not there. Callers that ask for the same missing dataset share
            one download.
        auto_install: The same.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Where to pull from, by default the one at the top of the configuration.
        digest: ``sha256:`` and 64 digits: nothing but this version of the data will do.
        progress: Told how the download goes on.

    Raises:
        DatasetNotFound: It is not there, and neither is it to be pulled nor can it be.
        InvalidDataset: What is there is no dataset.
        DigestMismatch: What is there, or in the repository, has not the digest; or it has changed
            since it was pulled or pushed; or only a part of it is there.
    """
    repository, name = split_name(name, repository)
    check_digest(digest)
    config = await loaded(config)
    home = Home(config.home)
    if await in_thread(home.find, name) is not None:
        if repository is not None:
            await in_thread(_check_origin, home, name, config.repository(repository))
    elif auto_pull or auto_install:
        await share(
            (str(home.path), config.repository(repository), name, digest),
            partial(_pull_missing, name, repository, config, digest),
            progress,
        )
    else:
        raise DatasetNotFound(
            f"There is no local dataset {name}: pull it (etc pull {name}), "
            "or ask for it with auto_pull=True"
        )
    if digest is not None:
        await scanning(require_digest, home, name, digest)
    return await in_thread(_open, home, name, config)


async def als(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[str]:
    """List the names of the local datasets, or of those in a repository, sorted.

    Raises:
        RepositoryNotFound: The bucket or directory does not exist.
    """
    config = await loaded(config)
    if not (remote or repository):
        return await in_thread(Home(config.home).names)
    async with open_repository(config, repository) as remotes:
        return list(await remotes.list())


async def alisting(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[Listing]:
    """List datasets with size, date and kind; looks at every file of the local ones."""
    config = await loaded(config)
    if not (remote or repository):
        return await scanning(local_listing, Home(config.home))
    async with open_repository(config, repository) as remotes:
        return [
            Listing(
                name=name,
                kind="remote",
                bytes=info.size,
                modified=info.modified,
                location=remotes.url(name),
            )
            for name, info in (await remotes.list()).items()
        ]


async def aregister(
    dirname: str | PathLike[str],
    name: str | None = None,
    force: bool = False,
    config: Config | None = None,
) -> Dataset:
    """Make a directory a local dataset, by a link to it.

    Args:
        dirname: The directory, laid out as a dataset.
        name: By default the directory's own.
        force: Replace a local dataset that has this name.
        config: Settings, by default from ``~/.etc.toml`` and the environment.

    Raises:
        InvalidDataset: The directory is no dataset.
        AlreadyExists: The name is taken and *force* is false.
    """
    config = await loaded(config)
    home = Home(config.home)
    directory = await in_thread(_resolve, dirname)
    name = check_name(directory.name if name is None else name)
    await in_thread(Dataset, directory, name)  # all of it must be valid, also its meta.json
    async with home.lock(name):
        await in_thread(home.register, directory, name, force)
    return await in_thread(Dataset, home.path / name, name)


async def acreate(
    name: str,
    partitions: Iterable[str] = ("train", "test"),
    force: bool = False,
    config: Config | None = None,
) -> Dataset:
    """Create an empty local dataset.

    Args:
        name: Of the dataset.
        partitions: Names of the directories below ``data``.
        force: Replace a local dataset that has this name.
        config: Settings, by default from ``~/.etc.toml`` and the environment.

    Raises:
        AlreadyExists: The name is taken and *force* is false.
        InvalidName: The dataset or a partition cannot be called so.
    """
    check_name(name)
    config = await loaded(config)
    home = Home(config.home)
    async with home.lock(name):
        await in_thread(home.create, name, partitions, force)
    return await in_thread(Dataset, home.path / name, name)


async def apurge(name: str, config: Config | None = None, *, force: bool = False) -> None:
    """Delete a local dataset; a registered one only loses its link.

    Args:
        name: Of the dataset.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        force: Delete even data that was never pushed or pulled, or has changed since.

    Raises:
        DatasetNotFound: There is none of that name.
        NotAllowed: It is in no repository, and *force* is false.
    """
    check_name(name)
    config = await loaded(config)
    home = Home(config.home)
    async with home.lock(name):
        await in_thread(home.purge, name, force)


async def apush(
    name: str,
    force: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    base: str | None = None,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> PushResult:
    """Publish a local dataset: pack, compress and upload it, all at once.

    The name in the repository is absent, the old archive or the new one, whole, at any time. Where
    an earlier push of the same dataset broke off, this one goes on. Where the store can, what an
    older archive has already is copied there, and only the rest is sent.

    What somebody else publishes under the name meanwhile is not overwritten. On a server that heeds
    no conditions (``etc doctor --write`` tells) that holds until the last look, not to the end.

    Args:
        name: Of the dataset; ``lab:NAME`` to push it to the repository *lab*.
        force: Replace an archive that has this name.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Where to, by default the one at the top of the configuration.
        base: The dataset in the same repository whose archive is copied from; by default the one
            that is replaced. With an empty one everything is sent.
        dry_run: Check everything and say what would be sent; send nothing.
        progress: Told how it goes on.

    Raises:
        DatasetNotFound: There is no such local dataset, or no such base.
        InvalidDataset: It cannot be packed.
        AlreadyExists: The repository has this name and *force* is false.
        SourceChanged: A file changed while it was packed.
        RemoteChanged: Somebody else replaced the archive that was copied from.
    """
    repository, name = split_name(name, repository)
    base = base and _base_name(base, repository)
    config = await loaded(config)
    pushing = Pushing(
        home=Home(config.home),
        name=name,
        config=config,
        repository=repository,
        base=base,
        force=force,
        progress=progress,
    )
    return await pushing.run(dry_run=dry_run)


async def apull(
    name: str,
    force: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    partitions: Iterable[str] = (),
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    digest: str | None = None,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> PullResult:
    """Install a dataset from a repository: fetch, inflate, check and write it, all at once.

    The local name is absent, the old dataset or the new one, whole, at any time. Files that are
    here already, in the dataset that is replaced or left by a pull that was interrupted, are not
    fetched again.

    A part of a dataset can be installed as well: each partition and each pattern to include adds
    to it. Pulling more of it later adds to what is there, pulling without any of these completes
    it. In a pattern ``*`` stands for characters of one name, ``**`` for any number of directories,
    and one that fits a directory means everything in it.

    Args:
        name: Of the dataset; ``lab:NAME`` to pull it from the repository *lab*; or a link, or
            any ``https://`` URL of an archive (``#name=flowers`` after it gives it a name).
        force: Replace a local dataset that has this name.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Where from, by default the one at the top of the configuration.
        partitions: Names of the partitions that are wanted.
        include: Patterns of the paths that are wanted, as ``data/train/*.json``.
        exclude: Patterns of the paths that are left out in any case.
        digest: ``sha256:`` and 64 digits: nothing but this version of the data is installed.
        dry_run: Say what would be fetched; fetch no more than the index.
        progress: Told how it goes on.

    Raises:
        DatasetNotFound: The repository has no such dataset.
        NothingSelected: A partition or pattern fits nothing in it.
        AlreadyExists: There is a local one of this name and *force* is false; or a part of one,
            and the repository has another version by now.
        ArchiveError: The archive is damaged, or is none.
        DigestMismatch: It has another digest.
        NoSpace: It does not fit on the disk.
    """
    repository, name = split_name(name, repository, links=True)
    check_digest(digest)
    selection = Selection.of(partitions, include, exclude)
    config = await loaded(config)
    if not is_link(repository):
        config.repository(repository)  # a wrong configuration is told before anything is locked
    pulling = Pulling(
        home=Home(config.home),
        name=name,
        config=config,
        repository=repository,
        selection=selection,
        digest=digest,
        force=force,
        progress=progress,
    )
    if dry_run:
        return await pulling.run(dry_run=True)
    async with pulling.home.lock(name):
        return await pulling.run()


async def ainfo(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> DatasetInfo:
    """Tell what a dataset holds.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*; or a link.
        remote: Describe the archive in the repository, reading no more than its index.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
        ArchiveError: The archive's index is damaged.
    """
    repository, name = split_name(name, repository, links=True)
    config = await loaded(config)
    if not (remote or repository):
        return await scanning(local_info, Home(config.home), name)
    async with open_repository(config, repository) as remotes:
        with archive_errors(remotes.url(name)):
            async with remotes.open(name) as (archive, index):
                return await remote_info(name, remotes, archive, index)


async def aremote(
    name: str, config: Config | None = None, *, repository: str | None = None
) -> RemoteDataset:
    """Open a dataset in a repository, to read from it without pulling it.

    It is one version of the dataset for as long as it is open; see
    :class:`etcetera.remote_dataset.RemoteDataset`.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: The repository has no such dataset.
        ArchiveError: The archive is none, or its index is damaged.
    """
    repository, name = split_name(name, repository)
    dataset = RemoteDataset(name, await loaded(config), repository)
    await dataset.aconnect()
    return dataset


def _base_name(base: str, repository: str | None) -> str:
    other, name = split_name(base, repository)
    if other != repository:
        raise UsageError(f"The base {base} has to be in the repository that is pushed to")
    return name


async def loaded(config: Config | None) -> Config:
    """Return *config*, or the settings of ``~/.etc.toml`` and the environment."""
    if config is None:
        return await in_thread(Config.load)
    if not isinstance(config, Config):
        raise UsageError(
            f"config= takes an etcetera.Config, not a {type(config).__name__}: "
            "Config.load(path) reads one from a file"
        )
    return config


async def scanning(
    function: Callable[[*Arguments, threading.Event], Result], *args: *Arguments
) -> Result:
    """Call what scans directories in a thread; a cancellation makes it end early."""
    stop = threading.Event()
    return await in_thread(function, *args, stop, on_cancel=stop.set)


def _check_origin(home: Home, name: str, settings: RepositorySettings) -> None:
    """Refuse a local dataset that did not come from the repository that was named.

    Raises:
        AlreadyExists: It came from another one, or nobody knows where from.
    """
    receipt = home.receipt(name)
    if receipt is None or receipt.repository != redact_url(settings.url):
        origin = f"came from {receipt.repository}" if receipt else "is none that was pulled"
        raise AlreadyExists(
            f"The local dataset {name} {origin}, not from {settings.name}: ask for {name} alone, "
            f"or replace it (etc pull {settings.name}:{name} --force)"
        )


async def _pull_missing(
    name: str,
    repository: str | None,
    config: Config,
    digest: str | None,
    progress: ProgressCallback,
) -> None:
    home = Home(config.home)
    async with home.lock(name):
        # Another process may have been faster.
        if await in_thread(home.find, name) is None:
            pulling = Pulling(
                home=home,
                name=name,
                config=config,
                repository=repository,
                digest=digest,
                progress=progress,
            )
            await pulling.run()


def _open(home: Home, name: str, config: Config) -> Dataset:
    dataset = Dataset(home.path / name, name)
    receipt = home.receipt(name)
    if receipt is not None and receipt.selections:
        dataset.partial = True
        rest = config.called(name, receipt.repository)
        _logger.warning("Only a part of %s is here; etc pull %s fetches the rest", name, rest)
    return dataset


def _resolve(path: str | PathLike[str]) -> Path:
    try:
        return Path(os.path.realpath(Path(path).expanduser()))
    except (RuntimeError, ValueError) as error:  # no such user; a NUL
        raise UsageError(f"{os.fspath(path)!r} is no path of a directory: {error}") from error
