"""What etcetera can do, asynchronously."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter, time_ns
from typing import TypeVar, TypeVarTuple

from etcetera.config import Config, RepositorySettings, redact_url
from etcetera.dataset import Dataset, check_name
from etcetera.describe import local_info, local_listing, remote_info
from etcetera.errors import (
    AlreadyExists,
    ArchiveError,
    DatasetNotFound,
    EtceteraError,
    InvalidDataset,
    UsageError,
)
from etcetera.home import Home
from etcetera.progress import Meter, ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import Repository, open_repository, split_name
from etcetera.results import DatasetInfo, Listing, PullResult, PushResult
from etcetera.singleflight import share
from etcetera.stores import CannotCopy
from etcetera.transfer.extract import check_space
from etcetera.transfer.flow import beside, in_thread, in_threads
from etcetera.transfer.options import MiB
from etcetera.transfer.parts import archive_bound
from etcetera.transfer.pull import pull as pull_archive
from etcetera.transfer.push import Prepared, prepare
from etcetera.transfer.push import push as push_archive
from etcetera.transfer.update import Update, plan_update

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
        progress: Told how the download goes on.

    Raises:
        DatasetNotFound: It is not there, and neither is it to be pulled nor can it be.
        InvalidDataset: What is there is no dataset.
    """
    repository, name = split_name(name, repository)
    config = await _loaded(config)
    home = Home(config.home)
    if await in_thread(home.find, name) is not None:
        if repository is not None:
            await in_thread(_check_origin, home, name, config.repository(repository))
    elif auto_pull or auto_install:
        await share(
            (str(home.path), config.repository(repository), name),
            partial(_pull_missing, name, repository, config),
            progress,
        )
    else:
        raise DatasetNotFound(
            f"There is no local dataset {name}: pull it (etc pull {name}), "
            "or ask for it with auto_pull=True"
        )
    return await in_thread(Dataset, home.path / name, name)


