"""Push: scan → plan → pack frames (threads) → cut parts → upload (tasks) → complete.

With an older archive as the base: scan → compare → copy frames inside the store, pack the others.
"""

import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from anyio import CancelScope, Semaphore, create_memory_object_stream

from etcetera.stores import ObjectInfo, Store, Upload
from etcetera.stores.common import replaced
from etcetera.transfer import codec
from etcetera.transfer.codec import LADDER, Frame
from etcetera.transfer.flow import crew, in_thread, ordered, task_group
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pace import Pace
from etcetera.transfer.pack import FRAME_MAX, Group, LargeFile, Slice, group, open_root
from etcetera.transfer.parts import (
    Buffers,
    CopiedPart,
    Part,
    PartPlan,
    Piece,
    archive_bound,
    cut,
    plan,
)
from etcetera.transfer.scan import Scan, scan
from etcetera.transfer.tar import Entry
from etcetera.transfer.update import ScanDigest, Update
from etcetera.transfer.weave import weave
from etcetera.transfer.workers import workers

_FIRST_PARTS = 2
"""So many are packed at the fastest level, to be sent as soon as that can begin."""

Report = Callable[[int, int], None]
"""Told the tar bytes and the archive bytes of each part once it is stored."""


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
    """Tar bytes by the level of compression they got; 0 is stored."""
    copied: int = 0
    """Bytes of the archive that were copied inside the store."""


