"""The fake Google Cloud Storage: its XML API, and its faults."""

import asyncio
import base64
import gzip
import hashlib
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.fake_gs import FakeGS, fake_gs, faults

pytestmark = pytest.mark.timeout(30)
UNIFORM = "uniform bucket-level access is enabled"


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str:
        """Return the code of an error."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""

    def texts(self, name: str) -> list[str]:
        """Return the texts of all elements of a name."""
        return [one.text or "" for one in ET.fromstring(self.body).iter() if _is(one, name)]  # noqa: S314


def _is(element: ET.Element, name: str) -> bool:
    return element.tag.rpartition("}")[2] == name


class Client:
    """Sends what it is told to."""

    def __init__(self, server: FakeGS, session: aiohttp.ClientSession):
        self.server = server
        self.session = session

    async def __call__(
        self, method: str, path: str, body: bytes | io.BytesIO = b"", /, **headers: str
    ) -> Answer:
        """Send a request; ``_`` in names of head lines is ``-``."""
        lines = {name.replace("_", "-"): value for name, value in headers.items()}
        lines.setdefault("Accept-Encoding", "identity")
        url = URL(self.server.endpoint + path, encoded=True)
        async with self.session.request(method, url, data=body, headers=lines) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def begin(self, name: str, **headers: str) -> str:
        """Begin an upload, and return its path with its number."""
        answer = await self("POST", f"/bucket/{name}?uploads", **headers)
        assert answer.status == 200, answer.body
        (key,) = answer.texts("UploadId")
        return f"/bucket/{name}?uploadId={key}"


@pytest.fixture
async def server() -> AsyncIterator[FakeGS]:
    """Run a fake server, with a bucket."""
    async with fake_gs() as fake:
        fake.make_bucket("bucket")
        yield fake


@pytest.fixture
async def client(server: FakeGS) -> AsyncIterator[Client]:
    """Return a client of the fake server."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        session._retry_connection = False  # else aiohttp tries all but POST once more by itself
        yield Client(server, session)


def listed(*parts: tuple[int, str]) -> bytes:
    """Return a request to complete an upload."""
    lines = (f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in parts)
    return f"<CompleteMultipartUpload>{''.join(lines)}</CompleteMultipartUpload>".encode()


async def test_objects(server: FakeGS, client: Client) -> None:
    """Objects can be stored, read, and deleted, under conditions."""
    made = await client("PUT", "/bucket/a/%C3%BC", b"hello", x_goog_meta_k="v", Content_Type="a/b")
    blob = server.buckets["bucket"].objects["a/ü"]
    assert (made.status, made.headers["x-goog-generation"]) == (200, str(blob.generation))
    answer = await client("GET", "/bucket/a/%C3%BC", Range="bytes=1-2")
    assert (answer.status, answer.body) == (206, b"el")
    assert answer.headers["Content-Range"] == "bytes 1-2/5"
    assert answer.headers["x-goog-meta-k"] == "v"
    assert answer.headers.getall("x-goog-hash") == blob.hashes
    assert answer.headers["x-goog-stored-content-length"] == "5"
    etag = answer.headers["ETag"]
    assert (await client("HEAD", "/bucket/a/%C3%BC", If_None_Match=etag)).status == 304
    assert (await client("HEAD", "/bucket/a/%C3%BC", If_Match='"no"')).status == 412
    assert (await client("GET", "/bucket/a/%C3%BC", Range="bytes=5-")).code == "InvalidRange"
    assert (await client("GET", "/bucket/a/%C3%BC?generation=1")).code == "NoSuchKey"
    assert (await client("GET", "/nowhere/a")).code == "NoSuchBucket"
    zero = {"x-goog-if-generation-match": "0"}
    assert (await client("PUT", "/bucket/a/%C3%BC", b"", **zero)).code == "PreconditionFailed"
    assert (await client("DELETE", "/bucket/a/%C3%BC")).status == 204
    assert not server.buckets["bucket"].objects


async def test_host_names(server: FakeGS, client: Client) -> None:
    """The bucket may be in the name of the host."""
    server.put("bucket", "a/b", b"1")
    answer = await client("GET", "/a/b", Host="bucket.storage.googleapis.com")
    assert answer.body == b"1"


