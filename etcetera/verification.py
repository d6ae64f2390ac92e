"""Whether a dataset, here or in a repository, is what it should be."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from time import perf_counter

from etcetera.api import loaded, scanning
from etcetera.config import Config
from etcetera.errors import (
    ArchiveError,
    CorruptArchive,
    DirectoryNotFound,
    NoIndex,
    UsageError,
    archive_errors,
)
from etcetera.home import Home
from etcetera.progress import Meter, ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import open_repository, split_name
from etcetera.results import VerifyResult
from etcetera.settings import place
from etcetera.transfer.checking import Checked, check
from etcetera.transfer.comparing import Comparison, Differences
from etcetera.transfer.flow import in_thread, processors
from etcetera.transfer.index_copy import KeptIndex
from etcetera.transfer.scan import scan
from etcetera.transfer.selection import wanted_by


async def averify(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    quick: bool = False,
    progress: ProgressCallback | None = None,
) -> VerifyResult:
    """Check a dataset: a local one against what was pushed or pulled, a remote one against itself.

    Of a local dataset every file is read, and compared by SHA-256 with the index that was kept with
    its receipt. Of a remote one all of the archive is fetched and checked, as for a pull, but
    nothing is written. Differences are no error: the result lists them.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        remote: Check the archive in the repository.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.
        quick: Compare sizes and times alone, and read no file.
        progress: Told how it goes on.

    Raises:
        DatasetNotFound: There is none of that name.
        NoIndex: Nobody knows what should be in the local dataset.
        InvalidDataset: The local one holds what no dataset can.
    """
    began = perf_counter()
    repository, name = split_name(name, repository)
    config = await loaded(config)
    meter = Meter("verify", name, progress)
    if not (remote or repository):
        home = Home(config.home)
        found = await _compared(home, name, config, meter, quick=quick)
        meter.finish()
        return VerifyResult(
            name=name,
            kind="local",
            location=str(home.path / name),
            files=found.files,
            bytes=found.bytes,
            missing=tuple(found.missing),
            changed=tuple(found.changed),
            extra=tuple(found.extra),
            quick=quick,
            seconds=perf_counter() - began,
        )
    if quick:
        raise UsageError("An archive has to be read to be checked: there is no quick way")
    async with open_repository(config, repository) as remotes:
        try:
            async with remotes.open(name) as (archive, index):
                meter.total = index.root.data_size if index else None
                meter.tell("transfer")
                checked = await check(archive, index, config.transfer, meter.add)
                if index is not None and not checked.damaged and checked.problem is None:
                    note = Home(config.home).checked.note
                    where = place(remotes.settings)
                    await in_thread(note, where, remotes.key(name), archive.info.etag)
        except ArchiveError as error:  # its end cannot be read
            checked = Checked(problem=str(error))
    meter.finish()
    return VerifyResult(
        name=name,
        kind="remote",
        location=remotes.url(name),
        files=checked.files,
        bytes=checked.bytes,
        changed=tuple(checked.damaged),
        problem=checked.problem,
        seconds=perf_counter() - began,
    )


async def achecksums(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> dict[str, str]:
    """Tell the SHA-256 that each file should have, by path.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        remote: As the archive's index says; otherwise as it was when pushed or pulled.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
        NoIndex: Nobody knows, or only unpacking the archive would tell.
    """
    repository, name = split_name(name, repository)
    config = await loaded(config)
    if not (remote or repository):
        return await scanning(_kept_checksums, Home(config.home), name)
    async with open_repository(config, repository) as remotes:
        with archive_errors(remotes.url(name)):
            async with remotes.open(name) as (_, index):
                if index is None:
                    raise NoIndex(
                        f"{remotes.url(name)} has no index, so only unpacking it would tell: pull "
                        f"it (etc pull {name}), then ask for the checksums of the local one"
                    )
                found: dict[str, str] = {}
                async with aclosing(index.segments()) as segments:
                    async for segment in segments:
                        files = (one for one in segment.members if one.entry.kind == "f")
                        found.update({one.entry.path: one.sha256 for one in files})
                return found


async def _compared(
    home: Home, name: str, config: Config, meter: Meter, *, quick: bool
) -> Differences:
    """Compare a local dataset with the index of its receipt."""
    loop = asyncio.get_running_loop()

    def begin(size: int) -> None:
        meter.total = size
        meter.tell("transfer")

    def compare(stop: threading.Event) -> Differences:
        receipt, index = _kept_index(home, name)
        with index:
            scanned = scan(home.path / name, stop)
            loop.call_soon_threadsafe(begin, 0 if quick else scanned.total.bytes)
            comparison = Comparison(
                scanned,
                quick=quick,
                wanted=partial(wanted_by, receipt.selections),
                stop=stop,
                report=lambda size: loop.call_soon_threadsafe(meter.add, size, 0),
            )
            with _damaged_index(receipt):
                return comparison.run(index.entries(), config.transfer.threads or processors())

    return await scanning(compare)


def _kept_checksums(home: Home, name: str, stop: threading.Event) -> dict[str, str]:
    receipt, index = _kept_index(home, name)
    with index, _damaged_index(receipt):
        found: dict[str, str] = {}
        for entry, sha256 in index.entries():
            if stop.is_set():
                raise InterruptedError
            if entry.kind == "f" and wanted_by(receipt.selections, entry.path):
                found[entry.path] = sha256
        return found


def _kept_index(home: Home, name: str) -> tuple[Receipt, KeptIndex]:
    """Open the index of what a local dataset was pushed to or pulled from.

    Raises:
        DatasetNotFound: There is no such dataset.
        DirectoryNotFound: It is registered, and its directory is gone.
        NoIndex: It was neither pushed nor pulled, or no index was kept.
    """
    entry = home.entry(name)
    if entry.broken:
        raise DirectoryNotFound(
            f"Directory {entry.path} does not exist, which {name} is a link to: put it back, or "
            f"drop the link (etc purge {name})"
        )
    receipt = home.receipt(name)
    if receipt is None:
        raise NoIndex(
            f"Dataset {name} was never pushed or pulled, so nobody knows what should be in it: "
            f"push it first (etc push {name})"
        )
    index = home.index(receipt)
    if index is None:
        raise _no_index(receipt)
    return receipt, index


@contextmanager
def _damaged_index(receipt: Receipt) -> Iterator[None]:
    try:
        yield
    except CorruptArchive as error:
        raise _no_index(receipt) from error


def _no_index(receipt: Receipt) -> NoIndex:
    name, verb = receipt.name, receipt.operation
    return NoIndex(
        f"Dataset {name} was {verb}ed before the index was kept, or what was kept is damaged, so "
        f"nobody knows what should be in it: {verb} it again (etc {verb} {name} --force)"
    )
