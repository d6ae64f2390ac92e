"""What is particular to a directory as a repository."""

import asyncio
import errno
import fcntl
import math
import os
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import NoReturn

import anyio
import pytest

import etcetera
from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    EtceteraError,
    InvalidName,
    NoSpace,
    NotAllowed,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
    TruncatedArchive,
)
from etcetera.settings import RepositorySettings
from etcetera.stores import Store, common, file_parts, open_store
from etcetera.stores.file import parse_file_url
from etcetera.stores.file_parts import Descriptor

PACKAGE = {"PYTHONPATH": str(Path(etcetera.__file__).parent.parent)}
"""Lets a process import the package under test."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return an empty repository."""
    path = tmp_path / "repository"
    path.mkdir()
    return path


async def put(directory: Path, data: bytes = b"data", *, overwrite: bool = False) -> None:
    """Put one object."""
    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        await store.put("a.tgz", data, overwrite=overwrite)


def names(directory: Path) -> list[str]:
    """Return what is in the repository, hidden or not."""
    return [entry.name for entry in directory.iterdir()]


def failing(number: int) -> object:
    """Return a function that fails as the operating system would."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///data/x", "/data/x"),
        ("file://localhost/data/x/", "/data/x"),
        ("file:///a%20b/%C3%BC%23%3F", "/a b/ü#?"),
        ("file:///", "/"),
    ],
)
def test_url(url: str, path: str) -> None:
    """A file URL is decoded to the directory it means."""
    assert parse_file_url(url) == Path(path)


@pytest.mark.parametrize(
    "url", ["file://host/data", "file://data", "file:///a?b", "file:///a#b", "file:///a%00b"]
)
def test_wrong_url(url: str) -> None:
    """A URL of another machine, or one that means something else, is refused."""
    with pytest.raises(ConfigError):
        parse_file_url(url)


async def test_mode(directory: Path) -> None:
    """A pushed archive can be read by everybody the umask lets, and nothing else is left."""
    before = os.umask(0o027)
    try:
        await put(directory)
    finally:
        os.umask(before)
    assert names(directory) == ["a.tgz"]
    assert stat.S_IMODE((directory / "a.tgz").stat().st_mode) == 0o640


async def test_what_is_listed(directory: Path) -> None:
    """FR-01: hidden files, unfinished uploads, directories and broken links are no objects."""
    (directory / "a.tgz").write_bytes(b"a")
    (directory / ".a.tgz.0123.part").write_bytes(b"stale")
    (directory / "directory.tgz").mkdir()
    (directory / "broken.tgz").symlink_to("nowhere")
    (directory / "linked.tgz").symlink_to("a.tgz")
    os.mkfifo(directory / "pipe.tgz")
    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        found = {info.key: info.size async for info in store.list()}
        assert found == {"a.tgz": 1, "linked.tgz": 1}
        for key in ("directory.tgz", "broken.tgz", "pipe.tgz"):
            assert await store.head(key) is None
            async with store.open(key) as remote:
                assert remote is None
    assert (directory / ".a.tgz.0123.part").exists()


async def test_truncated_while_read(directory: Path) -> None:
    """FR-04: a file that is cut while it is read is never taken for whole."""
    await put(directory, b"some bytes")
    settings = RepositorySettings(url=directory.as_uri())
    async with open_store(settings) as store, store.open("a.tgz") as remote:
        assert remote is not None
        os.truncate(directory / "a.tgz", 4)
        with pytest.raises(TruncatedArchive):
            await remote.read(2, 8)
        with pytest.raises(EtceteraError):
            await remote.read(0, 2)


async def test_changed_while_read(directory: Path) -> None:
    """A file that is written to while it is read is noticed."""
    await put(directory, b"some bytes")
    settings = RepositorySettings(url=directory.as_uri())
    async with open_store(settings) as store, store.open("a.tgz") as remote:
        assert remote is not None
        (directory / "a.tgz").write_bytes(b"next bytes")
        with pytest.raises(RemoteChanged):
            await remote.read(0, 10)


@pytest.mark.parametrize("kind", ["missing", "file"])
async def test_no_directory(tmp_path: Path, kind: str) -> None:
    """FR-05: a repository that is no directory says how to make one."""
    path = tmp_path / "repository"
    if kind == "file":
        path.write_bytes(b"")
    async with open_store(RepositorySettings(url=path.as_uri())) as store:
        for call in (store.head("a"), store.put("a", b"x", overwrite=True), store.delete("a")):
            with pytest.raises(RepositoryNotFound, match="mkdir -p"):
                await call


ERRORS = [
    (errno.ENOSPC, NoSpace),
    (errno.EDQUOT, NoSpace),
    (errno.EACCES, NotAllowed),
    (errno.EROFS, NotAllowed),
    (errno.EIO, StoreError),
]


@pytest.mark.parametrize(("number", "kind"), ERRORS)
@pytest.mark.parametrize("call", ["open", "pwrite", "fsync"])
async def test_system_errors(
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[EtceteraError],
    call: str,
) -> None:
    """FR-05: whatever the system refuses becomes our error; the old object stays, alone."""
    await put(directory, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(number))
        with pytest.raises(kind) as caught:
            await put(directory, b"new", overwrite=True)
    assert str(directory) in str(caught.value)
    assert names(directory) == ["a.tgz"]
    assert (directory / "a.tgz").read_bytes() == b"old"


async def test_long_names(directory: Path) -> None:
    """The longest name the file system takes can be pushed; a longer one is an error."""
    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        await store.put("数" * 85, b"x", overwrite=False)
        with pytest.raises(InvalidName):
            await store.put("a" * 256, b"x", overwrite=False)
    assert names(directory) == ["数" * 85]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
async def test_without_hard_links(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FR-06: where hard links are not supported, create-only uploads still replace nothing."""
    monkeypatch.setattr(os, "link", failing(number))
    await put(directory, b"first")
    with pytest.raises(AlreadyExists):
        await put(directory, b"second")
    assert names(directory) == ["a.tgz"]
    assert (directory / "a.tgz").read_bytes() == b"first"


