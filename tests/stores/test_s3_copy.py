"""Parts copied from another object: servers that can, cannot, or only say that they can."""

import zlib
from collections.abc import AsyncIterator

import pytest

from etcetera.errors import (
    ExpiredCredentials,
    NetworkError,
    RemoteChanged,
    StoreError,
)
from etcetera.stores import CannotCopy, ObjectInfo, Store, open_store, s3_unfinished
from etcetera.stores.s3_copy import encoded_crc32
from tests.stores.fake_s3 import Answer, FakeS3, error

PART = 5 << 20
OLD = bytes(range(256)) * (PART >> 7)
"""Two parts."""

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def store(fake: FakeS3) -> AsyncIterator[Store]:
    """Open the bucket of the fake server, which has an old object."""
    fake.objects["old.tgz"] = OLD, {}
    async with open_store(fake.settings()) as opened:
        yield opened


async def info(store: Store) -> ObjectInfo:
    """What there is."""
    found = await store.head("old.tgz")
    assert found is not None
    return found


async def copy(store: Store, source: ObjectInfo) -> ObjectInfo:
    """Publish what begins like the old object."""
    async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
        await upload.copy_part(1, source, 0, PART, zlib.crc32(OLD[:PART]))
        await upload.put_part(2, b"end", zlib.crc32(b"end"))
        return await upload.complete()


async def test_copied(fake: FakeS3, store: Store) -> None:
    """A copy is pinned to a version, looked at after the first and before publishing."""
    async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
        source = await info(store)
        for number, start, stop in ((1, 1, PART + 3), (2, PART, 2 * PART)):
            await upload.copy_part(number, source, start, stop, zlib.crc32(OLD[start:stop]))
        await upload.put_part(3, b"end", zlib.crc32(b"end"))
        await upload.complete()
    assert fake.objects["new.tgz"][0] == OLD[1 : PART + 3] + OLD[PART:] + b"end"
    operations = [name for name in fake.operations if name in ("copy", "parts", "part", "complete")]
    assert operations == ["copy", "parts", "copy", "part", "parts", "complete"]


