"""Google Storage: what goes wrong on the way, and what nobody else may do meanwhile."""

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

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
    UsageError,
)
from etcetera.settings import RepositorySettings
from etcetera.stores import (
    CannotResume,
    ObjectInfo,
    PinnedRange,
    Store,
    Unfinished,
    common,
    gs_credentials,
    open_store,
    patience,
)
from etcetera.stores.gs import GsStore
from etcetera.stores.gs_client import Answer
from etcetera.stores.gs_xml import as_xml
from tests.fake_gs import READS, FakeGS, fake_gs, faults
from tests.fake_gs.errors import wrong_digest
from tests.stores.conftest import count_gs_uploads

PART = 1000
DATA = bytes(range(256)) * 10
KEY = "data/a.tgz"
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def server() -> AsyncIterator[FakeGS]:
    """Run a server that takes parts of any size, and looks at who asks."""
    async with fake_gs() as server:
        server.make_bucket("bucket")
        server.least_part = 1
        server.secured = True
        yield server


@pytest.fixture
def settings(server: FakeGS, tmp_path: Path) -> RepositorySettings:
    """Return settings with the key of a service account that may do everything."""
    return keyed(server, tmp_path)


@pytest.fixture
async def store(settings: RepositorySettings) -> AsyncIterator[Store]:
    """Open the repository, with a token."""
    async with open_store(settings) as opened:
        await opened.head("a.tgz")
        yield opened


def keyed(
    server: FakeGS, directory: Path, permissions: list[str] | None = None, **more: Any
) -> RepositorySettings:
    """Return settings with the key of a service account of its own."""
    account = server.add_account(f"robot{len(server.accounts)}", permissions)
    path = directory / f"{account.email}.json"
    path.write_text(json.dumps(account.info(server.endpoint)))
    values = {"url": "gs://bucket/data", "endpoint_url": server.endpoint}
    return RepositorySettings(**(values | {"google_credentials": str(path)} | more))


async def push(
    store: Store,
    data: bytes = DATA,
    *,
    overwrite: bool = False,
    replaces: str | None = None,
    before: Callable[[int], Awaitable[object]] | None = None,
) -> ObjectInfo:
    """Upload in parts, one after the other; *before* runs before each."""
    async with store.upload(
        "a.tgz", part_size=PART, overwrite=overwrite, replaces=replaces
    ) as upload:
        for number, start in enumerate(range(0, len(data), PART), 1):
            if before is not None:
                await before(number)
            part = data[start : start + PART]
            await upload.put_part(number, part, zlib.crc32(part))
        return await upload.complete()


async def read(store: Store, start: int = 0, stop: int = len(DATA)) -> bytes:
    """Open the object and read a range."""
    async with store.open("a.tgz") as remote:
        assert remote is not None
        return bytes(await remote.read(start, stop))


def there(server: FakeGS) -> dict[str, bytes]:
    """What is in the bucket, temporary things too."""
    return {name: blob.data for name, blob in server.buckets["bucket"].objects.items()}


def assert_clean(server: FakeGS, data: bytes | None = DATA) -> None:
    """Nothing is in the bucket but the archive, if there is one."""
    assert there(server) == ({} if data is None else {KEY: data})
    assert server.buckets["bucket"].uploads == {}


def html() -> aiohttp.web.Response:
    """What a proxy says that wants something of its user."""
    return aiohttp.web.Response(body=b"<html>", content_type="text/html")


# Publishing


async def test_how_it_is_stored(server: FakeGS, store: Store) -> None:
    """GS-03: an archive is application/gzip, without an encoding that servers would undo."""
    for small in (True, False):
        await (store.put("a.tgz", DATA, overwrite=True) if small else push(store, overwrite=True))
        blob = server.buckets["bucket"].objects[KEY]
        assert blob.fields["contentType"] == "application/gzip"
        assert "contentEncoding" not in blob.fields
        assert set(blob.metadata) == {"etcetera-upload"}
    initiate = next(one for one in server.requests if one.operation == "xml.initiate")
    assert initiate.path.startswith("/bucket/data/.etcetera/a.tgz/")
    parts = [one for one in server.requests if one.operation == "xml.part"]
    assert all(one.headers["x-goog-hash"].startswith("crc32c=") for one in parts)


@pytest.mark.parametrize(
    "fault",
    [
        faults.lose_reply(),
        faults.lose_reply(reset=False),
        faults.answer(503),
        faults.answer(429),
        faults.reset(),
        faults.truncate(3),
        faults.respond(html),
    ],
    ids=["lost", "closed", "503", "429", "reset", "truncated", "html"],
)
@pytest.mark.parametrize(
    "operation",
    ["objects.insert", "xml.part", "xml.complete", "objects.move", "objects.get", "buckets.get"],
)
async def test_passing_faults(
    server: FakeGS, store: Store, operation: str, fault: faults.Fault
) -> None:
    """Whatever is lost once, the archive is published once, and is that one."""
    server.plan(operation, fault)
    if operation == "objects.insert":
        info = await store.put("a.tgz", DATA, overwrite=False)
    else:
        info = await push(store)
    assert info == await store.head("a.tgz")
    assert_clean(server)


