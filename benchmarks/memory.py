"""Peak memory of pushes and pulls, against the size of the dataset."""

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import data, endpoint
from benchmarks.endpoint import DROPPED, KEPT
from benchmarks.measure import CommandError, measure
from benchmarks.peers import OURS, Pull, Push, pullers, pushers
from benchmarks.transfers import Place, register, remove, say

_ONE_FILE = 256 * data.MiB
_MARGIN = 2 * data.GiB
FULL_SIZES = tuple(gibibytes * data.GiB for gibibytes in (1, 2, 4, 8, 16))
QUICK_SIZES = (64 * data.MiB, 256 * data.MiB)
MILLION = data.Size(data.GiB, 1_000_000)


def run(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Push a dataset of each size, and pull it where there is room for it.

    The files are hard links to one, whose bytes do not compress: a dataset of any size takes
    256 MiB. What is pushed is dropped, but for what is pulled afterwards.
    """
    rows: list[dict[str, Any]] = []
    for size in sizes:
        with data.workspace(_ONE_FILE + 2 * size + _MARGIN) as temporary:
            root = Path(temporary)
            with endpoint.running(root) as server:
                rows.append(_one_size(Place(root, server), size))
    return rows


def _one_size(here: Place, size: int) -> dict[str, Any]:
    _make_linked(here.dataset, size)
    register(here)
    row: dict[str, Any] = {"bytes": size, "where": str(here.root.parent)}
    say(f"memory: {size / data.GiB:.2f} GiB")
    row["push"] = _push(here, DROPPED)
    free = shutil.disk_usage(here.root).free
    if here.root.parent == data.MEMORY_FILE_SYSTEM:
        free = min(free, data.available_memory())
    if free < 2 * size + _MARGIN:
        row["pull"] = {"failure": "no room for the archive and the dataset"}
        return row
    _push(here, KEPT)
    row["pull"] = _pull(here)
    return row


def million() -> dict[str, Any]:
    """Push and pull a million small files."""
    with data.workspace(7 * data.GiB) as temporary:
        root = Path(temporary)
        with endpoint.running(root) as server:
            here = Place(root, server)
            data.make("small", here.dataset, MILLION)
            register(here)
            say("memory: a million small files")
            row: dict[str, Any] = {"files": MILLION.small_files, "push": _push(here, KEPT)}
            remove(here.dataset)
            return row | {"pull": _pull(here)}


def _push(here: Place, bucket: str) -> dict[str, Any]:
    way = next(way for way in pushers(None) if way.name == OURS)
    push = Push(here.endpoint, bucket, here.dataset, here.home)
    return _measured(way.command(push), here)


def _pull(here: Place) -> dict[str, Any]:
    way = next(way for way in pullers(None, "dataset") if way.name == OURS)
    pull = Pull(here.endpoint, "dataset.tgz", here.root / "target")
    pull.target.mkdir()
    return _measured(way.command(pull), here)


def _measured(command: list[str], here: Place) -> dict[str, Any]:
    try:
        result, _ = measure(command, environment=here.environment())
    except CommandError as error:
        say(f"  FAILED: {error}")
        return {"failure": str(error)}
    say(f"  {result.seconds:.1f} s, {result.peak_tree / data.MiB:.0f} MiB at most")
    return result.as_dict()


def _make_linked(dataset: Path, size: int) -> None:
    """A dataset of *size* bytes, of which only the first file takes room."""
    directory = dataset / "data" / "train"
    directory.mkdir(parents=True)
    chance = random.Random(data.SEED)
    first = directory / "000000.bin"
    with first.open("wb") as file:
        for _ in range(min(_ONE_FILE, size) // data.MiB):
            file.write(chance.randbytes(data.MiB))
    for number in range(1, size // _ONE_FILE):
        os.link(first, directory / f"{number:06}.bin")
