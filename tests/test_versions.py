"""Digests that are asked for, status, and lock files."""

import inspect
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

import etcetera as etc
from etcetera import blocking, versions
from etcetera.cli import main
from etcetera.errors import (
    ConfigError,
    DatasetNotFound,
    DigestMismatch,
    InvalidDataset,
    InvalidName,
    UsageError,
)
from etcetera.home import Home
from etcetera.pins import Lock, Pin, read_lock
from etcetera.transfer.options import MiB
from tests.datasets import make_dataset, make_large_dataset, snapshot
from tests.servers import S3Server, make_moto_bucket

OTHER = f"sha256:{'0' * 64}"


@pytest.fixture
def config(tmp_path: Path) -> etc.Config:
    """A home, and two repositories, all empty."""
    (tmp_path / "bucket").mkdir()
    (tmp_path / "lab").mkdir()
    lab = {"url": f"file://{tmp_path}/lab"}
    return etc.Config(f"file://{tmp_path}/bucket", tmp_path / "home", repositories={"lab": lab})


@pytest.fixture
def other(tmp_path: Path, config: etc.Config) -> etc.Config:
    """Another machine's home, with the default repository alone."""
    return etc.Config(config.url, tmp_path / "other")


@pytest.fixture
def flower(config: etc.Config, tmp_path: Path) -> Path:
    """The directory of a dataset that is registered and pushed."""
    root = make_dataset(tmp_path / "flower")
    etc.register(root, config=config)
    etc.push("flower", config=config)
    return root


def digest_of(name: str, config: etc.Config) -> str:
    """Of the archive in the repository."""
    digest = etc.info(name, True, config).digest
    assert digest is not None
    return digest


def push_another(flower: Path, config: etc.Config) -> str:
    """Push another version; return its digest."""
    (flower / "data/train/new.txt").write_text("new")
    return str(etc.push("flower", force=True, config=config).digest)


def test_sync_twins_have_one_signature() -> None:
    """The twin of sync has an underscore, since ``async`` is a keyword."""
    assert inspect.signature(blocking.sync) == inspect.signature(versions.async_)
    assert etc.async_ is versions.async_
    assert etc.sync is blocking.sync


def test_pull_one_version(flower: Path, config: etc.Config, other: etc.Config) -> None:
    """Nothing but the version that was asked for is installed, nor fetched."""
    digest = digest_of("flower", config)
    for dry_run in (True, False):
        with pytest.raises(DigestMismatch, match="nothing was installed") as caught:
            etc.pull("flower", config=other, digest=OTHER, dry_run=dry_run)
        assert digest in str(caught.value)
    assert etc.ls(config=other) == []
    assert etc.pull("flower", config=other, digest=digest).digest == digest
    before = snapshot(other.home / "flower")
    with pytest.raises(DigestMismatch):
        etc.pull("flower", force=True, config=other, digest=OTHER)
    assert snapshot(other.home / "flower") == before


def test_pull_one_version_without_index(
    flower: Path, config: etc.Config, other: etc.Config, tmp_path: Path
) -> None:
    """Only unpacking tells the digest of such an archive; it is refused then."""
    digest = digest_of("flower", config)
    with tarfile.open(tmp_path / "bucket/flower.tgz", "w:gz") as tar:
        tar.add(flower, ".")
    with pytest.raises(DigestMismatch):
        etc.pull("flower", config=other, digest=OTHER)
    assert etc.ls(config=other) == []
    assert etc.pull("flower", config=other, digest=digest).digest == digest


def test_open_one_version(flower: Path, config: etc.Config, other: etc.Config) -> None:
    """A local dataset is opened if it has the digest and nothing has changed."""
    digest = digest_of("flower", config)
    with pytest.raises(DatasetNotFound):
        etc.dataset("flower", config=other, digest=digest)
    with pytest.raises(DigestMismatch):
        etc.dataset("flower", True, config=other, digest=OTHER)
    assert etc.dataset("flower", True, config=other, digest=digest).name == "flower"
    with pytest.raises(DigestMismatch, match="has the digest"):
        etc.dataset("flower", True, config=other, digest=OTHER)
    (other.home / "flower/data/train/rose.txt").write_text("thorn")
    with pytest.raises(DigestMismatch, match="changed since it was pulled"):
        etc.dataset("flower", config=other, digest=digest)
    etc.create("new", config=other)
    with pytest.raises(DigestMismatch, match="never pushed"):
        etc.dataset("new", config=other, digest=digest)
    etc.pull("flower", force=True, config=other, partitions=["train"])
    with pytest.raises(DigestMismatch, match="only in part"):
        etc.dataset("flower", True, config=other, digest=digest)


