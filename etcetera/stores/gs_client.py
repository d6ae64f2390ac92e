"""One connection to Google Storage: requests to its JSON and XML APIs, and every retry.

Source: Cloud Storage documentation, "Request endpoints" and "Retry strategy".
"""

import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import anyio
from aiohttp.abc import AbstractStreamWriter
from yarl import URL

from etcetera.errors import NetworkError
from etcetera.settings import RepositorySettings
from etcetera.stores import Data, Sent, patience
from etcetera.stores.common import GRACE_SECONDS, clean_up, uninterrupted
from etcetera.stores.gs_credentials import Credentials, find_credentials
from etcetera.stores.gs_endpoint import EMULATOR, find_endpoint, is_google
from etcetera.stores.gs_errors import answering, no_credentials, refusal
from etcetera.stores.place import Place
from etcetera.stores.proxies import find_proxy

LARGEST_ANSWER = 1 << 20
"""Bytes of an answer that is not an object's content: it is parsed on the event loop."""
_MOST_VALUES = 1 << 15
"""In it; a page of a listing has some thousands."""
_ERROR_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 18
"""Of a body; each is a copy, as it may wait in a transport when the part's memory is used again."""

Query = Mapping[str, str | Sequence[str]]

_T = TypeVar("_T")
_logger = logging.getLogger("etcetera")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whole."""

    headers: Mapping[str, str]
    """Their case does not matter."""
    body: bytes


@dataclass(frozen=True, slots=True)
class _Request:
    """What is sent, once or again; see :meth:`Connection.call`."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[Data] = ()
    sent: Sent | None = None
    seconds: float | None = None

    def url(self, endpoint: str) -> URL:
        """Return where it goes, as the signatures and the servers of Google want it quoted."""
        query = urlencode(self.query, doseq=True, quote_via=quote)
        return URL(f"{endpoint}{self.path}?{query}", encoded=True)


def as_json(answer: Answer) -> dict[str, Any]:
    """Return the object that the body of an answer is.

    Raises:
        ValueError: It is none.
    """
    if answer.body.count(b",") > _MOST_VALUES:
        raise ValueError("the answer is too long")
    value = json.loads(answer.body)
    if not isinstance(value, dict):
        raise ValueError("the answer is no JSON object")
    return value


def as_done(answer: Answer) -> None:
    """Take any answer that is no error for one."""


