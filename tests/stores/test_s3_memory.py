"""What S3 requests hold in memory: a range once, a part not at all."""

import asyncio
import gc
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from random import Random

import pytest

from etcetera.errors import StoreError
from etcetera.settings import RepositorySettings
from etcetera.stores import Data, Store, open_store
from tests.stores.fake_s3 import Answer, FakeS3, Request, Trick, error

MiB = 1 << 20
SIZE = 8 * MiB
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def store(fake: FakeS3) -> AsyncIterator[Store]:
    """Open the bucket of the fake server."""
    async with open_store(fake.settings()) as opened:
        yield opened


@pytest.fixture
def no_garbage() -> Iterator[None]:
    """Have nothing freed that somebody still refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_read_holds_the_range_once(moto_settings: RepositorySettings) -> None:
    """A range takes its size, and what the network delivers at once."""
    data = Random(1).randbytes(SIZE)
    async with open_store(moto_settings) as store:
        await store.put("a.tgz", data, overwrite=False)
        async with store.open("a.tgz") as remote:
            assert remote is not None
            await remote.read(0, 10)
            tracemalloc.start()
            found = await remote.read(1, SIZE)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert found == data[1:]
    assert peak < SIZE + 3 * MiB


async def test_part_is_not_copied(moto_settings: RepositorySettings) -> None:
    """Sending a part takes chunks of it, but no second one."""
    data = bytearray(Random(1).randbytes(SIZE))
    async with open_store(moto_settings) as store:
        await store.head("a.tgz")
        async with store.upload("a.tgz", part_size=SIZE, overwrite=False) as upload:
            tracemalloc.start()
            await upload.put_part(1, memoryview(data), zlib.crc32(data))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            await upload.complete()
    assert peak < 3 * MiB


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_kinds_of_data(fake: FakeS3, store: Store, kind: Callable[[bytes], Data]) -> None:
    """A part arrives whole and is sent again whole, whatever kind of memory it is in."""
    data = Random(2).randbytes(MiB + 1)
    fake.tricks["part"] = [error(503, "SlowDown"), Answer(silent=True)]
    async with store.upload("a.tgz", part_size=2 * MiB, overwrite=False) as upload:
        await upload.put_part(1, kind(data), zlib.crc32(data))
        await upload.complete()
    assert [one.body for one in fake.seen if one.operation == "part"] == [data] * 3
    await store.put("b.tgz", kind(data), overwrite=False)
    assert fake.objects["b.tgz"][0] == data


@pytest.mark.parametrize("ending", ["sent", "retried", "refused", "cancelled"])
async def test_part_is_let_go(fake: FakeS3, store: Store, no_garbage: None, ending: str) -> None:
    """However sending ends, the memory of a part is nobody's then, with the error still held."""
    arrived = asyncio.Event()

    async def hang(request: Request, serve: Callable[[], Answer]) -> Answer:
        arrived.set()
        await asyncio.sleep(0.2)
        return serve()

    tricks: dict[str, list[Trick | Answer | None]] = {
        "sent": [],
        "retried": [Answer(silent=True), error(503, "SlowDown")],
        "refused": [error(400, "EntityTooLarge")],
        "cancelled": [hang],
    }
    fake.tricks["part"] = tricks[ending]
    data, crc32 = bytearray(MiB), zlib.crc32(bytes(MiB))
    async with store.upload("a.tgz", part_size=MiB, overwrite=False) as upload:
        view = memoryview(data)
        task = asyncio.create_task(upload.put_part(1, view, crc32))
        if ending == "cancelled":
            await arrived.wait()
            task.cancel()
        await asyncio.wait([task])
        view.release()
        data.clear()  # refused while there is a view of it
    assert task.cancelled() == (ending == "cancelled")
    if ending == "refused":
        assert isinstance(task.exception(), StoreError)


async def test_answer_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a part that is refused before it was read, nothing is sent once its memory changes."""
    received = bytearray()
    done = asyncio.Event()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = b"<R><UploadId>upload-1</UploadId></R>" if head.startswith("POST") else b""
        status = "400 No" if head.startswith("PUT") else "200 OK"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1") + body
        )
        await writer.drain()
        if head.startswith("PUT"):
            await asyncio.sleep(0.1)
            while piece := await reader.read(MiB):
                received.extend(piece)
            done.set()
        writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    settings = FakeS3(endpoint=f"http://{host}:{port}").settings()
    data = bytearray(b"a") * (16 * MiB)
    async with server, open_store(settings) as store:
        with pytest.raises(StoreError):
            async with store.upload("a.tgz", part_size=len(data), overwrite=False) as upload:
                try:
                    await upload.put_part(1, data, zlib.crc32(data))
                finally:
                    data[:] = b"b" * len(data)
        await done.wait()
    assert len(received) < len(data)
    assert set(received) == {ord("a")}
