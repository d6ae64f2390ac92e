"""What ``etc doctor`` finds out about S3 servers."""

import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import pytest

from etcetera.config import RepositorySettings
from etcetera.findings import RESERVED, Finding
from etcetera.stores import open_store, s3_doctor, s3_scratch, s3_trial
from etcetera.stores.s3 import S3Store
from tests.servers import RCLONE_BUCKET, S3Server
from tests.stores.conftest import s3_settings
from tests.stores.fake_s3 import Answer, FakeS3, Request, error

ARCHIVE = bytes(range(256))
MANY = 20
"""More requests of a kind than there are."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, hasty: None) -> None:
    """Send little to servers that take parts of any length."""
    monkeypatch.setattr(s3_trial, "_COPIED", 1 << 16)


async def examine(settings: RepositorySettings, *, write: bool = False) -> dict[str, Finding]:
    """Return what is found, by what was looked at; each has one finding."""
    async with open_store(settings) as store:
        findings = await store.examine(write=write)
    assert len({one.check for one in findings}) == len(findings)
    for one in findings:
        assert one.status in ("ok", "unknown") or one.advice, one
        assert "sesame" not in repr(one) and "testing-secret" not in repr(one)
    return {one.check: one for one in findings}


def words(found: dict[str, Finding]) -> dict[str, str]:
    """Return the status of each check."""
    return {check: one.status for check, one in found.items()}


async def names(store: S3Store) -> list[str]:
    """Everything that is in the bucket: objects, all their versions, uploads."""
    call = store.connection.call
    versions = await call("list_object_versions")
    uploads = await call("list_multipart_uploads")
    kinds = (versions.get("Versions"), versions.get("DeleteMarkers"), uploads.get("Uploads"))
    return [one["Key"] for kind in kinds for one in kind or ()]


def everything(directory: Path) -> set[Path]:
    """All that lies in a directory."""
    return set(directory.rglob("*"))


class TestRealServers:
    """What moto and rclone can do."""

    @pytest.fixture(autouse=True)
    def whole(self, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
        """Send as much as users do."""
        monkeypatch.setattr(s3_trial, "_COPIED", 5 << 20)

    @pytest.mark.parametrize("versions", [False, True])
    async def test_moto(self, versions: bool, moto_settings: RepositorySettings) -> None:
        """Moto heeds most conditions and compares no checksums; nothing is left, no version."""
        async with open_store(moto_settings) as opened:
            store = cast(S3Store, opened)
            if versions:
                enabled = {"Status": "Enabled"}
                await store.connection.call(
                    "put_bucket_versioning", VersioningConfiguration=enabled
                )
            await store.put("flowers.tgz", ARCHIVE, overwrite=True)
            found = {one.check: one for one in await store.examine(write=True)}
            assert await names(store) == [f"{store.prefix}flowers.tgz"]
        warnings = {check for check, one in found.items() if one.status == "warning"}
        assert warnings == {"checksums", "conditional uploads"}
        assert set(words(found).values()) == {"ok", "warning"}
        assert "If-Match" in found["conditional uploads"].message
        assert "CRC-32" in found["checksums"].message

    async def test_rclone(
        self, rclone_settings: RepositorySettings, rclone_directory: Path
    ) -> None:
        """Rclone ignores conditions, copies no parts, and checks MD5."""
        before = everything(rclone_directory)
        found = await examine(rclone_settings, write=True)
        assert everything(rclone_directory) == before
        warnings = {check for check, one in found.items() if one.status == "warning"}
        assert warnings == {
            "conditional writes", "one version", "part copy", "conditional uploads",
        }  # fmt: skip
        assert set(words(found).values()) == {"ok", "warning"}
        assert found["checksums"].message.endswith("(MD5)")

    async def test_reading_only(self, moto_settings: RepositorySettings) -> None:
        """Without being asked to, nothing is written; what is there already is read."""
        async with open_store(moto_settings) as opened:
            store = cast(S3Store, opened)
            await store.put("flowers.tgz", ARCHIVE, overwrite=False)
            store.connection.call = refuse_writes(store.connection.call)  # type: ignore[method-assign]
            found = {one.check: one for one in await store.examine(write=False)}
        assert words(found) == {
            "credentials": "ok", "endpoint": "ok", "clock": "ok", "list": "ok",
            "absent names": "ok", "ranges": "ok", "one version": "ok", "write": "unknown",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"aws_secret_access_key": "sesame-wrong"}, "the secret key is not the one"),
            ({"aws_access_key_id": "AKIAWRONG"}, "the server does not know the access key"),
        ],
    )
    async def test_wrong_keys(self, change: dict[str, str], said: str, rclone: S3Server) -> None:
        """Which of the two keys is wrong is said, and nothing more is asked."""
        found = await examine(s3_settings(rclone, RCLONE_BUCKET, **change), write=True)
        assert words(found) == {
            "credentials": "ok", "endpoint": "ok", "clock": "ok", "access": "problem",
        }  # fmt: skip
        assert found["access"].message.startswith(said)

    async def test_no_bucket(self, moto: S3Server) -> None:
        """A bucket that is missing is named."""
        found = await examine(s3_settings(moto, "no-such-bucket"), write=True)
        assert found["bucket"].message == "the bucket no-such-bucket does not exist"

    async def test_anonymous(
        self, moto_settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A public bucket can be looked at without credentials; nothing is written then."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        settings = RepositorySettings(
            url=moto_settings.url, endpoint_url=moto_settings.endpoint_url
        )
        found = await examine(settings, write=True)
        assert found["credentials"].status == "warning"
        assert found["write"].status == "unknown"
        assert found["write"].advice == "needs credentials"


def refuse_writes(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let no request through that writes."""

    def checked(operation: str, **arguments: Any) -> Any:
        assert not arguments.get("writes")
        assert operation.startswith(("list", "head", "get"))
        return call(operation, **arguments)

    return checked


