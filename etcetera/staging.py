"""The private part of the home, and what running processes own there."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from etcetera.errors import ConfigError, os_errors
from etcetera.removal import remove_tree

PRIVATE = ".etcetera"
"""What the home keeps for itself; no dataset is called so."""

_OWNER = "owner.json"
_BIRTH_SECONDS = 3600
"""Age at which a directory without an owner cannot be in the making any more."""


class Private:
    """The directory in the home that holds what is no dataset."""

    def __init__(self, home: Path) -> None:
        """Use the one in *home*; nothing is made yet."""
        self._home = home

    @contextmanager
    def claim(self, kind: str, name: str) -> Iterator[Path]:
        """Own a new directory below a private one; clean up first after those who died."""
        directory = self.directory(kind)
        for left_behind in ("staging", "trash"):
            sweep(self._home / PRIVATE / left_behind)
        with claim(directory, name) as claimed:
            yield claimed

    def directory(self, kind: str) -> Path:
        """Return a private directory, made if need be."""
        directory = self._home / PRIVATE / kind
        with os_errors(f"making {directory}"):
            try:
                self._home.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise no_directory(self._home) from error
            for path in (directory.parent, directory):
                try:
                    path.mkdir(mode=0o700)
                except FileExistsError as error:
                    # A link could lead to another file system, or to other people.
                    if path.is_symlink() or not path.is_dir():
                        raise ConfigError(
                            f"{path} is not the directory that etcetera needs: remove it"
                        ) from error
        return directory


def no_directory(home: Path) -> ConfigError:
    """The error that says that *home* is something else than a directory."""
    return ConfigError(
        f"The home {home} is not a directory: remove what is there, or set another home in the "
        "configuration file, with ETC_HOME or with --home"
    )


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
    path = directory / f"{name}.{os.urandom(4).hex()}"
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
