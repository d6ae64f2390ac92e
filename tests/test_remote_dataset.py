"""Remote datasets: the mapping, files, loops; from threads, event loops and other processes."""

import asyncio
import io
import multiprocessing
import os
import pickle
import random
import secrets
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import etcetera as etc
from etcetera.errors import (
    DatasetNotFound,
    PartitionNotFound,
    PathNotFound,
    RemoteChanged,
    UsageError,
)
from etcetera.stores.memory import memory_store
from etcetera.transfer import read_ahead
from tests.datasets import make_dataset, settle
from tests.servers import S3Server, make_moto_bucket

MiB = 1 << 20
LARGE = random.Random(1).randbytes(3 * MiB + 17)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of every kind of entry, with a file in several frames."""
    root = make_dataset(tmp_path / "flower")
    (root / "data" / "test" / "large.bin").write_bytes(LARGE)
    (root / "data" / "test" / "directory").symlink_to("../train/deep")
    settle(root)
    return root


@pytest.fixture
def config(root: Path, tmp_path: Path) -> etc.Config:
    """A repository that has it."""
    config = etc.Config(f"memory://{secrets.token_hex(8)}", tmp_path / "home")
    etc.register(root, config=config)
    etc.push("flower", config=config)
    return config


def test_the_mapping_of_a_dataset(config: etc.Config, root: Path) -> None:
    """Remotely, there are the same partitions and files as locally."""
    local = etc.dataset("flower", config=config)
    with etc.remote("flower", config) as remote:
        assert remote.keys() == local.keys()
        assert remote.partitions() == local.partitions()
        assert (list(remote), len(remote)) == (list(local), len(local))
        assert remote.meta == local.meta == {"colour": "red"}
        assert "train" in remote
        assert "../data/train" not in remote
        assert remote.get("nothing") is None
        assert dict(remote.items()).keys() == dict(local.items()).keys()
        assert remote.digest == etc.info("flower", config=config).digest
        assert remote.url == f"{config.url}/flower.tgz"
        with pytest.raises(PartitionNotFound, match="test, train"):
            remote["nothing"]
        for path in sorted(root.rglob("*")):
            one = remote.file(path.relative_to(root).as_posix())
            assert (one.is_file(), one.is_dir(), one.exists()) == (
                path.is_file(),
                path.is_dir(),
                True,
            )
            if path.is_file():
                assert one.read_bytes() == path.read_bytes()
                assert (one.size, one.modified.timestamp()) == (
                    path.stat().st_size,
                    path.stat().st_mtime,
                )
            else:
                assert [below.name for below in one.iterdir()] == sorted(
                    below.name for below in path.iterdir()
                )


def test_paths_are_like_those_of_pathlib(config: etc.Config) -> None:
    """What code does with a pathlib.Path works with a remote path."""
    with etc.remote("flower", config) as remote:
        path = remote["train"] / "rose.txt"
        assert (path.name, path.suffix, str(path)) == ("rose.txt", ".txt", "data/train/rose.txt")
        assert path.parent == remote["train"]
        assert len({path, remote.file("data", "train", "rose.txt")}) == 1
        assert path.read_text().startswith("rose\n")
        assert [one.name for one in remote["train"].iterdir()] == [
            "deep", "empty", "naïve ☃.txt", "rose.txt",
        ]  # fmt: skip


def test_files_are_opened_like_others(config: etc.Config, root: Path) -> None:
    """With a mode, for text as well, also in a loop that has the content already."""
    path = "data/train/naïve ☃.txt"
    with etc.remote("flower", config) as remote:
        (looped,) = [one for one in remote["train"] if one.path == path]
        for one in (remote.file(path), looped):
            with one.open("r") as text, one.open("rb") as file, one.open() as plain:
                assert text.read() == (root / path).read_text()
                assert file.read() == plain.read() == (root / path).read_bytes()
            with pytest.raises(UsageError, match="mode"):
                one.open("w")  # type: ignore[call-overload]


def test_files_are_seekable(config: etc.Config) -> None:
    """A file is read and sought in as a local one."""
    local = io.BytesIO(LARGE)
    chance = random.Random(2)
    with etc.remote("flower", config) as remote, remote.open("data/test/large.bin") as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        for _ in range(40):
            whence = chance.choice([os.SEEK_SET, os.SEEK_END])
            offset = chance.randrange(len(LARGE)) * (1 if whence == os.SEEK_SET else -1)
            assert file.seek(offset, whence) == local.seek(offset, whence)
            size = chance.choice([0, 1, 100, 70_000, 2 * MiB])
            assert file.read(size) == local.read(size)
            assert file.tell() == local.tell()
        file.seek(len(LARGE) + 5)
        assert file.read() == b""
        with pytest.raises(ValueError, match="seek"):
            file.seek(-1)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "data/../../x"])
def test_paths_that_lead_out(path: str, config: etc.Config) -> None:
    """A path that leaves the dataset is no path in it."""
    with etc.remote("flower", config) as remote:
        for use in (remote.open, remote.read, remote.file):
            with pytest.raises(UsageError, match="no path in a dataset"):
                use(path)


@pytest.mark.parametrize("path", ["data/train/nothing", "data/train/rose.txt/x", "nothing"])
def test_paths_that_are_not_there(path: str, config: etc.Config) -> None:
    """A missing file is a FileNotFoundError."""
    with etc.remote("flower", config) as remote:
        for use in (remote.open, remote.read):
            with pytest.raises(PathNotFound, match="no file"):
                use(path)
        assert not remote.file(path).exists()
        with pytest.raises(FileNotFoundError):
            list(remote.file(path))


def test_a_directory_is_no_file(config: etc.Config) -> None:
    """Opening a directory says that it is one."""
    with etc.remote("flower", config) as remote:
        for path in ("", "data", "data/train"):
            with pytest.raises(PathNotFound, match="is a directory"):
                remote.open(path)


def test_a_loop_over_a_partition(config: etc.Config, root: Path) -> None:
    """It yields each file once with its content; leaving it early is fine."""
    with etc.remote("flower", config) as remote:
        found = {file.path: file.read_bytes() for file in remote["test"]}
        assert found == {"data/test/large.bin": LARGE, "data/test/nothing": b""}
        assert {file.path for file in remote.root} == {
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.is_file() and not path.is_symlink()
            and "directory" not in path.parts
        }  # fmt: skip
        for file in remote.root:
            with file.open() as opened:
                assert opened.read() == file.read_bytes()
            break


async def test_the_same_from_an_event_loop(config: etc.Config) -> None:
    """Every call that waits for the network can be awaited."""
    async with await etc.aremote("flower", config) as remote:
        assert remote.keys() == {"test", "train"}
        assert await remote.ameta() == {"colour": "red"}
        assert await remote.aread("data/test/link") == b"rose\n" * 1000
        async with await remote.aopen("data/test/large.bin") as opened:
            await opened.seek(-5, os.SEEK_END)
            assert await opened.read() == LARGE[-5:]
        found = {file.path: await file.aread_bytes() async for file in remote["train"]}
        assert found["data/train/naïve ☃.txt"] == b"snow"
        async for file in remote["train"]:
            assert file.size
            break
        with pytest.raises(PathNotFound):
            await remote.aread("nothing")
        both = await asyncio.gather(*(remote.aread("README.md") for _ in range(20)))
        assert set(both) == {b"# Flower\n"}
    with pytest.raises(UsageError, match="closed"):
        await remote.aread("README.md")


async def test_cancelled_reads(config: etc.Config) -> None:
    """A cancelled read ends, and the dataset can be used on."""
    async with await etc.aremote("flower", config) as remote:
        store = memory_store(str(config.url))
        store.latency = 3600.0
        reading = asyncio.create_task(remote.aread("data/test/large.bin"))
        await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        store.latency = 0.0
        assert await remote.aread("data/test/large.bin") == LARGE


async def test_cancelled_opening(config: etc.Config) -> None:
    """Who gives up while it is opened leaves no thread behind."""
    memory_store(str(config.url)).latency = 3600.0
    opening = asyncio.create_task(etc.aremote("flower", config))
    while not _sessions():  # noqa: ASYNC110 - a thread's beginning tells nobody
        await asyncio.sleep(0.001)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not _sessions()


def _sessions() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "etcetera-remote"]


def test_closing(config: etc.Config) -> None:
    """Closed, or forgotten, it leaves no thread; closing it twice is fine."""
    remote = etc.remote("flower", config)
    assert len(_sessions()) == 1
    remote.close()
    remote.close()
    assert not _sessions()
    for use in (lambda: remote.read("README.md"), lambda: remote.keys(), lambda: remote.meta):
        with pytest.raises(UsageError, match="closed"):
            use()
    file = etc.remote("flower", config).open("README.md")
    assert len(_sessions()) == 1
    assert file.read() == b"# Flower\n"
    del file
    assert not _sessions()


def test_one_version(config: etc.Config, root: Path) -> None:
    """It is one version of the data: a replaced one is told, not mixed in."""
    with etc.remote("flower", config) as remote:
        kept = pickle.dumps(remote)
        (root / "data" / "train" / "rose.txt").write_bytes(random.Random(3).randbytes(MiB))
        etc.push("flower", force=True, config=config)
        with pytest.raises(RemoteChanged):
            remote.read("data/test/large.bin")
        with pickle.loads(kept) as other, pytest.raises(RemoteChanged, match="open it anew"):  # noqa: S301
            other.read("data/train/rose.txt")
    with etc.remote("flower", config) as remote:
        assert len(remote.read("data/train/rose.txt")) == MiB


def test_many_threads(config: etc.Config, root: Path) -> None:
    """Threads may share it."""
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    with etc.remote("flower", config) as remote, ThreadPoolExecutor(8) as pool:
        for path, content in zip(paths * 5, pool.map(remote.read, paths * 5), strict=True):
            assert content == (root / path).read_bytes()


@pytest.fixture
def shared(root: Path, tmp_path: Path) -> etc.Config:
    """A repository that other processes see as well."""
    (tmp_path / "bucket").mkdir()
    config = etc.Config((tmp_path / "bucket").as_uri(), tmp_path / "other-home")
    etc.register(root, config=config)
    etc.push("flower", config=config)
    return config


def _read(remote: etc.RemoteDataset) -> bytes:
    return remote.read("data/test/large.bin")


def test_other_processes(shared: etc.Config) -> None:
    """It opens itself anew in a process that it was sent to."""
    with (
        etc.remote("flower", shared) as remote,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        assert pool.apply(_read, (remote,)) == LARGE


FORK = """
import os, sys
import etcetera as etc
remote = etc.remote("flower", etc.Config(sys.argv[1], sys.argv[2]))
before = remote.read("data/test/large.bin")
child = os.fork()
if not child:
    os._exit(remote.read("data/test/large.bin") != before)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_forked_processes(shared: etc.Config, tmp_path: Path) -> None:
    """And in one that was forked, as those of torch's DataLoader are; leaving it never hangs."""
    quiet = ["-W", "ignore::DeprecationWarning"]  # of forking while there are threads
    command = [sys.executable, *quiet, "-c", FORK, str(shared.url), str(tmp_path / "fork")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_such_dataset(config: etc.Config) -> None:
    """What is not there is told at once, and leaves nothing behind."""
    with pytest.raises(DatasetNotFound):
        etc.remote("nothing", config)
    assert not _sessions()


def test_an_archive_without_an_index(root: Path, tmp_path: Path) -> None:
    """It works the same, reading everything."""
    (tmp_path / "bucket").mkdir()
    with tarfile.open(tmp_path / "bucket" / "plain.tgz", "w:gz") as tar:
        tar.add(root, ".")
    config = etc.Config((tmp_path / "bucket").as_uri(), tmp_path / "home")
    with etc.remote("plain", config) as remote:
        assert (remote.keys(), remote.digest) == ({"test", "train"}, None)
        assert remote.meta == {"colour": "red"}
        assert remote.read("data/test/link") == b"rose\n" * 1000
        assert remote.read("data/test/directory/er/x.bin") == remote.read(
            "data/train/deep/er/x.bin"
        )
        with remote.open("data/test/large.bin") as file:
            file.seek(MiB)
            assert file.read(10) == LARGE[MiB:][:10]
        assert {one.path for one in remote["train"]} == {
            "data/train/deep/er/x.bin", "data/train/naïve ☃.txt", "data/train/rose.txt",
        }  # fmt: skip


LOOP = """
import sys
from pathlib import Path
import etcetera as etc
url, home, endpoint = sys.argv[1:]
config = etc.Config(url, home, endpoint_url=endpoint, region="us-east-1",
                    aws_access_key_id="testing", aws_secret_access_key="testing-secret")
size = 0
with etc.remote("large", config) as remote:
    for file in remote["train"]:
        size += len(file.read_bytes())
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(size, peak * 1024)
"""


@pytest.mark.parametrize("compressible", [False, True])
def test_a_loop_keeps_little(compressible: bool, moto: S3Server, tmp_path: Path) -> None:
    """A loop over a remote partition keeps at most 128 MiB, Python included."""
    directory = tmp_path / "large" / "data" / "train"
    directory.mkdir(parents=True)
    for number in range(40):
        content = bytes(5 * MiB) if compressible else random.Random(number).randbytes(5 * MiB)
        (directory / f"{number:02}").write_bytes(content)
    url = f"s3://{make_moto_bucket(moto)}"
    config = etc.Config(
        url, tmp_path / "home", endpoint_url=moto.endpoint, region="us-east-1",
        aws_access_key_id=moto.key, aws_secret_access_key=moto.secret,
    )  # fmt: skip
    etc.register(tmp_path / "large", config=config)
    etc.push("large", config=config)
    command = [sys.executable, "-c", LOOP, url, str(tmp_path / "loop"), moto.endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    size, peak = map(int, done.stdout.split())
    assert size == 200 * MiB
    assert peak <= 128 * MiB


async def test_a_loop_that_is_given_up(config: etc.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cancellation comes out as what it is, while what it waits for is still going on."""
    unpack = read_ahead._unpack
    begun = threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        time.sleep(0.3)
        return unpack(*arguments)

    monkeypatch.setattr(read_ahead, "_unpack", slow)
    async with await etc.aremote("flower", config) as remote:

        async def loop() -> None:
            async for _ in remote.afiles("data"):
                pass

        looping = asyncio.create_task(loop())
        while not begun.is_set():  # noqa: ASYNC110 - a thread tells nobody here
            await asyncio.sleep(0.001)
        looping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await looping
        monkeypatch.undo()
        assert [one.path async for one in remote.afiles("data/train/rose.txt")]


def test_ranges_of_one_file(config: etc.Config) -> None:
    """What lies in the same frames is fetched once, in any order and with overlaps."""
    store = memory_store(str(config.url))
    with etc.remote("flower", config) as remote:
        remote.partitions()
        before = store.bytes_read
        ranges = [(start, start + 10) for start in range(len(LARGE) - 20_000, 0, -20_000)]
        ranges += [(5, 5), (len(LARGE), len(LARGE) + 9), (0, len(LARGE) + 9)]
        pieces = remote.read_ranges("data/test/large.bin", ranges)
        assert pieces == [LARGE[start:stop] for start, stop in ranges]
        assert store.bytes_read - before < len(LARGE) + MiB


def test_links_to_the_dataset_itself(tmp_path: Path) -> None:
    """A link may lead to the root."""
    root = make_dataset(tmp_path / "flower")
    (root / "assets" / "root").symlink_to("..")
    config = etc.Config(f"memory://{secrets.token_hex(8)}", tmp_path / "home")
    etc.register(root, config=config)
    etc.push("flower", config=config)
    with etc.remote("flower", config) as remote:
        link = remote.file("assets/root")
        assert link.is_dir()
        assert "assets/root/data" in [one.path for one in link.iterdir()]
        assert (link / "data" / "train" / "rose.txt").read_bytes() == (
            root / "data/train/rose.txt"
        ).read_bytes()
