"""``https://…``: one object at one URL, to be read; in ranges where the server has them.

Whoever has the URL may read the object, so its query is a secret: messages show the rest. Nothing
is sent that was not asked for: no cookies, no passwords from a ``.netrc``. Nothing is inflated on
the way, whatever the server says the content is encoded as.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import ClassVar
from urllib.parse import urljoin

import aiohttp
import anyio
from yarl import URL

from etcetera.errors import (
    DatasetNotFound,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NotAllowed,
    RemoteChanged,
    StoreError,
    TruncatedArchive,
    UsageError,
)
from etcetera.settings import redact_url
from etcetera.stores import ObjectInfo, PinnedRange, patience
from etcetera.stores.aiohttp_errors import network_error
from etcetera.stores.common import GRACE_SECONDS, check_range, clean_up, time_from
from etcetera.stores.place import Place
from etcetera.stores.proxies import find_proxy
from etcetera.stores.ranges import (
    READ_BYTES,
    SLOWEST_BYTES_PER_SECOND,
    Range,
    changed,
    check_content_range,
    fill,
    parse_content_range,
    take_body,
)

REDIRECTS = 5
"""How many a request follows."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ERROR_BYTES = 4096
"""Of the body of a refusal, to see whether it is for good."""
_PROBE = {"Range": "bytes=0-0"}
"""Not HEAD, for which a signed URL does not work."""
_SETTLED = timedelta(seconds=60)
"""How long ago a change must be for its time to tell versions apart."""

_logger = logging.getLogger("etcetera")


@asynccontextmanager
async def open_http(url: str, part: PinnedRange | None) -> AsyncIterator["HttpObject | HttpStream"]:
    """Pin what is at *url*; see :func:`etcetera.stores.open_url`."""
    _checked(url)
    if patience.travels_in_the_clear(url):
        _logger.warning("%s is not encrypted: everybody on the way can read", redact_url(url))
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=patience.CONNECTIONS),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=patience.CONNECT_SECONDS, sock_read=patience.STALL_SECONDS
        ),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )
    source = Source(url, session)
    remote: HttpObject | HttpStream | None = None
    try:
        remote = await source.open(part)
        yield remote
    except BaseException as error:
        await clean_up(_close(session, remote), error, left="")
        raise
    await clean_up(_close(session, remote), None, left="")


async def _close(session: aiohttp.ClientSession, remote: "HttpObject | HttpStream | None") -> str:
    if isinstance(remote, HttpStream):
        remote.close()
    with anyio.move_on_after(GRACE_SECONDS):
        await session.close()
    return ""


def _checked(url: str) -> None:
    """Raise UsageError unless *url* can be asked."""
    if not _is_url(url):
        shown = redact_url(url)
        raise UsageError(
            f"{shown!r} is no URL of an archive, like https://host/flowers.tgz, or it has a user "
            "or password in it"
        )


def _is_url(url: str) -> bool:
    """Whether *url* can be sent as it is: signatures stand any change of it badly."""
    try:
        parts = URL(url, encoded=True)
        good = parts.scheme in ("http", "https") and bool(parts.host) and parts.port is not None
        good = good and parts.user is None and parts.password is None
    except ValueError:
        return False
    return good and url.isascii() and url.isprintable() and " " not in url


def _join(url: URL, location: str) -> str:
    """Where a redirect leads to."""
    location = location.partition("#")[0]
    try:
        return urljoin(str(url), location)
    except ValueError:  # whoever checks it says what is wrong
        return location


