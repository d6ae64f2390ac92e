"""The private part of the home, and what running processes own there."""

import json
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from etcetera.errors import ConfigError, os_errors
from etcetera.removal import remove_tree

PRIVATE = ".etcetera"
"""What the home keeps for itself; no dataset is called so."""

RESUME_DAYS = 14
"""How long what an interrupted pull has fetched waits for the next one."""

_TREE = "tree"
_OWNER = "owner.json"
_RELEASED = "released"
_RESUME = "resume.json"
_LEFT = "left-"
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
        with claim(self._swept(kind), name) as claimed:
            yield claimed

    @contextmanager
    def resume(self, name: str) -> Iterator["Resumable"]:
        """Own a new directory for a pull of *name*, and what earlier ones have left of it."""
        directory = self._swept("staging")
        with claim(directory, name) as claimed:
            resumable = Resumable(claimed, name)
            resumable.adopt(directory)
            yield resumable

    def _swept(self, kind: str) -> Path:
        directory = self.directory(kind)
        for left_behind in ("staging", "trash"):
            sweep(self._home / PRIVATE / left_behind)
        return directory

    def path(self, kind: str) -> Path:
        """Return where a private directory is, or would be."""
        return self._home / PRIVATE / kind

    def directory(self, kind: str) -> Path:
        """Return a private directory, made if need be."""
        directory = self.path(kind)
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


class Resumable:
    """A directory in which a pull builds a dataset, and that the next pull of it can go on with."""

    def __init__(self, path: Path, name: str) -> None:
        """Use *path*, which was just claimed; it can be gone on with even if this is killed."""
        self._path = path
        self._name = name
        self.tree = path / _TREE
        """Where the dataset is built."""
        with os_errors(f"making {self.tree}"):
            self.tree.mkdir()
            _write_json(path / _RESUME, {"name": name})

    @property
    def left(self) -> list[Path]:
        """Trees that earlier pulls have left, whatever is in them."""
        return sorted(self._path.glob(f"{_LEFT}*/{_TREE}"))

    def adopt(self, staging: Path) -> None:
        """Take what pulls of the same dataset have left in *staging*, if nobody works on it."""
        for path in leftovers(staging):
            if _resumed_name(path) == self._name:
                with suppress(OSError):  # another pull was faster
                    self._take(path)

    def _take(self, path: Path) -> None:
        left = self._path / f"{_LEFT}{path.name}"
        path.rename(left)
        for older in left.glob(f"{_LEFT}*"):
            older.rename(self._path / older.name)

    def keep(self) -> None:
        """Leave everything to the next pull instead of deleting it."""
        with os_errors(f"keeping {self._path}"):
            (self._path / _RESUME).touch()
            (self._path / _OWNER).unlink()
            _write_json(self._path / _OWNER, {_RELEASED: True})


def leftovers(staging: Path) -> Iterator[Path]:
    """Yield what pulls have left that ended early, for the next one to go on with."""
    for path in abandoned(staging):
        if _resumed_name(path):
            yield path


@contextmanager
def claim(directory: Path, name: str) -> Iterator[Path]:
    """Own a new, empty and private directory below *directory* until the block ends.

    What is in it then is deleted, unless it was released; if that fails, or the process dies,
    :func:`sweep` deletes it later.

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
        if not _owner(path).get(_RELEASED):
            discard(path)


def sweep(directory: Path) -> None:
    """Delete from *directory* what dead processes of this machine left there.

    What belongs to other machines, or to a process that cannot be told dead, stays; what can be
    gone on with, for :data:`RESUME_DAYS`.
    """
    for path in abandoned(directory):
        if not can_be_resumed(path):
            discard(path)


def abandoned(directory: Path) -> list[Path]:
    """What dead processes of this machine left in *directory*, and pulls for the next one."""
    # Tidying up for others must not stop anybody; where a link leads, nothing is ours.
    with suppress(OSError):
        if not directory.parent.is_symlink() and stat.S_ISDIR(directory.lstat().st_mode):
            with os.scandir(directory) as entries:
                found = [Path(one.path) for one in entries if one.is_dir(follow_symlinks=False)]
            return [path for path in found if _is_abandoned(path)]
    return []


def can_be_resumed(path: Path) -> bool:
    """Tell whether the next pull may go on with what an earlier one left in *path*.

    Without a tree it was installed, and only tidying up was left to do.
    """
    with suppress(OSError):
        age = time.time() - (path / _RESUME).lstat().st_mtime
        young = age < RESUME_DAYS * 86400
        return _resumed_name(path) is not None and young and (path / _TREE).is_dir()
    return False


def discard(path: Path) -> None:
    """Delete a claimed directory, its owner last, so that a sweep can go on with the rest."""
    try:
        if not path.is_symlink():  # of which only itself is deleted
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
    pid = os.getpid()
    _write_json(path, {"host": _host(), "pid": pid, "started": _started(pid)})


def _write_json(path: Path, value: dict[str, object]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file)


def _read_json(path: Path) -> dict[str, object]:
    """What a file holds; nothing if it is not there or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _owner(path: Path) -> dict[str, object]:
    return _read_json(path / _OWNER)


def _resumed_name(path: Path) -> str | None:
    """The dataset that can be gone on with in *path*, ``None`` if there is none."""
    name = _read_json(path / _RESUME).get("name")
    return name if isinstance(name, str) else None


def _is_abandoned(path: Path) -> bool:
    owner = _owner(path)
    if owner.get(_RELEASED):
        return True
    try:
        host, pid, started = owner["host"], owner["pid"], owner["started"]
    except KeyError:
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