async def test_digests(client: Client) -> None:
    """Data are compared with what is said of them."""
    right = base64.b64encode(hashlib.md5(b"data", usedforsecurity=False).digest()).decode()
    wrong = base64.b64encode(hashlib.md5(b"other", usedforsecurity=False).digest()).decode()
    assert (await client("PUT", "/bucket/a", b"data", Content_MD5=right)).status == 200
    assert (await client("PUT", "/bucket/a", b"data", Content_MD5=wrong)).code == "BadDigest"
    assert (await client("PUT", "/bucket/a", b"data", Content_MD5="no")).code == "InvalidDigest"
    told = "crc32c=AAAAAA=="
    assert (await client("PUT", "/bucket/a", b"data", x_goog_hash=told)).code == "BadDigest"


async def test_uploading_in_parts(server: FakeGS, client: Client) -> None:
    """Parts make an object, if they are listed as they should be."""
    server.least_part = 4
    path = await client.begin("a", x_goog_meta_k="v", Content_Type="a/b", x_goog_acl="public-read")
    etags = {}
    for number, data in ((3, b"cc"), (1, b"aaaa"), (2, b"bbbb"), (4, b"lost"), (1, b"AAAA")):
        answer = await client("PUT", f"{path}&partNumber={number}", data)
        etags[number] = answer.headers["ETag"]
        assert len(answer.headers.getall("x-goog-hash")) == 2
    first = await client("GET", f"{path}&max-parts=3")
    assert first.texts("PartNumber") == ["1", "2", "3"]
    assert first.texts("Size") == ["4", "4", "2"]
    assert (first.texts("IsTruncated"), first.texts("NextPartNumberMarker")) == (["true"], ["3"])
    second = await client("GET", f"{path}&part-number-marker=3")
    assert (second.texts("PartNumber"), second.texts("IsTruncated")) == (["4"], ["false"])
    for code, body in (
        ("InvalidPartOrder", listed((2, etags[2]), (1, etags[1]))),
        ("InvalidPart", listed((1, etags[2]))),
        ("InvalidPart", listed((5, etags[2]))),
        ("EntityTooSmall", listed((2, etags[2]), (3, etags[3]), (4, etags[4]))),
        ("MalformedXML", listed()),
        ("MalformedXML", b"<Complete"),
    ):
        answer = await client("POST", path, body)
        assert (answer.status, answer.code) == (400, code)
    wanted = listed((1, etags[1]), (2, etags[2].strip('"')), (3, etags[3]))
    answer = await client("POST", path, wanted)
    blob = server.buckets["bucket"].objects["a"]
    assert answer.status == 200
    assert answer.headers.getall("x-goog-hash") == [f"crc32c={blob.crc32c}"]
    assert answer.texts("ETag") == [blob.xml_etag]
    assert (blob.data, blob.metadata, blob.public) == (b"AAAAbbbbcc", {"k": "v"}, True)
    assert not blob.has_md5
    again = await client("POST", path, wanted)
    assert (again.status, again.body) == (200, answer.body)
    assert server.buckets["bucket"].objects["a"] is blob
    server.remembers_uploads = False
    for method in ("POST", "GET", "DELETE"):
        answer = await client(method, path, wanted)
        assert (answer.status, answer.code) == (404, "NoSuchUpload")


@pytest.mark.parametrize("name", ["x-goog-if-generation-match", "If-None-Match", "If-Match"])
async def test_no_conditions_in_parts(server: FakeGS, client: Client, name: str) -> None:
    """Uploads in parts cannot have conditions."""
    path = await client.begin("a")
    answers = [
        await client("POST", "/bucket/a?uploads", **{name: "0"}),
        await client("PUT", f"{path}&partNumber=1", b"1", **{name: "0"}),
        await client("POST", path, listed((1, "")), **{name: "0"}),
    ]
    assert [(one.status, one.code) for one in answers] == [(400, "NotImplemented")] * 3
    assert len(server.buckets["bucket"].uploads) == 1


