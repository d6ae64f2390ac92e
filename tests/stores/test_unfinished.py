"""Uploads that one process begins and another one goes on with, in every kind of store."""

import secrets
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from zlib import crc32

import pytest

from etcetera.errors import NetworkError, StoreError
from etcetera.stores import CannotResume, Unfinished, open_store
from tests.stores.conftest import RESUMABLE, Backend

pytestmark = pytest.mark.parametrize("backend", RESUMABLE, indirect=True)

KEY = "set.tgz"
FLOOR = 5 << 20
"""Bytes of a part at the least, everywhere."""

LONG_AFTER = datetime.now(UTC) + timedelta(days=1)
"""Everything is idle by then."""


async def begin(backend: Backend, parts: list[bytes], error: Exception) -> Unfinished:
    """Send parts, and end with *error*; return what a journal would know."""
    async with open_store(backend.settings) as store:
        with pytest.raises(type(error)):
            async with store.upload(KEY, part_size=backend.part_size, overwrite=False) as upload:
                for number, data in enumerate(parts, 1):
                    await upload.put_part(number, data, crc32(data))
                upload.keep = True
                known = Unfinished(
                    id=upload.id,
                    state=upload.state(),
                    parts=[upload.part(number) for number in range(1, len(parts) + 1)],
                )
                raise error
        assert upload.kept == isinstance(error, NetworkError)
    return known


def two(backend: Backend) -> list[bytes]:
    """Two whole parts."""
    return [secrets.token_bytes(backend.part_size) for _ in range(2)]


async def test_goes_on(backend: Backend) -> None:
    """Parts that were sent before become part of the object."""
    parts = two(backend)
    known = await begin(backend, parts, NetworkError("dead"))
    async with open_store(backend.settings) as store:
        assert await store.head(KEY) is None
        async with store.upload(
            KEY, part_size=backend.part_size, overwrite=False, resume=known
        ) as upload:
            assert [upload.part(1), upload.part(2)] == known.parts
            await upload.put_part(3, b"end", crc32(b"end"))
            info = await upload.complete()
        async with store.open(KEY) as remote:
            assert remote is not None
            assert await remote.read(0, info.size) == b"".join(parts) + b"end"
        assert await backend.count_uploads(store) == 0


async def test_sent_again(backend: Backend) -> None:
    """Of a part that no journal knows the later one counts, or the upload cannot be resumed."""
    parts = two(backend)
    known = await begin(backend, parts, NetworkError("dead"))
    first = Unfinished(id=known.id, state=known.state, parts=known.parts[:1])
    other = secrets.token_bytes(backend.part_size)
    async with open_store(backend.settings) as store:
        # rclone has passed the part on already.
        refused = pytest.raises(CannotResume) if backend.name == "rclone" else nullcontext()
        with refused:
            async with store.upload(
                KEY, part_size=backend.part_size, overwrite=False, resume=first
            ) as upload:
                await upload.put_part(2, other, crc32(other))
                await upload.put_part(3, b"end", crc32(b"end"))
                info = await upload.complete()
        assert await backend.count_uploads(store) == 0
        async with store.open(KEY) as remote:
            if backend.name == "rclone":
                assert remote is None
            else:
                assert remote is not None
                assert await remote.read(0, info.size) == parts[0] + other + b"end"


async def test_what_no_resuming_cures(backend: Backend) -> None:
    """An error that resuming cannot cure removes the upload, whoever knows it."""
    await begin(backend, two(backend), StoreError("refused"))
    async with open_store(backend.settings) as store:
        assert await backend.count_uploads(store) == 0


@pytest.mark.parametrize("wrong", ["gone", "part"])
async def test_cannot(backend: Backend, wrong: str) -> None:
    """What is not there, or is another one, is refused, and nothing is left."""
    known = await begin(backend, two(backend), NetworkError("dead"))
    async with open_store(backend.settings) as store:
        if wrong == "gone":
            await store.abandon(KEY, known.id)
            await store.abandon(KEY, known.id)
        else:
            other = {name: value[::-1] for name, value in known.parts[1].items()}
            known = Unfinished(id=known.id, state=known.state, parts=[known.parts[0], other])
        with pytest.raises(CannotResume):
            async with store.upload(
                KEY, part_size=backend.part_size, overwrite=False, resume=known
            ):
                raise AssertionError("it was taken for what it is not")
        assert await backend.count_uploads(store) == 0


async def test_idle(backend: Backend) -> None:
    """UP-11, UP-12: an upload is idle once nothing has come for long, and can be abandoned."""
    parts = two(backend)
    known = await begin(backend, parts, NetworkError("dead"))
    async with open_store(backend.settings) as store:
        long_ago = datetime.now(UTC) - timedelta(days=1)
        assert [one async for one in store.unfinished(long_ago)] == []
        found = [one async for one in store.unfinished(LONG_AFTER)]
        assert [(one.key, one.id, one.size) for one in found] == [
            (KEY, known.id, sum(map(len, parts)))
        ]
        await store.abandon(KEY, known.id)
        assert [one async for one in store.unfinished(LONG_AFTER)] == []


async def test_copied_parts(backend: Backend) -> None:
    """Parts that were copied are gone on with as those that were sent, of whatever length."""
    old = secrets.token_bytes(2 * FLOOR + 11)
    async with open_store(backend.settings) as store:
        if await store.why_no_copies() is not None or backend.name == "rclone":
            return  # conformance sees to it that they say so
        async with store.upload("old.tgz", part_size=2 * FLOOR, overwrite=False) as upload:
            await upload.put_part(1, old[: 2 * FLOOR], crc32(old[: 2 * FLOOR]))
            await upload.put_part(2, old[2 * FLOOR :], crc32(old[2 * FLOOR :]))
            source = await upload.complete()
        with pytest.raises(NetworkError):
            async with store.upload(KEY, part_size=2 * FLOOR, overwrite=False) as upload:
                await upload.copy_part(1, source, 3, FLOOR + 7, crc32(old[3 : FLOOR + 7]))
                await upload.put_part(2, old[15:], crc32(old[15:]))
                upload.keep = True
                parts = [upload.part(1), upload.part(2)]
                known = Unfinished(id=upload.id, state=upload.state(), parts=parts)
                raise NetworkError("dead")
    async with open_store(backend.settings) as store:
        async with store.upload(KEY, part_size=2 * FLOOR, overwrite=False, resume=known) as upload:
            assert [upload.part(1), upload.part(2)] == known.parts
            await upload.copy_part(3, source, 0, FLOOR, crc32(old[:FLOOR]))
            await upload.put_part(4, b"end", crc32(b"end"))
            info = await upload.complete()
        async with store.open(KEY) as remote:
            assert remote is not None
            expected = old[3 : FLOOR + 7] + old[15:] + old[:FLOOR] + b"end"
            assert await remote.read(0, info.size) == expected
        assert await backend.count_uploads(store) == 0