@pytest.mark.parametrize("digest", ["", "sha256:", "0" * 64, OTHER.upper(), OTHER + "\n", "md5:00"])
def test_no_digest(digest: str, config: etc.Config) -> None:
    """What can be no digest is wrong usage, before anything is done."""
    with pytest.raises(UsageError, match="is no digest"):
        etc.pull("flower", config=config, digest=digest)
    with pytest.raises(UsageError, match="is no digest"):
        etc.dataset("flower", config=config, digest=digest)


def states(config: etc.Config, name: str | None = None, **options: str) -> dict[str, str]:
    """The state of each local dataset."""
    return {one.name: one.state for one in etc.status(name, config, **options)}


def test_states(flower: Path, config: etc.Config, other: etc.Config) -> None:
    """Same, older, changed, different; absent once the archive is gone."""
    assert etc.status(config=other) == []
    etc.pull("flower", config=other)
    assert states(other) == states(config) == {"flower": "same"}
    (other.home / "flower/data/train/rose.txt").write_text("thorn")
    assert states(other) == {"flower": "changed"}
    push_another(flower, config)
    assert states(other) == {"flower": "different"}
    etc.pull("flower", force=True, config=other)
    (flower / "data/train/more.txt").write_text("more")
    etc.push("flower", force=True, config=config)
    (status,) = etc.status("flower", other)
    assert status.state == "older"
    assert status.digest != status.remote_digest == digest_of("flower", config)
    Path(str(config.url).removeprefix("file://"), "flower.tgz").unlink()
    assert states(config) == {"flower": "absent"}


def test_pushed_again_unchanged(flower: Path, config: etc.Config, other: etc.Config) -> None:
    """Another archive of the same data is the same version."""
    etc.pull("flower", config=other)
    os.utime(flower / "README.md", (1, 1))
    etc.push("flower", force=True, config=config)
    assert states(other) == {"flower": "same"}


def test_unknown_states(
    flower: Path, config: etc.Config, other: etc.Config, tmp_path: Path
) -> None:
    """What cannot be told is said, with the reason; the others are told all the same."""
    etc.push("flower", config=config, repository="lab")
    etc.create("new", config=config)
    etc.create("gone", config=config)
    (status, *_) = etc.status("new", config)
    assert status.state == "absent"
    etc.push("new", config=config, repository="lab")
    Path(tmp_path / "lab/new.tgz").rename(tmp_path / "bucket/gone.tgz")
    found = {one.name: one for one in etc.status(config=config)}
    assert found["gone"].state == "unknown"
    assert "never pushed" in str(found["gone"].reason)
    assert found["flower"].state == "same"
    assert str(found["flower"].repository).endswith("/lab")
    assert found["new"].state == "absent"
    assert states(config, "flower", repository="lab") == {"flower": "same"}
    assert states(config, "lab:flower") == {"flower": "same"}
    without_lab = etc.Config(config.url, config.home)
    (status,) = etc.status("flower", without_lab)
    assert status.state == "unknown"
    assert "/lab" in str(status.reason)
    with pytest.raises(DatasetNotFound):
        etc.status("none", config)
    with pytest.raises(ConfigError):
        etc.status(config=config, repository="nowhere")


def test_lock_and_sync(flower: Path, config: etc.Config, other: etc.Config, tmp_path: Path) -> None:
    """One machine's lock file makes another one have the same, and says what it did."""
    file = tmp_path / "etc.lock"
    etc.create("new", config=config)
    lock = etc.lock(config=config)
    assert [pin.name for pin in lock.datasets] == ["flower"]
    assert lock.left_out == {"new": "was never pushed or pulled"}
    file.write_text(str(lock))
    assert read_lock(file) == lock.datasets
    etc.create("mine", config=other)
    (would,) = etc.sync(file, other, dry_run=True)
    assert (would.action, etc.ls(config=other)) == ("pull", ["mine"])
    (did,) = etc.sync(file, other)
    assert did.action == "pull"
    assert etc.ls(config=other) == ["flower", "mine"]
    assert etc.lock(["flower"], other).datasets == lock.datasets
    (did,) = etc.sync(file, other)
    assert did.action == "nothing"
    (other.home / "flower/data/train/rose.txt").write_text("thorn")
    (did,) = etc.sync(file, other)
    assert did.action == "replace"
    assert did.kept is not None
    assert (did.kept / "data/train/rose.txt").read_text() == "thorn"
    assert etc.verify("flower", config=other).ok
    digest = push_another(flower, config)
    with pytest.raises(DigestMismatch, match="another version"):
        etc.sync(file, etc.Config(config.url, tmp_path / "third"))
    assert etc.sync(file, other)[0].action == "nothing"
    file.write_text(str(etc.lock(["flower"], config)))
    (did,) = etc.sync(file, other)
    assert (did.action, did.kept, did.digest) == ("replace", None, digest)


