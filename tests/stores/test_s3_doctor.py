"""What ``etc doctor`` finds out about S3 servers."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import pytest

from etcetera.findings import RESERVED
from etcetera.settings import RepositorySettings
from etcetera.stores import open_store, patience, s3_doctor
from etcetera.stores.s3 import S3Store
from tests.fault_proxy import Rule, fault_proxy, lose_reply
from tests.servers import RCLONE_BUCKET, S3Server
from tests.stores.conftest import s3_settings
from tests.stores.examining import MANY, examine, words
from tests.stores.fake_s3 import Answer, FakeS3, Request, error

ARCHIVE = bytes(range(256))

pytestmark = pytest.mark.usefixtures("hasty")


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

    @pytest.mark.parametrize("operation", ["put", "complete"])
    @pytest.mark.parametrize("times", [1, 2])
    async def test_lost_answers(
        self, operation: str, times: int, moto_settings: RepositorySettings
    ) -> None:
        """A version that came of a write whose answer was lost is removed as well."""
        async with (
            fault_proxy(moto_settings.endpoint_url or "") as proxy,
            open_store(replace(moto_settings, endpoint_url=proxy.endpoint)) as opened,
        ):
            store = cast(S3Store, opened)
            enabled = {"Status": "Enabled"}
            await store.connection.call("put_bucket_versioning", VersioningConfiguration=enabled)
            proxy.plan(Rule(operation, lose_reply(), times=times, where=RESERVED))
            await store.examine(write=True)
            assert await names(store) == []

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
        (
            error(403, "AccessDenied"),
            "list",
            "the credentials have no right to list the repository",
        ),
        (error(403, "Nonsense"), "list", "the credentials have no right to list the repository"),
        (error(400, "Nonsense"), "endpoint", "s3://bucket: Nonsense: told\\nso\\u202e"),
        (error(501, "NotImplemented"), "endpoint", "s3://bucket refuses"),
        (error(503, "SlowDown"), "endpoint", "{endpoint} is in trouble"),
        (Answer(404, body=b"<html>Welcome"), "endpoint", "s3://bucket refuses (404: "),
        (Answer(body=b"<html>Sign in"), "endpoint", "{endpoint} does not answer like an S3 server"),
        (Answer(body=b""), "endpoint", "{endpoint} does not answer like an S3 server"),
        (error(301, "PermanentRedirect"), "region", "the bucket is in another region, or at"),
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
    assert all(one.advice for one in findings)


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


@pytest.mark.parametrize("status", [200, 400])
async def test_no_region(status: int, fake: FakeS3) -> None:
    """What cannot be the name of a region is no advice, whatever a server says."""
    fake.always["x-amz-bucket-region"] = 'eu" \\ x = "'
    if status == 400:
        fake.tricks["list"] = [error(400, "AuthorizationHeaderMalformed")] * MANY
    async with open_store(fake.settings()) as store:
        found = await store.examine(write=False)
    assert not any('eu"' in f"{one.message}{one.advice}" for one in found)


@pytest.mark.parametrize(
    "date",
    ["Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -1200", "1 Jan 1 0:0:0 -0000"],
)
async def test_impossible_clock(date: str, fake: FakeS3) -> None:
    """Whatever time a server tells, the doctor can say it."""
    fake.always["Date"] = date
    found = await examine(fake.settings())
    assert found["clock"].status == "problem"


async def test_wrong_region(fake: FakeS3) -> None:
    """Where a detour does not help, the region is a problem, and spoken of once."""
    fake.always["x-amz-bucket-region"] = "eu-central-1"
    fake.tricks["list"] = [error(400, "AuthorizationHeaderMalformed")] * MANY
    async with open_store(fake.settings()) as store:
        *others, last = await store.examine(write=False)
    assert (last.check, last.status) == ("region", "problem")
    assert last.advice == 'write region = "eu-central-1"'
    assert "region" not in [one.check for one in others]


async def test_in_the_clear(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server elsewhere that is not encrypted is warned of."""
    monkeypatch.setattr(patience, "travels_in_the_clear", lambda endpoint: True)
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
