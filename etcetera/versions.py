"""Which versions of datasets are here, which are in the repositories, and which should be here."""

import os
import threading
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

from anyio import Semaphore

from etcetera.api import apull, loaded, scanning
from etcetera.config import Config
from etcetera.dataset import check_name
from etcetera.errors import ConfigError, DirectoryNotFound, EtceteraError, UsageError
from etcetera.home import Home
from etcetera.links import is_link
from etcetera.pins import Lock, Pin, read_lock, version_here
from etcetera.progress import ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import Repository, open_repository, split_name
from etcetera.results import DatasetStatus, SyncResult
from etcetera.settings import RepositorySettings, redact_url
from etcetera.transfer.flow import in_thread, task_group

_AT_ONCE = 8
"""Datasets that are looked at at the same time."""


async def astatus(
    name: str | None = None, config: Config | None = None, *, repository: str | None = None
) -> list[DatasetStatus]:
    """Compare local datasets with what the repositories have; no file is read or fetched.

    Each is compared with the repository that it was last pushed to or pulled from.

    Args:
        name: Of one dataset, by default all; ``lab:NAME`` to compare with the repository *lab*.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Compare with this one instead.

    Raises:
        DatasetNotFound: There is no such local dataset.
    """
    if name is not None:
        repository, name = split_name(name, repository)
    config = await loaded(config)
    home = Home(config.home)
    receipts = await in_thread(_receipts, home, name)
    if repository is not None:
        config.repository(repository)  # a wrong name is told, not repeated for each dataset
    found: dict[str, DatasetStatus] = {}
    limit = Semaphore(_AT_ONCE)

    async def look(name: str, receipt: Receipt | None, remotes: Repository) -> None:
        async with limit:
            found[name] = await _status(home, name, receipt, remotes)

    async with AsyncExitStack() as stack:
        opened: dict[str, Repository] = {}
        async with task_group() as tasks:
            for each, receipt in receipts.items():
                try:
                    settings = _compared_with(receipt, repository, config)
                    if settings.name not in opened:
                        entered = open_repository(config, settings.name)
                        opened[settings.name] = await stack.enter_async_context(entered)
                except ConfigError as error:
                    found[each] = _unknown(each, receipt, str(error))
                else:
                    tasks.start_soon(look, each, receipt, opened[settings.name])
    return [found[each] for each in receipts]


async def alock(names: Iterable[str] = (), config: Config | None = None) -> Lock:
    """Tell which versions of which datasets are here, for :func:`async_` on another machine.

    What was never pushed or pulled, has changed since, or is only a part cannot be pinned: it is
    left out, and the result says why.

    Args:
        names: Of local datasets, by default all.
        config: Settings, by default from ``~/.etc.toml`` and the environment.

    Raises:
        DatasetNotFound: There is no local dataset of one of the names.
    """
    if isinstance(names, str):
        raise UsageError(f"A list of names is wanted: [{names!r}], not {names!r}")
    config = await loaded(config)
    names = [check_name(name) for name in names]
    return await scanning(_lock, Home(config.home), names, config)