def test_lock_leaves_out(flower: Path, config: etc.Config, other: etc.Config) -> None:
    """A part, and what has changed, cannot be pinned."""
    etc.pull("flower", config=other, partitions=["train"])
    assert "only a part" in etc.lock(config=other).left_out["flower"]
    etc.pull("flower", config=other)
    assert etc.lock(config=other).left_out == {}
    (other.home / "flower/README.md").write_text("changed")
    lock = etc.lock(config=other)
    assert lock.datasets == ()
    assert "changed since it was pulled" in lock.left_out["flower"]
    with pytest.raises(DatasetNotFound):
        etc.lock(["none"], other)


def test_parts_say_where_the_rest_is(flower: Path, config: etc.Config, tmp_path: Path) -> None:
    """The advice names the repository."""
    etc.push("flower", config=config, repository="lab")
    etc.pull("lab:flower", True, config, partitions=["train"])
    assert "etc pull lab:flower fetches" in etc.lock(config=config).left_out["flower"]
    with pytest.raises(InvalidDataset, match="etc pull lab:flower"):
        etc.push("flower", True, config)
    assert config.called("x", "s3://elsewhere") == "…:x"


def test_dry_sync_looks_at_the_digest(
    flower: Path, config: etc.Config, other: etc.Config, tmp_path: Path
) -> None:
    """What cannot be done is not promised."""
    (tmp_path / "etc.lock").write_text(str(etc.lock(config=config)))
    push_another(flower, config)
    with pytest.raises(DigestMismatch):
        etc.sync(tmp_path / "etc.lock", other, dry_run=True)


def test_lock_leaves_out_links(flower: Path, config: etc.Config) -> None:
    """What came by a link is nowhere that a lock file could name; and a name counts once."""
    receipt = Home(config.home).receipt("flower")
    assert receipt is not None
    assert len(etc.lock(["flower", "flower"], config).datasets) == 1
    Home(config.home).write_receipt(replace(receipt, repository="https://host/flower.tgz"))
    assert "by a link" in etc.lock(config=config).left_out["flower"]
    (status,) = etc.status("flower", config)
    assert status.state == "unknown"
    assert "--repository" in str(status.reason)


def test_any_name_survives(tmp_path: Path) -> None:
    """A name that is nasty in TOML is written and read unchanged."""
    pin = Pin(name="x", repository='file:///a"b\\c d', digest=OTHER, files=1, bytes=2)
    pins = tuple(replace(pin, name=name) for name in ['a"b', "a.b", "naïve ☃", "a]b", "a = b#"])
    (tmp_path / "etc.lock").write_text(str(Lock(datasets=pins, left_out={})), encoding="utf-8")
    assert read_lock(tmp_path / "etc.lock") == pins


GOOD = f'repository = "file:///x"\ndigest = "{OTHER}"\nfiles = 1\nbytes = 2\n'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", ConfigError),
        ("version = 2", ConfigError),
        ("version = 1\ndatasets = 3", ConfigError),
        ("version = 1\n[datasets]\nx = 3", ConfigError),
        (f'version = 1\n[datasets."../x"]\n{GOOD}', InvalidName),
        (f'version = 1\n[datasets.".hidden"]\n{GOOD}', InvalidName),
        (f'version = 1\n[datasets."-f"]\n{GOOD}', InvalidName),
        (f"version = 1\n[datasets.x]\n{GOOD.replace('0', 'g')}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD.replace('files = 1', 'files = -1')}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD.replace('bytes = 2', 'bytes = true')}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD.replace('///x', '//u:p@h/x')}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD}", ConfigError),  # no such repository
        ("version = [", ConfigError),
        (f"[datasets.x]\n{GOOD}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD}files = 1\n", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD}[datasets.'x']\n{GOOD}", ConfigError),
        (f"version = 1\n[datasets.x]\n{GOOD}more = 1\n", ConfigError),
        (f'version = 1\n[datasets."\\ud800"]\n{GOOD}', ConfigError),
        ("version = 1\na.b.c = 1\n", ConfigError),
        ("version = 1\na = [1,\n1]\n", ConfigError),
        ("version = 1\n" + "#" * (1 << 20), ConfigError),
    ],
)
def test_bad_lock_file(
    text: str, error: type[Exception], other: etc.Config, tmp_path: Path
) -> None:
    """Nothing in a lock file is trusted, and nothing is connected to that is not configured."""
    file = tmp_path / "etc.lock"
    file.write_text(text)
    with pytest.raises(error):
        etc.sync(file, other)
    assert not other.home.exists()


