"""Runs the fake server: on this event loop, or in a thread of its own."""

import asyncio
import secrets
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial

from aiohttp import web

from tests.fake_gs import json_api, json_objects, logins, uploads, xml_api, xml_multipart
from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal
from tests.fake_gs.faults import ALWAYS, Gone
from tests.fake_gs.identity import identify
from tests.fake_gs.state import FakeGS

READY_SECONDS = 10.0

HANDLERS: Mapping[str, Callable[[Call], Awaitable[web.Response]]] = {
    **json_api.HANDLERS,
    **json_objects.HANDLERS,
    **uploads.HANDLERS,
    **xml_api.HANDLERS,
    **xml_multipart.HANDLERS,
    **logins.HANDLERS,
}


_JSON_BODIES = frozenset(
    {"objects.move", "objects.rewrite", "objects.copy", "objects.compose", "objects.patch",
     "acl.insert"}
)  # fmt: skip


def _refuse_strange_bodies(call: Call) -> None:
    """Refuse what says that it is no JSON, even if it is empty: as Google's JSON API does."""
    told = call.headers.get("content-type", "application/json")
    if call.operation in _JSON_BODIES and not told.startswith("application/json"):
        raise Refusal(
            400,
            "badContent",
            f"Unsupported content with type: {told}",
            "InvalidArgument",
            "Invalid argument.",
        )


async def _serve(call: Call) -> web.Response:
    """Answer honestly."""
    try:
        if call.operation not in logins.HANDLERS:
            call.identity = identify(call)
        if call.operation == "unknown":
            await call.body()
            raise Refusal(
                405,
                "methodNotAllowed",
                f"The fake server has no {call.request.method} {call.path}",
                "MethodNotAllowed",
                "The specified method is not allowed against this resource.",
            )
        _refuse_strange_bodies(call)
        return await HANDLERS[call.operation](call)
    except Refusal as refusal:
        await call.body()  # or the connection would be of no use
        return call.refuse(refusal)


async def _answer(server: FakeGS, request: web.BaseRequest) -> web.StreamResponse:
    """Answer a request, unless a fault does."""
    call = Call.of(server, request)
    server.requests.append(call.seen)
    if call.headers.get("expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        answer = await server.fault(call) if server.fault is not None else None
        if answer is None:
            rule = next((one for one in server.rules if one.takes(call)), None)
            honest = partial(_serve, call)
            answer = await (rule.fault(call, honest) if rule else honest())
    except Refusal as refusal:  # of the hook, or of a fault
        answer = call.refuse(refusal)
    if not isinstance(answer, Gone):
        call.seen.status = answer.status
    if not answer.prepared:
        answer.headers["X-GUploader-UploadID"] = secrets.token_urlsafe(12)
        answer.headers.setdefault("Server", "UploadServer")
    return answer


@asynccontextmanager
async def fake_gs(server: FakeGS | None = None) -> AsyncIterator[FakeGS]:
    """Run a fake server on this event loop.

    At the end, a fault that was planned and never happened is an error, and so is a bug of the
    server: else a test of a fault might be one of nothing.
    """
    server = server or FakeGS()
    bugs: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await _answer(server, request)
        except (ConnectionError, web.HTTPException):
            raise
        except Exception:  # noqa: BLE001 -- is an error at the end
            bugs.append(traceback.format_exc())
            return web.Response(status=501, text=bugs[-1])  # nobody tries again then

    # What comes compressed is to be kept so.
    served = web.Server(handle, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(served, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.endpoint = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()
    assert not bugs, bugs[0]
    idle = [
        rule.operation
        for rule in server.rules
        if not rule.hits or (rule.times != ALWAYS and rule.hits != rule.times)
    ]
    assert not idle, f"faults that never happened, or not so often: {idle}"


@contextmanager
def fake_gs_thread(server: FakeGS | None = None) -> Iterator[FakeGS]:
    """Run a fake server in a thread of its own, for clients that block and for processes."""
    server = server or FakeGS()
    ready = threading.Event()
    failures: list[BaseException] = []
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def run() -> None:
        async with fake_gs(server):
            ready.set()
            await over.wait()

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except BaseException as error:  # noqa: BLE001 -- is raised below
            failures.append(error)
        finally:
            ready.set()
            loop.close()

    thread = threading.Thread(target=work, name="fake-gs", daemon=True)
    thread.start()
    ready.wait(READY_SECONDS)
    try:
        if not failures:
            yield server
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(over.set)
        thread.join(READY_SECONDS)
    if failures:
        raise failures[0]
