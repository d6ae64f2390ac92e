"""How much room a file system has."""

import os
from pathlib import Path


def existing(path: Path) -> Path:
    """Return *path*, or the directory nearest to it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def free_at(path: Path) -> str:
    """Say how much is free at *path*; nothing if the system does not tell."""
    path = existing(path)
    try:
        status = os.statvfs(path)
    except OSError:
        return ""
    # Some file systems have no inodes to run out of.
    inodes = f" and {status.f_favail:,} inodes" if status.f_files else ""
    return f"{status.f_bavail * status.f_frsize:,} bytes{inodes} are free at {path}"
