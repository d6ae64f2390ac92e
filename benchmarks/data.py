"""Datasets from a seed: the same bytes on every machine with the same Python.

python -m benchmarks.data text DIRECTORY --megabytes 64
"""

import argparse
import os
import random
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30

SEED = 20240229
MEMORY_FILE_SYSTEM = Path("/dev/shm")  # noqa: S108 - created below it with a random name
_PER_DIRECTORY = 1000
_PREFIX = "etcetera-benchmark-"


@dataclass(frozen=True, slots=True)
class Size:
    """How much of each kind is made."""

    bytes: int
    """Of text, of images, and of both big files together."""
    small_files: int


FULL = Size(GiB, 100_000)
QUICK = Size(64 * MiB, 10_000)
TINY = Size(2 * MiB, 200)


def make(kind: str, directory: Path, size: Size, seed: int = SEED) -> Path:
    """Make one dataset in *directory*, which must not exist; return *directory*.

    Args:
        kind: One of :data:`KINDS`.
        directory: What becomes the dataset.
        size: How much of it.
        seed: Of everything that looks random.
    """
    data = directory / "data" / "train"
    data.mkdir(parents=True)
    # A string as seed is hashed alike by every interpreter; a tuple would not be.
    KINDS[kind](data, size, random.Random(f"{seed} {kind}"))
    return directory


def _text(data: Path, size: Size, chance: random.Random) -> None:
    words = _words(chance)
    left, number = size.bytes, 0
    while left > 0:
        length = min(left, chance.randint(2 * MiB, 6 * MiB))
        (data / f"{number:05}.txt").write_bytes(_take(words, length))
        left -= length
        number += 1


def _images(data: Path, size: Size, chance: random.Random) -> None:
    left, number = size.bytes, 0
    while left > 0:
        length = min(left, chance.randint(100 * KiB, 500 * KiB))
        (data / f"{number:06}.jpg").write_bytes(chance.randbytes(length))
        left -= length
        number += 1


def _small(data: Path, size: Size, chance: random.Random) -> None:
    stock = b"".join(_sources())
    for number in range(size.small_files):
        directory = data / f"{number // _PER_DIRECTORY:04}"
        if number % _PER_DIRECTORY == 0:
            directory.mkdir()
        length = chance.randint(KiB // 2, 3 * KiB)
        start = chance.randrange(len(stock) - length)
        (directory / f"{number:07}.txt").write_bytes(stock[start : start + length])


def _big(data: Path, size: Size, chance: random.Random) -> None:
    words = _words(chance)
    for name in ("one.bin", "two.bin"):
        left = size.bytes // 2
        with (data / name).open("wb") as file:
            while left > 0:
                length = min(left, chance.randint(MiB, 8 * MiB))
                text = chance.random() < 0.5
                file.write(_take(words, length) if text else chance.randbytes(length))
                left -= length


KINDS: dict[str, Callable[[Path, Size, random.Random], None]] = {
    "text": _text,
    "images": _images,
    "small": _small,
    "big": _big,
}
"""What can be made, by name."""


def _sources() -> list[bytes]:
    """The standard library's modules, always in the same order."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for path in root.rglob("*.py")
        if "site-packages" not in path.parts and "dist-packages" not in path.parts
    ]
    return [path.read_bytes() for path in sorted(paths)]


def _words(chance: random.Random) -> Iterator[bytes]:
    sources = _sources()
    while True:
        chance.shuffle(sources)
        yield from sources


def _take(words: Iterator[bytes], length: int) -> bytes:
    """*length* bytes, from the beginning of the next source on."""
    pieces: list[bytes] = []
    while length > 0:
        piece = next(words)[:length]
        pieces.append(piece)
        length -= len(piece)
    return b"".join(pieces)


def workspace(needed: int) -> tempfile.TemporaryDirectory[str]:
    """A directory of its own: in memory if *needed* bytes fit there twice, else on the disk."""
    parent = None
    if MEMORY_FILE_SYSTEM.is_dir() and os.access(MEMORY_FILE_SYSTEM, os.W_OK):
        free = min(shutil.disk_usage(MEMORY_FILE_SYSTEM).free, available_memory())
        if free > 2 * needed:
            parent = MEMORY_FILE_SYSTEM
    _remove_stale(Path(parent or tempfile.gettempdir()))
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent)


def _remove_stale(parent: Path) -> None:
    """Remove what a benchmark left that was killed: it may take a lot of memory."""
    for path in parent.glob(f"{_PREFIX}*-*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and Path("/proc/self").exists() and not Path("/proc", owner).exists():
            shutil.rmtree(path, ignore_errors=True)


def available_memory() -> int:
    """Bytes that can be used without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * KiB
    return 0


def main() -> int:
    """Make one dataset; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--megabytes", type=int, default=FULL.bytes // MiB)
    parser.add_argument("--files", type=int, default=FULL.small_files)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    size = Size(arguments.megabytes * MiB, arguments.files)
    make(arguments.kind, arguments.directory, size, arguments.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
