"""What looking into a remote dataset costs: bytes received, against the frames that were needed.

Pushes a dataset of four partitions to ``rclone serve s3``, and then, each in a process of its own,
lists a directory, reads one small and a piece of one large file, and loops over a partition. Every
byte that the server sends is counted. Fails if more was received than the frames that were needed,
the index and 64 KiB for headers, or if the loop kept more than 128 MiB.

    python -m benchmarks.bench_inside [--megabytes 1024]
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from etcetera.config import Config
from etcetera.repository import open_reader
from etcetera.transfer.reader import Reader
from tests.servers import rclone_server

MiB = 1 << 20
MEMORY_LIMIT = 128 * MiB
_ALLOWANCE = 64 << 10
_FILE = 100 << 10
_PARTITIONS = ("a", "b", "c", "d")
_SMALL = "data/b/000007.bin"
_LARGE = "data/d/large.bin"

_LOOP = """
import sys
from pathlib import Path
import etcetera as etc
files = size = 0
with etc.remote("set") as remote:
    for file in remote["c"]:
        files, size = files + 1, size + len(file.read_bytes())
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(files, size, peak * 1024)
"""
_PIECE = f"""
import etcetera as etc
with etc.remote("set") as remote, remote.open("{_LARGE}") as file:
    file.seek(-1000, 2)
    print(len(file.read()))
"""


@dataclass
class Counter:
    """Passes connections on to a server, and counts what that sends."""

    upstream: int
    port: int = 0
    received: int = 0

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        """Listen until *stop* is set."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        async with server:
            await stop.wait()

    async def _connection(self, ours: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        theirs, forth = await asyncio.open_connection("127.0.0.1", self.upstream)
        await asyncio.gather(self._copy(ours, forth, 0), self._copy(theirs, back, 1))

    async def _copy(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, counted: int
    ) -> None:
        try:
            while data := await source.read(1 << 18):
                self.received += counted * len(data)
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


@contextmanager
def counting(endpoint: str) -> Iterator[Counter]:
    """Run a counter before a server, in a thread."""
    counter = Counter(urlsplit(endpoint).port or 80)
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(counter.serve(ready, stop)), daemon=True
    )
    thread.start()
    ready.wait()
    yield counter
    loop.call_soon_threadsafe(stop.set)
    thread.join()


def main() -> int:
    """Run everything; return an exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1024, help="of the dataset")
    size = parser.parse_args().megabytes * MiB
    with tempfile.TemporaryDirectory(prefix="etcetera-bench-") as temporary:
        root = Path(temporary)
        make(root / "set", size)
        (root / "served" / "bucket").mkdir(parents=True)
        with rclone_server(root / "served") as server, counting(server.endpoint) as counter:
            settings = root / "etc.toml"
            settings.touch(0o600)
            settings.write_text(
                f'url = "s3://bucket"\nhome = "{root}/home"\nlevel = 1\n'
                f'endpoint_url = "http://127.0.0.1:{counter.port}"\nregion = "us-east-1"\n'
                f'aws_access_key_id = "{server.key}"\naws_secret_access_key = "{server.secret}"\n'
            )
            return _measure(settings, root, counter)


def make(root: Path, size: int) -> None:
    """A dataset of four partitions of files that do not compress, one of them with a large one."""
    chance = random.Random(1)
    for partition in _PARTITIONS:
        directory = root / "data" / partition
        directory.mkdir(parents=True)
        for number in range(size // len(_PARTITIONS) // _FILE):
            (directory / f"{number:06}.bin").write_bytes(chance.randbytes(_FILE))
    (root / _LARGE).write_bytes(chance.randbytes(size // 16))


def _measure(settings: Path, root: Path, counter: Counter) -> int:
    etc = [sys.executable, "-m", "etcetera", "-q"]
    environment = os.environ | {"ETC_CONFIG": str(settings), "AWS_EC2_METADATA_DISABLED": "true"}

    def run(*command: str) -> tuple[bytes, int]:
        before = counter.received
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        return done.stdout, counter.received - before

    run(*etc, "register", str(root / "set"))
    run(*etc, "push", "set")
    frames = asyncio.run(_frames(Config.load(settings)))
    good = True
    steps = {
        "ls of a directory": (*etc, "ls", "-r", "set", "data/b"),
        "cat of a file": (*etc, "cat", "-r", "set", _SMALL),
        "a piece of a large file": (sys.executable, "-c", _PIECE),
        "a loop over a partition": (sys.executable, "-c", _LOOP),
    }
    print(f"{'':25} {'received':>12} {'frames':>12} {'index':>12}")
    for name, command in steps.items():
        output, received = run(*command)
        needed = frames[name]
        good = good and received <= needed + frames["index"] + _ALLOWANCE
        print(f"{name:25} {received:12,} {needed:12,} {frames['index']:12,}")
    files, _, peak = map(int, output.split())
    print(f"the loop over {files} files kept {peak / MiB:.0f} MiB at most")
    return 0 if good and peak <= MEMORY_LIMIT else 1


async def _frames(config: Config) -> dict[str, int]:
    """Bytes of the frames that each step needs, and of the index with all that is around it."""
    async with open_reader(config, None, "set") as (_, reader):
        if not isinstance(reader, Reader):
            raise SystemExit("the archive has no index")
        found, found_large = await reader.locate(_SMALL), await reader.locate(_LARGE)
        if found is None or found_large is None:
            raise SystemExit("the index lacks a file")
        (small, segment), (large, large_segment) = found, found_large
        pieces = await reader.frames(large.start, large.start + 1, large_segment)
        pieces += await reader.frames(large.stop - 1000, large.stop, large_segment)
        sizes = await reader.sizes()
        return {
            "ls of a directory": 0,
            "cat of a file": sum(
                frame.length for frame in await reader.frames(small.start, small.stop, segment)
            ),
            "a piece of a large file": sum(frame.length for frame in pieces),
            "a loop over a partition": sizes["c"].archive_bytes or 0,
            "index": reader.archive.info.size - reader.index.root.data_stop + (256 << 10),
        }


if __name__ == "__main__":
    sys.exit(main())
