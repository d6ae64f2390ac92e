"""What is particular to S3: servers that lie, refuse, lose replies, or do not know a word."""

import asyncio
import logging
import socket
import sys
import threading
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import quote

import aiohttp
import anyio
import pytest

from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NoCredentials,
    NotAllowed,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
    TruncatedArchive,
)
from etcetera.settings import RepositorySettings
from etcetera.stores import (
    ObjectInfo,
    Store,
    common,
    open_store,
    patience,
    s3,
    s3_models,
    s3_publish,
)
from etcetera.stores.place import Place
from etcetera.stores.s3 import S3Store
from tests.stores.fake_s3 import Answer, FakeS3, Request, error

PART = 5 << 20


pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def store(fake: FakeS3) -> AsyncIterator[Store]:
    """Open the bucket of the fake server."""
    async with open_store(fake.settings()) as opened:
        yield opened


async def push(store: Store, data: bytes = b"data", *, overwrite: bool = False) -> ObjectInfo:
    """Upload one part."""
    async with store.upload("a.tgz", part_size=PART, overwrite=overwrite) as upload:
        await upload.put_part(1, data, zlib.crc32(data))
        return await upload.complete()


async def put(store: Store, data: bytes = b"data", *, overwrite: bool = False) -> ObjectInfo:
    """Store without parts."""
    return await store.put("a.tgz", data, overwrite=overwrite)


async def read(store: Store, start: int, stop: int) -> bytes | bytearray:
    """Read one range."""
    async with store.open("a.tgz") as remote:
        assert remote is not None
        return await remote.read(start, stop)


# Opening


async def test_first_request_does_not_block(moto_settings: RepositorySettings) -> None:
    """From opening to the first answer the event loop never waits longer than 50 ms."""

    async def longest_pause() -> float:
        s3_models.model_loader.cache_clear()
        pauses = [0.0]
        async with anyio.create_task_group() as tasks:

            async def tick() -> None:
                while True:
                    before = time.perf_counter()
                    await anyio.sleep(0.001)
                    pauses.append(time.perf_counter() - before - 0.001)

            tasks.start_soon(tick)
            await anyio.sleep(0.01)
            async with open_store(moto_settings) as store:
                assert await store.head("a.tgz") is None
            tasks.cancel_scope.cancel()
        return max(pauses)

    assert min([await longest_pause() for _ in range(3)]) < 0.05


async def test_opening_sends_nothing() -> None:
    """Opening neither connects nor looks for anything, so it works without a server."""
    async with open_store(RepositorySettings(url="s3://bucket", endpoint_url="http://[")) as store:
        assert store.url == "s3://bucket"


async def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiobotocore the message names the extra to install."""
    monkeypatch.setitem(sys.modules, "aiobotocore", None)
    with pytest.raises(ConfigError, match=r"pip install 'etcetera\[s3\]'"):
        async with open_store(RepositorySettings(url="s3://bucket/prefix")):
            pytest.fail("opened")


@pytest.mark.parametrize("url", ["", "data", "/data", "ftp://bucket", "http://u:secret@x/y"])
def test_no_repository_url(url: str) -> None:
    """What is no repository URL is refused at once, and no password in it is repeated."""
    with pytest.raises(ConfigError) as caught:
        open_store(RepositorySettings(url=url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///prefix", "s3://key:secret@bucket/x", "s3://a b/"])
async def test_no_bucket(url: str) -> None:
    """A URL without a proper bucket is refused, and what looks like a secret is not repeated."""
    with pytest.raises(ConfigError) as caught:
        async with open_store(RepositorySettings(url=url)):
            pytest.fail("opened")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://b/p?X-Amz-Signature=secret", "s3://b/p#secret", "s3://b/?"])
async def test_no_query(url: str) -> None:
    """A URL that somebody signed, or with a fragment, is refused, and neither is repeated."""
    with pytest.raises(ConfigError, match=r"neither \? nor #") as caught:
        async with open_store(RepositorySettings(url=url)):
            pytest.fail("opened")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint_url": "nonsense"},
        {"endpoint_url": "http://user:password@127.0.0.1"},
        {"profile": "nobody"},
        {"aws_access_key_id": "half"},
    ],
)
async def test_wrong_settings(wrong: dict[str, str]) -> None:
    """Settings that cannot work are a configuration error, at the first request."""
    settings = RepositorySettings(url="s3://bucket", **wrong)  # type: ignore[arg-type]
    async with open_store(settings) as store:
        with pytest.raises(ConfigError) as caught:
            await store.head("a.tgz")
    assert "password" not in str(caught.value)


async def test_nobody_there() -> None:
    """A server that does not listen is a network error after a few attempts, without secrets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = RepositorySettings(url="s3://bucket", endpoint_url=f"http://127.0.0.1:{port}")
    async with open_store(settings) as store:
        with pytest.raises(NetworkError, match=f"http://127.0.0.1:{port} cannot be reached"):
            await store.head("a.tgz")