@pytest.mark.parametrize("minutes", [-20, 20, 2, -2, 0])
async def test_clock(minutes: int, fake: FakeS3) -> None:
    """AU-06: how far the clock of this machine is off is said, with both times."""
    fake.always["Date"] = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), True)
    clock = (await examine(fake.settings()))["clock"]
    assert clock.status == {20: "problem", 2: "warning", 0: "ok"}[abs(minutes)]
    if minutes:
        times = re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", clock.message)
        here, there = (datetime.strptime(time, "%Y-%m-%d %H:%M UTC") for time in times)  # noqa: DTZ007
        assert abs(there - here - timedelta(minutes=minutes)) <= timedelta(minutes=1)
        assert ("behind" if minutes > 0 else "ahead") in clock.message
        assert abs(minutes) == 2 or "20 minutes" in clock.message


async def test_clock_refused(fake: FakeS3) -> None:
    """AU-06: where the server refuses signatures because of the time, the clock is blamed."""
    fake.always["Date"] = format_datetime(datetime.now(UTC) - timedelta(days=3), True)
    fake.tricks["list"] = [error(403, "RequestTimeTooSkewed")]
    found = await examine(fake.settings(), write=True)
    assert words(found) == {
        "credentials": "ok", "endpoint": "ok", "clock": "problem", "access": "problem",
    }  # fmt: skip
    assert "3 days ahead" in found["clock"].message
    assert found["access"].advice == "set the clock of this machine"


@pytest.mark.parametrize(
    ("answer", "check", "said"),
    [
        (error(400, "ExpiredToken"), "access", "the credentials are expired"),
        (error(403, "AccessDenied"), "list", "the credentials must not list the repository"),
        (error(403, "Nonsense"), "list", "the credentials must not list the repository"),
        (error(400, "Nonsense"), "endpoint", "s3://bucket: Nonsense: told\\nso\\u202e"),
        (error(501, "NotImplemented"), "endpoint", "s3://bucket refuses"),
        (error(503, "SlowDown"), "endpoint", "{endpoint} is in trouble"),
        (Answer(404, body=b"<html>Welcome"), "endpoint", "s3://bucket refuses (404: "),
        (Answer(silent=True), "endpoint", "the connection to {endpoint} broke off"),
    ],
)
async def test_refused_lists(answer: Answer, check: str, said: str, fake: FakeS3) -> None:
    """Whatever a listing is answered with, it is reported, and the clock is looked at."""
    fake.tricks["list"] = [answer] * MANY
    findings = []
    async with open_store(fake.settings()) as store:
        findings = [one for one in await store.examine(write=False) if one.status == "problem"]
    assert findings[-1].check == check
    assert findings[-1].message.startswith(said.format(endpoint=fake.endpoint))


async def test_forbidden_names(fake: FakeS3) -> None:
    """403 instead of 404 for what is absent tells of a missing right."""
    fake.tricks["list"] = [error(403, "AccessDenied")] * MANY
    fake.tricks["head"] = [Answer(403)] * MANY
    found = await examine(fake.settings())
    assert found["absent names"].status == "warning"
    assert "s3:ListBucket" in found["absent names"].advice


async def test_region(fake: FakeS3) -> None:
    """Where the bucket is elsewhere, the line to be written is said."""
    fake.always["x-amz-bucket-region"] = "eu-central-1"
    found = await examine(fake.settings())
    assert found["region"].status == "warning"
    assert found["region"].advice == 'write region = "eu-central-1"'
    assert "region" not in await examine(fake.settings(region="eu-central-1"))


