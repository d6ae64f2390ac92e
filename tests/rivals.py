"""Processes and tasks that all want the same names, and what may come of it.

Of each version every file says which it is, so that a mixture shows. Run as a program it is one of
the processes: it does what its seed says, and prints what must not be.
"""

import asyncio
import fcntl
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path

import etcetera as etc
from etcetera.errors import (
    AlreadyExists,
    DatasetNotFound,
    DirectoryNotFound,
    NotAllowed,
    RemoteChanged,
    SourceChanged,
    StoreError,
)
from tests.archives import small
from tests.datasets import settle

NAMES = ("rose", "tulip")
FILES = 12
SLOWER = (
    AlreadyExists, DatasetNotFound, DirectoryNotFound, NotAllowed, RemoteChanged, SourceChanged,
)  # fmt: skip
"""What may happen to whoever was slower."""
GONE = ("No such file or directory", "somebody removed")
"""What a push says whose dataset was purged, or whose parts, where locks do not tell the living."""


def make_version(root: Path, version: int) -> Path:
    """A dataset that says in every file which version it is."""
    for number in range(FILES):
        path = root / "data" / ("train", "test")[number % 2] / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"version {version}\n" * (100 + number))
    settle(root)
    return root


def look(root: Path) -> set[str]:
    """The versions that are in the directory that is now at *root*, and what is cut off.

    Whoever looks a path up anew for each file may find another directory there by then.
    """
    found = set()
    directory = os.open(root, os.O_RDONLY)
    try:
        for number in range(FILES):
            path = f"data/{('train', 'test')[number % 2]}/{number}.txt"
            with os.fdopen(os.open(path, os.O_RDONLY, dir_fd=directory)) as file:
                lines = file.read().splitlines()
            found |= {*lines}
            if len(lines) != 100 + number:
                found.add(f"{number} has {len(lines)} lines")
    finally:
        os.close(directory)
    return found


def unlock() -> None:
    """Have no lock of this process keep anybody out."""
    setattr(fcntl, "flock", lambda *_: None)  # noqa: B010


def configured(directory: Path, home: str = "home", url: str | None = None) -> etc.Config:
    """The settings of one home; by default with a repository on the disk."""
    config = etc.Config(url or f"file://{directory}/bucket", directory / home)
    config.transfer = small(threads=1)
    return config


async def work(directory: Path, seed: int, commands: int, done: "Counter[str]") -> list[str]:
    """Do some commands; return what must not be."""
    choice = random.Random(seed)
    config = configured(directory, choice.choice(["home", "link"]))
    wrong = []
    for _ in range(commands):
        name, force = choice.choice(NAMES), choice.random() < 0.7
        source = directory / f"version{choice.randrange(3)}"
        what = choice.choice(["pull", "pull", "push", "purge", "register", "read", "read"])
        try:
            match what:
                case "pull":
                    await etc.apull(name, force, config)
                case "push":
                    await etc.apush(name, force, config)
                case "purge":
                    await etc.apurge(name, config, force=force)
                case "register":
                    await etc.aregister(source, name, force, config)
                case _:
                    dataset = await etc.adataset(name, auto_pull=force, config=config)
                    found = await asyncio.to_thread(look, dataset.root)
                    if len(found) != 1:
                        wrong.append(f"a mixture: {sorted(found)}")
            done[what] += 1
        except SLOWER:
            done["slower"] += 1
        except StoreError as error:
            if what != "push" or not any(text in str(error) for text in GONE):
                wrong.append(f"{what}: {error!r}")
            done["slower"] += 1
        except FileNotFoundError:  # replaced or purged while it was read
            done["gone"] += 1
        except Exception as error:  # noqa: BLE001 - is told
            wrong.append(f"{what}: {error!r}")
    return wrong


async def main(directory: Path, seed: int, commands: int, locks: bool) -> None:
    """Be one of the processes, with two tasks."""
    if not locks:
        unlock()
    done: Counter[str] = Counter()
    tasks = [work(directory, seed + number, commands, done) for number in range(2)]
    wrong = [line for lines in await asyncio.gather(*tasks) for line in lines]
    print(json.dumps({"wrong": wrong, "done": done}))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "locks"))
