"""A home, a server, and between them a proxy that breaks things."""

import http.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import etcetera as etc
from etcetera.settings import RepositorySettings
from etcetera.transfer.options import KiB, TransferOptions
from tests.fault_proxy import FaultProxy
from tests.servers import S3Server, make_moto_bucket

PART = 256 * KiB
OPTIONS = TransferOptions(part_size=PART, workers=3, level=1, threads=2)
"""Many parts and ranges of little data."""
_SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20261101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
"""moto looks at no signature, but at whether there is one."""


@dataclass(slots=True, kw_only=True)
class Site:
    """A home without datasets, and an empty bucket."""

    proxy: FaultProxy
    server: S3Server
    home: Path
    source: Path
    """A dataset that makes an archive of five parts."""
    bucket: str = ""

    def __post_init__(self) -> None:
        self.bucket = self.bucket or make_moto_bucket(self.server)

    def config(self, **more: Any) -> etc.Config:
        """Settings that lead to the bucket through the proxy."""
        settings = {"endpoint_url": self.proxy.endpoint, "region": "us-east-1"} | more
        config = etc.Config(f"s3://{self.bucket}", self.home, **settings)
        config.transfer = OPTIONS
        return config

    @property
    def settings(self) -> RepositorySettings:
        """The same for a store."""
        return self.config().repository()

    async def push(self, *, force: bool = False, **more: Any) -> etc.PushResult:
        """Push the source; unlike by default all of it, also where there is an older archive."""
        config = self.config(**more)
        if not (self.home / "set").exists():
            await etc.aregister(self.source, "set", config=config)
        return await etc.apush("set", force=force, base="" if force else None, config=config)

    async def pull(self, name: str = "set", **more: Any) -> etc.PullResult:
        """Pull it."""
        return await etc.apull(name, config=self.config(), **more)

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
        """Ask the server itself; return the ETag and the body of the answer."""
        connection = http.client.HTTPConnection(urlsplit(self.server.endpoint).netloc, timeout=30)
        try:
            connection.request(method, f"/{self.bucket}{path}", body, _SIGNED)
            answer = connection.getresponse()
            return answer.getheader("ETag") or "", answer.read()
        finally:
            connection.close()

    def put(self, data: bytes) -> str:
        """Store an archive; return its ETag."""
        return self.ask("PUT", "/set.tgz", data)[0]

    def stored(self) -> str:
        """The ETag of the archive in the bucket; empty if there is none."""
        return self.ask("HEAD", "/set.tgz")[0]

    def open_uploads(self) -> int:
        """How many uploads the server knows."""
        text = self.ask("GET", "/?uploads")[1]
        assert b"ListMultipartUploadsResult" in text
        return text.count(b"<UploadId>")

    def assert_clean(self, *, uploads: int = 0) -> None:
        """Assert that no staging tree is left, nor more uploads than a journal keeps."""
        staging = self.home / ".etcetera" / "staging"
        assert not staging.exists() or not list(staging.iterdir())
        assert self.open_uploads() == uploads

    def content(self) -> bytes:
        """The archive in the bucket."""
        return self.ask("GET", "/set.tgz")[1]


def assert_readable(error: BaseException) -> None:
    """Assert that an error is one of ours, and one line that holds no secret."""
    assert isinstance(error, etc.EtceteraError)
    text = str(error)
    assert text.isprintable()
    assert 10 < len(text) < 600
    for line in (text, *getattr(error, "__notes__", ())):
        assert "testing-secret" not in line
        assert "Traceback" not in line