class Connection:
    """Requests about one bucket."""

    def __init__(self, settings: RepositorySettings, place: Place) -> None:
        self.place = place
        # What the answers so far have taught about the bucket and the server.
        self.bucket_seen = False
        self.multipart = True
        self.moves = True
        self.project = settings.google_project
        self._settings = settings
        place.endpoint, self.endpoint_from = find_endpoint(settings)
        self._credentials: Credentials | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._answered = False
        self._opening = anyio.Lock()

    async def close(self, error: BaseException | None) -> None:
        """Close every connection, whatever *error* is in flight."""
        if self._session is not None:
            await clean_up(self._close(self._session), error, left="")

    async def _close(self, session: aiohttp.ClientSession) -> str:
        with anyio.move_on_after(GRACE_SECONDS):
            await session.close()
        return ""

    @property
    def attempts(self) -> int:
        """How often a request is tried."""
        return patience.ATTEMPTS if self._answered else patience.FIRST_ATTEMPTS

    @property
    def google(self) -> bool:
        """Whether the server is Google's own, which is sure to heed conditions."""
        return is_google(self.place.endpoint)

    def object_path(self, key: str) -> str:
        """Of an object, in the JSON API."""
        return f"/storage/v1/b/{self.place.bucket}/o/{quote(key, safe='')}"

    def list_path(self) -> str:
        """Of all objects, in the JSON API."""
        return f"/storage/v1/b/{self.place.bucket}/o"

    def xml_path(self, key: str = "") -> str:
        """Of an object, or of the bucket, in the XML API."""
        return f"/{self.place.bucket}/{quote(key, safe='/~')}" if key else f"/{self.place.bucket}"

    async def credentials(self) -> Credentials:
        """Return who asks; looked for when first needed.

        Raises:
            ConfigError: The settings name something that cannot be used.
        """
        await self._open()
        assert self._credentials is not None  # noqa: S101 - opening sets it
        return self._credentials

    async def call(
        self,
        method: str,
        path: str,
        understand: Callable[[Answer], _T],
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        body: Sequence[Data] = (),
        sent: Sent | None = None,
        writes: bool = False,
        expected: Collection[str | int] = (),
        attempts: int | None = None,
        seconds: float | None = None,
        lost: Callable[[], object] = lambda: None,
    ) -> _T:
        """Send one request, again if that may help, and return what the answer says.

        Args:
            method: Of HTTP.
            path: Quoted.
            understand: Says what an answer means; one that it cannot be is asked for again.
            query: Not yet quoted; what has several values is sent as often.
            headers: Beside those that every request has.
            body: Pieces of it.
            sent: Told of their bytes as they leave.
            writes: Whether it takes credentials.
            expected: Reasons, codes and statuses that are raised as ``Refused``.
            attempts: At most so many; by default as many as usual.
            seconds: How long it may take; while a body leaves, how long it may stall.
            lost: Called for each attempt without an answer that can be understood: the server may
                have done it.

        Raises:
            Refused: The answer was an expected error.
            NoCredentials: It takes credentials, or was refused, and there are none.
            NetworkError: After the last attempt.
            EtceteraError: Any other, at once.
        """
        if writes and (await self.credentials()).anonymous and self.google:
            raise no_credentials(self.place)
        request = _Request(method, path, query or {}, headers or {}, body, sent, seconds)
        pauses = patience.delays(attempts or self.attempts)
        while True:
            asked = refused = False
            try:
                token = await self._token()
                asked = True
                async with self._ask(request, token) as got:
                    refused = got.status >= 300
                    if refused:
                        raise await self._refusal(got, expected)
                    with answering(self.place):
                        return understand(Answer(got.headers, await _read(got, LARGEST_ANSWER)))
            except NetworkError:
                if asked and not refused:
                    lost()
                pause = next(pauses, None)
                if pause is None:
                    raise
                await anyio.sleep(pause)

    @asynccontextmanager
    async def stream(
        self,
        path: str,
        query: Query,
        headers: Mapping[str, str],
        expected: Collection[str | int],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask once for the content of an object; the body is still to be read.

        Raises:
            Refused: The answer was an expected error.
            NetworkError: It is worth another attempt.
        """
        async with self._ask(_Request("GET", path, query, headers), await self._token()) as got:
            if got.status >= 300:
                raise await self._refusal(got, expected)
            yield got

    async def greet(self, seconds: float) -> Mapping[str, str]:
        """Ask without credentials, and return the head lines of the answer, whatever it is.

        Raises:
            NetworkError: There is none.
        """
        request = _Request("GET", self.list_path(), {"maxResults": "1"}, seconds=seconds)
        got = await self._send(request, None)
        got.close()
        return got.headers

    async def _refusal(
        self, got: aiohttp.ClientResponse, expected: Collection[str | int]
    ) -> Exception:
        with answering(self.place):
            try:
                body = await _read(got, _ERROR_BYTES)
            except ValueError:
                body = b""  # too long for an error; its status says enough
        if got.headers.get("Content-Encoding") == "gzip":
            with suppress(zlib.error):
                body = zlib.decompressobj(31).decompress(body, _ERROR_BYTES)
        anonymous = (await self.credentials()).anonymous
        date = got.headers.get("Date", "")
        return refusal(self.place, got.status, body, date, expected=expected, anonymous=anonymous)

    async def _token(self) -> str | None:
        return await (await self.credentials()).token()

    @asynccontextmanager
    async def _ask(
        self, request: "_Request", token: str | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; once more with a new token, if that which was sent is refused."""
        got = await self._send(request, token)
        try:
            if got.status == 401 and token:
                renewed = await (await self.credentials()).token(instead_of=token)
                got.close()
                got = await self._send(request, renewed)
            yield got
        finally:
            # Gives the connection up, unless the body was read to its end.
            got.close()

    async def _send(self, request: "_Request", token: str | None) -> aiohttp.ClientResponse:
        session = await self._open()
        headers = dict(request.headers)
        if self.project:
            headers["x-goog-user-project"] = self.project
        if request.body:
            headers["Content-Length"] = str(sum(len(piece) for piece in request.body))
        if token:
            headers["Authorization"] = f"Bearer {token}"
        views = [memoryview(piece) for piece in request.body]
        silence = request.seconds or patience.STALL_SECONDS
        with answering(self.place):
            try:
                with anyio.fail_after(request.seconds or patience.REQUEST_SECONDS) as scope:
                    got = await session.request(
                        request.method,
                        request.url(self.place.endpoint),
                        headers=headers,
                        data=_Leaving(views, scope, silence, request.sent) if views else None,
                        allow_redirects=False,
                        proxy=self._proxy,
                        timeout=aiohttp.ClientTimeout(
                            total=None,
                            sock_connect=patience.CONNECT_SECONDS,
                            sock_read=silence,
                        ),
                    )
            finally:
                for view in views:
                    view.release()  # whoever reads on gets an error
        self._answered = True
        return got

    async def _open(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                await uninterrupted(self._prepare())
        assert self._session is not None  # noqa: S101 - preparing sets it
        return self._session

    async def _prepare(self) -> None:
        self._proxy = find_proxy(self.place.endpoint, self.place)
        trusted = self.google and not patience.travels_in_the_clear(self.place.endpoint)
        if self.endpoint_from == EMULATOR:
            # Whoever sets a variable may send what follows anywhere: as for Google's clients,
            # nobody asks there.
            self._credentials = Credentials(self.place)
            self.place.login = (
                f"none are sent where the variable {EMULATOR} says which server is asked: unset "
                "it, or name the server with endpoint_url"
            )
        else:
            self._credentials = await find_credentials(self._settings, self.place, trusted=trusted)
            if not trusted:
                self.place.login = (
                    "those that are found otherwise go to Google's own servers alone: name a key "
                    "with google_credentials in ~/.etc.toml, or remove endpoint_url"
                )
            elif self._settings.aws_access_key_id is not None:
                self.place.login = (
                    'an HMAC key works with url = "s3://…" and endpoint_url = '
                    '"https://storage.googleapis.com"; for gs:// log in with: gcloud auth '
                    "application-default login, or set google_credentials"
                )
        if not self._credentials.anonymous and patience.travels_in_the_clear(self.place.endpoint):
            _logger.warning(
                "%s is not encrypted: everybody on the way can read", self.place.endpoint
            )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=patience.CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": "etcetera"},
            # Google's JSON API refuses what says that it brings bytes of no known kind.
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
        )


class _Leaving(aiohttp.Payload):
    """A body that puts off the deadline as it leaves, and can leave once more."""

    def __init__(
        self,
        views: Sequence[memoryview],
        scope: anyio.CancelScope,
        silence: float,
        sent: Sent | None,
    ) -> None:
        super().__init__(views)
        self._size = sum(len(view) for view in views)
        self._views = views
        self._scope = scope
        self._silence = silence
        self._sent = sent

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return all of it as text; aiohttp never wants that of a request."""
        return b"".join(self._views).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        for view in self._views:
            for start in range(0, len(view), _CHUNK_BYTES):
                self._scope.deadline = anyio.current_time() + self._silence
                chunk = bytes(view[start : start + _CHUNK_BYTES])
                if self._sent is not None:
                    self._sent(len(chunk))
                await writer.write(chunk)


async def _read(got: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a body that is not larger than *limit*."""
    body = bytearray()
    with anyio.fail_after(patience.REQUEST_SECONDS):
        async for piece in got.content.iter_chunked(1 << 16):
            body += piece
            if len(body) > limit:
                raise ValueError("the answer is too long")
    return bytes(body)
