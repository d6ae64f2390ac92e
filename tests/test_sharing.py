"""Sharing: links that a shell with curl and tar can follow, and ``etc pull``."""

import gzip
import inspect
import json
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.credentials import RefreshableCredentials

import etcetera as etc
from etcetera import blocking, sharing
from etcetera.cli import main
from etcetera.errors import (
    AlreadyExists,
    CorruptArchive,
    DatasetNotFound,
    EtceteraError,
    ExpiredCredentials,
    InvalidDataset,
    NotAllowed,
    NotAnArchive,
    PartitionNotFound,
    RemoteChanged,
    TruncatedArchive,
    UsageError,
)
from etcetera.repository import open_repository
from etcetera.results import ShareResult
from etcetera.settings import RepositorySettings
from etcetera.stores import open_store, patience, s3_share
from tests.datasets import make_dataset, settle, snapshot
from tests.http_server import Reply, WebServer, cut, redirect, web_server
from tests.servers import RCLONE_BUCKET, S3Server, make_moto_bucket


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Run a web server."""
    with web_server() as running:
        yield running


@pytest.fixture
def flower(tmp_path: Path) -> Path:
    """A dataset with a partition of several frames between two others."""
    root = make_dataset(tmp_path / "flower")
    (root / "data" / "val").mkdir()
    for number in range(40):
        content = bytes(range(number, 256)) * 300
        (root / "data" / "val" / f"it's {number}.bin").write_bytes(content)
    settle(root)
    return root


@pytest.fixture
def other(tmp_path: Path) -> etc.Config:
    """Somebody without credentials or a repository."""
    return etc.Config(None, tmp_path / "other")


def pushed(server: S3Server, bucket: str, root: Path, **more: object) -> etc.Config:
    """Push *root* to a bucket and return the settings of whoever did."""
    options = {
        "endpoint_url": server.endpoint,
        "aws_access_key_id": server.key,
        "aws_secret_access_key": server.secret,
        "region": "us-east-1",
    }
    prefix = f"{root.parent.name}/ünter fix"
    config = etc.Config(f"s3://{bucket}/{prefix}", root.parent / "home", **(options | more))
    etc.register(root, config=config)
    etc.push("flower", config=config)
    return config


@pytest.fixture(params=["moto", "rclone"])
def config(request: pytest.FixtureRequest, flower: Path) -> etc.Config:
    """The settings of whoever pushed, on two servers; rclone checks signatures."""
    server: S3Server = request.getfixturevalue(request.param)
    bucket = RCLONE_BUCKET if request.param == "rclone" else make_moto_bucket(server)
    return pushed(server, bucket, flower)


@pytest.fixture
def on_rclone(rclone: S3Server, flower: Path) -> etc.Config:
    """The settings of whoever pushed to a server that checks signatures."""
    return pushed(rclone, RCLONE_BUCKET, flower)


@pytest.fixture
def on_moto(moto: S3Server, flower: Path) -> etc.Config:
    """The settings of whoever pushed to a server that knows conditions."""
    return pushed(moto, make_moto_bucket(moto), flower)


def shell(command: str, where: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run a command as whoever gets it would, with the plainest shell there is."""
    where.mkdir()
    return subprocess.run(
        ["sh", "-c", command], cwd=where, capture_output=True, env={"PATH": "/usr/bin:/bin"}
    )


Snapshot = dict[str, tuple[object, ...]]


def part_of(whole: Snapshot, partition: str) -> Snapshot:
    """What a snapshot has in one partition."""
    inside = f"data/{partition}"
    return {
        path: value
        for path, value in whole.items()
        if path == inside or path.startswith(f"{inside}/")
    }


def files(found: Snapshot) -> Snapshot:
    """All of a snapshot but directories, whose times depend on who unpacks."""
    return {path: value for path, value in found.items() if value[0] != "directory"}


