"""Requests that no cancellation tears, and cleaning up that is never silent."""

import asyncio
import gc
import logging
from datetime import UTC, datetime, timedelta, timezone

import anyio
import anyio.lowlevel
import pytest

from etcetera.errors import NetworkError, StoreError
from etcetera.stores import common
from etcetera.stores.common import clean_up, time_from, uninterrupted


class Request:
    """Something that ends when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.state = "new"

    async def run(self) -> str:
        """Wait to be told."""
        self.state = "running"
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.state = "torn"
            raise
        self.state = "done"
        return ""


async def turns(count: int = 5) -> None:
    """Let everybody else have a few turns."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("native", [True, False], ids=["task", "scope"])
async def test_many_cancellations(native: bool) -> None:
    """However often the caller is cancelled, and in whatever way, the request ends first."""
    request, scope = Request(), anyio.CancelScope()

    async def call() -> None:
        with scope:
            await uninterrupted(request.run())

    task = asyncio.create_task(call())
    await turns()
    if not native:
        scope.cancel()
    for _ in range(7):
        await turns()
        task.cancel()
    await turns()
    assert request.state == "running"
    request.go_on.set()
    await asyncio.wait([task])
    assert request.state == "done"
    assert task.cancelled()


async def test_scope_alone() -> None:
    """A cancelled scope is left by nothing but its own cancellation, after the request."""
    request = Request()
    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(0.02, request.go_on.set)
        await uninterrupted(request.run())
        pytest.fail("went on")
    assert request.state == "done"
    await anyio.lowlevel.checkpoint()


async def test_timeout_around_a_group() -> None:
    """A second cancellation, from a timeout around a group that fails, tears nothing either."""
    request = Request()

    async def fail() -> None:
        await turns()
        raise ZeroDivisionError

    asyncio.get_running_loop().call_later(0.05, request.go_on.set)
    with pytest.raises(BaseExceptionGroup):
        async with asyncio.timeout(0.02), asyncio.TaskGroup() as tasks:
            tasks.create_task(uninterrupted(request.run()))
            tasks.create_task(fail())
    assert request.state == "done"


async def test_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that does not end holds a cancellation up for a bounded time."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.02)
    request = Request()
    task = asyncio.create_task(uninterrupted(request.run()))
    for _ in range(3):
        await turns()
        task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert request.state == "torn"


async def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs in a thread is waited for without a deadline."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.0)
    request = Request()
    task = asyncio.create_task(uninterrupted(request.run(), patient=True))
    await turns()
    task.cancel()
    await asyncio.sleep(0.02)
    assert request.state == "running"
    request.go_on.set()
    await asyncio.wait([task])
    assert (request.state, task.cancelled()) == ("done", True)


async def test_result_and_error() -> None:
    """Without a cancellation the request's own end comes out."""

    async def fail() -> None:
        raise NetworkError("the line is dead")

    request = Request()
    request.go_on.set()
    assert await uninterrupted(request.run()) == ""
    with pytest.raises(NetworkError, match="the line is dead"):
        await uninterrupted(fail())


async def test_no_reference_is_left() -> None:
    """A cancelled call does not keep what it was about until the garbage is collected."""
    gc.collect()
    gc.disable()
    try:
        request, data = Request(), bytearray(10)

        async def send(view: memoryview) -> None:
            await request.run()

        task = asyncio.create_task(uninterrupted(send(memoryview(data))))
        await turns()
        task.cancel()
        request.go_on.set()
        await asyncio.wait([task])
        del task
        await turns()
        data.clear()  # fails while a view of it exists
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [NetworkError("dead"), asyncio.CancelledError(), None])
async def test_cancelled_clean_up(
    error: BaseException | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancellation while cleaning up neither stops it nor hides an error."""
    request = Request()
    task = asyncio.create_task(clean_up(request.run(), error, left="something"))
    for _ in range(3):
        await turns()
        task.cancel()
    request.go_on.set()
    await asyncio.wait([task])
    assert request.state == "done"
    assert task.cancelled() == (not isinstance(error, Exception))
    assert not hasattr(error, "__notes__")
    assert not caplog.records


async def test_clean_up_that_never_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Cleaning up that had to be given up is told by a note or by a log entry."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.01)
    errors = NetworkError("dead"), asyncio.CancelledError()
    with caplog.at_level(logging.WARNING, "etcetera"):
        for error in errors:
            task = asyncio.create_task(clean_up(Request().run(), error, left="something"))
            await turns()
            task.cancel()
            await asyncio.wait([task])
    assert errors[0].__notes__ == ["something"]
    assert caplog.messages == ["something"]


async def test_clean_up_that_fails() -> None:
    """What is left becomes a note on the error in flight, or the error."""

    async def fail() -> str:
        return "an upload is left"

    error = NetworkError("dead")
    await clean_up(fail(), error, left="")
    assert error.__notes__ == ["an upload is left"]
    with pytest.raises(StoreError, match="an upload is left"):
        await clean_up(fail(), None, left="")


@pytest.mark.parametrize("seconds", [300_000_000_000, 253_402_300_799, 1e300, -1e300])
def test_times_beyond_the_calendar(seconds: float) -> None:
    """A time in a year that no calendar has becomes one that any time zone can show."""
    for hours in (-23, 23):
        time = time_from(seconds).astimezone(timezone(timedelta(hours=hours)))
        assert time.year == (9999 if seconds > 0 else 1)


def test_usual_times() -> None:
    """Any other time stays what it is."""
    assert time_from(0.25) == datetime(1970, 1, 1, microsecond=250_000, tzinfo=UTC)
