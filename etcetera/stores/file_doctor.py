"""What a directory, and the file system that it is on, let etcetera do."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from etcetera import atomic
from etcetera.errors import EtceteraError, os_errors
from etcetera.findings import RESERVED, Finding, failure, fine, problem, reporting, unknown, warning

LITTLE_SPACE = 1 << 30
"""Bytes; less of free space is worth a word."""


def look_at(directory: Path, check: str) -> tuple[list[Finding], Path | None]:
    """Look at a directory without changing anything.

    Args:
        directory: It may be missing.
        check: What it is called in what is found.

    Returns:
        What was found, and the directory, or the one in which it could be made; ``None`` if it is
        of no use.
    """
    try:
        with os_errors(f"looking at {directory}"):
            there = directory
            while not os.path.lexists(there):
                there = there.parent
            if not there.is_dir():
                what = f"{there} is not a directory"
                return [problem(check, what, "remove it, or name another directory")], None
            if not os.access(there, os.R_OK | os.X_OK):
                advice = "check who owns it and its permissions"
                return [problem(check, f"{there} cannot be read: permission denied", advice)], None
            return [_space(there, check)], there
    except EtceteraError as error:
        return [failure(check, error)], None


def is_writable(directory: Path) -> bool:
    """Whether names can be made in a directory, as far as asking tells."""
    return os.access(directory, os.W_OK | os.X_OK)


def why_not_writable(directory: Path) -> str:
    """Why no names can be made in a directory."""
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY
    return "its file system is read-only" if read_only else "permission denied"


def _space(directory: Path, check: str) -> Finding:
    free = shutil.disk_usage(directory).free
    status = os.statvfs(directory)
    if status.f_files and not status.f_favail:
        return problem(
            f"{check} space",
            f"the file system of {directory} has no room for another file, whatever its size",
            "remove files that nobody needs, or move to another file system",
        )
    text = f"{free / (1 << 30):.1f} GiB are free at {directory}"
    if free < LITTLE_SPACE:
        return warning(f"{check} space", text, "free some space before large transfers")
    return fine(f"{check} space", text)


def try_out(directory: Path, check: str, *, links: bool) -> list[Finding]:
    """Try what etcetera does to files, in a new directory that is removed again.

    Args:
        directory: Where to make the new one.
        check: What it is called in what is found.
        links: Whether names are given by hard links, as in a repository; else by renaming, as at
            home.
    """
    findings: list[Finding] = []
    with (
        reporting(findings, f"{check} writing"),
        os_errors(f"writing to {directory}"),
        tempfile.TemporaryDirectory(prefix=RESERVED, dir=directory) as made,
    ):
        tried = Path(made)
        (tried / "file").write_bytes(b"etc doctor")
        findings.append(fine(f"{check} writing", f"files can be made in {directory}"))
        findings.append(_try_lock(tried / "file", check))
        with reporting(findings, f"{check} names"), os_errors("giving files their names"):
            findings.append(_try_links(tried, check) if links else _try_names(tried, check))
        with reporting(findings, f"{check} syncing"), os_errors("writing to the disk"):
            atomic.sync(tried / "file")
            atomic.sync(tried)
            if not links:
                atomic.sync_filesystem(tried)
            findings.append(fine(f"{check} syncing", "what is written reaches the disk"))
    return findings


def _try_lock(path: Path, check: str) -> Finding:
    with path.open("rb+") as first, path.open("rb+") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return fine(f"{check} locks", "one etcetera waits for another")
        except OSError as error:
            reason = f"the file system has no locks ({error.strerror})"
        else:
            reason = "the file system gives one lock to two"
    return warning(
        f"{check} locks",
        f"{reason}: two that pull one dataset at the same time do not wait for each other",
        "let one process at a time use it, or move it to a local file system",
    )


def _try_names(tried: Path, check: str) -> Finding:
    old, new, aside = (tried / name for name in ("old", "new", "aside"))
    old.mkdir()
    new.mkdir()
    (new / "file").touch()
    atomic.replace(new, old, aside)
    if (old / "file").exists() and not (aside / "file").exists():
        return fine(f"{check} names", "a directory takes the place of another")
    return problem(
        f"{check} names",
        "one directory does not take the place of another: pulling again would lose data",
        "move it to a local file system",
    )


def _try_links(tried: Path, check: str) -> Finding:
    try:
        os.link(tried / "file", tried / "link")
        os.link(tried / "file", tried / "link")
    except FileExistsError:
        return fine(f"{check} names", "of two pushes of one name the second is refused")
    except OSError as error:
        reason = f"the file system has no hard links ({error.strerror})"
    else:
        reason = "the file system gives one name twice"
    return warning(
        f"{check} names",
        f"{reason}: two pushes of one name at the same moment may not be told apart",
        "let one person at a time push a name",
    )


def examine(directory: Path, *, write: bool) -> list[Finding]:
    """Examine the directory of a repository."""
    findings, there = look_at(directory, "repository")
    if there is None:
        return findings
    if there != directory:
        return [
            problem(
                "repository",
                f"the directory {directory} does not exist",
                "make it, mount it, or correct the url",
            )
        ]
    findings.insert(0, fine("repository", f"{directory} can be read"))
    if not is_writable(directory):
        findings.append(
            warning(
                "repository writing",
                f"{directory} cannot be written: {why_not_writable(directory)}; datasets can be "
                "pulled, not pushed",
                "ask its owner, if you want to push",
            )
        )
    elif write:
        findings += try_out(directory, "repository", links=True)
    else:
        findings.append(
            unknown(
                "repository writing",
                "locks, names and syncing were not tried",
                "etc doctor --write tries it",
            )
        )
    return findings