def test_twins() -> None:
    """The function and its async twin take the same arguments."""
    assert inspect.signature(blocking.share) == inspect.signature(sharing.ashare)
    assert etc.share is blocking.share
    assert etc.ashare is sharing.ashare
    assert etc.ShareResult is ShareResult


def test_whole(config: etc.Config, other: etc.Config, flower: Path, tmp_path: Path) -> None:
    """A link to a dataset is pulled with curl and tar, and by etcetera, without credentials."""
    result = etc.share("flower", config=config)
    done = shell(result.command, tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    (tmp_path / "plain" / ".etcetera-index.jsonl").unlink()
    assert files(snapshot(tmp_path / "plain")) == files(snapshot(flower))
    pulled = etc.pull(result.url, config=other)
    assert pulled.name == "flower"
    assert pulled.digest == etc.info("flower", config=config).digest
    assert snapshot(pulled.path) == snapshot(flower)
    assert etc.info(result.url, config=other).files == pulled.files


@pytest.mark.parametrize("partition", ["train", "test", "val"])
def test_partition(
    config: etc.Config, other: etc.Config, flower: Path, tmp_path: Path, partition: str
) -> None:
    """So is one to a partition, and nothing else comes with it."""
    result = etc.share("flower", partition=partition, config=config)
    done = shell(result.command, tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    expected = part_of(snapshot(flower), partition)
    found = snapshot(tmp_path / "plain")
    assert {path for path in found if path != "data"} == expected.keys()
    assert files(found) == files(expected)
    pulled = etc.pull(result.url, config=other)
    assert etc.dataset("flower", config=other).keys() == {partition}
    assert part_of(snapshot(pulled.path), partition) == expected


def test_stream_of_a_partition_is_gzip(on_rclone: etc.Config, tmp_path: Path) -> None:
    """What the command gives tar passes ``gzip -t``, as other tools would want it."""
    command = etc.share("flower", partition="val", config=on_rclone).command
    for tool in ("gzip -t", "bsdtar tzf -", "busybox tar tzf -"):
        checked = command.removesuffix("tar xzf -") + tool
        done = shell(checked, tmp_path / tool.split()[0])
        assert done.returncode == 0, done.stderr


def test_signature_covers_the_range(on_rclone: etc.Config) -> None:
    """With the URL of a partition no other byte can be had, whatever headers are sent."""
    result = etc.share("flower", partition="val", config=on_rclone)
    url, _, fragment = result.url.partition("#")
    assert parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"] == ["host;if-match;range"]
    fields = {key: value[0] for key, value in parse_qs(fragment).items()}
    first, last = map(int, fields["range"].split("-"))
    match = f'If-Match: "{fields["etag"]}"'

    def status(*headers: str) -> str:
        options = [option for header in headers for option in ("-H", header)]
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options, url]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    assert status(f"Range: bytes={first}-{last}", match) in {"200", "206"}  # rclone says 200
    refused = {"400", "403"}
    for span in (f"{first}-{last + 1}", f"{first - 1}-{last}", f"{first}-{last - 1}", "0-", "-99"):
        assert status(f"Range: bytes={span}", match) in refused
    assert status(f"Range: bytes={first}-{last},0-9", match) in refused
    assert status(match) in refused
    assert status(f"Range: bytes={first}-{last}") in refused
    assert status() in refused


def test_replaced_archive(on_moto: etc.Config, other: etc.Config, flower: Path) -> None:
    """A link to a partition opens nothing of what takes the archive's place."""
    part = etc.share("flower", partition="train", config=on_moto)
    whole = etc.share("flower", config=on_moto)
    (flower / "README.md").write_text("secret\n" * 100_000)
    etc.push("flower", force=True, config=on_moto)
    with pytest.raises(RemoteChanged, match="since the link was made"):
        etc.pull(part.url, config=other)
    done = shell(part.command, flower.parent / "plain")
    assert done.returncode != 0
    assert b"412" in done.stderr
    assert list((flower.parent / "plain").iterdir()) == []
    assert etc.pull(whole.url, config=other).bytes


def test_failing_fetch_fails_the_command(on_rclone: etc.Config, tmp_path: Path) -> None:
    """When curl fails, so does tar: not even an empty directory looks like success."""
    result = etc.share("flower", partition="val", config=on_rclone)
    broken = result.command.replace("X-Amz-Signature=", "X-Amz-Signature=0")
    for number, tar in enumerate(("tar xzf -", "bsdtar xzf -")):
        done = shell(broken.replace("tar xzf -", tar), tmp_path / str(number))
        assert done.returncode != 0
        assert b"403" in done.stderr


def test_expired_link(on_rclone: etc.Config, other: etc.Config) -> None:
    """A link that has expired says so."""
    result = etc.share("flower", "1s", config=on_rclone)
    old = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    date = parse_qs(urlsplit(result.url).query)["X-Amz-Date"][0]
    with pytest.raises((ExpiredCredentials, NotAllowed), match="new one"):
        etc.pull(result.url.replace(date, old), config=other)


@pytest.mark.parametrize(
    ("expires", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800)]
)
def test_expires(on_moto: etc.Config, expires: str, seconds: int) -> None:
    """The link lives as long as it was asked to."""
    before = datetime.now(UTC)
    result = etc.share("flower", expires, config=on_moto)
    assert parse_qs(urlsplit(result.url).query)["X-Amz-Expires"] == [str(seconds)]
    assert result.expires is not None
    assert before <= result.expires - timedelta(seconds=seconds) <= datetime.now(UTC)
    assert not result.temporary


