"""A web server that holds files, with ranges or without, and misbehaves on command."""

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(slots=True)
class Reply:
    """What is sent back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    """So many bytes of the body are sent, then the connection is closed."""


@dataclass(slots=True)
class Asked:
    """What arrived."""

    target: str
    headers: dict[str, str]


Trick = Callable[[Asked, Callable[[], Reply]], Reply]
"""Answers a request itself, or changes what the honest server says."""


class WebServer(ThreadingHTTPServer):
    """Holds files by path; the query of a request is not looked at."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.headers: dict[str, str] = {}
        """Sent with every file; an empty ETag means none."""
        self.tricks: list[Trick | Reply | None] = []
        """One for each request that comes; ``None`` and beyond the last: honest."""
        self.seen: list[Asked] = []

    def url(self, path: str) -> str:
        """Where a file is, with a signature."""
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_port}{path}?X-Amz-Signature=SECRET%2F1"

    def reply(self, asked: Asked) -> Reply:
        """Answer one request."""
        trick = self.tricks.pop(0) if self.tricks else None
        if isinstance(trick, Reply):
            return trick
        if trick is not None:
            return trick(asked, lambda: self.honest(asked))
        return self.honest(asked)

    def honest(self, asked: Asked) -> Reply:
        """Answer as a server should."""
        data = self.files.get(urlsplit(asked.target).path)
        if data is None:
            return Reply(404, body=b"nothing here")
        headers = {"ETag": f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'}
        headers |= self.headers
        headers = {name: value for name, value in headers.items() if value}
        if asked.headers.get("if-match", headers.get("ETag")) != headers.get("ETag"):
            return Reply(412)
        given = asked.headers.get("range")
        if given is None or not self.ranges:
            return Reply(200, headers, data)
        first, last = map(int, given.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return Reply(416, {"Content-Range": f"bytes */{len(data)}"})
        part = data[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return Reply(206, headers, part)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has seen enough."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.path, headers)
        self.server.seen.append(asked)
        reply = self.server.reply(asked)
        self.send_response_only(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut])
        if reply.cut is not None or reply.headers.get("Content-Length") == "":
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def certify(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server on 127.0.0.1 needs to encrypt, and a client to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "etcetera tests")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


@contextmanager
def web_server(encryption: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    """Run one, in threads of this process."""
    with WebServer() as server:
        if encryption is not None:
            server.socket = encryption.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def cut(size: int) -> Trick:
    """Break the connection after *size* bytes of the body."""

    def trick(asked: Asked, honest: Callable[[], Reply]) -> Reply:
        reply = honest()
        return Reply(reply.status, reply.headers, reply.body, size)

    return trick


def changing(**headers: str) -> Trick:
    """Say something else in some headers."""

    def trick(asked: Asked, honest: Callable[[], Reply]) -> Reply:
        reply = honest()
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        return Reply(reply.status, reply.headers | changed, reply.body)

    return trick


def redirect(target: str, status: int = 302) -> Reply:
    """Send whoever asks elsewhere."""
    return Reply(status, {"Location": target})
