"""What ``etc doctor --write`` tries on S3 servers that do not do as they should."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from etcetera.findings import RESERVED, Finding
from etcetera.stores import common, open_store, s3_doctor, s3_scratch, s3_trial
from tests.stores.examining import examine, tricks
from tests.stores.fake_s3 import Answer, FakeS3, Request, error


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """Send little, to a server that takes parts of any length."""
    monkeypatch.setattr(s3_trial, "_COPIED", 1 << 16)


class TestTricks:
    """Servers that do not do as S3 does; whatever they do, they have nothing afterwards."""

    async def examine(self, fake: FakeS3, **more: object) -> dict[str, Finding]:
        """Return what is found; nothing may be left."""
        found = await examine(fake.settings(**more), write=True)
        assert fake.objects == {}
        assert fake.uploads == {}
        return found

    async def test_honest(self, fake: FakeS3) -> None:
        """The fake server itself checks nothing and heeds no condition on reading."""
        found = await self.examine(fake)
        warnings = {check for check, one in found.items() if one.status == "warning"}
        assert warnings == {"checksums", "one version"}
        keys = {request.path.partition("/bucket/")[2] for request in fake.seen} - {"", "/bucket"}
        assert all(key.startswith(RESERVED) for key in keys)

    async def test_ignored_conditions(self, fake: FakeS3) -> None:
        """Conditions that are ignored are found out, where they matter."""

        def ignore(request: Request, honest: Callable[[], Answer]) -> Answer:
            request.headers.pop("if-none-match", None)
            return honest()

        tricks(fake, "put", ignore)
        tricks(fake, "complete", ignore)
        found = await self.examine(fake)
        for check in ("conditional writes", "conditional uploads"):
            assert found[check].status == "warning"
            assert found[check].message == (
                "the server ignores If-None-Match: two pushes of one name at the same moment are "
                "not told apart"
            )

    async def test_unknown_conditions(self, fake: FakeS3) -> None:
        """So is a server that knows none."""

        def refuse(request: Request, honest: Callable[[], Answer]) -> Answer:
            known = {"if-none-match", "if-match"}.isdisjoint(request.headers)
            return honest() if known else error(501, "NotImplemented")

        tricks(fake, "put", refuse)
        tricks(fake, "complete", refuse)
        found = await self.examine(fake)
        assert "knows no If-None-Match" in found["conditional writes"].message
        assert "knows no If-None-Match" in found["conditional uploads"].message
        assert found["uploads"].status == "ok"

    async def test_dropped_uploads(self, fake: FakeS3) -> None:
        """A server may drop an upload whose condition did not hold."""

        def drop(request: Request, honest: Callable[[], Answer]) -> Answer:
            fake.uploads.pop(request.query["uploadId"][0], None)
            return error(412, "PreconditionFailed")

        fake.tricks["complete"] = [drop, drop]
        assert (await self.examine(fake))["uploads"].status == "unknown"

    @pytest.mark.parametrize("public", [True, False])
    async def test_no_lists(self, public: bool, fake: FakeS3) -> None:
        """Where ACLs are disabled, public = true is a problem, and else none."""

        def refuse(request: Request, honest: Callable[[], Answer]) -> Answer:
            asks = "x-amz-acl" in request.headers
            return error(400, "AccessControlListNotSupported") if asks else honest()

        tricks(fake, "create", refuse)
        found = await self.examine(fake, public=public)
        assert found["public"].status == ("problem" if public else "ok")
        assert found["public"].message.startswith("the bucket lets no object be public")

    async def test_never_public(self, fake: FakeS3) -> None:
        """What asks to be public is never completed, nor has any data."""
        await self.examine(fake, public=True)
        asking = [request for request in fake.seen if "x-amz-acl" in request.headers]
        assert [request.operation for request in asking] == ["create"]
        last = max(fake.seen.index(request) for request in asking)
        after = [request.operation for request in fake.seen[last + 1 :]]
        assert set(after) <= {"abort", "parts", "head", "delete"}

    @pytest.mark.parametrize("operation", ["put", "copy", "create", "part"])
    async def test_read_only(self, operation: str, fake: FakeS3) -> None:
        """Who may only read is told that pulling works; who may do half of it has a problem."""
        tricks(fake, operation, error(403, "AccessDenied"))
        found = await self.examine(fake)
        status = {"copy": ("part copy", "warning"), "put": ("write", "warning")}
        check, expected = status.get(operation, ("uploads", "problem"))
        assert found[check].status == expected

    async def test_reading_without_writing(self, fake: FakeS3) -> None:
        """Where nothing can be written, reading is tried on an archive that is there."""
        tricks(fake, "put", error(403, "AccessDenied"))
        fake.objects["flowers.tgz"] = bytes(100), {}
        entry = "<Key>flowers.tgz</Key><Size>100</Size>"
        entry += "<LastModified>2026-11-02T10:00:00Z</LastModified>"
        body = f"<ListBucketResult><Contents>{entry}</Contents></ListBucketResult>"
        tricks(fake, "list", Answer(body=body.encode()))
        found = await examine(fake.settings(), write=True)
        assert (found["write"].status, found["ranges"].status) == ("warning", "ok")

    async def test_copies_nothing(self, fake: FakeS3) -> None:
        """A server that says it has copied, and has not, is found out."""
        tricks(fake, "copy", Answer(body=b'<R><ETag>"0"</ETag></R>'))
        found = await self.examine(fake)
        assert found["part copy"].status == "warning"
        assert "says that it has copied 65,536 bytes, and has 0" in found["part copy"].message
        assert found["uploads"].status == "ok"

    async def test_copies_something_else(self, fake: FakeS3) -> None:
        """So is one that copies other bytes."""

        def reverse(request: Request, honest: Callable[[], Answer]) -> Answer:
            answer = honest()
            parts = fake.uploads[request.query["uploadId"][0]]
            parts[1] = parts[1][::-1]
            return answer

        tricks(fake, "copy", reverse)
        found = await self.examine(fake)
        assert found["uploads"].status == "problem"
        assert found["uploads"].message == "an object is not what its parts were"

    async def test_no_ranges(self, fake: FakeS3) -> None:
        """A server, or a proxy, that sends everything is of no use."""

        def whole(request: Request, honest: Callable[[], Answer]) -> Answer:
            return Answer(body=next(iter(fake.objects.values()))[0], headers={"ETag": '"1"'})

        tricks(fake, "get", whole)
        assert (await self.examine(fake))["ranges"].status == "problem"

    async def test_checksums(self, fake: FakeS3) -> None:
        """A server that knows CRC-32 and refuses a wrong one is as it should be."""

        def confirm(request: Request, honest: Callable[[], Answer]) -> Answer:
            answer = honest()
            answer.headers["x-amz-checksum-algorithm"] = "CRC32"
            return answer

        tricks(fake, "create", confirm)
        fake.tricks["part"] = [error(400, "BadDigest")]
        checksums = (await self.examine(fake))["checksums"]
        assert checksums.status == "ok"
        assert checksums.message.endswith("(CRC-32)")

    async def test_left_upload(self, fake: FakeS3) -> None:
        """So is an upload; the object is removed all the same."""
        tricks(fake, "abort", error(403, "AccessDenied"))
        removing = (await examine(fake.settings(), write=True))["removing"]
        assert fake.objects == {}
        assert removing.status == "problem"
        for upload in fake.uploads:
            assert f"--upload-id {upload} --endpoint-url {fake.endpoint}" in removing.advice
        assert "s3 rm" not in removing.advice

    async def test_endless_uploads(self, fake: FakeS3) -> None:
        """A server that keeps what was aborted is warned of."""
        tricks(fake, "abort", Answer(204))
        found = await examine(fake.settings(), write=True)
        assert found["aborting"].status == "warning"

    async def test_left(self, fake: FakeS3) -> None:
        """What cannot be removed is named, with the command that removes it."""
        tricks(fake, "delete", error(403, "AccessDenied"))
        found = await examine(fake.settings(), write=True)
        (key,) = fake.objects
        assert found["removing"].status == "problem"
        assert found["removing"].message.startswith(f"s3://bucket/{key} may be left (s3://bucket")
        assert found["removing"].advice == (
            f"remove it with: aws s3 rm s3://bucket/{key} --endpoint-url {fake.endpoint}"
        )


Serve = Callable[[FakeS3, Request], Answer]


async def test_line_breaks(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever request gets no answer, it is reported, and what can be removed is."""

    def silent_at(number: int) -> Serve:
        """Answer neither the request of that number nor its repetition."""
        first: list[str] = []

        def answer(fake: FakeS3, request: Request) -> Answer:
            honest = serve(fake, request)
            if len(fake.seen) == number + 1 and request.operation not in ("abort", "delete"):
                first.append(request.operation)
            silent = len(fake.seen) <= number + 2 and request.operation in first
            return Answer(silent=True) if silent else honest

        return answer

    serve = FakeS3.serve
    async with open_store(fake.settings()) as store:
        await store.examine(write=True)
        for number in range(len(fake.seen)):
            fake.seen.clear()
            monkeypatch.setattr(FakeS3, "serve", silent_at(number))
            assert await store.examine(write=True)
            assert (fake.objects, fake.uploads) == ({}, {}), number


