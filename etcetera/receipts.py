"""Receipts: which local datasets are also in a repository, and as what."""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from etcetera import atomic
from etcetera.errors import CorruptArchive, InvalidDataset, UsageError
from etcetera.settings import redact_url
from etcetera.transfer.descend import open_inside
from etcetera.transfer.options import MiB
from etcetera.transfer.scan import Scan
from etcetera.transfer.selection import Selection

if TYPE_CHECKING:
    from etcetera.transfer.index_copy import IndexCopy, KeptIndex


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_ATTEMPTS = 5
"""How often a receipt is written that somebody sweeps away meanwhile."""
_WRITING_SECONDS = 3600
"""Age at which a file that was to become a receipt cannot be in the making any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What was known of a dataset when it was pushed or pulled."""

    operation: Literal["push", "pull"]
    name: str
    """The local dataset."""
    repository: str
    """Its URL; what could be a secret in it is not kept."""
    etag: str
    """Of the archive."""
    digest: str
    """Of the dataset: names a version of the data."""
    files: int
    bytes: int
    fingerprint: str
    """Of the directory, see :class:`etcetera.transfer.scan.Fingerprint`."""
    newest: int
    """When anything in it was last changed, in any way: no status change time may be later."""
    inode: int
    """``st_ino`` of the directory it speaks of, so that it never vouches for another one."""
    time: str = field(default_factory=_now)
    """UTC, ISO 8601."""
    pulled: bool = False
    """Whether the directory came by a pull, even if it was pushed since."""
    selections: tuple[Selection, ...] = ()
    """What was taken of the archive, each pull adding to it; empty if all of it was.

    *digest* is then what the archive says of the whole, while *files* and the rest are of the part.
    """

    def vouches_for(self, scanned: Scan) -> bool:
        """Whether nothing has changed since, as far as can be told without reading all of it."""
        return scanned.fingerprint == self.fingerprint and scanned.newest <= self.newest

    def __post_init__(self) -> None:
        if self.operation == "pull":
            object.__setattr__(self, "pulled", True)


_LARGEST = 4 * MiB
"""Bytes of a receipt that is read; whatever else lies in its place is none."""


class Receipts:
    """The receipts of one home, by dataset and directory, each with the index of its archive.

    A name can have two for a moment: one speaks of the dataset that is there, one of the dataset
    that is about to take its place.
    """

    def __init__(self, directory: Path) -> None:
        """Keep them in *directory*."""
        self.directory = directory

    def read(self, name: str, inode: int) -> Receipt | None:
        """Return what speaks of this very directory; ``None`` if nothing legible does."""
        try:
            path = self._path(name, inode)
            with os.fdopen(open_inside(path.parent, path.name), "rb") as file:
                content = file.read(_LARGEST + 1)
            if len(content) > _LARGEST:
                return None
            receipt = _parse(json.loads(content))
        except (OSError, ValueError, RecursionError):
            return None
        return receipt if receipt and (receipt.name, receipt.inode) == (name, inode) else None

    def index(self, receipt: Receipt) -> "KeptIndex | None":
        """Open the index that came with *receipt*; ``None`` if no legible one did."""
        # Late, because listing datasets is not to wait for the codecs.
        from etcetera.transfer.index_copy import KeptIndex

        try:
            index = KeptIndex(self._index(receipt.name, receipt.inode))
        except (OSError, CorruptArchive, InvalidDataset):
            return None
        if index.footer.digest == receipt.digest:
            return index
        index.close()  # of another receipt, which could not be written
        return None

    def write(self, receipt: Receipt, copy: "IndexCopy | None" = None) -> None:
        """Keep *receipt*, and the index, in the place of an older one for the same directory.

        That the directory was pulled is not forgotten.

        Raises:
            OSError: It cannot be written.
        """
        older = self.read(receipt.name, receipt.inode)
        pulled = receipt.pulled or (older is not None and older.pulled)
        kept = replace(receipt, repository=redact_url(receipt.repository), pulled=pulled)
        for _ in range(_ATTEMPTS - 1):
            # Where no lock works, or a push takes none, a purge may delete the directory meanwhile.
            with suppress(FileNotFoundError):
                self._keep(kept, copy)
                return
        self._keep(kept, copy)

    def _keep(self, receipt: Receipt, copy: "IndexCopy | None") -> None:
        path = self._path(receipt.name, receipt.inode)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        index = self._index(receipt.name, receipt.inode)
        # First, so that every receipt has its index, whenever the process dies.
        if copy is None or not atomic.write(index, copy.save):
            index.unlink(missing_ok=True)
        text = json.dumps(asdict(receipt)).encode()
        atomic.write(path, lambda file: file.write(text))

    def forget(self, name: str, *, keep: int | None = None) -> None:
        """Delete all receipts of *name*, but not the one of the inode *keep*."""
        kept = () if keep is None else (self._path(name, keep), self._index(name, keep))
        with suppress(OSError):  # one too many vouches for a directory that is gone: harmless
            for path in (self.directory / name).iterdir():
                if path not in kept and not _is_being_written(path):
                    path.unlink()
            if not kept:
                (self.directory / name).rmdir()

    def forget_one(self, name: str, inode: int) -> None:
        """Delete the receipt of this very directory, if there is one.

        Raises:
            OSError: It is there and cannot be deleted.
        """
        self._path(name, inode).unlink(missing_ok=True)
        self._index(name, inode).unlink(missing_ok=True)

    def _path(self, name: str, inode: int) -> Path:
        return self.directory / name / f"{inode}.json"

    def _index(self, name: str, inode: int) -> Path:
        return self.directory / name / f"{inode}.index"


def _is_being_written(path: Path) -> bool:
    return path.name.startswith(".") and time.time() - path.lstat().st_mtime < _WRITING_SECONDS


def _parse(given: object) -> Receipt | None:
    types: dict[str, type] = {
        "files": int, "bytes": int, "inode": int, "newest": int, "pulled": bool, "selections": list
    }  # fmt: skip
    keys = [item.name for item in fields(Receipt)]
    if not isinstance(given, dict):
        return None
    value: dict[str, Any] = {
        "pulled": False,
        "selections": [],
    } | given  # older versions did not write these
    if value.keys() != set(keys):
        return None
    if any(not isinstance(value[key], types.get(key, str)) for key in keys):
        return None
    try:
        value["selections"] = tuple(Selection.of(**one) for one in value["selections"])
    except (TypeError, UsageError):
        return None
    return Receipt(**value) if value["operation"] in ("push", "pull") else None
