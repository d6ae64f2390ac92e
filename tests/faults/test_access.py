"""Who may, where it is and whom to trust: credentials, regions, endpoints, certificates."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

import etcetera as etc
from etcetera.errors import (
    AlreadyExists,
    DatasetNotFound,
    NetworkError,
    NoCredentials,
    NotAllowed,
)
from etcetera.stores import patience
from tests.datasets import snapshot
from tests.fault_proxy import ALWAYS, Rule, answer, fault_proxy
from tests.fault_site import Site, assert_readable
from tests.http_server import certify
from tests.servers import S3Server

EMPTY = b"<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no credentials."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


# Credentials


async def test_no_credentials_anywhere(
    site: Site, nobody: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-07: where a machine's own service of credentials is silent, nobody waits for it long."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{host}:{port}")
        with anyio.fail_after(10), pytest.raises(NoCredentials) as caught:
            await site.push()
    assert asked.is_set()
    assert_readable(caught.value)
    assert site.proxy.count("create") == 0


async def test_unsigned_pull(site: Site, nobody: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-11: what is public is pulled without credentials; what is not says that it needs some."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "testing")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        await site.push(public=True)
    await etc.apurge("set", site.config())
    site.proxy.seen.clear()
    result = await site.pull()
    assert snapshot(result.path) == snapshot(site.source)
    assert not any("authorization" in request.headers for request in site.proxy.seen)
    site.put(b"private")
    with pytest.raises(NoCredentials) as caught:
        await site.pull(force=True)
    assert_readable(caught.value)
    site.assert_clean()


RENEWING = """
n=$(wc -l < {directory}/count); echo >> {directory}/count
echo '{{"Version": 1, "AccessKeyId": "key-'$n'-", "SecretAccessKey": "secret",'
echo '"SessionToken": "session", "Expiration": "{soon}"}}'
"""


async def test_renewed_on_the_way(site: Site, nobody: None, archive: bytes) -> None:
    """AU-08, DN-11: credentials that expire on the way are renewed, and the transfer goes on."""
    directory = await anyio.Path.home() / ".aws"
    await directory.mkdir()
    await (directory / "count").touch()
    # So soon that they are renewed for each request.
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    await (directory / "renew").write_text(RENEWING.format(directory=directory, soon=soon))
    await (directory / "config").write_text(
        f"[profile lab]\ncredential_process = sh {directory}/renew\n"
    )
    await site.push(profile="lab")
    used = [
        request.headers["authorization"].partition("key-")[2].partition("-")[0]
        for request in site.proxy.seen
        if request.operation == "part"
    ]
    assert len(used) == 5
    assert len(set(used)) > 1
    assert site.content() == archive
    site.assert_clean()


async def test_wrong_clock(site: Site) -> None:
    """AU-06: a wrong clock is told with both times."""
    body = (
        b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large</Message>"
        b"<RequestTime>20261125T120000Z</RequestTime><ServerTime>2026-11-25T14:00:00Z</ServerTime>"
        b"</Error>"
    )
    site.proxy.plan(Rule("head", answer(403)), Rule("list", answer(403, body=body)))
    with pytest.raises(NotAllowed, match=r"it says 20\S+, the server says 2026-11-25T14") as caught:
        await site.push()
    assert_readable(caught.value)
    site.assert_clean()


# Where


@pytest.mark.parametrize(
    "fault",
    [
        answer(301, "PermanentRedirect", x_amz_bucket_region="eu-west-3"),
        answer(307, "TemporaryRedirect", x_amz_bucket_region="eu-west-3"),
        answer(
            400,
            body=b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>",
            x_amz_bucket_region="eu-west-3",
        ),
        answer(400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-west-3"),
    ],
    ids=["moved", "moved for now", "wrong region", "wrong place"],
)
async def test_other_region(site: Site, archive: bytes, fault: Any) -> None:
    """AU-05, DN-15: the region is learned once; the part that was refused is sent again, whole."""
    site.proxy.plan(Rule("part", fault))
    await site.push()
    assert site.content() == archive
    assert site.proxy.count("part") == 6
    scopes = [
        request.headers["authorization"].partition("Credential=")[2].split("/")[2]
        for request in site.proxy.seen
    ]
    assert scopes[0] == "us-east-1"
    assert scopes[-1] == "eu-west-3"
    site.assert_clean()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_path_style(site: Site, archive: bytes, host: str) -> None:
    """AU-04: with an endpoint of one's own the bucket is in the path, whatever its name."""
    site.ask("PUT", "")
    site.bucket = f"{site.bucket}.with.dots"
    site.ask("PUT", "")
    endpoint = site.proxy.endpoint.replace("127.0.0.1", host)
    await site.push(endpoint_url=endpoint)
    assert {request.path.split("/")[1] for request in site.proxy.seen} == {site.bucket}
    assert site.content() == archive


async def test_proxy_of_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-12: requests go by the proxy that the environment names."""
    monkeypatch.setenv("HTTP_PROXY", site.proxy.endpoint)
    site.proxy.plan(Rule("any", answer(200, body=EMPTY), where="http://elsewhere.invalid/"))
    config = site.config(endpoint_url="http://elsewhere.invalid")
    assert await etc.als(remote=True, config=config) == []


async def test_certificates(
    tmp_path: Path, small_moto: S3Server, source: Path, monkeypatch: pytest.MonkeyPatch, hasty: None
) -> None:
    """AU-12: a certificate is trusted if it was said to be, and only for its own host."""
    server, _ = certify(tmp_path)
    monkeypatch.setattr(patience, "FIRST_ATTEMPTS", 2)
    async with fault_proxy(small_moto.endpoint, server) as proxy:
        site = Site(proxy=proxy, server=small_moto, home=tmp_path / "home", source=source)
        with pytest.raises(NetworkError, match="cannot be trusted") as caught:
            await site.push()
        assert_readable(caught.value)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "server.pem"))
        with pytest.raises(NetworkError, match="cannot be trusted"):
            await site.push(endpoint_url=proxy.endpoint.replace("127.0.0.1", "localhost"))
        assert proxy.seen == []
        await site.push()
        assert site.stored()


# Buckets that keep what was


async def test_versioned_bucket(site: Site, archive: bytes) -> None:
    """UP-32: where a bucket keeps every version, a deleted name is free, and lists as absent."""
    site.ask(
        "PUT",
        "/?versioning",
        b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    )
    await site.push()
    with pytest.raises(AlreadyExists):
        await site.push()
    await site.push(force=True)
    site.ask("DELETE", "/set.tgz")
    assert await etc.als(remote=True, config=site.config()) == []
    await etc.apurge("set", site.config())
    with pytest.raises(DatasetNotFound):
        await site.pull()
    await site.push()
    assert site.content() == archive
    site.assert_clean()


async def test_trouble_before_anything(site: Site, nobody: None) -> None:
    """AU-11, UP-30: without credentials trouble is waited for as well."""
    site.proxy.plan(Rule("any", answer(503, "SlowDown"), times=ALWAYS))
    with pytest.raises(NetworkError):
        await site.pull()
    assert len(site.proxy.seen) <= patience.ATTEMPTS


async def test_a_fault_that_never_comes(small_moto: S3Server) -> None:
    """AS-09: a test that plans a fault fails unless it happens."""
    with pytest.raises(AssertionError, match="was planned 2 times and came 0"):
        async with fault_proxy(small_moto.endpoint) as proxy:
            proxy.plan(Rule("get", answer(500), times=2))