async def test_cancellation(
    fake: FakeS3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled at whichever request, it leaves nothing in the bucket, and says nothing."""

    def cancel_at(number: int, task: "asyncio.Task[Sequence[Finding]]") -> Serve:
        def answer(fake: FakeS3, request: Request) -> Answer:
            if len(fake.seen) == number + 1:
                task.cancel()
            return serve(fake, request)

        return answer

    serve = FakeS3.serve
    async with open_store(fake.settings()) as store:
        await store.examine(write=True)
        count = len(fake.seen)
        assert count > 20
        for number in range(count):
            fake.seen.clear()
            task = asyncio.ensure_future(store.examine(write=True))
            monkeypatch.setattr(FakeS3, "serve", cancel_at(number, task))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (fake.objects, fake.uploads) == ({}, {}), number
    assert not caplog.records


async def test_cancelled_and_left(
    fake: FakeS3, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should it be cancelled where nothing can be removed, what is left is named."""
    monkeypatch.setattr(s3_scratch, "GRACE_SECONDS", 0.2)
    tricks(fake, "delete", Answer(silent=True))

    async def run() -> None:
        async with open_store(fake.settings()) as store:
            await store.examine(write=True)

    task = asyncio.create_task(run())

    def cancel(request: Request, honest: Callable[[], Answer]) -> Answer:
        task.cancel()
        return honest()

    fake.tricks["copy"] = [cancel]
    with pytest.raises(asyncio.CancelledError):
        await task
    (key,) = fake.objects
    (record,) = caplog.records
    assert f"aws s3 rm s3://bucket/{key}" in record.getMessage()
    assert "sesame" not in record.getMessage()


@pytest.mark.parametrize("operation", ["put", "part", "list"])
async def test_slow_server(fake: FakeS3, monkeypatch: pytest.MonkeyPatch, operation: str) -> None:
    """However slow a server is, the examination ends, says so, and leaves nothing."""
    monkeypatch.setattr(s3_doctor, "EXAMINATION_SECONDS", 1.0)
    monkeypatch.setattr(common, "GRACE_SECONDS", 0.1)

    async def wait(request: Request, honest: Callable[[], Answer]) -> Answer:
        await over.wait()
        return honest()

    over = asyncio.Event()
    tricks(fake, operation, wait)
    found = await examine(fake.settings(), write=True)
    over.set()
    assert found["speed"].status == "problem"
    assert "so slow" in found["speed"].message
    assert (fake.objects, fake.uploads) == ({}, {})
    assert operation == "list" or found["removing"].status == "ok"
