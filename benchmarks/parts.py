"""Bytes received for a part of a dataset: ``python -m benchmarks.parts [MEGABYTES]``.

Four partitions of files of 100 KiB that do not compress. What is received is counted by the
kernel, on the loopback interface: protocol, index and all.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import data, endpoint
from benchmarks.endpoint import KEPT
from benchmarks.peers import OURS, Push, etc_command, pushers
from benchmarks.transfers import Place, register

PARTITIONS = ("test", "train", "unlabeled", "val")
FILE = 100 * data.KiB
TEN = tuple(f"data/train/{number:06}.bin" for number in range(0, 2000, 200))
ONE = "data/val/000007.bin"


def main() -> int:
    """Measure and print a table; fail if a part takes more than 1.05 x its frames and the index."""
    size = int(sys.argv[1]) * data.MiB if len(sys.argv) > 1 else data.GiB
    failed = False
    with tempfile.TemporaryDirectory(prefix="etc-parts-") as temporary:
        root = Path(temporary)
        with endpoint.running(root) as server:
            here = Place(root, server)
            _make(here.dataset, size)
            register(here)
            way = next(way for way in pushers(None) if way.name == OURS)
            _run(here, way.command(Push(server, KEPT, here.dataset, here.home)))
            etc = [
                *etc_command(),
                "--home",
                str(root / "pulled"),
                "--config",
                str(root / f"{KEPT}.toml"),
            ]
            index = _received(here, [*etc, "info", "-r", "dataset"])
            print(f"{'info -r':24} {index:13,} bytes received")
            for name, options, command in (
                ("one partition", ["-p", "val"], "pull"),
                ("ten files", [word for path in TEN for word in ("--include", path)], "pull"),
                ("one file", [ONE], "cat"),
            ):
                what = options if command == "pull" else ["--include", *options]
                dry = _run(here, [*etc, "--json", "pull", "-f", "--dry-run", "dataset", *what])
                # The files that describe a dataset come along with a part of it; here are none.
                needed = json.loads(dry)["received"]
                extra = ["-r"] if command == "cat" else ["-f"]
                received = _received(here, [*etc, command, *extra, "dataset", *options])
                ratio = (received - index) / needed
                failed |= ratio > 1.05
                print(
                    f"{name:24} {received:13,} bytes received, {needed:13,} in the frames: "
                    f"{ratio:.3f} x without the index"
                )
    return failed


def _make(dataset: Path, size: int) -> None:
    chance = random.Random(data.SEED)
    for partition in PARTITIONS:
        directory = dataset / "data" / partition
        directory.mkdir(parents=True)
        for number in range(size // FILE // len(PARTITIONS)):
            (directory / f"{number:06}.bin").write_bytes(chance.randbytes(FILE))


def _run(here: Place, command: list[str]) -> bytes:
    return subprocess.run(
        command, env=here.environment(), check=True, stdout=subprocess.PIPE
    ).stdout


def _received(here: Place, command: list[str]) -> int:
    before = _loopback()
    _run(here, command)
    return _loopback() - before


def _loopback() -> int:
    """Bytes that went through the loopback interface so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    raise OSError("no loopback interface")


if __name__ == "__main__":
    sys.exit(main())
