"""Putting a dataset in its place, whole, without losing what was there."""

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from etcetera import atomic
from etcetera.errors import AlreadyExists, EtceteraError
from etcetera.receipts import Receipts
from etcetera.staging import Private
from etcetera.transfer.scan import scan

_ATTEMPTS = 10
"""How often to try if the name is purged and taken again in the same moment."""


class Installer:
    """Renames what was staged into the home."""

    def __init__(self, home: Path, private: Private, receipts: Receipts) -> None:
        """Install in *home*."""
        self._home = home
        self._private = private
        self._receipts = receipts

    def put(self, staged: Path, name: str, force: bool) -> Path | None:
        """Make *staged* the dataset *name*; return where an unsaved old one is kept."""
        target = self._home / name
        kept, attempts = None, _ATTEMPTS
        while True:
            try:
                atomic.rename_new(staged, target)
                self._sync_or(lambda: atomic.move(target, staged))
                break
            except FileExistsError as error:
                if not force:
                    raise taken(name) from error
            try:
                kept = self._replace(staged, name)
                break
            except FileNotFoundError:
                attempts -= 1
                if not attempts or not os.path.lexists(staged):
                    raise
                # Purged meanwhile: now the name is free, or somebody else has it.
        with suppress(FileNotFoundError):  # purged again, by somebody who did not wait
            self._receipts.forget(name, keep=target.stat().st_ino)
        return kept

    def take_out(self, name: str, aside: Path) -> None:
        """Move the dataset *name* to *aside*, a free path, for good."""
        target = self._home / name
        atomic.move(target, aside)
        # On disk before the first file of it goes: half a dataset must not come back.
        self._sync_or(lambda: atomic.move(aside, target))
        self._receipts.forget(name)

    def _replace(self, staged: Path, name: str) -> Path | None:
        """Put *staged* in the place of the dataset *name*; return where that is kept, if it is."""
        target = self._home / name
        if not target.is_symlink() and self.unsaved(name):
            stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            kept = self._private.directory("kept") / f"{name}.{stamp}"
            self._exchange(staged, target, kept)
            return kept
        with self._private.claim("trash", name) as claimed:
            self._exchange(staged, target, claimed / "tree")
        return None

    def _exchange(self, staged: Path, target: Path, aside: Path) -> None:
        atomic.replace(staged, target, aside)
        self._sync_or(lambda: atomic.replace(aside, target, staged))

    def _sync_or(self, undo: Callable[[], None]) -> None:
        """Wait until the names in the home are on the disk; *undo* the change if that fails."""
        try:
            atomic.sync(self._home)
        except BaseException:
            undo()
            raise

    def unsaved(self, name: str) -> str | None:
        """Say why no repository has a copy of what is there; ``None`` if one has."""
        try:
            inode = (self._home / name).stat().st_ino
        except FileNotFoundError:
            return None
        receipt = self._receipts.read(name, inode)
        if receipt is None:
            return "was never pushed or pulled"
        try:
            if receipt.vouches_for(scan(self._home / name)):
                return None
        except EtceteraError:  # it could not be packed as it is now
            pass
        return f"has changed since it was {receipt.operation}ed"


def taken(name: str) -> AlreadyExists:
    """The error that says that there is such a dataset already."""
    return AlreadyExists(
        f"There is a local dataset {name} already: replace it with --force, or choose another name"
    )
