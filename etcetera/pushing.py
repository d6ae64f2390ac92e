"""Publishing a dataset: all of it, the rest of it, or what an older archive has not."""

import logging
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from etcetera.config import Config
from etcetera.dataset import Dataset
from etcetera.errors import (
    AlreadyExists,
    DatasetNotFound,
    EtceteraError,
    InvalidDataset,
    NoSpace,
    os_errors,
)
from etcetera.home import Home
from etcetera.progress import Meter, ProgressCallback
from etcetera.receipts import Receipt
from etcetera.repository import Repository, open_repository
from etcetera.results import PushResult
from etcetera.settings import place
from etcetera.stores import CannotCopy, ObjectInfo
from etcetera.stores.common import leave_note
from etcetera.transfer.flow import beside, in_thread, in_threads
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.options import MiB
from etcetera.transfer.parts import archive_bound
from etcetera.transfer.push import Prepared, Pushed, prepare, push
from etcetera.transfer.scan import Scan
from etcetera.transfer.update import Update, plan_update

_logger = logging.getLogger("etcetera")


@dataclass(kw_only=True)
class Pushing:
    """One push."""

    home: Home
    name: str
    config: Config
    repository: str | None
    base: str | None
    force: bool
    progress: ProgressCallback | None

    async def run(self, *, dry_run: bool) -> PushResult:
        """Push, or say what would be pushed; see :func:`etcetera.api.apush`."""
        with os_errors(f"pushing {self.name} from {self.home.path}"):
            return await self._run(dry_run)

    async def _run(self, dry_run: bool) -> PushResult:
        began = perf_counter()
        dataset = await in_thread(self._open)
        async with open_repository(self.config, self.repository) as remotes:
            store, key, url = remotes.store, remotes.key(self.name), remotes.url(self.name)
            meter = Meter("push", self.name, self.progress)
            meter.tell("scan")
            async with beside(partial(store.head, key)) as head:

                async def is_replaced() -> bool:
                    return self._check_free(await head(), url)

                prepared = await prepare(dataset.root, store, self.config.transfer)
                update, why_whole = None, None
                wanted = bool(self.base) or (self.force and self.base is None)
                # A taken name is refused before anything else.
                if wanted and (await is_replaced() or self.base):
                    update, why_whole = await self._compare(remotes, prepared)
                scanned, plan = prepared.scan, prepared.plan
                copied, bound = 0, plan.bound
                if update is not None:
                    copied = update.copied
                    bound = copied + archive_bound(scanned, update.kept_size)
                result = partial(
                    PushResult,
                    name=self.name,
                    url=url,
                    files=scanned.total.files,
                    bytes=scanned.total.bytes,
                    part_size=plan.part_size,
                    memory=plan.memory,
                    public=remotes.settings.public,
                )
                if dry_run:
                    return result(
                        archive_bytes=bound,
                        replaces=await is_replaced(),
                        copied=copied,
                        why_whole=why_whole,
                        dry_run=True,
                    )
                _logger.info(
                    "Plan: %d files, at most %.1f MiB to send, in parts of %.1f MiB, %d at once",
                    scanned.total.files, (bound - copied) / MiB,
                    plan.part_size / MiB, plan.workers,
                )  # fmt: skip
                meter.total = scanned.tar_size
                meter.tell("transfer")
                async with in_threads(self.home.index_copy()) as copy:
                    send = partial(
                        push, prepared, store, key, self.config.transfer, overwrite=self.force,
                        report=meter.add, look=is_replaced, copy=copy,
                        publishing=partial(meter.tell, "publish"),
                    )  # fmt: skip
                    journal = partial(self.home.journals.of, self.name, remotes.settings, key)
                    try:
                        pushed = await send(update=update, journal=await in_thread(journal))
                    except CannotCopy as error:
                        why_whole = str(error)
                        _logger.info("Everything is sent: %s", why_whole)
                        meter.restart()
                        pushed = await send(journal=await in_thread(journal))
                    except NoSpace as error:
                        leave_note(error, f"The archive needs at most {bound:,} bytes")
                        raise
                    replaces = await is_replaced()
                    await in_thread(self._note, remotes.settings.url, scanned, pushed, copy)
                    await in_thread(
                        self.home.checked.note, place(remotes.settings), key, pushed.info.etag
                    )
        meter.finish()
        return result(
            archive_bytes=pushed.info.size,
            digest=pushed.digest,
            etag=pushed.info.etag,
            replaces=replaces,
            levels=pushed.levels,
            resumed=pushed.resumed,
            copied=pushed.copied,
            why_whole=why_whole,
            seconds=perf_counter() - began,
        )

    def _open(self) -> Dataset:
        """Open the dataset.

        Raises:
            DatasetNotFound: There is none of that name.
            InvalidDataset: Only a part of it is here.
        """
        name = self.name
        if self.home.find(name) is None:
            raise DatasetNotFound(f"There is no local dataset {name}; etc ls shows what there is")
        dataset = Dataset(self.home.path / name, name)
        receipt = self.home.receipt(name)
        if receipt is not None and receipt.selections:
            whole = self.config.called(name, receipt.repository)
            raise InvalidDataset(
                f"Only a part of {name} is here, and a part is not published as the whole: pull "
                f"the rest (etc pull {whole}), or register a copy of it under another name"
            )
        return dataset

    def _check_free(self, existing: ObjectInfo | None, url: str) -> bool:
        """Return whether something is replaced.

        Raises:
            AlreadyExists: It is, and nobody said to.
        """
        if existing and not self.force:
            raise AlreadyExists(
                f"{url} exists already; push it with --force to replace it, or give the dataset "
                "another name"
            )
        return existing is not None

    async def _compare(
        self, remotes: Repository, prepared: Prepared
    ) -> tuple[Update | None, str | None]:
        """Find out what the older archive has already, or why everything has to be sent."""
        old = self.base or self.name
        try:
            update = await plan_update(
                remotes.store,
                remotes.key(old),
                prepared.scan,
                prepared.plan,
                self.config.transfer,
                partial(self.home.checked.knows, place(remotes.settings), remotes.key(old)),
            )
        except CannotCopy as error:
            # A name that was mistyped is told, whatever the store can do.
            if self.base and await remotes.store.head(remotes.key(old)) is None:
                raise self._no_base(remotes) from error
            _logger.info("Everything is sent: %s", error)
            return None, str(error)
        if update is not None:
            _logger.info("%.1f MiB of %s stay as they are", update.copied / MiB, remotes.url(old))
        elif self.base:
            raise self._no_base(remotes)
        return update, None

    def _no_base(self, remotes: Repository) -> DatasetNotFound:
        return DatasetNotFound(
            f"There is no dataset {self.base} in {remotes.store.url}; etc ls -r shows what there is"
        )

    def _note(self, repository: str, scanned: Scan, pushed: Pushed, copy: IndexCopy) -> None:
        receipt = Receipt(
            operation="push",
            name=self.name,
            repository=repository,
            etag=pushed.info.etag,
            digest=pushed.digest,
            files=scanned.total.files,
            bytes=scanned.total.bytes,
            fingerprint=scanned.fingerprint,
            newest=scanned.newest,
            inode=scanned.inode,
        )
        try:
            self.home.write_receipt(receipt, copy)
        except EtceteraError as error:
            # It is published all the same; without a receipt, purging it asks for --force.
            _logger.warning(
                "%s was published, but not noted in %s: %s", self.name, self.home.path, error
            )
