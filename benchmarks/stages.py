"""Each stage of a push and of a pull alone, at full speed: on one processor and on all.

No stage waits for another: what it takes lies ready in memory (for scan, pack and fetch: in files
that are in memory). On all processors, each has a process of its own with its share of the work.
"""

import asyncio
import hashlib
import itertools
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from benchmarks import data
from benchmarks.endpoint import DROPPED, KEPT, KEY, REGION, SECRET, Endpoint
from benchmarks.machine import processors
from benchmarks.transfers import place, say
from etcetera.settings import RepositorySettings
from etcetera.stores import RemoteObject, Store, open_store
from etcetera.transfer import codec
from etcetera.transfer.parts import Buffers, Part, cut
from etcetera.transfer.scan import scan
from etcetera.transfer.tar import Entry, header

PUSH = ("scan", "pack", "compress", "hash", "cut", "upload")
PULL = ("fetch", "inflate", "hash", "write")
"""In the order the bytes travel; what a pull hashes is what a push has hashed."""

_ARCHIVE = ("cut", "upload", "fetch")
"""These see compressed bytes."""
_PART = 8 * data.MiB
_CHUNK = data.MiB
_GROUP = 512 * data.KiB
_CONNECTIONS = 8
_RUNS = 3
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a run of the bytes of a large one."""

    path: str
    """Relative to the dataset."""
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one process does."""

    root: Path
    endpoint: Endpoint
    number: int
    count: int
    scratch: Path

    @property
    def dataset(self) -> Path:
        """Where the files are."""
        return self.root / "dataset"

    def frames(self) -> list[list[Piece]]:
        """The share of the dataset, in pieces that make up frames."""
        return list(itertools.islice(frames_of(self.dataset), self.number, None, self.count))


Done = tuple[int, int]
"""Bytes and files."""
Stage = Callable[[Share], AbstractContextManager[Callable[[], Done]]]
"""Makes everything ready and gives what is to be timed."""


def frames_of(dataset: Path) -> Iterator[list[Piece]]:
    """Cut a dataset into what frames are made of."""
    held: list[Piece] = []
    size = 0
    for where, below, names in os.walk(dataset):
        below.sort()
        for name in sorted(names):
            path = Path(where, name)
            length = path.stat().st_size
            relative = path.relative_to(dataset).as_posix()
            if length > _CHUNK:
                for start in range(0, length, _CHUNK):
                    yield [Piece(relative, start, min(_CHUNK, length - start))]
                continue
            held.append(Piece(relative, 0, length))
            size += length
            if size >= _GROUP:
                yield held
                held, size = [], 0
    if held:
        yield held


