"""Pull: tail → index → plan → fetch ranges (tasks) → inflate, check, write (threads).

Without an index: fetch in order → inflate → strict tar reader → write.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import (
    EndOfStream,
    Event,
    Semaphore,
    create_memory_object_stream,
)
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import Extractor, check_space
from etcetera.transfer.flow import crew, in_thread, in_threads, task_group
from etcetera.transfer.index import Segment
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.parts import requests_at_once
from etcetera.transfer.unpack import (
    FrameJob,
    Layout,
    Tally,
    check_claims,
    segment_crc,
    unpack_frames,
    unpack_stream,
)
from etcetera.transfer.workers import Workers, workers

Report = Callable[[int, int], None]
"""Told the tar bytes written (0 if unknown) and the archive bytes fetched, range by range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What lies in the staging tree now."""

    digest: str
    files: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class _Range:
    """Consecutive frames that are fetched with one request."""

    start: int
    stop: int
    jobs: list[FrameJob]


async def pull(
    archive: Archive, index: Index | None, tree: Path, options: TransferOptions, report: Report
) -> Pulled:
    """Fetch a whole archive into *tree*, an empty directory, and check every byte of it.

    Raises:
        ArchiveError: It cannot be installed; what *tree* holds then is of no use.
        NoSpace: The disk is full, or the index says that it would be.
        RemoteChanged: The object was replaced meanwhile.
    """
    async with in_threads(_extractor(tree)) as extractor:
        if index is None:
            tally = await _pull_stream(archive, extractor, options, report)
        else:
            await in_thread(check_space, tree, index.footer.bytes)
            tally = await _pull_frames(index, tree, extractor, options, report)
        digest = await in_thread(tally.digest)
        if index is not None:
            check_claims(index.footer, index.root, tally, digest)
        await in_thread(extractor.finish)
    return Pulled(
        digest=digest,
        files=tally.total.files,
        bytes=tally.total.bytes,
        fingerprint=tally.fingerprint.value(),
    )


@contextmanager
def _extractor(tree: Path) -> Iterator[Extractor]:
    with closing(Extractor(tree)) as extractor:
        yield extractor


async def _pull_frames(
    index: Index, tree: Path, extractor: Extractor, options: TransferOptions, report: Report
) -> Tally:
    tally = Tally.of(index.root)
    chosen = crew(options, index.footer.files, index.footer.bytes)
    count = chosen.threads if chosen.processes else 0
    # No buffer: a range waits in memory only while it is fetched or unpacked.
    send, receive = create_memory_object_stream[_Range](0)
    # Threads of its own, so that unpacking never queues behind a service's other work.
    with ThreadPoolExecutor(chosen.threads, "etcetera-unpack") as pool:
        async with (
            in_threads(workers(count, "unpack", os.fsencode(tree))) as processes,
            task_group() as tasks,
        ):
            unpack = partial(_unpack, extractor, processes)
            for _ in range(requests_at_once(options.part_size, options)):
                tasks.start_soon(
                    _unpack_ranges, receive.clone(), index.archive, unpack, pool, report
                )
            receive.close()
            async with send, aclosing(_plan_ranges(index, extractor, tally, options)) as ranges:
                async for one in ranges:
                    await send.send(one)
    return tally


def _unpack(extractor: Extractor, processes: Workers | None, data: bytes, one: "_Range") -> int:
    """Write what one range holds; return the tar bytes."""
    if processes is None or any(job.large for job in one.jobs):
        return unpack_frames(data, one.start, one.jobs, extractor)
    return processes.unpack(data, one.start, one.jobs, extractor)


async def _plan_ranges(
    index: Index, extractor: Extractor, tally: Tally, options: TransferOptions
) -> AsyncGenerator[_Range]:
    """Read the index segment by segment and yield what is to be fetched."""
    layout = Layout(extractor)
    crc32 = 0

    def take(segment: Segment) -> list[FrameJob]:
        nonlocal crc32
        crc32 = segment_crc(segment, crc32)
        tally.add_segment(segment)
        return layout.jobs(segment)

    async with aclosing(index.segments()) as segments:
        async for segment in segments:
            for held in _batches(await in_thread(take, segment), options.part_size):
                last = held[-1].place
                yield _Range(held[0].place.offset, last.offset + last.length, held)
    await index.check_whole(crc32)


def _batches(jobs: list[FrameJob], range_size: int) -> Iterator[list[FrameJob]]:
    held: list[FrameJob] = []
    size = 0
    for job in jobs:
        if held and size + job.place.length > range_size:
            yield held
            held, size = [], 0
        held.append(job)
        size += job.place.length
    if held:
        yield held


async def _unpack_ranges(
    receive: ObjectReceiveStream[_Range],
    archive: Archive,
    unpack: Callable[[Buffer, _Range], int],
    pool: Executor,
    report: Report,
) -> None:
    async with receive:
        async for one in receive:
            data = await archive.read(one.start, one.stop)
            size = await in_thread(unpack, data, one, pool=pool)
            report(size, len(data))
            del data, one  # while waiting for the next


async def _pull_stream(
    archive: Archive, extractor: Extractor, options: TransferOptions, report: Report
) -> Tally:
    send, receive = create_memory_object_stream[Buffer](0)
    with ThreadPoolExecutor(1, "etcetera-unpack") as pool:
        async with task_group() as tasks, receive:
            tasks.start_soon(_fetch_in_order, archive, options, send, report)
            return await in_thread(
                unpack_stream,
                _from_loop(receive, asyncio.get_running_loop()),
                extractor,
                pool=pool,
                # Then the thread gets no more, and ends.
                on_cancel=tasks.cancel_scope.cancel,
            )


def _from_loop(
    receive: ObjectReceiveStream[Buffer], loop: asyncio.AbstractEventLoop
) -> Iterator[Buffer]:
    """In a worker thread: what the loop's tasks send."""
    while True:
        try:
            yield asyncio.run_coroutine_threadsafe(receive.receive(), loop).result()
        except EndOfStream:
            return


async def _fetch_in_order(
    archive: Archive, options: TransferOptions, send: ObjectSendStream[Buffer], report: Report
) -> None:
    """Fetch several ranges at once and send them in order."""
    slots = Semaphore(requests_at_once(options.part_size, options))
    turn = Event()
    turn.set()
    async with send, task_group() as tasks:
        for start in range(0, archive.info.size, options.part_size):
            await slots.acquire()
            stop = min(start + options.part_size, archive.info.size)
            following = Event()
            tasks.start_soon(
                _fetch_one, archive, (start, stop), turn, following, slots, send, report
            )
            turn = following


async def _fetch_one(
    archive: Archive,
    place: tuple[int, int],
    turn: Event,
    following: Event,
    slots: Semaphore,
    send: ObjectSendStream[Buffer],
    report: Report,
) -> None:
    data = await archive.read(*place)
    await turn.wait()
    await send.send(data)
    following.set()
    slots.release()
    report(0, len(data))