async def test_listing_uploads(server: FakeGS, client: Client) -> None:
    """Uploads that are not finished are listed, page by page."""
    for name in ("b/2", "a", "b/1", "c", "a"):
        await client.begin(name)
    keys: list[str] = []
    markers = ""
    for _ in range(3):
        answer = await client("GET", f"/bucket?uploads&max-uploads=2{markers}")
        keys += answer.texts("Key")
        if answer.texts("IsTruncated") == ["false"]:
            break
        (key,), (upload,) = answer.texts("NextKeyMarker"), answer.texts("NextUploadIdMarker")
        markers = f"&key-marker={key}&upload-id-marker={upload}"
    assert keys == ["a", "a", "b/1", "b/2", "c"]
    assert (await client("GET", "/bucket?uploads&prefix=b/")).texts("Key") == ["b/1", "b/2"]
    answer = await client("GET", "/bucket?uploads&delimiter=/")
    assert answer.texts("Key") == ["a", "a", "c"]
    assert answer.texts("Prefix") == ["", "b/"]
    path = next(iter(server.buckets["bucket"].uploads))
    for _ in range(2):
        assert (await client("DELETE", f"/bucket/b/2?uploadId={path}")).status == 204
    assert len(server.buckets["bucket"].uploads) == 4


async def test_uniform_access(server: FakeGS, client: Client) -> None:
    """Where the policy of the bucket rules, no access control list is taken."""
    server.buckets["bucket"].uniform = True
    for method, path in (("PUT", "/bucket/a"), ("POST", "/bucket/a?uploads")):
        answer = await client(method, path, x_goog_acl="public-read")
        assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert UNIFORM.encode() in answer.body
    assert not server.buckets["bucket"].uploads


async def test_decompressing(server: FakeGS, client: Client) -> None:
    """What is stored compressed is sent otherwise, unless that is refused."""
    packed = gzip.compress(b"hello" * 50)
    await client("PUT", "/bucket/a", packed, Content_Encoding="gzip")
    assert server.data("bucket", "a") == packed
    answer = await client("GET", "/bucket/a", Range="bytes=0-3")
    assert (answer.status, answer.body) == (200, b"hello" * 50)
    assert "Content-Length" not in answer.headers
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["x-goog-stored-content-encoding"] == "gzip"
    for headers in ({"Accept-Encoding": "gzip"}, {"Cache-Control": "no-transform"}):
        answer = await client("GET", "/bucket/a", Range="bytes=0-3", **headers)
        assert (answer.status, answer.body) == (206, packed[:4])
        assert answer.headers["Content-Encoding"] == "gzip"


async def test_faults(server: FakeGS, client: Client) -> None:
    """Faults happen to whom they were planned for, and as often."""
    server.put("bucket", "a", b"0123456789")
    server.plan("xml.get", faults.answer(503, headers={"Retry-After": "0"}), times=2)
    server.plan("xml.*", faults.truncate(4))
    server.plan("xml.get", faults.unauthorized(), where="?generation=")
    server.plan("xml.get", faults.damage(0), skip=1)
    server.plan("xml.put", faults.lose_reply())
    server.plan("xml.complete", faults.error_in_success())
    server.plan("xml.head", faults.stall())
    for _ in range(2):
        answer = await client("GET", "/bucket/a")
        assert (answer.status, answer.code) == (503, "ServiceUnavailable")
        assert answer.headers["Retry-After"] == "0"
    with pytest.raises(aiohttp.ClientPayloadError):
        await client("GET", "/bucket/a")
    assert (await client("GET", "/bucket/a?generation=1")).code == "AuthenticationRequired"
    answer = await client("POST", "/bucket/a?uploadId=1")
    assert (answer.status, answer.code) == (200, "InternalError")
    assert (await client("GET", "/bucket/a")).body == b"0123456789"
    assert (await client("GET", "/bucket/a")).body == b"1123456789"
    with pytest.raises(aiohttp.ClientError):
        await client("PUT", "/bucket/b", b"1")
    assert server.data("bucket", "b") == b"1"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client("HEAD", "/bucket/a")
    server.plan("xml.get", faults.changed(b"new"))
    generation = server.buckets["bucket"].objects["a"].generation
    condition = {"x-goog-if-generation-match": str(generation)}
    assert (await client("GET", "/bucket/a", **condition)).code == "PreconditionFailed"