def _read(root: int, piece: Piece, buffer: memoryview) -> memoryview:
    descriptor = os.open(piece.path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
    try:
        os.fstat(descriptor)
        content = buffer[: piece.size]
        if os.preadv(descriptor, [content], piece.offset) != piece.size:
            raise RuntimeError(f"{piece.path} was cut")
        os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return content


def read_frame(dataset: Path, frame: list[Piece]) -> bytes:
    """The bytes of one frame, without headers."""
    return b"".join(_read_pieces(dataset, [frame])[0])


def _contents(share: Share) -> list[list[bytes]]:
    return _read_pieces(share.dataset, share.frames())


def _read_pieces(dataset: Path, frames: list[list[Piece]]) -> list[list[bytes]]:
    root = os.open(dataset, os.O_RDONLY)
    buffer = memoryview(bytearray(_CHUNK))
    try:
        return [[bytes(_read(root, piece, buffer)) for piece in frame] for frame in frames]
    finally:
        os.close(root)


def _joined(share: Share) -> tuple[list[bytes], Done]:
    frames = _contents(share)
    joined = [b"".join(frame) for frame in frames]
    return joined, (sum(map(len, joined)), sum(map(len, frames)))


def _scan(share: Share) -> Callable[[], Done]:
    def work() -> Done:
        found = scan(share.dataset)
        return found.total.bytes, found.total.files

    return work


def _pack(share: Share) -> Callable[[], Done]:
    frames = share.frames()
    buffer = memoryview(bytearray(_CHUNK))

    def work() -> Done:
        root = os.open(share.dataset, os.O_RDONLY)
        size = files = 0
        for frame in frames:
            for piece in frame:
                content = _read(root, piece, buffer)
                header(Entry(piece.path, "f", piece.size, 0o644, 0))
                hashlib.sha256(content).hexdigest()
                size += piece.size
                files += 1
        os.close(root)
        return size, files

    return work


def _compress(share: Share) -> Callable[[], Done]:
    joined, done = _joined(share)

    def work() -> Done:
        for content in joined:
            codec.deflate(content, _LEVEL)
        return done

    return work


def _hash(share: Share) -> Callable[[], Done]:
    frames = _contents(share)

    def work() -> Done:
        size = files = 0
        for frame in frames:
            for content in frame:
                hashlib.sha256(content).hexdigest()
                size += len(content)
                files += 1
        return size, files

    return work


def _cut(share: Share) -> Callable[[], Done]:
    joined, done = _joined(share)

    def work() -> Done:
        buffers = Buffers(_PART)
        for part in cut(((content, len(content)) for content in joined), buffers):
            assert isinstance(part, Part), "nothing is copied"  # noqa: S101
            buffers.give_back(part)
        return done

    return work


def _settings(share: Share, bucket: str) -> RepositorySettings:
    return RepositorySettings(
        url=f"s3://{bucket}",
        endpoint_url=share.endpoint.url,
        region=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def _numbers(share: Share, size: int) -> list[int]:
    return list(range(share.number, max(share.count, size // _PART), share.count))


def _upload(share: Share) -> AbstractContextManager[Callable[[], Done]]:
    size = sum(piece.size for frame in frames_of(share.dataset) for piece in frame)
    part = os.urandom(_PART)
    crc32 = codec.crc32(part)
    count = len(_numbers(share, size))

    async def send(store: Store) -> None:
        limit = anyio.Semaphore(_CONNECTIONS)
        key = f"stage-{share.number}"
        async with store.upload(key, part_size=_PART, overwrite=True) as upload:

            async def put(number: int) -> None:
                async with limit:
                    await upload.put_part(number, part, crc32)

            async with anyio.create_task_group() as tasks:
                for number in range(1, count + 1):
                    tasks.start_soon(put, number)
            await upload.complete()

    return _connected(_settings(share, DROPPED), send, (count * _PART, 0))


def _fetch(share: Share) -> AbstractContextManager[Callable[[], Done]]:
    size = share.endpoint.size(KEPT, "stage") or 0
    numbers = _numbers(share, size)

    async def receive(store: Store) -> None:
        limit = anyio.Semaphore(_CONNECTIONS)
        async with store.open("stage") as remote:
            if remote is None:
                raise RuntimeError("there is nothing to be fetched")

            async def get(there: RemoteObject, number: int) -> None:
                async with limit:
                    await there.read(number * _PART, (number + 1) * _PART)

            async with anyio.create_task_group() as tasks:
                for number in numbers:
                    tasks.start_soon(get, remote, number)

    return _connected(_settings(share, KEPT), receive, (len(numbers) * _PART, 0))


@contextmanager
def _connected(
    settings: RepositorySettings, function: Callable[[Store], Coroutine[Any, Any, None]], done: Done
) -> Iterator[Callable[[], Done]]:
    """Keep one loop and one client, as a transfer does: making them is not what is timed."""
    with asyncio.Runner() as runner:
        opened = AsyncExitStack()
        store = runner.run(opened.enter_async_context(open_store(settings)))

        def work() -> Done:
            runner.run(function(store))
            return done

        work()  # Connections are made, and modules loaded.
        try:
            yield work
        finally:
            runner.run(opened.aclose())


def _inflate(share: Share) -> Callable[[], Done]:
    joined, done = _joined(share)
    frames = [(codec.deflate(content, _LEVEL), len(content)) for content in joined]

    def work() -> Done:
        for frame, size in frames:
            codec.inflate(frame, size)
        return done

    return work


def _write(share: Share) -> Callable[[], Done]:
    frames = share.frames()
    contents = _contents(share)
    turns = itertools.count()

    def work() -> Done:
        tree = share.scratch / f"{share.number}-{next(turns)}"
        size = files = 0
        directory, place = -1, ""
        for frame, held in zip(frames, contents, strict=True):
            for piece, content in zip(frame, held, strict=True):
                path, _, name = piece.path.rpartition("/")
                if path != place or directory < 0:
                    directory = _enter(tree / path, directory)
                    place = path
                _create(directory, f"{name}-{piece.offset}", content)
                size += piece.size
                files += 1
        os.close(directory)
        return size, files

    return work


def _enter(path: Path, before: int) -> int:
    if before >= 0:
        os.close(before)
    path.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _create(directory: int, name: str, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(name, flags, 0o644, dir_fd=directory)
    try:
        if os.write(descriptor, content) != len(content):
            raise RuntimeError("no space for what is written")
        os.utime(descriptor, ns=(0, 0))
    finally:
        os.close(descriptor)


def _alone(prepare: Callable[[Share], Callable[[], Done]]) -> Stage:
    """A stage that leaves nothing behind."""
    return lambda share: nullcontext(prepare(share))


STAGES: dict[str, Stage] = {
    "scan": _alone(_scan),
    "pack": _alone(_pack),
    "compress": _alone(_compress),
    "hash": _alone(_hash),
    "cut": _alone(_cut),
    "upload": _upload,
    "fetch": _fetch,
    "inflate": _alone(_inflate),
    "write": _alone(_write),
}

Row = tuple[float, float, float, int, int]
"""Start, end and CPU seconds of one run, its bytes and its files."""


def _process(
    name: str, share: Share, processor: int | None, barrier: Barrier, queue: "Queue[list[Row]]"
) -> None:
    """What runs in each process."""
    if processor is not None:
        os.sched_setaffinity(0, {processor})
    rows: list[Row] = []
    try:
        with STAGES[name](share) as work:
            for _ in range(_RUNS):
                barrier.wait(300)
                cpu, start = time.process_time(), time.monotonic()
                size, files = work()
                rows.append((start, time.monotonic(), time.process_time() - cpu, size, files))
    except BaseException:
        barrier.abort()
        raise
    finally:
        queue.put(rows)


def _run_stage(name: str, root: Path, server: Endpoint, count: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(count), context.Queue()
    allowed = sorted(os.sched_getaffinity(0))
    scratch = root / "scratch"
    started = []
    for number in range(count):
        share = Share(root, server, number, count, scratch)
        pinned = allowed[0] if count == 1 else None
        arguments = (name, share, pinned, barrier, queue)
        process = context.Process(target=_process, args=arguments, daemon=True)
        process.start()
        started.append(process)
    rows = [queue.get(timeout=900) for _ in started]
    for process in started:
        process.join()
    shutil.rmtree(scratch, ignore_errors=True)
    if any(len(of) < _RUNS for of in rows):
        raise RuntimeError(f"the stage {name} failed")
    best: dict[str, float] = {}
    for turn in zip(*rows, strict=True):
        starts, ends, cpus, sizes, files = zip(*turn, strict=True)
        seconds = max(ends) - min(starts)
        if not best or seconds < best["seconds"]:
            best = {
                "seconds": seconds,
                "cpu_seconds": sum(cpus),
                "bytes": sum(sizes),
                "files": sum(files),
            }
    return best


def run(kind: str, size: data.Size) -> dict[str, Any]:
    """Measure every stage with one kind of data."""
    count = processors()
    result: dict[str, Any] = {"processors": count, "stages": {}}
    room = 4 * size.bytes + 8 * data.KiB * 4 * size.small_files
    with place(kind, size, room) as here:
        total = sum(piece.size for frame in frames_of(here.dataset) for piece in frame)
        files = sum(1 for path in here.dataset.rglob("*") if path.is_file())
        result |= {"bytes": total, "files": files}
        _keep(here.endpoint, here.root, total)
        for name in STAGES:
            counts = [1] if name == "scan" else [1, count]
            rows = [_run_stage(name, here.root, here.endpoint, many) for many in counts]
            result["stages"][name] = {"one": rows[0], "all": rows[-1]}
            one, everyone = (
                row["bytes"] / data.MiB / row["seconds"] for row in (rows[0], rows[-1])
            )
            say(f"  {name}: {one:.0f} MB/s on one processor, {everyone:.0f} on all")
    return result


def _keep(server: Endpoint, root: Path, size: int) -> None:
    """An object to be fetched, about as long as the dataset."""
    source = root / "object"
    with source.open("wb") as file:
        for _ in range(max(size // _PART, 4 * processors())):
            file.write(os.urandom(_PART))
    server.put_file("stage", source)
    source.unlink()


class Limit(NamedTuple):
    """How fast a whole transfer could be."""

    longest: str
    """The stage that takes longest on all processors."""
    seconds: float
    """What it takes."""
    busy_seconds: float
    """What all stages take together, if every processor is busy all the time."""


def limit(rates: dict[str, Any], stages: Sequence[str], size: int, archive: int) -> Limit:
    """How fast a whole transfer could be, from its stages.

    Args:
        rates: What :func:`run` returned.
        stages: :data:`PUSH` or :data:`PULL`.
        size: Bytes of the dataset.
        archive: Bytes of the archive: no more than these are cut, sent and fetched.
    """
    seconds: dict[str, float] = {}
    busy = 0.0
    for name in stages:
        row = rates["stages"][name]["all"]
        scale = (archive if name in _ARCHIVE else size) / max(1, row["bytes"])
        seconds[name] = row["seconds"] * scale
        # What is hashed alone is hashed while packing, too.
        if not (name == "hash" and "pack" in stages):
            busy += row["cpu_seconds"] * scale
    longest = max(seconds, key=lambda name: seconds[name])
    return Limit(longest, seconds[longest], busy / rates["processors"])