@pytest.mark.parametrize("expires", ["8d", "169h", "604801s"])
def test_seven_days_at_most(on_moto: etc.Config, expires: str) -> None:
    """Longer than S3 allows is refused, and the error says how long that is."""
    with pytest.raises(UsageError, match="seven days"):
        etc.share("flower", expires, config=on_moto)


@pytest.mark.parametrize(
    "expires", ["", "0d", "-1d", "7", "1w", "1.5h", "7 d", "\u0667d", "9999999999s"]
)
def test_bad_times(expires: str, other: etc.Config) -> None:
    """What is no time is refused, before anything else."""
    with pytest.raises(UsageError, match="90s, 15m, 12h or 7d"):
        etc.share("flower", expires, config=other)


def test_session_token(moto: S3Server, flower: Path) -> None:
    """Whoever signs with a session token is told that the link ends with the session."""
    config = pushed(moto, make_moto_bucket(moto), flower, aws_session_token="SECRET-token")
    result = etc.share("flower", config=config)
    assert result.temporary
    assert "SECRET" not in repr(result)


async def test_end_of_session(on_moto: etc.Config) -> None:
    """Where it is known when the session ends, the link is not said to live longer."""
    ends = datetime.now(UTC) + timedelta(hours=2)
    credentials = RefreshableCredentials("key", "secret", "token", ends, dict, "test")
    async with open_repository(on_moto, None) as remotes:
        connection = remotes.store.connection  # type: ignore[attr-defined]
        client = await connection.get_client()

        async def frozen() -> object:
            return credentials.get_frozen_credentials()

        fake = SimpleNamespace(get_frozen_credentials=frozen, _expiry_time=ends)
        client._request_signer._credentials = fake
        shared = await s3_share.sign_url(connection, "x", 604_800, None, public=False)
        assert (shared.expires, shared.temporary) == (ends, True)
        shared = await s3_share.sign_url(connection, "x", 60, None, public=False)
        assert shared.expires is not None
        assert shared.expires < ends


def test_public(moto: S3Server, flower: Path, other: etc.Config) -> None:
    """What everybody can read needs no signature; no part of it can be kept back."""
    config = pushed(moto, make_moto_bucket(moto), flower, public=True)
    result = etc.share("flower", "30d", config=config)
    assert "?" not in result.url
    assert result.expires is None
    assert etc.pull(result.url, config=other).files
    with pytest.raises(NotAllowed, match="share the whole"):
        etc.share("flower", partition="val", config=config)


