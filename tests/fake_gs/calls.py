"""One request to the fake server: what it asks for, and of what."""

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from tests.fake_gs.errors import (
    Refusal,
    access_denied,
    invalid,
    no_bucket,
    no_object,
    user_project_missing,
)
from tests.fake_gs.model import Blob, Bucket, Identity

if TYPE_CHECKING:
    from tests.fake_gs.state import FakeGS

_JSON = "/storage/v1/b"
_ROUTES = [
    (re.compile(pattern), operations)
    for pattern, operations in (
        (f"{_JSON}/?", {"GET": "buckets.list", "POST": "buckets.insert"}),
        (
            f"{_JSON}/(?P<bucket>[^/]+)",
            {"GET": "buckets.get", "DELETE": "buckets.delete", "PATCH": "buckets.patch"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/iam",
            {"GET": "buckets.getIamPolicy", "PUT": "buckets.setIamPolicy"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/iam/testPermissions",
            {"GET": "buckets.testIamPermissions"},
        ),
        (f"{_JSON}/(?P<bucket>[^/]+)/o", {"GET": "objects.list"}),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)",
            {"GET": "objects.get", "DELETE": "objects.delete", "PATCH": "objects.patch"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/acl",
            {"GET": "acl.list", "POST": "acl.insert"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/acl/(?P<other_name>[^/]+)",
            {"GET": "acl.get", "DELETE": "acl.delete", "PATCH": "acl.patch", "PUT": "acl.patch"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/compose",
            {"POST": "objects.compose"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/restore",
            {"POST": "objects.restore"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)/moveTo/o/(?P<other_name>[^/]+)",
            {"POST": "objects.move"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)"
            "/rewriteTo/b/(?P<other_bucket>[^/]+)/o/(?P<other_name>[^/]+)",
            {"POST": "objects.rewrite"},
        ),
        (
            f"{_JSON}/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)"
            "/copyTo/b/(?P<other_bucket>[^/]+)/o/(?P<other_name>[^/]+)",
            {"POST": "objects.copy"},
        ),
        (
            "/download/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^/]+)",
            {"GET": "objects.get"},
        ),
        (
            f"(?:/resumable)?/upload{_JSON}/(?P<bucket>[^/]+)/o",
            {"POST": "objects.insert", "PUT": "objects.insert", "DELETE": "objects.insert"},
        ),
        ("/token", {"POST": "token"}),
        ("/", {"GET": "metadata"}),
        ("/computeMetadata/v1/(?P<name>.*)", {"GET": "metadata"}),
        (
            "/v1/projects/-/serviceAccounts/(?P<bucket>[^/:]+):(?P<name>\\w+)",
            {"POST": "iam"},
        ),
    )
]
_HOST = re.compile(r"(?P<bucket>.+)\.storage\.(?:googleapis\.com|localhost)(?::\d+)?")


@dataclass(slots=True)
class Seen:
    """What arrived, for tests to look at."""

    operation: str
    method: str
    path: str
    """As it was sent, without the query."""
    query: dict[str, str]
    headers: dict[str, str]
    """By names in small letters."""
    size: int = 0
    """Bytes of the body, as far as it was read."""
    status: int = 0
    """Of the answer, if there was one."""


@dataclass(slots=True)
class Call:
    """A request and what was found out about it."""

    server: "FakeGS"
    request: web.BaseRequest
    path: str
    pairs: list[tuple[str, str]]
    operation: str = "unknown"
    bucket_name: str = ""
    name: str = ""
    other_bucket: str = ""
    other_name: str = ""
    xml: bool = False
    media: bool = False
    """Whether the answer is data, or an error in plain text."""
    identity: Identity = field(default_factory=Identity)
    seen: Seen = field(init=False)
    _body: bytes | None = None

    def __post_init__(self) -> None:
        self._classify()
        headers = {name.lower(): value for name, value in self.request.headers.items()}
        self.seen = Seen(self.operation, self.request.method, self.path, dict(self.pairs), headers)

    @classmethod
    def of(cls, server: "FakeGS", request: web.BaseRequest) -> "Call":
        """Take a request apart."""
        target = request.raw_path
        if not target.startswith("/"):
            target = "/" + target.split("/", 3)[-1]
        path, _, query = target.partition("?")
        return cls(server, request, path, parse_qsl(query, keep_blank_values=True))

    @property
    def query(self) -> dict[str, str]:
        """Return what stands behind the question mark."""
        return dict(self.pairs)

    @property
    def headers(self) -> dict[str, str]:
        """Return the head lines; names are in small letters."""
        return self.seen.headers

    def integer(self, key: str) -> int | None:
        """Return a parameter that is a number."""
        text = self.query.get(key)
        if text is None:
            return None
        try:
            return int(text)
        except ValueError:
            raise invalid(f"Invalid value '{text}' for '{key}'.", "invalidParameter") from None

    def flag(self, key: str) -> bool:
        """Return a parameter that is true or false."""
        return self.query.get(key, "").lower() == "true"

    async def body(self) -> bytes:
        """Return all that was sent."""
        if self._body is None:
            self._body = await self.request.content.read()
            self.seen.size = len(self._body)
        return self._body

    async def json(self) -> dict[str, Any]:
        """Return the JSON that was sent."""
        text = await self.body()
        if not text.strip():
            return {}
        try:
            found = json.loads(text)
        except ValueError:
            raise invalid("Parse Error", "parseError") from None
        if not isinstance(found, dict):
            raise invalid("Parse Error", "parseError")
        return found

    def allows(self, permission: str, bucket: Bucket | None, blob: Blob | None = None) -> bool:
        """Whether who asks may do something there."""
        if self.identity.may(permission):
            return True
        if bucket is not None and permission in bucket.public:
            return True
        readable = bucket is not None and not bucket.uniform and blob is not None and blob.public
        return permission == "storage.objects.get" and readable

    def need(self, permission: str, bucket: Bucket | None, blob: Blob | None = None) -> None:
        """Refuse who may not do something there."""
        if not self.allows(permission, bucket, blob):
            raise access_denied(self.identity.name, permission, xml=self.xml)

    def bucket(self, name: str = "") -> Bucket:
        """Return the bucket, if it is there and someone pays for it."""
        found = self.server.buckets.get(name or self.bucket_name)
        if found is None:
            raise no_bucket()
        pays = self.query.get("userProject") or self.headers.get("x-goog-user-project")
        if found.requester_pays and not pays:
            raise user_project_missing()
        return found

    def blob(
        self, bucket: Bucket, permission: str, name: str = "", generation: int | None = None
    ) -> Blob:
        """Return an object; who may not list the bucket does not learn that it is missing."""
        name = name or self.name
        found = bucket.find(name, generation)
        self.need(permission, bucket, found)
        if found is None:
            self.need("storage.objects.list", bucket)
            raise no_object(bucket.name, name)
        return found

    def refuse(self, refusal: Refusal) -> web.Response:
        """Tell of a refusal in the way of the API that was asked."""
        if self.xml:
            return refusal.as_xml()
        return refusal.as_text() if self.media else refusal.as_json()

    def _classify(self) -> None:
        if host := _HOST.fullmatch(self.request.host):
            self._xml(host["bucket"], self.path.removeprefix("/"))
            return
        for pattern, operations in _ROUTES:
            if found := pattern.fullmatch(self.path):
                groups = {key: unquote(value) for key, value in found.groupdict().items()}
                self.bucket_name = groups.get("bucket", "")
                self.name = groups.get("name", "")
                self.other_bucket = groups.get("other_bucket", "")
                self.other_name = groups.get("other_name", "")
                self.operation = operations.get(self.request.method, "unknown")
                self._refine()
                return
        if not self.path.startswith(("/storage/", "/download/", "/upload/")):
            bucket, _, name = self.path.removeprefix("/").partition("/")
            self._xml(bucket, name)

    def _refine(self) -> None:
        """Tell apart what has the same path."""
        query = self.query
        if self.operation == "objects.get" and query.get("alt") == "media":
            self.media = True
            self.operation = "objects.media"
        elif self.operation == "objects.insert" and "upload_id" in query:
            words = {"DELETE": "resumable.cancel"}
            status = self.request.headers.get("Content-Range", "").startswith("bytes */")
            other = "resumable.query" if status else "resumable.put"
            self.operation = words.get(self.request.method, other)
        elif self.operation == "objects.insert":
            begins = query.get("uploadType") == "resumable"
            self.operation = "resumable.start" if begins else "objects.insert"
            self.operation = self.operation if self.request.method == "POST" else "unknown"

    def _xml(self, bucket: str, name: str) -> None:
        self.xml = True
        self.bucket_name, self.name = unquote(bucket), unquote(name)
        query, method = self.query, self.request.method
        if "uploadId" in query:
            words = {"PUT": "part", "POST": "complete", "GET": "parts", "DELETE": "abort"}
        elif "uploads" in query:
            words = {"POST": "initiate"} if name else {"GET": "uploads"}
        elif name:
            words = {"GET": "get", "HEAD": "head", "PUT": "put", "DELETE": "delete"}
        else:
            words = {}
        self.operation = f"xml.{words[method]}" if method in words else "unknown"
