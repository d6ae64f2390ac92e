"""Interrupted transfers: nothing left behind, nothing in between."""

import asyncio
import gzip
import shutil
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

import etcetera as etc
from etcetera.errors import NetworkError
from etcetera.progress import Phase
from etcetera.stores.memory import MemoryStore, memory_store
from etcetera.transfer.index import MARK
from tests.datasets import make_large_dataset, snapshot

MiB = 1 << 20
STEPS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233)
"""Turns of the event loop after which a transfer is cancelled."""


class Site:
    """A home with one dataset, and a repository in memory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.config = etc.Config(
            f"memory://{name}", directory / "home", part_size="5MiB", workers=3
        )
        self.store: MemoryStore = memory_store(f"memory://{name}")
        self.source = make_large_dataset(directory / "source", 18 * MiB)

    def assert_clean(self) -> None:
        """Assert that no upload is open, and no thread or staging tree is left."""
        assert not self.store.uploads
        staging = self.config.home / ".etcetera" / "staging"
        assert not staging.exists() or not list(staging.iterdir())
        # anyio keeps idle threads; ours have names of their own.
        assert not [one for one in threading.enumerate() if one.name.startswith("etcetera")]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A place to push from and pull to, with the dataset registered."""
    site = Site(tmp_path, tmp_path.name)
    etc.register(site.source, "big", config=site.config)
    return site


async def cancel_natively(transfer: Callable[[], Awaitable[object]], steps: int) -> bool:
    """Start *transfer*, cancel its task after *steps* turns; tell whether that ended it."""
    task = asyncio.ensure_future(transfer())
    for _ in range(steps):
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def cancel_by_scope(transfer: Callable[[], Awaitable[object]], steps: int) -> bool:
    """The same with a cancel scope of anyio."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def stop() -> None:
                for _ in range(steps):
                    await asyncio.sleep(0.001)
                scope.cancel()

            tasks.start_soon(stop)
            await transfer()
            tasks.cancel_scope.cancel()
            return False
    return True


@pytest.mark.parametrize("cancel", [cancel_natively, cancel_by_scope])
@pytest.mark.parametrize("steps", STEPS)
async def test_cancelled_push(
    site: Site,
    steps: int,
    cancel: Callable[[Callable[[], Awaitable[object]], int], Awaitable[bool]],
) -> None:
    """UP-08, AS-01: wherever it is cancelled, no upload is open, the name is absent or whole."""
    site.store.latency = 0.004
    cancelled = await cancel(lambda: etc.apush("big", config=site.config), steps)
    site.assert_clean()
    site.store.latency = 0
    assert cancelled or "big.tgz" in site.store.objects
    await etc.apush("big", force=True, config=site.config)
    await etc.apurge("big", site.config)
    result = await etc.apull("big", config=site.config)
    assert snapshot(result.path) == snapshot(site.source)


@pytest.mark.parametrize("cancel", [cancel_natively, cancel_by_scope])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("indexed", [True, False])
async def test_cancelled_pull(
    site: Site,
    steps: int,
    indexed: bool,
    cancel: Callable[[Callable[[], Awaitable[object]], int], Awaitable[bool]],
) -> None:
    """AS-01: wherever a pull is cancelled, nothing is staged and the name is absent or whole."""
    await etc.apush("big", config=site.config)
    await etc.apurge("big", site.config)
    if not indexed:
        info, data = site.store.objects["big.tgz"]
        data = without_index(data)
        site.store.objects["big.tgz"] = (replace(info, size=len(data)), data)
    site.store.latency = 0.004
    cancelled = await cancel(lambda: etc.apull("big", config=site.config), steps)
    site.assert_clean()
    site.store.latency = 0
    if etc.ls(config=site.config):
        assert snapshot(site.config.home / "big") == snapshot(site.source)
    else:
        assert cancelled
    result = await etc.apull("big", force=True, config=site.config)
    assert snapshot(result.path) == snapshot(site.source)


def without_index(archive: bytes) -> bytes:
    """The same files as an archive that has no index."""
    return gzip.compress(gzip.decompress(archive).replace(MARK, MARK.upper()), 1)


@pytest.mark.parametrize("phase", ["scan", "transfer", "done"])
async def test_cancelled_in_a_callback_of_push(site: Site, phase: Phase) -> None:
    """An error in the caller's own progress callback ends a push cleanly and comes out."""

    def fail(moment: etc.Progress) -> None:
        if moment.phase == phase:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await etc.apush("big", config=site.config, progress=fail)
    site.assert_clean()
    assert ("big.tgz" in site.store.objects) == (phase == "done")