def test_without_credentials(
    flower: Path, other: etc.Config, monkeypatch: pytest.MonkeyPatch, moto: S3Server
) -> None:
    """Who has no credentials can hand on what everybody can read."""
    public = pushed(moto, make_moto_bucket(moto), flower, public=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    anonymous = etc.Config(public.url, other.home, endpoint_url=moto.endpoint)
    result = etc.share("flower", config=anonymous)
    assert "?" not in result.url
    assert result.expires is None


async def test_regional_endpoint() -> None:
    """Links name the bucket's own region: the global endpoint redirects, which breaks them."""
    settings = RepositorySettings(
        url="s3://bucket", region="eu-central-1", aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
    )  # fmt: skip
    async with open_store(settings) as store:
        connection = store.connection  # type: ignore[attr-defined]
        shared = await s3_share.sign_url(connection, "a b/ü.tgz", 60, None, public=False)
    assert shared.url.startswith("https://bucket.s3.eu-central-1.amazonaws.com/a%20b/%C3%BC.tgz?")
    query = parse_qs(urlsplit(shared.url).query)
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


def test_what_cannot_be_shared(on_moto: etc.Config, tmp_path: Path, flower: Path) -> None:
    """No such dataset, no such partition, no index, no store with links."""
    with pytest.raises(DatasetNotFound):
        etc.share("flowers", config=on_moto)
    with pytest.raises(PartitionNotFound, match="it has: test, train, val"):
        etc.share("flower", partition="dev", config=on_moto)
    with pytest.raises(UsageError, match="can only be pulled"):
        etc.share("https://host/x.tgz", config=on_moto)
    (tmp_path / "bucket").mkdir()
    local = etc.Config(f"file://{tmp_path}/bucket", tmp_path / "local")
    etc.register(flower, config=local)
    etc.push("flower", config=local)
    with pytest.raises(UsageError, match="no links"):
        etc.share("flower", config=local)
    with tarfile.open(tmp_path / "bucket" / "plain.tgz", "w:gz") as tar:
        tar.add(flower, ".")
    with pytest.raises(UsageError, match="no index"):
        etc.share("plain", partition="val", config=local)


async def test_async(on_moto: etc.Config, other: etc.Config) -> None:
    """The async twins do the same."""
    result = await etc.ashare("flower", partition="val", config=on_moto)
    pulled = await etc.apull(result.url, config=other)
    assert pulled.files == 40


def archive(root: Path, *, mode: str = "w:gz") -> bytes:
    """An archive without an index, as others make it."""
    path = root.parent / "made.tgz"
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        tar.add(root, ".")
    return path.read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("indexed", [True, False])
def test_any_url(
    web: WebServer, other: etc.Config, flower: Path, tmp_path: Path, ranges: bool, indexed: bool
) -> None:
    """Archives are pulled from any web server, with ranges where it has them."""
    web.ranges = ranges
    data = archive(flower)
    if indexed:
        (tmp_path / "bucket").mkdir()
        local = etc.Config(f"file://{tmp_path}/bucket", tmp_path / "local")
        etc.register(flower, config=local)
        etc.push("flower", config=local)
        data = (tmp_path / "bucket" / "flower.tgz").read_bytes()
    web.files["/a/rose.tar.gz"] = data
    result = etc.pull(web.url("/a/rose.tar.gz"), config=other)
    assert (result.name, result.archive_bytes) == ("rose", len(data))
    assert result.url == f"http://127.0.0.1:{web.server_port}/a/rose.tar.gz"
    assert files(snapshot(result.path)) == files(snapshot(flower))
    assert len(web.seen) > 1 if ranges else len(web.seen) == 1
    info = etc.info(web.url("/a/rose.tar.gz"), config=other)
    assert (info.name, info.location) == ("rose", result.url)
    assert (info.files is not None) == (ranges and indexed)
    with pytest.raises(AlreadyExists, match="rose"):
        etc.pull(web.url("/a/rose.tar.gz"), config=other)
    assert etc.pull(web.url("/a/rose.tar.gz"), force=True, config=other).replaces
    receipts = "".join(path.read_text() for path in other.home.rglob("*.json"))
    assert result.url in receipts
    assert "SECRET" not in receipts


@pytest.mark.parametrize("ranges", [True, False])
def test_dry_run(web: WebServer, other: etc.Config, flower: Path, ranges: bool) -> None:
    """A dry run says what would be pulled."""
    web.ranges = ranges
    web.files["/rose.tgz"] = archive(flower)
    result = etc.pull(web.url("/rose.tgz"), config=other, dry_run=True)
    assert result.dry_run
    assert not result.path.exists()


def test_truncated_and_damaged(web: WebServer, other: etc.Config, flower: Path) -> None:
    """What a web server has is checked as anything is; nothing bad is installed."""
    data = archive(flower)
    cases: list[tuple[bytes, type[EtceteraError]]] = [
        (data[:-20], TruncatedArchive),
        (b"", NotAnArchive),
        (b"<html>", NotAnArchive),
        (data[: len(data) // 2] + b"\0\0\0\0" + data[len(data) // 2 + 4 :], EtceteraError),
        (gzip.compress(data), CorruptArchive),  # compressed once more on the way
    ]
    for ranges in (True, False):
        web.ranges = ranges
        for content, expected in cases:
            web.files["/rose.tgz"] = content
            with pytest.raises(expected) as caught:
                etc.pull(web.url("/rose.tgz"), config=other)
            assert "SECRET" not in str(caught.value)
            assert etc.ls(config=other) == []


def test_archive_that_is_no_dataset(web: WebServer, other: etc.Config, tmp_path: Path) -> None:
    """An archive of something else is refused, and the error names the URL, not the query."""
    (tmp_path / "thing" / "src").mkdir(parents=True)
    web.files["/thing.tgz"] = archive(tmp_path / "thing")
    with pytest.raises(InvalidDataset, match=r"/thing\.tgz is not a dataset") as caught:
        etc.pull(web.url("/thing.tgz"), config=other)
    assert "SECRET" not in str(caught.value)


def test_partition_link_holds_what_it_says(on_rclone: etc.Config, other: etc.Config) -> None:
    """A link that is said to open one partition and opens others, or other bytes, is refused."""
    result = etc.share("flower", partition="val", config=on_rclone)
    url, _, fragment = result.url.partition("#")
    assert fragment
    lies = {"partition=val": "partition=train", "crc32=": "crc32=1", "size=": "size=1"}
    for old, new in lies.items():
        with pytest.raises((CorruptArchive, UsageError)):
            etc.pull(f"{url}#{fragment.replace(old, new)}", config=other)
    test = etc.share("flower", partition="test", config=on_rclone).url.partition("#")[2]
    with pytest.raises(EtceteraError):  # the signature of one with the range of another
        etc.pull(f"{url}#{test}", config=other)
    assert etc.ls(config=other) == []


@pytest.mark.usefixtures("hasty_http")
def test_broken_connections(web: WebServer, other: etc.Config, flower: Path) -> None:
    """A pull goes on when the connection breaks, by stream and by ranges."""
    web.files["/rose.tgz"] = web.files["/first"] = archive(flower)
    for ranges in (False, True):
        web.ranges = ranges
        web.tricks = [redirect("/rose.tgz"), cut(1000), Reply(503), cut(30_000), None]
        pulled = etc.pull(f"{web.url('/first')}#name=rose", force=True, config=other)
        assert files(snapshot(pulled.path)) == files(snapshot(flower))


@pytest.fixture
def hasty_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds where users wait seconds."""
    monkeypatch.setattr(patience, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(patience, "LONGEST_DELAY_SECONDS", 0.01)


class TestCommandLine:
    """``etc share`` and ``etc pull LINK``."""

    @pytest.fixture(autouse=True)
    def settings(self, on_rclone: etc.Config, tmp_path: Path, rclone: S3Server) -> None:
        """Write the settings down where the command line looks for them."""
        path = tmp_path / "user" / ".etc.toml"
        path.write_text(
            f'url = "{on_rclone.url}"\nendpoint_url = "{rclone.endpoint}"\n'
            f'aws_access_key_id = "{rclone.key}"\naws_secret_access_key = "{rclone.secret}"\n'
        )
        path.chmod(0o600)

    def test_share(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The link and the command are results; who can do what until when is said aside."""
        assert main(["share", "flower", "--partition", "val"]) == 0
        captured = capsys.readouterr()
        link, command = captured.out.splitlines()
        assert link.startswith("http://127.0.0.1")
        assert command.endswith(" | tar xzf -")
        assert "the partition val of flower" in captured.err
        assert "archive is replaced" in captured.err
        assert main(["share", "flower", "--expires", "1h", "-q"]) == 0
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 2
        assert captured.err == ""

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        """For programs there is JSON."""
        assert main(["share", "flower", "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        assert value.keys() == {
            "name", "partition", "url", "command", "bytes", "expires", "temporary"
        }  # fmt: skip
        assert datetime.fromisoformat(value["expires"]) > datetime.now(UTC)

    def test_bad_time(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Wrong usage has its exit status."""
        assert main(["share", "flower", "--expires", "soon"]) == 2
        assert "'soon' is no time" in capsys.readouterr().err
        assert main(["share", "flower", "--expires", "8d"]) == 2
        assert "seven days" in capsys.readouterr().err

    def test_pull_link(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """A link is pulled, under another name if one is given; nothing shows its secrets."""
        assert main(["share", "flower", "--partition", "val", "-q"]) == 0
        link = capsys.readouterr().out.splitlines()[0]
        home = ["--home", str(tmp_path / "elsewhere")]
        assert main(["-v", "pull", link, "as", "rose", *home]) == 0
        assert main(["-v", "pull", link, "tulip", *home]) == 0
        assert main(["-v", "info", link, *home]) == 0
        captured = capsys.readouterr()
        assert "Pulled rose" in captured.out
        assert "Pulled tulip" in captured.out
        assert "Signature" not in captured.out + captured.err
        assert main(["ls", *home]) == 0
        assert capsys.readouterr().out == "rose\ntulip\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["pull", "flower", "as", "rose"], "Only what a link leads to"),
            (["pull", "https://h/x.tgz?S=SECRET", "as"], "After 'as'"),
            (["pull", "https://h/?S=SECRET"], "etc pull LINK as NAME"),
            (["pull", "https://h/x.tgz?S=SECRET", "as", "a/b"], "cannot name a dataset"),
            (["pull", "https://h/x.tgz?S=SECRET", "--repository", "lab"], "needs no repository"),
            (["pull", "https://h/x.tgz?S=SECRET#a=b"], "cannot be understood"),
            (["push", "https://h/x.tgz?S=SECRET"], "can only be pulled"),
            (["share", "https://h/x.tgz?S=SECRET"], "can only be pulled"),
            (["ls", "--repository", "https://h/x.tgz?S=SECRET"], "not to a repository"),
        ],
    )
    def test_wrong_usage(
        self, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Links where they cannot be, and names that cannot be: usage errors, no secrets."""
        assert main(["-v", *arguments]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert "SECRET" not in captured.err


def test_partition_link_and_what_is_here(on_moto: etc.Config, other: etc.Config) -> None:
    """A link to a partition takes no selection, and never replaces a part that is here."""
    link = etc.share("flower", partition="val", config=on_moto).url
    with pytest.raises(UsageError, match="one partition alone"):
        etc.pull(link, config=other, partitions=["val"])
    assert etc.pull(link, config=other).partial
    with pytest.raises(AlreadyExists, match="cannot add"):
        etc.pull(link, config=other)
    assert etc.pull(link, True, config=other).partial
