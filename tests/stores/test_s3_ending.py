"""How S3 uploads end: whatever cancels them, however often, none stays open."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from etcetera.errors import NetworkError, StoreError
from etcetera.settings import RepositorySettings
from etcetera.stores import Store, common, open_store, s3_upload
from tests.stores.conftest import count_s3_uploads
from tests.stores.fake_s3 import Answer, FakeS3, Request

PART = 5 << 20
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def store(fake: FakeS3) -> AsyncIterator[Store]:
    """Open the bucket of the fake server, with the client made."""
    async with open_store(fake.settings()) as opened:
        await opened.head("a.tgz")
        yield opened


async def push(store: Store) -> None:
    """Upload one part."""
    async with store.upload("a.tgz", part_size=PART, overwrite=False) as upload:
        await upload.put_part(1, b"data", zlib.crc32(b"data"))
        await upload.complete()


async def fail(store: Store) -> None:
    """Begin an upload and fail."""
    async with store.upload("a.tgz", part_size=PART, overwrite=False):
        raise NetworkError("the line is dead")


def slowly(
    arrived: asyncio.Event, seconds: float = 0.1
) -> Callable[[Request, Callable[[], Answer]], "asyncio.Future[Answer]"]:
    """Return a trick: say that the request has come, and do it after a while."""

    async def later(serve: Callable[[], Answer]) -> Answer:
        arrived.set()
        await asyncio.sleep(seconds)
        return serve()

    return lambda request, serve: asyncio.ensure_future(later(serve))


@pytest.mark.parametrize("kind", ["task", "scope", "timeout"])
async def test_cancelled_abort(fake: FakeS3, store: Store, kind: str) -> None:
    """Cancelled again and again while it is removed, the upload goes, and the error comes out."""
    aborting = asyncio.Event()
    fake.tricks["abort"] = [slowly(aborting)]
    scope = anyio.CancelScope()

    limits: list[asyncio.Timeout] = []

    async def run() -> None:
        with scope:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await fail(store)

    task = asyncio.create_task(run())
    await aborting.wait()
    if kind == "timeout":
        limits[0].reschedule(asyncio.get_running_loop().time() + 0.01)
    for _ in range(4):
        if kind == "task":
            task.cancel()
        elif kind == "scope":
            scope.cancel()
        await asyncio.sleep(0.01)
    await asyncio.wait([task])
    assert isinstance(task.exception(), NetworkError)
    assert not hasattr(task.exception(), "__notes__")
    assert fake.uploads == {}


@pytest.mark.parametrize("operation", ["create", "part", "complete", "abort"])
@pytest.mark.parametrize("count", [1, 2, 5])
async def test_repeated_cancellation(
    fake: FakeS3, store: Store, operation: str, count: int
) -> None:
    """UP-08: cancelled twice or more during any request, a push ends in a proper state."""
    arrived = asyncio.Event()
    fake.tricks[operation] = [slowly(arrived)]
    task = asyncio.create_task(fail(store) if operation == "abort" else push(store))
    await arrived.wait()
    for _ in range(count):
        task.cancel()
        await asyncio.sleep(0.005)
    await asyncio.wait([task])
    assert fake.uploads == {}
    assert ("a.tgz" in fake.objects) == (operation == "complete")


async def test_complete_outlives_timeout_and_group(fake: FakeS3, store: Store) -> None:
    """UP-09: a Complete that runs is torn neither by a failing group nor by a timeout after."""
    completing, late = asyncio.Event(), asyncio.Event()

    def when_late(_: Request, serve: Callable[[], Answer]) -> "asyncio.Future[Answer]":
        async def answer() -> Answer:
            completing.set()
            await late.wait()
            return serve()

        return asyncio.ensure_future(answer())

    async def disturb(timeout: asyncio.Timeout) -> None:
        await completing.wait()
        loop = asyncio.get_running_loop()
        timeout.reschedule(loop.time())
        loop.call_later(0.1, late.set)  # by when both have happened
        raise ZeroDivisionError

    fake.tricks["complete"] = [when_late]
    with pytest.raises(BaseExceptionGroup):
        async with asyncio.timeout(None) as timeout, asyncio.TaskGroup() as tasks:
            tasks.create_task(push(store))
            tasks.create_task(disturb(timeout))
    assert timeout.expired()
    assert fake.objects["a.tgz"][0] == b"data"
    assert fake.operations.count("complete") == 1


@pytest.mark.parametrize("native", [True, False], ids=["task", "scope"])
@pytest.mark.parametrize("steps", [0, 2, 4, 7, 10, 14, 20, 30])
async def test_nothing_open_on_moto(
    moto_settings: RepositorySettings, steps: int, native: bool
) -> None:
    """UP-08: cancelled twice at any moments, a push leaves no upload that the server knows."""
    async with open_store(moto_settings) as store:
        await store.head("a.tgz")
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await push(store)

        task = asyncio.create_task(run())
        for _ in range(2):
            await asyncio.sleep(steps * 0.001)
            if native:
                task.cancel()
            else:
                scope.cancel()
        task.cancel()
        await asyncio.wait([task])
        assert await count_s3_uploads(store) == 0


async def test_abort_given_up(
    fake: FakeS3,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """UP-10: an upload whose removal was not confirmed is told, on the error and in the log."""
    for module in (common, s3_upload):
        monkeypatch.setattr(module, "GRACE_SECONDS", 0.05)
    for cancelled in (False, True):
        aborting = asyncio.Event()
        fake.tricks["abort"] = [slowly(aborting, 0.5)]
        if cancelled:
            fake.tricks["part"] = [slowly(asyncio.Event(), 0.5)]
            task = asyncio.create_task(push(store))
            await asyncio.sleep(0.05)
            task.cancel()
        else:
            task = asyncio.create_task(fail(store))
        await aborting.wait()
        task.cancel()
        await asyncio.wait([task])
        told = caplog.text if cancelled else str(getattr(task.exception(), "__notes__", ""))
        assert "aws s3api abort-multipart-upload --bucket bucket --key a.tgz" in told


async def test_begin_given_up(
    fake: FakeS3,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """UP-05: an upload whose id never came is told, with the command that finds it."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.02)
    creating = asyncio.Event()
    fake.tricks["create"] = [slowly(creating, 0.3)]
    task = asyncio.create_task(push(store))
    await creating.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert "aws s3api list-multipart-uploads --bucket bucket --prefix a.tgz" in caplog.text


