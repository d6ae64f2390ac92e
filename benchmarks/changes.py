"""What a new version of a dataset moves, in bytes on the wire, both ways.

    python -m benchmarks.changes [--server moto|rclone] [--megabytes 1024]

Makes a dataset of 100 KiB files that do not compress, in four partitions of some directories, and
publishes it. Then, for each change, publishes the changed dataset in its place and pulls it over
the first version; or publishes it under another name, with the first version as its base, and pulls
it where there is none. Fails if what arrives is not what was sent.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import etcetera as etc
from benchmarks.data import KiB, MiB, workspace
from benchmarks.transfers import fingerprint
from tests.servers import (
    RCLONE_BUCKET,
    S3Server,
    make_moto_bucket,
    moto_server,
    rclone_server,
)

FILE = 100 * KiB
PARTITIONS = ("test", "train", "unlabelled", "val")
DIRECTORIES = 25
"""In each partition: each directory holds 1 % of the files."""

Edit = Callable[[Path, random.Random], int]


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to the dataset."""

    name: str
    edit: Edit
    """Changes it and returns how many files came or changed."""
    renamed: bool = False
    """Whether the new version gets a name of its own."""


class Wire:
    """A proxy before a server that counts what goes through."""

    def __init__(self) -> None:
        self.up = 0
        self.down = 0
        self.port = 0

    async def serve(self, target: str, ready: threading.Event, done: asyncio.Event) -> None:
        """Pass connections on to *target* until *done*."""
        parts = urlsplit(target)

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            theirs = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(
                self._pass_on(reader, theirs[1], up=True),
                self._pass_on(theirs[0], writer, up=False),
            )

        async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await done.wait()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(256 * KiB):
                if up:
                    self.up += len(data)
                else:
                    self.down += len(data)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def wire(server: S3Server) -> Iterator[Wire]:
    """Count what goes to and comes from *server*, in a thread."""
    counted, ready = Wire(), threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()
    thread = threading.Thread(
        target=loop.run_until_complete, args=[counted.serve(server.endpoint, ready, done)]
    )
    thread.start()
    try:
        ready.wait()
        yield counted
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()


def make(root: Path, size: int, chance: random.Random) -> None:
    """Make the first version."""
    files = size // FILE
    each = -(-files // (len(PARTITIONS) * DIRECTORIES))
    for number in range(files):
        partition, within = divmod(number, DIRECTORIES * each)
        directory = root / "data" / PARTITIONS[partition] / f"{within // each:02}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number:06}.bin").write_bytes(chance.randbytes(FILE))


def edited(root: Path, change: Change, target: Path, chance: random.Random) -> int:
    """Make the new version, with links to the files that stay; return how many do not."""
    shutil.copytree(root, target, copy_function=os.link)
    return change.edit(target, chance)


def _paths(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _rewrite(paths: list[Path], chance: random.Random) -> int:
    for path in paths:
        path.unlink()  # else the first version would change as well
        path.write_bytes(chance.randbytes(FILE))
    return len(paths)


def _add(root: Path, chance: random.Random) -> int:
    count = len(_paths(root)) // 100
    directory = root / "data" / "train" / "new"
    directory.mkdir()
    for number in range(count):
        (directory / f"{number:06}.bin").write_bytes(chance.randbytes(FILE))
    return count


def _scatter(root: Path, chance: random.Random) -> int:
    directories = sorted({path.parent for path in _paths(root)})
    count = len(_paths(root)) // 100
    for number in range(count):
        path = directories[number % len(directories)] / f"x{number:06}.bin"
        path.write_bytes(chance.randbytes(FILE))
    return count


def _change_directory(root: Path, chance: random.Random) -> int:
    return _rewrite(_paths(root / "data" / "train" / "10"), chance)


def _change_at_random(root: Path, chance: random.Random) -> int:
    paths = _paths(root)
    return _rewrite(chance.sample(paths, max(1, len(paths) // 1000)), chance)


def _remove_partition(root: Path, chance: random.Random) -> int:  # noqa: ARG001 - nothing at random
    shutil.rmtree(root / "data" / "test")
    return 0


CHANGES = (
    Change("1 % added, in a new directory", _add),
    Change("1 % added, all over the place", _scatter),
    Change("1 % changed, in one directory", _change_directory),
    Change("0.1 % changed, at random", _change_at_random),
    Change("one partition removed", _remove_partition),
    Change("1 % changed, under a new name", _change_directory, renamed=True),
)


def run(
    server: S3Server, bucket: str, size: int, place: Path, changes: Sequence[Change] = CHANGES
) -> None:
    """Print one line for each change."""
    chance = random.Random(size)
    first = place / "first"
    make(first, size, chance)
    with wire(server) as counted:
        here, there = (
            etc.Config(
                f"s3://{bucket}/changes",
                place / home,
                endpoint_url=f"http://127.0.0.1:{counted.port}",
                region="us-east-1",
                aws_access_key_id=server.key,
                aws_secret_access_key=server.secret,
            )
            for home in ("here", "there")
        )
        etc.register(first, "first", config=here)
        before = counted.up
        etc.push("first", config=here)
        print(f"{'change':32} {'MiB new':>8} {'MiB up':>8} {'MiB down':>9}  note")
        print(f"{'(the first version)':32} {_mebibytes(size)} {_mebibytes(counted.up - before)}")
        for number, change in enumerate(changes):
            name = f"set-{number}"
            if not change.renamed:
                etc.register(first, name, config=here)
                etc.push(name, base="first", config=here)
                etc.pull(name, config=there)
            target = place / name
            new = edited(first, change, target, chance)
            etc.register(target, name, force=True, config=here)
            before = counted.up
            if change.renamed:
                pushed = etc.push(name, base="first", config=here)
            else:
                pushed = etc.push(name, force=True, config=here)
            up, before = counted.up - before, counted.down
            etc.pull(name, force=True, config=there)
            down = counted.down - before
            if fingerprint(there.home / name) != fingerprint(target):
                raise SystemExit(f"{change.name}: what was pulled is not what was pushed")
            etc.purge(name, config=there)
            shutil.rmtree(target)
            note = f"all of it sent: {pushed.why_whole}" if pushed.why_whole else ""
            print(
                f"{change.name:32} {_mebibytes(new * FILE)} {_mebibytes(up)} "
                f"{_mebibytes(down):>9}  {note}",
                flush=True,
            )


def _mebibytes(count: int) -> str:
    return f"{count / MiB:8.2f}"


def main() -> int:
    """Run it; return an exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--server", choices=("moto", "rclone"), default="moto")
    parser.add_argument("--megabytes", type=int, default=1024, metavar="MIB")
    arguments = parser.parse_args()
    size = arguments.megabytes * MiB
    with workspace(4 * size) as temporary:
        place = Path(temporary)
        # What servers write belongs there as well.
        tempfile.tempdir = os.environ["TMPDIR"] = temporary
        if arguments.server == "moto":
            with moto_server() as server:
                run(server, make_moto_bucket(server), size, place)
        else:
            (place / "served" / RCLONE_BUCKET).mkdir(parents=True)
            with rclone_server(place / "served") as server:
                run(server, RCLONE_BUCKET, size, place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
