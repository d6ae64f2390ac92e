"""``etc doctor`` for ``gs://``: wrong set-ups, and exactly what is said about each."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

import etcetera as etc
from tests.doctoring import Said, Usage, configure, doctor
from tests.fake_gs import READS, FakeGS, fake_gs_thread, faults

ACCOUNT = "robot@test-project.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every disk as much space."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 50 << 30, 50 << 30))


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Return the user's home directory."""
    return tmp_path / "user"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Said:
    """Run the doctor, and return what it says of the repository."""
    run = doctor(capsys, tmp_path)

    def relevant(*arguments: str, status: int) -> list[tuple[str, ...]]:
        rows = run(*arguments, status=status)
        return [row for row in rows if row[1] != "settings" and not row[1].startswith("home")]

    return relevant


@pytest.fixture
def server() -> Iterator[FakeGS]:
    """Run a server with a bucket, which looks at who asks."""
    with fake_gs_thread() as running:
        running.make_bucket("bucket")
        running.secured = True
        yield running


@pytest.fixture
def key(server: FakeGS, tmp_path: Path) -> Path:
    """Return the file with the key of a service account."""
    file = tmp_path / "key.json"
    file.write_text(json.dumps(server.add_account().info(server.endpoint)))
    file.chmod(0o600)
    return file


def settings(server: FakeGS, key: Path, **more: object) -> dict[str, object]:
    """Return settings of a repository."""
    here = {"endpoint_url": server.endpoint, "google_credentials": str(key)}
    return {"url": "gs://bucket/some", **here, **more}


def beginning(server: FakeGS, key: Path) -> list[tuple[str, ...]]:
    """Return what is said of any server that can be asked for something."""
    return [
        (
            "ok", "credentials",
            f"the key of a service account, {ACCOUNT}, from the file {key}", "",
        ),
        (
            "ok", "endpoint",
            f"{server.endpoint} can be reached; it is not Google's own, but the one of "
            "endpoint_url", "",
        ),
        ("ok", "clock", "it goes as the server's does", ""),
        (
            "ok", "token",
            f"the server of the credentials gives one for {ACCOUNT}, good for 60 minutes and then "
            "renewed", "",
        ),
    ]  # fmt: skip


LIST = (
    "ok", "list",
    "gs://bucket/some can be listed; it has no datasets: if that is wrong, correct the url", "",
)  # fmt: skip
NAMES = ("ok", "absent names", "the server says which are free", "")
RIGHTS = ("ok", "rights", "the credentials may read, write and remove", "")
BUCKET = ("ok", "bucket", "bucket is in US, storage class STANDARD", "")
OLD = (
    "ok", "old archives",
    "what is replaced or removed is kept, and paid for: for 7 days (soft delete)", "",
)  # fmt: skip
READ = ("unknown", "read", "no archive is known to try it on", "push a dataset")


def untried(why: str) -> tuple[str, ...]:
    """Return what is said where nothing is written."""
    what = "conditional writes, checksums, uploads and moves were not tried"
    return ("unknown", "write", what, why)


