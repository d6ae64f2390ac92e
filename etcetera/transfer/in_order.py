"""An archive from front to back: ranges are fetched (tasks), and blocking code reads (a thread)."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from anyio import EndOfStream, Event, create_memory_object_stream
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from etcetera.transfer.archive import Archive
from etcetera.transfer.codec import Buffer
from etcetera.transfer.flow import in_thread, task_group
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.parts import requests_at_once

Report = Callable[[int, int], None]
"""Told the tar bytes written (0 if unknown) and the archive bytes fetched, range by range."""
Result = TypeVar("Result")

_LEAST_RANGE = 2 * MiB
"""Bytes that a range has however slow the line is, unless the option allows less."""


def range_size(lanes: Lanes, options: TransferOptions) -> int:
    """Bytes that the next request should ask for."""
    return lanes.request_size(min(_LEAST_RANGE, options.part_size), options.part_size)


async def read_in_order(
    archive: Archive,
    read: Callable[[Iterator[Buffer]], Result],
    options: TransferOptions,
    report: Report,
) -> Result:
    """Let *read* have all of an archive, in a thread of its own.

    Args:
        archive: What is read.
        read: Blocking; is given the archive's bytes in order, in chunks of any length.
        options: How much is fetched at once.
        report: Told what was fetched.
    """
    send, receive = create_memory_object_stream[Buffer](0)
    with ThreadPoolExecutor(1, "etcetera-unpack") as pool:
        async with task_group() as tasks, receive:
            tasks.start_soon(_fetch_in_order, archive, options, send, report)
            return await in_thread(
                read,
                _FromLoop(receive, asyncio.get_running_loop()),
                pool=pool,
                # Then the thread gets no more, and ends.
                on_cancel=tasks.cancel_scope.cancel,
            )


class _FromLoop(Iterator[Buffer]):
    """In a worker thread: what the loop's tasks send."""

    def __init__(
        self, receive: ObjectReceiveStream[Buffer], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._receive = receive
        self._loop = loop
        self._waiting: Future[Buffer] | None = None
        self._closed = False

    def __next__(self) -> Buffer:
        self._waiting = asyncio.run_coroutine_threadsafe(self._receive.receive(), self._loop)
        if self._closed:
            self._waiting.cancel()
        try:
            return self._waiting.result()
        except EndOfStream:
            raise StopIteration from None

    def stop(self) -> None:
        """From another thread: let nobody wait for more."""
        self._closed = True
        if self._waiting is not None:
            self._waiting.cancel()


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
            stop = min(start + range_size(lanes, options), archive.info.size)
            tasks.start_soon(fetch, start, stop, lane, turn, following := Event())
            start, turn = stop, following
