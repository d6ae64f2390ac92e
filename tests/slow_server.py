"""An S3 server that takes its time, to be interrupted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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
