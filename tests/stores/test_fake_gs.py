"""The fake Google Cloud Storage, as Google's own client sees it."""

import asyncio
import gc
import gzip
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import google_crc32c
import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import transfer_manager
from google.oauth2 import service_account

from tests.fake_gs import Account, FakeGS, fake_gs, fake_gs_thread, faults
from tests.fake_gs.calls import Call
from tests.servers import GSEmulator

pytestmark = [
    pytest.mark.timeout(60),
    # Google's client leaves the connection of a download that failed to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[FakeGS]:
    """Run a fake server, with a bucket, in a thread."""
    with fake_gs_thread() as fake:
        fake.make_bucket("bucket")
        yield fake


def make_client(server: FakeGS | GSEmulator, credentials: Any = None) -> Any:
    """Return Google's client, for a server here."""
    found = storage.Client(
        project="test-project",
        credentials=credentials or AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": server.endpoint},
    )
    # For the sake of its traces it would ask for buckets behind one's back, in other threads.
    found._bucket_metadata_cache = None
    return found


def make_credentials(server: FakeGS, account: Account) -> Any:
    """Return what Google's client makes of a service account's key file."""
    info = account.info(server.endpoint)
    make: Any = service_account.Credentials.from_service_account_info
    return make(info)


def readers(server: FakeGS, name: str) -> dict[str, str]:
    """Return who else than the owner may read an object."""
    acl = server.buckets["bucket"].objects[name].acl
    return {entity: role for entity, role in acl.items() if role == "READER"}


@pytest.fixture
def client(server: FakeGS) -> Iterator[Any]:
    """Return Google's client, for the fake server."""
    found = make_client(server)
    yield found
    found.close()
    gc.collect()  # while its warnings are not errors


@pytest.fixture
def bucket(client: Any) -> Any:
    """Return the bucket, as Google's client has it."""
    return client.bucket("bucket")


def crc(data: bytes) -> int:
    """Return the checksum of *data*."""
    return int(google_crc32c.value(data))


def test_simple_upload(server: FakeGS, bucket: Any) -> None:
    """Data and description arrive, and come back."""
    blob = bucket.blob("a/ü b#c?")
    blob.metadata = {"kind": "test"}
    blob.upload_from_string(b"hello", content_type="text/x-test", checksum="crc32c")
    kept = server.buckets["bucket"].objects["a/ü b#c?"]
    assert (kept.data, kept.metadata, kept.fields["contentType"]) == (
        b"hello",
        {"kind": "test"},
        "text/x-test",
    )
    again = bucket.get_blob("a/ü b#c?")
    assert (again.generation, again.size, again.md5_hash) == (
        kept.generation,
        5,
        "XUFAKrxLKna5cZ2REBfFkg==",
    )
    assert again.download_as_bytes(checksum="md5") == b"hello"


def test_resumable_upload(server: FakeGS, bucket: Any) -> None:
    """Pieces come one after the other, with an answer lost in between."""
    data = os.urandom(3 * 256 * 1024 + 17)
    server.plan("resumable.put", faults.lose_reply(), skip=1)
    blob = bucket.blob("large", chunk_size=256 * 1024)
    with blob.open("wb", chunk_size=256 * 1024) as file:
        file.write(data)
    assert server.data("bucket", "large") == data
    assert server.count("resumable.put") == 5
    assert server.count("resumable.start") == 1


def test_upload_in_parts(server: FakeGS, bucket: Any, tmp_path: Path) -> None:
    """Google's client uploads in parts by the XML API."""
    data = os.urandom(11 * MIB)
    path = tmp_path / "file"
    path.write_bytes(data)
    blob = bucket.blob("parts/ä")
    blob.metadata = {"kind": "test"}
    transfer_manager.upload_chunks_concurrently(
        str(path),
        blob,
        chunk_size=5 * MIB,
        max_workers=2,
        worker_type=transfer_manager.THREAD,
        content_type="text/x-test",
    )
    kept = server.buckets["bucket"].objects["parts/ä"]
    assert kept.data == data
    assert kept.metadata == {"kind": "test"}
    assert not server.buckets["bucket"].uploads
    assert sorted(server.operations) == ["xml.complete", "xml.initiate", *["xml.part"] * 3]
    blob.reload()
    assert (blob.md5_hash, blob.size) == (None, 11 * MIB)
    assert blob.download_as_bytes() == data


def test_damaged_part(server: FakeGS, bucket: Any, tmp_path: Path) -> None:
    """A part that arrives otherwise than it was sent is refused, and the upload given up."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)

    async def damage(call: Call) -> None:
        if call.operation == "xml.part":
            call._body = b"y" + (await call.body())[1:]

    server.fault = damage
    with pytest.raises(Exception, match="BadDigest"):
        transfer_manager.upload_chunks_concurrently(
            str(path), bucket.blob("file"), worker_type=transfer_manager.THREAD
        )
    assert server.operations[-1] == "xml.abort"
    assert not server.buckets["bucket"].uploads
    assert not server.buckets["bucket"].objects


def test_listing(server: FakeGS, client: Any) -> None:
    """Lists have prefixes, delimiters, bounds, and pages."""
    names = ["a", "a/1", "a/2", "a/b/3", "b/4", "b/", "é/5", "z"]
    for name in names:
        server.put("bucket", name, b"x")
    found = [blob.name for blob in client.list_blobs("bucket", page_size=3)]
    assert found == sorted(names, key=str.encode)
    assert server.count("objects.list") == 3
    listing = client.list_blobs("bucket", prefix="a/", delimiter="/", page_size=1)
    assert [blob.name for blob in listing] == ["a/1", "a/2"]
    assert listing.prefixes == {"a/b/"}
    listing = client.list_blobs("bucket", delimiter="/")
    assert [blob.name for blob in listing] == ["a", "z"]
    assert listing.prefixes == {"a/", "b/", "é/"}
    listing = client.list_blobs("bucket", start_offset="a/2", end_offset="b/4")
    assert [blob.name for blob in listing] == ["a/2", "a/b/3", "b/"]
    wanted = "items(name,size),nextPageToken"
    listing = client.list_blobs("bucket", fields=wanted, page_size=4)
    assert next((blob.name, blob.size, blob.crc32c) for blob in listing) == ("a", 1, None)
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        list(client.list_blobs("nowhere"))


def test_versions(server: FakeGS, client: Any, bucket: Any) -> None:
    """A bucket with versions keeps what is overwritten and deleted."""
    server.buckets["bucket"].versioning = True
    first, second = server.put("bucket", "a", b"1"), server.put("bucket", "a", b"22")
    listing = client.list_blobs("bucket", versions=True)
    assert [blob.generation for blob in listing] == [first.generation, second.generation]
    old = bucket.blob("a", generation=first.generation)
    assert old.download_as_bytes() == b"1"
    old.delete()
    bucket.blob("a").delete()
    assert [blob.size for blob in client.list_blobs("bucket", versions=True)] == [2]
    assert not list(client.list_blobs("bucket"))


def test_downloads(server: FakeGS, bucket: Any) -> None:
    """Ranges are what they should be, and a wrong checksum is noticed."""
    data = os.urandom(100_000)
    server.put("bucket", "a", data)
    blob = bucket.blob("a")
    assert blob.download_as_bytes(start=10, end=19) == data[10:20]
    assert blob.download_as_bytes(start=99_990, end=200_000) == data[99_990:]
    assert blob.download_as_bytes(start=99_990) == data[99_990:]
    assert blob.download_as_bytes(start=-7) == data[-7:]
    assert blob.download_as_bytes(raw_download=True) == data
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=100_000)
    server.plan("objects.media", faults.wrong_crc())
    with pytest.raises(Exception, match="Checksum mismatch"):
        blob.download_as_bytes(checksum="crc32c")
    with pytest.raises(exceptions.NotFound, match="No such object: bucket/b"):
        bucket.blob("b").download_as_bytes()


def test_downloads_in_trouble(server: FakeGS, bucket: Any) -> None:
    """What is cut off or refused for now is asked for again."""
    data = os.urandom(100_000)
    server.put("bucket", "a", data)
    server.plan("objects.media", faults.answer(503), times=1)
    server.plan("objects.media", faults.truncate(70_000))
    assert bucket.blob("a").download_as_bytes() == data
    assert server.count("objects.media") == 3


def test_compressed_objects(server: FakeGS, bucket: Any) -> None:
    """Objects that are stored compressed come decompressed, if that is not forbidden."""
    packed = gzip.compress(b"hello" * 100)
    server.put("bucket", "a", packed, contentEncoding="gzip")
    blob = bucket.blob("a")
    assert blob.download_as_bytes() == b"hello" * 100
    assert blob.download_as_bytes(raw_download=True) == packed


def test_moving(server: FakeGS, bucket: Any) -> None:
    """A move keeps all but the name, the generation, and the times."""
    source = server.put("bucket", "a", b"data", metadata={"k": "v"}, acl={"allUsers": "READER"})
    moved = bucket.move_blob(
        bucket.blob("a"),
        "b",
        if_generation_match=0,
        if_source_generation_match=source.generation,
    )
    assert list(server.buckets["bucket"].objects) == ["b"]
    kept = server.buckets["bucket"].objects["b"]
    assert (kept.data, kept.metadata, kept.public) == (b"data", {"k": "v"}, True)
    assert moved.generation == kept.generation > source.generation
    assert server.operations == ["objects.move"]
    assert not server.buckets["bucket"].soft_deleted


def test_moving_refused(server: FakeGS, bucket: Any) -> None:
    """A move has conditions on both ends."""
    server.put("bucket", "a", b"1")
    server.put("bucket", "b", b"2")
    with pytest.raises(exceptions.PreconditionFailed, match="did not hold"):
        bucket.move_blob(bucket.blob("a"), "b", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.move_blob(bucket.blob("a"), "c", if_source_generation_match=17)
    with pytest.raises(exceptions.NotFound):
        bucket.move_blob(bucket.blob("nothing"), "c")
    with pytest.raises(exceptions.BadRequest):
        bucket.move_blob(bucket.blob("a"), "a")
    server.buckets["bucket"].moves = False
    with pytest.raises(exceptions.BadRequest, match="not supported"):
        bucket.move_blob(bucket.blob("a"), "c")
    assert sorted(server.buckets["bucket"].objects) == ["a", "b"]


def test_rewriting(server: FakeGS, client: Any, bucket: Any) -> None:
    """A copy may take several calls; it keeps the description, not the access control list."""
    server.make_bucket("other")
    server.rewrite_step = MIB
    data = os.urandom(3 * MIB + 1)
    server.put("bucket", "a", data, metadata={"k": "v"}, acl={"allUsers": "READER"})
    target = client.bucket("other").blob("b")
    token, done, total = target.rewrite(bucket.blob("a"))
    assert (done, total) == (MIB, len(data))
    while token:
        token, done, total = target.rewrite(bucket.blob("a"), token=token)
    assert done == total
    kept = server.buckets["other"].objects["b"]
    assert (kept.data, kept.metadata, kept.public) == (data, {"k": "v"}, False)
    assert not server.rewrites
    with pytest.raises(exceptions.PreconditionFailed):
        target.rewrite(bucket.blob("a"), if_generation_match=0)
    bucket.copy_blob(bucket.blob("a"), client.bucket("other"), "c", if_generation_match=0)
    assert server.data("other", "c") == data


def test_composing(server: FakeGS, bucket: Any) -> None:
    """Composed objects have no MD5, and count what they were made of."""
    for number in range(33):
        server.put("bucket", f"{number:02}", b"%d," % number)
    sources = [bucket.blob(f"{number:02}") for number in range(33)]
    target = bucket.blob("all")
    target.content_type = "text/plain"
    target.compose(sources[:32], if_generation_match=0)
    data = b"".join(b"%d," % number for number in range(32))
    assert target.download_as_bytes() == data
    target.reload()
    assert (target.component_count, target.md5_hash) == (32, None)
    assert target.content_type == "text/plain"
    with pytest.raises(exceptions.BadRequest, match="exceeds the maximum"):
        target.compose(sources)
    with pytest.raises(exceptions.PreconditionFailed):
        target.compose(sources[:2], if_generation_match=0)


def test_conditions(server: FakeGS, bucket: Any) -> None:
    """Generations are compared whenever something is read, written, or deleted."""
    bucket.blob("a").upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").upload_from_string(b"2", if_generation_match=0)
    generation = server.buckets["bucket"].objects["a"].generation
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("a").delete(if_generation_match=generation + 1)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("b").delete(if_generation_match=generation)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("a", generation=generation + 1).reload()
    with pytest.raises(exceptions.NotModified):
        bucket.blob("a").reload(if_generation_not_match=generation)
    bucket.blob("a").delete(if_generation_match=generation)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("a").delete()


def test_access_control(server: FakeGS, bucket: Any) -> None:
    """Lists of who may read work where they are in use."""
    server.put("bucket", "a", b"1")
    bucket.blob("a").make_public()
    assert readers(server, "a") == {"allUsers": "READER"}
    bucket.blob("b").upload_from_string(b"1", predefined_acl="publicRead")
    assert readers(server, "b") == {"allUsers": "READER"}
    bucket.blob("a").acl.save_predefined("private")
    assert not readers(server, "a")
    server.buckets["bucket"].uniform = True
    changes: list[Callable[[], object]] = [
        bucket.blob("a").make_public,
        lambda: bucket.blob("c").upload_from_string(b"1", predefined_acl="publicRead"),
    ]
    for change in changes:
        with pytest.raises(exceptions.BadRequest, match="uniform bucket-level access is enabled"):
            change()
    assert "c" not in server.buckets["bucket"].objects
    bucket.reload()
    assert bucket.iam_configuration.uniform_bucket_level_access_enabled


def test_buckets(server: FakeGS, client: Any) -> None:
    """Buckets come and go, and say what is special about them."""
    made = client.create_bucket("made", location="EU")
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("made")
    made.versioning_enabled = True
    made.requester_pays = True
    made.patch()
    assert server.buckets["made"].requester_pays
    with pytest.raises(exceptions.BadRequest, match="no user project provided"):
        client.get_bucket("made")
    paid = client.bucket("made", user_project="me")
    paid.reload()
    assert (paid.location, paid.versioning_enabled) == ("EU", True)
    assert [one.name for one in client.list_buckets()] == ["bucket", "made"]
    paid.delete()
    wanted = ["storage.objects.get", "storage.objects.create"]
    assert client.bucket("bucket").test_iam_permissions(wanted) == wanted


def test_retention(server: FakeGS, bucket: Any) -> None:
    """What is to be kept can be neither deleted, nor overwritten, nor moved."""
    server.put("bucket", "a", b"1")
    kept = server.buckets["bucket"]
    blob = bucket.blob("a")

    def check(match: str) -> None:
        for change in (
            blob.delete,
            lambda: blob.upload_from_string(b"2"),
            lambda: bucket.move_blob(blob, "b"),
        ):
            with pytest.raises(exceptions.Forbidden, match=match):
                change()

    kept.retention_seconds = 3600
    check("retention policy")
    kept.retention_seconds = 0
    blob.event_based_hold = True
    blob.patch()
    check("Event-Based hold")
    assert list(kept.objects) == ["a"]


def test_service_account(server: FakeGS) -> None:
    """A service account gets a token for its signature, and a new one when that is too old."""
    account = server.add_account(permissions=["storage.objects.get", "storage.objects.list"])
    server.secured = True
    server.put("bucket", "a", b"1")
    made = make_credentials(server, account)
    client = make_client(server, made)
    assert client.bucket("bucket").blob("a").download_as_bytes() == b"1"
    server.expire_tokens()
    assert client.bucket("bucket").blob("a").download_as_bytes() == b"1"
    assert server.count("token") == 2
    with pytest.raises(exceptions.Forbidden, match=r"storage\.objects\.delete access"):
        client.bucket("bucket").blob("a").delete()
    client.close()


def test_anonymous(server: FakeGS, bucket: Any) -> None:
    """Who has no token reads what is public, and nothing else."""
    server.secured = True
    server.put("bucket", "a", b"1", acl={"allUsers": "READER"})
    server.put("bucket", "b", b"1")
    assert bucket.blob("a").download_as_bytes() == b"1"
    for name in ("b", "nothing"):
        status, body = asyncio.run(fetch(f"{server.endpoint}/storage/v1/b/bucket/o/{name}"))
        assert (status, b"Anonymous caller does not have storage.objects" in body) == (401, True)
        status, body = asyncio.run(fetch(f"{server.endpoint}/bucket/{name}"))
        assert (status, b"<Code>AccessDenied</Code>" in body) == (403, True)
    server.make_bucket("open", public=True)
    assert not list(bucket.client.list_blobs("open"))


async def fetch(url: str, **headers: str) -> tuple[int, bytes]:
    """Fetch something over HTTP."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


def test_signed_urls(server: FakeGS, bucket: Any) -> None:
    """URLs that a service account has signed are good for what they say, for a while."""
    account = server.add_account()
    server.secured = True
    data = server.put("bucket", "a b/ü", b"0123456789")
    made = make_credentials(server, account)

    def sign(**options: Any) -> str:
        url = bucket.blob("a b/ü").generate_signed_url(
            version="v4",
            expiration=timedelta(minutes=5),
            credentials=made,
            api_access_endpoint=server.endpoint,
            **options,
        )
        return str(url)

    def get(url: str, **headers: str) -> tuple[int, bytes]:
        return asyncio.run(fetch(url, **headers))

    assert get(sign()) == (200, b"0123456789")
    assert get(sign(), Range="bytes=2-4") == (206, b"234")
    assert get(sign(generation=data.generation)) == (200, b"0123456789")
    assert get(sign(generation=17))[0] == 404
    assert get(sign(headers={"x-goog-test": "1"}), **{"x-goog-test": "1"})[0] == 200
    status, body = get(sign(headers={"x-goog-test": "1"}))
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in body) == (403, True)
    status, body = get(sign(method="PUT"))
    assert (status, b"<Code>SignatureDoesNotMatch</Code>" in body) == (403, True)
    url = sign()
    server.clock = lambda: data.created + 301 + 60
    status, body = get(url)
    assert (status, b"<Code>ExpiredToken</Code>" in body) == (400, True)


async def test_same_loop() -> None:
    """The server also runs on the loop of the test."""
    async with fake_gs() as server:
        server.make_bucket("bucket", public=True)
        server.put("bucket", "a", b"1")
        assert await fetch(f"{server.endpoint}/bucket/a") == (200, b"1")
        client = make_client(server)
        async with asyncio.timeout(30):
            blob = await asyncio.to_thread(client.bucket("bucket").get_blob, "a")
        assert blob.size == 1
        client.close()


async def test_faults_must_happen() -> None:
    """A fault that was planned and does not happen is noticed."""
    with pytest.raises(AssertionError, match="never happened"):
        async with fake_gs() as server:
            server.plan("objects.get", faults.reset())


def test_emulator(gs_emulator_server: GSEmulator, gs_bucket: str) -> None:
    """The other emulator runs, too."""
    client = make_client(gs_emulator_server)
    client.bucket(gs_bucket).blob("a/b").upload_from_string(b"hello")
    assert client.bucket(gs_bucket).blob("a/b").download_as_bytes() == b"hello"
    assert [blob.name for blob in client.list_blobs(gs_bucket)] == ["a/b"]
    client.close()
