"""Runs a command once to see how it changes the file system, then again with a fault at each step.

strace counts calls for each thread, so a step is told apart by the path it names as well; names
made at random are the same each time. Needs the right to trace one's own children.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

KILL = "kill"
"""A fault; the others are names of errors of the system."""
ERRORS = ("ENOSPC", "EIO", "EDQUOT", "EROFS", "EMFILE", "EINTR")

_LAUNCHER = """
import os, random, secrets, sys

numbers = random.Random(0)
os.urandom = numbers.randbytes
secrets.token_hex = lambda count: numbers.randbytes(count).hex()

import etcetera.atomic
from etcetera.cli import main

if {plain_rename}:
    etcetera.atomic._renameat2 = lambda *arguments: False
if {unsynced}:
    etcetera.atomic.sync_filesystem = lambda path: None
sys.exit(main(sys.argv[1:]))
"""
_BY_PATH = (
    "openat", "mkdir", "mkdirat", "unlink", "unlinkat", "rmdir", "rename", "renameat", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "utimensat", "chmod", "fchmodat",
)  # fmt: skip
_BY_DESCRIPTOR = (
    "write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "fsync", "fdatasync",
    "syncfs", "fchmod", "close", "utimensat",
)  # fmt: skip
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_DESCRIPTOR = re.compile(r"^\d+<([^>]*)>")
_FOLDER = re.compile(r"\d+<([^>]*)>|AT_FDCWD<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_UNSTABLE = re.compile(r"#\d+|/\d+\.(json|index)$")
"""Inodes in names, which differ from run to run."""


@dataclass(frozen=True)
class Point:
    """One call of a command that changes something, or opens it."""

    call: str
    path: str
    """As the call names it, ``{site}`` for the directory of the site; empty if that differs."""
    number: int
    """Among the same calls of its thread with this path."""
    changes: bool
    """Whether it changed anything that a crash could leave behind."""

    def __str__(self) -> str:
        return f"{self.call} {self.path or '(any)'} {self.number}"


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    status: int
    out: str
    error: str
    hit: bool = True
    """Whether the fault was reached."""

    @property
    def killed(self) -> bool:
        """Whether it was killed."""
        return self.status in (-9, 137)


@dataclass(frozen=True)
class Command:
    """A command line of etc in the surroundings it needs."""

    arguments: Sequence[str]
    site: Path
    """The directory that holds all it may change."""
    environment: Mapping[str, str]
    unsynced: bool = False
    """Whether it forgets to wait for the disk, to see that a test would tell."""
    plain_rename: bool = False
    """Whether the system knows nothing but the oldest way to rename."""

    def run(self) -> Ending:
        """Run it without a fault, as anybody would."""
        return _run([sys.executable, "-m", "etcetera", *self.arguments], self)

    def points(self, log: Path) -> list[Point]:
        """Run it, and return every call that changes its home or its repository, in order."""
        calls = ",".join(sorted({*_BY_PATH, *_BY_DESCRIPTOR}))
        ending = self._traced(log, calls)
        assert ending.status == 0, ending
        return _points(log.read_text(errors="replace"), str(self.site))

    def fail(self, log: Path, point: Point, fault: str) -> Ending:
        """Run it with *fault* when it comes to *point*."""
        effect = "signal=SIGKILL" if fault == KILL else f"error={fault}"
        more = ["-e", f"inject={point.call}:{effect}:when={point.number}"]
        if point.path:
            more += ["-P", point.path.replace("{site}", str(self.site))]
        ending = self._traced(log, point.call, *more)
        written = log.read_text(errors="replace")
        hit = ending.killed if fault == KILL else "(INJECTED)" in written
        return replace(ending, hit=hit)

    def _traced(self, log: Path, calls: str, *more: str) -> Ending:
        # A signal cannot be sent where only a filter of the kernel stops.
        quick = [] if any("signal=" in one for one in more) else ["--seccomp-bpf"]
        strace = ["strace", "-f", "-qq", *quick, "-y", "-o", str(log), "-e", f"trace={calls}"]
        launcher = _LAUNCHER.format(plain_rename=self.plain_rename, unsynced=self.unsynced)
        python = [sys.executable, "-c", launcher, *self.arguments]
        return _run([*strace, *more, *python], self)


def _run(command: Sequence[str], about: Command) -> Ending:
    done = subprocess.run(
        command,
        cwd=about.site,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **about.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ending(done.returncode, done.stdout, done.stderr)


def _points(log: str, site: str) -> list[Point]:
    found: dict[Point, None] = {}
    everywhere: Counter[tuple[str, str]] = Counter()
    by_path: Counter[tuple[str, str, str]] = Counter()
    written: set[str] = set()
    for line in log.splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        thread, call, arguments = match.groups()
        everywhere[thread, call] += 1
        named = _named(call, arguments)
        if named is None:
            continue
        path, place = named
        by_path[thread, call, path] += 1
        opens = call == "openat"
        if opens and re.search("O_CREAT|O_TMPFILE", arguments):
            written.add(f"{place}/{path}".rpartition("/")[2])
        if not place.startswith((f"{site}/home", f"{site}/repository")):
            continue
        if call == "close" and path.rpartition("/")[2] not in written:
            continue
        failed = " = -1 " in arguments
        changes = not failed and call != "close" and (not opens or "O_CREAT" in arguments)
        if _UNSTABLE.search(path):
            if call in ("close", "openat"):  # too many others are among them
                continue
            point = Point(call, "", everywhere[thread, call], changes)
        else:
            stable = path.replace(site, "{site}")
            point = Point(call, stable, by_path[thread, call, path], changes)
        found[point] = None
    return list(found)


def _named(call: str, arguments: str) -> tuple[str, str] | None:
    """Return the path that a call names, and where that is."""
    if call in _BY_PATH:
        texts = _TEXT.findall(arguments)
        if texts:
            # The first text of a symbolic link is where it leads.
            path = texts[-1] if call.startswith("symlink") else texts[0]
            folders = _FOLDER.findall(arguments)
            place = path if path.startswith("/") else "".join(folders[0]) if folders else ""
            return path, place
    descriptor = _DESCRIPTOR.match(arguments)
    return (descriptor[1], descriptor[1]) if descriptor else None
