"""Local datasets: list, register, create, stage, install, purge.

Everything here blocks, apart from :meth:`Home.lock`; async code calls it in worker threads.

Below the home, ``.etcetera/`` holds what is private: ``staging`` (datasets in the making),
``trash`` (on their way out), ``kept`` (replaced, but in no repository), ``journals`` (of pushes
that can be gone on with), ``locks`` and ``receipts``. It is on the file system of the datasets, so
that renaming moves between them.
"""

import logging
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio.to_thread

from etcetera import atomic
from etcetera.dataset import Dataset, check_name, check_partition, is_name
from etcetera.errors import (
    DatasetNotFound,
    EtceteraError,
    InvalidDataset,
    NotAllowed,
    UsageError,
    os_errors,
)
from etcetera.install import Installer, taken
from etcetera.locks import locked
from etcetera.receipts import Receipt, Receipts
from etcetera.removal import remove_tree
from etcetera.staging import PRIVATE, Private, Resumable, no_directory
from etcetera.times import time_from

if TYPE_CHECKING:
    from etcetera.checked import CheckedArchives
    from etcetera.journals import Journals
    from etcetera.transfer.index_copy import IndexCopy, KeptIndex

_logger = logging.getLogger("etcetera")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEntry:
    """One local dataset, as a listing shows it."""

    name: str
    kind: Literal["pulled", "registered", "created"]
    path: Path
    """Where its files are: for a registered one, what the link leads to."""
    modified: datetime
    """When something was last added to, or removed from, its directory; UTC."""
    broken: bool
    """Registered, but the directory is gone."""
    partial: bool
    """Only a part of it was pulled."""