@pytest.mark.parametrize(
    ("endpoint", "warned"),
    [
        ("http://127.0.0.1:1", 0),
        ("http://localhost:1", 0),
        ("http://[::1]:1", 0),
        ("https://192.0.2.1", 0),
        ("http://192.0.2.1", 1),
    ],
)
async def test_warning_in_the_clear(
    endpoint: str, warned: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-07: credentials that would travel unencrypted to another machine are warned of."""
    monkeypatch.setattr(patience, "CONNECT_SECONDS", 0.01)
    monkeypatch.setattr(patience, "FIRST_ATTEMPTS", 1)
    async with open_store(RepositorySettings(url="s3://bucket", endpoint_url=endpoint)) as store:
        with pytest.raises(NetworkError):
            await store.head("a.tgz")
    records = [record for record in caplog.records if record.name == "etcetera"]
    assert len(records) == warned


# Credentials


async def test_unsigned_read(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-11: without any credentials a public bucket is read unsigned, and writing is refused."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fake.objects["a.tgz"] = b"public", {}
    settings = RepositorySettings(url="s3://bucket", endpoint_url=fake.endpoint)
    async with open_store(settings) as store:
        assert await read(store, 0, 6) == b"public"
        for call in (push(store), put(store, overwrite=True), store.delete("a.tgz")):
            with pytest.raises(NoCredentials, match="none were found"):
                await call
        fake.tricks = {"head": [Answer(403), Answer(404)], "list": [error(403, "AccessDenied")] * 2}
        with pytest.raises(NoCredentials, match="none were found"):
            await store.head("private.tgz")
        assert await store.head("absent.tgz") is None
    assert not any("authorization" in request.headers for request in fake.seen)
    assert set(fake.operations) == {"head", "get", "list"}


async def test_profile(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-07: a profile gives key, region and endpoint, and keys in the settings come before it."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    directory = await anyio.Path.home() / ".aws"
    await directory.mkdir()
    await (directory / "config").write_text(
        "[profile lab]\nregion = eu-north-7\naws_access_key_id = PROFILEKEY\n"
        f"aws_secret_access_key = x\nendpoint_url = {fake.endpoint}\n"
    )
    settings = RepositorySettings(url="s3://bucket", profile="lab")
    keys = replace(settings, aws_access_key_id="OWNKEY", aws_secret_access_key="y")
    for each in (settings, keys):
        async with open_store(each) as store:
            assert await store.head("a.tgz") is None
    signed = [request.headers["authorization"] for request in fake.seen]
    assert "Credential=PROFILEKEY/" in signed[0]
    assert "/eu-north-7/s3/" in signed[0]
    assert "Credential=OWNKEY/" in signed[-1]


async def test_wrong_secret(rclone_settings: RepositorySettings) -> None:
    """A wrong secret is told as such by every call, and never as an absent object."""
    settings = replace(rclone_settings, aws_secret_access_key="wrong-secret")
    async with open_store(settings) as store:
        for call in (store.head("a.tgz"), put(store), push(store), store.delete("a.tgz")):
            with pytest.raises(NotAllowed, match="SignatureDoesNotMatch") as caught:
                await call
            assert "wrong-secret" not in str(caught.value)


REFUSALS = [
    (403, "AccessDenied", NotAllowed),
    (403, "InvalidAccessKeyId", NotAllowed),
    (403, "SignatureDoesNotMatch", NotAllowed),
    (403, "RequestTimeTooSkewed", NotAllowed),
    (400, "ExpiredToken", ExpiredCredentials),
    (404, "NoSuchBucket", RepositoryNotFound),
    (400, "EntityTooLarge", StoreError),
    (500, "InternalError", NetworkError),
    (503, "SlowDown", NetworkError),
    (400, "RequestTimeout", NetworkError),
]


@pytest.mark.parametrize(("status", "code", "kind"), REFUSALS)
async def test_refusals(
    fake: FakeS3, store: Store, status: int, code: str, kind: type[EtceteraError]
) -> None:
    """Error answers become our errors, one line, with code and message but nothing secret."""
    echo = "<AWSAccessKeyId>AKIAFAKEFAKEFAKEFAKE</AWSAccessKeyId><StringToSign>x</StringToSign>"
    answer = error(status, code, echo)
    answer.body = answer.body.replace(b"told", b"AKIAFAKEFAKEFAKEFAKE sesame/+=x")
    for operation in ("list", "head", "get", "put", "create"):
        fake.tricks[operation] = [answer] * 20
    for call in (store.head("a.tgz"), anext(aiter(store.list())), push(store)):
        with pytest.raises(kind) as caught:
            await call
        assert type(caught.value) is kind
        text = str(caught.value)
        # An answer to HEAD has no body, and while there is hope nothing else is asked.
        assert code in text or kind in (RepositoryNotFound, NetworkError)
        assert text.isprintable()
        cause: BaseException | None = caught.value
        while cause is not None:
            assert "AKIA" not in str(cause)
            assert "sesame" not in str(cause)
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


RENEWING = """
n=$(wc -l < {directory}/count); echo >> {directory}/count
echo '{{"Version": 1, "AccessKeyId": "key-'$n'-", "SecretAccessKey": "secret-'$n'-",'
echo '"SessionToken": "session-'$n'-", "Expiration": "{soon}"}}'
"""


async def test_renewed_credentials_are_masked(fake: FakeS3) -> None:
    """SE-02: A secret that came only with renewed credentials is masked as the first one was."""
    directory = await anyio.Path.home() / ".aws"
    await directory.mkdir()
    await (directory / "count").touch()
    # So soon that they are renewed for each request.
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    await (directory / "renew").write_text(RENEWING.format(directory=directory, soon=soon))
    await (directory / "config").write_text(
        f"[profile lab]\ncredential_process = sh {directory}/renew\n"
    )
    seen = []

    def echo(request: Request, serve: Callable[[], Answer]) -> Answer:
        number = request.headers["authorization"].partition("key-")[2].partition("-")[0]
        seen.append(number)
        answer = error(400, "Strange")
        words = f"key-{number}- secret-{number}- session-{number}-"
        answer.body = answer.body.replace(b"told", words.encode())
        return answer

    fake.tricks["list"] = [echo] * 3
    settings = RepositorySettings(url="s3://bucket", endpoint_url=fake.endpoint, profile="lab")
    async with open_store(settings) as store:
        for _ in range(3):
            with pytest.raises(StoreError, match=r"\*\*\* \*\*\* \*\*\*"):
                await anext(aiter(store.list()))
    assert len(set(seen)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "Cannot connect to https://b.example/k?X-Amz-Credential=a%2Fb&sig=hush: timed out",
        "url=URL('https://b.example/k?sig=hush')",
        "400, message='x', url='/b/k?list-type=2&prefix=&sig=hush'",
        "<https://b.example/k?a=1?sig=hush>",
    ],
)
def test_queries_are_masked(text: str) -> None:
    """SE-02: of a URL in anybody's text nothing is shown from the question mark on."""
    shown = Place(url="s3://b", bucket="b").show(text)
    assert "k?***" in shown
    assert "hush" not in shown
    assert "prefix" not in shown


async def test_query_of_a_failed_request(fake: FakeS3, store: Store) -> None:
    """SE-02: what aiohttp says of a request that failed does not bring its query to light."""
    fake.tricks["list"] = [Answer(301, {"Location": "s3://[?sig=hush"})] * 9
    with pytest.raises(EtceteraError) as caught:
        await anext(aiter(store.list()))
    assert "hush" not in str(caught.value)


async def test_forbidden_is_not_absent(fake: FakeS3, store: Store) -> None:
    """DN-10: a HEAD that is refused is NotAllowed even if listing is allowed."""
    fake.tricks["head"] = [Answer(403)]
    with pytest.raises(NotAllowed):
        await store.head("a.tgz")
    fake.tricks = {"head": [Answer(404)], "list": [error(403, "AccessDenied")]}
    assert await store.head("a.tgz") is None


def test_secrets_are_masked() -> None:
    """SE-02: whatever text is shown shows no known secret, key, signature or control character."""
    place = Place(url="s3://b", bucket="b", secrets=("hush",))
    shown = place.show("hush AKIA0123456789ABCDEF X-Amz-Signature=abc \x1b[0m\nüber" + "x" * 1000)
    assert shown.startswith("*** *** X-Amz-*** \\x1b[0m\\nüber")
    assert len(shown) < 400
    assert "hush" not in repr(place)


# Requests


async def test_request_headers(fake: FakeS3, store: Store) -> None:
    """AU-01, DN-14: no request waits for 100 Continue, hashes its body, or names an encoding."""
    await push(store)
    await put(store, overwrite=True)
    await read(store, 0, 4)
    for request in fake.seen:
        assert "expect" not in request.headers
        assert "content-encoding" not in request.headers
        assert "aws-chunked" not in str(request.headers)
        assert request.headers["accept-encoding"] == "identity"
        if request.operation in ("part", "put"):
            assert request.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
        if request.operation in ("create", "put"):
            assert request.headers["content-type"] == "application/gzip"
            assert "x-amz-acl" not in request.headers


async def test_checksums_where_known(moto_settings: RepositorySettings) -> None:
    """AU-03: a server that knows checksums gets the CRC-32 of every part."""
    async with open_store(moto_settings) as store:
        info = await push(store, b"x" * 100)
        connection = cast(S3Store, store).connection
        answer = await connection.call(
            "head_object", Key=f"{cast(S3Store, store).prefix}a.tgz", ChecksumMode="ENABLED"
        )
    assert info.size == 100
    assert "ChecksumCRC32" in answer


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
async def test_checksums_refused(fake: FakeS3, store: Store, status: int, code: str) -> None:
    """AU-01: a server that refuses checksums is asked once, and gets MD5 from then on."""
    fake.tricks["create"] = [error(status, code)]
    await push(store)
    await push(store, overwrite=True)
    assert fake.operations.count("create") == 3
    parts = [request for request in fake.seen if request.operation == "part"]
    assert all("content-md5" in request.headers for request in parts)
    assert not any("x-amz-checksum-crc32" in request.headers for request in parts)


async def test_part_is_retried(fake: FakeS3, store: Store) -> None:
    """UP-06, UP-07: a part that fails in passing is sent again, whole."""
    fake.tricks["part"] = [error(503, "SlowDown"), Answer(silent=True), error(400, "BadDigest")]
    data = bytes(range(256)) * 4000
    await push(store, data)
    bodies = [request.body for request in fake.seen if request.operation == "part"]
    assert bodies == [data] * 4


async def test_part_retries_are_bounded(fake: FakeS3, store: Store) -> None:
    """UP-30: a server in trouble for ever is given up, and the upload removed."""
    fake.tricks["part"] = [error(503, "SlowDown")] * 50
    with pytest.raises(NetworkError, match="SlowDown"):
        await push(store)
    assert fake.operations.count("part") == patience.ATTEMPTS
    assert fake.uploads == {}


async def test_stalled_upload(fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-29: a server that falls silent is given up on after a while, and asked again."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.2)

    async def sleep(request: Request, serve: Callable[[], Answer]) -> Answer:
        await asyncio.sleep(1)
        return Answer(silent=True)

    fake.tricks["part"] = [sleep]
    assert (await push(store)).size == 4
    assert fake.operations.count("part") == 2


# Publishing


def lose_reply(request: Request, serve: Callable[[], Answer]) -> Answer:
    """Do what was asked and say nothing."""
    serve()
    return Answer(silent=True)


def somebody_else(fake: FakeS3) -> Callable[[Request, Callable[[], Answer]], Answer]:
    """Return a trick: another push takes the name just before this one is published."""

    def trick(request: Request, serve: Callable[[], Answer]) -> Answer:
        fake.objects["a.tgz"] = b"other", {"x-amz-meta-etcetera-upload": "another"}
        return serve()

    return trick


SENSELESS = [
    lose_reply,
    Answer(silent=True),
    Answer(200),
    Answer(200, body=b" \n <Error><Code>InternalError</Code><Message>x</Message></Error>"),
    Answer(200, body=b"<html>proxy</html>"),
    Answer(200, body=b"<CompleteMultipartUploadResult><ETa"),
    Answer(500, body=b"<html>500</html>"),
    error(503, "SlowDown"),
]


@pytest.mark.parametrize("answer", SENSELESS)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("keeps_metadata", [True, False])
async def test_senseless_complete(
    fake: FakeS3, store: Store, answer: Answer, overwrite: bool, keeps_metadata: bool
) -> None:
    """UP-01, UP-02: whatever Complete answers, the object is published once, and told so."""
    fake.keeps_metadata = keeps_metadata
    if overwrite:
        fake.objects["a.tgz"] = b"old!", {}
    fake.tricks["complete"] = [answer]
    assert (await push(store, overwrite=overwrite)).size == 4
    assert fake.objects["a.tgz"][0] == b"data"
    assert fake.uploads == {}


@pytest.mark.parametrize("answer", [lose_reply, Answer(silent=True), error(503, "SlowDown")])
async def test_lost_reply_to_put(fake: FakeS3, store: Store, answer: Answer) -> None:
    """UP-02: a put whose reply is lost is not mistaken for somebody else's object."""
    fake.tricks["put"] = [answer]
    assert (await put(store)).size == 4


@pytest.mark.parametrize("call", [push, put])
async def test_somebody_else_was_faster(
    fake: FakeS3, store: Store, call: Callable[[Store], asyncio.Future[ObjectInfo]]
) -> None:
    """UP-19: an object that appears at the last moment is not replaced, and not taken for ours."""
    fake.tricks = {"complete": [somebody_else(fake)], "put": [somebody_else(fake)]}
    with pytest.raises(AlreadyExists):
        await call(store)
    assert fake.objects["a.tgz"][0] == b"other"
    assert fake.uploads == {}


@pytest.mark.parametrize("conflicts", [1, 2, 3])
async def test_conflicting_put(fake: FakeS3, store: Store, conflicts: int) -> None:
    """UP-21: a put that conflicts with another write of the key is sent again, twice."""
    fake.tricks["put"] = [error(409, "ConditionalRequestConflict")] * conflicts
    if conflicts < 3:
        assert (await put(store)).size == 4
    else:
        with pytest.raises(StoreError, match="somebody else at the same moment; push again"):
            await put(store)
    assert fake.operations.count("put") == min(conflicts + 1, 3)


async def test_lost_conflict(fake: FakeS3, store: Store) -> None:
    """A put that conflicts with another one, which wins, finds the key taken."""

    def conflict(request: Request, serve: Callable[[], Answer]) -> Answer:
        fake.objects["a.tgz"] = b"other", {"x-amz-meta-etcetera-upload": "another"}
        return error(409, "ConditionalRequestConflict")

    fake.tricks["put"] = [conflict]
    with pytest.raises(AlreadyExists):
        await put(store)
    assert fake.objects["a.tgz"][0] == b"other"


async def test_conditional_conflict(fake: FakeS3, store: Store) -> None:
    """UP-21: a conflict of two publications ends this one, without another Complete."""
    fake.tricks["complete"] = [error(409, "ConditionalRequestConflict")]
    with pytest.raises(StoreError, match="somebody else at the same moment; push again"):
        await push(store)
    assert fake.operations.count("complete") == 1
    assert fake.uploads == {}


@pytest.mark.parametrize("status", [501, 400])
async def test_conditions_unknown(fake: FakeS3, store: Store, status: int) -> None:
    """UP-22: a server that knows no conditions is asked once; then looking before has to do."""

    def refuse(request: Request, serve: Callable[[], Answer]) -> Answer:
        return error(status, "NotImplemented") if "if-none-match" in request.headers else serve()

    fake.tricks["complete"] = [refuse] * 5
    await push(store)
    with pytest.raises(AlreadyExists):
        await push(store)
    await store.delete("a.tgz")
    await push(store)
    conditions = [r for r in fake.seen if "if-none-match" in r.headers]
    assert len(conditions) == 1


async def test_upload_vanished(fake: FakeS3, store: Store) -> None:
    """An upload that somebody removed meanwhile is an error, not a success."""
    fake.tricks["complete"] = [error(404, "NoSuchUpload")]
    with pytest.raises(StoreError, match="NoSuchUpload"):
        await push(store)
    assert fake.objects == {}


async def test_wrong_size_afterwards(fake: FakeS3, store: Store) -> None:
    """UP-26: an object of another size than what was sent is an error."""

    def cut(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        data, metadata = fake.objects["a.tgz"]
        fake.objects["a.tgz"] = data[:-1], metadata
        return answer

    fake.tricks["complete"] = [cut]
    with pytest.raises(StoreError, match="3 bytes instead of 4; push it again with --force"):
        await push(store)


def only_listed_to_others(fake: FakeS3, *, readable: bool) -> None:
    """Have the server say 403 of absent objects, and of all that must not be read."""

    def refuse(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        return answer if readable and answer.status == 200 else Answer(403)

    fake.tricks["head"] = [refuse] * 50
    fake.tricks["list"] = [error(403, "AccessDenied")] * 50


@pytest.mark.parametrize("call", [push, put])
async def test_without_the_right_to_list(
    fake: FakeS3,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., asyncio.Future[ObjectInfo]],
) -> None:
    """Where the condition is sure to be heeded, nobody has to list to create and only create."""
    only_listed_to_others(fake, readable=True)
    with pytest.raises(NotAllowed):
        await call(store)
    assert fake.objects == {}
    monkeypatch.setattr(s3_publish, "CERTAIN_HOSTS", ("127.0.0.1",))
    assert (await call(store)).size == 4
    with pytest.raises(AlreadyExists):
        await call(store)
    assert (await call(store, overwrite=True)).size == 4
    fake.tricks["complete"] = fake.tricks["put"] = [error(501, "NotImplemented")]
    del fake.objects["a.tgz"]
    assert await store.head("a.tgz") is None
    with pytest.raises(NotAllowed):
        async with store.open("a.tgz"):
            pytest.fail("opened what must not be read")
    with pytest.raises(NotAllowed):
        await call(store)
    assert fake.objects == {}
    assert fake.uploads == {}


@pytest.mark.parametrize("call", [push, put])
async def test_without_the_right_to_read(
    fake: FakeS3,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[Store], asyncio.Future[ObjectInfo]],
) -> None:
    """Who may only write is told what happened, but never that it was checked."""
    monkeypatch.setattr(s3_publish, "CERTAIN_HOSTS", ("127.0.0.1",))
    only_listed_to_others(fake, readable=False)
    with pytest.raises(NotAllowed, match=r"was published, but .* not checked; allow s3:GetObject"):
        await call(store)
    only_listed_to_others(fake, readable=False)
    with pytest.raises(AlreadyExists):
        await call(store)
    assert fake.objects["a.tgz"][0] == b"data"
    assert fake.uploads == {}


async def test_never_published(fake: FakeS3, store: Store) -> None:
    """UP-01: a Complete that never works is given up, and the upload removed."""
    fake.tricks["complete"] = [Answer(500)] * 50
    with pytest.raises(NetworkError):
        await push(store)
    assert fake.objects == {}
    assert fake.uploads == {}


@pytest.mark.parametrize(
    "code", ["AccessControlListNotSupported", "AccessDenied", "InvalidBucketAclWithObjectOwnership"]
)
async def test_public_refused(fake: FakeS3, code: str) -> None:
    """SE-05: a bucket without public objects says so, and the way out, before data is sent."""
    fake.tricks["create"] = [error(403 if code == "AccessDenied" else 400, code)]
    async with open_store(fake.settings(public=True)) as store:
        with pytest.raises(NotAllowed, match=r"remove public = true.*policy"):
            await push(store)
    assert "part" not in fake.operations
    assert fake.seen[0].headers["x-amz-acl"] == "public-read"


async def test_public_refused_at_once(fake: FakeS3) -> None:
    """SE-04, SE-05: also an object of a single part is refused before any of it was sent."""
    fake.tricks["create"] = [error(400, "AccessControlListNotSupported")]
    async with open_store(fake.settings(public=True)) as store:
        with pytest.raises(NotAllowed, match=r"remove public = true.*policy"):
            await store.put("a.tgz", b"content", overwrite=False)
    assert not {"part", "put"}.intersection(fake.operations)


async def test_public_on_moto(moto_settings: RepositorySettings) -> None:
    """SE-04: what is pushed to a public repository can be read by everybody, also unsigned."""
    async with open_store(replace(moto_settings, public=True)) as store:
        await push(store)
        key = quote(
            f"{cast(S3Store, store).connection.place.bucket}/{cast(S3Store, store).prefix}a.tgz"
        )
    asked = f"{moto_settings.endpoint_url}/{key}?acl"
    async with aiohttp.ClientSession() as client, client.get(asked) as answer:
        assert "<Permission>READ</Permission>" in await answer.text()


# Ending


async def test_cancelled_create(fake: FakeS3, store: Store) -> None:
    """UP-05, UP-08: an upload that the server made while the caller was cancelled is removed."""
    made = asyncio.Event()

    async def slowly(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        made.set()
        await asyncio.sleep(0.2)
        return answer

    fake.tricks["create"] = [slowly]
    task = asyncio.create_task(push(store))
    await made.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert fake.uploads == {}


@pytest.mark.parametrize("happens", [True, False])
async def test_cancelled_complete(
    fake: FakeS3, store: Store, happens: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """UP-09: cancelled while publishing, the outcome is found out and told."""
    asked = asyncio.Event()

    async def slowly(request: Request, serve: Callable[[], Answer]) -> Answer:
        asked.set()
        await asyncio.sleep(0.2)
        return serve() if happens else error(403, "AccessDenied")

    fake.tricks["complete"] = [slowly]
    task = asyncio.create_task(push(store))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert fake.uploads == {}
    assert ("a.tgz" in fake.objects) == happens
    assert ("a.tgz was published" in caplog.text) == happens


async def test_cancelled_complete_that_hangs(
    fake: FakeS3, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UP-09, AS-02: if the outcome cannot be found out in time, that is told instead."""
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.05)
    asked = asyncio.Event()

    async def hang(request: Request, serve: Callable[[], Answer]) -> Answer:
        asked.set()
        await asyncio.sleep(0.5)
        return Answer(silent=True)

    fake.tricks = {"complete": [hang], "abort": [error(404, "NoSuchUpload")]}
    task = asyncio.create_task(push(store))
    await asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert "may have been published" in caplog.text


async def test_abort_fails(fake: FakeS3, store: Store) -> None:
    """UP-10: if removing the upload fails, the error says what is left and how to remove it."""
    fake.tricks = {"abort": [error(403, "AccessDenied")], "part": [error(400, "EntityTooLarge")]}
    with pytest.raises(StoreError, match="EntityTooLarge") as caught:
        await push(store)
    (note,) = caught.value.__notes__
    assert (
        "aws s3api abort-multipart-upload --bucket bucket --key a.tgz --upload-id upload-1" in note
    )


async def test_abort_takes_too_long(
    fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UP-10, AS-02: removing the upload is given up after a while, so that the caller can end."""
    monkeypatch.setattr("etcetera.stores.s3_upload.GRACE_SECONDS", 0.1)
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.1)

    async def sleep(request: Request, serve: Callable[[], Answer]) -> Answer:
        await asyncio.sleep(1)
        return Answer(silent=True)

    fake.tricks["abort"] = [sleep]
    with pytest.raises(StoreError, match="upload-1 is left"):
        async with store.upload("a.tgz", part_size=PART, overwrite=False):
            pass


# Reading


DATA = bytes(range(251)) * 1000


@pytest.mark.parametrize("cut", [0, 1, 65_536, 100_000])
async def test_body_breaks_off(fake: FakeS3, store: Store, cut: int) -> None:
    """DN-05: a body that breaks off is asked for again from exactly there."""
    fake.objects["a.tgz"] = DATA, {}

    def short(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        answer.length, answer.body = len(answer.body), answer.body[:cut]
        return answer

    fake.tricks["get"] = [short, short]
    assert await read(store, 10, 250_000) == DATA[10:250_000]
    ranges = [request.headers["range"] for request in fake.seen if request.operation == "get"]
    assert ranges == [f"bytes={10 + number * cut}-249999" for number in range(3)]


async def test_body_always_breaks_off(fake: FakeS3, store: Store) -> None:
    """DN-05: a body that never comes is given up."""
    fake.objects["a.tgz"] = DATA, {}
    fake.tricks["get"] = [Answer(206, {"Content-Range": "bytes 0-9/251000"}, length=10)] * 50
    with pytest.raises(NetworkError):
        await read(store, 0, 10)
    assert fake.operations.count("get") == patience.ATTEMPTS


async def test_body_stalls(fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-08: a body that stops coming is asked for again."""
    monkeypatch.setattr("etcetera.stores.patience.STALL_SECONDS", 0.1)
    fake.objects["a.tgz"] = DATA, {}

    async def sleep(request: Request, serve: Callable[[], Answer]) -> Answer:
        await asyncio.sleep(1)
        return Answer(silent=True)

    monkeypatch.setattr(patience, "REQUEST_SECONDS", 0.5)
    fake.tricks["get"] = [sleep]
    assert await read(store, 0, 10) == DATA[:10]


async def test_shorter_ranges(fake: FakeS3, store: Store) -> None:
    """A server that sends less than asked for, honestly, is asked for the rest."""
    fake.objects["a.tgz"] = DATA, {}

    def less(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        answer.body = answer.body[:5]
        answer.headers["Content-Range"] = f"bytes 10-14/{len(DATA)}"
        return answer

    fake.tricks["get"] = [less]
    assert await read(store, 10, 30) == DATA[10:30]


async def test_range_ignored(fake: FakeS3, store: Store) -> None:
    """DN-03: a server that sends everything gives right bytes from the front, or an error."""
    fake.objects["a.tgz"] = DATA, {}

    def everything(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        del answer.headers["Content-Range"]
        return Answer(200, answer.headers, DATA)

    fake.tricks["get"] = [everything] * 3
    assert await read(store, 0, 10) == DATA[:10]
    assert await read(store, 0, len(DATA)) == DATA
    with pytest.raises(StoreError, match="ignores byte ranges"):
        await read(store, 1, 10)


@pytest.mark.parametrize(
    ("content_range", "kind"),
    [
        ("bytes 11-29/251000", NetworkError),
        ("bytes 10-30/251000", NetworkError),
        ("bytes 10-29/251001", RemoteChanged),
        ("bytes 10-29/29", TruncatedArchive),
        ("bytes */251000", StoreError),
        (f"bytes 10-29/{'9' * 5000}", StoreError),
        ("", StoreError),
    ],
)
async def test_wrong_content_range(
    fake: FakeS3, store: Store, content_range: str, kind: type[EtceteraError]
) -> None:
    """DN-04: bytes that are not the ones asked for are never returned."""
    fake.objects["a.tgz"] = DATA, {}

    def lie(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        answer.headers["Content-Range"] = content_range
        return answer

    fake.tricks["get"] = [lie] * 50
    with pytest.raises(kind):
        await read(store, 10, 30)


async def test_too_many_bytes(fake: FakeS3, store: Store) -> None:
    """RX-08: more bytes than the range has are an error, not a longer answer."""
    fake.objects["a.tgz"] = DATA, {}

    def more(request: Request, serve: Callable[[], Answer]) -> Answer:
        answer = serve()
        answer.body += b"more"
        return answer

    fake.tricks["get"] = [more]
    with pytest.raises(StoreError, match="more than asked"):
        await read(store, 10, 30)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(412, "PreconditionFailed"), RemoteChanged),
        (error(404, "NoSuchKey"), RemoteChanged),
        (error(404, "NoSuchBucket"), RepositoryNotFound),
        (error(416, "InvalidRange"), TruncatedArchive),
        (error(400, "ExpiredToken"), ExpiredCredentials),
        (error(403, "AccessDenied"), NotAllowed),
    ],
)
async def test_refused_reads(
    fake: FakeS3, store: Store, answer: Answer, kind: type[EtceteraError]
) -> None:
    """DN-11, DN-12: what cannot be cured by asking again ends a read at once."""
    fake.objects["a.tgz"] = DATA, {}
    fake.tricks["get"] = [answer]
    with pytest.raises(kind):
        await read(store, 0, 10)
    assert fake.operations.count("get") == 1


async def test_other_region(fake: FakeS3, store: Store) -> None:
    """AU-05: a bucket in another region is found by what the answer says."""
    fake.objects["a.tgz"] = DATA, {}
    elsewhere = error(301, "PermanentRedirect")
    elsewhere.headers["x-amz-bucket-region"] = "eu-west-3"
    fake.tricks["head"] = [elsewhere]
    assert await read(store, 0, 10) == DATA[:10]
    assert "/eu-west-3/s3/" in fake.seen[-1].headers["authorization"]


# Listing


async def test_many_objects(moto_settings: RepositorySettings) -> None:
    """AU-14: more objects than one answer holds are all listed, and nothing below or above them."""
    async with open_store(moto_settings) as store:
        connection = cast(S3Store, store).connection
        prefix = cast(S3Store, store).prefix

        async def fill(numbers: range) -> None:
            for number in numbers:
                await connection.call("put_object", Key=f"{prefix}{number}.tgz", body=b"x")

        async with anyio.create_task_group() as tasks:
            for first in range(8):
                tasks.start_soon(fill, range(first, 1001, 8))
        for key in (prefix, f"{prefix}below/x.tgz", "above.tgz"):
            await connection.call("put_object", Key=key, body=b"")
        found = [info.key async for info in store.list()]
    assert sorted(found) == sorted(f"{number}.tgz" for number in range(1001))


def page(token: str, *names: str) -> Answer:
    """Return a page of a listing that goes on."""
    entries = "".join(
        f"<Contents><Key>{name}</Key><Size>1</Size>"
        "<LastModified>2026-11-02T10:00:00Z</LastModified></Contents>"
        for name in names
    )
    return Answer(
        body=f"<ListBucketResult><IsTruncated>true</IsTruncated>{entries}"
        f"<NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>".encode()
    )


@pytest.mark.parametrize(
    "pages",
    [
        [page("same")] * 2,
        [page("1", "a"), page("2", "b"), page("1", "c")],
        [page("1", "a", "b"), page("2"), page("3", "b")],
        [page(str(number)) for number in range(6)],
    ],
)
async def test_endless_listing(
    fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch, pages: list[Answer]
) -> None:
    """A server that never gets to the end of its listing is told from one that has many."""
    monkeypatch.setattr(s3, "EMPTY_PAGES", 5)
    fake.tricks["list"] = [*pages]
    with pytest.raises(NetworkError, match="again and again"):
        assert [info async for info in store.list()]
    assert len(fake.seen) == len(pages)
    assert {request.query["max-keys"][0] for request in fake.seen} == {"100"}


WHEN = "<LastModified>2026-11-02T10:00:00Z</LastModified>"


@pytest.mark.parametrize(
    "entry",
    [
        f"<Size>1</Size>{WHEN}",
        f"<Key>a</Key><Key>b</Key><Size>1</Size>{WHEN}",
        f"<Key>a</Key>{WHEN}",
        f"<Key>a</Key><Size>many</Size>{WHEN}",
        f"<Key>a</Key><Size>-1</Size>{WHEN}",
        f"<Key>a</Key><Size>{'9' * 5000}</Size>{WHEN}",
        "<Key>a</Key><Size>1</Size>",
        "<Key>a</Key><Size>1</Size><LastModified>yesterday</LastModified>",
    ],
)
async def test_senseless_listing(fake: FakeS3, store: Store, entry: str) -> None:
    """An entry that lacks something or holds nonsense is the server's fault, in our words."""
    body = f"<ListBucketResult><Contents>{entry}</Contents></ListBucketResult>"
    fake.tricks["list"] = [Answer(body=body.encode())] * 10
    with pytest.raises(NetworkError, match="did not answer sensibly"):
        assert [info async for info in store.list()]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>Sign in", b"<!DOCTYPE html><html><body>Sign in</body></html>", b"{}",
        b"<?xml version='1.0'?>\n<rss></rss>",
    ],
)  # fmt: skip
async def test_no_listing(fake: FakeS3, store: Store, body: bytes) -> None:
    """What is no listing at all is never taken for an empty one."""
    fake.tricks["list"] = [Answer(body=body)] * 10
    fake.tricks["uploads"] = [Answer(body=body)] * 10
    for listed in (store.list(), store.unfinished(datetime.now(UTC))):
        with pytest.raises(NetworkError, match="does not answer like an S3 server; check"):
            assert [one async for one in listed]


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")]
)
@pytest.mark.parametrize("told", [True, False])
async def test_wrong_region(fake: FakeS3, store: Store, status: int, code: str, told: bool) -> None:
    """AU-05: where a detour does not help, it is the settings that have to be changed."""
    if told:
        fake.always["x-amz-bucket-region"] = "eu-west-3"
    fake.tricks["list"] = [error(status, code)] * 10
    advice = 'set region = "eu-west-3"' if told else "set region, or correct endpoint_url"
    with pytest.raises(ConfigError, match=advice):
        assert [one async for one in store.list()]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(headers={"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}, length=-1),
        Answer(),
        Answer(headers={"Last-Modified": "yesterday"}),
    ],
)
async def test_senseless_head(fake: FakeS3, store: Store, answer: Answer) -> None:
    """An object without size or time is the server's fault, in our words."""
    fake.tricks["head"] = [answer] * 10
    with pytest.raises(NetworkError, match="did not answer sensibly"):
        await store.head("a.tgz")


async def test_senseless_create(fake: FakeS3, store: Store) -> None:
    """An upload without an id is the server's fault, in our words."""
    fake.tricks["create"] = [Answer(body=b"<R></R>")] * 10
    with pytest.raises(NetworkError, match="did not answer sensibly"):
        await push(store)


@pytest.mark.parametrize(("operation", "limit"), [("list", 1 << 20), ("create", 1 << 16)])
async def test_endless_answer(fake: FakeS3, store: Store, operation: str, limit: int) -> None:
    """RX-08: of an answer without data no more is taken than any honest one has."""
    fake.tricks[operation] = [Answer(body=b"x" * (limit + 1))] * 10
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "list": lambda: anext(aiter(store.list())),
        "create": lambda: push(store),
    }
    with pytest.raises(NetworkError, match=r"http://127.0.0.1:\d+ .*more than any listing has"):
        await calls[operation]()


DECLARED = (
    '<?xml version="1.0"?><!DOCTYPE E [<!ENTITY a "AAAA">]><{0}><Code>X</Code><Message>&a;&a;'
    "</Message></{0}>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"<Error><Code>X</Code><Message>" + b"A" * (1 << 16) + b"</Message></Error>",
        DECLARED.replace("{0}", "Error").encode(),
        DECLARED.replace("{0}", "Error").encode("utf-16"),
    ],
)
@pytest.mark.parametrize("operation", ["list", "get"])
async def test_bloated_errors(fake: FakeS3, store: Store, operation: str, body: bytes) -> None:
    """RX-08: an error that is too long, or declares entities, says no more than its status."""
    fake.objects["a.tgz"] = DATA, {}
    fake.tricks[operation] = [Answer(403, body=body)] * 10
    with pytest.raises(NotAllowed, match="403") as caught:
        await (anext(aiter(store.list())) if operation == "list" else read(store, 0, 10))
    assert "AAAA" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
async def test_declared_entities(fake: FakeS3, store: Store, encoding: str) -> None:
    """RX-08: an answer that declares entities is none, however it is encoded."""
    body = "<!DOCTYPE R [<!ENTITY a 'upload-1'>]><R><UploadId>&a;</UploadId></R>".encode(encoding)
    fake.tricks["create"] = [Answer(body=body)] * 10
    with pytest.raises(NetworkError, match="does not answer like an S3 server"):
        await push(store)


async def test_too_many_entries(fake: FakeS3, store: Store) -> None:
    """RX-08: what is listed has to be worth its bytes, each entry takes memory and time."""
    body = b"<ListBucketResult>" + b"<Contents/>" * (1 << 16) + b"</ListBucketResult>"
    assert len(body) < 1 << 20
    fake.tricks["list"] = [Answer(body=body)] * 10
    with pytest.raises(NetworkError, match="more than any listing has"):
        await anext(aiter(store.list()))


async def test_long_listing(fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of the longest keys is taken, and parsed beside the event loop."""
    from aiobotocore.parsers import AioRestXMLParser

    threads: list[int] = []
    parse = AioRestXMLParser._do_parse

    def note(self: object, *arguments: object) -> object:
        threads.append(threading.get_ident())
        return parse(self, *arguments)

    monkeypatch.setattr(AioRestXMLParser, "_do_parse", note)
    names = [f"{number:03}{quote(chr(0x1F33C)) * 85}" for number in range(100)]
    fake.tricks["list"] = [page("", *names)]
    assert [info.key async for info in store.list()] == names
    assert threads and threading.get_ident() not in threads


async def test_keys_outside(fake: FakeS3) -> None:
    """What is not below the prefix is neither listed nor removed, whatever a server sends."""
    upload = "<Upload><Key>{0}</Key><UploadId>{0}</UploadId><Initiated>2020-01-01T00:00:00Z"
    upload += "</Initiated></Upload>"
    uploads = "".join(upload.replace("{0}", key) for key in ("a.tgz", "x/b.tgz", "p/c.tgz"))
    root = "ListMultipartUploadsResult"
    fake.tricks["list"] = [page("", "a.tgz", "x/b.tgz", "p/c.tgz")]
    fake.tricks["uploads"] = [Answer(body=f"<{root}>{uploads}</{root}>".encode())]
    fake.uploads = {key: {} for key in ("a.tgz", "x/b.tgz", "p/c.tgz")}
    async with open_store(fake.settings(url="s3://bucket/p")) as store:
        assert [info.key async for info in store.list()] == ["c.tgz"]
        assert [one.key async for one in store.unfinished(datetime.now(UTC))] == ["c.tgz"]


@pytest.mark.parametrize("operation", ["list", "uploads"])
async def test_fresh_pages_without_end(
    fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A listing that only ever goes on is given up."""
    monkeypatch.setattr(common, "MOST_PAGES", 5)
    root = "ListMultipartUploadsResult"
    fake.tricks["list"] = [page(str(number), f"{number}.tgz") for number in range(20)]
    fake.tricks["uploads"] = [
        Answer(
            body=f"<{root}><IsTruncated>true</IsTruncated><NextKeyMarker>{number}</NextKeyMarker>"
            f"<NextUploadIdMarker>x</NextUploadIdMarker></{root}>".encode()
        )
        for number in range(20)
    ]
    listed = store.list() if operation == "list" else store.unfinished(datetime.now(UTC))
    with pytest.raises(StoreError, match="lists without end"):
        assert [one async for one in listed]
    assert len(fake.seen) == 6


@pytest.mark.parametrize("changes", [False, True])
async def test_no_etags(fake: FakeS3, store: Store, changes: bool) -> None:
    """DN-05: where a server knows no ETags, the time of the last change tells versions apart."""
    fake.objects["a.tgz"] = DATA, {}

    def serve(request: Request, honest: Callable[[], Answer]) -> Answer:
        answer = honest()
        answer.headers["ETag"] = ""
        if changes and len(fake.seen) > 2:
            answer.headers["Last-Modified"] = "Mon, 02 Nov 2026 11:00:00 GMT"
        return answer

    fake.tricks = {"head": [serve], "get": [serve] * 2}
    async with store.open("a.tgz") as remote:
        assert remote is not None
        assert await remote.read(0, 10) == DATA[:10]
        if not changes:
            assert await remote.read(10, 20) == DATA[10:20]
            return
        with pytest.raises(RemoteChanged):
            await remote.read(10, 20)


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        ("http://me:hush-hush@127.0.0.1:1", NetworkError),
        ("me:hush-hush@127.0.0.1:1", NetworkError),
        ("http://me:hush-hush/x@127.0.0.1:1", ConfigError),
        ("socks5://me:hush-hush@127.0.0.1:1", ConfigError),
    ],
)
@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket"])
async def test_password_of_a_proxy(
    fake: FakeS3,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    kind: type[EtceteraError],
    url: str,
) -> None:
    """SE-02: the proxy of the environment is shown nowhere, not even in what a traceback shows."""
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "")
    more = (
        {} if url == "s3://bucket" else {"aws_access_key_id": None, "aws_secret_access_key": None}
    )
    with pytest.raises(EtceteraError) as caught:
        async with open_store(fake.settings(url=url, endpoint_url="http://x.invalid", **more)) as s:
            await s.head("a.tgz")
    assert type(caught.value) is kind
    assert "hush" not in "".join(traceback.format_exception(caught.value))