@dataclass(slots=True)
class Source:
    """A URL, asked again and again."""

    url: str = field(repr=False)
    session: aiohttp.ClientSession
    answered: bool = False
    shown: str = field(init=False)
    """The URL without its secrets."""
    _place: Place = field(init=False, repr=False)
    """Knows these, and the queries of the URLs that it was redirected to."""

    def __post_init__(self) -> None:
        self.shown = redact_url(self.url)
        self._place = Place(url=self.shown, bucket="")
        self._place.keep_secret(URL(self.url, encoded=True).raw_query_string)

    def attempts(self) -> int:
        """How often to try."""
        return patience.ATTEMPTS if self.answered else patience.FIRST_ATTEMPTS

    async def open(self, part: PinnedRange | None) -> "HttpObject | HttpStream":
        """Ask for the first time."""
        answer = await self._ask_patiently(_PROBE if part is None else part.headers())
        try:
            if part is None and _brings_range(answer) and not _version(answer):
                # Pieces could be of several versions: one answer has to bring all of it.
                answer.close()
                answer = await self._ask_patiently({})
            remote = self._pin(answer, part)
            if isinstance(remote, HttpObject):
                with self.answering(), anyio.fail_after(patience.STALL_SECONDS):
                    await answer.content.read(2)  # to the end: then the connection can be kept
                answer.close()
        except BaseException:
            answer.close()
            raise
        return remote

    async def _ask_patiently(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        pauses = patience.delays(self.attempts())
        while True:
            try:
                return await self.ask(headers)
            except NetworkError:
                pause = next(pauses, None)
                if pause is None:
                    raise
                await anyio.sleep(pause)

    def _pin(
        self, answer: aiohttp.ClientResponse, part: PinnedRange | None
    ) -> "HttpObject | HttpStream":
        got = parse_content_range(answer.headers.get("Content-Range", ""))
        info = partial(
            ObjectInfo, key=self.shown, modified=_modified(answer.headers), etag=_version(answer)
        )
        if answer.status == 412:
            raise RemoteChanged(
                f"{self.shown} was replaced since the link was made: ask for a new one"
            )
        if part is not None:
            if not _brings_range(answer) or got is None or got[:2] != (part.start, part.stop):
                raise StoreError(f"{self.shown}: the server did not send the part that was shared")
            return HttpStream(self, info(size=part.stop - part.start), part.headers(), answer)
        if answer.status == 416 and answer.headers.get("Content-Range") == "bytes */0":
            return HttpObject(self, info(size=0))
        if _brings_range(answer) and got is not None and got[:2] == (0, 1) and got[2] is not None:
            return HttpObject(self, info(size=got[2]))
        if answer.status != 200 or answer.content_length is None:
            raise StoreError(f"{self.shown}: the server does not say how large the archive is")
        return HttpStream(self, info(size=answer.content_length), {}, answer)

    async def ask(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send one request; the answer is one that brings bytes, or 412 or 416.

        Raises:
            EtceteraError: It is another one, or none at all.
        """
        with self.answering():
            with anyio.fail_after(patience.REQUEST_SECONDS):
                answer = await self._follow(headers)
                if answer.status in (200, 206, 412, 416):
                    return answer
                try:
                    said = (await answer.content.read(_ERROR_BYTES)).decode(errors="replace")
                finally:
                    answer.close()
        raise _refusal(self.shown, answer.status, said)

    async def _follow(self, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send a request, and go where it is sent on to: each time, as that may be for once."""
        url = URL(self.url, encoded=True)
        for _ in range(REDIRECTS + 1):
            proxy = find_proxy(str(url), self._place)
            answer = await self.session.get(
                url, headers=headers, allow_redirects=False, proxy=proxy
            )
            self.answered = True
            if answer.status not in _REDIRECTS:
                return answer
            answer.close()
            target = _join(url, answer.headers.get("Location", ""))
            if not _is_url(target):
                raise StoreError(f"{self.shown} redirects to what is no URL, or has a user in it")
            following = URL(target, encoded=True)
            self._place.keep_secret(following.raw_query_string)
            if url.scheme == "https" and following.scheme != "https":
                raise StoreError(
                    f"{self.shown} redirects to {redact_url(target)}, which is not encrypted: "
                    "not followed"
                )
            url = following
        raise StoreError(f"{self.shown} redirects more than {REDIRECTS} times")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Raise what goes wrong between here and the server as a NetworkError, without secrets."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if isinstance(error, EtceteraError):
                raise
            origin = URL(self.shown, encoded=True).origin()
            meaning = network_error(error, str(origin), self._place)
            raise meaning from meaning.__cause__


def _refusal(shown: str, status: int, said: str) -> EtceteraError:
    if status in (400, 401, 403) and "expired" in said.lower():
        return ExpiredCredentials(f"{shown}: the link has expired; ask for a new one")
    if status in (404, 410):
        return DatasetNotFound(f"There is nothing at {shown}; check the link, or ask for a new one")
    if status in (400, 401, 403):  # rclone answers 400 where a signature is too old
        return NotAllowed(
            f"{shown} cannot be read (status {status}): check that the link is whole, or ask for "
            "a new one"
        )
    if status in (408, 429) or (status >= 500 and status not in (501, 505)):
        return NetworkError(f"{shown}: the server is in trouble (status {status}); try again later")
    return StoreError(f"{shown}: the server refuses (status {status})")


def _brings_range(answer: aiohttp.ClientResponse) -> bool:
    """Whether it holds the bytes that its Content-Range names; rclone sends these with a 200."""
    return answer.status == 206 or (answer.status == 200 and "Content-Range" in answer.headers)


def _version(answer: aiohttp.ClientResponse) -> str:
    """What surely tells one version from another, byte by byte; empty if nothing does.

    A time does so only if it was a while ago: RFC 9110, 8.8.2.2.
    """
    headers = answer.headers
    if "ETag" in headers:
        return headers["ETag"] if headers["ETag"].startswith('"') else ""
    modified, date = _time(headers, "Last-Modified"), _time(headers, "Date")
    settled = modified is not None and date is not None and date - modified >= _SETTLED
    return headers["Last-Modified"] if settled else ""


def _modified(headers: Mapping[str, str]) -> datetime:
    return _time(headers, "Last-Modified") or datetime.now(UTC)


def _time(headers: Mapping[str, str], name: str) -> datetime | None:
    """What a head line says; ``None`` if there is none that says a time."""
    try:
        return time_from(parsedate_to_datetime(headers.get(name, "")).timestamp())
    except (ValueError, OverflowError):
        return None


def _condition(info: ObjectInfo) -> dict[str, str]:
    """The header that makes a server refuse to send another version."""
    name = "If-Match" if info.etag.startswith('"') else "If-Unmodified-Since"
    return {name: info.etag}


@dataclass(slots=True)
class HttpObject:
    """One version of what is at a URL, in ranges."""

    source: Source
    info: ObjectInfo
    sequential: ClassVar[bool] = False

    async def read(self, start: int, stop: int) -> bytearray:
        """Return the bytes from *start* to *stop*; see :class:`etcetera.stores.RemoteObject`."""
        check_range(start, stop, self.info.size)
        return await fill(Range(start, stop), self._receive, self.source.attempts)

    async def _receive(self, wanted: Range) -> None:
        """Add what one request brings."""
        begin, stop = wanted.position, wanted.stop
        headers = {"Range": f"bytes={begin}-{stop - 1}"} | _condition(self.info)
        answer = await self.source.ask(headers)
        try:
            if answer.status == 416:
                raise TruncatedArchive(f"{self.info.key} has less than {self.info.size} bytes")
            if answer.status == 412 or _version(answer) != self.info.etag:
                raise changed(self.info)
            told = answer.headers.get("Content-Range", "")
            ends = check_content_range(told, answer.content_length, begin, stop, self.info)
            seconds = patience.STALL_SECONDS + (stop - begin) / SLOWEST_BYTES_PER_SECOND
            with self.source.answering(), anyio.fail_after(seconds):
                await take_body(wanted, answer.content.read, self.info, ends=ends)
        finally:
            # Gives the connection up, unless the body was read to its end.
            answer.close()


class HttpStream:
    """One version of what is at a URL, or of a part of it, as one answer after another brings it.

    It can be read from front to back only. When the connection breaks, the same is asked for
    again, and what was read before is skipped.
    """

    sequential: ClassVar[bool] = True

    def __init__(
        self,
        source: Source,
        info: ObjectInfo,
        headers: Mapping[str, str],
        answer: aiohttp.ClientResponse,
    ) -> None:
        self.info = info
        self._source = source
        self._headers = headers
        self._answer: aiohttp.ClientResponse | None = answer
        self._content_range = answer.headers.get("Content-Range")
        self._position = 0
        self._turn = anyio.Lock()

    def close(self) -> None:
        """Give the connection up."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    async def read(self, start: int, stop: int) -> bytearray:
        """Return the bytes from *start* to *stop*, where the last call stopped.

        Calls wait for each other, in the order in which they were made.

        Raises:
            ValueError: They are not the next ones: a mistake of the caller.
        """
        check_range(start, stop, self.info.size)
        async with self._turn:
            if start != self._position:
                raise ValueError(f"byte {start} of a stream that stands at {self._position}")
            data = await fill(Range(start, stop), self._receive, self._source.attempts)
            self._position = stop
            return data

    async def _receive(self, wanted: Range) -> None:
        """Add what one answer brings."""
        try:
            answer = self._answer
            if answer is None:
                answer = self._answer = await self._ask_again()
                await self._take(answer, wanted.position, lambda _: None)
            await self._take(answer, wanted.missing, wanted.add)
            if wanted.stop == self.info.size:
                self.close()
        except BaseException:
            self.close()
            raise

    async def _take(
        self, answer: aiohttp.ClientResponse, size: int, add: Callable[[bytes], object]
    ) -> None:
        """Read exactly *size* bytes."""
        seconds = patience.STALL_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        with self._source.answering(), anyio.fail_after(seconds):
            while size:
                piece = await answer.content.read(min(size, READ_BYTES))
                if not piece:
                    raise NetworkError(f"{self.info.key}: the server sent less than it has")
                size -= len(piece)
                add(piece)

    async def _ask_again(self) -> aiohttp.ClientResponse:
        answer = await self._source.ask(self._headers)
        same = (
            self.info.etag != ""  # without one nobody can tell
            and answer.status in (200, 206)
            and answer.headers.get("Content-Range") == self._content_range
            and answer.content_length in (None, self.info.size)
            and _version(answer) == self.info.etag
        )
        if not same:
            answer.close()
            raise changed(self.info)
        return answer