async def async_(
    filename: str | os.PathLike[str],
    config: Config | None = None,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> list[SyncResult]:
    """Have exactly the versions that a lock file names; other datasets are left alone.

    What is missing is pulled, what is here in another version is replaced; of that, data that no
    repository has is kept. (``async`` is a keyword, so this name has an underscore instead of the
    letters that the sync one has.)

    Args:
        filename: The lock file.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        dry_run: Only say what would be done.
        progress: Told how each pull goes on.

    Raises:
        ConfigError: It is no lock file, or names a repository that is not configured.
        DirectoryNotFound: A registered dataset is a link to nowhere.
        DigestMismatch: The repository has another version by now.
        DatasetNotFound: The repository has no such dataset.
    """
    config = await loaded(config)
    path = Path(filename)
    pins = await in_thread(read_lock, path)
    # All of them first: nothing is pulled if something cannot be.
    repositories = await in_thread(lambda: [_pinned_repository(path, pin, config) for pin in pins])
    home = Home(config.home)
    results = []
    for pin, settings in zip(pins, repositories, strict=True):
        action = await scanning(_action, home, pin)
        kept = None
        if action != "nothing":
            pulled = await apull(
                pin.name,
                action == "replace",
                config,
                repository=settings.name,
                digest=pin.digest,
                dry_run=dry_run,
                progress=progress,
            )
            kept = pulled.kept
        results.append(
            SyncResult(name=pin.name, action=action, digest=pin.digest, kept=kept, dry_run=dry_run)
        )
    return results


def _receipts(home: Home, name: str | None) -> dict[str, Receipt | None]:
    """The receipts of all local datasets, or of one."""
    if name is not None:
        home.entry(name)  # which says that there is none
    return {each: home.receipt(each) for each in ([name] if name is not None else home.names())}


def _compared_with(
    receipt: Receipt | None, repository: str | None, config: Config
) -> RepositorySettings:
    """The repository that a dataset is to be compared with.

    Raises:
        ConfigError: It is not in the configuration.
    """
    if receipt is None or repository is not None:
        return config.repository(repository)
    settings = config.repository_at(receipt.repository)
    if settings is None:
        if is_link(receipt.repository):
            raise ConfigError(
                "It came by a link, which is not followed again: name the repository that has it "
                "(--repository)"
            )
        origin = "pushed to" if receipt.operation == "push" else "pulled from"
        raise ConfigError(
            f"It was {origin} {receipt.repository}, which is no repository of the configuration: "
            "add a table [repositories.NAME] with this url"
        )
    return settings


async def _status(
    home: Home, name: str, receipt: Receipt | None, remotes: Repository
) -> DatasetStatus:
    url = redact_url(remotes.settings.url)
    digest: str | None
    try:
        info = await remotes.store.head(remotes.key(name))
        if info is None:
            digest = receipt.digest if receipt is not None else None
            return DatasetStatus(name=name, state="absent", repository=url, digest=digest)
        _, reason = await scanning(version_here, home, name)
        if receipt is None:
            return _unknown(name, receipt, f"It {reason}", url)
        digest = receipt.digest
        if receipt.repository != url or receipt.etag != info.etag:
            async with remotes.open(name) as (_, index):
                digest = index.footer.digest if index is not None else None
        if digest is None:
            return _unknown(
                name, receipt, "The archive there is another one, and has no index to tell", url
            )
    except EtceteraError as error:
        return _unknown(name, receipt, str(error), url)
    states: dict[tuple[bool, bool], Literal["same", "older", "changed", "different"]] = {
        (True, True): "same",
        (True, False): "older",
        (False, True): "changed",
        (False, False): "different",
    }
    return DatasetStatus(
        name=name,
        state=states[reason is None, digest == receipt.digest],
        repository=url,
        digest=receipt.digest,
        remote_digest=digest,
    )


def _unknown(
    name: str, receipt: Receipt | None, reason: str, url: str | None = None
) -> DatasetStatus:
    return DatasetStatus(
        name=name,
        state="unknown",
        repository=url or (receipt.repository if receipt is not None else None),
        digest=receipt.digest if receipt is not None else None,
        reason=reason,
    )


def _lock(home: Home, names: list[str], config: Config, stop: threading.Event) -> Lock:
    pins: list[Pin] = []
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(names or home.names()):
        home.entry(name)  # which says that there is none
        try:
            receipt, reason = version_here(home, name, stop)
        except EtceteraError as error:
            left_out[name] = f"cannot be looked at: {error}"
            continue
        if receipt is not None and is_link(receipt.repository):
            reason = "came by a link, which others may not have, or not for long"
        elif receipt is not None and receipt.selections:
            whole = config.called(name, receipt.repository)
            reason = f"is only a part: etc pull {whole} fetches the rest"
        if receipt is None or reason is not None:
            left_out[name] = str(reason)
            continue
        pins.append(
            Pin(
                name=name,
                repository=receipt.repository,
                digest=receipt.digest,
                files=receipt.files,
                bytes=receipt.bytes,
            )
        )
    return Lock(datasets=tuple(pins), left_out=left_out)


def _pinned_repository(path: Path, pin: Pin, config: Config) -> RepositorySettings:
    """The configured repository that a lock file means; no other is ever connected to."""
    settings = config.repository_at(pin.repository)
    if settings is None:
        raise ConfigError(
            f"{path}: {pin.name} is in {pin.repository!r}, which is no repository of the "
            "configuration: add a table [repositories.NAME] with this url, if you trust it"
        )
    return settings


def _action(home: Home, pin: Pin, stop: threading.Event) -> Literal["nothing", "pull", "replace"]:
    """What has to be done to have the version that is pinned.

    Raises:
        DirectoryNotFound: It is registered, and its directory is away, perhaps for a while.
        EtceteraError: What is here cannot be looked at, so nothing is put in its place.
    """
    if home.find(pin.name) is None:
        return "pull"
    entry = home.entry(pin.name)
    if entry.broken:
        raise DirectoryNotFound(
            f"{pin.name} is a link to {entry.path}, which does not exist: put it back, or drop the "
            f"link (etc purge {pin.name}), then synchronise again"
        )
    receipt, reason = version_here(home, pin.name, stop)
    same = receipt is not None and receipt.digest == pin.digest and not receipt.selections
    return "nothing" if same and reason is None else "replace"
