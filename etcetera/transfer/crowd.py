"""Very many small files of an archive without an index, written by worker processes.

How many there are shows only while they come. So processes are started beside the unpacking once
there were enough, and are given batches of files that have passed every check of the tar stream.
"""

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
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
        self._entries: list[Entry] = []
        self._contents: list[Buffer] = []
        self._size = 0
        self._window = 0
        self._pending: deque[Future[Plain]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes, once they have written what they are at."""
        for future in self._pending:
            future.cancel()
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
        self._entries.append(entry)
        self._contents.append(content)
        self._size += BLOCK + len(content)
        if self._size >= _BATCH:
            self._send(tally)
        return True

    def wait(self, tally: Tally) -> None:
        """Return once everything taken is written, and counted in *tally*."""
        if self._entries:
            self._send(tally)
        while self._pending:
            tally.merge(self._pending.popleft().result())

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
            tally.merge(self._pending.popleft().result())
        write = self._processes.write
        self._pending.append(self._pool.submit(write, self._entries, self._contents))
        self._entries, self._contents, self._size = [], [], 0
