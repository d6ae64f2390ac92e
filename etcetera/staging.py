"""Private directories that belong to a running process, and go when it is gone."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from etcetera.errors import os_errors
from etcetera.removal import remove_tree

_OWNER = "owner.json"
_BIRTH_SECONDS = 3600
"""Age at which a directory without an owner cannot be in the making any more."""


@contextmanager
def claim(directory: Path, name: str) -> Iterator[Path]:
    """Own a new, empty and private directory below *directory* until the block ends.

    What is in it then is deleted; if that fails, or the process dies, :func:`sweep` deletes it
    later.

    Args:
        directory: Exists, and nobody else may enter it.
        name: What the new directory's name begins with.

    Raises:
        NotAllowed, NoSpace: It cannot be made.
    """
    path = directory / f"{name}.{token_hex(4)}"
    with os_errors(f"making {path}"):
        path.mkdir(mode=0o700)
    try:
        with os_errors(f"making {path}"):
            _write_owner(path / _OWNER)
        yield path
    finally:
        _discard(path)


def sweep(directory: Path) -> None:
    """Delete from *directory* what dead processes of this machine left there.

    What belongs to other machines, or to a process that cannot be told dead, stays.
    """
    # Tidying up for others must not stop anybody.
    with suppress(OSError), os.scandir(directory) as entries:
        for path in [Path(entry.path) for entry in entries]:
            if _is_abandoned(path):
                _discard(path)


def _discard(path: Path) -> None:
    """Delete a claimed directory, its owner last, so that a sweep can go on with the rest."""
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.name != _OWNER]
        for name in names:
            remove_tree(path / name)
        remove_tree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        # What was wanted is done, or has failed for a better reason.
        logging.getLogger("etcetera").warning(
            "Could not delete %s: %s (%s)", path, error.strerror, error.filename
        )


def _write_owner(path: Path) -> None:
    owner = {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid())}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(owner, file)


def _is_abandoned(path: Path) -> bool:
    try:
        owner = json.loads((path / _OWNER).read_text())
        host, pid, started = owner["host"], owner["pid"], owner["started"]
    except (OSError, ValueError, KeyError, TypeError):
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > _BIRTH_SECONDS
        return False
    return host == _host() and isinstance(pid, int) and not _is_running(pid, started)


def _host() -> str:
    """Name the space in which process numbers mean something: a machine, or a container."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    return socket.gethostname()


def _is_running(pid: int, started: object) -> bool:
    if _started(os.getpid()) is not None:
        return started is not None and _started(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _started(pid: int) -> str | None:
    """Tell when a process began, so that another one with its number is not taken for it.

    Returns:
        Boot and clock ticks since; ``None`` if it does not run, or the system does not say.

    Source: man 5 proc_pid_stat, fields 3 (state) and 22 (starttime).
    """
    try:
        # The second field, the program's name, may hold anything, but only it a parenthesis.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot} {ticks}"
