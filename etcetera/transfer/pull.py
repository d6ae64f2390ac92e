"""Pull: tail → index → plan → fetch ranges (tasks) → inflate, check, write (threads).

Without an index: fetch in order → inflate → strict tar reader → write.
"""

import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.codec import Buffer
from etcetera.transfer.crowd import Crowd
from etcetera.transfer.extract import Extractor, check_space
from etcetera.transfer.flow import crew, in_thread, in_threads, task_group
from etcetera.transfer.in_order import Report, range_size, read_in_order
from etcetera.transfer.index import Segment
from etcetera.transfer.index_copy import IndexCopy, write_index
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.parts import requests_at_once
from etcetera.transfer.reuse import Donor, Donors
from etcetera.transfer.streamed import unpack_stream
from etcetera.transfer.tally import Part, Tally, check_claims
from etcetera.transfer.unpack import (
    FrameJob,
    Layout,
    segment_crc,
    unpack_frames,
)
from etcetera.transfer.workers import Workers, workers_beside


class _Closable(Protocol):
    def close(self) -> None: ...


Closable = TypeVar("Closable", bound=_Closable)
Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What lies in the staging tree now."""

    digest: str
    """Of the whole dataset, also if only a part was taken."""
    files: int
    bytes: int
    fingerprint: str
    received: int
    """Bytes of the archive's frames that were fetched."""


@dataclass(frozen=True, slots=True)
class Range:
    """Frames that are fetched one after the other, nearly all with one request."""

    jobs: list[FrameJob]

    def runs(self) -> Iterator[tuple[int, int, list[FrameJob]]]:
        """Yield start and stop in the object of frames that follow each other, and the frames."""
        held: list[FrameJob] = []
        for job in self.jobs:
            if held and _gap(held[-1], job):
                yield *_span(held), held
                held = []
            held.append(job)
        if held:
            yield *_span(held), held


def _span(jobs: list[FrameJob]) -> tuple[int, int]:
    last = jobs[-1].place
    return jobs[0].place.offset, last.offset + last.length


async def pull(
    archive: Archive,
    index: Index | None,
    tree: Path,
    options: TransferOptions,
    report: Report,
    *,
    part: Part | None = None,
    donors: Sequence[Donor] = (),
    copy: IndexCopy | None = None,
) -> Pulled:
    """Fetch an archive into *tree*, an empty directory, and check every byte of it.

    Args:
        archive: What is pulled.
        index: Its index, if it has one.
        tree: Where the files go.
        options: How many requests and threads.
        report: Told of each range.
        part: What is wanted; by default everything.
        donors: Where files may be already; only of use with an index.
        copy: Takes the index down; one is made for an archive that has none.

    Raises:
        ArchiveError: It cannot be installed; what *tree* holds then is of no use.
        NoSpace: The disk is full, or all of it is wanted and the index says that it would be.
        NothingSelected: There is no such part.
        RemoteChanged: The object was replaced meanwhile.
    """
    received = 0

    def count(size: int, length: int) -> None:
        nonlocal received
        received += length
        report(size, length)

    async with in_threads(_opened(Extractor, tree)) as extractor:
        if index is None:
            crowd = Crowd(tree, options)
            unpack = partial(unpack_stream, extractor=extractor, part=part, crowd=crowd)
            tally = await read_in_order(archive, unpack, options, count)
            digest = await in_thread(_digest, tally, copy)
        else:
            if copy is not None:
                await archive.copy_from(index.root.data_stop, copy)
            async with in_threads(_opened(Donors, donors, extractor)) as opened:
                if part is None and opened:
                    part = Part()
                if part is None:
                    await in_thread(check_space, tree, index.footer.bytes)
                work = Work(index, extractor, opened, part)
                await _pull_frames(work, tree, options, count)
                tally = work.tally
            digest = await in_thread(tally.digest)
            check_claims(index.footer, index.root, tally, digest)
            await archive.copy_rest()
        await in_thread(extractor.finish)
    return Pulled(
        digest=digest,
        files=tally.taken.files,
        bytes=tally.taken.bytes,
        fingerprint=tally.fingerprint.value(),
        received=received,
    )


@dataclass(frozen=True, slots=True)
class Survey:
    """What a pull of a part will take, as the index says."""

    files: int
    bytes: int
    """Of the files."""
    tar_size: int
    """Bytes of the tar stream in the frames that hold them."""
    length: int
    """Bytes of these frames."""


_HELD_INDEX = 32 * MiB
"""An index of so many bytes at most is read once, though it is gone through twice."""


async def survey(index: Index, part: Part) -> Survey:
    """Add up what a part needs; reads no more than the index.

    Raises:
        NothingSelected: There is no such part.
    """
    await index.archive.hold(index.root.data_stop, _HELD_INDEX)
    sums = [0, 0, 0, 0]
    stop = 0

    def add(segment: Segment) -> None:
        nonlocal stop
        wanted = [one for one in segment.members if part.wants(one.entry) and one.entry.kind == "f"]
        sums[0] += len(wanted)
        sums[1] += sum(member.entry.size for member in wanted)
        spans = iter([(member.start, member.stop) for member in wanted])
        start, following = 0, stop
        for frame in segment.frames:
            while following <= frame.start and (span := next(spans, None)):
                start, following = span
            if start < frame.start + frame.size and frame.start < following:
                sums[2] += frame.size
                sums[3] += frame.length
        stop = max([stop, *(member.stop for member in wanted)])

    async with aclosing(index.segments()) as segments:
        async for segment in segments:
            await in_thread(add, segment)
    part.check(index.root.partitions)
    return Survey(*sums)


