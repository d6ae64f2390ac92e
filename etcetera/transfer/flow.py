"""Ordered, bounded work on threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