async def test_guarded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hard links, somebody else's publication in progress is respected."""
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    guard = directory / ".a.tgz.guard"
    with guard.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="being published by somebody else; try again"):
            await put(directory)
        assert names(directory) == [guard.name]
    await put(directory)
    assert names(directory) == ["a.tgz"]


async def test_guarded_without_locks(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither hard links nor locks, the guard itself is respected and named."""
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(fcntl, "flock", failing(errno.EOPNOTSUPP))
    guard = directory / ".a.tgz.guard"
    guard.touch()
    with pytest.raises(StoreError, match=r"remove .*\.a\.tgz\.guard"):
        await put(directory)
    assert names(directory) == [guard.name]
    guard.unlink()
    await put(directory)
    assert names(directory) == ["a.tgz"]


KILLED = """
import asyncio, os, signal, sys, zlib
from etcetera.settings import RepositorySettings
from etcetera.stores import open_store

async def push():
    async with open_store(RepositorySettings(url=sys.argv[1])) as store:
        async with store.upload("a.tgz", part_size=10, overwrite=False) as upload:
            await upload.put_part(1, b"x", zlib.crc32(b"x"))
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(push())
"""


async def test_killed_upload(directory: Path) -> None:
    """FR-01: what a killed upload left goes with the next one of that key; what is alive stays."""
    killed = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, directory.as_uri(), env=dict(os.environ) | PACKAGE
    )
    assert await killed.wait() == -signal.SIGKILL
    (dead,) = names(directory)
    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        await store.put("b.tgz", b"b", overwrite=False)
        assert set(names(directory)) == {dead, "b.tgz"}
        async with store.upload("a.tgz", part_size=10, overwrite=False) as alive:
            assert set(names(directory)) == {Path(alive.id).name, "b.tgz"}
            await store.put("a.tgz", b"a", overwrite=False)
            assert set(names(directory)) == {Path(alive.id).name, "b.tgz", "a.tgz"}


async def test_killed_upload_without_locks(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody can tell the dead from the living, nothing of others is removed."""
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    unknown = directory / ".a.tgz.0123456789abcdef.part"
    unknown.touch()
    await put(directory)
    assert set(names(directory)) == {unknown.name, "a.tgz"}


async def test_taken_for_dead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is removed before its maker could lock it is made anew."""
    real = fcntl.flock
    seen: list[str] = []

    def flock(number: int, operation: int) -> None:
        (name,) = names(directory)
        if not seen:
            (directory / name).unlink()
        seen.append(name)
        real(number, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    await put(directory)
    assert len(set(seen)) == 2
    assert names(directory) == ["a.tgz"]


async def test_part_removed(directory: Path) -> None:
    """An upload whose file somebody removed says so."""
    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        with pytest.raises(StoreError, match="somebody removed"):
            async with store.upload("a.tgz", part_size=10, overwrite=False) as upload:
                await upload.put_part(1, b"x", zlib.crc32(b"x"))
                await anyio.Path(upload.id).unlink()
                await upload.complete()


async def test_slow_sync(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is cancelled, a push waits for the disk, and says afterwards it was."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.01)
    real, begun, go_on = os.fsync, threading.Event(), threading.Event()

    def fsync(number: int) -> None:
        begun.set()
        go_on.wait(10)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    task = asyncio.create_task(put(directory))
    assert await asyncio.to_thread(begun.wait, 10)
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.02)
    assert not task.done()
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert names(directory) == ["a.tgz"]


def test_descriptor_in_use(directory: Path) -> None:
    """A descriptor is closed only when nobody uses it, and then lent to nobody."""
    number = os.open(directory, os.O_RDONLY)
    descriptor = Descriptor(number)
    with descriptor.use() as lent:
        assert lent == number
        descriptor.close()
        descriptor.close()
        os.fstat(number)
        with pytest.raises(OSError, match="Bad file"), descriptor.use():
            pytest.fail("lent a closed file")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(number)


async def test_read_holds_the_range_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that comes in pieces needs no memory but for what it returns."""
    size = 8 << 20
    await put(directory, bytes(size))
    real = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda number, views, at: real(number, [views[0][:99999]], at)
    )
    settings = RepositorySettings(url=directory.as_uri())
    async with open_store(settings) as store, store.open("a.tgz") as remote:
        assert remote is not None
        tracemalloc.start()
        data = await remote.read(0, size)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(data) == size
    assert peak < 1.1 * size


