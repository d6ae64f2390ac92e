"""A new version of a dataset, pushed over an older one: the use case, and real servers."""

import json
import random
import shutil
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.cli import main
from etcetera.errors import AlreadyExists, DatasetNotFound, NetworkError, UsageError
from etcetera.stores import CannotCopy, PartLimits
from etcetera.stores.memory import MemoryStore, memory_store
from tests.datasets import settle, snapshot
from tests.servers import RCLONE_BUCKET, S3Server, make_moto_bucket

MiB = 1 << 20
SIZE = 24 * MiB
FILE = 100 << 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Files that do not compress, in two partitions, the larger one last."""
    chance = random.Random(1)
    for number in range(SIZE // FILE):
        path = tmp_path / "source/data" / ("a" if number < 20 else "b") / f"{number:05}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(FILE))
    settle(tmp_path / "source")
    return tmp_path / "source"


def rewrite(root: Path, number: int) -> None:
    """Change a file, and nothing but its content."""
    path = next(root.glob(f"data/*/{number:05}.bin"))
    path.write_bytes(random.randbytes(FILE))
    settle(root)


@pytest.fixture
def config(tmp_path: Path, root: Path) -> etc.Config:
    """A home with the dataset, which is published as ``set``."""
    config = etc.Config(f"memory://{tmp_path.name}", tmp_path / "home", part_size="5MiB")
    store(config).limits = PartLimits(min_part=5 * MiB, max_part=5 << 30, max_parts=10_000)
    etc.register(root, "set", config=config)
    etc.push("set", config=config)
    return config


def store(config: etc.Config) -> MemoryStore:
    """What is behind the repository."""
    assert config.url is not None
    return memory_store(config.url)


def pulled(config: etc.Config, name: str, home: Path) -> dict[str, tuple[object, ...]]:
    """What another machine gets."""
    assert config.url is not None
    other = etc.Config(config.url, home)
    return snapshot(etc.pull(name, config=other).path)


def test_forced(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """What is replaced is copied from, without being asked."""
    rewrite(root, 120)
    sent = store(config).bytes_sent
    seen: list[etc.Progress] = []
    result = etc.push("set", True, config, progress=seen.append)
    assert result.replaces
    assert result.why_whole is None
    assert store(config).bytes_sent - sent == result.sent < 2 * MiB
    assert result.sent + result.copied == result.archive_bytes
    assert seen[-1].done == seen[-1].total
    assert seen[-1].transferred == result.sent
    assert pulled(config, "set", tmp_path / "other") == snapshot(root)
    info = etc.info("set", remote=True, config=config)
    assert info.digest == result.digest == etc.info("set", config=config).digest


def test_times_of_directories(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """That something came into a directory does not make its first files be sent again."""
    (root / "data/a/new.bin").write_bytes(bytes(FILE))
    (root / "data/b/new.bin").write_bytes(bytes(FILE))
    result = etc.push("set", True, config)
    assert result.sent < FILE
    expected, found = snapshot(root), pulled(config, "set", tmp_path / "other")
    assert {path: what for path, what in expected.items() if what[0] != "directory"} == {
        path: what for path, what in found.items() if what[0] != "directory"
    }
    assert set(expected) == set(found)


def test_base(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """Under a new name, the base is named; it stays as it is."""
    before = snapshot(root)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    rewrite(copy, 3)
    etc.register(copy, "new", config=config)
    result = etc.push("new", config=config, base="set")
    assert not result.replaces
    assert result.copied > 16 * MiB
    assert pulled(config, "new", tmp_path / "other") == snapshot(copy)
    assert pulled(config, "set", tmp_path / "third") == before
    with pytest.raises(AlreadyExists):
        etc.push("new", config=config, base="set")
    again = etc.push("new", True, config, base="set")
    assert again.replaces
    assert again.digest == result.digest


def test_no_base(config: etc.Config, root: Path) -> None:
    """An empty base is none: everything is sent."""
    before = store(config).bytes_sent
    result = etc.push("set", True, config, base="")
    assert (result.copied, result.why_whole) == (0, None)
    assert store(config).bytes_sent - before == result.archive_bytes


def test_wrong_bases(config: etc.Config, root: Path) -> None:
    """A base has to be there, and in the same repository."""
    etc.register(root, "new", config=config)
    with pytest.raises(DatasetNotFound, match="missing"):
        etc.push("new", config=config, base="missing")
    with pytest.raises(UsageError, match="repository"):
        etc.push("new", config=config, base="lab:set")
    with pytest.raises(UsageError):
        etc.push("new", config=config, base="../set")
    assert set(store(config).objects) == {"set.tgz"}


def test_dry_run(config: etc.Config, root: Path) -> None:
    """What is said before is not less than what comes."""
    rewrite(root, 120)
    before = store(config).objects["set.tgz"]
    planned = etc.push("set", True, config, dry_run=True)
    assert store(config).objects["set.tgz"] == before
    assert 16 * MiB < planned.copied
    assert planned.sent < 4 * MiB
    done = etc.push("set", True, config)
    assert done.copied == planned.copied
    assert done.sent <= planned.sent


def test_store_that_cannot(
    config: etc.Config, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is sent where that turns out late, and the reason is said."""
    rewrite(root, 120)
    store(config).faults["copy_part", 1] = CannotCopy("the store is a poor one")
    seen: list[etc.Progress] = []
    result = etc.push("set", True, config, progress=seen.append)
    assert (result.copied, result.why_whole) == (0, "the store is a poor one")
    assert seen[-1].done == seen[-1].total
    assert not store(config).uploads
    assert pulled(config, "set", tmp_path / "other") == snapshot(root)


