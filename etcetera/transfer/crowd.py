"""Very many small files of an archive without an index, written by worker processes.

How many there are shows only while they come. So processes are started beside the unpacking once
there were enough, and are given batches of files that have passed every check of the tar stream.
"""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from etcetera.transfer.codec import Buffer
from etcetera.transfer.flow import crew
from etcetera.transfer.options import KiB, TransferOptions
from etcetera.transfer.tally import Plain, Tally
from etcetera.transfer.tar import BLOCK, Entry
from etcetera.transfer.workers import Workers, workers_beside

_BATCH = 512 * KiB
"""Bytes of files that a process gets at once."""


@dataclass(slots=True)
class _Batch:
    """Files for one process, and what has to wait for them."""

    entries: list[Entry] = field(default_factory=list)
    contents: list[Buffer] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    """Of all that is there once the batch is done."""
    links: list[Callable[[], None]] = field(default_factory=list)
    """Make hard links to them."""
    size: int = 0
    written: "Future[Plain]" = field(default_factory=Future)


class Crowd:
    """Takes small files from one thread, as soon as processes are ready for them."""

    def __init__(self, tree: Path, options: TransferOptions) -> None:
        """Begin with nobody.

        Args:
            tree: Where the files go.
            options: How many processes there may be.
        """
        self._tree = tree
        self._options = options
        self._stack = ExitStack()
        self._files = 0
        self._bytes = 0
        self._starting: Future[Workers | None] | None = None
        self._processes: Workers | None = None
        self._pool: ThreadPoolExecutor
        self._window = 0
        self._batch = _Batch()
        self._pending: deque[_Batch] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes, once they have written what they are at."""
        for batch in self._pending:
            batch.written.cancel()
        self._stack.close()

    def take(self, entry: Entry, content: Buffer, tally: Tally) -> bool:
        """Write a file, now or later, unless there are no processes for it.

        Args:
            entry: The file.
            content: All of it.
            tally: Gets what has been written meanwhile.

        Returns:
            Whether it is taken.
        """
        if self._processes is None and not self._is_ready(entry):
            return False
        batch = self._batch
        batch.entries.append(entry)
        batch.contents.append(content)
        batch.paths.add(entry.path)
        batch.size += BLOCK + len(content)
        if batch.size >= _BATCH:
            self._send(tally)
        return True

    def link(self, entry: Entry, make: Callable[[], None], tally: Tally) -> None:
        """Make a hard link: now, or once the file that it is a link to is written.

        Args:
            entry: The link.
            make: Makes it, in this thread.
            tally: Gets what has been written meanwhile.
        """
        while self._pending and self._pending[0].written.done():
            self._collect(tally)
        for batch in (self._batch, *self._pending):
            if entry.target in batch.paths:
                break
        else:
            make()
            return
        batch.paths.add(entry.path)
        batch.links.append(make)
        batch.size += BLOCK
        if batch is self._batch and batch.size >= _BATCH:
            self._send(tally)
        elif batch.size >= 2 * _BATCH:  # Links must not pile up.
            self.wait(tally)

    def wait(self, tally: Tally) -> None:
        """Return once everything taken is written, and counted in *tally*."""
        if self._batch.entries:
            self._send(tally)
        while self._pending:
            self._collect(tally)

    def _is_ready(self, entry: Entry) -> bool:
        if self._starting is not None:
            if self._starting.done():
                self._processes = self._starting.result()
            return self._processes is not None
        self._files += 1
        self._bytes += entry.size
        chosen = crew(self._options, self._files, self._bytes, more=True)
        if chosen.processes:
            count = chosen.threads
            self._window = 2 * count
            beside = workers_beside(count, "unpack", os.fsencode(self._tree))
            self._starting = self._stack.enter_context(beside)
            self._pool = self._stack.enter_context(ThreadPoolExecutor(count, "etcetera-write"))
        return False

    def _send(self, tally: Tally) -> None:
        assert self._processes is not None  # noqa: S101 - for the type checker
        if len(self._pending) == self._window:
            self._collect(tally)
        batch, self._batch = self._batch, _Batch()
        write = self._processes.write
        batch.written = self._pool.submit(write, batch.entries, batch.contents)
        batch.entries, batch.contents = [], []  # Not kept longer than it takes to write them.
        self._pending.append(batch)

    def _collect(self, tally: Tally) -> None:
        """Wait for the oldest batch."""
        batch = self._pending.popleft()
        tally.merge(batch.written.result())
        for make in batch.links:
            make()