async def test_no_http(fake: FakeS3) -> None:
    """What is no HTTP is not told as a status that nobody sent."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0 x\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with open_store(fake.settings(endpoint_url=f"http://127.0.0.1:{port}")) as store:
            with pytest.raises(NetworkError, match="answers cannot be understood"):
                await store.head("a.tgz")


async def test_region_that_is_a_secret(fake: FakeS3) -> None:
    """SE-02: what the message masks is not in the traceback of its cause either."""
    settings = fake.settings(region="sesame/+=x")
    with pytest.raises(ConfigError) as caught:
        async with open_store(settings) as store:
            await store.head("a.tgz")
    assert "sesame" not in "".join(traceback.format_exception(caught.value))


async def test_program_of_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SE-02: nothing is shown of what the program writes that a profile names."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = tmp_path / "config"
    path.write_text("[profile lab]\ncredential_process = sh -c 'echo hush-hush >&2; exit 1'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    settings = RepositorySettings(url="s3://bucket", profile="lab")
    with pytest.raises(ExpiredCredentials, match="no credentials can be had") as caught:
        async with open_store(settings) as store:
            await store.head("a.tgz")
    told = "".join(traceback.format_exception(caught.value))
    assert "hush-hush" not in told.replace(str(path), "")


async def test_logs_of_botocore(fake: FakeS3, caplog: pytest.LogCaptureFixture) -> None:
    """SE-02: who logs everything does not log our keys, and still what others do with botocore."""
    fake.objects["a.tgz"] = DATA, {}
    caplog.set_level(logging.DEBUG, logger="")
    caplog.set_level(logging.DEBUG, logger="botocore")
    async with open_store(fake.settings(aws_session_token="hush-hush")) as store:
        await store.put("a.tgz", b"x", overwrite=True)
        await store.share("a.tgz", 100, None)
    assert not [one for one in caplog.records if one.name.startswith(("botocore", "aiobotocore"))]
    logging.getLogger("botocore.auth").debug("what others do")
    assert "what others do" in caplog.text


def test_causes_are_looked_through() -> None:
    """SE-02: an error is no cause that could be shown if anything that led to it is secret."""
    place = Place(url="s3://b", bucket="b", secrets=("hush",))
    outer, inner = RuntimeError("outer"), ValueError("hush")
    assert place.cause(outer) is outer
    outer.__context__ = ExceptionGroup("group", [OSError("x"), inner])
    assert place.cause(outer) is None


def test_long_messages() -> None:
    """RX-08: of a message without end only its beginning is looked at closely."""
    place = Place(url="s3://b", bucket="b", secrets=("hush",))
    assert place.show("word " + "\x7f" * 5000) == "word…"
    assert place.show("hush " * 10_000) == "*** " * 75 + "…"


async def test_concurrent_first_requests(moto_settings: RepositorySettings) -> None:
    """Requests that all come first share one client."""
    async with open_store(moto_settings) as store:
        answers = await asyncio.gather(*(store.head(f"{number}.tgz") for number in range(20)))
    assert answers == [None] * 20


async def test_nothing_is_printed(
    fake: FakeS3, store: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing above debug level is logged or printed on the way."""
    with caplog.at_level(logging.INFO):
        await push(store)
        await read(store, 0, 4)
    assert [record for record in caplog.records if record.name == "etcetera"] == []
    assert capsys.readouterr() == ("", "")


def test_home_is_isolated() -> None:
    """The tests see no credentials of whoever runs them."""
    assert not (Path.home() / ".aws").exists()


async def test_google_dialect(fake: FakeS3, store: Store) -> None:
    """GS-05: Google's version of the protocol has no conditions, no CRC-32, and its own headers."""

    def without_conditions(request: Request, serve: Callable[[], Answer]) -> Answer:
        conditional = {"if-none-match", "if-match"} & request.headers.keys()
        return error(400, "NotImplemented") if conditional else serve()

    fake.tricks["complete"] = [without_conditions] * 4
    await push(store)
    with pytest.raises(AlreadyExists):
        await push(store)
    await push(store, b"new", overwrite=True)
    parts = [request for request in fake.seen if request.operation == "part"]
    assert all("content-md5" in request.headers for request in parts)
    # What is between here and Google rewrites this one.
    signed = [request.headers["authorization"].lower() for request in fake.seen]
    assert not any("accept-encoding" in one for one in signed)
    assert fake.objects["a.tgz"][0] == b"new"
    assert fake.uploads == {}
