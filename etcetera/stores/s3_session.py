"""How requests are sent; imports aiobotocore, so it is imported only when that is needed."""

import re
from typing import Any

from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.httpsession import AIOHTTPSession
from botocore.parsers import ResponseParserError

from etcetera.errors import NetworkError

LONGEST_ANSWER = 2 << 20
"""Bytes of an answer that is read as a whole; 1000 of the longest keys take 1.5 MiB."""


_LISTING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<(?:[\w.-]+:)?(?:List|Error\b)")
"""How what is got as a whole begins: ListBucketResult and the like, by other names on some servers.
Of an error botocore knows what to do."""


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
        if streamed and response.status_code < 300:
            return response
        limited = AioAWSResponse(
            response.url, response.status_code, response.headers, _Limited(response.raw)
        )
        body = await limited.content
        if request.method == "GET" and response.status_code < 300 and not _LISTING.match(body):
            # Botocore would take a sign-in page for an empty listing, or for a passing trouble.
            raise ResponseParserError("another document than a listing")
        return limited


class _Limited:
    """The body of an answer, as botocore reads it: at once."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def read(self) -> bytes:
        body = bytearray()
        try:
            async for piece in self._raw.content.iter_any():
                body += piece
                if len(body) > LONGEST_ANSWER:
                    raise NetworkError(
                        f"{self._raw.url.origin()} did not answer sensibly (more than "
                        f"{LONGEST_ANSWER >> 20} MiB); is it an S3 server?"
                    )
        except BaseException:
            self._raw.close()
            raise
        # Nothing is left, but this waits until the connection can be used again.
        return bytes(body) + bytes(await self._raw.read())
