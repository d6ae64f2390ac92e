"""One command, measured: wall time, processor time of its whole tree, and memory."""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_EVERY_SECONDS = 0.1
_KIBIBYTE = 1024

# The kernel counts as memory of a new program what the process had that started it, so a small
# one starts it; and waits for it, so that nothing else is in what it used.
_LAUNCHER = """
import json, os, sys, time
started = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - started
row = [os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]
os.write(int(sys.argv[1]), json.dumps(row).encode())
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one run of one command took."""

    seconds: float
    """Wall time."""
    cpu_seconds: float
    """Of the command and of everything that it started and waited for."""
    peak_process: int
    """Bytes resident in its largest process, as the kernel counts them."""
    peak_tree: int
    """Bytes of the whole tree, sampled; what processes share is counted once."""
    server_cpu_seconds: float = 0.0
    """What the endpoint used meanwhile."""

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


class CommandError(Exception):
    """A measured command failed, or took too long."""


def measure(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    timeout: float = 1200.0,
) -> tuple[Measurement, str]:
    """Run *command* in a process group of its own; return what it took and what it printed.

    Raises:
        CommandError: It did not end well, with the end of what it wrote to standard error.
    """
    reading, writing = os.pipe()
    with open(reading, "rb") as answer:  # noqa: PTH123 - a descriptor
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(writing), *command],
                env=None if environment is None else dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=[writing],
            )
        finally:
            os.close(writing)
        sampler = _Sampler(process.pid)
        sampler.start()
        expired = threading.Timer(timeout, _kill, [process.pid])
        expired.start()
        try:
            output, errors = process.communicate()
        finally:
            expired.cancel()
            _kill(process.pid)
            process.wait()
            sampler.stop()
        row = answer.read()
    status, seconds, cpu_seconds, largest = json.loads(row or b"[-9, 0, 0, 0]")
    if status:
        problem = errors.decode(errors="replace")[-2000:].strip()
        raise CommandError(f"{' '.join(command)[:500]}\nexit status {status}: {problem}")
    largest *= _KIBIBYTE
    result = Measurement(seconds, cpu_seconds, largest, max(sampler.peak, largest))
    return result, output.decode(errors="replace")


def medians(runs: Sequence[Measurement]) -> Measurement:
    """The median of each column."""
    columns = zip(*(run.as_dict().values() for run in runs), strict=True)
    middle: list[Any] = [statistics.median(column) for column in columns]
    return Measurement(*middle)


def _kill(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


class _Sampler(threading.Thread):
    """Looks at the memory of a tree of processes now and then."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._root = root
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
            self.peak = max(self.peak, sum(map(proportional, tree(self._root)[1:])))

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def tree(root: int) -> list[int]:
    """The process *root*, then all below it."""
    found = [root]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def proportional(process: int) -> int:
    """Resident bytes of one process; of a page that several have, its share."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * _KIBIBYTE
    return 0
