"""How requests are sent; imports aiobotocore, so it is imported only when that is needed."""

import asyncio
import re
from typing import Any

import anyio.to_thread
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.parsers import AioResponseParserFactory, AioRestXMLParser
from botocore.parsers import ResponseParserError

from etcetera.errors import NetworkError

LONGEST_LISTING = 1 << 20
"""Bytes; 100 of the longest keys take 350 KB, and servers that do not count send more of them."""
LONGEST_ANSWER = 1 << 16
"""Bytes of any other one that is read as a whole."""
MOST_TAGS = 1 << 16
"""Of a listing: each is worth some hundred bytes of memory."""
_LONG = 1 << 15
"""Bytes of an answer that takes long enough to parse to have a thread for it."""

_LISTING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<(?:[\w.-]+:)?(?:List|Error\b)")
"""How what is got as a whole begins: ListBucketResult and the like, by other names on some servers.
Of an error botocore knows what to do."""
_DECLARATION = re.compile(rb"<!(?:DOCTYPE|ENTITY)|\0")
"""Entities are how a small document becomes a large one; zeros are of encodings that hide them."""


class LimitedSession(AIOHTTPSession):  # type: ignore[misc]
    """Takes no more of an answer into memory than any honest one has, and believes no other."""

    async def send(self, request: Any) -> Any:
        """Send *request*; the body of an object is left to whoever asked for it."""
        streamed = request.stream_output
        request.stream_output = True  # Else all of any answer would be read.
        try:
            response = await super().send(request)
        finally:
            request.stream_output = streamed
        failed = response.status_code >= 300
        if streamed and not failed:
            return response
        listing = request.method == "GET" and not failed
        limited = AioAWSResponse(
            response.url, response.status_code, response.headers, _Limited(response.raw, listing)
        )
        body = await limited.content
        if failed:
            # What cannot be believed says no more than the status.
            return limited
        if _DECLARATION.search(body) or (listing and not _LISTING.match(body)):
            # Botocore would take a sign-in page for an empty listing, or for a passing trouble.
            raise ResponseParserError("another document than was asked for")
        return limited


class _Limited:
    """The body of an answer, as botocore reads it: at once."""

    def __init__(self, raw: Any, listing: bool) -> None:
        self._raw = raw
        self._longest = LONGEST_LISTING if listing else LONGEST_ANSWER

    async def read(self) -> bytes:
        body = bytearray()
        failed = self._raw.status >= 300
        try:
            async for piece in self._raw.content.iter_any():
                body += piece
                if len(body) > self._longest and failed:
                    self._raw.close()
                    return b""
                if len(body) > self._longest or body.count(b"<") > MOST_TAGS:
                    raise NetworkError(
                        f"{self._raw.url.origin()} did not answer sensibly (more than any listing "
                        "has); is it an S3 server?"
                    )
        except BaseException:
            self._raw.close()
            raise
        # Nothing is left, but this waits until the connection can be used again.
        body += await self._raw.read()
        return b"" if failed and _DECLARATION.search(body) else bytes(body)


class ParserFactory(AioResponseParserFactory):  # type: ignore[misc]
    """Makes parsers that keep no event loop waiting."""

    def create_parser(self, protocol_name: str) -> Any:
        """Return a parser of what is answered by *protocol_name*."""
        if protocol_name == "rest-xml":
            return _Parser(**self._defaults)
        return super().create_parser(protocol_name)


class _Parser(AioRestXMLParser):  # type: ignore[misc]
    async def parse(self, response: Any, shape: Any) -> Any:
        body = response["body"]
        parsing = super().parse(response, shape)
        if isinstance(body, bytes) and len(body) >= _LONG:
            return await anyio.to_thread.run_sync(asyncio.run, parsing)
        return await parsing
