"""What the model speaks of: trees, archives, local datasets and commands."""

import asyncio
import gzip
import io
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Awaitable, Generator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from etcetera.errors import (
    EtceteraError,
)
from tests.archives import packed
from tests.datasets import settle, snapshot

Tree = dict[str, tuple[object, ...]]
"""What is below a directory, but for the times of directories, which archives may change."""
NAMES = ("rose", "x")
VERSIONS = range(4)
counts: Counter[str] = Counter()
"""How often each thing was done, by all machines of this process."""


@dataclass(frozen=True)
class Archive:
    """What the repository has under a name."""

    tree: Tree
    etag: str
    indexed: bool = True
    intact: bool = True


@dataclass(frozen=True)
class Local:
    """What a home has under a name."""

    kind: str
    tree: Tree
    saved: bool | None
    """Whether a repository has a copy; ``None`` if a kill has left that open."""
    of: Archive | None = None
    """What it is a part of."""
    parts: frozenset[str] = frozenset()
    """Partitions, if it is a part."""


@dataclass
class Call:
    """One command, and what the model says it does."""

    function: str
    """Of the API, without the ``a``."""
    home: int
    name: str
    arguments: dict[str, Any]
    """Without the configuration; all of them fit for JSON."""
    error: type[EtceteraError] | None = None
    """How it has to fail."""
    may_fail: bool = False
    """Whether it may fail with any error of ours, and then changes nothing."""
    local: Local | None = None
    """What the home has of it afterwards."""
    pushed: Tree | None = None
    """What the repository has of it afterwards, if that is another archive."""


class Interrupted:
    """Awaits something and cancels the task when that waits for the n-th time."""

    def __init__(self, step: int, inner: Awaitable[object]) -> None:
        self._left, self._inner = step, inner

    def __await__(self) -> Generator[Any, Any, object]:
        """Hand on what is waited for, and count."""
        steps, caught = self._inner.__await__(), None
        while True:
            try:
                waited = steps.throw(caught) if caught else steps.send(None)
            except StopIteration as end:
                return end.value
            self._left -= 1
            task = asyncio.current_task()
            if not self._left and task is not None:
                asyncio.get_running_loop().call_soon(task.cancel)
            caught = None
            try:
                yield waited
            except BaseException as error:  # noqa: BLE001 - a cancellation, which goes on inside
                caught = error


def look(root: Path) -> Tree:
    """What is below *root*."""
    found = snapshot(root)
    return {path: value[:1] if value[0] == "directory" else value for path, value in found.items()}


def part_of(tree: Tree, partitions: frozenset[str]) -> Tree:
    """What a pull of some partitions takes of *tree*."""
    above = ("README.md", "meta.json", "data", *(f"data/{one}" for one in partitions))
    return {
        path: value
        for path, value in tree.items()
        if path in above or path.startswith(tuple(f"data/{one}/" for one in partitions))
    }


@cache
def source(version: int) -> Path:
    """A directory to be registered: of two versions one partition may be the same."""
    root = Path(tempfile.mkdtemp(prefix="etcetera-model-")) / "source"
    train, test = divmod(version, 2)
    for partition, files in (("train", {"a": train, "b": 7}), ("test", {"c": test})):
        directory = root / "data" / partition / "deep"
        directory.mkdir(parents=True)
        for name, number in files.items():
            content = b"".join(gzip.compress(bytes([number, i]), mtime=number) for i in range(99))
            (directory / name).write_bytes(content * 4)
    (root / "data" / "test" / "link").symlink_to("deep/c")
    (root / "meta.json").write_text('{"kind": "model"}')
    (root / "README.md").write_text(f"# Version {version}\n")
    settle(root)
    return root


@cache
def archive_of(version: int, indexed: bool) -> bytes:
    """The archive of a version, ours or another tool's."""
    if indexed:
        return asyncio.run(packed(source(version)))
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for path in sorted(source(version).iterdir()):
                tar.add(path, path.name)
        return file.getvalue()


def forget_sources() -> None:
    """Delete what the machines of this process have made and share."""
    for version in VERSIONS if source.cache_info().currsize else ():
        shutil.rmtree(source(version).parent)
    source.cache_clear()


def figures() -> str:
    """What was done, in one line."""
    return ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
