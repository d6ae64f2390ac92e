"""Which versions of datasets are here, which are in the repositories, and which should be here."""

import os
import threading
from collections.abc import Iterable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from anyio import Semaphore

from etcetera.api import apull, loaded, scanning
from etcetera.config import Config, RepositorySettings, redact_url
from etcetera.dataset import check_name
from etcetera.errors import (
    ConfigError,
    DatasetNotFound,
    EtceteraError,
    UsageError,
)
from etcetera.home import Home
from etcetera.pins import Lock, Pin, read_lock, version_here
from etcetera.progress import ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import Repository, open_repository, split_name
from etcetera.results import DatasetStatus, SyncResult
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
    receipts = await in_thread(_receipts, home, None if name is None else [name])
    chosen = None if repository is None else config.repository(repository)
    found: dict[str, DatasetStatus] = {}
    limit = Semaphore(_AT_ONCE)
    async with AsyncExitStack() as stack:
        remotes: dict[str, Repository] = {}

        async def look(name: str, receipt: Receipt | None) -> None:
            async with limit:
                result = partial(
                    DatasetStatus,
                    name=name,
                    repository=receipt.repository if receipt else None,
                    digest=receipt.digest if receipt else None,
                )
                try:
                    settings = chosen or _repository_of(receipt, config)
                    result = partial(result, repository=redact_url(settings.url))
                    found[name] = await _status(home, name, remotes[settings.name], result)
                except EtceteraError as error:
                    found[name] = result(state="unknown", reason=str(error))

        for settings in _needed(receipts.values(), chosen, config):
            opened = open_repository(config, settings.name)
            remotes[settings.name] = await stack.enter_async_context(opened)
        async with task_group() as tasks:
            for each, receipt in receipts.items():
                tasks.start_soon(look, each, receipt)
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
    return await scanning(_lock, Home(config.home), [check_name(name) for name in names])


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
        DigestMismatch: The repository has another version by now.
        DatasetNotFound: The repository has no such dataset.
    """
    config = await loaded(config)
    path = Path(filename)
    pins = await in_thread(read_lock, path)
    # All of them first: nothing is pulled if something cannot be.
    repositories = [_pinned_repository(path, pin, config) for pin in pins]
    home = Home(config.home)
    results = []
    for pin, settings in zip(pins, repositories, strict=True):
        action = await scanning(_action, home, pin)
        kept = None
        if action != "nothing" and not dry_run:
            pulled = await apull(
                pin.name,
                action == "replace",
                config,
                repository=settings.name,
                digest=pin.digest,
                progress=progress,
            )
            kept = pulled.kept
        results.append(
            SyncResult(
                name=pin.name, action=action, digest=pin.digest, kept=kept, dry_run=dry_run
            )
        )
    return results
