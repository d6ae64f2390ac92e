"""How uploads to Google Storage end: whatever cancels them, nothing temporary stays."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from etcetera.errors import NetworkError, StoreError
from etcetera.settings import RepositorySettings
from etcetera.stores import Store, common, open_store
from tests.fake_gs import FakeGS, fake_gs, faults

DATA = bytes(2500)
KEY = "a.tgz"
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def server() -> AsyncIterator[FakeGS]:
    """Run a server that takes parts of any size."""
    async with fake_gs() as server:
        server.make_bucket("bucket")
        server.least_part = 1
        yield server


@pytest.fixture
async def store(server: FakeGS, tmp_path: Path) -> AsyncIterator[Store]:
    """Open the repository, with a token."""
    path = tmp_path / "key.json"
    path.write_text(json.dumps(server.add_account().info(server.endpoint)))
    settings = RepositorySettings(
        url="gs://bucket", endpoint_url=server.endpoint, google_credentials=str(path)
    )
    async with open_store(settings) as opened:
        await opened.head(KEY)
        yield opened


async def push(store: Store) -> None:
    """Upload three parts."""
    async with store.upload(KEY, part_size=1000, overwrite=False) as upload:
        for number in (1, 2, 3):
            part = DATA[(number - 1) * 1000 : number * 1000]
            await upload.put_part(number, part, zlib.crc32(part))
        await upload.complete()


async def fail(store: Store) -> None:
    """Begin an upload and fail."""
    async with store.upload(KEY, part_size=1000, overwrite=False):
        raise NetworkError("the line is dead")


def arriving(server: FakeGS, operation: str, where: str = "") -> asyncio.Event:
    """Have a request take a while; return what tells that it has come."""
    arrived = asyncio.Event()

    async def wait() -> None:
        arrived.set()
        await asyncio.sleep(0.1)

    server.plan(operation, faults.after(wait), where=where)
    return arrived


PUBLISHES = ("xml.complete", "objects.get", "objects.move")


@pytest.mark.parametrize(
    "operation",
    ["buckets.get", "xml.initiate", "xml.part", *PUBLISHES, "xml.abort"],
)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("kind", ["task", "scope"])
async def test_cancelled(
    server: FakeGS, store: Store, operation: str, count: int, kind: str
) -> None:
    """UP-08, UP-09: cancelled during any request, a push has published all of it or nothing."""
    arrived = arriving(server, operation, "etcetera" if operation == "objects.get" else "")
    scope = anyio.CancelScope()

    async def run() -> None:
        with scope:
            await (fail(store) if operation == "xml.abort" else push(store))

    task = asyncio.create_task(run())
    await arrived.wait()
    for _ in range(count):
        if kind == "task":
            task.cancel()
        else:
            scope.cancel()
        await asyncio.sleep(0.005)
    await asyncio.wait([task])
    bucket = server.buckets["bucket"]
    assert bucket.uploads == {}
    assert set(bucket.objects) == ({KEY} if operation in PUBLISHES else set())


async def test_torn_at_last(server: FakeGS, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that outlasts all patience is torn off, and what may be left is named."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.05)
    arrived = arriving(server, "objects.move")
    task = asyncio.create_task(push(store))
    await arrived.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await asyncio.sleep(0.2)
    bucket = server.buckets["bucket"]
    assert bucket.uploads == {}
    assert set(bucket.objects) in ({KEY}, set())


@pytest.mark.parametrize("operation", ["xml.abort", "objects.delete"])
async def test_cannot_be_removed(server: FakeGS, store: Store, operation: str) -> None:
    """UP-10: what cannot be removed is named, with what removes it, beside the error."""
    server.plan(operation, faults.answer(403), times=faults.ALWAYS)
    if operation == "xml.abort":
        with pytest.raises(NetworkError) as caught:
            await fail(store)
        assert "etc clean -r" in caught.value.__notes__[0]
    else:
        server.plan("objects.move", faults.answer(503), times=faults.ALWAYS)
        with pytest.raises((NetworkError, StoreError)) as failed:
            await push(store)
        (note,) = failed.value.__notes__
        (key,) = server.buckets["bucket"].objects
        assert f"gs://bucket/{key}" in note
