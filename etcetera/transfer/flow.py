"""Work on threads: ordered and bounded, and never left behind by a cancellation."""

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar, TypeVarTuple

from anyio import (
    BrokenResourceError,
    CancelScope,
    Event,
    create_task_group,
    to_thread,
)
from anyio.abc import TaskGroup

from etcetera.transfer.options import KiB, TransferOptions

Job = TypeVar("Job")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


_SMALL_FILE = 32 * KiB
"""Bytes; with files smaller than this on average, the interpreter is what limits."""
_MANY_FILES = 20_000
"""Small files from which on starting processes pays."""
_ENOUGH_FILES = 5_000
"""As many, where nobody knows how many will come: they took as long as starting would."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Who packs or unpacks."""

    threads: int
    processes: bool
    """Whether each thread has a worker process that does the work."""


def processors() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def crew(options: TransferOptions, files: int, size: int, *, more: bool = False) -> Crew:
    """Choose who packs or unpacks *files* files of *size* bytes together, and perhaps *more*.

    One thread per processor. With small files nearly all the time goes into the interpreter, and
    threads would fight for its lock, which costs twice the processor time and makes the event loop
    wait as well: then it is processes if there are many files, and otherwise a single thread.
    """
    threads = options.threads or processors()
    if size >= files * _SMALL_FILE:
        return Crew(threads, processes=False)
    if threads > 1 and files >= (_ENOUGH_FILES if more else _MANY_FILES):
        return Crew(threads, processes=True)
    return Crew(1, processes=False)


def ordered(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, threads: int, window: int
) -> Generator[tuple[Job, Result]]:
    """Apply *function* to each job on several threads and yield the results in order.

    At most *window* jobs are started and not yet yielded. Closing the generator cancels those
    that wait and joins the threads; an error ends it after those before it were yielded.
    """
    pending: deque[tuple[Job, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="etcetera") as pool:
        try:
            for job in jobs:
                pending.append((job, pool.submit(function, job)))
                if len(pending) >= window:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def ahead(items: Iterator[Result], window: int) -> Generator[Result]:
    """Yield *items* while a thread of its own gets those that follow, *window* at most.

    Closing the generator joins the thread.
    """
    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(1, "etcetera-ahead") as pool:
        try:
            for _ in range(window):
                pending.append(pool.submit(_one, items))
            while item := pending.popleft().result():
                pending.append(pool.submit(_one, items))
                yield item[0]
        finally:
            for future in pending:
                future.cancel()


def _one(items: Iterator[Result]) -> list[Result]:
    return list(islice(items, 1))


async def in_thread(
    function: Callable[[*Arguments], Result],
    *args: *Arguments,
    pool: Executor | None = None,
    on_cancel: Callable[[], object] | None = None,
) -> Result:
    """Run blocking code in a worker thread; never return before it has ended.

    A cancellation cannot stop the thread. It is held back until the function is done, so that
    whoever cleans up finds nothing running; what it returned is lost then.

    Args:
        function: What to run.
        *args: Its arguments.
        pool: Whose threads to use; anyio's by default, which a service shares.
        on_cancel: Called at once when cancelled; may make *function* end early.
    """
    task: asyncio.Future[Result]
    if pool is None:
        task = asyncio.ensure_future(to_thread.run_sync(function, *args))
    else:
        task = asyncio.get_running_loop().run_in_executor(pool, function, *args)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        with CancelScope(shield=True):
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # Seen: the cancellation comes first.
        raise
    return task.result()


@asynccontextmanager
async def in_threads(manager: AbstractContextManager[Result]) -> AsyncIterator[Result]:
    """Enter and leave a blocking context manager in worker threads; leaving cannot be cancelled."""
    entered = False

    def enter() -> Result:
        nonlocal entered
        value = manager.__enter__()
        entered = True
        return value

    async def leave(error: BaseException | None) -> None:
        if entered:
            kind, traceback = (type(error), error.__traceback__) if error else (None, None)
            with CancelScope(shield=True):
                await in_thread(manager.__exit__, kind, error, traceback)

    try:
        yield await in_thread(enter)
    except BaseException as error:
        await leave(error)
        raise
    await leave(None)


@asynccontextmanager
async def beside(
    function: Callable[[], Awaitable[Result]],
) -> AsyncIterator[Callable[[], Awaitable[Result]]]:
    """Call an async function while the block runs; what is yielded waits for its result.

    An error of it cancels the block and comes out of it; leaving the block cancels it.
    """
    results: list[Result] = []
    done = Event()

    async def run() -> None:
        results.append(await function())
        done.set()

    async def wait() -> Result:
        await done.wait()
        return results[0]

    async with task_group() as tasks:
        tasks.start_soon(run)
        yield wait
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group whose first error comes out alone, not in an exception group.

    A stream that broke because the task at its other end failed is not what went wrong.
    """
    try:
        async with create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        errors = list(_leaves(group))
        causes = [error for error in errors if not isinstance(error, BrokenResourceError)]
        error = (causes or errors)[0]
        raise error from error.__cause__


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