async def test_slow_completion(
    server: FakeGS, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting parts together may take minutes: longer than any other request may be silent."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.2)
    server.plan("xml.complete", faults.delay(0.6))
    await push(store)
    assert server.count("xml.complete") == 1
    assert_clean(server)


@pytest.mark.parametrize("fault", [faults.lose_reply(), faults.truncate(9)], ids=["all", "some"])
async def test_lost_beginning(
    server: FakeGS, store: Store, caplog: pytest.LogCaptureFixture, fault: faults.Fault
) -> None:
    """Where the reply to the beginning is lost, an upload is left, and that is said."""
    server.plan("xml.initiate", fault)
    await push(store)
    assert "an upload of a.tgz may be left" in caplog.text
    assert there(server) == {KEY: DATA}
    later = datetime.now(UTC) + timedelta(minutes=1)
    (left,) = [one async for one in store.unfinished(later)]
    await store.abandon(left.key, left.id)
    assert_clean(server)


@pytest.mark.parametrize("operation", ["xml.initiate", "xml.part", "xml.complete", "objects.move"])
async def test_lasting_faults(server: FakeGS, store: Store, operation: str) -> None:
    """UP-30: a server in trouble for ever is given up; nothing stays, nothing is published."""
    rule = server.plan(operation, faults.answer(503), times=faults.ALWAYS)
    with pytest.raises(NetworkError, match="in trouble"):
        await push(store)
    assert rule.hits <= patience.ATTEMPTS
    assert_clean(server, None)


@pytest.mark.parametrize("operation", ["objects.insert", "objects.move"])
@pytest.mark.parametrize("overwrite", [False, True])
async def test_somebody_else(server: FakeGS, store: Store, operation: str, overwrite: bool) -> None:
    """FR-02: who takes the name at the last moment keeps it, unless a push was forced."""

    async def take() -> None:
        server.put("bucket", KEY, b"other")

    server.plan(operation, faults.after(take))
    small = operation == "objects.insert"
    pushing = (
        store.put("a.tgz", DATA, overwrite=overwrite) if small else push(store, overwrite=overwrite)
    )
    if overwrite:
        await pushing
        assert server.count(operation) == 2  # the first was refused
    else:
        with pytest.raises(AlreadyExists):
            await pushing
    assert_clean(server, DATA if overwrite else b"other")


async def test_replaces(server: FakeGS, store: Store) -> None:
    """UP-23: what is to replace one version replaces no other, though it comes late."""
    info = await store.put("a.tgz", b"old", overwrite=False)

    async def take() -> None:
        server.put("bucket", KEY, b"other")

    server.plan("objects.move", faults.after(take))
    with pytest.raises(RemoteChanged):
        await push(store, overwrite=True, replaces=info.etag)
    assert_clean(server, b"other")


async def test_ten_pushers(server: FakeGS, settings: RepositorySettings) -> None:
    """FR-02: of ten pushers of one name one wins, and what is there is its archive, whole."""

    async def one(number: int) -> ObjectInfo | BaseException:
        async with open_store(settings) as store:
            try:
                return await push(store, bytes([number]) * 2500)
            except EtceteraError as error:
                return error

    outcomes = await asyncio.gather(*map(one, range(10)))
    winners = [number for number, one in enumerate(outcomes) if isinstance(one, ObjectInfo)]
    assert len(winners) == 1
    assert sum(isinstance(one, AlreadyExists) for one in outcomes) == 9
    assert_clean(server, bytes(winners) * 2500)


@pytest.mark.parametrize("step", [None, 700])
@pytest.mark.parametrize("why", ["bucket", "right", "route"])
async def test_no_moves(
    server: FakeGS, store: Store, tmp_path: Path, step: int | None, why: str
) -> None:
    """Where nothing can be moved, it is copied inside the store, on the same condition."""
    server.rewrite_step = step
    if why == "bucket":
        server.buckets["bucket"].moves = False
    else:
        server.plan("objects.move", faults.answer(403 if why == "right" else 404))
    await push(store)
    assert_clean(server)
    with pytest.raises(AlreadyExists):
        await push(store, b"other" * 500)
    assert server.count("objects.move") == 1  # what was learned is not asked again
    assert_clean(server)


async def test_copy_goes_on(server: FakeGS, store: Store) -> None:
    """A copy of several steps goes on where it broke off."""
    server.buckets["bucket"].moves = False
    server.rewrite_step = 100
    server.plan("objects.rewrite", faults.answer(503), skip=20)
    server.plan("objects.rewrite", faults.lose_reply(), skip=22)
    await push(store)
    assert server.count("objects.rewrite") < 30
    assert_clean(server)


@pytest.mark.parametrize("how", ["lost", "copied"])
async def test_versions_are_kept(server: FakeGS, store: Store, how: str) -> None:
    """In a bucket that keeps versions, none of what is temporary is kept either."""
    bucket = server.buckets["bucket"]
    bucket.versioning = True
    if how == "copied":
        bucket.moves = False
        await push(store)
    else:

        async def take() -> None:
            server.put("bucket", KEY, b"other")

        server.plan("objects.move", faults.after(take))
        with pytest.raises(AlreadyExists):
            await push(store)
    assert [blob.name for blob in bucket.noncurrent] == []
    assert_clean(server, DATA if how == "copied" else b"other")


async def test_public_failed(server: FakeGS, tmp_path: Path) -> None:
    """An archive that was published, and could not be made public, is said to be so."""
    server.plan("acl.insert", faults.answer(503), times=faults.ALWAYS)
    async with open_store(keyed(server, tmp_path, public=True)) as store:
        with pytest.raises(
            StoreError, match=r"was published, but perhaps not for everybody.*gcloud"
        ):
            await push(store)
    assert_clean(server)


@pytest.mark.parametrize("prefix", ["userprojects", "requester pays", "retentionPolicy", "on hold"])
async def test_telling_names(server: FakeGS, tmp_path: Path, prefix: str) -> None:
    """What a message says of a name is no reason."""
    async with open_store(keyed(server, tmp_path, url=f"gs://bucket/{prefix}")) as store:
        assert await store.head("a.tgz") is None
        await push(store)


async def test_damaged_on_the_way(server: FakeGS, store: Store) -> None:
    """GS-06: one that comes in one piece, and damaged, is refused, and sent again."""
    server.plan("objects.insert", faults.refuse(lambda: wrong_digest("AAAA", "BBBB", "crc32c")))
    await store.put("a.tgz", DATA, overwrite=False)
    assert server.count("objects.insert") == 2
    assert_clean(server)


async def test_compressed_refusal(server: FakeGS, store: Store) -> None:
    """What is said of a range is understood if it comes compressed."""
    server.put("bucket", KEY, DATA)
    said = {"error": {"code": 400, "message": "Bucket is a requester pays bucket but no project"}}
    body = gzip.compress(json.dumps(said).encode())

    def compressed() -> aiohttp.web.Response:
        headers = {"Content-Encoding": "gzip"}
        return aiohttp.web.Response(status=400, body=body, headers=headers)

    server.plan("objects.media", faults.respond(compressed))
    with pytest.raises(NotAllowed, match="set google_project"):
        await read(store)


async def test_no_rights_to_remove(
    server: FakeGS, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may write and not remove has published, and is told what is left."""
    rights = [f"storage.objects.{one}" for one in ("get", "list", "create")]
    rights += [f"storage.multipartUploads.{one}" for one in ("create", "abort", "listParts")]
    async with open_store(keyed(server, tmp_path, rights)) as store:
        info = await push(store)
        assert info == await store.head("a.tgz")
    (left,) = there(server).keys() - {KEY}
    assert "a.tgz was published, but the temporary object" in caplog.text
    assert left in caplog.text


async def test_stolen_object(server: FakeGS, store: Store) -> None:
    """What somebody else has put in the place of the temporary object is not published."""

    async def steal() -> None:
        (blob,) = server.buckets["bucket"].objects.values()
        server.put("bucket", blob.name, b"other", crc32c=blob.crc32c)

    server.plan("objects.get", faults.after(steal), where=".etcetera")
    with pytest.raises(StoreError, match="written over its temporary object"):
        await push(store)
    assert KEY not in there(server)


async def test_copy_that_stands_still(server: FakeGS, store: Store) -> None:
    """A copy inside the store that never gets further ends."""
    server.buckets["bucket"].moves = False
    said = {"done": False, "totalBytesRewritten": "5", "rewriteToken": "token"}
    body = json.dumps(said).encode()
    rule = server.plan(
        "objects.rewrite",
        faults.respond(lambda: aiohttp.web.Response(body=body)),
        times=faults.ALWAYS,
    )
    with pytest.raises(NetworkError):
        await push(store)
    assert rule.hits <= 20
    assert_clean(server, None)


async def test_damaged_inside(server: FakeGS, store: Store) -> None:
    """GS-06: an object that does not have the checksum of its parts is not published."""
    await store.head("a.tgz")
    server.plan("objects.get", damage_parts(server), where=".etcetera")
    with pytest.raises(StoreError, match="has other bytes than were sent"):
        await push(store)
    assert_clean(server, None)


def damage_parts(server: FakeGS) -> faults.Fault:
    """A fault: the store itself has lost a byte when it put the parts together."""

    async def fault(call: Any, serve: faults.Serve) -> Any:
        (blob,) = server.buckets["bucket"].objects.values()
        blob.crc32c = "AAAAAA=="
        return await serve()

    return fault


# Servers without multipart uploads


@pytest.fixture
def plain(server: FakeGS) -> FakeGS:
    """Let the server have none."""
    server.plan("xml.initiate", faults.answer(501), times=faults.ALWAYS)
    return server


async def test_composed(plain: FakeGS, store: Store) -> None:
    """Parts are objects there, put together in several steps, and gone afterwards."""
    await push(store, DATA * 16)  # 41 parts
    assert plain.count("objects.compose") == 3
    assert_clean(plain, DATA * 16)
    with pytest.raises(AlreadyExists):
        await push(store, b"other")
    await push(store, overwrite=True)
    assert plain.count("xml.initiate") == 1  # what was learned is not asked again
    assert_clean(plain)


async def test_composed_is_no_copy(plain: FakeGS, store: Store) -> None:
    """Nor does anything of a push that breaks off stay, for another process to go on with."""
    with pytest.raises(NetworkError):
        async with store.upload("a.tgz", part_size=PART, overwrite=False) as upload:
            await upload.put_part(1, DATA[:PART], zlib.crc32(DATA[:PART]))
            upload.keep = True
            earlier = Unfinished(id=upload.id, state=upload.state(), parts=[upload.part(1)])
            raise NetworkError("the line is dead")
    assert not upload.kept
    assert_clean(plain, None)
    with pytest.raises(CannotResume):
        await go_on(store, earlier)
    assert_clean(plain, None)


# Who asks


async def test_token_in_time(server: FakeGS, store: Store) -> None:
    """AU-08: a token is renewed before it ends, and a push of hours goes on."""
    connection = cast(GsStore, store).connection
    credentials = await connection.credentials()

    async def hours(number: int) -> None:
        google = credentials._google
        google.expiry = (datetime.now(UTC) + timedelta(minutes=4)).replace(tzinfo=None)
        credentials._renewed -= 3600

    before = server.count("token")
    await push(store, before=hours)
    assert server.count("token") - before == 3
    assert not any(one.status == 401 for one in server.requests)


async def test_short_tokens(server: FakeGS, settings: RepositorySettings) -> None:
    """Tokens that never last long are not renewed for each request."""
    server.token_seconds = 120
    async with open_store(settings) as store:
        await push(store)
    assert server.count("token") == 1


async def test_refused_token(server: FakeGS, store: Store) -> None:
    """AU-08: a token that is suddenly refused is renewed once, for all that wait for it."""

    async def expire(number: int) -> None:
        if number == 2:
            server.expire_tokens()

    await push(store, before=expire)
    assert server.count("token") == 2
    assert_clean(server)


async def test_refused_for_good(server: FakeGS, store: Store) -> None:
    """AU-09: credentials that are no longer good are said to be so, once a new token fails too."""
    server.plan("xml.part", faults.unauthorized(), times=faults.ALWAYS)
    with pytest.raises(ExpiredCredentials, match="log in again"):
        await push(store)
    assert server.count("xml.part") == 2
    assert_clean(server, None)


async def test_key_revoked(server: FakeGS, settings: RepositorySettings) -> None:
    """A key that Google no longer knows is an error that says so, and shows nothing of it."""
    server.accounts.clear()
    async with open_store(settings) as store:
        with pytest.raises(ExpiredCredentials, match="invalid_grant") as caught:
            await store.head("a.tgz")
    assert "PRIVATE" not in str(caught.value)
    assert caught.value.__cause__ is None


STRANGE_TOKENS = [
    b"<html>log in</html>", b"[]", b"null", b'"token"', b"{}",
    b'{"access_token": 5, "expires_in": 9}',
    b'{"access_token": "a\\nb", "expires_in": 9}', b'{"access_token": "a", "expires_in": "never"}',
    b'{"access_token": "a", "expires_in": 1e300}', b"[" * 100_000, b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("said", STRANGE_TOKENS, ids=range(len(STRANGE_TOKENS)))
async def test_strange_tokens(
    server: FakeGS, settings: RepositorySettings, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server of tokens makes up ends as an error that says so, and nothing else."""
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda seconds: None)
    answer = faults.respond(lambda: aiohttp.web.Response(body=said))
    server.plan("token", answer, times=faults.ALWAYS)
    async with open_store(settings) as store:
        with pytest.raises((NetworkError, ExpiredCredentials)):
            await store.head("a.tgz")
    assert server.count("objects.get") == 0


async def test_endless_token(
    server: FakeGS, settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of tokens that never ends its answer is not waited for."""
    monkeypatch.setattr(gs_credentials, "RENEWAL_SECONDS", 0.2)
    server.plan("token", faults.stall(), times=faults.ALWAYS)
    async with open_store(settings) as store:
        with anyio.fail_after(10), pytest.raises(NetworkError, match="does not answer in time"):
            await store.head("a.tgz")


async def test_echoing_token_server(
    server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-02: what a login consists of is not shown, though a server of tokens says it again."""
    import google.oauth2.credentials as users

    monkeypatch.setattr(users, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{server.endpoint}/token")
    login = server.add_user()
    path = tmp_path / "user.json"
    path.write_text(json.dumps(login))
    said = {"error": "invalid_grant", "error_description": json.dumps(login)}
    body = json.dumps(said).encode()
    server.plan(
        "token",
        faults.respond(lambda: aiohttp.web.Response(status=400, body=body)),
        times=faults.ALWAYS,
    )
    settings = RepositorySettings(
        url="gs://bucket", endpoint_url=server.endpoint, google_credentials=str(path)
    )
    async with open_store(settings) as store:
        with pytest.raises(ExpiredCredentials, match="invalid_grant") as caught:
            await store.head("a.tgz")
    assert caught.value.__context__ is None
    for secret in (login["refresh_token"], login["client_secret"]):
        assert secret not in repr(caught.value)


async def test_token_server_in_trouble(
    server: FakeGS, settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token just now is trouble on the way, and not credentials that are wrong."""
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda seconds: None)
    server.plan("token", faults.answer(503), times=faults.ALWAYS)
    async with open_store(settings) as store:
        with pytest.raises(NetworkError, match="no token can be had"):
            await store.head("a.tgz")


async def test_anonymous(server: FakeGS) -> None:
    """AU-11: without credentials a public bucket can be read, and nothing else."""
    server.put("bucket", KEY, DATA)
    settings = RepositorySettings(url="gs://bucket/data", endpoint_url=server.endpoint)
    async with open_store(settings) as store:
        with pytest.raises(NoCredentials, match="go to Google's own servers alone"):
            await store.head("a.tgz")
        with pytest.raises(NoCredentials):
            [_ async for _ in store.list()]
        server.buckets["bucket"].public = READS
        assert await read(store) == DATA
        assert [info.key async for info in store.list()] == ["a.tgz"]
        with pytest.raises(NoCredentials):
            await store.put("b.tgz", b"b", overwrite=False)
        with pytest.raises(NoCredentials):
            await push(store, overwrite=True)
    assert_clean(server)


async def test_tokens_for_google_alone(
    server: FakeGS, settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment offers goes to Google's servers, and to no other."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", settings.google_credentials or "")
    server.secured = False
    plain = RepositorySettings(url="gs://bucket/data", endpoint_url=server.endpoint)
    async with open_store(plain) as store:
        await store.head("a.tgz")
    assert not any("authorization" in one.headers for one in server.requests)


async def test_emulator_of_the_environment(server: FakeGS, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of Google's own clients is heeded, with a scheme or without."""
    server.secured = False
    for value in (server.endpoint, server.endpoint.removeprefix("http://")):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", value)
        async with open_store(RepositorySettings(url="gs://bucket/data")) as store:
            await store.put("a.tgz", DATA, overwrite=True)
    assert_clean(server)


async def test_no_token_by_a_variable(
    server: FakeGS, settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a variable says which server is asked, nobody asks: it may be anybody's."""
    server.secured = False
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint)
    async with open_store(replace(settings, endpoint_url=None)) as store:
        await store.put("a.tgz", DATA, overwrite=True)
    assert not any("authorization" in one.headers for one in server.requests)


@pytest.mark.parametrize("status", [429, 503])
async def test_acting_for_another(
    server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A token of another account is had by one's own; trouble on that way ends nothing."""
    path = "v1/projects/-/serviceAccounts/{}:generateAccessToken"
    monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", f"{server.endpoint}/{path}")
    other = server.add_account("other")
    settings = keyed(server, tmp_path, google_impersonate=other.email)
    server.plan("iam", faults.answer(status))
    async with open_store(settings) as store:
        await push(store)
        credentials = await cast(GsStore, store).connection.credentials()
        assert credentials.account == other.email
        google = credentials._google
        google.expiry = (datetime.now(UTC) + timedelta(minutes=4)).replace(tzinfo=None)
        credentials._renewed -= 3600
        server.plan("iam", faults.answer(status))
        assert await read(store) == DATA
    assert_clean(server)


async def test_user_login(server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What gcloud leaves behind after a login can be named as well; but it signs no links."""
    import google.oauth2.credentials as users

    monkeypatch.setattr(users, "_GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{server.endpoint}/token")
    path = tmp_path / "user.json"
    path.write_text(json.dumps(server.add_user()))
    settings = RepositorySettings(
        url="gs://bucket/data", endpoint_url=server.endpoint, google_credentials=str(path)
    )
    async with open_store(settings) as store:
        await push(store)
        with pytest.raises(UsageError, match="google_impersonate"):
            await store.share("a.tgz", 60, None)
    assert_clean(server)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "no file of Google credentials"),
        ("[]", "no file of Google credentials"),
        ('{"type": "external_account"}', "GOOGLE_APPLICATION_CREDENTIALS"),
        ('{"type": "service_account", "private_key": "secret!"}', "damaged"),
    ],
)
async def test_wrong_files(tmp_path: Path, content: str | None, message: str) -> None:
    """A file that holds no credentials is named, and nothing of it shown."""
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    settings = RepositorySettings(url="gs://bucket", google_credentials=str(path))
    async with open_store(settings) as store:
        with pytest.raises(ConfigError, match=message) as caught:
            await store.head("a.tgz")
    assert str(path) in str(caught.value)
    assert "secret!" not in str(caught.value)


async def test_rights(server: FakeGS, tmp_path: Path) -> None:
    """Whoever may only read can pull, and is told why a push is refused."""
    server.put("bucket", KEY, DATA)
    settings = keyed(server, tmp_path, ["storage.objects.get", "storage.objects.list"])
    async with open_store(settings) as store:
        assert await read(store) == DATA
        with pytest.raises(NotAllowed, match=r"storage\.objects\.create"):
            await store.put("b.tgz", b"b", overwrite=False)
        with pytest.raises(NotAllowed):
            await push(store, overwrite=True)
        with pytest.raises(NotAllowed):
            await store.delete("a.tgz")
    assert_clean(server)


async def test_wrong_bucket(server: FakeGS, settings: RepositorySettings) -> None:
    """A bucket that does not exist is told from an archive that does not."""
    async with open_store(
        RepositorySettings(
            url="gs://nowhere",
            endpoint_url=server.endpoint,
            google_credentials=settings.google_credentials,
        )
    ) as store:
        with pytest.raises(RepositoryNotFound, match="nowhere does not exist"):
            await store.head("a.tgz")


# Buckets that refuse


@pytest.mark.parametrize("kind", ["uniform", "prevents_public_access"])
async def test_no_public_objects(
    server: FakeGS, settings: RepositorySettings, tmp_path: Path, kind: str
) -> None:
    """A bucket in which no object can be public says so before anything is sent."""
    setattr(server.buckets["bucket"], kind, True)
    async with open_store(keyed(server, tmp_path, public=True)) as store:
        for push_it in (store.put("a.tgz", DATA, overwrite=False), push(store)):
            with pytest.raises(NotAllowed, match="remove public = true"):
                await push_it
    assert server.count("xml.part") == 0
    assert_clean(server, None)


async def test_public(server: FakeGS, tmp_path: Path) -> None:
    """Public = true lets everybody read, whether it came in one piece or in parts."""
    async with open_store(keyed(server, tmp_path, public=True)) as store:
        for small in (True, False):
            if small:
                await store.put("a.tgz", DATA, overwrite=True)
            else:
                await push(store, overwrite=True)
            url = (await store.share("a.tgz", 60, None)).url
            assert url == f"{server.endpoint}/bucket/data/a.tgz"
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                assert await answer.read() == DATA
        with pytest.raises(NotAllowed, match="everybody can read"):
            await store.share("a.tgz", 60, PinnedRange(0, 10, "1"))


@pytest.mark.parametrize("how", [{"retention_seconds": 60}, {"default_event_based_hold": True}])
async def test_retention(server: FakeGS, store: Store, how: dict[str, Any]) -> None:
    """Where nothing temporary can be removed, a push ends before it has sent anything."""
    for name, value in how.items():
        setattr(server.buckets["bucket"], name, value)
    with pytest.raises(NotAllowed, match="keeps whatever is written"):
        await push(store)
    assert server.count("xml.initiate") == 0
    await store.put("a.tgz", DATA, overwrite=False)
    with pytest.raises(NotAllowed, match="must not be replaced or removed yet"):
        await store.put("a.tgz", b"new", overwrite=True)
    assert_clean(server)


async def test_unknown_retention(server: FakeGS, tmp_path: Path) -> None:
    """Who may not see the policy learns at the end, and what is left is named."""
    rights = [f"storage.objects.{one}" for one in ("get", "list", "create", "delete", "move")]
    rights += [f"storage.multipartUploads.{one}" for one in ("create", "abort", "listParts")]
    server.buckets["bucket"].retention_seconds = 60
    async with open_store(keyed(server, tmp_path, rights)) as store:
        with pytest.raises(NotAllowed, match="must not be replaced or removed") as caught:
            await push(store)
    (key,) = there(server)
    assert key.startswith("data/.etcetera/a.tgz/")
    (note,) = caught.value.__notes__
    assert f"gs://bucket/{key}" in note
    assert "gcloud storage rm" in note


async def test_requester_pays(server: FakeGS, settings: RepositorySettings, tmp_path: Path) -> None:
    """A bucket whose owner does not pay needs a project, which every request then names."""
    server.buckets["bucket"].requester_pays = True
    async with open_store(settings) as store:
        with pytest.raises(NotAllowed, match="set google_project"):
            await store.put("a.tgz", DATA, overwrite=False)
    server.requests.clear()
    async with open_store(keyed(server, tmp_path, google_project="mine")) as store:
        await push(store)
        assert await read(store) == DATA
        url = (await store.share("a.tgz", 60, None)).url
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert await answer.read() == DATA
    told = [one for one in server.requests if one.operation not in ("token", "xml.get")]
    assert {one.headers.get("x-goog-user-project") for one in told} == {"mine"}


# Reading


async def test_pinned(server: FakeGS, store: Store) -> None:
    """GS-02: every range names the generation that was opened."""
    server.put("bucket", KEY, DATA)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        assert await remote.read(5, 300) == DATA[5:300]
        server.plan("objects.media", faults.changed(b"other" * 1000))
        with pytest.raises(RemoteChanged):
            await remote.read(300, 400)
        asked = [one for one in server.requests if one.operation == "objects.media"]
        assert {one.query["generation"] for one in asked} == {remote.info.etag}


@pytest.mark.parametrize(
    "fault",
    [
        faults.truncate(100),
        faults.truncate(100, reset=True),
        faults.reset(),
        faults.answer(503),
        faults.unauthorized(),
    ],
    ids=["short", "reset", "nothing", "503", "401"],
)
async def test_broken_ranges(server: FakeGS, store: Store, fault: faults.Fault) -> None:
    """DN-05: what breaks off is asked for again, from where it broke."""
    server.put("bucket", KEY, DATA)
    server.plan("objects.media", fault)
    assert await read(store, 3, 2000) == DATA[3:2000]


async def test_silent_range(server: FakeGS, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """DN-08: a server that falls silent is given up after a while, and asked again."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.2)
    server.put("bucket", KEY, DATA)
    server.plan("objects.media", faults.stall(stop=50))
    assert await read(store) == DATA


async def test_other_generation(server: FakeGS, store: Store) -> None:
    """GS-02: an answer that is of another version, whatever its status, is refused."""
    server.put("bucket", KEY, DATA)

    def lie(told: aiohttp.web.Response) -> None:
        told.headers["x-goog-generation"] = "1"

    server.plan("objects.media", faults.edit(lie))
    with pytest.raises(RemoteChanged):
        await read(store)


async def test_not_transcoded(server: FakeGS, store: Store) -> None:
    """GS-03: an object that somebody has marked as compressed is read as it is stored."""
    data = gzip.compress(DATA)
    server.put("bucket", KEY, data, contentEncoding="gzip")
    assert await read(store, 0, len(data)) == data
    assert await read(store, 5, 20) == data[5:20]


async def test_shorter(server: FakeGS, store: Store) -> None:
    """An object that is shorter than it was said to be is no archive any more."""
    blob = server.put("bucket", KEY, DATA)
    async with store.open("a.tgz") as remote:
        assert remote is not None
        blob.data = DATA[:100]
        with pytest.raises(TruncatedArchive):
            await remote.read(200, 300)


# Listing


def listed(**fields: str) -> bytes:
    """A listing of one object, of which something is senseless."""
    one = {"name": "data/a", "size": "1", "generation": "1", "updated": "2020-01-01T00:00:00Z"}
    return json.dumps({"items": [one | fields]}).encode()


async def test_many_objects(server: FakeGS, store: Store) -> None:
    """A listing goes on from page to page, and looks into nothing below."""
    names = [f"{number}.tgz" for number in range(1500)]
    for name in names:
        server.put("bucket", f"data/{name}", b"x")
    server.put("bucket", "data/below/x.tgz", b"x")
    server.put("bucket", "data/", b"")
    server.put("bucket", "data/.etcetera/x.tgz/0/1", b"x")
    before = server.count("objects.list")
    assert [info.key async for info in store.list()] == sorted(names)
    assert server.count("objects.list") - before == 4


@pytest.mark.parametrize(
    "page",
    [
        b"<html>", b"[]", b'{"items": 5}', b'{"items": [{"name": "data/a"}]}', b"",
        b'{"items": [{"name": "data/a", "size": "x", "generation": "1", "updated": "2020"}]}',
        listed(generation="../1"), listed(size="-1"),
        b'{"nextPageToken": "same"}', b"[" * 100_000,
        b'{"items": [' + b"{}," * (1 << 15) + b"{}]}", b" " * (1 << 20) + b"{}",
    ],
)  # fmt: skip
async def test_senseless_lists(server: FakeGS, store: Store, page: bytes) -> None:
    """What is no list ends as an error that says so, and soon."""
    fault = faults.respond(lambda: aiohttp.web.Response(body=page, content_type="application/json"))
    server.plan("objects.list", fault, times=faults.ALWAYS)
    with pytest.raises(NetworkError):
        [_ async for _ in store.list()]


async def test_fresh_pages_without_end(
    server: FakeGS, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing that only ever goes on is given up."""
    monkeypatch.setattr(common, "MOST_PAGES", 5)
    tokens = iter(range(100))
    page = faults.respond(lambda: aiohttp.web.json_response({"nextPageToken": f"{next(tokens)}"}))
    server.plan("objects.list", page, times=faults.ALWAYS)
    with pytest.raises(StoreError, match="lists without end"):
        [_ async for _ in store.list()]
    assert next(tokens) == 6


@pytest.mark.parametrize("body", [b'{"error":' + b"[" * 60_000, b"x" * (1 << 17)])
async def test_bloated_errors(server: FakeGS, store: Store, body: bytes) -> None:
    """RX-08: an error that is too long, or too deep, says no more than its status."""
    refuse = faults.respond(lambda: aiohttp.web.Response(status=403, body=body))
    server.plan("objects.list", refuse, times=faults.ALWAYS)
    with pytest.raises(NotAllowed, match="403"):
        [_ async for _ in store.list()]


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE R [<!ENTITY a 'b'>]><R>&a;</R>",
        "<!DOCTYPE R [<!ENTITY a 'b'>]><R>&a;</R>".encode("utf-16"),
        b"<R>" + b"<a/>" * (1 << 14) + b"</R>",
    ],
)
def test_bloated_documents(body: bytes) -> None:
    """RX-08: a document that declares entities, or has too many elements, is none."""
    with pytest.raises(ValueError, match=r"declares entities|too long"):
        as_xml("R", Answer({}, body))


async def test_no_redirects(server: FakeGS, store: Store) -> None:
    """DN-15: a token goes nowhere else, whatever a server says."""
    moved = faults.respond(
        lambda: aiohttp.web.Response(status=307, headers={"Location": "http://127.0.0.1:1/x"})
    )
    server.plan("objects.list", moved)
    with pytest.raises(StoreError, match="307"):
        [_ async for _ in store.list()]


# Going on, and cleaning


async def interrupted(store: Store, parts: int) -> Unfinished:
    """Begin an upload, send some parts, and lose the line."""

    async def lost(upload: Any) -> Unfinished:
        known = [dict(upload.part(number)) for number in range(1, parts + 1)]
        return Unfinished(id=upload.id, state=upload.state(), parts=known)

    earlier = None
    with pytest.raises(NetworkError):
        async with store.upload("a.tgz", part_size=PART, overwrite=False) as upload:
            for number in range(1, parts + 1):
                part = DATA[(number - 1) * PART : number * PART]
                await upload.put_part(number, part, zlib.crc32(part))
            upload.keep = True
            earlier = await lost(upload)
            raise NetworkError("the line is dead")
    assert upload.kept
    assert earlier is not None
    return earlier


async def go_on(store: Store, earlier: Unfinished) -> ObjectInfo:
    """Go on with an upload in which the last part is missing."""
    async with store.upload("a.tgz", part_size=PART, overwrite=False, resume=earlier) as upload:
        await upload.put_part(3, DATA[2000:], zlib.crc32(DATA[2000:]))
        return await upload.complete()


async def test_resume(server: FakeGS, settings: RepositorySettings) -> None:
    """Another process goes on where one has ended."""
    async with open_store(settings) as store:
        earlier = await interrupted(store, 2)
    assert len(server.buckets["bucket"].uploads) == 1
    async with open_store(settings) as store:
        await go_on(store, earlier)
    assert server.count("xml.part") == 3
    assert_clean(server)


@pytest.mark.parametrize(
    "change", ["gone", "other part", "less", "public", "journal", "length", "list"]
)
async def test_no_resume(
    server: FakeGS, settings: RepositorySettings, change: str, tmp_path: Path
) -> None:
    """An upload that is not what it should be is removed, and begun anew."""
    async with open_store(settings) as store:
        earlier = await interrupted(store, 2)
        (upload,) = server.buckets["bucket"].uploads.values()
        if change == "gone":
            await store.abandon("a.tgz", earlier.id)
        elif change == "other part":
            async with aiohttp.ClientSession() as session:
                path = next(one.path for one in server.requests if one.operation == "xml.part")
                query = {"partNumber": "2", "uploadId": earlier.id.partition(".")[2]}
                headers = {"Authorization": f"Bearer {next(iter(server.tokens))}"}
                async with session.put(
                    f"{server.endpoint}{path}", params=query, data=b"y" * PART, headers=headers
                ) as answer:
                    assert answer.status == 200
        elif change == "less":
            del upload.parts[2]
        elif change == "length":
            parts = [dict(part) | {"Size": "-5"} for part in earlier.parts]
            earlier = replace(earlier, parts=parts)
            upload.parts.clear()
        elif change == "journal":
            parts = [dict(part) | {"CRC32C": "?"} for part in earlier.parts]
            earlier = replace(earlier, parts=parts)
    if change == "public":
        settings = keyed(server, tmp_path, public=True)
    elif change == "list":
        server.plan("xml.parts", faults.answer(403))
    async with open_store(settings) as store:
        with pytest.raises(CannotResume):
            await go_on(store, earlier)
    assert_clean(server, None)


@pytest.mark.parametrize("same", [True, False])
async def test_resume_of_what_is_whole(
    server: FakeGS, settings: RepositorySettings, same: bool
) -> None:
    """A run that ended between putting together and moving is gone on with, and sends nothing."""
    async with open_store(settings) as store:
        server.plan("objects.move", faults.answer(503), times=faults.ALWAYS)
        with pytest.raises(NetworkError):
            async with store.upload("a.tgz", part_size=PART, overwrite=False) as upload:
                for number, start in enumerate(range(0, len(DATA), PART), 1):
                    part = DATA[start : start + PART]
                    await upload.put_part(number, part, zlib.crc32(part))
                    if number == 2:
                        known = [dict(upload.part(one)) for one in (1, 2)]
                        earlier = Unfinished(id=upload.id, state=upload.state(), parts=known)
                upload.keep = True
                await upload.complete()
    server.rules.clear()
    sent = server.count("xml.part")
    async with open_store(settings) as store:
        last = DATA[2000:] if same else b"other" * 112
        async with store.upload("a.tgz", part_size=PART, overwrite=False, resume=earlier) as again:
            await again.put_part(3, last, zlib.crc32(last))
            if same:
                await again.complete()
            else:
                with pytest.raises(StoreError, match="other bytes"):
                    await again.complete()
    assert server.count("xml.part") == sent
    assert_clean(server, DATA if same else None)


async def test_cleaning(server: FakeGS, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """UP-11: what killed runs leave is found, whatever it has come to, and nothing else."""
    await interrupted(store, 2)
    server.put("bucket", f"data/.etcetera/b.tgz/{'0' * 32}", b"whole")
    server.put("bucket", f"data/.etcetera/c.tgz/{'1' * 32}/00001", b"part")
    server.put("bucket", f"data/.etcetera/c.tgz/{'1' * 32}/00002", b"part")
    server.put("bucket", "data/.etcetera/notes", b"somebody's")
    server.put("bucket", f"data/.etcetera/.x.tgz/{'2' * 32}", b"a stranger's")
    server.put("bucket", f"other/.etcetera/b.tgz/{'0' * 32}", b"another repository's")
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert [one async for one in store.unfinished(later - timedelta(hours=1))] == []
    found = {one.key: one async for one in store.unfinished(later)}
    assert {key: one.size for key, one in found.items()} == {
        "a.tgz": 2 * PART,
        "b.tgz": 5,
        "c.tgz": 8,
    }
    for one in found.values():
        await store.abandon(one.key, one.id)
    assert await count_gs_uploads(store) == 0
    assert set(there(server)) == {
        f"data/.etcetera/.x.tgz/{'2' * 32}",
        "data/.etcetera/notes", f"other/.etcetera/b.tgz/{'0' * 32}"
    }  # fmt: skip
    for wrong in ("", "x", "../../a", f"{'0' * 31}/.", "0" * 32 + "/x."):
        with pytest.raises(EtceteraError):
            await store.abandon("a.tgz", wrong)


# Links


async def fetch(url: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Follow a link, as anybody can."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


async def test_link(server: FakeGS, store: Store) -> None:
    """A link opens one object, for a while, to whoever has it."""
    await push(store)
    shared = await store.share("a.tgz", 60, None)
    assert not shared.temporary
    assert await fetch(shared.url) == (200, DATA)
    assert (await fetch(shared.url.replace("a.tgz", "b.tgz")))[0] == 403
    server.clock = lambda: datetime.now(UTC).timestamp() + 100
    assert (await fetch(shared.url))[0] == 400
    with pytest.raises(UsageError, match="seven days"):
        await store.share("a.tgz", 8 * 24 * 3600, None)


async def test_link_to_a_part(server: FakeGS, store: Store) -> None:
    """One to a part opens that part of that version, and nothing else."""
    info = await push(store)
    shared = await store.share("a.tgz", 60, PinnedRange(10, 20, info.etag))
    assert shared.part is not None
    headers = shared.part.headers()
    assert await fetch(shared.url, headers) == (206, DATA[10:20])
    assert (await fetch(shared.url))[0] == 403
    assert (await fetch(shared.url, headers | {"Range": "bytes=0-100"}))[0] == 403
    await push(store, b"other" * 500, overwrite=True)
    assert (await fetch(shared.url, headers))[0] == 412


# Secrets


async def test_nothing_is_shown(
    server: FakeGS, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """SE-02: neither tokens nor keys come to be in messages, logs and representations."""
    caplog.set_level(logging.DEBUG)
    (token,) = server.tokens
    body = json.dumps({"error": {"code": 400, "message": f"bad {token} \x1b[2J Bearer"}}).encode()
    echo = faults.respond(lambda: aiohttp.web.Response(status=400, body=body))
    server.plan("objects.list", echo)
    with pytest.raises(StoreError) as caught:
        [_ async for _ in store.list()]
    connection = cast(GsStore, store).connection
    shown = [str(caught.value), repr(caught.value), repr(store), repr(connection.place),
             repr(await connection.credentials()), caplog.text]  # fmt: skip
    for text in shown:
        assert token not in text
        assert "PRIVATE KEY" not in text
        assert "\x1b" not in text
