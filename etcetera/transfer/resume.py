"""Going on with a push that was cut off.

Which members share a frame follows from the scan alone, so while no file changes the frames are the
same each time; those that a journal knows are not packed again, only told to the index.
"""

import logging
import threading
from collections.abc import Callable, Iterator

from anyio import sleep

from etcetera import __version__
from etcetera.errors import NotAllowed, StoreError
from etcetera.stores import CannotResume, Store
from etcetera.transfer import codec
from etcetera.transfer.codec import KnownFrame
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.journal import DamagedJournal, Facts, Journal, Rows, Saved
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pack import Group, Slice
from etcetera.transfer.parts import PartPlan
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import header_size, padded

_WHY = {
    "version": "another version of etcetera began it",
    "codec": "another codec or kind of processor began it",
    "level": "the compression level is another one now",
    "part_size": "the part size is another one now",
}
_CHANGED = "the dataset has changed since"

_logger = logging.getLogger("etcetera")

_LOCK_TRIES, _LOCK_PAUSE = 10, 0.1
"""How often the journal is asked for, and the seconds between."""


def facts(scanned: Scan, plan: PartPlan, options: TransferOptions) -> Facts:
    """Everything that has to be the same for one process to go on with the push of another."""
    return {
        "version": __version__,
        "codec": codec.identity(),
        "level": "auto" if options.level is None else options.level,
        "part_size": plan.part_size,
        "fingerprint": scanned.fingerprint,
        "newest": scanned.newest,
        "inode": scanned.inode,
        "entries": scanned.entries_count,
    }


def why_not(saved: Saved, now: Facts) -> str:
    """Why a push that is described by *now* cannot go on with an earlier one; empty if it can."""
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


def replay(
    saved: Saved,
    jobs: Iterator[Group | Slice],
    index: IndexWriter,
    stop: threading.Event,
) -> tuple[int, Slice | None]:
    """Tell the index of the frames that a journal knows, instead of packing them.

    Args:
        saved: What the journal holds.
        jobs: All of them; those that follow are left.
        index: A new one.
        stop: Makes it end early, once set by another thread.

    Returns:
        Tar bytes of the last frame; and its slice, if others of the same file follow.

    Raises:
        CannotResume: The journal speaks of other jobs.
        InterruptedError: *stop* was set.
    """
    rows = Rows(saved.rows)
    job: Group | Slice | None = None
    size = 0
    try:
        for _ in range(saved.frames):
            if stop.is_set():
                raise InterruptedError
            job, frame = next(jobs, None), rows.frame()
            if isinstance(job, Group):
                size = _replay_group(job, frame, rows, index)
            elif job is not None:
                size = _replay_slice(job, frame, rows, index)
            if job is None or size != frame.size or frame.length > codec.stored_size(size):
                raise DamagedJournal("it speaks of other frames")
    except DamagedJournal as damage:
        raise CannotResume(str(damage)) from damage
    left = index.length - saved.sent
    if rows or len(saved.rest) != max(0, left) or (left <= 0 and next(jobs, None) is not None):
        raise CannotResume("its parts and frames do not go together")
    if isinstance(job, Slice) and job.number + 1 < job.file.slices:
        return size, job
    return size, None


def _replay_group(job: Group, frame: KnownFrame, rows: Rows, index: IndexWriter) -> int:
    """Return the tar bytes that the frame must have."""
    total = 0
    members = []
    for entry in job.entries:
        size = header_size(entry.path, entry.size, entry.target, entry.kind)
        members.append(PackedMember(entry, size, rows.sha256() if entry.kind == "f" else ""))
        total += size + padded(entry.size)
    index.add_frame(frame, members)
    return total


def _replay_slice(job: Slice, frame: KnownFrame, rows: Rows, index: IndexWriter) -> int:
    """Return the tar bytes that the frame must have."""
    file = job.file
    index.add_frame(frame, [])
    if job.number == 0:
        index.begin_large(file.entry, len(file.head))
    if job.number == file.slices - 1:
        index.finish_large(PackedMember(file.entry, len(file.head), rows.sha256()))
    return file.slice_size(job.number)
