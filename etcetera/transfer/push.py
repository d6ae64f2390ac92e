"""Push: scan → plan → pack frames (threads) → cut parts → upload (tasks) → complete."""

import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import CancelScope, Semaphore, create_memory_object_stream

from etcetera.stores import CannotResume, ObjectInfo, Store, Upload
from etcetera.transfer import codec
from etcetera.transfer.checkpoints import Checkpoints
from etcetera.transfer.codec import LADDER, Frame
from etcetera.transfer.flow import crew, in_thread, ordered, task_group
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.journal import Journal
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.pace import Pace
from etcetera.transfer.pack import Group, LargeFile, Slice, group, open_root
from etcetera.transfer.parts import Buffers, Part, PartPlan, archive_bound, cut, plan
from etcetera.transfer.resume import drop, facts, load_earlier, replay
from etcetera.transfer.scan import Scan, scan
from etcetera.transfer.workers import workers

_FIRST_PARTS = 2
"""So many are packed at the fastest level, to be sent as soon as that can begin."""

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
    resumed: int
    """Bytes of the archive that an earlier push had sent."""


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
    journal: Journal | None = None,
    copy: IndexCopy | None = None,
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

    Raises:
        AlreadyExists: The key is taken and *overwrite* is false.
        SourceChanged: A file changed after the scan.
    """
    describe = partial(facts, prepared.scan, prepared.plan, options)
    run = partial(
        _push, prepared, store, key, options,
        overwrite=overwrite, publishing=publishing, copy=copy,
    )  # fmt: skip
    if journal is None:
        return await run(look=look, checkpoints=None, report=report)
    try:
        if await in_thread(journal.exists):
            if look is not None:
                await look()
                look = None
            saved = await load_earlier(journal, describe, store, key)
            if saved is not None:
                done = 0

                def count(size: int, sent: int) -> None:
                    nonlocal done
                    done += size
                    report(size, sent)

                checkpoints = Checkpoints(journal, describe, saved)
                try:
                    return await run(look=None, checkpoints=checkpoints, report=count)
                except CannotResume as problem:
                    await drop(journal, problem)
                    report(-done, 0)
        checkpoints = Checkpoints(journal, describe, None)
        return await run(look=look, checkpoints=checkpoints, report=report)
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
) -> Pushed:
    plan = prepared.plan
    saved = checkpoints.saved if checkpoints else None
    packing = Packing(prepared.scan, plan, options, checkpoints, copy)
    try:
        async with checkpoints or nullcontext():
            # What is packed depends on whether the store still has the parts before.
            parts = deque[Part]() if saved else await _pack_ahead(packing, plan.workers, look)
            if parts and parts[0].last:
                publishing()
                info = await store.put(key, parts[0].data, overwrite=overwrite)
                report(parts[0].size, len(parts[0].data))
            else:
                async with store.upload(
                    key,
                    part_size=plan.part_size,
                    overwrite=overwrite,
                    resume=saved.upload if saved else None,
                ) as upload:
                    if checkpoints is not None:
                        checkpoints.begin(upload)
                    if saved is not None:
                        _logger.info("Goes on after %.1f MiB of an earlier push", saved.sent / MiB)
                        report(saved.tar, 0)
                    await _send_parts(packing, parts, upload, plan.workers, report, checkpoints)
                    publishing()
                    info = await upload.complete()
        return Pushed(
            info=info,
            digest=packing.digest,
            levels=dict(packing.pace.levels),
            resumed=saved.sent if saved else 0,
        )
    finally:
        with CancelScope(shield=True):
            await packing.close()


async def _pack_ahead(
    packing: "Packing", most: int, look: Callable[[], Awaitable[object]] | None
) -> deque[Part]:
    """Pack at least one part, and up to *most* until *look* is done: connecting takes a while.

    What shrinks is not packed far ahead, since nobody knows yet which level the line wants.
    """
    parts: deque[Part] = deque()
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
    parts: deque[Part],
    upload: Upload,
    workers: int,
    report: Report,
    checkpoints: Checkpoints | None,
) -> None:
    """Send *parts* and all that follow, up to *workers* at once."""
    lanes = Lanes(workers)
    # Those that wait for a lane, those that are sent, and the one that is cut.
    room = Semaphore(workers + 1)
    send, receive = create_memory_object_stream[Part](workers)

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
        if (
            checkpoints is not None
            and not part.last
            and checkpoints.sent(part.number, len(part.data), part.size)
        ):
            tasks.start_soon(checkpoints.save)
        packing.buffers.give_back(part)
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
            await send.send(part)


class Packing:
    """The blocking half of a push, one thread hop a part."""

    def __init__(
        self,
        scanned: Scan,
        plan: PartPlan,
        options: TransferOptions,
        checkpoints: Checkpoints | None,
        copy: IndexCopy | None = None,
    ) -> None:
        self._index = IndexWriter()
        self._stop = threading.Event()
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
        self._frames = _pack_frames(
            scanned, self._index, self.pace, options, checkpoints, copy, self._stop
        )
        if checkpoints is None:
            self._parts = cut(self._frames, self.buffers)
        else:
            sent = checkpoints.saved.upload.parts if checkpoints.saved else ()
            self._parts = cut(self._frames, self.buffers, len(sent) + 1, checkpoints.cut)

    @property
    def digest(self) -> str:
        """Of the dataset, once the last part was given out."""
        return self._index.digest

    async def next_part(self) -> Part | None:
        """Pack up to the end of one part; ``None`` after the last."""
        return await in_thread(
            partial(next, self._parts, None), pool=self._pool, on_cancel=self._stop.set
        )

    async def close(self) -> None:
        """Stop the threads and processes and close the files."""
        try:
            await in_thread(self._frames.close, pool=self._pool)
        finally:
            # Also if a cancellation comes meanwhile: its only thread is idle by now.
            self._pool.shutdown()


def _pack_frames(
    scanned: Scan,
    index: IndexWriter,
    pace: Pace,
    options: TransferOptions,
    checkpoints: Checkpoints | None,
    copy: IndexCopy | None,
    stop: threading.Event,
) -> Generator[tuple[bytes, int]]:
    """Yield the archive's bytes, each piece with the tar bytes it stands for.

    Those that an earlier push has sent are left out.
    """
    saved = checkpoints.saved if checkpoints else None
    chosen = crew(options, scanned.total.files, scanned.total.bytes)
    large: dict[LargeFile, None] = {}

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

    with ExitStack() as stack:
        root = open_root(scanned.root)
        stack.callback(os.close, root)
        stack.callback(close_large)
        jobs = group(scanned.entries())
        if saved is None:
            yield codec.GZIP_HEADER, 0
        else:
            size, inside = replay(saved, jobs, index, stop)
            if inside is not None:
                # The state of a SHA-256 cannot be kept.
                large[inside.file] = None
                inside.file.skip(root, inside.number + 1, stop)
            yield saved.rest, size if saved.rest else 0
        count = chosen.threads if chosen.processes else 0
        processes = stack.enter_context(workers(count, "pack", os.fsencode(scanned.root)))
        window = 2 * chosen.threads + 4
        packed = ordered(pack, _remember(jobs, large), threads=chosen.threads, window=window)
        stack.callback(packed.close)
        for job, (frame, members) in packed:
            index.add_frame(frame, members)
            if isinstance(job, Slice) and _add_slice(index, job):
                del large[job.file]
                members = [job.file.member()]
            if checkpoints is not None:
                checkpoints.add_frame(frame, members)
            yield frame.data, frame.size
    if checkpoints is not None:
        checkpoints.end_frames()
    level = LADDER[0] if options.level is None else options.level
    for data in _finish(index, level, saved.sent if saved else 0, copy):
        yield data, 0


def _remember(
    jobs: Iterator[Group | Slice], large: dict[LargeFile, None]
) -> Iterator[Group | Slice]:
    """Yield *jobs*, and note in *large* the files that have to be closed."""
    for job in jobs:
        if isinstance(job, Slice):
            large[job.file] = None
        yield job


def _finish(index: IndexWriter, level: int, sent: int, copy: IndexCopy | None) -> Iterator[bytes]:
    """Yield what follows the data frames, and take it down in *copy*.

    Of the object's first *sent* bytes nothing is given out.
    """
    position = index.length
    if copy is not None:
        copy.begin(position)
    for data in index.finish(level):
        if copy is not None:
            copy.put(position, data)
        yield data[max(0, sent - position) :]
        position += len(data)


def _add_slice(index: IndexWriter, job: Slice) -> bool:
    """Tell the index of the file whose slice was just added; return whether it was the last."""
    file = job.file
    if job.number == 0:
        index.begin_large(file.entry, len(file.head))
    if job.number < file.slices - 1:
        return False
    index.finish_large(file.member())
    return True
