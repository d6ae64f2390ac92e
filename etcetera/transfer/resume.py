"""Going on with a push that was cut off.

Which members share a frame follows from the scan alone, so while no file changes the frames are the
same each time; those that a journal knows are not packed again, only told to the index.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator

from anyio import sleep

from etcetera import __version__
from etcetera.errors import NotAllowed, StoreError
from etcetera.stores import CannotResume, ObjectInfo, Store
from etcetera.transfer import codec
from etcetera.transfer.codec import KnownFrame
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.journal import DamagedJournal, Facts, Journal, Rows, Saved
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pack import Group, Slice
from etcetera.transfer.parts import Copy, PartPlan, Piece, length_of
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import header_size, padded

_BASE = "base"
_WHY = {
    "version": "another version of etcetera began it",
    "codec": "another codec or kind of processor began it",
    "level": "the compression level is another one now",
    "part_size": "the part size is another one now",
    _BASE: "the older archive is another one now",
}
_TORN = "its parts and frames do not go together"
_CHANGED = "the dataset has changed since"

_logger = logging.getLogger("etcetera")

_LOCK_TRIES, _LOCK_PAUSE = 10, 0.1
"""How often the journal is asked for, and the seconds between."""


def lasting_facts(scanned: Scan) -> Facts:
    """What has to be the same for any process to go on with the push of another."""
    return {
        "version": __version__,
        "codec": codec.identity(),
        "fingerprint": scanned.fingerprint,
        "newest": scanned.newest,
        "inode": scanned.inode,
        "entries": scanned.entries_count,
    }


def facts(
    scanned: Scan, plan: PartPlan, options: TransferOptions, base: ObjectInfo | None
) -> Facts:
    """Everything that has to be the same for one process to go on with the push of another.

    Args:
        scanned: The dataset.
        plan: How it is cut.
        options: How it is compressed.
        base: The older archive of which something stays.
    """
    return {
        **lasting_facts(scanned),
        "level": "auto" if options.level is None else options.level,
        "part_size": plan.part_size,
        _BASE: f"{base.etag} {base.key}" if base else "",
    }


def is_whole(saved: Saved) -> bool:
    """Whether an earlier push copies nothing from an older archive."""
    return saved.facts.get(_BASE) == ""


def why_not(saved: Saved, now: Facts) -> str:
    """Why a push that is described by *now* cannot go on with an earlier one; empty if it can.

    One that sends everything is gone on with as such, whatever could be copied by now.
    """
    if is_whole(saved):
        now = {name: value for name, value in now.items() if name != _BASE}
    different = [name for name, value in now.items() if saved.facts.get(name) != value]
    return _WHY.get(different[0], _CHANGED) if different else ""


async def load_earlier(
    journal: Journal, describe: Callable[[], Facts], store: Store, key: str
) -> Saved | None:
    """What an earlier push has left, if this one can go on with it; otherwise it is dropped.

    Raises:
        NetworkError: The store cannot be told to drop it.
    """
    for _ in range(_LOCK_TRIES):  # etc clean holds it while it looks
        if await in_thread(journal.lock):
            break
        await sleep(_LOCK_PAUSE)
    else:
        _logger.warning("Another push has the journal of this one: it begins anew, without one")
        return None
    try:
        saved = await in_thread(journal.load)
    except DamagedJournal as damage:
        await drop(journal, str(damage))
        return None
    reason = why_not(saved, await in_thread(describe)) if saved is not None else ""
    if saved is None or not reason:
        return saved
    try:
        await store.abandon(key, saved.upload.id)
    except (NotAllowed, StoreError) as error:
        _logger.warning("The upload %s of an earlier push is left: %s", saved.upload.id, error)
    await drop(journal, reason)
    return None


async def drop(journal: Journal, reason: object) -> None:
    """Delete a journal that cannot be gone on with."""
    _logger.warning("An earlier push cannot be gone on with (%s): this one begins anew", reason)
    await in_thread(journal.discard)


class Replay:
    """Tells the index of the frames that a journal knows, instead of packing them."""

    def __init__(self, saved: Saved, index: IndexWriter, stop: threading.Event) -> None:
        """Use what *saved* holds; *stop* makes it end early, once set by another thread."""
        self.left = saved.frames
        """Frames that are still to come."""
        self._rows = Rows(saved.rows)
        self._index = index
        self._stop = stop

    def take(self, job: Group | Slice) -> KnownFrame:
        """The next frame, which *job* would make.

        Raises:
            CannotResume: The journal speaks of other jobs.
            InterruptedError: *stop* was set.
        """
        if self._stop.is_set():
            raise InterruptedError
        try:
            frame = self._rows.frame()
            size = self._group(job, frame) if isinstance(job, Group) else self._slice(job, frame)
        except DamagedJournal as damage:
            raise CannotResume(str(damage)) from damage
        self.left -= 1
        if size != frame.size or frame.length > codec.stored_size(size):
            raise CannotResume("its journal speaks of other frames")
        if not self.left and self._rows:
            raise CannotResume("its journal knows of more frames than it says")
        return frame

    def _group(self, job: Group, frame: KnownFrame) -> int:
        """Return the tar bytes that the frame must have."""
        total = 0
        members = []
        for entry in job.entries:
            size = header_size(entry.path, entry.size, entry.target, entry.kind)
            sha256 = self._rows.sha256() if entry.kind == "f" else ""
            members.append(PackedMember(entry, size, sha256))
            total += size + padded(entry.size)
        self._index.add_frame(frame, members)
        return total

    def _slice(self, job: Slice, frame: KnownFrame) -> int:
        """Return the tar bytes that the frame must have."""
        file = job.file
        self._index.add_frame(frame, [])
        if job.number == 0:
            self._index.begin_large(file.entry, len(file.head))
        if job.number == file.slices - 1:
            member = PackedMember(file.entry, len(file.head), self._rows.sha256())
            self._index.finish_large(member)
        return file.slice_size(job.number)


def unsent(pieces: Iterable[Piece | KnownFrame], saved: Saved | None) -> Iterator[Piece]:
    """Leave out of an archive's *pieces*, up to its index, what an earlier push has sent.

    Raises:
        CannotResume: Its parts and its frames do not go together.
    """
    sent, rest = (saved.sent, saved.rest) if saved else (0, b"")
    position = 0
    for piece in pieces:
        length = length_of(piece)
        position += length
        left = position - sent
        if isinstance(piece, KnownFrame):
            if left <= 0:
                continue
            if left != len(rest):
                raise CannotResume(_TORN)
            yield rest, piece.size
            rest = b""
        elif left <= 0 and (isinstance(piece, Copy) or not piece[1]):  # a copy or the gzip header
            continue
        elif left < length or rest:
            raise CannotResume(_TORN)
        else:
            yield piece
    if rest:
        raise CannotResume(_TORN)