def test_edited_lock_file(tmp_path: Path) -> None:
    """What a person may make of a lock file is read as TOML is."""
    file = tmp_path / "etc.lock"
    file.write_text(
        f"\ufeff# Ours\r\n\n version=1 # the only one\n[ datasets . x_1-y ]  # \u2028\r\n"
        f"\trepository = 'file:///a\\b' #\ndigest='{OTHER}'\nbytes = 1_000\nfiles = 0\n"
        f'[datasets."\\u00e4 \\"#\\""]\n{GOOD}',
        encoding="utf-8",
    )
    assert read_lock(file) == (
        Pin(name="x_1-y", repository="file:///a\\b", digest=OTHER, files=0, bytes=1000),
        Pin(name='ä "#"', repository="file:///x", digest=OTHER, files=1, bytes=2),
    )


def test_lock_file_is_not_read_by_tomli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of many parts, which cost it the square of their number, are refused unseen."""
    monkeypatch.setattr("tomli.loads", lambda _: pytest.fail("it was parsed"))
    file = tmp_path / "etc.lock"
    file.write_text("version = 1\n" + "a." * 100_000 + "a = 1\n")
    with pytest.raises(ConfigError, match="line 2 is not as etc lock writes it"):
        read_lock(file)


def test_bad_entry_stops_all(
    flower: Path, config: etc.Config, other: etc.Config, tmp_path: Path
) -> None:
    """An unknown repository anywhere in the file is told before anything is pulled."""
    file = tmp_path / "etc.lock"
    file.write_text(f"{etc.lock(config=config)}\n[datasets.x]\n{GOOD}")
    with pytest.raises(ConfigError, match="if you trust it"):
        etc.sync(file, other)
    assert etc.ls(config=other) == []
    with pytest.raises(ConfigError, match="no lock file"):
        etc.sync(tmp_path / "none", other)


def test_commands(
    flower: Path,
    config: etc.Config,
    other: etc.Config,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The commands, their output and exit status."""
    here = ["--home", str(config.home), "--url", str(config.url)]
    there = ["--home", str(other.home), "--url", str(config.url)]
    file = tmp_path / "etc.lock"
    assert main([*here, "lock"]) == 0
    file.write_text(capsys.readouterr().out)
    assert main([*there, "sync", str(file), "--dry-run"]) == 0
    assert capsys.readouterr().out == "Would pull flower\n"
    assert main([*there, "sync", str(file)]) == 0
    assert capsys.readouterr().out == "Pulled flower\n"
    assert main([*there, "sync", str(file), "--json"]) == 0
    assert '"action": "nothing"' in capsys.readouterr().out
    assert main([*there, "status"]) == 0
    assert capsys.readouterr().out == f"flower\tsame\t{config.url}\n"
    assert main([*there, "status", "flower", "--json"]) == 0
    assert '"state": "same"' in capsys.readouterr().out
    assert main([*there, "status", "none"]) == 3
    assert main([*there, "pull", "flower", "-f", "--digest", OTHER]) == 7
    assert main([*there, "pull", "flower", "-f", "--digest", "x"]) == 2
    (flower / "README.md").write_text("changed")
    capsys.readouterr()
    assert main([*here, "lock", "flower"]) == 7
    output = capsys.readouterr()
    assert "version = 1" in output.out
    assert "has changed since it was pushed" in output.err


def test_on_s3(tmp_path: Path, moto: S3Server) -> None:
    """The same over a real S3 server, with an archive of several parts and ranges."""
    options = {
        "endpoint_url": moto.endpoint,
        "aws_access_key_id": moto.key,
        "aws_secret_access_key": moto.secret,
        "region": "us-east-1",
        "part_size": "5MiB",
    }
    url = f"s3://{make_moto_bucket(moto)}"
    one = etc.Config(url, tmp_path / "one", **options)
    two = etc.Config(url, tmp_path / "two", **options)
    etc.register(make_large_dataset(tmp_path / "source", 12 * MiB), "big", config=one)
    pushed = etc.push("big", config=one)
    assert etc.verify("big", True, one).ok
    (tmp_path / "etc.lock").write_text(str(etc.lock(config=one)))
    assert [did.action for did in etc.sync(tmp_path / "etc.lock", two)] == ["pull"]
    assert etc.verify("big", config=two).ok
    assert states(one) == states(two) == {"big": "same"}
    assert etc.dataset("big", config=two, digest=pushed.digest).root == two.home / "big"