FAULTS = [("head", 1), ("upload", 1), ("put_part", 1), ("put_part", 3), ("complete", 1)]


@pytest.mark.parametrize("call", FAULTS)
async def test_failed_push(site: Site, call: tuple[str, int]) -> None:
    """Whatever the store refuses, the error comes out alone and no upload stays open."""
    site.store.faults[call] = NetworkError("the line is dead")
    with pytest.raises(NetworkError, match="the line is dead"):
        await etc.apush("big", config=site.config)
    site.assert_clean()
    assert not site.store.objects


async def test_failed_abort_is_told(site: Site) -> None:
    """UP-10: if even removing the upload fails, the error says what is left."""
    site.store.faults["put_part", 2] = NetworkError("the line is dead")
    site.store.faults["abort", 1] = NetworkError("still dead")
    with pytest.raises(NetworkError, match="the line is dead") as caught:
        await etc.apush("big", config=site.config)
    assert any("upload-" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("call", [("open", 1), ("read", 1), ("read", 2), ("read", 4)])
async def test_failed_pull(site: Site, call: tuple[str, int]) -> None:
    """A pull that fails leaves the dataset that was there, and nothing else."""
    await etc.apush("big", config=site.config)
    await etc.apurge("big", site.config)
    old = await etc.acreate("big", config=site.config)
    (old["train"] / "old").write_text("old")
    site.store.calls.clear()
    site.store.faults[call] = NetworkError("the line is dead")
    with pytest.raises(NetworkError, match="the line is dead"):
        await etc.apull("big", force=True, config=site.config)
    site.assert_clean()
    assert (site.config.home / "big" / "data" / "train" / "old").read_text() == "old"


@pytest.mark.parametrize("moment", ["scan", "transfer"])
async def test_source_that_vanishes(site: Site, moment: Phase) -> None:
    """PK-04: A dataset that is deleted while it is pushed is an error, or was read whole before."""

    def delete(progress: etc.Progress) -> None:
        if progress.phase == moment:
            shutil.rmtree(site.source, ignore_errors=True)

    content = snapshot(site.source)
    site.store.latency = 0.02
    try:
        await etc.apush("big", config=site.config, progress=delete)
    except etc.EtceteraError:
        assert not site.store.objects
    else:
        await etc.apurge("big", site.config)
        assert snapshot((await etc.apull("big", config=site.config)).path) == content
    site.assert_clean()


def test_interrupt_in_a_worker_thread(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AS-04: an interrupt that comes up in a thread that packs ends the push, with all threads."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("etcetera.transfer.pack.make_frame", interrupt)
        with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
            etc.push("big", config=site.config)
    site.assert_clean()
    etc.push("big", config=site.config)
    assert "big.tgz" in site.store.objects


ROUND = """
import asyncio, sys
from pathlib import Path
import etcetera as etc

async def main(root):
    own = etc.Config(f"file://{root}/bucket", root / "home")
    other = etc.Config(own.url, root / "other")
    await etc.acreate("x", config=own)
    await etc.apush("x", config=own)
    for wait in (0, 0.001, 0.01):
        task = asyncio.ensure_future(etc.apull("x", True, other))
        await asyncio.sleep(wait)
        task.cancel()
        await asyncio.wait([task])
    await etc.apull("x", True, other)
    async with await etc.aremote("x", other) as remote:
        remote.keys()

root = Path(sys.argv[1])
(root / "bucket").mkdir()
asyncio.run(main(root))
etc.pull("x", True, etc.Config(f"file://{root}/bucket", root / "other"))
"""


def test_nothing_is_left_to_complain_of(tmp_path: Path) -> None:
    """AS-07: Python's own checks find no task, file or socket that was forgotten."""
    command = [sys.executable, "-W", "error", "-c", ROUND, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
