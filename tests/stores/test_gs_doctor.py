"""What ``etc doctor`` finds out about Google Storage."""

import asyncio
import json
import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web

from etcetera.findings import RESERVED
from etcetera.settings import RepositorySettings
from etcetera.stores import gs_doctor, gs_questions, gs_trial, open_store, patience
from tests.fake_gs import READS, FakeGS, faults
from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal, invalid
from tests.fake_gs.model import http_date
from tests.servers import GSEmulator
from tests.stores.examining import examine, words

ARCHIVE = bytes(range(256))
NAME = "über fix/flowers.tgz"

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(autouse=True)
def private_key(gs_settings: RepositorySettings, gs_server: FakeGS) -> Path:
    """Let nobody else read the key, and the server look at who asks."""
    gs_server.secured = True
    assert gs_settings.google_credentials is not None
    file = Path(gs_settings.google_credentials)
    file.chmod(0o600)
    return file


def replace_key(file: Path, info: object) -> None:
    """Have something else in the file of the key, or no such file."""
    file.unlink()
    if info is not None:
        file.touch(mode=0o600)
        file.write_text(json.dumps(info))


def read(file: Path) -> str:
    """Return what a file holds."""
    return file.read_text()


def grant(server: FakeGS, *permissions: str) -> None:
    """Let the service account do only this."""
    (account,) = server.accounts.values()
    account.permissions = frozenset(permissions)


def is_empty(server: FakeGS) -> bool:
    """Whether nothing is in the bucket: objects, all their versions, uploads."""
    bucket = server.buckets["bucket"]
    return not (bucket.objects or bucket.noncurrent or bucket.uploads)


WRITING = frozenset(
    {
        *READS,
        "storage.objects.create",
        "storage.objects.delete",
        "storage.multipartUploads.create",
        "storage.multipartUploads.abort",
        "storage.multipartUploads.list",
        "storage.multipartUploads.listParts",
    }
)
"""What the role Storage Object User allows, as far as it matters."""
READING = {
    "credentials": "ok", "endpoint": "ok", "clock": "ok", "token": "ok", "list": "ok",
    "absent names": "ok", "rights": "ok", "bucket": "ok", "old archives": "ok", "ranges": "ok",
    "one version": "ok", "write": "unknown",
}  # fmt: skip
TRYING = (
    "conditional writes", "write", "checksums", "uploads", "conditional uploads", "moving",
    "public", "aborting", "removing",
)  # fmt: skip