async def als(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[str]:
    """List the names of the local datasets, or of those in a repository, sorted.

    Raises:
        RepositoryNotFound: The bucket or directory does not exist.
    """
    config = await _loaded(config)
    if not (remote or repository):
        return await in_thread(Home(config.home).names)
    async with open_repository(config, repository) as remotes:
        return list(await remotes.list())


async def alisting(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[Listing]:
    """List datasets with size, date and kind; looks at every file of the local ones."""
    config = await _loaded(config)
    if not (remote or repository):
        return await _scanning(local_listing, Home(config.home))
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
    config = await _loaded(config)
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
    config = await _loaded(config)
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
    config = await _loaded(config)
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

    The name in the repository is absent, the old archive or the new one, whole, at any time.
    Where the store can, what an older archive has already is copied there, and only the rest sent.

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
    began = perf_counter()
    repository, name = split_name(name, repository)
    base = base and _base_name(base, repository)
    config = await _loaded(config)
    home = Home(config.home)
    if await in_thread(home.find, name) is None:
        raise DatasetNotFound(f"There is no local dataset {name}; etc ls shows what there is")
    dataset = await in_thread(Dataset, home.path / name, name)
    async with open_repository(config, repository) as remotes:
        store, key = remotes.store, remotes.key(name)
        meter = Meter("push", name, progress)
        meter.tell("scan")
        async with beside(partial(store.head, key)) as head:
            prepared = await prepare(dataset.root, store, config.transfer)
            scanned, plan = prepared.scan, prepared.plan
            result = partial(
                PushResult,
                name=name,
                url=remotes.url(name),
                files=scanned.total.files,
                bytes=scanned.total.bytes,
                part_size=plan.part_size,
                memory=plan.memory,
                public=remotes.settings.public,
            )

            async def is_replaced() -> bool:
                existing = await head()
                if existing and not force:
                    raise AlreadyExists(
                        f"{remotes.url(name)} exists already; push it with --force to replace it, "
                        "or give the dataset another name"
                    )
                return existing is not None

            update: Update | None = None
            why_whole: str | None = None
            wanted = bool(base) or (force and base is None)
            if wanted and (await is_replaced() or base):  # a taken name is refused before all else
                update, why_whole = await _compare(remotes, base, name, prepared, config)
            bound = plan.bound
            if update is not None:
                bound = update.copied + archive_bound(scanned, update.kept_size)
            if dry_run:
                return result(
                    archive_bytes=bound,
                    replaces=await is_replaced(),
                    copied=update.copied if update else 0,
                    why_whole=why_whole,
                    dry_run=True,
                )
            _logger.info(
                "Plan: %d files, at most %.1f MiB to send, in parts of %.1f MiB, %d at once",
                scanned.total.files, (bound - (update.copied if update else 0)) / MiB,
                plan.part_size / MiB, plan.workers,
            )  # fmt: skip
            meter.total = scanned.tar_size
            meter.tell("transfer")
            send = partial(
                push_archive, prepared, store, key, config.transfer, overwrite=force,
                report=meter.add, look=is_replaced, publishing=partial(meter.tell, "publish"),
            )  # fmt: skip
            try:
                pushed = await send(update=update)
            except CannotCopy as error:
                why_whole = str(error)
                _logger.info("Everything is sent: %s", why_whole)
                meter.restart()
                pushed = await send()
            replaces = await is_replaced()
        receipt = Receipt(
            operation="push",
            name=name,
            repository=remotes.settings.url,
            etag=pushed.info.etag,
            digest=pushed.digest,
            files=scanned.total.files,
            bytes=scanned.total.bytes,
            fingerprint=scanned.fingerprint,
            newest=scanned.newest,
            inode=scanned.inode,
        )
        try:
            await in_thread(home.write_receipt, receipt)
        except EtceteraError as error:
            # It is published all the same; without a receipt, purging it asks for --force.
            _logger.warning("%s was published, but not noted in %s: %s", name, home.path, error)
        meter.finish()
        return result(
            archive_bytes=pushed.info.size,
            digest=pushed.digest,
            etag=pushed.info.etag,
            replaces=replaces,
            levels=pushed.levels,
            copied=pushed.copied,
            why_whole=why_whole,
            seconds=perf_counter() - began,
        )


async def apull(
    name: str,
    force: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> PullResult:
    """Install a dataset from a repository: fetch, inflate, check and write it, all at once.

    The local name is absent, the old dataset or the new one, whole, at any time.

    Args:
        name: Of the dataset; ``lab:NAME`` to pull it from the repository *lab*.
        force: Replace a local dataset that has this name.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Where from, by default the one at the top of the configuration.
        dry_run: Say what would be fetched; fetch no more than the index.
        progress: Told how it goes on.

    Raises:
        DatasetNotFound: The repository has no such dataset.
        AlreadyExists: There is a local one of this name and *force* is false.
        ArchiveError: The archive is damaged, or is none.
        NoSpace: It does not fit on the disk.
    """
    repository, name = split_name(name, repository)
    config = await _loaded(config)
    home = Home(config.home)
    config.repository(repository)  # a wrong configuration is told before anything is locked
    if dry_run:
        return await _pull(home, name, config, repository, force, progress, dry_run=True)
    async with home.lock(name):
        return await _pull(home, name, config, repository, force, progress)


async def ainfo(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> DatasetInfo:
    """Tell what a dataset holds.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        remote: Describe the archive in the repository, reading no more than its index.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
        ArchiveError: The archive's index is damaged.
    """
    repository, name = split_name(name, repository)
    config = await _loaded(config)
    if not (remote or repository):
        return await _scanning(local_info, Home(config.home), name)
    async with open_repository(config, repository) as remotes:
        with _naming(remotes.url(name)):
            async with remotes.open(name) as (archive, index):
                return await remote_info(name, remotes, archive, index)


def _base_name(base: str, repository: str | None) -> str:
    other, name = split_name(base, repository)
    if other != repository:
        raise UsageError(f"The base {base} has to be in the repository that is pushed to")
    return name


async def _compare(
    remotes: Repository, base: str | None, name: str, prepared: Prepared, config: Config
) -> tuple[Update | None, str | None]:
    """Find out what the older archive has already, or why everything has to be sent."""
    old = base or name
    try:
        update = await plan_update(
            remotes.store, remotes.key(old), prepared.scan, prepared.plan, config.transfer
        )
    except CannotCopy as error:
        _logger.info("Everything is sent: %s", error)
        return None, str(error)
    if update is not None:
        _logger.info("%.1f MiB of %s stay as they are", update.copied / MiB, remotes.url(old))
    elif base:
        raise DatasetNotFound(
            f"There is no dataset {base} in {remotes.store.url}; etc ls -r shows what there is"
        )
    return update, None


async def _loaded(config: Config | None) -> Config:
    if config is None:
        return await in_thread(Config.load)
    if not isinstance(config, Config):
        raise UsageError(
            f"config= takes an etcetera.Config, not a {type(config).__name__}: "
            "Config.load(path) reads one from a file"
        )
    return config


async def _scanning(
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
    name: str, repository: str | None, config: Config, progress: ProgressCallback
) -> None:
    home = Home(config.home)
    async with home.lock(name):
        # Another process may have been faster.
        if await in_thread(home.find, name) is None:
            await _pull(home, name, config, repository, False, progress)


async def _pull(
    home: Home,
    name: str,
    config: Config,
    repository: str | None,
    force: bool,
    progress: ProgressCallback | None,
    *,
    dry_run: bool = False,
) -> PullResult:
    """Pull while the name is locked."""
    began = perf_counter()
    existing = await in_thread(home.find, name)
    if existing is not None and not force:
        raise AlreadyExists(
            f"There is a local dataset {name} already; pull it with --force to replace it"
        )
    async with open_repository(config, repository) as remotes:
        url = remotes.url(name)
        with _naming(url):
            async with remotes.open(name) as (archive, index):
                result = partial(
                    PullResult,
                    name=name,
                    url=url,
                    path=home.path / name,
                    archive_bytes=archive.info.size,
                    etag=archive.info.etag,
                    replaces=existing is not None,
                )
                if dry_run:
                    footer = index.footer if index else None
                    await in_thread(check_space, home.path, footer.bytes if footer else 0)
                    return result(
                        files=footer.files if footer else None,
                        bytes=footer.bytes if footer else None,
                        digest=footer.digest if footer else None,
                        dry_run=True,
                    )
                meter = Meter("pull", name, progress)
                size, how = archive.info.size / MiB, "with an" if index else "without"
                _logger.info("Archive: %.1f MiB, %s index", size, how)
                meter.total = index.root.data_size if index else None
                meter.tell("transfer")
                async with in_threads(home.stage(name)) as tree:
                    pulled = await pull_archive(archive, index, tree, config.transfer, meter.add)
                    await in_thread(_validate, tree, name, url)
                    meter.tell("install")
                    receipt = Receipt(
                        operation="pull",
                        name=name,
                        repository=remotes.settings.url,
                        etag=archive.info.etag,
                        digest=pulled.digest,
                        files=pulled.files,
                        bytes=pulled.bytes,
                        fingerprint=pulled.fingerprint,
                        newest=time_ns(),
                        inode=(await in_thread(tree.stat)).st_ino,
                    )
                    kept = await in_thread(home.install, tree, name, receipt, force)
    meter.finish()
    return result(
        files=pulled.files,
        bytes=pulled.bytes,
        digest=pulled.digest,
        kept=kept,
        seconds=perf_counter() - began,
    )


def _resolve(path: str | PathLike[str]) -> Path:
    try:
        return Path(os.path.realpath(Path(path).expanduser()))
    except (RuntimeError, ValueError) as error:  # no such user; a NUL
        raise UsageError(f"{os.fspath(path)!r} is no path of a directory: {error}") from error


def _validate(tree: Path, name: str, url: str) -> None:
    try:
        Dataset(tree, name)
    except InvalidDataset as error:
        message = str(error).replace(f"Directory {tree}", url).replace(str(tree), url)
        raise InvalidDataset(message) from error


@contextmanager
def _naming(url: str) -> Iterator[None]:
    """Say in the errors of an archive which one it is."""
    try:
        yield
    except ArchiveError as error:
        named = type(error)(f"{url}: {error}")
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        raise named from error