@pytest.mark.parametrize("native", [True, False], ids=["task", "scope"])
async def test_cancelled_close(fake: FakeS3, native: bool) -> None:
    """Cancelled while it closes, a connection is closed all the same, and the error comes out."""
    closing, closed = asyncio.Event(), asyncio.Event()
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            async with open_store(fake.settings()) as store:
                await store.head("a.tgz")
                client = store.connection._client  # type: ignore[attr-defined]
                close = client.close

                async def close_slowly() -> None:
                    closing.set()
                    await asyncio.sleep(0.05)
                    await close()
                    closed.set()

                client.close = close_slowly
                raise StoreError("something else")

    task = asyncio.create_task(run())
    await closing.wait()
    for _ in range(3):
        if native:
            task.cancel()
        else:
            scope.cancel()
        await asyncio.sleep(0.005)
    await asyncio.wait([task])
    assert isinstance(task.exception(), StoreError)
    assert closed.is_set()


async def test_look_with(
    fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The command that shows whether it was published looks into the repository, not at home."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.02)
    completing = asyncio.Event()
    fake.tricks = {"complete": [slowly(completing, 0.2)], "abort": [Answer(404)]}
    task = asyncio.create_task(push(store))
    await completing.wait()
    task.cancel()
    await asyncio.wait([task])
    assert "may have been published; look with: etc ls -r" in caplog.text


async def test_profile_in_commands(fake: FakeS3) -> None:
    """The command that removes an upload uses the credentials that made it."""
    directory = await anyio.Path.home() / ".aws"
    await directory.mkdir()
    await (directory / "credentials").write_text(
        "[lab]\naws_access_key_id = LAB\naws_secret_access_key = x\n"
    )
    fake.tricks["abort"] = [Answer(400)]
    async with open_store(
        RepositorySettings(url="s3://bucket", endpoint_url=fake.endpoint, profile="lab")
    ) as store:
        with pytest.raises(NetworkError) as caught:
            await fail(store)
    assert caught.value.__notes__[0].endswith("--profile lab")