async def test_in_the_clear(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server elsewhere that is not encrypted is warned of."""
    monkeypatch.setattr(s3_doctor, "travels_in_the_clear", lambda endpoint: True)
    endpoint = (await examine(fake.settings()))["endpoint"]
    assert endpoint.status == "warning"
    assert "not encrypted" in endpoint.message


async def test_unreachable(unused_tcp_port: int) -> None:
    """Name service, connection and encryption are told apart; none of it takes long."""
    closed = FakeS3(endpoint=f"http://127.0.0.1:{unused_tcp_port}")
    found = await examine(closed.settings())
    text = f"127.0.0.1 refuses to connect, at port {unused_tcp_port}"
    assert (found["endpoint"].status, found["endpoint"].message) == ("problem", text)
    found = await examine(FakeS3(endpoint="http://nowhere.invalid").settings())
    assert found["endpoint"].message == "nobody knows where nowhere.invalid is: it has no address"
    assert set(found) == {"credentials", "endpoint"}


async def test_not_encrypted(rclone: S3Server) -> None:
    """A server that speaks no TLS is told apart from one that is not there."""
    endpoint = rclone.endpoint.replace("http:", "https:")
    async with open_store(s3_settings(rclone, RCLONE_BUCKET, endpoint_url=endpoint)) as store:
        *_, last = await store.examine(write=True)
    assert last.check == "endpoint"
    assert last.message.startswith(f"{endpoint} cannot be trusted")
    assert "http://" in last.advice


async def test_silent(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and says nothing is not waited for."""
    monkeypatch.setattr(s3_doctor, "ANSWER_SECONDS", 0.1)

    async def wait(request: Request, honest: Callable[[], Answer]) -> Answer:
        await asyncio.sleep(1)
        return honest()

    fake.tricks["list"] = [wait] * MANY
    async with open_store(fake.settings()) as store:
        *_, last = await store.examine(write=True)
    assert last.message == f"{fake.endpoint} does not answer in time"


async def test_proxy(fake: FakeS3, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> None:
    """What goes by a proxy is not looked for on the way."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("NO_PROXY", "")
    async with open_store(fake.settings(endpoint_url="http://nowhere.invalid")) as store:
        first, second, *_, last = await store.examine(write=False)
    assert (first.check, second.check, second.status) == ("credentials", "endpoint", "ok")
    assert second.message == "http://nowhere.invalid, by the proxy that the environment names"
    assert last.message == "the proxy for http://nowhere.invalid cannot be reached"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"profile": "nobody"}, "nobody"),
        ({"region": "no region"}, "no region"),
    ],
)
async def test_unusable_settings(more: dict[str, str], said: str, fake: FakeS3) -> None:
    """What makes no client is reported, too."""
    keys = {"aws_access_key_id": None, "aws_secret_access_key": None}
    async with open_store(fake.settings(**keys, **more)) as store:
        (only,) = await store.examine(write=True)
    assert only.status == "problem"
    assert said in only.message


@pytest.mark.parametrize("origin", ["env", "file", "process"])
async def test_where_credentials_are(
    origin: str, fake: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where credentials come from is said, and how long they last; never what they are."""
    said = "a key in the environment (AWS_ACCESS_KEY_ID)"
    if origin != "env":
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        directory = tmp_path / "user" / ".aws"
        directory.mkdir()
        keys = "aws_access_key_id = AKIASESAME\naws_secret_access_key = testing-secret\n"
        said = "a key in the AWS credentials file (~/.aws/credentials)"
    if origin == "file":
        (directory / "credentials").write_text(f"[default]\n{keys}aws_session_token = sesame\n")
        said += ", for a while: it has a session token"
    if origin == "process":
        (directory / "config").write_text("[default]\ncredential_process = cat ~/keys.json\n")
        (directory / "config").write_text(
            f"[profile lab]\ncredential_process = cat {tmp_path}/keys.json\n"
        )
        (tmp_path / "keys.json").write_text(
            '{"Version": 1, "AccessKeyId": "AKIASESAME", "SecretAccessKey": "testing-secret", '
            '"SessionToken": "sesame", "Expiration": "2096-01-02T03:04:05Z"}'
        )
        said = "a key from the program that the AWS profile names, profile lab, "
        said += "until 2096-01-02 03:04 UTC"
    more = {"profile": "lab"} if origin == "process" else {}
    settings = fake.settings(aws_access_key_id=None, aws_secret_access_key=None, **more)
    assert (await examine(settings))["credentials"].message == said


def tricks(fake: FakeS3, operation: str, trick: Answer | Callable[..., Answer]) -> None:
    """Answer every request of a kind so."""
    fake.tricks[operation] = [trick] * MANY


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
        assert set(after) <= {"abort", "parts", "delete"}

    @pytest.mark.parametrize("operation", ["put", "copy", "create", "part"])
    async def test_read_only(self, operation: str, fake: FakeS3) -> None:
        """What must not be written is a problem, but where only updates need it."""
        tricks(fake, operation, error(403, "AccessDenied"))
        found = await self.examine(fake)
        status = {"copy": ("part copy", "warning"), "put": ("write", "problem")}
        check, expected = status.get(operation, ("uploads", "problem"))
        assert found[check].status == expected

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
