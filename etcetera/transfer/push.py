"""Push: scan → plan → pack frames (threads) → cut parts → upload (tasks) → complete.

With an older archive as the base: scan → compare → copy frames inside the store, pack the others.
"""

import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from anyio import CancelScope, Semaphore, create_memory_object_stream

from etcetera.errors import InvalidDataset
from etcetera.stores import CannotResume, ObjectInfo, Store, Upload
from etcetera.stores.common import replaced
from etcetera.transfer.checkpoints import Checkpoints
from etcetera.transfer.flow import in_thread, task_group
from etcetera.transfer.index import MAX_PARTITIONS
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.journal import Journal
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.pack import FRAME_MAX
from etcetera.transfer.packing import Packing
from etcetera.transfer.parts import CopiedPart, Part, PartPlan, archive_bound, plan
from etcetera.transfer.resume import drop, facts, is_whole, load_earlier
from etcetera.transfer.scan import Scan, scan
from etcetera.transfer.update import Update

_logger = logging.getLogger("etcetera")

Report = Callable[[int, int], None]
"""Told the tar bytes and the archive bytes of each part once it is stored.

Tar bytes are taken back, as a negative number, if an earlier push turns out to be of no use.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything known before the first byte is packed."""

    scan: Scan
    plan: PartPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A published archive."""

    info: ObjectInfo
    digest: str
    """Of the dataset."""
    levels: dict[int, int]
    """Tar bytes by the level of compression they got; 0 is stored. Only of what was packed now."""
    resumed: int = 0
    """Bytes of the archive that an earlier push had sent, or copied."""
    copied: int = 0
    """Bytes of the archive that were copied inside the store now."""


async def prepare(root: Path, store: Store, options: TransferOptions) -> Prepared:
    """Scan the dataset and plan its parts; nothing is asked of the store.

    Raises:
        InvalidDataset: Something in the dataset cannot be packed, or it has too many partitions.
    """
    stop = threading.Event()
    scanned = await in_thread(scan, root, stop, on_cancel=stop.set)
    if len(scanned.partitions) > MAX_PARTITIONS:
        raise InvalidDataset(
            f"{root} has {len(scanned.partitions):,} partitions, and an archive names at most "
            f"{MAX_PARTITIONS:,}: put several of them into one directory below data/"
        )
    return Prepared(scan=scanned, plan=plan(archive_bound(scanned), store.limits, options))


async def push(
    prepared: Prepared,
    store: Store,
    key: str,
    options: TransferOptions,
    *,
    overwrite: bool,
    report: Report,
    look: Callable[[], Awaitable[object]] | None = None,
    publishing: Callable[[], object] = lambda: None,
    journal: Journal | None = None,
    copy: IndexCopy | None = None,
    update: Update | None = None,
) -> Pushed:
    """Pack and publish in one go; the key holds the old object or none until the very end.

    Args:
        prepared: From :func:`prepare`, for the same store.
        store: Where to.
        key: Of the archive.
        options: Level, and who packs.
        overwrite: Whether to replace an object that has this key.
        report: Told of each part.
        look: Raises if there is a reason not to send anything; packing begins meanwhile.
        publishing: Called when everything is sent, before it is published.
        journal: Of an earlier push to go on with, and of this one; it is closed at the end.
        copy: Takes the index down.
        update: What stays of an older archive in the same store; if that has the key, only this
            version of it is replaced. Not used to go on with a push that sends everything.

    Raises:
        AlreadyExists: The key is taken and *overwrite* is false.
        SourceChanged: A file changed after the scan.
        CannotCopy: The store cannot make the update; without one it may take the dataset.
        RemoteChanged: The older archive was replaced meanwhile.
    """
    run = partial(
        _push, prepared, store, key, options,
        overwrite=overwrite, publishing=publishing, copy=copy,
    )  # fmt: skip
    if journal is None:
        return await run(look=look, checkpoints=None, report=report, update=update)
    base = update.source if update else None
    describe = partial(facts, prepared.scan, prepared.plan, options)
    try:
        if await in_thread(journal.exists):
            if look is not None:
                await look()
                look = None
            saved = await load_earlier(journal, partial(describe, base), store, key)
            if saved is not None:
                done = 0

                def count(size: int, sent: int) -> None:
                    nonlocal done
                    done += size
                    report(size, sent)

                chosen = None if is_whole(saved) else update
                earlier = Checkpoints(journal, partial(describe, chosen and base), saved)
                try:
                    return await run(look=None, checkpoints=earlier, report=count, update=chosen)
                except CannotResume as problem:
                    await drop(journal, problem)
                    report(-done, 0)
        checkpoints = Checkpoints(journal, partial(describe, base), None)
        return await run(look=look, checkpoints=checkpoints, report=report, update=update)
    finally:
        journal.close()


async def _push(
    prepared: Prepared,
    store: Store,
    key: str,
    options: TransferOptions,
    *,
    overwrite: bool,
    report: Report,
    look: Callable[[], Awaitable[object]] | None,
    publishing: Callable[[], object],
    copy: IndexCopy | None,
    checkpoints: Checkpoints | None,
    update: Update | None,
) -> Pushed:
    plan = prepared.plan if update is None else _for_update(prepared.plan, update)
    saved = checkpoints.saved if checkpoints else None
    source = update.source if update else None
    packing = Packing(
        prepared.scan, plan, options, checkpoints=checkpoints, copy=copy, update=update
    )
    try:
        async with checkpoints or nullcontext():
            # What is packed depends on whether the store still has the parts before.
            parts = (
                deque[Part | CopiedPart]()
                if saved
                else await _pack_ahead(packing, plan.workers, look)
            )
            if parts and isinstance(first := parts[0], Part) and first.last:
                publishing()
                info = await store.put(key, first.data, overwrite=overwrite)
                report(first.size, len(first.data))
            else:
                async with store.upload(
                    key,
                    part_size=plan.part_size,
                    overwrite=overwrite,
                    resume=saved.upload if saved else None,
                    replaces=source.etag if source and source.key == key else None,
                ) as upload:
                    if checkpoints is not None:
                        checkpoints.begin(upload)
                    if saved is not None:
                        _logger.info("Goes on after %.1f MiB of an earlier push", saved.sent / MiB)
                        report(saved.tar, 0)
                    await _send_parts(
                        packing, parts, upload, plan.workers, report, checkpoints, source
                    )
                    if source is not None:
                        await _check_source(store, source)
                    publishing()
                    info = await upload.complete()
        return Pushed(
            info=info,
            digest=packing.digest,
            levels=dict(packing.pace.levels),
            resumed=saved.sent if saved else 0,
            copied=packing.copied,
        )
    finally:
        with CancelScope(shield=True):
            await packing.close()


def _for_update(plan: PartPlan, update: Update) -> PartPlan:
    """Make room for a part that ends behind a frame, as soon as it is long enough."""
    return replace(plan, part_size=max(plan.part_size, update.least + 3 * FRAME_MAX))


async def _check_source(store: Store, source: ObjectInfo) -> None:
    """Raise RemoteChanged if *source* is no longer there: not every server heeds conditions."""
    now = await store.head(source.key)
    if now is None or now.etag != source.etag:
        raise replaced(source.key)


async def _pack_ahead(
    packing: Packing, most: int, look: Callable[[], Awaitable[object]] | None
) -> deque[Part | CopiedPart]:
    """Pack at least one part, and up to *most* until *look* is done: connecting takes a while.

    What shrinks is not packed far ahead, since nobody knows yet which level the line wants.
    """
    parts: deque[Part | CopiedPart] = deque()
    looked = look is None

    async def pack() -> None:
        while not parts or not (
            looked or packing.pace.guessing or parts[-1].last or len(parts) == most
        ):
            part = await packing.next_part()
            assert part is not None, "an archive is never empty"  # noqa: S101
            parts.append(part)

    async with task_group() as tasks:
        tasks.start_soon(pack)
        if look is not None:
            await look()
        looked = True
    return parts


async def _send_parts(
    packing: Packing,
    parts: deque[Part | CopiedPart],
    upload: Upload,
    workers: int,
    report: Report,
    checkpoints: Checkpoints | None,
    source: ObjectInfo | None,
) -> None:
    """Send *parts* and all that follow, or copy them from *source*, up to *workers* at once."""
    lanes = Lanes(workers)
    # Those that wait for a lane, those that are sent, and the one that is cut.
    room = Semaphore(workers + 1)
    send, receive = create_memory_object_stream[Part](workers)
    copied = False

    def note(part: Part | CopiedPart, length: int, size: int) -> None:
        if (
            checkpoints is not None
            and not part.last
            and checkpoints.sent(part.number, length, size)
        ):
            tasks.start_soon(checkpoints.save)

    async def put(part: Part, lane: Lane) -> None:
        left = len(part.data)

        def sent(count: int) -> None:
            nonlocal left
            count = min(count, left)  # what is sent once more has left the backlog already
            left -= count
            packing.pace.sent(count)

        await upload.put_part(part.number, part.data, part.crc32, sent)
        lanes.leave(lane, len(part.data))
        report(part.size, len(part.data))
        note(part, len(part.data), part.size)
        packing.buffers.give_back(part)
        room.release()

    async def copy(part: CopiedPart) -> None:
        assert source is not None, "copies come from somewhere"  # noqa: S101
        what = part.copy
        await upload.copy_part(part.number, source, what.start, what.stop, what.crc32)
        report(what.size, 0)
        note(part, what.length, what.size)
        room.release()

    async def begin() -> None:
        async with receive:
            async for part in receive:
                tasks.start_soon(put, part, await lanes.enter())

    async with task_group() as tasks, send:
        tasks.start_soon(begin)
        while True:
            await room.acquire()
            part = parts.popleft() if parts else await packing.next_part()
            if part is None:
                break
            if isinstance(part, Part):
                await send.send(part)
            elif copied:
                tasks.start_soon(copy, part)
            else:
                # The first shows whether the store can do it, before much is sent.
                await copy(part)
                copied = True
