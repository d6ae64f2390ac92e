"""The same calls, for code that does not await.

Each runs on an event loop of its own, in a thread of its own, for as long as the call lasts: so
they work in plain scripts and in notebooks, where a loop is running already. Ctrl-C cancels the
call, waits until it has cleaned up, and raises KeyboardInterrupt. The twins in
:mod:`etcetera.api` say what each does and raises.
"""

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import wait
from functools import partial
from os import PathLike
from typing import ParamSpec, TypeVar

from anyio.from_thread import start_blocking_portal

from etcetera import api, cleaning, diagnosis, inside, sharing, verification, versions
from etcetera.config import Config
from etcetera.dataset import Dataset
from etcetera.findings import Diagnosis
from etcetera.pins import Lock
from etcetera.progress import ProgressCallback
from etcetera.remote_dataset import RemoteDataset
from etcetera.results import (
    DatasetInfo,
    DatasetSizes,
    DatasetStatus,
    EntryInfo,
    Leftover,
    Listing,
    PullResult,
    PushResult,
    ShareResult,
    SyncResult,
    VerifyResult,
)

_SIGNAL_SECONDS = 0.5
"""How long a signal may go unnoticed."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def run_blocking(
    function: Callable[Parameters, Awaitable[Result]],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call an async function and wait for what it returns."""
    with start_blocking_portal(name="etcetera") as portal:
        future = portal.start_task_soon(partial(function, *args, **kwargs))
        # A signal that another thread has got, or that came just before the wait, wakes nobody.
        while not wait((future,), _SIGNAL_SECONDS).done:
            pass
        return future.result()


def dataset(
    name: str,
    auto_pull: bool = False,
    auto_install: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    digest: str | None = None,
    progress: ProgressCallback | None = None,
) -> Dataset:
    """Open a local dataset, pulling it first if asked to; see :func:`etcetera.api.adataset`."""
    return run_blocking(
        api.adataset,
        name,
        auto_pull,
        auto_install,
        config,
        repository=repository,
        digest=digest,
        progress=progress,
    )


def ls(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[str]:
    """List the names of datasets; see :func:`etcetera.api.als`."""
    return run_blocking(api.als, remote, config, repository=repository)


def listing(
    remote: bool = False, config: Config | None = None, *, repository: str | None = None
) -> list[Listing]:
    """List datasets with size, date and kind; see :func:`etcetera.api.alisting`."""
    return run_blocking(api.alisting, remote, config, repository=repository)


def register(
    dirname: str | PathLike[str],
    name: str | None = None,
    force: bool = False,
    config: Config | None = None,
) -> Dataset:
    """Make a directory a local dataset, by a link; see :func:`etcetera.api.aregister`."""
    return run_blocking(api.aregister, dirname, name, force, config)


def create(
    name: str,
    partitions: Iterable[str] = ("train", "test"),
    force: bool = False,
    config: Config | None = None,
) -> Dataset:
    """Create an empty local dataset; see :func:`etcetera.api.acreate`."""
    return run_blocking(api.acreate, name, partitions, force, config)


def push(
    name: str,
    force: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    base: str | None = None,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> PushResult:
    """Publish a local dataset; see :func:`etcetera.api.apush`."""
    return run_blocking(
        api.apush,
        name,
        force,
        config,
        repository=repository,
        base=base,
        dry_run=dry_run,
        progress=progress,
    )


def pull(
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
    """Install a dataset, or a part of it, from a repository; see :func:`etcetera.api.apull`."""
    return run_blocking(
        api.apull,
        name,
        force,
        config,
        repository=repository,
        partitions=partitions,
        include=include,
        exclude=exclude,
        digest=digest,
        dry_run=dry_run,
        progress=progress,
    )


def purge(name: str, config: Config | None = None, *, force: bool = False) -> None:
    """Delete a local dataset; see :func:`etcetera.api.apurge`."""
    return run_blocking(api.apurge, name, config, force=force)


def info(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> DatasetInfo:
    """Tell what a dataset holds; see :func:`etcetera.api.ainfo`."""
    return run_blocking(api.ainfo, name, remote, config, repository=repository)


def verify(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    quick: bool = False,
    progress: ProgressCallback | None = None,
) -> VerifyResult:
    """Check every file of a dataset; see :func:`etcetera.verification.averify`."""
    return run_blocking(
        verification.averify,
        name,
        remote,
        config,
        repository=repository,
        quick=quick,
        progress=progress,
    )


def checksums(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> dict[str, str]:
    """Tell the SHA-256 of each file; see :func:`etcetera.verification.achecksums`."""
    return run_blocking(verification.achecksums, name, remote, config, repository=repository)


def status(
    name: str | None = None, config: Config | None = None, *, repository: str | None = None
) -> list[DatasetStatus]:
    """Compare datasets with the repositories; see :func:`etcetera.versions.astatus`."""
    return run_blocking(versions.astatus, name, config, repository=repository)


def lock(names: Iterable[str] = (), config: Config | None = None) -> Lock:
    """Tell which versions are here; see :func:`etcetera.versions.alock`."""
    return run_blocking(versions.alock, names, config)


def sync(
    filename: str | PathLike[str],
    config: Config | None = None,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> list[SyncResult]:
    """Have the versions that a lock file names; see :func:`etcetera.versions.async_`."""
    return run_blocking(versions.async_, filename, config, dry_run=dry_run, progress=progress)


def remote(
    name: str, config: Config | None = None, *, repository: str | None = None
) -> RemoteDataset:
    """Open a dataset in a repository, to read from it; see :func:`etcetera.api.aremote`."""
    return run_blocking(api.aremote, name, config, repository=repository)


def entries(
    name: str,
    path: str = "",
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> list[EntryInfo]:
    """List what lies in a directory of a dataset; see :func:`etcetera.inside.aentries`."""
    return run_blocking(inside.aentries, name, path, remote, config, repository=repository)


def sizes(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> DatasetSizes:
    """Tell what each partition takes; see :func:`etcetera.inside.asizes`."""
    return run_blocking(inside.asizes, name, remote, config, repository=repository)


def share(
    name: str,
    expires: str = "7d",
    partition: str | None = None,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> ShareResult:
    """Make a link to a remote dataset; see :func:`etcetera.sharing.ashare`."""
    return run_blocking(sharing.ashare, name, expires, partition, config, repository=repository)


def clean(
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    older_than: float = 7,
    force: bool = False,
    dry_run: bool = False,
) -> list[Leftover]:
    """Remove what transfers left that broke off; see :func:`etcetera.cleaning.aclean`."""
    return run_blocking(
        cleaning.aclean,
        remote,
        config,
        repository=repository,
        older_than=older_than,
        force=force,
        dry_run=dry_run,
    )


def doctor(
    config: Config | None = None, *, repository: str | None = None, write: bool = False
) -> Diagnosis:
    """Say what is wrong, and what to do; see :func:`etcetera.diagnosis.adoctor`."""
    return run_blocking(diagnosis.adoctor, config, repository=repository, write=write)
