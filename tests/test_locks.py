"""etcetera.locks: exclusive among tasks, threads and processes."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from filelock import FileLock

from etcetera.errors import NotAllowed
from etcetera.locks import locked

HOLD = """
import anyio, sys
from pathlib import Path
from etcetera.locks import locked

async def main():
    async with locked(Path(sys.argv[1])):
        print("held", flush=True)
        await anyio.sleep(float(sys.argv[2]))

anyio.run(main)
"""


def start(path: Path, seconds: float) -> "subprocess.Popen[str]":
    """Start a process that takes the lock, says so, and holds it for a while."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def wait_until_held(process: "subprocess.Popen[str]") -> None:
    """Return when the process has the lock."""
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A lock file that does not exist yet."""
    return tmp_path / "x.lock"


@pytest.fixture
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the lock."""
    with start(path, 60) as process:
        wait_until_held(process)
        yield process
        process.kill()


async def test_released(path: Path) -> None:
    """After the block, or an error in it, the lock is free."""
    with pytest.raises(ValueError, match="inside"):
        async with locked(path):
            raise ValueError("inside")
    with anyio.fail_after(5):
        async with locked(path):
            pass


def test_private(path: Path) -> None:
    """SE-08: nobody else opens the lock file, whatever the umask."""

    async def enter() -> None:
        async with locked(path):
            pass

    old = os.umask(0)
    try:
        anyio.run(enter)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_waits_for_another_process(path: Path, holder: "subprocess.Popen[str]") -> None:
    """While another process has the lock, the loop runs on and nobody enters."""
    with anyio.move_on_after(0.5) as scope:
        async with locked(path):
            pytest.fail("two hold the lock")
    assert scope.cancelled_caught


async def test_holder_is_killed(path: Path, holder: "subprocess.Popen[str]") -> None:
    """CR-21: a holder that is killed keeps nobody out, and leaves no stale lock."""
    order = []

    async def wait(number: int) -> None:
        async with locked(path):
            order.append(number)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for number in range(31):
                tasks.start_soon(wait, number)
            await anyio.sleep(0.3)
            assert not order
            os.kill(holder.pid, signal.SIGKILL)
    assert sorted(order) == list(range(31))


def test_processes_exclude_each_other(path: Path) -> None:
    """Of several processes each gets its turn."""
    begin = time.monotonic()
    processes = [start(path, 0.2) for _ in range(4)]
    for process in processes:
        with process:
            wait_until_held(process)
    assert [process.returncode for process in processes] == [0] * 4
    assert time.monotonic() - begin >= 0.8


def test_threads_exclude_each_other(path: Path) -> None:
    """CR-27: event loops in several threads exclude each other as well."""
    inside, most = 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with locked(path):
            inside += 1
            most = max(most, inside)
            await anyio.sleep(0.02)
            inside -= 1

    threads = [threading.Thread(target=anyio.run, args=(work,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelled_while_a_thread_tries(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A task that is cancelled while its thread takes the lock does not leave it taken."""
    acquire, trying, proceed = FileLock.acquire, threading.Event(), threading.Event()

    def slow(lock: FileLock, **options: bool) -> object:
        trying.set()
        assert proceed.wait(10)
        return acquire(lock, **options)  # type: ignore[arg-type]

    async def enter() -> None:
        async with locked(path):
            await anyio.sleep_forever()

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", slow)
        if how == "task":
            task = asyncio.create_task(enter())
            await anyio.to_thread.run_sync(trying.wait)
            task.cancel()
            # A cancelled asyncio task waits for no thread, and the loop is not held up.
            with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
                await task
            proceed.set()
        else:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(enter)
                await anyio.to_thread.run_sync(trying.wait)
                tasks.cancel_scope.cancel()
                proceed.set()
    with anyio.fail_after(5):
        async with locked(path):
            pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_no_locks_here(path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """CR-25: on a file system without locks work goes on without."""
    import fcntl

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with anyio.fail_after(5):
        async with locked(path), locked(path):
            pass


async def test_not_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock file that cannot be made is NotAllowed, not waited for."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(FileLock, "acquire", fail)
    with anyio.fail_after(5), pytest.raises(NotAllowed, match=r"x\.lock"):
        async with locked(path):
            pass