async def test_pages(fake: FakeS3, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts are listed in pages."""
    monkeypatch.setattr(s3_unfinished, "PAGE", 1)
    source = await info(store)
    async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
        for number in (1, 2, 3):
            await upload.copy_part(number, source, 0, PART, zlib.crc32(OLD[:PART]))
        await upload.complete()
    assert fake.objects["new.tgz"][0] == 3 * OLD[:PART]
    assert fake.operations.count("parts") == 4


NOTHING = Answer(body=b"<R><ETag>&quot;d41d8&quot;</ETag></R>")


@pytest.mark.parametrize(
    ("operation", "answer", "said"),
    [
        ("copy", error(501, "NotImplemented"), "NotImplemented"),
        ("copy", error(400, "InvalidArgument"), "InvalidArgument"),
        ("copy", error(403, "AccessDenied"), "not allowed"),
        ("copy", NOTHING, "and has 0"),
        ("copy", Answer(body=b"<R></R>"), "does not say"),
        ("copy", Answer(body=b"<R><ETag>e</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></R>"),
         "other bytes"),
        ("parts", error(501, "NotImplemented"), "does not say"),
        ("parts", error(403, "AccessDenied"), "does not say"),
        ("complete", error(400, "InvalidPart"), "different length"),
        ("complete", error(400, "EntityTooSmall"), "different length"),
    ],
)  # fmt: skip
async def test_cannot(
    fake: FakeS3, store: Store, operation: str, answer: Answer, said: str
) -> None:
    """Whatever a server lacks, it is told by one error, and nothing is published."""
    source = await info(store)
    fake.tricks[operation] = [answer]
    with pytest.raises(CannotCopy, match=said):
        async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
            await upload.copy_part(1, source, 0, PART, zlib.crc32(OLD[:PART]))
            await upload.complete()
    assert set(fake.objects) == {"old.tgz"}
    assert not fake.uploads


async def test_checksum_in_the_answer(fake: FakeS3, store: Store) -> None:
    """A server that says what it copied need not be asked again."""
    checksum = encoded_crc32(zlib.crc32(OLD[:PART]))
    source = await info(store)

    def answer(request: object, serve: object) -> Answer:
        upload = next(iter(fake.uploads.values()))
        upload[1] = OLD[:PART]
        text = f"<R><ETag>e</ETag><ChecksumCRC32>{checksum}</ChecksumCRC32></R>"
        return Answer(body=text.encode())

    fake.tricks["copy"] = [answer]
    async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
        await upload.copy_part(1, source, 0, PART, zlib.crc32(OLD[:PART]))
        await upload.complete()
    assert "parts" not in fake.operations
    assert fake.objects["new.tgz"][0] == OLD[:PART]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(412, "PreconditionFailed"), RemoteChanged),
        (error(404, "NoSuchKey"), RemoteChanged),
        (error(400, "ExpiredToken"), ExpiredCredentials),
        (error(404, "NoSuchUpload"), CannotCopy),
    ],
)
async def test_refused_copy(
    fake: FakeS3, store: Store, answer: Answer, expected: type[Exception]
) -> None:
    """What has another cause is no sign that a store cannot copy."""
    source = await info(store)
    fake.tricks["copy"] = [answer]
    with pytest.raises(expected):
        await copy(store, source)
    assert set(fake.objects) == {"old.tgz"}


async def test_trouble_is_waited_out(fake: FakeS3, store: Store) -> None:
    """A copy is asked for again, also after an error inside an answer of 200."""
    source = await info(store)
    inside = Answer(body=b"<Error><Code>InternalError</Code></Error>")
    fake.tricks["copy"] = [error(503, "SlowDown"), inside, None]
    async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
        await upload.copy_part(1, source, 0, PART, zlib.crc32(OLD[:PART]))
        await upload.complete()
    assert fake.objects["new.tgz"][0] == OLD[:PART]
    fake.tricks["copy"] = [error(503, "SlowDown")] * 20
    with pytest.raises(NetworkError):
        await copy(store, source)


async def test_endless_parts(fake: FakeS3, store: Store) -> None:
    """A server that lists the same again and again does not say what it has."""
    source = await info(store)
    page = (
        b"<ListPartsResult><IsTruncated>true</IsTruncated>"
        b"<NextPartNumberMarker>0</NextPartNumberMarker></ListPartsResult>"
    )
    fake.tricks["parts"] = [Answer(body=page)] * 3
    with pytest.raises(CannotCopy, match="again and again"):
        await copy(store, source)


@pytest.mark.parametrize("status", [200, 501])
async def test_replaces(fake: FakeS3, store: Store, status: int) -> None:
    """UP-23: only the version that was meant is replaced, also where conditions are unknown."""
    source = await info(store)
    if status == 501:
        fake.tricks["complete"] = [error(501, "NotImplemented")]
    published = await publish_over(store, source)
    assert fake.objects["old.tgz"][0] == b"new"
    assert published.size == 3
    seen = [request for request in fake.seen if request.operation == "complete"]
    assert seen[0].headers["if-match"] == f'"{source.etag}"'


async def publish_over(store: Store, source: ObjectInfo) -> ObjectInfo:
    """Replace one version."""
    async with store.upload(
        "old.tgz", part_size=PART, overwrite=True, replaces=source.etag
    ) as upload:
        await upload.put_part(1, b"new", zlib.crc32(b"new"))
        return await upload.complete()


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_replaced_by_somebody_else(fake: FakeS3, store: Store, when: str, gone: bool) -> None:
    """Another version is never overwritten, nor one put where somebody has deleted it."""
    source = await info(store)

    def replace() -> None:
        fake.objects.pop("old.tgz")
        if not gone:
            fake.objects["old.tgz"] = b"theirs", {}

    def trick(request: object, serve: object) -> Answer:
        replace()
        return error(412, "PreconditionFailed")

    if when == "before":
        replace()
    else:
        fake.tricks["complete"] = [trick]
    with pytest.raises(RemoteChanged, match="push again"):
        await publish_over(store, source)
    assert fake.objects == ({} if gone else {"old.tgz": (b"theirs", {})})
    assert not fake.uploads


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("account.r2.cloudflarestorage.com", "equal"),
        ("account.eu.r2.cloudflarestorage.com", "equal"),
        ("storage.googleapis.com", "no parts"),
        ("s3.eu-central-1.amazonaws.com", None),
        ("r2.cloudflarestorage.com.example", None),
    ],
)
async def test_known_by_name(fake: FakeS3, host: str, reason: str | None) -> None:
    """Some servers need not be asked."""
    async with open_store(fake.settings(endpoint_url=f"https://{host}")) as store:
        found = await store.why_no_copies()
    assert found is None if reason is None else reason in (found or "")


async def test_short_parts(fake: FakeS3, store: Store) -> None:
    """A part that no store takes between others is refused before it is published."""
    source = await info(store)
    with pytest.raises(StoreError, match="shorter"):
        async with store.upload("new.tgz", part_size=PART, overwrite=False) as upload:
            await upload.copy_part(1, source, 0, PART - 1, zlib.crc32(OLD[: PART - 1]))
            await upload.put_part(2, b"end", zlib.crc32(b"end"))
            await upload.complete()
    assert "complete" not in fake.operations
