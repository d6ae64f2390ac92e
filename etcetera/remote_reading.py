"""What a remote dataset has done on its event loop."""

from collections.abc import AsyncGenerator, Sequence

from anyio import Lock

from etcetera.dataset import MAX_META, parse_meta
from etcetera.errors import PathNotFound
from etcetera.remote_session import AnyReader
from etcetera.transfer.children import Child
from etcetera.transfer.flow import in_thread
from etcetera.transfer.front import FrontReader, SpooledFile
from etcetera.transfer.links import follow
from etcetera.transfer.member_file import MemberFile
from etcetera.transfer.read_ahead import FileContent, files_ahead
from etcetera.transfer.reader import TooLarge
from etcetera.transfer.tar import Entry

AnyFile = MemberFile | SpooledFile


async def open_file(reader: AnyReader, path: str) -> AnyFile:
    """Open one file, following links.

    Raises:
        PathNotFound: There is none.
    """
    file = await reader.open(await follow(path, reader))
    if file is None:
        raise await _no_file(reader, path)
    return file


async def read_file(reader: AnyReader, path: str) -> bytes:
    """The content of one file; links are followed.

    Raises:
        PathNotFound: There is none.
    """
    file = await open_file(reader, path)
    try:
        return await file.read(0, file.entry.size)
    finally:
        file.close()


async def read_ranges(
    reader: AnyReader, path: str, ranges: Sequence[tuple[int, int]]
) -> list[bytes]:
    """The bytes of one file from a start to a stop, several times; links are followed.

    What lies in the same frames is fetched once, and several things at a time.

    Raises:
        PathNotFound: There is none.
    """
    file = await open_file(reader, path)
    try:
        if isinstance(file, MemberFile):
            return await file.read_ranges(ranges)
        return [await file.read(*one) for one in ranges]
    finally:
        file.close()


async def read_meta(reader: AnyReader, name: str) -> dict[str, object]:
    """What ``meta.json`` holds; empty without one.

    Raises:
        InvalidDataset: It is no JSON object.
        TooLarge: It has more than a MiB.
    """
    file = await reader.open("meta.json")
    if file is None:
        return {}
    if file.entry.size > MAX_META:
        raise TooLarge(f"meta.json of {name} has {file.entry.size:,} bytes: it is not read")
    content = await file.read(0, file.entry.size)
    file.close()
    return await in_thread(parse_meta, content, f"meta.json of {name}")


async def look_up(reader: AnyReader, path: str) -> Entry | None:
    """What is at a path, once links are followed; ``None`` if nothing."""
    goal = await follow(path, reader) if path else path
    entry = await reader.find(goal) if path else None
    if entry is None and (await reader.children(goal)).is_directory:
        # Others than our archives need not have an entry for each directory.
        return Entry(path, "d", 0, 0o755, 0)
    return entry


async def list_directory(reader: AnyReader, path: str) -> list[Child]:
    """What is directly in a directory, once links to it are followed.

    Raises:
        PathNotFound: There is no such directory.
    """
    goal = await follow(path, reader) if path else path
    children = await reader.children(goal)
    if not children.is_directory:
        raise PathNotFound(f"{path} is no directory in the dataset")
    return [row._replace(path=_below(path, row.path, goal)) for row in children.rows()]


def _below(path: str, found: str, goal: str) -> str:
    """What is *found* below *goal*, as whoever came by *path* calls it."""
    rest = found.removeprefix(goal).removeprefix("/")
    return f"{path}/{rest}" if path else rest


class Batches:
    """Files, some at a time; a call waits until one that was cancelled has unwound."""

    def __init__(self, batches: AsyncGenerator[list[FileContent]]) -> None:
        self._batches = batches
        self._turn = Lock()

    async def next(self) -> list[FileContent] | None:
        """The next files; ``None`` once there are no more."""
        async with self._turn:
            return await anext(self._batches, None)

    async def end(self) -> None:
        """Cancel what is under way."""
        async with self._turn:
            await self._batches.aclose()


async def begin_files(reader: AnyReader, below: str) -> Batches:
    """Begin to read the files below a directory.

    Raises:
        PathNotFound: There is none.
    """
    if await look_up(reader, below) is None:
        raise PathNotFound(f"There is no {below} in the dataset")
    below = await follow(below, reader) if below else below
    if isinstance(reader, FrontReader):
        return Batches(reader.files_ahead(below))
    return Batches(files_ahead(reader, below))


async def _no_file(reader: AnyReader, path: str) -> PathNotFound:
    if await look_up(reader, path) is not None:
        return PathNotFound(f"{path or '.'} is a directory: name a file in it")
    return PathNotFound(
        f"There is no file {path} in the dataset; etc ls -r NAME shows what there is"
    )
