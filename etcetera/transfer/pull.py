"""Pull: tail → index → plan → fetch ranges (tasks) → inflate, check, write (threads).

Without an index: fetch in order → inflate → strict tar reader → write.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import (
    EndOfStream,
    Event,
    create_memory_object_stream,
)
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import Extractor, check_space
from etcetera.transfer.flow import crew, in_thread, in_threads, task_group
from etcetera.transfer.index import Segment
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import MiB, TransferOptions
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


_LEAST_RANGE = 2 * MiB
"""Bytes that a range has however slow the line is, unless the option allows less."""


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
    lanes = Lanes(requests_at_once(options.part_size, options))
    # Threads of its own, so that unpacking never queues behind a service's other work.
    with ThreadPoolExecutor(chosen.threads, "etcetera-unpack") as pool:
        async with (
            in_threads(workers(count, "unpack", os.fsencode(tree))) as processes,
            task_group() as tasks,
        ):

            async def take(one: _Range, lane: Lane) -> None:
                data = await index.archive.read(one.start, one.stop)
                size = await in_thread(_unpack, extractor, processes, data, one, pool=pool)
                lanes.leave(lane, len(data))
                report(size, len(data))

            async with aclosing(_plan_ranges(index, extractor, tally, lanes, options)) as ranges:
                async for one in ranges:
                    # A range waits in memory only while it is fetched or unpacked.
                    tasks.start_soon(take, one, await lanes.enter())
    return tally


def _unpack(extractor: Extractor, processes: Workers | None, data: Buffer, one: "_Range") -> int:
    """Write what one range holds; return the tar bytes."""
    if processes is None or any(job.large for job in one.jobs):
        return unpack_frames(data, one.start, one.jobs, extractor)
    return processes.unpack(data, one.start, one.jobs, extractor)


async def _plan_ranges(
    index: Index, extractor: Extractor, tally: Tally, lanes: Lanes, options: TransferOptions
) -> AsyncGenerator[_Range]:
    """Read the index segment by segment and yield what is to be fetched."""
    layout = Layout(extractor)
    size = partial(_range_size, lanes, options)
    crc32 = 0

    def take(segment: Segment) -> list[FrameJob]:
        nonlocal crc32
        crc32 = segment_crc(segment, crc32)
        tally.add_segment(segment)
        return layout.jobs(segment)

    async with aclosing(index.segments()) as segments:
        async for segment in segments:
            for held in _batches(await in_thread(take, segment), size):
                last = held[-1].place
                yield _Range(held[0].place.offset, last.offset + last.length, held)
    await index.check_whole(crc32)


def _range_size(lanes: Lanes, options: TransferOptions) -> int:
    return lanes.request_size(min(_LEAST_RANGE, options.part_size), options.part_size)


def _batches(jobs: list[FrameJob], range_size: Callable[[], int]) -> Iterator[list[FrameJob]]:
    held: list[FrameJob] = []
    size, most = 0, range_size()
    for job in jobs:
        if held and size + job.place.length > most:
            yield held
            held, size, most = [], 0, range_size()
        held.append(job)
        size += job.place.length
    if held:
        yield held


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
    lanes = Lanes(requests_at_once(options.part_size, options))

    async def fetch(start: int, stop: int, lane: Lane, turn: Event, following: Event) -> None:
        data = await archive.read(start, stop)
        await turn.wait()
        await send.send(data)
        following.set()
        lanes.leave(lane, len(data))
        report(0, len(data))

    turn = Event()
    turn.set()
    start = 0
    async with send, task_group() as tasks:
        while start < archive.info.size:
            lane = await lanes.enter()
            stop = min(start + _range_size(lanes, options), archive.info.size)
            tasks.start_soon(fetch, start, stop, lane, turn, following := Event())
            start, turn = stop, following
