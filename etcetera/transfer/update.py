"""Update: what of an older archive stays as it is in the archive of a new version.

A frame stays if all its members are in the dataset with the same header and content. Such frames
are copied inside the store, in runs that are long enough for a part.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from etcetera.errors import (
    ArchiveError,
    CorruptArchive,
    ExpiredCredentials,
    NoCredentials,
    NotAllowed,
)
from etcetera.stores import CannotCopy, ObjectInfo, Store
from etcetera.transfer.archive import Index, Segments, open_archive
from etcetera.transfer.codec import GZIP_HEADER
from etcetera.transfer.contents import Contents, begins
from etcetera.transfer.digest import DatasetDigest
from etcetera.transfer.flow import crew, in_thread, in_threads, ordered
from etcetera.transfer.index import FramePlace, MemberPlace, Segment, SegmentPlace
from etcetera.transfer.options import MiB, TransferOptions
from etcetera.transfer.pack import have_contents, open_root
from etcetera.transfer.parts import PartPlan
from etcetera.transfer.scan import Scan, Totals
from etcetera.transfer.tar import Entry
from etcetera.transfer.workers import Workers, workers

_MOST_INDEX = 64 * MiB
"""Bytes of an older index that are held, and :data:`_INDEX_ROW` more for each entry of ours."""
_INDEX_ROW = 128
_SHA256 = 32


class Run(NamedTuple):
    """Consecutive frames of the older archive that stay: where they are in the object.

    With the very first of them goes the gzip header.
    """

    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What stays of an older archive."""

    source: ObjectInfo
    """The older archive."""
    segments: list[tuple[SegmentPlace, bytes]]
    """Of its index."""
    runs: list[Run]
    """At least one, in order, each of at least *least* bytes."""
    least: int
    """Bytes of every part but the last."""
    kept: bytearray
    """For each entry of the scan, by its number, whether it is in a run."""
    kept_size: int
    """Tar bytes of the runs."""
    changed: Totals
    """The files that are in no run."""

    @property
    def copied(self) -> int:
        """Bytes that are not sent."""
        return sum(run.stop - run.start for run in self.runs)