def _digest(tally: Tally, copy: IndexCopy | None) -> str:
    """The digest of what came without an index, for which one is made."""
    return tally.digest() if copy is None else write_index(tally.rows.take(), copy)


@contextmanager
def _opened(make: Callable[[*Arguments], Closable], *arguments: *Arguments) -> Iterator[Closable]:
    """Make something, in the thread that enters this, and close it in the end."""
    with closing(make(*arguments)) as thing:
        yield thing


class Work:
    """What is to be done with the members of one segment after another."""

    def __init__(
        self, index: Index, extractor: Extractor, donors: Donors, part: Part | None
    ) -> None:
        self.index = index
        self.extractor = extractor
        self.donors = donors
        self.tally = Tally.of(index.root)
        self._part = part
        self._layout = Layout(extractor)
        self._crc32 = 0

    def take(self, segment: Segment) -> list[FrameJob]:
        """Count a segment; return the frames that hold what is wanted of it."""
        self._crc32 = segment_crc(segment, self._crc32)
        if self._part is None:
            self.tally.add_segment(segment)
            return self._layout.jobs(segment)
        # Directories and links are in the index whole: only for files frames are needed.
        wanted: set[int] = set()
        files: set[int] = set()
        for member in segment.members:
            entry = member.entry
            if self._part.wants(entry) and entry.kind != "d":
                wanted.add(member.start)
                if entry.kind == "f":
                    files.add(member.start)
                else:
                    self.extractor.add_link(entry)
        self.tally.add_segment(segment, wanted)
        return self._layout.jobs(segment, files)

    async def finish(self) -> None:
        """Check what lies around the frames; make the directories of a part."""
        await self.index.check_whole(self._crc32)
        if self._part is not None:
            await in_thread(self._finish_part, self._part)

    def _finish_part(self, part: Part) -> None:
        with self.extractor.writer() as writer:
            part.finish(writer, self.tally)


async def _pull_frames(work: Work, tree: Path, options: TransferOptions, report: Report) -> None:
    index, extractor = work.index, work.extractor
    chosen = crew(options, index.footer.files, index.footer.bytes)
    count = chosen.threads if chosen.processes else 0
    lanes = Lanes(requests_at_once(options.part_size, options))
    # Threads of its own, so that unpacking never queues behind a service's other work.
    with ThreadPoolExecutor(chosen.threads, "etcetera-unpack") as pool:
        async with (
            # Meanwhile the index is read and the first ranges are fetched.
            in_threads(workers_beside(count, "unpack", os.fsencode(tree))) as starting,
            task_group() as tasks,
        ):

            async def take(one: Range, lane: Lane) -> None:
                fetched = 0
                if work.donors:
                    size = sum(job.place.size for job in one.jobs)
                    one = Range(await in_thread(work.donors.take, one.jobs, pool=pool))
                    report(size - sum(job.place.size for job in one.jobs), 0)
                for start, stop, jobs in one.runs():
                    data = await index.archive.read(start, stop)
                    fetched += len(data)
                    size = await in_thread(
                        _unpack, extractor, starting, data, start, jobs, pool=pool
                    )
                    report(size, len(data))
                lanes.leave(lane, fetched)

            async with aclosing(plan_ranges(work, lanes, options)) as ranges:
                async for one in ranges:
                    # A range waits in memory only while it is fetched or unpacked.
                    tasks.start_soon(take, one, await lanes.enter())
    await work.finish()


def _unpack(
    extractor: Extractor,
    starting: Future[Workers | None],
    data: Buffer,
    offset: int,
    jobs: list[FrameJob],
) -> int:
    """Write what frames hold that follow each other; return the tar bytes."""
    processes = starting.result()
    if processes is None or any(job.large for job in jobs):
        return unpack_frames(data, offset, jobs, extractor)
    return processes.unpack(data, offset, jobs, extractor)


async def plan_ranges(work: Work, lanes: Lanes, options: TransferOptions) -> AsyncGenerator[Range]:
    """Read the index segment by segment and yield what is to be fetched."""
    size = partial(range_size, lanes, options)
    async with aclosing(work.index.segments()) as segments:
        async for segment in segments:
            for held in _batches(await in_thread(work.take, segment), size):
                yield Range(held)


def _batches(jobs: list[FrameJob], range_size: Callable[[], int]) -> Iterator[list[FrameJob]]:
    held: list[FrameJob] = []
    size, most = 0, range_size()
    for job in jobs:
        if held and (size + job.place.length > most or _gap(held[-1], job)):
            yield held
            held, size, most = [], 0, range_size()
        held.append(job)
        size += job.place.length
    if held:
        yield held


def _gap(one: FrameJob, two: FrameJob) -> bool:
    return two.place.offset != one.place.offset + one.place.length
