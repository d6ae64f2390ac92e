"""SY-04: what every store promises, whatever is behind it."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from random import Random

import anyio
import pytest

from etcetera.errors import (
    AlreadyExists,
    EtceteraError,
    InvalidName,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
)
from etcetera.settings import RepositorySettings
from etcetera.stores import CannotCopy, ObjectInfo, Store, open_store
from tests.stores.conftest import Backend

RARE_KEYS = ("a&b<c>d+e f%20g.tgz", "naïve-數據-🗄.tgz", 'it\'s "quoted".tgz', "a=b;c,d@e~f.tgz")


@pytest.fixture
async def store(backend: Backend) -> AsyncIterator[Store]:
    """Open the repository of the backend."""
    async with open_store(backend.settings) as opened:
        yield opened


def some_bytes(count: int) -> bytes:
    """Return bytes that do not repeat, the same ones every time."""
    return Random(count).randbytes(count)


async def push(
    store: Store,
    key: str,
    data: bytes,
    part_size: int,
    *,
    overwrite: bool = False,
    together: bool = False,
) -> ObjectInfo:
    """Upload *data*, the last part first, or all at once."""
    parts = [data[start : start + part_size] for start in range(0, len(data), part_size)]
    async with store.upload(key, part_size=part_size, overwrite=overwrite) as upload:
        async with anyio.create_task_group() as tasks:
            for number in range(len(parts), 0, -1):
                part = parts[number - 1]
                if together:
                    tasks.start_soon(upload.put_part, number, part, zlib.crc32(part))
                else:
                    await upload.put_part(number, part, zlib.crc32(part))
        return await upload.complete()


async def listed(store: Store) -> dict[str, ObjectInfo]:
    """Return the listing by key; a key listed twice is an error."""
    found = [info async for info in store.list()]
    assert len({info.key for info in found}) == len(found)
    return {info.key: info for info in found}


async def content(store: Store, key: str) -> bytes | bytearray | None:
    """Return a whole object."""
    async with store.open(key) as remote:
        return None if remote is None else await remote.read(0, remote.info.size)


async def test_put_and_look(store: Store) -> None:
    """UP-13: what put returns is what head and list say afterwards, and the bytes come back."""
    info = await store.put("a.tgz", b"some bytes", overwrite=False)
    assert (info.key, info.size) == ("a.tgz", 10)
    assert info.modified.tzinfo is not None
    head = await store.head("a.tgz")
    assert head is not None
    assert (head.key, head.size, head.etag) == (info.key, info.size, info.etag)
    assert (await listed(store))["a.tgz"].etag == info.etag
    assert await content(store, "a.tgz") == b"some bytes"


async def test_absent(store: Store) -> None:
    """An object that is not there is None or nothing, never an error."""
    assert await store.head("a.tgz") is None
    assert await content(store, "a.tgz") is None
    assert await listed(store) == {}
    await store.delete("a.tgz")


async def test_missing_repository(backend: Backend) -> None:
    """DN-10: a bucket or directory that does not exist is told from an object that does not."""
    async with open_store(backend.missing) as store:
        with pytest.raises(RepositoryNotFound):
            await store.head("a.tgz")
        with pytest.raises(RepositoryNotFound):
            await listed(store)
        with pytest.raises(RepositoryNotFound):
            await store.put("a.tgz", b"x", overwrite=False)
        with pytest.raises(RepositoryNotFound):
            async with store.upload("a.tgz", part_size=1 << 23, overwrite=True):
                pytest.fail("began an upload into nothing")
        with pytest.raises(RepositoryNotFound):
            async with store.open("a.tgz"):
                pytest.fail("opened an object of nothing")


async def test_read_ranges(store: Store) -> None:
    """A range brings exactly its bytes, at the borders and when empty too."""
    data = some_bytes(300_000)
    await store.put("a.tgz", data, overwrite=False)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        for start, stop in (
            (0, 0),
            (0, 1),
            (7, 7),
            (1, 2),
            (65_535, 65_537),
            (100, 299_999),
            (299_999, 300_000),
            (300_000, 300_000),
            (0, 300_000),
        ):
            assert await remote.read(start, stop) == data[start:stop]
        for start, stop in ((-1, 5), (5, 4), (0, 300_001)):
            with pytest.raises(ValueError, match="not within"):
                await remote.read(start, stop)


async def test_concurrent_reads(store: Store) -> None:
    """Ranges of one object may be read at the same time."""
    data = some_bytes(1 << 20)
    await store.put("a.tgz", data, overwrite=False)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        starts = range(0, len(data), 1 << 16)
        pieces = await asyncio.gather(*(remote.read(start, start + (1 << 16)) for start in starts))
    assert b"".join(pieces) == data


async def test_empty_object(store: Store) -> None:
    """An object may be empty."""
    info = await store.put("a.tgz", b"", overwrite=False)
    assert info.size == 0
    assert await content(store, "a.tgz") == b""


async def test_create_only(store: Store, backend: Backend) -> None:
    """Without overwrite a taken key is refused and keeps its object, by put and by upload."""
    await store.put("a.tgz", b"first", overwrite=False)
    with pytest.raises(AlreadyExists):
        await store.put("a.tgz", b"second", overwrite=False)
    with pytest.raises(AlreadyExists):
        await push(store, "a.tgz", b"third", backend.part_size)
    assert await content(store, "a.tgz") == b"first"
    assert await backend.count_uploads(store) == 0


async def test_overwrite(store: Store, backend: Backend) -> None:
    """With overwrite the new object takes the place of the old one, under a new ETag."""
    first = await store.put("a.tgz", b"first", overwrite=True)
    second = await store.put("a.tgz", b"second", overwrite=True)
    assert await content(store, "a.tgz") == b"second"
    third = await push(store, "a.tgz", b"third", backend.part_size, overwrite=True)
    assert await content(store, "a.tgz") == b"third"
    assert len({first.etag, second.etag, third.etag}) == 3


async def test_delete(store: Store) -> None:
    """A deleted object is gone from everywhere, and the others stay."""
    await store.put("a.tgz", b"a", overwrite=False)
    await store.put("b.tgz", b"b", overwrite=False)
    await store.delete("a.tgz")
    assert await store.head("a.tgz") is None
    assert set(await listed(store)) == {"b.tgz"}


@pytest.mark.parametrize("key", RARE_KEYS)
async def test_rare_keys(store: Store, backend: Backend, key: str) -> None:
    """AU-14: keys come back as they went, whatever a URL or XML would make of them."""
    await store.put(key, b"put", overwrite=False)
    await push(store, key, b"pushed", backend.part_size, overwrite=True)
    assert set(await listed(store)) == {key}
    assert await content(store, key) == b"pushed"
    await store.delete(key)
    assert await listed(store) == {}


@pytest.mark.parametrize("key", ["", "a/b.tgz", ".hidden", "..", "a\0b"])
async def test_impossible_keys(store: Store, key: str) -> None:
    """A key that could leave the repository or hide in it is refused everywhere."""
    for call in (
        store.head(key),
        store.delete(key),
        store.put(key, b"x", overwrite=True),
        push(store, key, b"x", 1 << 23),
        content(store, key),
    ):
        with pytest.raises(InvalidName):
            await call


@pytest.mark.parametrize("excess", ["one byte", "one short", "even", "tiny last", "three"])
@pytest.mark.parametrize("together", [False, True], ids=["backwards", "together"])
async def test_upload_sizes(store: Store, backend: Backend, excess: str, together: bool) -> None:
    """UP-14, UP-18: parts in any order become one object, whatever the last one holds."""
    part_size = backend.part_size
    sizes = {
        "one byte": 1,
        "one short": part_size - 1,
        "even": 2 * part_size,
        "tiny last": part_size + 1,
        "three": 3 * part_size - 7,
    }
    data = some_bytes(sizes[excess])
    info = await push(store, "a.tgz", data, part_size, together=together)
    assert info.size == len(data)
    assert await store.head("a.tgz") == info
    assert await content(store, "a.tgz") == data
    assert await backend.count_uploads(store) == 0


async def test_invisible_until_complete(store: Store, backend: Backend) -> None:
    """Nobody sees an upload before it is complete."""
    async with store.upload("a.tgz", part_size=backend.part_size, overwrite=False) as upload:
        await upload.put_part(1, b"x", zlib.crc32(b"x"))
        assert upload.id
        assert await store.head("a.tgz") is None
        assert await listed(store) == {}
        await upload.complete()
    assert set(await listed(store)) == {"a.tgz"}


async def test_part_sent_again(store: Store, backend: Backend) -> None:
    """A part may be sent twice."""
    async with store.upload("a.tgz", part_size=backend.part_size, overwrite=False) as upload:
        for _ in range(2):
            await upload.put_part(1, b"x", zlib.crc32(b"x"))
        await upload.complete()
    assert await content(store, "a.tgz") == b"x"


async def test_wrong_parts(store: Store, backend: Backend) -> None:
    """Parts that are too long, badly numbered, missing or short in the middle are refused."""
    size = backend.part_size
    part = some_bytes(size)
    with pytest.raises(StoreError, match="cannot complete"):
        await push(store, "a.tgz", b"", size)
    with pytest.raises(StoreError, match="cannot complete"):
        async with store.upload("a.tgz", part_size=size, overwrite=False) as upload:
            await upload.put_part(2, part, zlib.crc32(part))
            await upload.complete()
    with pytest.raises(StoreError, match="shorter"):
        async with store.upload("a.tgz", part_size=size, overwrite=False) as upload:
            await upload.put_part(1, b"x", zlib.crc32(b"x"))
            await upload.put_part(2, part, zlib.crc32(part))
            await upload.complete()
    for number, data in ((0, b"x"), (10_001, b"x"), (1, b""), (1, part + b"x")):
        with pytest.raises(ValueError, match=f"part {number}"):
            async with store.upload("a.tgz", part_size=size, overwrite=False) as upload:
                await upload.put_part(number, data, zlib.crc32(data))
    assert await listed(store) == {}
    assert await backend.count_uploads(store) == 0


@pytest.mark.parametrize("overwrite", [False, True])
async def test_abort(store: Store, backend: Backend, overwrite: bool) -> None:
    """Leaving without complete, or by an error, leaves the old object and no upload."""
    if overwrite:
        await store.put("a.tgz", b"old", overwrite=False)
    size = backend.part_size
    async with store.upload("a.tgz", part_size=size, overwrite=overwrite) as upload:
        await upload.put_part(1, b"new", zlib.crc32(b"new"))
    with pytest.raises(ZeroDivisionError):
        async with store.upload("a.tgz", part_size=size, overwrite=overwrite) as upload:
            await upload.put_part(1, b"new", zlib.crc32(b"new"))
            raise ZeroDivisionError
    assert await backend.count_uploads(store) == 0
    assert await content(store, "a.tgz") == (b"old" if overwrite else None)


@pytest.mark.parametrize("native", [False, True], ids=["scope", "task"])
@pytest.mark.parametrize("steps", [*range(12), 20, 40, 80])
async def test_cancelled_upload(store: Store, backend: Backend, steps: int, native: bool) -> None:
    """Cancelled at any moment, an upload is either published whole or gone without a trace."""
    # Not the slow first request: the moments after it are the interesting ones.
    await store.head("a.tgz")
    data = some_bytes(backend.part_size + 1)
    scope = anyio.CancelScope()

    async def push_in_scope() -> None:
        with scope:
            await push(store, "a.tgz", data, backend.part_size, together=True)

    task = asyncio.create_task(push_in_scope())
    for _ in range(steps):
        await asyncio.sleep(0.0005)
    if native:
        task.cancel()
    else:
        scope.cancel()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None
    assert await backend.count_uploads(store) == 0
    assert await content(store, "a.tgz") in (None, data)


async def test_one_winner(store: Store, backend: Backend) -> None:
    """FR-02, UP-19: of create-only uploads at once exactly one wins, and the object is its own."""
    contents = [some_bytes(backend.part_size + number) for number in range(4)]
    outcomes = await asyncio.gather(
        *(push(store, "a.tgz", data, backend.part_size) for data in contents),
        return_exceptions=True,
    )
    winners = [
        data
        for data, outcome in zip(contents, outcomes, strict=True)
        if isinstance(outcome, ObjectInfo)
    ]
    assert all(isinstance(outcome, (ObjectInfo, EtceteraError)) for outcome in outcomes)
    if backend.exclusive:
        assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 3
        assert await content(store, "a.tgz") == winners[0]
    else:
        assert await content(store, "a.tgz") in contents
    assert await backend.count_uploads(store) == 0


async def test_one_winner_of_puts(store: Store, backend: Backend) -> None:
    """FR-02, UP-19: the same holds for put."""
    contents = [some_bytes(100 + number) for number in range(4)]
    outcomes = await asyncio.gather(
        *(store.put("a.tgz", data, overwrite=False) for data in contents), return_exceptions=True
    )
    assert all(isinstance(outcome, (ObjectInfo, EtceteraError)) for outcome in outcomes)
    if backend.exclusive:
        assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 3
    assert await content(store, "a.tgz") in contents


async def test_replaced_while_read(store: Store, backend: Backend) -> None:
    """DN-12, FR-03: an open object never mixes versions: a file stays the old one, others tell."""
    await store.put("a.tgz", b"old bytes", overwrite=False)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        assert await remote.read(0, 3) == b"old"
        await store.put("a.tgz", b"new bytes", overwrite=True)
        if backend.name == "file":
            assert await remote.read(0, 9) == b"old bytes"
        elif backend.pins:
            with pytest.raises(RemoteChanged):
                await remote.read(4, 9)


async def test_deleted_while_read(store: Store, backend: Backend) -> None:
    """DN-12: an open object that is deleted says so, but for a file, which lives on."""
    await store.put("a.tgz", b"old bytes", overwrite=False)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        await store.delete("a.tgz")
        if backend.name == "file":
            assert await remote.read(0, 9) == b"old bytes"
        else:
            with pytest.raises(RemoteChanged):
                await remote.read(4, 9)


async def test_two_repositories(store: Store, backend: Backend) -> None:
    """A repository shows neither what lies above nor what lies below it."""
    if backend.name == "memory":
        below = RepositorySettings(url=f"{backend.settings.url}/below")
    else:
        url, _, last = backend.settings.url.rpartition("/")
        below = RepositorySettings(
            **{
                name: getattr(backend.settings, name)
                for name in ("endpoint_url", "aws_access_key_id", "aws_secret_access_key")
            },
            url=f"{url}/{last}-sibling",
        )
        if backend.name == "file":
            (
                await anyio.Path(
                    backend.settings.url.removeprefix("file://").replace("%20", " ") + "-sibling"
                ).mkdir()
            )
    async with open_store(below) as other:
        await other.put("b.tgz", b"b", overwrite=False)
        await store.put("a.tgz", b"a", overwrite=False)
        assert set(await listed(store)) == {"a.tgz"}
        assert set(await listed(other)) == {"b.tgz"}
        assert await store.head("b.tgz") is None


async def test_copied_parts(store: Store, backend: Backend) -> None:
    """Parts copied from another object and parts sent make one; or the store says it cannot."""
    size = 5 << 20
    old = some_bytes(2 * size + 11)
    info = await push(store, "old.tgz", old, size)

    async def copy() -> ObjectInfo:
        async with store.upload("new.tgz", part_size=2 * size, overwrite=False) as upload:
            await upload.copy_part(1, info, 3, size + 7, zlib.crc32(old[3 : size + 7]))
            await upload.put_part(2, old[15:], zlib.crc32(old[15:]))
            await upload.copy_part(3, info, 2, size + 2, zlib.crc32(old[2 : size + 2]))
            await upload.put_part(4, b"end", zlib.crc32(b"end"))
            return await upload.complete()

    if backend.name in ("memory", "moto"):
        assert await store.why_no_copies() is None
        published = await copy()
        expected = old[3 : size + 7] + old[15:] + old[2 : size + 2] + b"end"
        assert published.size == len(expected)
        assert await content(store, "new.tgz") == expected
    else:
        with pytest.raises(CannotCopy):
            await copy()
        assert set(await listed(store)) == {"old.tgz"}
    assert await backend.count_uploads(store) == 0


async def test_copies_of_one_version(store: Store, backend: Backend) -> None:
    """UP-23: what replaces a version replaces no other one."""
    info = await store.put("a.tgz", b"old", overwrite=False)
    replaced = await store.put("a.tgz", b"newer", overwrite=True)
    for etag in (info.etag, replaced.etag):
        async with store.upload(
            "a.tgz", part_size=backend.part_size, overwrite=True, replaces=etag
        ) as upload:
            await upload.put_part(1, b"newest", zlib.crc32(b"newest"))
            if etag == info.etag:
                with pytest.raises(RemoteChanged):
                    await upload.complete()
                assert await content(store, "a.tgz") == b"newer"
            else:
                await upload.complete()
    assert await content(store, "a.tgz") == b"newest"
    assert await backend.count_uploads(store) == 0