async def test_failed_removal(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that cannot be removed is reported with the command that does it."""

    async def upload(store: Store) -> None:
        async with store.upload("a.tgz", part_size=10, overwrite=False) as opened:
            await opened.put_part(1, b"x", zlib.crc32(b"x"))
            monkeypatch.setattr(Path, "unlink", failing(errno.EACCES))
            raise ZeroDivisionError

    async with open_store(RepositorySettings(url=directory.as_uri())) as store:
        with pytest.raises(ZeroDivisionError) as caught:
            await upload(store)
    (note,) = caught.value.__notes__
    assert f"rm {directory}/.a.tgz." in note


PUSHING = """
import sys
import etcetera as etc

config = etc.Config(sys.argv[1], sys.argv[2])
etc.create("set", config=config)
(config.home / "set" / "data" / "train" / "x").write_text(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
try:
    etc.push("set", config=config)
except etc.EtceteraError as error:
    print(type(error).__name__)
else:
    print("published")
"""


async def test_one_winner_of_processes(directory: Path, tmp_path: Path) -> None:
    """FR-02: of processes that push one name at once exactly one wins, and the others are told."""
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PUSHING, directory.as_uri(), str(tmp_path / f"home-{number}"),
            env=dict(os.environ) | PACKAGE, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    ends = await asyncio.gather(*(process.communicate(b"") for process in running))
    said = [output.decode().strip() for output, _ in ends]
    assert sorted(said) == ["AlreadyExists"] * 3 + ["published"]
    assert names(directory) == ["set.tgz"]
    winner = tmp_path / f"home-{said.index('published')}"
    other = await etcetera.apull("set", config=etcetera.Config(directory.as_uri(), tmp_path / "h"))
    assert (other.path / "data" / "train" / "x").read_text() == str(winner)


@pytest.mark.parametrize("length", [40, 44, 124, 200])
async def test_hidden_files_of_long_names(length: int, directory: Path) -> None:
    """What is left of one upload is not taken for that of a key that begins alike."""
    one, other = "x" * (length - 5) + "A.tgz", "x" * (length - 5) + "B.tgz"
    path, held = file_parts.create_part(directory, one)
    held.close()
    file_parts.remove_dead_parts(directory, other)
    assert file_parts.adopt_part(directory, other, path) is None
    assert path.exists()
    found = [(key, where) for key, where, _ in file_parts.dead_parts(directory, math.inf)]
    assert found == ([(one, path)] if length == 44 else [])
    file_parts.remove_dead_parts(directory, one)
    assert not path.exists()


async def test_hidden_files_of_earlier_versions(directory: Path) -> None:
    """Their names may mean another key, so that only what is old is removed."""
    key = "x" * 60
    path = directory / f".{key[:40]}.{'0' * 16}.part"
    path.touch()
    file_parts.remove_dead_parts(directory, key)
    held = file_parts.adopt_part(directory, key, path)
    assert held is not None
    held.close()
    os.utime(path, (1, 1))
    file_parts.remove_dead_parts(directory, key)
    assert not path.exists()