async def test_reset_while_sending(server: FakeGS, client: Client) -> None:
    """A connection may break in the midst of what is sent."""
    server.plan("xml.put", faults.reset(after=100_000))
    with pytest.raises(aiohttp.ClientError):
        await client("PUT", "/bucket/a", io.BytesIO(bytes(5_000_000)))
    assert not server.buckets["bucket"].objects
    assert 100_000 <= server.requests[0].size < 5_000_000


async def test_soft_delete(server: FakeGS, client: Client) -> None:
    """What was deleted not long ago can be had back."""
    blob = server.put("bucket", "a", b"1")
    await client("DELETE", "/bucket/a")
    path = f"/storage/v1/b/bucket/o/a/restore?generation={blob.generation}"
    assert (await client("POST", path)).status == 200
    assert server.data("bucket", "a") == b"1"


async def test_resumable_sessions(server: FakeGS, client: Client) -> None:
    """Pieces of an upload come in order; what is there can be asked for."""
    server.put("bucket", "a", b"old")
    server.secured = True
    token = server.allow(permissions=["storage.objects.create", "storage.objects.delete"])
    path = "/upload/storage/v1/b/bucket/o?uploadType=resumable&ifGenerationMatch="
    start = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    answer = await client("POST", f"{path}0&name=a", b"{}", **start)
    session = URL(answer.headers["Location"]).raw_path_qs
    assert (await client("PUT", session, b"new")).status == 412
    answer = await client("POST", f"{path}0&name=b", b"{}", **start)
    session = URL(answer.headers["Location"]).raw_path_qs
    size = 256 * 1024
    for content, head, status, known in (
        (b"", "bytes */*", 308, None),
        (bytes(size + 9), f"bytes 0-{size + 8}/*", 308, size),
        (bytes(size), f"bytes 0-{size - 1}/*", 308, size),
        (b"12", f"bytes {size + 5}-{size + 6}/{size + 7}", 503, None),
        (b"12", f"bytes {size}-{size + 8}/*", 400, None),
        (b"", "bytes */*", 308, size),
        (b"12", f"bytes {size}-{size + 1}/{size + 2}", 200, None),
        (b"", "bytes */*", 200, None),
    ):
        answer = await client("PUT", session, content, Content_Range=head)
        assert answer.status == status, head
        wanted = None if known is None else f"bytes=0-{known - 1}"
        assert answer.headers.get("Range") == wanted
    assert server.data("bucket", "b") == bytes(size) + b"12"
    answer = await client("POST", f"{path}0&name=c", b"{}", **start)
    session = URL(answer.headers["Location"]).raw_path_qs
    late = server.clock() + server.session_seconds + 1
    server.clock = lambda: late
    assert (await client("PUT", session, b"new")).status == 404


async def test_requester_pays(server: FakeGS, client: Client) -> None:
    """Where who asks has to pay, it must be said who does."""
    server.put("bucket", "a", b"1")
    server.buckets["bucket"].requester_pays = True
    answer = await client("GET", "/bucket/a")
    assert (answer.status, answer.code) == (400, "UserProjectMissing")
    assert (await client("GET", "/bucket/a", x_goog_user_project="me")).body == b"1"
    path = "/storage/v1/b/bucket/o/a"
    answer = await client("GET", path)
    assert (answer.status, b'"reason": "required"' in answer.body) == (400, True)
    assert (await client("GET", f"{path}?userProject=me")).status == 200


async def test_hidden_objects(server: FakeGS, client: Client) -> None:
    """Who may not list a bucket does not learn what is missing from it."""
    server.put("bucket", "a", b"1")
    token = server.allow(permissions=["storage.objects.get"])
    head = {"Authorization": f"Bearer {token}"}
    assert (await client("GET", "/bucket/a", **head)).status == 200
    assert (await client("GET", "/bucket/b", **head)).code == "AccessDenied"
    server.allow(token, ["storage.objects.get", "storage.objects.list"])
    assert (await client("GET", "/bucket/b", **head)).code == "NoSuchKey"
    path = "/storage/v1/b/bucket/iam/testPermissions?permissions="
    answer = await client("GET", f"{path}storage.objects.get&permissions=x", **head)
    assert b'"permissions": ["storage.objects.get"]' in answer.body
