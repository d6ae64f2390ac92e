"""Push: scan → plan → pack frames (threads) → cut parts → upload (tasks) → complete."""

import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import CancelScope, create_memory_object_stream
from anyio.abc import ObjectReceiveStream, ObjectSendStream

from etcetera.errors import AlreadyExists
from etcetera.stores import ObjectInfo, Store, Upload
from etcetera.transfer import codec
from etcetera.transfer.flow import in_thread, ordered, task_group, thread_count
from etcetera.transfer.index_writer import IndexWriter
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pack import Group, LargeFile, Slice, group, open_root
from etcetera.transfer.parts import Part, PartPlan, archive_bound, cut, plan
from etcetera.transfer.scan import Scan, scan

Report = Callable[[int, int], None]
"""Told the tar bytes and the archive bytes of each part once it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything known before the first byte is sent."""

    scan: Scan
    plan: PartPlan
    existing: ObjectInfo | None
    """What the key holds now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """A published archive."""

    info: ObjectInfo
    digest: str
    """Of the dataset."""
    parts: int


async def prepare(root: Path, store: Store, key: str, options: TransferOptions) -> Prepared:
    """Scan the dataset while asking the store what it has.

    Raises:
        InvalidDataset: Something in the dataset cannot be packed.
        RepositoryNotFound: There is no such bucket or directory.
    """
    existing: list[ObjectInfo | None] = []

    async def look() -> None:
        existing.append(await store.head(key))

    async with task_group() as tasks:
        tasks.start_soon(look)
        scanned = await in_thread(scan, root)
    bound = archive_bound(scanned)
    return Prepared(scan=scanned, plan=plan(bound, store.limits, options), existing=existing[0])


async def push(
    prepared: Prepared,
    store: Store,
    key: str,
    options: TransferOptions,
    *,
    overwrite: bool,
    report: Report,
) -> Pushed:
    """Pack and publish in one go; the key holds the old object or none until the very end.

    Raises:
        AlreadyExists: The key is taken and *overwrite* is false.
        SourceChanged: A file changed after the scan.
    """
    if prepared.existing and not overwrite:
        raise AlreadyExists(f"{store.url}/{key} exists already")
    packing = Packing(prepared.scan, prepared.plan.part_size, options)
    try:
        first = await packing.next_part()
        assert first is not None, "an archive is never empty"  # noqa: S101
        if first.last:
            info = await store.put(key, first.data, overwrite=overwrite)
            report(first.size, len(first.data))
            return Pushed(info=info, digest=packing.digest, parts=1)
        async with store.upload(
            key, part_size=prepared.plan.part_size, overwrite=overwrite
        ) as upload:
            parts = await _send_parts(packing, first, upload, prepared.plan.workers, report)
            info = await upload.complete()
        return Pushed(info=info, digest=packing.digest, parts=parts)
    finally:
        with CancelScope(shield=True):
            await packing.close()


async def _send_parts(
    packing: "Packing", first: Part, upload: Upload, workers: int, report: Report
) -> int:
    """Send every part, *workers* at once; return how many there were."""
    # No buffer: a part waits in memory only while it is cut or sent.
    send, receive = create_memory_object_stream[Part](0)

    async with task_group() as tasks:
        for _ in range(workers):
            tasks.start_soon(_put_parts, receive.clone(), upload, report)
        receive.close()
        return await _read_parts(packing, first, send)


async def _read_parts(packing: "Packing", first: Part, send: ObjectSendStream[Part]) -> int:
    number, part = 0, first
    async with send:
        while True:
            number = part.number
            await send.send(part)
            following = await packing.next_part()
            if following is None:
                return number
            part = following


async def _put_parts(receive: ObjectReceiveStream[Part], upload: Upload, report: Report) -> None:
    async with receive:
        async for part in receive:
            await upload.put_part(part.number, part.data, part.crc32)
            report(part.size, len(part.data))


class Packing:
    """The blocking half of a push, one thread hop a part."""

    def __init__(self, scanned: Scan, part_size: int, options: TransferOptions) -> None:
        self._index = IndexWriter()
        # A thread of its own: packing never queues behind a service's other work, and its large
        # buffers come from one arena of the allocator, which reuses them.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="etcetera-pack")
        self._parts: Generator[Part] = _pack_parts(scanned, self._index, part_size, options)

    @property
    def digest(self) -> str:
        """Of the dataset, once the last part was given out."""
        return self._index.digest

    async def next_part(self) -> Part | None:
        """Pack up to the end of one part; ``None`` after the last."""
        return await in_thread(partial(next, self._parts, None), pool=self._pool)

    async def close(self) -> None:
        """Stop the threads and close the files."""
        await in_thread(self._parts.close, pool=self._pool)
        self._pool.shutdown()  # its only thread is idle: nothing to wait for


def _pack_parts(
    scanned: Scan, index: IndexWriter, part_size: int, options: TransferOptions
) -> Generator[Part]:
    yield from cut(_pack_frames(scanned, index, options), part_size)


def _pack_frames(
    scanned: Scan, index: IndexWriter, options: TransferOptions
) -> Iterator[tuple[bytes, int]]:
    """Yield the archive's bytes, each piece with the tar bytes it stands for."""
    yield codec.GZIP_HEADER, 0
    threads = thread_count(options, scanned.total.files, scanned.total.bytes)
    root = open_root(scanned.root)
    large: dict[LargeFile, None] = {}

    def jobs() -> Iterator[Group | Slice]:
        for job in group(scanned.entries()):
            if isinstance(job, Slice):
                large[job.file] = None
            yield job

    packed = ordered(
        lambda job: job.pack(root, options.level), jobs(), threads=threads, window=2 * threads + 4
    )
    try:
        for job, (frame, members) in packed:
            index.add_frame(frame, members)
            if isinstance(job, Slice):
                file = job.file
                if job.number == 0:
                    index.begin_large(file.entry, len(file.head))
                if job.number == file.slices - 1:
                    index.finish_large(file.member())
                    del large[file]
            yield frame.data, frame.size
    finally:
        packed.close()
        for file in large:
            file.close()
        os.close(root)
    for data in index.finish(options.level):
        yield data, 0
