"""A proxy before an S3 server that breaks what a script says, where it says.

It runs on the test's own event loop, so nothing depends on which thread is faster. A fault that was
planned and never happened fails the test: else a test of a fault might be one of nothing.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.stores.fake_s3 import Answer, Request

ALWAYS = 1 << 30
"""As the times of a rule: from then on."""


@dataclass(slots=True)
class Exchange:
    """One request, of which so far only the head has come."""

    request: Request
    head: list[str]
    """Its lines."""
    upstream: tuple[str, int]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    over: bool = False
    """Whether nothing more can be sent on this connection."""

    async def receive(self, stop: int | None = None) -> bytes:
        """Read the body up to byte *stop*, or to its end; return what has come of it."""
        length = int(self.request.headers.get("content-length", "0"))
        wanted = length if stop is None else min(stop, length)
        missing = max(0, wanted - len(self.request.body))
        self.request.body += await self.reader.readexactly(missing)
        return self.request.body

    async def forward(self) -> Answer:
        """Let the server answer; names of headers come in small letters."""
        body = await self.receive()
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            # HTTP/1.0: the answer ends with the connection, and is never sent in chunks.
            first = self.head[0].replace("HTTP/1.1", "HTTP/1.0")
            kept = [line for line in self.head[1:] if not line.lower().startswith("connection:")]
            writer.write("\r\n".join([first, *kept, "", ""]).encode("latin-1") + body)
            head, _, content = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines[1:])}
        length = int(headers.pop("content-length", len(content)))
        headers.pop("connection", None)
        return Answer(int(lines[0].split(" ")[1]), headers, content, length)

    async def send(self, answer: Answer, stop: int | None = None) -> None:
        """Send an answer, of its body only what comes before byte *stop*."""
        length = len(answer.body) if answer.length is None else answer.length
        headers = answer.headers if length < 0 else answer.headers | {"Content-Length": str(length)}
        lines = [f"HTTP/1.1 {answer.status} Text", *(f"{k}: {v}" for k, v in headers.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        self.writer.write(b"" if self.request.method == "HEAD" else answer.body[:stop])
        await self.writer.drain()

    async def end(self, *, reset: bool) -> None:
        """End the connection: as a server does that has sent all, or as one that has died."""
        if reset:
            bound: socket.socket = self.writer.get_extra_info("socket")
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        self.over = True


Fault = Callable[[Exchange], Awaitable[None]]
"""Deals with one request in the place of the proxy."""


@dataclass(slots=True)
class Rule:
    """Which requests a fault befalls."""

    operation: str
    """As :attr:`Request.operation` calls it; ``any`` is any."""
    fault: Fault
    skip: int = 0
    """So many such requests are let through first."""
    times: int = 1
    where: str = ""
    """In the path or the query of the request."""
    hits: int = 0

    def takes(self, exchange: Exchange) -> bool:
        """Whether the fault befalls this request; counts it."""
        fits = self.operation in ("any", exchange.request.operation)
        if not fits or self.where not in exchange.head[0] or self.hits == self.times:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class FaultProxy:
    """Passes requests on, but for those that a rule takes: the first that fits counts."""

    upstream: tuple[str, int]
    endpoint: str = ""
    rules: list[Rule] = field(default_factory=list)
    seen: list[Request] = field(default_factory=list)
    ignored: tuple[str, ...] = ()
    """Headers that the server is never shown, in small letters."""
    _connections: "set[asyncio.Task[None]]" = field(default_factory=set)

    def plan(self, *rules: Rule) -> None:
        """Have these faults happen, the first time or from now on."""
        self.rules += rules

    def count(self, operation: str) -> int:
        """How many requests of a kind have come."""
        return sum(request.operation == operation for request in self.seen)

    def check(self) -> None:
        """Fail unless every fault that was planned has happened, as often as planned."""
        for rule in self.rules:
            least = 1 if rule.times == ALWAYS else rule.times
            assert rule.hits >= least, f"{rule} was planned {least} times and came {rule.hits}"

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # Whatever is drained has left, also if the connection is reset right after.
        writer.transport.set_write_buffer_limits(0)
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # whoever asked has seen enough, or the test is over
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Deal with one request; tell whether another may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in head[1:])}
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        request = Request(method, url.path.rstrip("/"), query, headers, b"")
        self.seen.append(request)
        shown = [one for one in head if one.partition(":")[0].lower() not in self.ignored]
        exchange = Exchange(request, shown, self.upstream, reader, writer)
        rule = next((rule for rule in self.rules if rule.takes(exchange)), None)
        if rule is None:
            await exchange.send(await exchange.forward())
        else:
            await rule.fault(exchange)
        return not exchange.over

    async def close(self) -> None:
        """Let go of who still waits for an answer."""
        for task in (waiting := list(self._connections)):
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@asynccontextmanager
async def fault_proxy(
    upstream: str, encryption: ssl.SSLContext | None = None
) -> AsyncIterator[FaultProxy]:
    """Run one before another server; in the end all planned faults must have happened."""
    url = urlsplit(upstream)
    proxy = FaultProxy((url.hostname or "", url.port or 0))
    server = await asyncio.start_server(proxy.connect, "127.0.0.1", 0, ssl=encryption)
    async with server:
        host, port = server.sockets[0].getsockname()
        proxy.endpoint = f"{'https' if encryption else 'http'}://{host}:{port}"
        yield proxy
        await proxy.close()
    proxy.check()


# Faults


def answer(status: int, code: str = "", *, body: bytes | None = None, **headers: str) -> Fault:
    """Answer in the place of the server, after all of the body has come."""
    text = f"<Error><Code>{code}</Code><Message>told so</Message></Error>".encode()

    async def fault(exchange: Exchange) -> None:
        await exchange.receive()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        await exchange.send(Answer(status, named, text if body is None else body))

    return fault


def reset_upload(stop: int) -> Fault:
    """Reset the connection when byte *stop* of the body has come; the server gets none."""

    async def fault(exchange: Exchange) -> None:
        await exchange.receive(stop)
        await exchange.end(reset=True)

    return fault


def broken_body(stop: int, *, reset: bool = False, chunked: bool = False) -> Fault:
    """Send the answer up to byte *stop* of its body.

    Args:
        stop: Where it ends.
        reset: Whether by a reset; else the connection is closed properly.
        chunked: Whether no length is told.
    """

    async def fault(exchange: Exchange) -> None:
        told = await exchange.forward()
        if chunked:
            told.length = -1
            told.headers |= {"Transfer-Encoding": "chunked"}
            told.body = b"%x\r\n%b\r\n" % (stop, told.body[:stop])
        await exchange.send(told, None if chunked else stop)
        await exchange.end(reset=reset)

    return fault


def lose_reply(*, reset: bool = True) -> Fault:
    """Let the server do it, and say nothing."""

    async def fault(exchange: Exchange) -> None:
        await exchange.forward()
        await exchange.end(reset=reset)

    return fault


def stall(*, served: bool = False, stop: int | None = None) -> Fault:
    """Never answer, or never go on with an answer.

    Args:
        served: Whether the server does what it was asked for.
        stop: The answer comes up to this byte of its body.
    """

    async def fault(exchange: Exchange) -> None:
        told = await exchange.forward() if served or stop is not None else None
        if told is not None and stop is not None:
            await exchange.send(told, stop)
        exchange.over = True
        await exchange.reader.read()  # until who asked gives up

    return fault


def slowly(piece: int, seconds: float) -> Fault:
    """Send the body of the answer in pieces, with a pause before each."""

    async def fault(exchange: Exchange) -> None:
        told = await exchange.forward()
        await exchange.send(told, 0)
        for start in range(0, len(told.body), piece):
            await asyncio.sleep(seconds)
            exchange.writer.write(told.body[start : start + piece])
            await exchange.writer.drain()

    return fault


def edit(change: Callable[[Answer], object]) -> Fault:
    """Change what the server says."""

    async def fault(exchange: Exchange) -> None:
        told = await exchange.forward()
        change(told)
        await exchange.send(told)

    return fault


def damage_upload(position: int) -> Fault:
    """Change one byte of the body on its way to the server."""

    async def fault(exchange: Exchange) -> None:
        body = bytearray(await exchange.receive())
        sent = bytes(body)
        body[position] ^= 1
        exchange.request.body = bytes(body)
        told = await exchange.forward()
        exchange.request.body = sent
        await exchange.send(told)

    return fault


def after(action: Callable[[], Awaitable[object]], then: Fault | None = None) -> Fault:
    """Have something happen before the request is passed on."""

    async def fault(exchange: Exchange) -> None:
        await action()
        if then is not None:
            await then(exchange)
        else:
            await exchange.send(await exchange.forward())

    return fault
