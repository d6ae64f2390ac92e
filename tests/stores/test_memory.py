"""What tests rely on when they use the store in memory."""

import secrets
import time
import zlib

import pytest

from etcetera.errors import ConfigError, NetworkError, StoreError
from etcetera.settings import RepositorySettings
from etcetera.stores import PartLimits, open_store
from etcetera.stores.memory import MemoryStore, memory_store


@pytest.fixture
def store() -> MemoryStore:
    """Return an empty store."""
    return memory_store(f"memory://{secrets.token_hex(8)}")


async def test_one_store_per_name(store: MemoryStore) -> None:
    """The same name is the same store, for the whole process."""
    async with open_store(RepositorySettings(url=store.url)) as opened:
        assert opened is store
    assert memory_store(f"{store.url}2") is not store


async def test_no_name() -> None:
    """A URL without a name is refused."""
    with pytest.raises(ConfigError):
        async with open_store(RepositorySettings(url="memory://")):
            pytest.fail("opened")


async def test_faults(store: MemoryStore) -> None:
    """A planned fault strikes at its call, once, and changes nothing."""
    fault = NetworkError("planned")
    store.faults = {("put", 2): fault}
    await store.put("a", b"x", overwrite=False)
    with pytest.raises(NetworkError) as caught:
        await store.put("b", b"x", overwrite=False)
    assert caught.value is fault
    await store.put("c", b"x", overwrite=False)
    assert set(store.objects) == {"a", "c"}
    assert store.calls["put"] == 3


async def test_failed_abort(store: MemoryStore) -> None:
    """An upload whose removal fails stays open, with a note on the error."""
    store.faults = {("abort", 1): NetworkError("planned")}
    with pytest.raises(ZeroDivisionError) as caught:
        async with store.upload("a", part_size=1, overwrite=False):
            raise ZeroDivisionError
    assert len(store.uploads) == 1
    assert "upload-" in caught.value.__notes__[0]


async def test_counts_and_latency(store: MemoryStore) -> None:
    """Bytes are counted both ways, and every call takes its latency."""
    store.latency = 0.02
    before = time.monotonic()
    await store.put("a", b"12345", overwrite=False)
    async with store.open("a") as remote:
        assert remote is not None
        await remote.read(1, 4)
    assert time.monotonic() - before >= 0.06
    assert (store.bytes_sent, store.bytes_read) == (5, 3)


async def test_damaged_part(store: MemoryStore) -> None:
    """A part that does not match its CRC-32 is refused."""
    async with store.upload("a", part_size=3, overwrite=False) as upload:
        with pytest.raises(StoreError, match="damaged"):
            await upload.put_part(1, b"abc", zlib.crc32(b"abd"))


async def test_small_part(store: MemoryStore) -> None:
    """A part below the limit is refused, unless it is the last."""
    store.limits = PartLimits(min_part=3, max_part=10, max_parts=4)
    with pytest.raises(StoreError, match="below 3"):
        async with store.upload("a", part_size=2, overwrite=False) as upload:
            await upload.put_part(1, b"ab", zlib.crc32(b"ab"))
            await upload.put_part(2, b"c", zlib.crc32(b"c"))
            await upload.complete()
    with pytest.raises(ValueError, match="part 5"):
        async with store.upload("a", part_size=3, overwrite=False) as upload:
            await upload.put_part(5, b"c", zlib.crc32(b"c"))
