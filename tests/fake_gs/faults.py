"""Faults that the fake server can be told to have, and whom they befall."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal, invalid_credentials

ALWAYS = 1 << 30
"""As the times of a rule: from then on."""

Serve = Callable[[], Awaitable[web.Response]]
"""Lets the honest server do it."""
Fault = Callable[[Call, Serve], Awaitable[web.StreamResponse]]
"""Deals with one request in the place of the server."""

_REASONS = {
    408: "requestTimeout",
    410: "gone",
    429: "rateLimitExceeded",
    500: "backendError",
    502: "badGateway",
    503: "backendError",
    504: "gatewayTimeout",
}


@dataclass(slots=True)
class Rule:
    """Which requests a fault befalls."""

    operation: str
    """As :attr:`Call.operation` calls it; ``any`` is any, ``xml.*`` any of those."""
    fault: Fault
    skip: int = 0
    """So many such requests are let through first."""
    times: int = 1
    where: str = ""
    """In the path or the query of the request."""
    hits: int = 0

    def takes(self, call: Call) -> bool:
        """Whether the fault befalls this request; counts it."""
        wanted, operation = self.operation, call.operation
        fits = wanted in ("any", operation)
        fits |= wanted.endswith("*") and operation.startswith(wanted[:-1])
        if not fits or self.where not in call.request.raw_path or self.hits == self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class Gone(web.Response):
    """Stands for the answer on a connection that is no more."""


def break_connection(call: Call, *, reset: bool) -> web.Response:
    """End the connection: as a server does that has sent all, or as one that has died."""
    transport = call.request.transport
    if transport is not None and reset:
        bound = cast(socket.socket, transport.get_extra_info("socket"))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    elif transport is not None:
        transport.close()
    return Gone()


async def send_start(call: Call, told: web.Response, stop: int) -> None:
    """Send an answer, of its body only what comes before byte *stop*."""
    body = bytes(cast(bytes, told.body or b""))
    start = web.StreamResponse(status=told.status, headers=told.headers)
    if "Content-Length" not in start.headers and "Transfer-Encoding" not in start.headers:
        start.content_length = len(body)
    await start.prepare(call.request)
    if stop:
        await start.write(body[:stop])


def answer(status: int, *, headers: Mapping[str, str] | None = None) -> Fault:
    """Answer with an error; nothing is done."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await call.body()
        reason = _REASONS.get(status, "forbidden")
        code = "SlowDown" if status == 429 else "InternalError"
        code = "ServiceUnavailable" if status == 503 else code
        text = "We encountered an internal error. Please try again."
        return call.refuse(Refusal(status, reason, text, code, text, headers=headers))

    return fault


def unauthorized() -> Fault:
    """Answer as if the token had just expired."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await call.body()
        return call.refuse(invalid_credentials())

    return fault


def respond(response: Callable[[], web.StreamResponse]) -> Fault:
    """Answer with something made up."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await call.body()
        return response()

    return fault


def refuse(refusal: Callable[[], Refusal]) -> Fault:
    """Refuse in some way."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await call.body()
        return call.refuse(refusal())

    return fault


def reset(*, after: int = 0) -> Fault:
    """Reset the connection once *after* bytes of what is sent have come, or all of them."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        while call.seen.size < after and (data := await call.request.content.readany()):
            call.seen.size += len(data)
        return break_connection(call, reset=True)

    return fault


def truncate(stop: int, *, reset: bool = False) -> Fault:
    """Send the answer only up to byte *stop* of its body."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await send_start(call, await serve(), stop)
        return break_connection(call, reset=reset)

    return fault


def lose_reply(*, reset: bool = True) -> Fault:
    """Do it, and say nothing."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await serve()
        return break_connection(call, reset=reset)

    return fault


def stall(*, served: bool = False, stop: int | None = None) -> Fault:
    """Never answer, or never go on with an answer.

    Args:
        served: Whether what was asked for is done.
        stop: The answer comes up to this byte of its body.
    """

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        told = await serve() if served or stop is not None else None
        if told is not None and stop is not None:
            await send_start(call, told, stop)
        request = call.request
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return Gone()

    return fault


def delay(seconds: float) -> Fault:
    """Think for a while first."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await serve()

    return fault


def edit(change: Callable[[web.Response], object]) -> Fault:
    """Change what the server says."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        told = await serve()
        change(told)
        return told

    return fault


def damage(position: int) -> Fault:
    """Change one byte of an answer's body."""

    def change(told: web.Response) -> None:
        body = bytearray(cast(bytes, told.body or b""))
        body[position] ^= 1
        told.body = bytes(body)

    return edit(change)


def wrong_crc() -> Fault:
    """Tell of a checksum that is not that of the data."""

    def change(told: web.Response) -> None:
        del told.headers["x-goog-hash"]
        told.headers["x-goog-hash"] = "crc32c=AAAAAQ=="

    return edit(change)


def changed(data: bytes) -> Fault:
    """Have someone else overwrite the object before the request is served."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        call.server.put(call.bucket_name, call.name, data)
        return await serve()

    return fault


def after(action: Callable[[], Awaitable[object]], then: Fault | None = None) -> Fault:
    """Have something happen before the request is served."""

    async def fault(call: Call, serve: Serve) -> web.StreamResponse:
        await action()
        return await serve() if then is None else await then(call, serve)

    return fault
