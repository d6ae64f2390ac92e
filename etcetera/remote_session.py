"""A remote archive that stays open across calls, on an event loop in a thread of its own."""

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

from etcetera.config import Config
from etcetera.errors import RemoteChanged, UsageError, archive_errors
from etcetera.repository import open_reader
from etcetera.transfer.flow import in_thread
from etcetera.transfer.front import FrontReader
from etcetera.transfer.reader import Reader
from etcetera.transfer.scan import Totals

Result = TypeVar("Result")
AnyReader = Reader | FrontReader


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive that can be read."""

    url: str
    reader: AnyReader
    partitions: dict[str, Totals]


class Session:
    """Holds one version of one archive open until it is closed; for use by any thread."""

    def __init__(self, config: Config, repository: str | None, name: str, etag: str | None) -> None:
        """Begin to open it.

        Args:
            config: Settings.
            repository: Which one, by default the one at the top of the configuration.
            name: Of the dataset.
            etag: Of the only version that is accepted; any if ``None``.
        """
        self.process = os.getpid()
        """Where the thread is: a forked process has none of them."""
        self.opened: Future[Opened] = Future()
        self._closed = False
        self._portals = start_blocking_portal(name="etcetera-remote")
        self._portal = self._portals.__enter__()
        self._thread = self._portal.call(threading.get_ident)
        self._portal.start_task_soon(self._hold, config, repository, name, etag)

    def submit(self, use: Callable[[AnyReader], Awaitable[Result]]) -> Future[Result]:
        """Have the event loop do something with the reader, which has to be there by now.

        Cancelling the future cancels it.
        """
        try:
            return self._portal.start_task_soon(self._use, use)
        except RuntimeError:  # closed
            raise CancelledError from None

    def close(self) -> None:
        """Close the connection, cancel what is under way, and wait until the thread has ended."""
        if self.process != os.getpid() or self._closed:
            return
        if self._thread == threading.get_ident():
            # Collected as garbage by the very thread that would be waited for.
            threading.Thread(target=self.close, daemon=True).start()
            return
        self._closed = True
        with suppress(RuntimeError):  # another thread was faster
            self._portal.call(self._portal.stop, True)
        self._portals.__exit__(None, None, None)

    async def _hold(
        self, config: Config, repository: str | None, name: str, etag: str | None
    ) -> None:
        try:
            async with open_reader(config, repository, name) as (url, reader):
                if etag is not None and reader.archive.info.etag != etag:
                    raise RemoteChanged(f"{url} was replaced since it was opened; open it anew")
                self.opened.set_result(Opened(url, reader, await reader.partitions()))
                await anyio.sleep_forever()
        except asyncio.CancelledError:
            self.opened.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - it is told to who waits
            if not self.opened.done():
                self.opened.set_exception(error)

    async def _use(self, use: Callable[[AnyReader], Awaitable[Result]]) -> Result:
        opened = self.opened.result()
        with archive_errors(opened.url):
            return await use(opened.reader)


class Sessions:
    """The session of each process that uses a dataset, begun when it is first needed."""

    def __init__(self, config: Config, repository: str | None, name: str, etag: str | None) -> None:
        """Begin nothing yet; the arguments are those of a session."""
        self.config = config
        self.repository = repository
        self._name = name
        self._etag = etag
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._closed = False

    def opened(self) -> Opened:
        """What can be read; waits until it can be.

        Raises:
            UsageError: It was closed.
            RemoteChanged: There is another version than before.
        """
        session = self._begun()
        try:
            opened = session.opened.result()
        except CancelledError:
            raise self._is_closed() from None
        except Exception:
            self._drop(session)
            raise
        self._etag = opened.reader.archive.info.etag
        return opened

    async def aopened(self) -> Opened:
        """The same, without blocking the caller's event loop."""
        present = self._session
        if present is None or present.process != os.getpid() or not present.opened.done():
            await self._connect()
        return self.opened()

    async def _connect(self) -> None:
        session = await in_thread(self._begun)
        with suppress(Exception):  # which comes out below
            await asyncio.shield(asyncio.wrap_future(session.opened))

    def run(self, use: Callable[[AnyReader], Awaitable[Result]]) -> Result:
        """Have the event loop do something with the reader, and wait for what it returns."""
        return self.run_all([use])[0]

    def run_all(self, uses: Sequence[Callable[[AnyReader], Awaitable[Result]]]) -> list[Result]:
        """Have it do several things at once."""
        self.opened()
        futures: list[Future[Result]] = []
        try:
            session = self._begun()
            futures += [session.submit(use) for use in uses]
            return [future.result() for future in futures]
        except CancelledError:
            raise self._is_closed() from None
        finally:
            for future in futures:
                future.cancel()  # where it is not done: another one has failed, or Ctrl-C came

    async def arun(self, use: Callable[[AnyReader], Awaitable[Result]]) -> Result:
        """Have it do something, without blocking the caller's event loop."""
        await self.aopened()
        try:
            return await asyncio.wrap_future(self._begun().submit(use))
        except (CancelledError, asyncio.CancelledError):
            task = asyncio.current_task()
            if self._closed and task is not None and not task.cancelling():
                raise self._is_closed() from None
            raise

    def close(self) -> None:
        """Close the session of this process, for good."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _begun(self) -> Session:
        """The session of this process, which may have to connect yet."""
        with self._lock:
            if self._closed:
                raise self._is_closed()
            if self._session is None or self._session.process != os.getpid():
                self._session = Session(self.config, self.repository, self._name, self._etag)
                weakref.finalize(self, self._session.close)
            return self._session

    def _drop(self, session: Session) -> None:
        """Have the next call connect anew."""
        with self._lock:
            if self._session is session:
                self._session = None
        session.close()

    def _is_closed(self) -> UsageError:
        return UsageError(f"The remote dataset {self._name} is closed: open it again")
