"""The blocking half of a push: files → frames → parts, on threads and processes."""

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from etcetera.stores import CannotResume
from etcetera.transfer import codec
from etcetera.transfer.checkpoints import Checkpoints
from etcetera.transfer.codec import LADDER, Frame, KnownFrame
from etcetera.transfer.flow import Crew, crew, in_thread, ordered
from etcetera.transfer.index_copy import IndexCopy
from etcetera.transfer.index_writer import IndexWriter, PackedMember
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.pace import Pace
from etcetera.transfer.pack import Group, LargeFile, Slice, group, open_root
from etcetera.transfer.parts import Buffers, CopiedPart, Part, PartPlan, Piece, cut
from etcetera.transfer.resume import Replay, unsent
from etcetera.transfer.scan import Scan
from etcetera.transfer.tar import Entry
from etcetera.transfer.update import ScanDigest, Update
from etcetera.transfer.weave import Pack, Packed, weave
from etcetera.transfer.workers import workers

_FIRST_PARTS = 2
"""So many are packed at the fastest level, to be sent as soon as that can begin."""


class Packing:
    """One archive in the making, one thread hop a part."""

    def __init__(
        self,
        scanned: Scan,
        plan: PartPlan,
        options: TransferOptions,
        *,
        checkpoints: Checkpoints | None,
        copy: IndexCopy | None,
        update: Update | None,
    ) -> None:
        self._index = IndexWriter(ScanDigest(scanned) if update else None)
        self._stop = threading.Event()
        # A thread of its own: packing never queues behind a service's other work, and its large
        # buffers come from one arena of the allocator, which reuses them.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="etcetera-pack")
        self.buffers = Buffers(plan.part_size)
        """Of the parts: to be given back when they are sent."""
        self.pace = Pace(
            options.level,
            part_size=plan.part_size,
            first=_FIRST_PARTS,
            # Parts that are under way hold their memory, and are half sent in the mean.
            most=max(1, plan.workers // 2),
        )
        """To be told what is sent."""
        self.copied = 0
        """Bytes of the parts given out that are copied."""
        saved = checkpoints.saved if checkpoints else None
        self._frames = _pieces(
            scanned, self._index, self.pace, options, plan.part_size,
            checkpoints, update, copy, self._stop,
        )  # fmt: skip
        sent = len(saved.upload.parts) if saved else 0
        note = checkpoints.cut if checkpoints else None
        self._parts = cut(self._frames, self.buffers, sent + 1, note)

    @property
    def digest(self) -> str:
        """Of the dataset, once the last part was given out."""
        return self._index.digest

    async def next_part(self) -> Part | CopiedPart | None:
        """Pack up to the end of one part; ``None`` after the last."""
        part: Part | CopiedPart | None = await in_thread(
            partial(next, self._parts, None), pool=self._pool, on_cancel=self._stop.set
        )
        if isinstance(part, CopiedPart):
            self.copied += part.copy.length
        return part

    async def close(self) -> None:
        """Stop the threads and processes and close the files."""
        try:
            await in_thread(self._frames.close, pool=self._pool)
        finally:
            # Also if a cancellation comes meanwhile: its only thread is idle by now.
            self._pool.shutdown()


def _pieces(
    scanned: Scan,
    index: IndexWriter,
    pace: Pace,
    options: TransferOptions,
    part_size: int,
    checkpoints: Checkpoints | None,
    update: Update | None,
    copy: IndexCopy | None,
    stop: threading.Event,
) -> Generator[Piece]:
    """Yield the archive's bytes, each piece with the tar bytes it stands for.

    Those that an earlier push has sent are left out.
    """
    saved = checkpoints.saved if checkpoints else None
    total = scanned.total if update is None else update.changed
    chosen = crew(options, total.files, total.bytes)
    with _Packer(scanned.root, index, pace, chosen, checkpoints, stop) as packer:
        woven = (
            weave(update, scanned, index, packer.pack, part_size)
            if update is not None
            else _whole(scanned, packer.pack)
        )
        with closing(woven):
            yield from unsent(woven, saved)
        packer.check_end()
    if checkpoints is not None:
        checkpoints.end_frames()
    level = LADDER[0] if options.level is None else options.level
    for data in _finish(index, level, saved.sent if saved else 0, copy):
        yield data, 0


def _whole(scanned: Scan, pack: Pack) -> Generator[Piece | KnownFrame]:
    """Yield the archive up to its index, all of it packed."""
    yield codec.GZIP_HEADER, 0
    yield from pack(scanned.entries())


class _Packer:
    """Packs files of one dataset, and tells the index of them."""

    def __init__(
        self,
        root: Path,
        index: IndexWriter,
        pace: Pace,
        chosen: Crew,
        checkpoints: Checkpoints | None,
        stop: threading.Event,
    ) -> None:
        self._path = root
        self._index = index
        self._pace = pace
        self._crew = chosen
        self._checkpoints = checkpoints
        self._stop = stop
        saved = checkpoints.saved if checkpoints else None
        self._replay = Replay(saved, index, stop) if saved else None
        self._large: dict[LargeFile, None] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._root = open_root(self._path)
            stack.callback(os.close, self._root)
            stack.callback(self._close_large)
            count = self._crew.threads if self._crew.processes else 0
            self._processes = stack.enter_context(workers(count, "pack", os.fsencode(self._path)))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _close_large(self) -> None:
        for file in self._large:
            file.close()

    def pack(self, entries: Iterable[Entry]) -> Generator[Packed]:
        """Yield the frames of *entries*; of those that an earlier push has packed only the place.

        Raises:
            CannotResume: That push had other entries.
        """
        jobs = group(entries)
        yield from self._known(jobs)
        threads = self._crew.threads
        packed = ordered(self._pack, self._noted(jobs), threads=threads, window=2 * threads + 4)
        with closing(packed):
            for job, (frame, members) in packed:
                self._index.add_frame(frame, members)
                if isinstance(job, Slice) and _add_slice(self._index, job):
                    del self._large[job.file]
                    members = [job.file.member()]
                if self._checkpoints is not None:
                    self._checkpoints.add_frame(frame, members)
                yield frame.data, frame.size

    def check_end(self) -> None:
        """Raise CannotResume if an earlier push has packed more than there is."""
        if self._replay is not None and self._replay.left:
            raise CannotResume("its journal knows of frames that are no more")

    def _known(self, jobs: Iterator[Group | Slice]) -> Iterator[KnownFrame]:
        """Take what an earlier push has packed from the first of *jobs* on."""
        replay = self._replay
        while replay is not None and replay.left and (job := next(jobs, None)) is not None:
            yield replay.take(job)
            if isinstance(job, Slice) and job.number < job.file.slices - 1 and not replay.left:
                # The state of a SHA-256 cannot be kept.
                self._large[job.file] = None
                job.file.skip(self._root, job.number + 1, self._stop)

    def _noted(self, jobs: Iterator[Group | Slice]) -> Iterator[Group | Slice]:
        """Yield *jobs*, and note which files have to be closed."""
        for job in jobs:
            if isinstance(job, Slice):
                self._large[job.file] = None
            yield job

    def _pack(self, job: Group | Slice) -> tuple[Frame, list[PackedMember]]:
        level = self._pace.level()
        if self._processes is not None and isinstance(job, Group):
            frame, members = self._processes.pack(job.entries, level)
        else:
            frame, members = job.pack(self._root, level)
        self._pace.packed(level, frame)
        return frame, members


def _finish(index: IndexWriter, level: int, sent: int, copy: IndexCopy | None) -> Iterator[bytes]:
    """Yield what follows the data frames, and take it down in *copy*.

    Of the object's first *sent* bytes nothing is given out.
    """
    position = index.length
    if copy is not None:
        copy.begin(position)
    for data in index.finish(level):
        if copy is not None:
            copy.put(position, data)
        yield data[max(0, sent - position) :]
        position += len(data)


def _add_slice(index: IndexWriter, job: Slice) -> bool:
    """Tell the index of the file whose slice was just added; return whether it was the last."""
    file = job.file
    if job.number == 0:
        index.begin_large(file.entry, len(file.head))
    if job.number < file.slices - 1:
        return False
    index.finish_large(file.member())
    return True
