"""Worker processes, seen from the one that has them.

Small files are the interpreter's worst case: nearly all the time goes into Python, of which one
process runs on one processor. Several processes share the work, each fed by a thread of this one.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import etcetera
from etcetera import errors
from etcetera.errors import StoreError
from etcetera.transfer.codec import Buffer, Frame
from etcetera.transfer.extract import Extractor
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.tally import Plain
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import FrameJob
from etcetera.transfer.worker import receive, send

_END_SECONDS = 5.0


class _Process:
    """One worker process and the pipe that its replies come through."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: It cannot be started.
        """
        if not sys.executable:
            raise FileNotFoundError("no Python to run")
        replies, write = os.pipe()
        # The worker takes settings from the environment only if this process does; -P keeps the
        # current directory, where anything may lie, out of its module path.
        flags = ["-I"] if sys.flags.isolated else ["-E"] if sys.flags.ignore_environment else []
        command = [sys.executable, *flags, "-P", "-m", "etcetera.transfer.worker", str(write)]
        package = str(Path(etcetera.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[write],
                env={**os.environ, "PYTHONPATH": path},
                # Ctrl-C is the parent's to handle.
                start_new_session=True,
            )
        except BaseException:
            os.close(replies)
            raise
        finally:
            os.close(write)
        self._replies = os.fdopen(replies, "rb")

    def ask(self, *request: Any, data: Buffer = b"") -> tuple[Any, ...]:
        """Send a request, with *data* as its last argument, and wait for what it gives.

        Raises:
            EtceteraError: What the worker raised, or StoreError if it has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - for the type checker
        reply: tuple[Any, ...] | None = None
        with suppress(BrokenPipeError):
            send(self._process.stdin, request, data)
            reply = receive(self._replies)
        if reply is None:
            raise StoreError(
                f"A worker process ended unexpectedly, with status {self._process.wait()}; "
                "if memory is short, try again with threads = 1"
            )
        worked, *result = reply
        if not worked:
            name, message = result
            error: type[errors.EtceteraError] = getattr(errors, name)
            raise error(message)
        return tuple(result)

    def end(self) -> None:
        """Let it end, and wait until it has."""
        for stream in (self._process.stdin, self._replies):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Workers:
    """Some worker processes that do the same; each is used by one thread at a time."""

    def __init__(self, processes: list[_Process]) -> None:
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        for process in processes:
            self._idle.put(process)

    def pack(self, entries: list[Entry], level: int) -> tuple[Frame, list[PackedMember]]:
        """Make a frame of whole members, see :meth:`etcetera.transfer.pack.Group.pack`."""
        frame, members = self._call("frame", [tuple(entry) for entry in entries], level)
        return Frame(*frame), [
            PackedMember(entry, *member) for entry, member in zip(entries, members, strict=True)
        ]

    def have_contents(self, files: list[tuple[Entry, str]]) -> bool:
        """Compare contents, see :func:`etcetera.transfer.pack.have_contents`."""
        (same,) = self._call("have", [(tuple(entry), sha256) for entry, sha256 in files])
        return bool(same)

    def unpack(self, data: Buffer, offset: int, jobs: list[FrameJob], extractor: Extractor) -> int:
        """Write files, see :func:`etcetera.transfer.unpack.unpack_frames`."""
        plain = [
            (tuple(job.place), [(tuple(one.entry), *one[1:]) for one in job.members])
            for job in jobs
        ]
        size, links, directories = self._call("frames", offset, plain, data=data)
        for entry in links:
            extractor.add_link(Entry(*entry))
        for entry in directories:
            extractor.add_directory(Entry(*entry))
        written: int = size
        return written

    def write(self, entries: list[Entry], contents: list[Buffer]) -> Plain:
        """Write whole files, see :func:`etcetera.transfer.unpack.write_file`."""
        plain_entries = [tuple(entry) for entry in entries]
        (plain,) = self._call("files", plain_entries, data=b"".join(contents))
        result: Plain = plain
        return result

    def _call(self, *request: Any, data: Buffer = b"") -> tuple[Any, ...]:
        process = self._idle.get()
        try:
            return process.ask(*request, data=data)
        finally:
            self._idle.put(process)


@contextmanager
def workers(count: int, *opening: Any) -> Iterator[Workers | None]:
    """Start *count* processes and end them when the block ends, however it ends.

    Args:
        count: How many; with 0 nothing happens.
        *opening: The first request, which each of them gets.

    Yields:
        ``None`` without any: also where none can be started, as in a program that embeds Python.
    """
    processes: list[_Process] = []
    ready = count > 0
    try:
        try:
            for _ in range(count):
                processes.append(_Process())  # noqa: PERF401 - those started are ended, too
            for process in processes:
                process.ask(*opening)
        except (OSError, StoreError):
            ready = False
        yield Workers(processes) if ready else None
    finally:
        for process in processes:
            process.end()


@contextmanager
def workers_beside(count: int, *opening: Any) -> Iterator[Future[Workers | None]]:
    """The same as :func:`workers`, but started by a thread while the block runs already."""
    with ExitStack() as stack, ThreadPoolExecutor(1, "etcetera-start") as pool:
        yield pool.submit(stack.enter_context, workers(count, *opening))