class TestGood:
    """Set-ups with nothing wrong."""

    async def test_reading_only(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """Without being asked to, nothing is written; what is there already is read."""
        gs_server.put("bucket", NAME, ARCHIVE)
        assert words(await examine(gs_settings)) == READING
        methods = {seen.method for seen in gs_server.requests if seen.operation != "token"}
        assert methods == {"GET"}

    @pytest.mark.parametrize("versioning", [False, True])
    @pytest.mark.parametrize("permissions", [None, WRITING])
    async def test_writing(
        self,
        versioning: bool,
        permissions: frozenset[str] | None,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
    ) -> None:
        """Everything is tried, under names that no dataset has, and gone again."""
        gs_server.buckets["bucket"].versioning = versioning
        if permissions is not None:
            grant(gs_server, *permissions)
        found = await examine(gs_settings, write=True)
        expected = {**READING, **dict.fromkeys(TRYING, "ok")}
        if permissions is not None:
            expected["bucket"] = "unknown"
            del expected["old archives"]
        assert words(found) == expected
        assert is_empty(gs_server)
        if permissions is None:
            assert ("old versions" in found["old archives"].message) == versioning
        written = [seen for seen in gs_server.requests if seen.method != "GET"]
        paths = [seen.path for seen in written if seen.operation not in ("token", "objects.insert")]
        assert len(paths) > 10
        assert all("etcetera-doctor-" in path for path in paths)

    async def test_never_public(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """What asks to be public is never completed, nor has any data."""
        await examine(replace(gs_settings, public=True), write=True)
        asking = [one for one in gs_server.requests if "x-goog-acl" in one.headers]
        assert [one.operation for one in asking] == ["xml.initiate"]
        assert not any("predefinedAcl" in one.query for one in gs_server.requests)
        after = gs_server.operations[gs_server.requests.index(asking[0]) + 1 :]
        assert set(after) <= {"xml.abort", "xml.parts", "objects.list", "objects.delete"}

    async def test_everybody_may_read(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """Without credentials, a public bucket can be looked at."""
        gs_server.buckets["bucket"].public = READS
        found = await examine(replace(gs_settings, google_credentials=None), write=True)
        assert words(found) == {
            "credentials": "ok", "endpoint": "ok", "clock": "ok", "list": "ok",
            "absent names": "ok", "rights": "ok", "bucket": "unknown", "read": "unknown",
            "write": "unknown",
        }  # fmt: skip
        assert found["write"].advice == "needs the right storage.objects.create"

    async def test_emulator(self, gs_emulator_server: GSEmulator) -> None:
        """Google's test server, as far as it goes; nothing is left."""
        url = f"gs://{gs_emulator_server.make_bucket()}/some"
        settings = RepositorySettings(url=url, endpoint_url=gs_emulator_server.endpoint)
        found = await examine(settings, write=True)
        bad = {check: one.status for check, one in found.items() if one.status != "ok"}
        assert bad == {
            "conditional writes": "warning", "one version": "problem", "uploads": "warning",
            "public": "unknown",
        }  # fmt: skip
        settings = replace(settings, url=url.rpartition("/")[0])
        assert "it has no datasets" in (await examine(settings))["list"].message


class TestCredentials:
    """Who asks, and what is wrong with that."""

    async def test_none(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A private bucket is not shown to nobody in particular."""
        found = await examine(replace(gs_settings, google_credentials=None), write=True)
        assert found["list"].status == "problem"
        assert found["list"].message.startswith("without credentials the repository cannot be")
        assert "google_credentials" in found["list"].advice
        assert list(found)[-1] == "list"
        gs_server.buckets["bucket"].public = frozenset({"storage.objects.get"})
        found = await examine(replace(gs_settings, google_credentials=None))
        assert found["list"].status == "problem"
        assert found["write"].status == "unknown"

    async def test_unknown_key(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A key that was deleted gets no token; the clock is looked at all the same."""
        gs_server.accounts.clear()
        found = await examine(gs_settings, write=True)
        assert words(found) == {
            "credentials": "ok", "endpoint": "ok", "clock": "ok", "token": "problem",
        }  # fmt: skip
        assert found["token"].message == (
            "gs://bucket/über fix: no token can be had (invalid_grant: Invalid JWT Signature.)"
        )
        assert str(gs_settings.google_credentials) in found["token"].advice

    async def test_wrong_clock(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A wrong clock is the usual reason for having no token, and is named."""
        ahead = timedelta(hours=3).total_seconds()
        honest = gs_server.clock
        gs_server.clock = lambda: honest() + ahead
        change = faults.edit(lambda told: told.headers.update(Date=http_date(gs_server.clock())))
        gs_server.plan("objects.list", change)
        found = await examine(gs_settings, write=True)
        assert words(found) == {
            "credentials": "ok", "endpoint": "ok", "clock": "problem", "token": "problem",
        }  # fmt: skip
        assert "3 hours behind" in found["clock"].message
        assert found["clock"].message.endswith("nobody gets a token with such a time")
        assert found["token"].advice.startswith("set the clock of this machine")

    async def test_refused_token(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A token that the server does not take is told from none."""
        gs_server.plan("objects.list", faults.unauthorized(), skip=1, times=2)
        found = await examine(gs_settings)
        assert found["access"].status == "problem"
        assert "does not take the token" in found["access"].message

    async def test_person(
        self,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
        private_key: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A login that has run out is to be renewed."""
        monkeypatch.setattr(
            "google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", f"{gs_server.endpoint}/token"
        )
        replace_key(private_key, gs_server.add_user())
        found = await examine(gs_settings)
        assert found["credentials"].message == (
            f"the login of a person, from the file {private_key}"
        )
        gs_server.users.clear()
        found = await examine(gs_settings)
        assert found["token"].advice == (
            f"log in again: gcloud auth application-default login renews {private_key}"
        )

    async def test_exposed(self, gs_settings: RepositorySettings, private_key: Path) -> None:
        """A key that others may read is warned of."""
        os.chmod(private_key, 0o640)  # noqa: PTH101 - a test may wait for that
        found = (await examine(gs_settings))["key file"]
        assert found.status == "warning"
        assert found.advice == f"chmod 600 {private_key}"

    @pytest.mark.parametrize(
        ("info", "said"), [(None, "cannot be read"), ({}, "is no file of Google credentials")]
    )
    async def test_no_key(
        self, info: object, said: str, gs_settings: RepositorySettings, private_key: Path
    ) -> None:
        """A key file that is none is all that is spoken of."""
        replace_key(private_key, info)
        async with open_store(gs_settings) as store:
            (only,) = await store.examine(write=True)
        assert (only.check, only.status) == ("credentials", "problem")
        assert said in only.message

    async def test_default(
        self,
        gs_settings: RepositorySettings,
        private_key: Path,
        monkeypatch: pytest.MonkeyPatch,
        unused_tcp_port: int,
    ) -> None:
        """Where the default credentials of Google come from is said."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(private_key))
        monkeypatch.setattr("etcetera.stores.gs_client.is_google", lambda endpoint: True)
        monkeypatch.setattr(patience, "travels_in_the_clear", lambda endpoint: False)
        found = await examine(replace(gs_settings, google_credentials=None))
        assert found["credentials"].message.endswith(
            f"from the file {private_key} that GOOGLE_APPLICATION_CREDENTIALS names"
        )
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        endpoint = f"http://127.0.0.1:{unused_tcp_port}"
        nobody = replace(gs_settings, google_credentials=None, endpoint_url=endpoint)
        found = await examine(nobody)
        assert words(found) == {"credentials": "warning", "endpoint": "problem"}


async def test_secrets(
    gs_settings: RepositorySettings, gs_server: FakeGS, private_key: Path
) -> None:
    """Neither the key nor a token is shown, also if a server says it again."""

    async def echo(call: Call, serve: faults.Serve) -> web.StreamResponse:
        refusal = Refusal(403, "forbidden", f"not with {call.headers['authorization']}")
        return call.refuse(refusal)

    gs_server.plan("objects.list", echo, skip=1)
    gs_server.plan("objects.insert", echo)
    async with open_store(gs_settings) as store:
        said = repr(await store.examine(write=True))
    assert "not with Bearer ***" in said
    assert gs_server.tokens
    assert not any(token in said for token in gs_server.tokens)
    assert "PRIVATE KEY" not in said
    assert json.loads(read(private_key))["private_key_id"] not in said


class TestServers:
    """Servers that are none, or not at all."""

    async def test_no_bucket(self, gs_settings: RepositorySettings) -> None:
        """A bucket that is missing is named."""
        found = await examine(replace(gs_settings, url="gs://no-such-bucket"), write=True)
        assert found["bucket"].message == "the bucket no-such-bucket does not exist"

    @pytest.mark.parametrize("status", [200, 302, 404])
    async def test_html(
        self, status: int, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """A page for people is no answer of Google's."""

        def answer() -> web.Response:
            return web.Response(
                status=status, text="<html>Welcome</html>", content_type="text/html"
            )

        gs_server.plan("objects.list", faults.respond(answer), times=faults.ALWAYS)
        async with open_store(gs_settings) as store:
            last = (await store.examine(write=True))[-1]
        assert (last.check, last.status) == ("endpoint", "problem")
        assert last.advice == "correct or remove endpoint_url"
        assert "answer" in last.message

    async def test_unreachable(self, gs_settings: RepositorySettings, unused_tcp_port: int) -> None:
        """Name service and connection are told apart."""
        nowhere = replace(gs_settings, endpoint_url="http://nowhere.invalid")
        found = await examine(nowhere)
        assert found["endpoint"].message == (
            "nobody knows where nowhere.invalid is: it has no address"
        )
        closed = replace(gs_settings, endpoint_url=f"http://127.0.0.1:{unused_tcp_port}")
        assert "refuses to connect" in (await examine(closed))["endpoint"].message

    async def test_not_encrypted(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A server that speaks no TLS is told apart from one that is not there."""
        endpoint = gs_server.endpoint.replace("http:", "https:")
        found = await examine(replace(gs_settings, endpoint_url=endpoint))
        assert found["endpoint"].message.startswith(f"{endpoint} cannot be trusted")

    async def test_in_the_clear(
        self, gs_settings: RepositorySettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A server elsewhere that is not encrypted is warned of."""
        monkeypatch.setattr(patience, "travels_in_the_clear", lambda endpoint: True)
        assert (await examine(gs_settings))["endpoint"].status == "warning"

    async def test_test_server(
        self,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Which variable of the environment sends requests elsewhere is said."""
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_server.endpoint.removeprefix("http://"))
        found = await examine(replace(gs_settings, endpoint_url=None))
        assert found["endpoint"].message.endswith(
            "it is not Google's own, but the one of environment variable STORAGE_EMULATOR_HOST"
        )

    @pytest.mark.parametrize(
        "operation",
        ["objects.list", "objects.get", "buckets.testIamPermissions", "buckets.get"],
    )
    async def test_silent(
        self,
        operation: str,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A server that says nothing is not waited for."""
        monkeypatch.setattr(gs_questions, "ANSWER_SECONDS", 0.2)
        skip = 1 if operation == "objects.list" else 0
        gs_server.plan(operation, faults.stall(), skip=skip, times=faults.ALWAYS)
        async with open_store(gs_settings) as store:
            findings = await store.examine(write=False)
        (silent,) = [one for one in findings if one.status == "problem"]
        assert silent.message == f"{gs_server.endpoint} does not answer in time"

    async def test_proxy(
        self,
        gs_settings: RepositorySettings,
        monkeypatch: pytest.MonkeyPatch,
        unused_tcp_port: int,
    ) -> None:
        """What goes by a proxy is not looked for on the way."""
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_tcp_port}")
        monkeypatch.setenv("NO_PROXY", "")
        found = await examine(replace(gs_settings, endpoint_url="http://nowhere.invalid"))
        assert found["endpoint"].message == (
            "the proxy for http://nowhere.invalid cannot be reached"
        )


class TestBuckets:
    """Rights, and what buckets do by themselves."""

    @pytest.mark.parametrize("write", [False, True])
    async def test_read_only(
        self, write: bool, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """Whoever only reads is warned, and no more."""
        gs_server.put("bucket", NAME, ARCHIVE)
        grant(gs_server, *READS)
        found = await examine(gs_settings, write=write)
        assert found["rights"].status == "warning"
        assert found["rights"].message == (
            "the credentials may only read: without storage.objects.create etc push cannot work"
        )
        assert {one.status for one in found.values()} == {"ok", "warning", "unknown"}
        assert found["ranges"].status == "ok"

    @pytest.mark.parametrize(
        ("right", "status", "said"),
        [
            ("storage.objects.get", "problem", "etc pull and etc cat cannot work"),
            ("storage.objects.list", "problem", "etc ls -r cannot work"),
            ("storage.objects.delete", "warning", "leaves what is temporary"),
            ("storage.multipartUploads.create", "warning", "of more than one part cannot work"),
            ("storage.multipartUploads.list", "warning", "etc clean -r does not see"),
        ],
    )
    async def test_missing(
        self,
        right: str,
        status: str,
        said: str,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
    ) -> None:
        """Which command cannot work for lack of a right is said; nothing is left."""
        grant(gs_server, *(WRITING - {right}))
        found = await examine(gs_settings, write=True)
        assert found["rights"].status == status
        assert right in found["rights"].message
        assert said in found["rights"].message
        assert is_empty(gs_server)
        if right == "storage.multipartUploads.create":
            assert found["uploads"].status == "problem"
            assert found["public"].status == "unknown"
        if right == "storage.objects.list":
            assert found["absent names"].status == "warning"
            assert found["list"].status == "problem"

    async def test_rights_not_told(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """Where the server does not tell of rights, trying does."""
        grant(gs_server, *READS)
        refuse = faults.refuse(lambda: invalid("no such permission"))
        gs_server.plan("buckets.testIamPermissions", refuse, times=2)
        found = await examine(gs_settings, write=True)
        assert found["rights"].status == "unknown"
        assert found["write"].status == "warning"
        assert "objects cannot be written" in found["write"].message

    async def test_few_rights_known(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """A server that does not know all of the rights is asked for those that it knows."""
        refuse = faults.refuse(lambda: invalid("no such permission"))
        gs_server.plan("buckets.testIamPermissions", refuse)
        assert (await examine(gs_settings))["rights"].status == "ok"

    @pytest.mark.parametrize("prevents", [False, True])
    @pytest.mark.parametrize("write", [False, True])
    @pytest.mark.parametrize("public", [False, True])
    async def test_uniform(
        self,
        prevents: bool,
        write: bool,
        public: bool,
        gs_settings: RepositorySettings,
        gs_server: FakeGS,
    ) -> None:
        """Where no object can be public, public = true is a problem, and else none."""
        bucket = gs_server.buckets["bucket"]
        bucket.uniform, bucket.prevents_public_access = not prevents, prevents
        found = await examine(replace(gs_settings, public=public), write=write)
        if public:
            assert found["public"].status == "problem"
            assert "remove public = true" in found["public"].advice
        elif write:
            assert found["public"].status == "ok"
            assert "public = true would not work" in found["public"].message
        assert {one.status for one in found.values()} <= {"ok", "unknown"} or public
        assert is_empty(gs_server)

    async def test_public_without_right(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """So it is where the right to make something public is missing."""
        grant(gs_server, *WRITING)
        found = await examine(replace(gs_settings, public=True))
        assert found["rights"].status == "problem"
        assert "storage.objects.setIamPolicy" in found["rights"].message

    @pytest.mark.parametrize("held", [False, True])
    async def test_retention(
        self, held: bool, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """A bucket that keeps what is written takes no archives of many parts; nor is it tried."""
        bucket = gs_server.buckets["bucket"]
        bucket.default_event_based_hold, bucket.retention_seconds = held, 86400 * (not held)
        found = await examine(gs_settings, write=True)
        assert found["retention"].status == "problem"
        assert ("holds" if held else "24 hours") in found["retention"].message
        assert found["write"].status == "unknown"
        assert is_empty(gs_server)
        grant(gs_server, *READS, "storage.buckets.get")
        assert (await examine(gs_settings))["retention"].status == "ok"

    async def test_hidden_retention(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """What a bucket keeps without telling is named."""
        grant(gs_server, *WRITING)
        gs_server.buckets["bucket"].default_event_based_hold = True
        found = await examine(gs_settings, write=True)
        (key,) = gs_server.buckets["bucket"].objects
        assert found["retention"].status == "problem"
        assert found["removing"].status == "problem"
        assert f"gs://bucket/{key} may be left" in found["removing"].message
        assert "gcloud storage rm --all-versions" in found["removing"].advice
        assert "uploads" not in found

    async def test_requester_pays(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """Whom to bill has to be said."""
        gs_server.buckets["bucket"].requester_pays = True
        found = await examine(gs_settings)
        assert found["billing"].status == "problem"
        assert found["billing"].advice == "set google_project to the project that is to be billed"
        found = await examine(replace(gs_settings, google_project="lab"), write=True)
        assert found["billing"].message == "requests are billed to the project lab"
        assert found["removing"].status == "ok"

    async def test_content_encoding(
        self, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """An archive that others get unpacked is named, with the command that mends it."""
        gs_server.put("bucket", NAME, ARCHIVE, contentEncoding="gzip")
        found = await examine(gs_settings)
        assert found["encoding"].status == "warning"
        assert found["encoding"].advice.endswith(f"--clear-content-encoding 'gs://bucket/{NAME}'")
        assert found["ranges"].status == "ok"

    async def test_no_ranges(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A server, or a proxy, that sends everything is of no use."""
        gs_server.put("bucket", NAME, ARCHIVE)

        def whole(told: web.Response) -> None:
            told.set_status(200)
            del told.headers["Content-Range"]

        gs_server.plan("objects.media", faults.edit(whole))
        assert (await examine(gs_settings))["ranges"].status == "problem"


class TestTrial:
    """Servers that do not do as Google's does; whatever they do, they have nothing afterwards."""

    @pytest.mark.parametrize("known", [False, True])
    async def test_no_moves(
        self, known: bool, gs_settings: RepositorySettings, gs_server: FakeGS
    ) -> None:
        """Where nothing can be moved, it is copied, and that is said."""
        if known:
            gs_server.buckets["bucket"].moves = False
        else:
            refuse = faults.refuse(lambda: Refusal(501, "notImplemented", "no moves"))
            gs_server.plan("objects.move", refuse)
        found = await examine(gs_settings, write=True)
        assert found["moving"].status == "warning"
        assert "copied inside the store" in found["moving"].message
        assert gs_server.count("objects.rewrite") == 2
        assert is_empty(gs_server)

    async def test_no_conditions(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """Conditions that are ignored are found out."""

        async def ignore(call: Call, serve: faults.Serve) -> web.StreamResponse:
            call.pairs = [pair for pair in call.pairs if pair[0] != "ifGenerationMatch"]
            return await serve()

        gs_server.plan("objects.insert", ignore, times=2)
        gs_server.plan("objects.move", ignore)
        found = await examine(gs_settings, write=True)
        for check in ("conditional writes", "conditional uploads"):
            assert found[check].status == "warning"
            assert "ignores ifGenerationMatch" in found[check].message
        assert is_empty(gs_server)

    async def test_no_checksums(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """So is a server that compares no checksums."""
        taken = faults.respond(lambda: web.Response(headers={"ETag": '"1"'}))
        gs_server.plan("xml.part", taken)
        assert (await examine(gs_settings, write=True))["checksums"].status == "warning"

    async def test_damage(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """An object that is not what its parts were is a problem."""

        async def other(call: Call, serve: faults.Serve) -> web.StreamResponse:
            told = await serve()
            blob = call.server.buckets["bucket"].objects[call.name]
            blob.crc32c = "AAAAAA=="
            return told

        gs_server.plan("xml.complete", other)
        found = await examine(gs_settings, write=True)
        assert found["uploads"].status == "problem"
        assert "has other bytes than were sent" in found["uploads"].message
        assert is_empty(gs_server)

    async def test_left(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """What cannot be removed is named, with the command that removes it."""
        gs_server.plan("objects.delete", faults.answer(403), times=faults.ALWAYS)
        found = await examine(gs_settings, write=True)
        (key,) = gs_server.buckets["bucket"].objects
        assert found["removing"].status == "problem"
        assert f"gs://bucket/{key} may be left" in found["removing"].message
        assert re.match(
            r"remove it with: gcloud storage rm --all-versions 'gs://bucket/über fix/"
            rf"{re.escape(RESERVED)}\w+' ",
            found["removing"].advice,
        )

    async def test_left_upload(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """So is an upload; the object is removed all the same."""
        gs_server.plan("xml.abort", faults.answer(403), times=faults.ALWAYS)
        found = await examine(gs_settings, write=True)
        bucket = gs_server.buckets["bucket"]
        assert not bucket.objects
        assert bucket.uploads
        assert found["removing"].advice == "remove it with: etc clean -r"
        gs_server.rules[0].times = gs_server.rules[0].hits
        async with open_store(gs_settings) as store:
            async for one in store.unfinished(datetime.now(UTC) + timedelta(days=1)):
                await store.abandon(one.key, one.id)
        assert is_empty(gs_server)

    async def test_kept_upload(self, gs_settings: RepositorySettings, gs_server: FakeGS) -> None:
        """A server that keeps what was aborted is warned of."""
        nothing = faults.respond(lambda: web.Response(status=204))
        gs_server.plan("xml.abort", nothing, times=faults.ALWAYS)
        assert (await examine(gs_settings, write=True))["aborting"].status == "warning"


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", [faults.lose_reply(), faults.truncate(9), faults.answer(503)])
async def test_lost_replies(
    times: int,
    fault: faults.Fault,
    gs_settings: RepositorySettings,
    gs_server: FakeGS,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever request gets no answer, or half of one, it leaves nothing, no version."""
    monkeypatch.setattr(gs_trial, "_PART", 1 << 16)
    gs_server.least_part = 1 << 16
    gs_server.buckets["bucket"].versioning = True
    async with open_store(gs_settings) as store:
        await store.examine(write=True)
        operations = gs_server.operations
        assert len(operations) > 25
        for number, operation in enumerate(operations):
            if operation == "token":
                continue
            gs_server.rules.clear()
            skip = operations[:number].count(operation)
            rule = gs_server.plan(operation, fault, skip=skip, times=times)
            assert await store.examine(write=True)
            assert rule.hits, operation
            assert is_empty(gs_server), (operation, skip)
    gs_server.rules.clear()


async def test_cancellation(
    gs_settings: RepositorySettings,
    gs_server: FakeGS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Cancelled at whichever request, it leaves nothing in the bucket, and says nothing."""
    monkeypatch.setattr(gs_trial, "_PART", 1 << 16)
    gs_server.least_part = 1 << 16
    loop = asyncio.get_running_loop()
    async with open_store(gs_settings) as store:
        await store.examine(write=True)
        operations = gs_server.operations
        for number, operation in enumerate(operations):
            if operation == "token":
                continue
            gs_server.rules.clear()
            task = asyncio.ensure_future(store.examine(write=True))

            async def cancel(task: "asyncio.Task[Any]" = task) -> None:
                loop.call_soon_threadsafe(task.cancel)

            skip = operations[:number].count(operation)
            gs_server.plan(operation, faults.after(cancel, faults.delay(0.02)), skip=skip)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert is_empty(gs_server), (operation, skip)
    gs_server.rules.clear()
    assert not [one for one in caplog.records if one.name.startswith("etcetera")]


@pytest.mark.parametrize(
    "operation", ["objects.insert", "xml.initiate", "xml.part", "objects.move"]
)
async def test_stalls(
    operation: str,
    gs_settings: RepositorySettings,
    gs_server: FakeGS,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that does what it is told and never says so is not waited for either."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 0.2)
    gs_server.plan(operation, faults.stall(served=True), times=faults.ALWAYS)
    with anyio.fail_after(30):
        async with open_store(gs_settings) as store:
            findings = await store.examine(write=True)
    (silent,) = {one.message for one in findings if one.status == "problem"}
    assert silent == f"{gs_server.endpoint} does not answer in time"
    assert findings[-1].check == "removing"
    assert is_empty(gs_server)


async def test_slow_server(
    gs_settings: RepositorySettings, gs_server: FakeGS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow a server is, the examination ends, says so, and leaves nothing."""
    monkeypatch.setattr(gs_doctor, "EXAMINATION_SECONDS", 1.0)
    gs_server.plan("xml.part", faults.delay(1.5))
    async with open_store(gs_settings) as store:
        findings = await store.examine(write=True)
    assert findings[-1].check == "speed"
    assert "so slow" in findings[-1].message
    assert is_empty(gs_server)
