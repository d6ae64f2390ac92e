"""Ordered, bounded work on threads."""

import asyncio
import threading
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcetera.transfer.flow import Crew, ahead, beside, crew, in_thread, ordered, task_group
from etcetera.transfer.options import KiB, TransferOptions


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 4), st.integers(1, 8))
def test_order(jobs: list[int], threads: int, window: int) -> None:
    """Results come in the order of the jobs."""
    results = list(ordered(lambda job: job * 2, jobs, threads=threads, window=window))
    assert results == [(job, job * 2) for job in jobs]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_window(window: int) -> None:
    """No more jobs are taken than fit the window."""
    taken, given_out = 0, 0

    def jobs() -> Iterator[int]:
        nonlocal taken
        for number in range(20):
            taken += 1
            assert taken - given_out <= window
            yield number

    for _ in ordered(lambda job: job, jobs(), threads=3, window=window):
        given_out += 1
    assert given_out == taken == 20


@pytest.mark.parametrize("threads", [1, 3])
def test_error(threads: int) -> None:
    """An error comes where its result would have, and leaves no thread behind."""

    def work(job: int) -> int:
        if job == 5:
            raise ValueError("planned")
        return job

    before = threading.active_count()
    seen: list[int] = []
    with pytest.raises(ValueError, match="planned"):
        for job, _ in ordered(work, range(100), threads=threads, window=4):
            seen.append(job)
    assert seen == [0, 1, 2, 3, 4]
    assert threading.active_count() == before


def test_error_of_the_jobs() -> None:
    """So does an error of whoever makes the jobs."""

    def jobs() -> Iterator[int]:
        yield 1
        raise ValueError("planned")

    before = threading.active_count()
    with pytest.raises(ValueError, match="planned"):
        list(ordered(lambda job: job, jobs(), threads=2, window=8))
    assert threading.active_count() == before


def test_close() -> None:
    """Closing waits for the threads and drops the jobs that have not begun."""
    release, done = threading.Event(), []

    def work(job: int) -> int:
        if job:
            release.wait()
        done.append(job)
        return job

    before = threading.active_count()
    results = ordered(work, range(50), threads=2, window=10)
    assert next(results) == (0, 0)
    threading.Timer(0, release.set).start()
    results.close()
    assert threading.active_count() <= before + 1  # the timer
    assert len(done) < 50


@pytest.mark.parametrize(
    ("files", "size", "threads", "expected"),
    [
        (1_000, 1_000, 3, Crew(1, processes=False)),
        (0, 0, 2, Crew(2, processes=False)),
        (10, 10 * 31 * KiB, 2, Crew(1, processes=False)),
        (10, 10 * 33 * KiB, 2, Crew(2, processes=False)),
        (50_000, 1_000, 3, Crew(3, processes=True)),
        (50_000, 1_000, 1, Crew(1, processes=False)),
    ],
)
def test_crew(files: int, size: int, threads: int, expected: Crew) -> None:
    """Small files take processes if there are many, and otherwise one thread."""
    assert crew(TransferOptions(threads=threads), files, size) == expected


def test_crew_of_unknown_length() -> None:
    """Where more files may come, fewer are enough to start processes."""
    options = TransferOptions(threads=2)
    sizes = (4_999, KiB), (5_000, KiB), (5_000, 40 * KiB)
    chosen = [crew(options, files, files * size, more=True).processes for files, size in sizes]
    assert chosen == [False, True, False]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(1, 8))
def test_ahead(items: list[int], window: int) -> None:
    """What comes from another thread comes in order, and no more than the window ahead."""
    taken, given_out = 0, 0

    def source() -> Iterator[int]:
        nonlocal taken
        for item in items:
            taken += 1
            assert taken - given_out <= window + 1
            yield item

    for item in ahead(source(), window):
        assert item == items[given_out]
        given_out += 1
    assert given_out == len(items)


def test_ahead_of_an_error() -> None:
    """An error comes behind what came before it; closed early, no thread is left."""

    def source() -> Iterator[int]:
        yield from range(3)
        raise ValueError("planned")

    before = threading.active_count()
    seen: list[int] = []
    with pytest.raises(ValueError, match="planned"):
        seen.extend(ahead(source(), 2))
    items = ahead(iter(range(100)), 4)
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert threading.active_count() == before


async def test_in_thread() -> None:
    """Blocking code runs beside the loop; its result and its errors come back."""
    assert await in_thread(lambda: threading.current_thread() is threading.main_thread()) is False
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0)


async def test_in_thread_cancelled() -> None:
    """A cancellation waits for the thread, then goes on."""
    begun, release, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        release.wait()
        ended.append(True)

    task = asyncio.ensure_future(in_thread(work, on_cancel=release.set))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
        await asyncio.sleep(0)
    assert ended == [True]


async def test_one_error() -> None:
    """Of several errors the first comes out alone; a broken stream is not the cause."""

    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError("planned")

    async def broken() -> None:
        raise anyio.BrokenResourceError

    with pytest.raises(ValueError, match="planned"):
        async with task_group() as tasks:
            tasks.start_soon(fail)
            tasks.start_soon(anyio.sleep_forever)
    with pytest.raises(ValueError, match="planned"):
        async with task_group() as tasks:
            async with task_group() as inner:
                inner.start_soon(fail)
            tasks.start_soon(anyio.sleep_forever)
    with pytest.raises(anyio.BrokenResourceError):
        async with task_group() as tasks:
            tasks.start_soon(broken)


async def test_beside() -> None:
    """What runs beside a block gives its result, fails it, and ends with it."""
    ended: list[str] = []

    async def work(seconds: float, error: Exception | None = None) -> str:
        try:
            await anyio.sleep(seconds)
            if error:
                raise error
        finally:
            ended.append("work")
        return "result"

    async with beside(lambda: work(0.0)) as wait:
        assert await wait() == "result"
        assert await wait() == "result"
    with pytest.raises(ValueError, match="planned"):
        async with beside(lambda: work(0.0, ValueError("planned"))):
            await anyio.sleep_forever()
    async with beside(lambda: work(60.0)):
        await anyio.lowlevel.checkpoint()
    assert ended == ["work"] * 3
