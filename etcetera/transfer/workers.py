"""Worker processes, seen from the one that has them.

Small files are the interpreter's worst case: nearly all the time goes into Python, of which one
process runs on one processor. Several processes share the work, each fed by a thread of this one.
"""

import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import etcetera
from etcetera import errors
from etcetera.errors import StoreError
from etcetera.transfer.codec import Buffer, Frame
from etcetera.transfer.extract import Extractor
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import FrameJob
from etcetera.transfer.worker import receive, send

_END_SECONDS = 5.0


class Workers:
    """Some worker processes that do the same; each is used by one thread at a time."""

    def __init__(self, processes: list["subprocess.Popen[bytes]"]) -> None:
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        for process in processes:
            self._idle.put(process)

    def pack(self, entries: list[Entry]) -> tuple[Frame, list[PackedMember]]:
        """Make a frame of whole members, see :meth:`etcetera.transfer.pack.Group.pack`."""
        frame, members = self._call("frame", [tuple(entry) for entry in entries])
        return Frame(*frame), [
            PackedMember(entry, *member) for entry, member in zip(entries, members, strict=True)
        ]

    def unpack(self, data: Buffer, offset: int, jobs: list[FrameJob], extractor: Extractor) -> int:
        """Write files, see :func:`etcetera.transfer.unpack.unpack_frames`."""
        plain = [
            (tuple(job.place), [(tuple(one.entry), *one[1:]) for one in job.members])
            for job in jobs
        ]
        size, links, directories = self._call("frames", data, offset, plain)
        for entry in links:
            extractor.add_link(Entry(*entry))
        for entry in directories:
            extractor.add_directory(Entry(*entry))
        written: int = size
        return written

    def _call(self, *request: Any) -> tuple[Any, ...]:
        process = self._idle.get()
        try:
            return _ask(process, *request)
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
    processes: list[subprocess.Popen[bytes]] = []
    ready = count > 0
    try:
        try:
            processes.extend(_start() for _ in range(count))
            for process in processes:
                _ask(process, *opening)
        except (OSError, StoreError):
            ready = False
        yield Workers(processes) if ready else None
    finally:
        for process in processes:
            _end(process)


def _start() -> "subprocess.Popen[bytes]":
    # -P keeps the current directory, where anything may lie, out of the module path.
    command = [sys.executable, "-P", "-m", "etcetera.transfer.worker"]
    package = str(Path(etcetera.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(  # noqa: S603 - this very interpreter
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C is the parent's to handle.
        start_new_session=True,
    )


def _ask(process: "subprocess.Popen[bytes]", *request: Any) -> tuple[Any, ...]:
    assert process.stdin is not None  # noqa: S101 - for the type checker
    assert process.stdout is not None  # noqa: S101
    reply: tuple[Any, ...] | None = None
    with suppress(BrokenPipeError):
        send(process.stdin, request)
        reply = receive(process.stdout)
    if reply is None:
        raise StoreError(
            f"A worker process ended unexpectedly, with status {process.wait()}; "
            "if memory is short, try again with threads = 1"
        )
    worked, *result = reply
    if not worked:
        name, message = result
        error: type[errors.EtceteraError] = getattr(errors, name)
        raise error(message)
    return tuple(result)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