def test_failure(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """Until the end the old version is there."""
    before = snapshot(root)
    rewrite(root, 120)
    store(config).faults["complete", 2] = NetworkError("planned")
    with pytest.raises(NetworkError):
        etc.push("set", True, config)
    assert pulled(config, "set", tmp_path / "other") == before


def test_directory(root: Path, tmp_path: Path) -> None:
    """A repository in a directory gets everything."""
    (tmp_path / "bucket").mkdir()
    config = etc.Config(f"file://{tmp_path}/bucket", tmp_path / "home")
    etc.register(root, "set", config=config)
    assert etc.push("set", config=config).why_whole is None
    result = etc.push("set", True, config)
    assert result.copied == 0
    assert "directory" in (result.why_whole or "")
    with pytest.raises(DatasetNotFound, match="no dataset none"):
        etc.push("set", True, config, base="none")


def test_command_line(config: etc.Config, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before and after, it is said what is saved, or why nothing."""
    rewrite(root, 120)
    etc.register(root, "new", config=config)
    common = ["--url", str(config.url), "--home", str(config.home)]
    arguments = ["push", "new", "--base", "set", *common]
    assert main([*arguments, "--dry-run"]) == 0
    assert "copied inside the repository, at most" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["copied"] > 16 * MiB
    assert shown["why_whole"] is None
    assert main([*arguments, "-f"]) == 0
    assert "copied inside the repository" in capsys.readouterr().out
    store(config).publish("set.tgz", b"no archive" * MiB, overwrite=True)
    assert main([*arguments, "-f"]) == 0
    assert "all of it sent: nobody here has pushed, pulled or verified" in capsys.readouterr().out


@pytest.fixture(params=["moto", "rclone"])
def served(request: pytest.FixtureRequest, tmp_path: Path, root: Path) -> etc.Config:
    """A home with the dataset, and a server where it is published."""
    server: S3Server = request.getfixturevalue(request.param)
    bucket = make_moto_bucket(server) if request.param == "moto" else RCLONE_BUCKET
    config = etc.Config(
        f"s3://{bucket}/{tmp_path.name}/{request.param} über",
        tmp_path / "home",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        region="us-east-1",
    )
    etc.register(root, "set", config=config)
    etc.push("set", config=config)
    return config


def test_servers(
    served: etc.Config, root: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Moto copies; rclone says so and does not, which is noticed: the result is right."""
    rewrite(root, 120)
    for name, force, base in (("set", True, None), ("new", False, "set")):
        etc.register(root, name, force=True, config=served)
        result = etc.push(name, force, served, base=base)
        if "moto" in str(served.url):
            assert result.why_whole is None
            assert result.sent < 2 * MiB
        else:
            assert result.copied == 0
            assert "copied" in (result.why_whole or "") or "copies" in (result.why_whole or "")
        other = etc.Config(
            served.url,
            tmp_path / f"other-{name}",
            endpoint_url=served.repository(None).endpoint_url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing-secret",
            region="us-east-1",
        )
        assert snapshot(etc.pull(name, config=other).path) == snapshot(root)


def test_only_what_was_checked_is_copied(config: etc.Config, root: Path, tmp_path: Path) -> None:
    """An archive of somebody else may hold other bytes than its index says: it is read first."""
    store(config).publish("set.tgz", store(config).objects["set.tgz"][1], overwrite=True)
    rewrite(root, 120)
    result = etc.push("set", True, config)
    assert result.copied == 0
    assert result.why_whole is not None
    assert "etc verify -r" in result.why_whole
    store(config).publish("set.tgz", store(config).objects["set.tgz"][1], overwrite=True)
    assert etc.verify("set", True, config).problem is None
    rewrite(root, 121)
    assert etc.push("set", True, config).copied > 0
    other = etc.Config(config.url, tmp_path / "other", part_size="5MiB")
    etc.pull("set", config=other)
    rewrite(other.home / "set", 122)
    assert etc.push("set", True, other).copied > 0
