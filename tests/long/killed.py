"""Runs commands, each in a child of its own that is killed at its n-th change to a disk.

A line of JSON comes for each: function, arguments, repository, home and n; the exit status of the
child is printed, negative if a signal has ended it.
"""

import asyncio
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import etcetera as etc
from etcetera import api, atomic
from etcetera.stores import file  # noqa: F401 - so that no child has to import it
from tests.archives import small

_CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.utime",
}  # fmt: skip
_left = 0


def _count() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if _left > 0 and (writes or event in _CHANGES):
        _count()


def _ignore(path: Path) -> None:
    """Do nothing."""


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    _count()
    try:
        return _original(source, target, flag)
    finally:
        _count()


_original = atomic._renameat2


def _run(function: str, arguments: dict[str, Any], url: str, home: str, step: int) -> None:
    """Run one command in this process, which ends."""
    global _left
    config = etc.Config(url, home)
    config.transfer = small(threads=1)
    sys.addaudithook(_watch)
    atomic._renameat2 = _renameat2
    # What outlasts a power loss is tested elsewhere.
    setattr(atomic, "sync", _ignore)  # noqa: B010
    setattr(atomic, "sync_filesystem", _ignore)  # noqa: B010
    _left = step
    status = 0
    try:
        asyncio.run(getattr(etc, f"a{function}")(**arguments, config=config))
    except etc.EtceteraError:
        status = 1
    os._exit(status)


def main() -> None:
    """Do what the standard input says."""
    assert api
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _run(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