async def plan_update(
    store: Store,
    key: str,
    scanned: Scan,
    plan: PartPlan,
    options: TransferOptions,
    is_checked: Callable[[str], bool],
) -> Update | None:
    """Compare a dataset with an older archive.

    Args:
        store: Where the older archive is, and the new one will be.
        key: Of the older one.
        scanned: The dataset.
        plan: Of an upload of everything.
        options: Who compares.
        is_checked: Blocking; tells whether the version with this ETag is known to hold what its
            index says. What is copied is not read.

    Returns:
        ``None`` if there is no such object.

    Raises:
        CannotCopy: Everything has to be sent, and why.
        SourceChanged: A file changed after the scan.
        RemoteChanged: The older archive was replaced while it was read.
    """
    if reason := await store.why_no_copies():
        raise CannotCopy(reason)
    limits = store.limits
    # So that there are never more parts than the store allows, whatever is copied and sent.
    least = max(limits.min_part, -(-3 * plan.bound // limits.max_parts))
    if least > limits.max_part // 4:
        raise CannotCopy("it is too large for parts of different length")
    try:
        async with store.open(key) as remote:
            if remote is None:
                return None
            if reason := await in_thread(_why_useless, remote.info, plan, is_checked):
                raise CannotCopy(reason)
            index = (await open_archive(remote))[1]
            if index is None:
                raise CannotCopy("the older archive has no index, or one of another version")
            if index.length > _MOST_INDEX + _INDEX_ROW * scanned.entries_count:
                raise CannotCopy("the older archive holds far more")
            update = await _compare(index, scanned, least, options)
    except ArchiveError as error:
        raise CannotCopy(f"the older archive is of no use ({error})") from error
    except NotAllowed as error:
        if isinstance(error, NoCredentials | ExpiredCredentials):
            raise
        raise CannotCopy(f"the older archive cannot be read ({error})") from error
    if update.copied <= plan.part_size:
        raise CannotCopy("too little of the older archive has the same files with the same times")
    return update


def _why_useless(info: ObjectInfo, plan: PartPlan, is_checked: Callable[[str], bool]) -> str | None:
    if not info.etag:
        return "the store does not tell versions of an archive apart"
    if info.size <= plan.part_size:
        return "the older archive is small"
    if not is_checked(info.etag):
        return (
            "nobody here has pushed, pulled or verified this version of the older archive: "
            "etc verify -r does"
        )
    return None


async def _compare(index: Index, scanned: Scan, least: int, options: TransferOptions) -> Update:
    stop = threading.Event()
    segments: list[tuple[SegmentPlace, bytes]] = []
    chosen = crew(options, scanned.total.files, scanned.total.bytes)
    count = chosen.threads if chosen.processes else 0
    async with (
        in_threads(workers(count, "pack", os.fsencode(scanned.root))) as processes,
        aclosing(index.segment_frames()) as frames,
    ):
        comparison = _Comparison(index, scanned, least, chosen.threads, processes, stop)
        async for place, frame in frames:
            segments.append((place, bytes(frame)))
            await in_thread(comparison.take, *segments[-1], on_cancel=stop.set)
        await in_thread(comparison.finish)
    return Update(
        source=index.archive.info,
        segments=segments,
        runs=comparison.runs,
        least=least,
        kept=comparison.kept,
        kept_size=comparison.kept_size,
        changed=comparison.changed,
    )


class _Candidate(NamedTuple):
    """A frame that may stay."""

    place: FramePlace
    numbers: list[int]
    """Of the entries that begin in it."""
    files: list[tuple[Entry, str]] | None
    """What has to be looked into; ``None`` if something differs already."""
    begins: bool
    """Whether it is no further slice of the file before."""


class _Comparison:
    """Looks at the frames of an archive in order, beside a dataset; blocking."""

    def __init__(
        self,
        index: Index,
        scanned: Scan,
        least: int,
        threads: int,
        processes: Workers | None,
        stop: threading.Event,
    ) -> None:
        self.runs: list[Run] = []
        self.kept = bytearray(scanned.entries_count)
        self.kept_size = 0
        self.changed = Totals()
        self._scan = scanned
        self._least = least
        self._threads = threads
        self._processes = processes
        self._stop = stop
        self._segments = Segments(index.root)
        self._contents = Contents()
        self._stays = False
        self._run: list[FramePlace] = []  # its first and its last frame
        self._run_size = 0
        self._pending: list[int] = []  # entries of a run that is still short

    def take(self, place: SegmentPlace, frame: bytes) -> None:
        """Look at the next segment.

        Raises:
            CorruptArchive: It does not fit the archive.
            SourceChanged: A file changed after the scan.
        """
        segment = self._segments.parse(frame, place)
        root = open_root(self._scan.root)
        try:
            looked_into = ordered(
                partial(self._look_into, root),
                self._candidates(segment),
                threads=self._threads,
                window=2 * self._threads + 4,
            )
            with closing(looked_into):
                for candidate, stays in looked_into:
                    if self._stop.is_set():
                        return
                    self._add(candidate, stays)
        finally:
            os.close(root)

    def finish(self) -> None:
        """End the last run, and count what is in none.

        Raises:
            CorruptArchive: The index ends too early.
        """
        self._segments.check_end()
        self._end_run()
        for number, entry in self._scan.numbered():
            if entry.kind == "f" and not self.kept[number]:
                self.changed.add(entry.size)

    def _candidates(self, segment: Segment) -> Iterator[_Candidate]:
        for frame, held in self._contents.of(segment):
            if begins(frame, held):
                yield self._look_at(frame, held)
            else:
                yield _Candidate(frame, [], None, begins=False)

    def _look_at(self, frame: FramePlace, held: list[MemberPlace]) -> _Candidate:
        numbers: list[int] = []
        files: list[tuple[Entry, str]] = []
        for member in held:
            found = self._scan.find(member.entry.path)
            if found is None or not _same_header(found[1], member.entry):
                return _Candidate(frame, [], None, begins=True)
            number, entry = found
            numbers.append(number)
            if entry.kind == "f":
                files.append((entry, member.sha256))
        return _Candidate(frame, numbers, files, begins=True)

    def _look_into(self, root: int, candidate: _Candidate) -> bool:
        files = candidate.files
        if files is None:
            return False
        if self._processes is not None and len(files) > 1:  # one alone may take long
            return self._processes.have_contents(files)
        return have_contents(root, files, self._stop)

    def _add(self, candidate: _Candidate, stays: bool) -> None:
        if candidate.begins:
            self._stays = stays
        if not self._stays:
            self._end_run()
            return
        for number in candidate.numbers:
            if self.kept[number]:
                raise CorruptArchive("archive is corrupt: a path is in it twice")
            self.kept[number] = True
        self._run = [*self._run[:1], candidate.place]
        self._run_size += candidate.place.size
        if self._run_length() < self._least:
            self._pending += candidate.numbers
        else:
            self._pending.clear()

    def _run_length(self) -> int:
        if not self._run:
            return 0
        return self._run[-1].offset + self._run[-1].length - self._run[0].offset

    def _end_run(self) -> None:
        length = self._run_length()
        if length >= self._least:
            start = self._run[0].offset
            # The gzip header is the same in every archive.
            first = 0 if start == len(GZIP_HEADER) else start
            self.runs.append(Run(first, start + length))
            self.kept_size += self._run_size
        for number in self._pending:
            self.kept[number] = False
        self._run, self._run_size = [], 0
        self._pending.clear()


def _same_header(one: Entry, other: Entry) -> bool:
    """Whether two entries of one path have the same header, as far as it matters.

    A directory keeps the time that it has in the older archive: nobody looks at it, and with each
    file that comes or goes the frame of its directory would have to be sent as well.
    """
    _, kind, size, mode, mtime, target, _ = one
    return (kind, size, mode, target) == (other.kind, other.size, other.mode, other.target) and (
        mtime == other.mtime or kind == "d"
    )


class ScanDigest:
    """Makes the digest of what was scanned, from its entries in any order."""

    def __init__(self, scanned: Scan) -> None:
        self._scan = scanned
        self._added = bytearray(scanned.entries_count)
        self._contents = bytearray(_SHA256 * scanned.entries_count)

    def add_entry(self, entry: Entry, sha256: str) -> None:
        """Add one; *sha256* is that of a file, hexadecimal.

        Raises:
            CorruptArchive: It was not scanned, or was added before.
        """
        found = self._scan.find(entry.path)
        if found is None or self._added[found[0]]:
            raise CorruptArchive(f"the new archive would hold {entry.path!r} twice, or by mistake")
        number = found[0]
        self._added[number] = True
        if entry.kind == "f":
            self._contents[_SHA256 * number : _SHA256 * (number + 1)] = bytes.fromhex(sha256)

    def value(self) -> str:
        """The digest, see :class:`DatasetDigest`.

        Raises:
            CorruptArchive: Something that was scanned was not added.
        """
        digest = DatasetDigest()
        for number, entry in self._scan.numbered():
            if not self._added[number]:
                raise CorruptArchive(f"the new archive would lack {entry.path!r}")
            content = self._contents[_SHA256 * number : _SHA256 * (number + 1)]
            digest.add_entry(entry, content.hex() if entry.kind == "f" else "")
        return digest.value()
