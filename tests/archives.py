"""Archives: pushed to memory, pulled from memory, and taken by real tools."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from etcetera.stores.memory import MemoryStore
from etcetera.transfer.archive import open_archive
from etcetera.transfer.crowd import Crowd
from etcetera.transfer.extract import Extractor
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pull import Pulled, pull
from etcetera.transfer.push import Pushed, prepare, push
from etcetera.transfer.streamed import unpack_stream
from etcetera.transfer.tally import Tally

KEY = "set.tgz"


def small(**changes: int) -> TransferOptions:
    """Options that make many small parts and ranges of little data, always the same."""
    return TransferOptions(
        **({"part_size": 4_096, "workers": 3, "threads": 2, "level": 1} | changes)
    )


def memory() -> MemoryStore:
    """A store of its own."""
    return MemoryStore(url="memory://test")


def holding(data: bytes) -> MemoryStore:
    """A store with one archive."""
    store = memory()
    store.publish(KEY, data, overwrite=True)
    return store


def ignore(tar: int, archive: int) -> None:
    """Nobody watches."""


async def push_to(store: MemoryStore, root: Path, options: TransferOptions | None = None) -> Pushed:
    """Push *root*."""
    options = options or small()
    prepared = await prepare(root, store, options)
    return await push(prepared, store, KEY, options, overwrite=False, report=ignore)


async def packed(root: Path, options: TransferOptions | None = None) -> bytes:
    """The archive of *root*."""
    store = memory()
    await push_to(store, root, options)
    return store.objects[KEY][1]


async def pull_from(
    data: bytes, tree: Path, options: TransferOptions | None = None, *, indexed: bool | None = None
) -> Pulled:
    """Pull *data* into *tree*, which is made.

    Args:
        data: The archive.
        tree: Where to.
        options: How.
        indexed: Whether there must be an index (and is used), or is not used; either by default.
    """
    tree.mkdir()  # noqa: ASYNC240
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        archive, index = await open_archive(remote)
        assert index is not None or indexed is not True
        index = None if indexed is False else index
        return await pull(archive, index, tree, options or small(), ignore)


def unpack(chunks: Iterable[bytes], tree: Path, crowd: Crowd | None = None) -> Tally:
    """Pull from front to back without a loop, from chunks of any length."""
    tree.mkdir()
    extractor = Extractor(tree)
    try:
        tally = unpack_stream(chunks, extractor, crowd=crowd)
        tally.digest()
        extractor.finish()
    finally:
        extractor.close()
    return tally


def run(*command: str | Path, data: bytes | None = None, cwd: Path | None = None) -> bytes:
    """Run a tool that must succeed and say nothing on stderr; return what it printed."""
    done = subprocess.run(command, input=data, cwd=cwd, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), command
    return done.stdout
