"""S3 servers that take their time, to be interrupted."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_EMPTY = (
    b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)
_BEGUN = (
    b"<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>"
)


@dataclass(slots=True)
class Doings:
    """What the server was asked for, and when it may answer."""

    sending: threading.Event = field(default_factory=threading.Event)
    """Set once a part arrives, which is never answered."""
    aborting: threading.Event = field(default_factory=threading.Event)
    """Set once the upload is to be dropped."""
    may_abort: threading.Event = field(default_factory=threading.Event)
    """Dropping the upload is not answered before this is set."""
    closing: threading.Event = field(default_factory=threading.Event)
    open_uploads: set[str] = field(default_factory=set)


class SlowServer(ThreadingHTTPServer):
    """Begins uploads, answers no part, and drops uploads when allowed to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.doings = Doings()

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowServer

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # whoever asked was interrupted
            self.close_connection = True

    def do_HEAD(self) -> None:
        self._answer(404)

    def do_GET(self) -> None:
        self._answer(200, _EMPTY)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.doings.open_uploads.add("upload-1")
        self._answer(200, _BEGUN)

    def do_PUT(self) -> None:
        self.server.doings.sending.set()
        self.server.doings.closing.wait()
        self.close_connection = True

    def do_DELETE(self) -> None:
        doings = self.server.doings
        doings.aborting.set()
        while not doings.may_abort.wait(0.05):
            if doings.closing.is_set():
                return
        doings.open_uploads.clear()
        self._answer(204)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def slow_server() -> Iterator[SlowServer]:
    """Run one, in threads of this process."""
    with SlowServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.doings.closing.set()
            server.shutdown()
            thread.join()


@dataclass(slots=True)
class Hold:
    """Which requests a proxy keeps waiting."""

    method: str
    word: str = ""
    """In the target of the request."""
    skip: int = 0
    """So many such requests are let through first."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set once one is waiting."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Set to let them through."""

    def wait(self, method: str, target: str) -> None:
        """Wait if it is such a request."""
        if method != self.method or self.word not in target:
            return
        if self.skip:
            self.skip -= 1
            return
        self.reached.set()
        self.go_on.wait(30)


class SlowProxy(ThreadingHTTPServer):
    """Passes requests on to another server, but not before it may."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = urlsplit(upstream).netloc
        self.hold: Hold | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked was interrupted."""


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowProxy

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.hold is not None:
            self.server.hold.wait(self.command, self.path)
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self._pass()

    def do_HEAD(self) -> None:
        self._pass()

    def do_PUT(self) -> None:
        self._pass()

    def do_POST(self) -> None:
        self._pass()

    def do_DELETE(self) -> None:
        self._pass()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def slow_proxy(upstream: str) -> Iterator[SlowProxy]:
    """Run one before another server, in threads of this process."""
    with SlowProxy(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            if server.hold is not None:
                server.hold.go_on.set()
            server.shutdown()
            thread.join()
