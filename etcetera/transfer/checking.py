"""Check: like a pull, but whatever comes is only looked at.

Fetch ranges (tasks) → inflate, check (threads).
"""

import hashlib
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from anyio import Event

from etcetera.errors import ArchiveError
from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import Extractor, LargeTarget, Writer, no_target, wrong_content
from etcetera.transfer.flow import in_thread, processors, task_group
from etcetera.transfer.in_order import Report, read_in_order
from etcetera.transfer.lanes import Lane, Lanes
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.parts import requests_at_once
from etcetera.transfer.paths import order_key
from etcetera.transfer.pull import Range, Work, plan_ranges
from etcetera.transfer.reuse import Donors
from etcetera.transfer.streamed import unpack_stream
from etcetera.transfer.tally import check_claims
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import FrameJob, unpack_frames

_FILE = struct.Struct(">QHQ32s")
"""Size, mode, time and SHA-256."""


@dataclass(slots=True)
class Checked:
    """What an archive holds, and what of it is damaged."""

    files: int = 0
    bytes: int = 0
    """Of the files."""
    damaged: list[str] = field(default_factory=list)
    """Paths of files that cannot be had as the index says, in the order of the archive."""
    problem: str | None = None
    """What is wrong with the archive, or the first thing that is."""


async def check(
    archive: Archive, index: Index | None, options: TransferOptions, report: Report
) -> Checked:
    """Fetch a whole archive and check every byte of it.

    Raises:
        RemoteChanged: The object was replaced meanwhile.
    """
    found = _Findings()
    try:
        if index is None:
            unpack = partial(unpack_stream, extractor=Checker(linked=True))
            tally = await read_in_order(archive, unpack, options, report)
            await in_thread(tally.digest)
        else:
            checker = Checker()
            work = Work(index, checker, Donors((), checker), None)
            await _check_frames(work, found, options, report)
            tally = work.tally
            check_claims(index.footer, index.root, tally, await in_thread(tally.digest))
            await index.check_index()
        found.checked.files, found.checked.bytes = tally.total.files, tally.total.bytes
    except ArchiveError as error:
        found.note(error)
    found.checked.damaged = sorted(found.paths, key=order_key)
    return found.checked


class _Findings:
    """What is wrong; noted from several threads."""

    def __init__(self) -> None:
        self.checked = Checked()
        self.paths: set[str] = set()

    def note(self, error: ArchiveError, paths: Iterable[str] = ()) -> None:
        """Remember which paths an error is about."""
        self.checked.problem = self.checked.problem or str(error)
        self.paths.update(paths)


async def _check_frames(
    work: Work, found: _Findings, options: TransferOptions, report: Report
) -> None:
    """Check what each frame holds; what is damaged is noted, and the rest checked all the same."""
    lanes = Lanes(requests_at_once(options.part_size, options))
    with ThreadPoolExecutor(options.threads or processors(), "etcetera-check") as pool:

        async def take(one: Range, lane: Lane, turn: Event, done: Event) -> None:
            fetched = 0
            for start, stop, jobs in one.runs():
                data = await work.index.archive.read(start, stop)
                # Slices of a large file are hashed in order, and wait in memory until then.
                await turn.wait()
                size = await in_thread(
                    _look_at, data, start, jobs, work.extractor, found, pool=pool
                )
                report(size, len(data))
                fetched += len(data)
            lanes.leave(lane, fetched)
            done.set()

        free = turn = Event()
        free.set()
        async with (
            task_group() as tasks,
            aclosing(plan_ranges(work, lanes, options)) as ranges,
        ):
            async for one in ranges:
                lane = await lanes.enter()
                done = Event()
                if any(job.large is not None for job in one.jobs):
                    tasks.start_soon(take, one, lane, turn, done)
                    turn = done
                else:
                    tasks.start_soon(take, one, lane, free, done)
    await work.finish()


def _look_at(
    data: Buffer, offset: int, jobs: list[FrameJob], extractor: Extractor, found: _Findings
) -> int:
    """Check frames that follow each other; return the tar bytes of those that are sound."""
    size = 0
    for job in jobs:
        try:
            size += unpack_frames(data, offset, [job], extractor)
        except ArchiveError as error:
            found.note(error, [member.entry.path for member in job.members])
    return size


class Checker(Extractor):
    """An extractor that writes nothing: what it is given has been checked by then."""

    def __init__(self, *, linked: bool = False) -> None:
        """Begin to check.

        Args:
            linked: Whether hard links may follow, so that files have to be remembered.
        """
        self._files: dict[str, bytes] | None = {} if linked else None

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def writer(self) -> Writer:
        """A writer that writes nothing."""
        return _Reader(self._files)

    def add_link(self, entry: Entry) -> None:
        """Do nothing."""

    def large(self, entry: Entry, sha256: str) -> LargeTarget:
        """Something that takes a large file's slices, which have to come in order."""
        return _LargeFile(entry, sha256)

    def finish(self) -> None:
        """Do nothing."""


class _Reader(Writer):
    def __init__(self, files: dict[str, bytes] | None) -> None:
        self._files = files

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Do nothing."""

    def directory(self, entry: Entry) -> None:
        """Do nothing."""

    def file(self, entry: Entry, content: Buffer) -> None:
        """Remember a file."""
        if self._files is not None:
            self._remember(entry, hashlib.sha256(content).digest())

    def stream(self, entry: Entry, pieces: Iterable[Buffer]) -> str:
        """Read a file's pieces and return its SHA-256."""
        sha256 = hashlib.sha256()
        for piece in pieces:
            sha256.update(piece)
        self._remember(entry, sha256.digest())
        return sha256.hexdigest()

    def hard_link(self, entry: Entry) -> tuple[Entry, str]:
        """Tell what the file is that ``entry.target`` names.

        Raises:
            UnsafeArchive: It is no file that came before.
        """
        if self._files is None or (known := self._files.get(entry.target)) is None:
            raise no_target(entry)
        size, mode, mtime, digest = _FILE.unpack(known)
        self._files[entry.path] = known
        return Entry(entry.path, "f", size, mode, mtime), digest.hex()

    def _remember(self, entry: Entry, sha256: bytes) -> None:
        if self._files is not None:
            self._files[entry.path] = _FILE.pack(entry.size, entry.mode, entry.mtime, sha256)


class _LargeFile(LargeTarget):
    """A large file that is hashed and forgotten, slice by slice."""

    def __init__(self, entry: Entry, sha256: str) -> None:
        self.entry = entry
        self._expected = sha256
        self._sha256 = hashlib.sha256()
        self._hashed = 0

    def write(self, offset: int, content: Buffer) -> None:
        """Take the next slice; after one that was damaged the rest tells nothing more.

        Raises:
            CorruptArchive: Complete, but its SHA-256 is not the expected one.
        """
        if offset != self._hashed or not content:
            return
        self._sha256.update(content)
        self._hashed += len(content)
        if self._hashed == self.entry.size and self._sha256.hexdigest() != self._expected:
            raise wrong_content(self.entry)
