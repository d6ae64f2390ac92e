"""Installing a dataset, or a part of one, while its name is locked."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter, time_ns

from etcetera.config import Config
from etcetera.dataset import Dataset
from etcetera.errors import (
    AlreadyExists,
    DigestMismatch,
    ExpiredCredentials,
    InvalidDataset,
    NetworkError,
    NoSpace,
    NotAllowed,
    StoreError,
    UsageError,
    archive_errors,
    os_errors,
)
from etcetera.home import Home
from etcetera.progress import Meter, ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import open_repository
from etcetera.results import PullResult
from etcetera.settings import place
from etcetera.space import free_at
from etcetera.staging import Resumable
from etcetera.stores.common import leave_note
from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.extract import check_space
from etcetera.transfer.flow import in_thread, in_threads
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.options import MiB
from etcetera.transfer.pull import Pulled, Survey, pull, survey
from etcetera.transfer.reuse import Donor
from etcetera.transfer.selection import Selection
from etcetera.transfer.tally import Part

_logger = logging.getLogger("etcetera")

_WORTH_KEEPING = 64 * MiB
"""Bytes that have to be fetched for them to be left to the next pull."""


@dataclass(kw_only=True)
class Pulling:
    """One pull; its name must be locked, but for a dry run."""

    home: Home
    name: str
    config: Config
    repository: str | None
    selection: Selection = field(default_factory=Selection)
    digest: str | None = None
    """What it must have, whatever it is."""
    force: bool = False
    progress: ProgressCallback | None = None

    _wanted: Survey | None = field(default=None, init=False)
    _installed: bool = field(default=False, init=False)

    async def run(self, *, dry_run: bool = False) -> PullResult:
        """Pull, or say what would be pulled; see :func:`etcetera.api.apull`."""
        try:
            with os_errors(f"pulling {self.name} to {self.home.path}"):
                return await self._run(dry_run)
        except (NoSpace, NotAllowed, StoreError) as error:
            # Where it was foreseen, and not the system has refused, the message says it all.
            if isinstance(error.__cause__, OSError):
                place = self.home.path / self.name
                room = await in_thread(self._room) if isinstance(error, NoSpace) else ""
                if room or not self._installed:
                    leave_note(error, room or f"Nothing has changed at {place}")
            raise

    async def _run(self, dry_run: bool) -> PullResult:
        began = perf_counter()
        existing, receipt = await in_thread(self._look)
        async with open_repository(self.config, self.repository) as remotes:
            url = remotes.url(self.name)
            with archive_errors(url):
                async with remotes.open(self.name) as (archive, index):
                    if index is not None:
                        self._check_digest(index.footer.digest, url)
                    selections = self._selections(receipt, archive, index, remotes.selections)
                    result = partial(
                        PullResult,
                        name=self.name,
                        url=url,
                        path=self.home.path / self.name,
                        archive_bytes=archive.info.size,
                        etag=archive.info.etag,
                        replaces=existing is not None and receipt is None,
                        partial=bool(selections),
                    )
                    self._wanted = wanted = await _survey(index, selections)
                    if dry_run:
                        await in_thread(check_space, self.home.path, wanted.bytes if wanted else 0)
                        return result(
                            files=wanted.files if wanted else None,
                            bytes=wanted.bytes if wanted else None,
                            digest=index.footer.digest if index else None,
                            received=wanted.length if wanted else None,
                            dry_run=True,
                        )
                    size, how = archive.info.size / MiB, "with an" if index else "without"
                    _logger.info("Archive: %.1f MiB, %s index", size, how)
                    meter = Meter("pull", self.name, self.progress)
                    meter.total = wanted.tar_size if wanted else None
                    meter.tell("transfer")
                    async with (
                        in_threads(self.home.stage_pull(self.name)) as staged,
                        in_threads(self.home.index_copy()) as copy,
                    ):
                        donors = await in_thread(_donors, staged, existing)
                        with self._keeping(staged, meter, resumable=index is not None):
                            if wanted:
                                await in_thread(_check_space, staged, wanted.bytes)
                            pulled = await pull(
                                archive,
                                index,
                                staged.tree,
                                self.config.transfer,
                                meter.add,
                                part=Part(*selections)
                                if selections and not remotes.selections
                                else None,
                                donors=donors,
                                copy=copy,
                            )
                        self._check_digest(pulled.digest, url)
                        await in_thread(_validate, staged.tree, self.name, url)
                        await in_thread(remotes.check, staged.tree)
                        meter.tell("install")
                        kept = await in_thread(
                            self._install, staged.tree, archive, pulled, selections,
                            remotes.settings.url, existing is not None, copy,
                        )  # fmt: skip
                        self._installed = True
                        if index is not None and not donors and not selections:
                            # All of its frames were read.
                            note = self.home.checked.note
                            where = place(remotes.settings)
                            await in_thread(note, where, remotes.key(self.name), archive.info.etag)
        meter.finish()
        return result(
            files=pulled.files,
            bytes=pulled.bytes,
            digest=pulled.digest,
            received=pulled.received,
            kept=kept,
            seconds=perf_counter() - began,
        )

    def _room(self) -> str:
        """Say what is needed, as far as it is known, and what there is."""
        free = free_at(self.home.path)
        if self._wanted is None:
            return free
        files, size = self._wanted.files, self._wanted.bytes
        return f"The dataset needs {size:,} bytes in {files:,} files, and {free}"

    def _check_digest(self, found: str, url: str) -> None:
        if self.digest not in (None, found):
            raise DigestMismatch(
                f"{url} has another version of {self.name} than was asked for: its digest is "
                f"{found}, not {self.digest}; nothing was installed"
            )

    def _look(self) -> tuple[Path | None, Receipt | None]:
        """What is here already, and the receipt of a part that is to be added to.

        Raises:
            AlreadyExists: It is neither a part, nor to be replaced.
        """
        existing = self.home.find(self.name)
        if existing is None or self.force:
            return existing, None
        receipt = self.home.receipt(self.name)
        if receipt is None or not receipt.selections:
            raise AlreadyExists(
                f"There is a local dataset {self.name} already; pull it with --force to replace it"
            )
        return existing, receipt

    def _selections(
        self,
        receipt: Receipt | None,
        archive: Archive,
        index: Index | None,
        held: tuple[Selection, ...],
    ) -> tuple[Selection, ...]:
        """What is to be there afterwards; empty if it is all of the dataset.

        Args:
            receipt: Of the part that is here.
            archive: What is pulled.
            index: Its index, if it has one.
            held: What part of the dataset the archive holds; empty if it holds all of it.

        Raises:
            AlreadyExists: What is here is a part of another version, or cannot be added to.
            UsageError: A part is wanted of an archive that holds only a part.
        """
        if held:
            if self.selection:
                raise UsageError("The link opens one partition alone: leave out what to take of it")
            if receipt is not None:
                raise AlreadyExists(
                    f"A part of {self.name} is here already, and a link to a partition cannot add "
                    "to it: give it another name (etc pull LINK as NAME), or pull it with --force "
                    "to replace what is here"
                )
            return held
        if receipt is not None:
            same = index.footer.digest == receipt.digest if index else False
            if not same and archive.info.etag != receipt.etag:
                raise AlreadyExists(
                    f"A part of {self.name} is here, and the repository has another version of it "
                    "by now; pull with --force to replace what is here"
                )
        if not self.selection:
            return ()
        older = receipt.selections if receipt is not None else ()
        # The patterns of the last one must fit something.
        return (*(one for one in older if one != self.selection), self.selection)

    @contextmanager
    def _keeping(self, staged: Resumable, meter: Meter, *, resumable: bool) -> Iterator[None]:
        """Leave what was fetched, now or earlier, to the next pull if that can go on with it."""
        earlier = bool(staged.left)
        try:
            yield
        except (NetworkError, ExpiredCredentials, NoSpace, asyncio.CancelledError) as error:
            # A disk that is full is not kept full for what only this pull has fetched.
            worth = meter.transferred > _WORTH_KEEPING and not isinstance(error, NoSpace)
            if resumable and (earlier or worth):
                staged.keep()
                leave_note(
                    error,
                    f"What was fetched of {self.name} is kept: pull it again to go on from there, "
                    "or drop it with: etc clean --force",
                )
            raise

    def _install(
        self,
        tree: Path,
        archive: Archive,
        pulled: Pulled,
        selections: tuple[Selection, ...],
        repository: str,
        replaces: bool,
        copy: IndexCopy,
    ) -> Path | None:
        receipt = Receipt(
            operation="pull",
            name=self.name,
            repository=repository,
            etag=archive.info.etag,
            digest=pulled.digest,
            files=pulled.files,
            bytes=pulled.bytes,
            fingerprint=pulled.fingerprint,
            newest=time_ns(),
            inode=tree.stat().st_ino,
            selections=selections,
        )
        return self.home.install(tree, self.name, receipt, replaces, copy)


async def _survey(index: Index | None, selections: tuple[Selection, ...]) -> Survey | None:
    """What a pull will take; ``None`` if only unpacking can tell."""
    if index is None:
        return None
    if selections:
        return await survey(index, Part(*selections))
    footer, root = index.footer, index.root
    return Survey(footer.files, footer.bytes, root.data_size, root.data_stop)


def _check_space(staged: Resumable, needed: int) -> None:
    """Refuse what does not fit; what was left is moved, and so needs no more."""
    here = sum(
        os.lstat(Path(directory, name)).st_blocks * 512
        for tree in staged.left
        for directory, _, names in os.walk(tree)
        for name in names
    )
    check_space(staged.tree, max(0, needed - here))


def _donors(staged: Resumable, existing: Path | None) -> list[Donor]:
    donors = [Donor(tree, ours=True) for tree in staged.left]
    if donors:
        _logger.info("Going on with what an interrupted pull has left")
    if existing is not None:
        donors.append(Donor(Path(os.path.realpath(existing)), ours=False))
        _logger.info("Files that have not changed are taken from %s", existing)
    return donors


def _validate(tree: Path, name: str, url: str) -> None:
    try:
        Dataset(tree, name)
    except InvalidDataset as error:
        message = str(error).replace(f"Directory {tree}", url).replace(str(tree), url)
        raise InvalidDataset(message) from error