class Home:
    """The directory of the local datasets.

    Every method that takes a name raises InvalidName before it touches the disk, and translates
    errors of the operating system to NotAllowed, NoSpace or StoreError.
    """

    def __init__(self, path: Path) -> None:
        """Use *path*, which is made when something has to be written."""
        self.path = path
        self._private = Private(path)
        self._receipts = Receipts(path / PRIVATE / "receipts")
        self._installer = Installer(path, self._private, self._receipts)

    @property
    def journals(self) -> "Journals":
        """Of pushes that can be gone on with."""
        from etcetera.journals import Journals  # with what packs and sends: listing needs none

        return Journals(self._private)

    @property
    def checked(self) -> "CheckedArchives":
        """Archives that are known to hold what their indexes say."""
        from etcetera.checked import CheckedArchives

        return CheckedArchives(self._private)

    def names(self) -> list[str]:
        """Return the names of the datasets, sorted; broken links are among them.

        Raises:
            ConfigError: The home is no directory.
            NotAllowed: It cannot be read.
        """
        with os_errors(f"listing {self.path}"):
            try:
                entries = os.scandir(self.path)
            except FileNotFoundError:
                return []
            except NotADirectoryError as error:
                raise no_directory(self.path) from error
            with entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if (entry.is_symlink() or entry.is_dir()) and is_name(entry.name)
                )

    def entries(self) -> list[LocalEntry]:
        """Describe every dataset, without looking at its files.

        Raises:
            ConfigError: The home is no directory.
            NotAllowed: It cannot be read.
        """
        entries = []
        for name in self.names():
            with suppress(DatasetNotFound):  # purged meanwhile
                entries.append(self.entry(name))
        return entries

    def entry(self, name: str) -> LocalEntry:
        """Describe one dataset, without looking at its files.

        Raises:
            DatasetNotFound: There is none of that name.
            NotAllowed: The home cannot be read.
        """
        path = self.path / check_name(name)
        with os_errors(f"reading {path}"):
            try:
                status = path.lstat()
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _not_found(name) from error
        broken = partial = False
        kind: Literal["pulled", "registered", "created"] = "created"
        if stat.S_ISLNK(status.st_mode):
            kind, path = "registered", Path(os.path.realpath(path))
            with suppress(OSError):  # gone, or out of reach
                status = path.stat()
            broken = not stat.S_ISDIR(status.st_mode)
        elif (receipt := self._receipts.read(name, status.st_ino)) and receipt.pulled:
            kind, partial = "pulled", bool(receipt.selections)
        modified = time_from(status.st_mtime)
        return LocalEntry(
            name=name, kind=kind, path=path, modified=modified, broken=broken, partial=partial
        )

    def find(self, name: str) -> Path | None:
        """Return where *name* is, ``None`` if there is nothing; a broken link is something.

        Raises:
            NotAllowed: The home cannot be read.
        """
        path = self.path / check_name(name)
        with os_errors(f"looking for {path}"):
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return path

    def receipt(self, name: str) -> Receipt | None:
        """Return what is known of the dataset's last push or pull, ``None`` if nothing is."""
        try:
            inode = (self.path / check_name(name)).stat().st_ino
        except OSError:
            return None
        return self._receipts.read(name, inode)

    def index(self, receipt: Receipt) -> "KeptIndex | None":
        """Open the index that was kept with *receipt*; ``None`` if none was, or it is damaged."""
        return self._receipts.index(receipt)

    @contextmanager
    def index_copy(self) -> "Iterator[IndexCopy]":
        """Yield what takes an index down for :meth:`write_receipt`; it is gone after the block."""
        # Late, because listing datasets is not to wait for them.
        from tempfile import TemporaryFile

        from etcetera.transfer.index_copy import IndexCopy

        with ExitStack() as stack:
            file = None
            # A transfer must not fail for that.
            with suppress(EtceteraError), os_errors(f"writing to {self.path}"):
                directory = self._private.directory("receipts")
                file = stack.enter_context(TemporaryFile(dir=directory, buffering=0))
            yield IndexCopy(file)

    def write_receipt(self, receipt: Receipt, copy: "IndexCopy | None" = None) -> None:
        """Keep *receipt*, in the place of what was known of this directory before.

        Args:
            receipt: What is known now.
            copy: Of the archive's index.

        Raises:
            NotAllowed, NoSpace: It cannot be written.
        """
        check_name(receipt.name)
        self._private.directory("receipts")
        with os_errors(f"writing the receipt of {receipt.name}"):
            self._receipts.write(receipt, copy)

    def create(
        self, name: str, partitions: Iterable[str] = ("train", "test"), force: bool = False
    ) -> Path:
        """Make an empty dataset and return its directory.

        Raises:
            UsageError: There are no partitions.
            AlreadyExists: The name is taken and *force* is false.
        """
        check_name(name)
        if isinstance(partitions, str):
            raise UsageError(f"Partitions come as a list of names: [{partitions!r}]")
        checked = {check_partition(partition) for partition in partitions}
        if not checked:
            raise UsageError("A dataset needs at least one partition")
        self._refuse_taken(name, force)
        with self.stage(name) as tree:
            with os_errors(f"creating {tree}"):
                for partition in checked:
                    (tree / "data" / partition).mkdir(parents=True)
            _report(name, self.install(tree, name, None, force))
        return self.path / name

    def register(
        self, directory: str | os.PathLike[str], name: str | None = None, force: bool = False
    ) -> str:
        """Make a directory elsewhere a dataset, by a link to it, and return the dataset's name.

        Args:
            directory: Laid out as a dataset; if it is a link, what it leads to is registered.
            name: By default the directory's own.
            force: Whether to replace a dataset that has this name.

        Raises:
            InvalidDataset: The directory is no dataset, or holds the home, or is held by it.
            AlreadyExists: The name is taken and *force* is false.
        """
        if name is not None:
            check_name(name)
        target = Path(os.path.realpath(directory))
        name = name or check_name(target.name)
        Dataset.validate(target)
        home = Path(os.path.realpath(self.path))
        if target == home or target in home.parents:
            raise InvalidDataset(f"{target} cannot be registered: the datasets' home is in it")
        if home in target.parents:
            raise InvalidDataset(
                f"{target} cannot be registered: it is in the datasets' home, {home}, already"
            )
        self._refuse_taken(name, force)
        with self._private.claim("staging", name) as claimed:
            link = claimed / "link"
            with os_errors(f"registering {self.path / name}"):
                link.symlink_to(target, target_is_directory=True)
                _report(name, self._installer.put(link, name, force))
        return name

    def purge(self, name: str, force: bool = False) -> None:
        """Delete a dataset; of a registered one only the link.

        The name is gone at once, even if deleting the files takes long, fails or is interrupted;
        the rest is then deleted by a later call.

        Args:
            name: The dataset.
            force: Whether to delete data of which no repository has a copy.

        Raises:
            DatasetNotFound: There is none of that name.
            NotAllowed: The data was never pushed or pulled, or has changed since, and *force* is
                false; or something cannot be deleted.
        """
        path = self.find(name)
        if path is None or not (path.is_symlink() or path.is_dir()):
            self._receipts.forget(name)  # of one that was purged by a process that died
            raise _not_found(name)
        if not path.is_symlink() and not force and (reason := self._installer.unsaved(name)):
            raise NotAllowed(f"Dataset {name} {reason}: push it first, or purge it with --force")
        with self._private.claim("trash", name) as claimed, os_errors(f"purging {path}"):
            gone = claimed / "tree"
            try:
                self._installer.take_out(name, gone)
            except FileNotFoundError as error:  # somebody else was faster
                raise _not_found(name) from error
            _logger.debug("Deleting %s", gone)
            remove_tree(gone)

    @contextmanager
    def stage(self, name: str) -> Iterator[Path]:
        """Yield an empty directory in which to build a dataset, and delete it afterwards.

        Once installed it is somewhere else, and stays.

        Raises:
            NotAllowed, NoSpace: It cannot be made.
        """
        with self._private.claim("staging", name) as claimed:
            tree = claimed / "tree"
            with os_errors(f"making {tree}"):
                tree.mkdir()
            _logger.debug("Staging %s in %s", name, tree)
            yield tree

    @contextmanager
    def stage_pull(self, name: str) -> Iterator[Resumable]:
        """Yield a directory in which to build *name*, with what earlier pulls have left of it.

        It is deleted afterwards, unless it is kept for the next pull; once installed, the dataset
        is somewhere else, and stays.

        Raises:
            NotAllowed, NoSpace: It cannot be made.
        """
        with self._private.resume(check_name(name)) as resumable:
            _logger.debug("Staging %s in %s", name, resumable.tree)
            yield resumable

    def install(
        self,
        tree: Path,
        name: str,
        receipt: Receipt | None,
        force: bool,
        copy: "IndexCopy | None" = None,
    ) -> Path | None:
        """Make a staged tree the dataset *name*.

        At every moment, also after a crash or power loss, the name is absent, the old dataset or
        the new one, whole.

        Args:
            tree: From :meth:`stage`.
            name: The dataset.
            receipt: What vouches for it, with the inode of *tree*; ``None`` if nothing does.
            force: Whether to replace a dataset that has this name.
            copy: Of the index of the archive that it came from.

        Returns:
            Where the replaced dataset is kept, if no repository has a copy of it.

        Raises:
            AlreadyExists: The name is taken and *force* is false; the receipt is not kept.
            NotAllowed, NoSpace: The tree cannot be written out or moved; nothing has changed.
        """
        check_name(name)
        self._refuse_taken(name, force)
        with os_errors(f"installing {self.path / name}"):
            inode = tree.stat().st_ino
            # An older directory may have had the same inode.
            self._receipts.forget_one(name, inode)
            if receipt is not None:
                self.write_receipt(receipt, copy)
            try:
                _logger.debug("Waiting until %s is on the disk", name)
                atomic.sync_filesystem(tree)
                return self._installer.put(tree, name, force)
            except BaseException:
                self._receipts.forget_one(name, inode)
                raise

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Hold *name* exclusively among all tasks, threads and processes that ask.

        Entering waits, without blocking the event loop, and can be cancelled at any time.

        Raises:
            NotAllowed: The home cannot be written.
        """
        check_name(name)
        directory = await anyio.to_thread.run_sync(self._private.directory, "locks")
        async with locked(directory / f"{name}.lock"):
            yield

    def _refuse_taken(self, name: str, force: bool) -> None:
        """Fail early where the answer is known; only renaming settles it."""
        if not force and self.find(name) is not None:
            raise taken(name)


def _report(name: str, kept: Path | None) -> None:
    if kept is not None:
        _logger.warning(
            "No repository has a copy of the %s that was replaced: it is kept at %s", name, kept
        )


def _not_found(name: str) -> DatasetNotFound:
    return DatasetNotFound(f"There is no local dataset {name}; etc ls shows what there is")
