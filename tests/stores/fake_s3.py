"""An S3 server that keeps one bucket in memory and answers as no real server should."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from etcetera.settings import RepositorySettings


@dataclass(slots=True)
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def operation(self) -> str:
        """Say in one word what is asked for."""
        if "uploadId" in self.query or "uploads" in self.query:
            put = "copy" if "x-amz-copy-source" in self.headers else "part"
            get = "uploads" if "uploads" in self.query else "parts"
            words = {"PUT": put, "DELETE": "abort", "GET": get}
            return words.get(self.method, "create" if "uploads" in self.query else "complete")
        return "list" if self.path.count("/") == 1 else self.method.lower()


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: int | None = None
    """Content-Length, if it is to be a lie; none at all if it is negative."""
    silent: bool = False
    """Whether the connection is closed without any answer."""


def error(status: int, code: str, more: str = "") -> Answer:
    """Return an error answer."""
    text = f"<Error><Code>{code}</Code><Message>told&#10;so\u202e</Message>{more}</Error>"
    return Answer(status, body=text.encode())


def digest(data: bytes) -> str:
    """Return the ETag of *data*."""
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


Trick = Callable[[Request, Callable[[], Answer]], Answer | Awaitable[Answer]]
"""Answers a request itself, or lets the honest server do it, before or after."""


@dataclass(slots=True)
class FakeS3:
    """An honest server, but for the tricks it is told to play."""

    endpoint: str = ""
    tricks: dict[str, list[Trick | Answer | None]] = field(default_factory=dict)
    """By operation, one for each request that comes; ``None`` and beyond the last: honest."""
    seen: list[Request] = field(default_factory=list)
    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    keeps_metadata: bool = True
    always: dict[str, str] = field(default_factory=dict)
    """Head lines of every answer."""

    @property
    def operations(self) -> list[str]:
        """What was asked for, in order."""
        return [request.operation for request in self.seen]

    def settings(self, **more: object) -> RepositorySettings:
        """Return settings that reach the bucket."""
        keys = {"aws_access_key_id": "AKIAFAKEFAKEFAKEFAKE", "aws_secret_access_key": "sesame/+=x"}
        values = {"url": "s3://bucket", "endpoint_url": self.endpoint} | keys | more
        return RepositorySettings(**values)  # type: ignore[arg-type]

    def serve(self, request: Request) -> Answer:
        """Answer honestly, for one bucket without conditions on reading."""
        key = unquote(request.path.partition("/bucket/")[2])
        upload = request.query.get("uploadId", [""])[0]
        match request.operation:
            case "copy" | "part" | "parts" if upload not in self.uploads:
                return error(404, "NoSuchUpload")
            case "list":
                return Answer(body=b"<ListBucketResult></ListBucketResult>")
            case "create":
                name = f"upload-{len(self.uploads) + 1}"
                self.uploads[name], self.metadata[name] = {}, self._metadata(request)
                text = f"<R><UploadId>{name}</UploadId></R>"
                return Answer(body=text.encode())
            case "part":
                self.uploads[upload][int(request.query["partNumber"][0])] = request.body
                return Answer(headers={"ETag": digest(request.body)})
            case "copy":
                return self._copy(request, upload)
            case "parts" | "uploads":
                return self._parts(request, upload) if upload else self._uploads()
            case "abort":
                self.uploads.pop(upload, None)
                return Answer(204)
            case "delete":
                self.objects.pop(key, None)
                return Answer(204)
            case "complete":
                return self._complete(request, upload, key)
            case "put":
                if key in self.objects and "if-none-match" in request.headers:
                    return error(412, "PreconditionFailed")
                self.objects[key] = request.body, self._metadata(request)
                return Answer(headers={"ETag": digest(request.body)})
            case _:
                return self._read(request, key)

    def _copy(self, request: Request, upload: str) -> Answer:
        number = int(request.query["partNumber"][0])
        source = unquote(request.headers["x-amz-copy-source"].partition("/")[2])
        data = self.objects[source][0]
        if request.headers["x-amz-copy-source-if-match"] != digest(data):
            return error(412, "PreconditionFailed")
        start, stop = request.headers["x-amz-copy-source-range"][6:].split("-")
        data = self.uploads[upload][number] = data[int(start) : int(stop) + 1]
        return Answer(body=f"<R><ETag>{digest(data)}</ETag></R>".encode())

    def _complete(self, request: Request, upload: str, key: str) -> Answer:
        if upload not in self.uploads:
            return error(404, "NoSuchUpload")
        if key in self.objects and "if-none-match" in request.headers:
            return error(412, "PreconditionFailed")
        if (etag := request.headers.get("if-match")) and (
            key not in self.objects or etag != digest(self.objects[key][0])
        ):
            return error(412, "PreconditionFailed")
        parts = self.uploads.pop(upload)
        data = b"".join(parts[number] for number in sorted(parts))
        self.objects[key] = data, self.metadata[upload]
        return Answer(body=b'<R><ETag>"whole-1"</ETag></R>')

    def _parts(self, request: Request, upload: str) -> Answer:
        """One page of the parts of an upload."""
        after = int(request.query.get("part-number-marker", ["0"])[0])
        most = int(request.query["max-parts"][0])
        numbers = sorted(number for number in self.uploads[upload] if number > after)
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<Size>{len(self.uploads[upload][number])}</Size></Part>"
            for number in numbers[:most]
        )
        more = ""
        if len(numbers) > most:
            marker = numbers[most - 1]
            more = f"<IsTruncated>true</IsTruncated><NextPartNumberMarker>{marker}"
            more += "</NextPartNumberMarker>"
        return Answer(body=f"<ListPartsResult>{parts}{more}</ListPartsResult>".encode())

    def _uploads(self) -> Answer:
        """All uploads, whatever they are of."""
        found = "".join(f"<Upload><UploadId>{name}</UploadId></Upload>" for name in self.uploads)
        root = "ListMultipartUploadsResult"
        return Answer(body=f"<{root}>{found}</{root}>".encode())

    def _metadata(self, request: Request) -> dict[str, str]:
        if not self.keeps_metadata:
            return {}
        return {
            name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")
        }

    def _read(self, request: Request, key: str) -> Answer:
        if key not in self.objects:
            return error(404, "NoSuchKey")
        data, headers = self.objects[key]
        headers = headers | {
            "ETag": digest(data),
            "Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT",
        }
        if request.method == "HEAD":
            return Answer(headers=headers, length=len(data))
        start, stop = request.headers["range"].removeprefix("bytes=").split("-")
        last = min(int(stop), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{last}/{len(data)}"
        return Answer(206, headers, data[int(start) : last + 1])

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection, one request."""
        try:
            request = await _receive(reader)
            self.seen.append(request)
            planned = self.tricks.get(request.operation, [])
            trick = planned.pop(0) if planned else None
            if trick is None:
                answer = self.serve(request)
            elif isinstance(trick, Answer):
                answer = trick
            else:
                result = trick(request, lambda: self.serve(request))
                answer = result if isinstance(result, Answer) else await result
            answer.headers = self.always | answer.headers
            if not answer.silent:
                _send(writer, answer, with_body=request.method != "HEAD")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def _receive(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    query = parse_qs(parts.query, keep_blank_values=True)
    return Request(method, parts.path.rstrip("/"), query, headers, body)


def _send(writer: asyncio.StreamWriter, answer: Answer, *, with_body: bool) -> None:
    length = len(answer.body) if answer.length is None else answer.length
    headers = {"Content-Length": str(length), "Connection": "close"} | answer.headers
    if length < 0:
        del headers["Content-Length"]
    lines = [f"HTTP/1.1 {answer.status} Text", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1") + (answer.body if with_body else b""))


@asynccontextmanager
async def fake_s3(fake: FakeS3 | None = None) -> AsyncIterator[FakeS3]:
    """Run a fake server on this event loop."""
    fake = fake or FakeS3()
    server = await asyncio.start_server(fake.connect, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        fake.endpoint = f"http://{host}:{port}"
        yield fake
