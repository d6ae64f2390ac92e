"""Locks among tasks, threads and processes."""

import errno
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread

from etcetera.errors import EtceteraError, os_errors

_POLL_SECONDS = 0.1
# A file system without locks: NFS mounted "nolock", some in user space.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


_logger = logging.getLogger("etcetera")


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock *path* exclusively; wait for it without blocking the event loop.

    The system lets go of it when the process dies. On a file system without locks nothing is
    held: what the lock saves is work done twice, installing is safe without.

    Raises:
        NotAllowed: The file cannot be made or written.
    """
    attempts = _Attempts(path)
    told = False
    try:
        # Another process could set no event: asking again is all there is.
        while not await anyio.to_thread.run_sync(attempts.acquire):
            if not told:
                told = True
                _logger.info("Waiting for another etcetera that has %s", path.stem)
            await anyio.sleep(_POLL_SECONDS)
        yield
    finally:
        # Neither awaits nor takes long, so cancellation cannot come between.
        attempts.close()


class _Attempts:
    """One holder of a lock.

    A cancelled task does not always wait for the thread it left behind: whether that one got the
    lock has to be settled here, so that it is let go of in any case.
    """

    def __init__(self, path: Path) -> None:
        from filelock import FileLock  # takes as long to import as all the rest

        # A file lock of its own excludes everybody, also other tasks of this thread.
        self._lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
        self._path = path
        self._mutex = threading.Lock()
        self._closed = False

    def acquire(self) -> bool:
        """Try once; false if somebody else holds the lock."""
        with self._mutex:
            acquired = self._try()
        # Closed meanwhile, by a task that did not wait for this.
        if self._closed:
            self.close()
            return False
        return acquired

    def close(self) -> None:
        """Let go of the lock, now or as soon as the thread that is trying has it."""
        self._closed = True
        if self._mutex.acquire(blocking=False):
            try:
                self._lock.release()
            finally:
                self._mutex.release()

    def _try(self) -> bool:
        try:
            with os_errors(f"locking {self._path}"):
                self._lock.acquire(blocking=False)
        except TimeoutError:
            return False
        except EtceteraError as error:
            if getattr(error.__cause__, "errno", None) not in _UNSUPPORTED:
                raise
            _logger.debug("Going on without a lock: %s", error)
        return True