def test_good(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """What was tried on a server is said in as many words; no dataset comes to be."""
    configure(user, **settings(server, key))
    assert said("--write", status=0) == [
        *beginning(server, key),
        LIST,
        NAMES,
        RIGHTS,
        BUCKET,
        OLD,
        ("ok", "conditional writes", "of two pushes of one name the second is refused", ""),
        ("ok", "write", "objects can be written", ""),
        ("ok", "ranges", "single pieces of an archive can be fetched", ""),
        ("ok", "one version", "an archive replaced while it is read is noticed", ""),
        ("ok", "checksums", "the server refuses what was damaged on the way (CRC32C)", ""),
        ("ok", "uploads", "an archive comes to be from its parts", ""),
        ("ok", "conditional uploads", "a push replaces only what it was told to replace", ""),
        ("ok", "moving", "an archive gets its name when all of it is there, by a move", ""),
        (
            "ok", "public",
            "the server does not refuse public = true; nothing was made public", "",
        ),
        ("ok", "aborting", "an upload that breaks off is removed", ""),
        ("ok", "removing", "what was written for these checks is gone again", ""),
    ]  # fmt: skip
    assert etc.ls(remote=True) == []
    assert not server.buckets["bucket"].objects


def test_unknown_key(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A key that was deleted."""
    server.accounts.clear()
    configure(user, **settings(server, key))
    assert said("--write", status=7) == [
        *beginning(server, key)[:-1],
        (
            "problem", "token",
            "gs://bucket/some: no token can be had (invalid_grant: Invalid JWT Signature.)",
            "see whether the account still is and still has this key; make a new key for "
            f"{key} if not",
        ),
    ]  # fmt: skip


def test_no_credentials(said: Said, user: Path, server: FakeGS) -> None:
    """A private bucket, and nobody to ask for it."""
    configure(user, url="gs://bucket/some", endpoint_url=server.endpoint)
    credentials, _, _, last = said(status=7)
    assert credentials == (
        "ok", "credentials",
        "there are none: those that google_credentials does not name go to Google's own servers "
        "alone", "",
    )  # fmt: skip
    denied = (
        "(gs://bucket/some: required: Anonymous caller does not have storage.objects.list access "
        "to the Google Cloud Storage bucket. Permission 'storage.objects.list' denied on resource "
        "(or it may not exist).)"
    )
    assert last == (
        "problem", "list",
        f"without credentials the repository cannot be listed {denied}",
        "name the file of credentials with google_credentials in ~/.etc.toml: those that are found "
        "otherwise go to Google's own servers alone",
    )  # fmt: skip


def test_no_bucket(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A bucket that is not there."""
    configure(user, **settings(server, key, url="gs://no-such-bucket"))
    assert said(status=7)[-1] == (
        "problem", "bucket", "the bucket no-such-bucket does not exist",
        "create it or correct the URL",
    )  # fmt: skip


def test_read_only(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """Rights to read alone: no problem for whoever pulls."""
    server.accounts[ACCOUNT].permissions = READS
    configure(user, **settings(server, key))
    assert said("--write", status=0)[4:] == [
        LIST,
        NAMES,
        (
            "warning", "rights",
            "the credentials may only read: without storage.objects.create etc push cannot work",
            "ask the bucket's owner for the role Storage Object User (roles/storage.objectUser), "
            "if you want to push",
        ),
        (
            "unknown", "bucket",
            "where it is and how it is set up is not known: that takes storage.buckets.get", "",
        ),
        READ,
        untried("needs the right storage.objects.create"),
    ]  # fmt: skip


def test_uniform(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A bucket in which no object can be public, and a setting that wants it."""
    server.buckets["bucket"].uniform = True
    configure(user, **settings(server, key, public=True))
    assert said(status=7)[4:] == [
        LIST,
        NAMES,
        RIGHTS,
        BUCKET,
        (
            "problem", "public",
            "public = true cannot work: the bucket has uniform access, so no object can be made "
            "public by itself",
            "remove public = true, and let a policy of the bucket allow everybody to read "
            "(allUsers, Storage Object Viewer)",
        ),
        OLD,
        READ,
        untried("etc doctor --write tries it"),
    ]  # fmt: skip


def test_retention(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A bucket that lets nothing go."""
    server.buckets["bucket"].retention_seconds = 30 * 86400
    configure(user, **settings(server, key))
    assert said("--write", status=7)[7:] == [
        BUCKET,
        (
            "problem", "retention",
            "its retention policy keeps what is written for 30 days: an archive of more than one "
            "part cannot be put together there, because what is temporary could not be removed; "
            "etc push --force cannot replace anything",
            'let archives fit into one part (part_size = "5GiB" at most), or use a bucket without',
        ),
        OLD,
        READ,
        untried("needs a bucket that lets go what is written"),
    ]  # fmt: skip


def test_requester_pays(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A bucket whose owner does not pay for requests."""
    server.buckets["bucket"].requester_pays = True
    configure(user, **settings(server, key))
    assert said(status=7)[4:] == [
        (
            "problem", "billing",
            "gs://bucket/some: whoever asks has to pay for it (required: Bucket is a requester "
            "pays bucket but no user project provided.)",
            "set google_project to the project that is to be billed",
        ),
    ]  # fmt: skip


def test_no_storage(said: Said, user: Path, server: FakeGS, key: Path) -> None:
    """A server that is another one."""

    def page() -> web.Response:
        return web.Response(text="<html>Welcome</html>", content_type="text/html")

    server.plan("objects.list", faults.respond(page), times=faults.ALWAYS)
    configure(user, **settings(server, key))
    (last,) = said(status=7)[4:]
    assert last == (
        "problem", "endpoint",
        f"{server.endpoint} did not answer sensibly (JSONDecodeError: Expecting value: line 1 "
        "column 1 (char 0))",
        "correct or remove endpoint_url",
    )  # fmt: skip