async def prepare(root: Path, store: Store, options: TransferOptions) -> Prepared:
    """Scan the dataset and plan its parts; nothing is asked of the store.

    Raises:
        InvalidDataset: Something in the dataset cannot be packed.
    """
    stop = threading.Event()
    scanned = await in_thread(scan, root, stop, on_cancel=stop.set)
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
        update: What stays of an older archive in the same store; if that has the key, only this
            version of it is replaced.

    Raises:
        AlreadyExists: The key is taken and *overwrite* is false.
        SourceChanged: A file changed after the scan.
        CannotCopy: The store cannot make the update; without one it may take the dataset.
        RemoteChanged: The older archive was replaced meanwhile.
    """
    plan = prepared.plan if update is None else _for_update(prepared.plan, update)
    packing = Packing(prepared.scan, plan, options, update)
    try:
        parts = await _pack_ahead(packing, plan.workers, look)
        if isinstance(first := parts[0], Part) and first.last:
            publishing()
            info = await store.put(key, first.data, overwrite=overwrite)
            report(first.size, len(first.data))
        else:
            source = update.source if update else None
            replaces = source.etag if source and source.key == key else None
            async with store.upload(
                key, part_size=plan.part_size, overwrite=overwrite, replaces=replaces
            ) as upload:
                await _send_parts(packing, parts, upload, plan.workers, report, source)
                if source is not None:
                    await _check_source(store, source)
                publishing()
                info = await upload.complete()
        return Pushed(
            info=info,
            digest=packing.digest,
            levels=dict(packing.pace.levels),
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
    packing: "Packing", most: int, look: Callable[[], Awaitable[object]] | None
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
    packing: "Packing",
    parts: deque[Part | CopiedPart],
    upload: Upload,
    workers: int,
    report: Report,
    source: ObjectInfo | None,
) -> None:
    """Send *parts* and all that follow, or copy them from *source*, up to *workers* at once."""
    lanes = Lanes(workers)
    # Those that wait for a lane, those that are sent, and the one that is cut.
    room = Semaphore(workers + 1)
    send, receive = create_memory_object_stream[Part](workers)
    copied = False

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
        packing.buffers.give_back(part)
        room.release()

    async def copy(part: CopiedPart) -> None:
        assert source is not None, "copies come from somewhere"  # noqa: S101
        what = part.copy
        await upload.copy_part(part.number, source, what.start, what.stop, what.crc32)
        report(what.size, 0)
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


class Packing:
    """The blocking half of a push, one thread hop a part."""

    def __init__(
        self,
        scanned: Scan,
        plan: PartPlan,
        options: TransferOptions,
        update: Update | None = None,
    ) -> None:
        self._index = IndexWriter(ScanDigest(scanned) if update else None)
        # A thread of its own: packing never queues behind a service's other work, and its large
        # buffers come from one arena of the allocator, which reuses them.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="etcetera-pack")
        self.buffers = Buffers(plan.part_size)
        """Of the parts: to be given back when they are sent."""
        self.pace = Pace(
            options.level,
            part_size=plan.part_size,
            first=_FIRST_PARTS,
            # Parts that are under way hold their memory, and are half sent in the mean.
            most=max(1, plan.workers // 2),
        )
        """To be told what is sent."""
        self.copied = 0
        """Bytes of the parts given out that are copied."""
        self._frames = _pack_frames(
            scanned, self._index, self.pace, options, update, plan.part_size
        )
        self._parts = cut(self._frames, self.buffers)

    @property
    def digest(self) -> str:
        """Of the dataset, once the last part was given out."""
        return self._index.digest

    async def next_part(self) -> Part | CopiedPart | None:
        """Pack up to the end of one part; ``None`` after the last."""
        part = await in_thread(partial(next, self._parts, None), pool=self._pool)
        if isinstance(part, CopiedPart):
            self.copied += part.copy.stop - part.copy.start
        return part

    async def close(self) -> None:
        """Stop the threads and processes and close the files."""
        await in_thread(self._frames.close, pool=self._pool)
        self._pool.shutdown()  # its only thread is idle: nothing to wait for


def _pack_frames(
    scanned: Scan,
    index: IndexWriter,
    pace: Pace,
    options: TransferOptions,
    update: Update | None,
    part_size: int,
) -> Generator[Piece]:
    """Yield the archive's bytes, each piece with the tar bytes it stands for."""
    total = scanned.total if update is None else update.changed
    chosen = crew(options, total.files, total.bytes)
    large: dict[LargeFile, None] = {}

    def jobs(entries: Iterable[Entry]) -> Iterator[Group | Slice]:
        for job in group(entries):
            if isinstance(job, Slice):
                large[job.file] = None
            yield job

    def close_large() -> None:
        for file in large:
            file.close()

    def pack(job: Group | Slice) -> tuple[Frame, list[PackedMember]]:
        level = pace.level()
        if processes is not None and isinstance(job, Group):
            frame, members = processes.pack(job.entries, level)
        else:
            frame, members = job.pack(root, level)
        pace.packed(level, frame)
        return frame, members

    def frames(entries: Iterable[Entry]) -> Generator[tuple[bytes, int]]:
        window = 2 * chosen.threads + 4
        with closing(ordered(pack, jobs(entries), threads=chosen.threads, window=window)) as packed:
            for job, (frame, members) in packed:
                index.add_frame(frame, members)
                if isinstance(job, Slice) and _add_slice(index, job):
                    del large[job.file]
                yield frame.data, frame.size

    with ExitStack() as stack:
        root = open_root(scanned.root)
        stack.callback(os.close, root)
        count = chosen.threads if chosen.processes else 0
        processes = stack.enter_context(workers(count, "pack", os.fsencode(scanned.root)))
        stack.callback(close_large)
        if update is None:
            yield codec.GZIP_HEADER, 0
            yield from frames(scanned.entries())
        else:
            yield from weave(update, scanned, index, frames, part_size)
    for data in index.finish(LADDER[0] if options.level is None else options.level):
        yield data, 0


def _add_slice(index: IndexWriter, job: Slice) -> bool:
    """Tell the index of the file whose slice was just added; return whether it was the last."""
    file = job.file
    if job.number == 0:
        index.begin_large(file.entry, len(file.head))
    if job.number < file.slices - 1:
        return False
    index.finish_large(file.member())
    return True
