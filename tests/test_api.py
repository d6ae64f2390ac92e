"""The use cases, sync and async, over a directory as a repository."""

import asyncio
import inspect
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import etcetera as etc
from etcetera import api, blocking
from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    CorruptArchive,
    DatasetNotFound,
    InvalidDataset,
    InvalidName,
    NotAllowed,
    NotAnArchive,
    RepositoryNotFound,
    TruncatedArchive,
    UsageError,
)
from etcetera.stores.memory import memory_store
from tests.datasets import make_dataset, snapshot

TWINS = ("dataset", "ls", "register", "create", "push", "pull", "purge", "info", "remote")


@pytest.fixture
def config(tmp_path: Path) -> etc.Config:
    """A home and a repository, both empty."""
    (tmp_path / "bucket").mkdir()
    return etc.Config(f"file://{tmp_path}/bucket", tmp_path / "home")


@pytest.fixture
def other(tmp_path: Path, config: etc.Config) -> etc.Config:
    """Another machine's home, with the same repository."""
    return etc.Config(config.url, tmp_path / "other")


@pytest.fixture
def flower(tmp_path: Path) -> Path:
    """A dataset of every kind of entry."""
    return make_dataset(tmp_path / "flower")


@pytest.mark.parametrize("name", TWINS)
def test_twins_have_one_signature(name: str) -> None:
    """A function and its async twin take the same arguments and give the same result."""
    sync, twin = getattr(blocking, name), getattr(api, f"a{name}")
    assert inspect.signature(sync) == inspect.signature(twin)
    assert getattr(etc, name) is sync
    assert getattr(etc, f"a{name}") is twin


def test_round_trip(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """What one machine registers and pushes, another one pulls unchanged."""
    assert etc.register(flower, config=config).name == "flower"
    pushed = etc.push("flower", config=config)
    assert etc.ls(config=other) == []
    assert etc.ls(remote=True, config=other) == ["flower"]
    pulled = etc.pull("flower", config=other)
    assert snapshot(pulled.path) == snapshot(flower)
    assert pulled.digest == pushed.digest
    assert (pulled.files, pulled.bytes) == (pushed.files, pushed.bytes)
    assert etc.dataset("flower", config=other).meta == {"colour": "red"}


def test_archive_is_plain(config: etc.Config, flower: Path, tmp_path: Path) -> None:
    """The object in the repository is a .tgz that Python's own tarfile unpacks."""
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    with tarfile.open(tmp_path / "bucket" / "flower.tgz", "r|*") as tar:
        tar.extractall(tmp_path / "plain", filter="tar")
    (tmp_path / "plain" / ".etcetera-index.jsonl").unlink()
    assert snapshot(tmp_path / "plain") == snapshot(flower)


@pytest.mark.parametrize("flag", ["auto_pull", "auto_install"])
def test_dataset_pulls_when_asked(
    config: etc.Config, other: etc.Config, flower: Path, flag: str
) -> None:
    """Both flags install a missing dataset; without one the error says how."""
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    with pytest.raises(DatasetNotFound, match="etc pull flower"):
        etc.dataset("flower", config=other)
    found = etc.dataset("flower", flag == "auto_pull", flag == "auto_install", other)
    assert found.keys() == {"train", "test"}


def test_taken_names_need_force(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """Push and pull refuse a name that exists, and replace it when forced."""
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    with pytest.raises(AlreadyExists, match="--force"):
        etc.push("flower", config=config)
    etc.pull("flower", config=other)
    with pytest.raises(AlreadyExists, match="--force"):
        etc.pull("flower", config=other)
    (flower / "data" / "train" / "new.txt").write_text("new")
    assert etc.push("flower", force=True, config=config).replaces
    result = etc.pull("flower", force=True, config=other)
    assert result.replaces
    assert result.kept is None
    assert snapshot(result.path) == snapshot(flower)


def test_forced_pull_keeps_what_is_nowhere_else(
    config: etc.Config, other: etc.Config, flower: Path
) -> None:
    """A local dataset that was never pushed survives being replaced, and the result says where."""
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    own = etc.create("flower", ["mine"], config=other)
    (own["mine"] / "x").write_text("precious")
    result = etc.pull("flower", force=True, config=other)
    assert result.kept is not None
    assert (result.kept / "data" / "mine" / "x").read_text() == "precious"


def test_purge_refuses_what_is_nowhere_else(config: etc.Config) -> None:
    """A dataset that was never pushed is purged only by force; a pushed one freely."""
    etc.create("mine", config=config)
    with pytest.raises(NotAllowed, match="--force"):
        etc.purge("mine", config)
    etc.push("mine", config=config)
    etc.purge("mine", config)
    assert etc.ls(config=config) == []
    etc.create("mine", config=config)
    etc.purge("mine", config, force=True)
    assert etc.ls(config=config) == []


def test_dry_runs_change_nothing(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """A dry run tells what would happen and leaves home and repository alone."""
    etc.register(flower, config=config)
    planned = etc.push("flower", dry_run=True, config=config)
    assert planned.dry_run
    assert etc.ls(remote=True, config=config) == []
    pushed = etc.push("flower", config=config)
    assert pushed.archive_bytes <= planned.archive_bytes
    would = etc.pull("flower", dry_run=True, config=other)
    assert (would.files, would.bytes, would.digest) == (pushed.files, pushed.bytes, pushed.digest)
    assert etc.ls(config=other) == []


def test_info(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """Local and remote information agree, and the remote one needs no unpacking."""
    etc.register(flower, config=config)
    assert etc.info("flower", config=config).digest is None
    pushed = etc.push("flower", config=config)
    local, remote = etc.info("flower", config=config), etc.info("flower", True, other)
    assert local.kind == "registered"
    assert remote.kind == "remote"
    assert local.partitions == remote.partitions
    assert (local.files, local.bytes, local.digest) == (pushed.files, pushed.bytes, pushed.digest)
    assert (remote.files, remote.bytes) == (pushed.files, pushed.bytes)
    assert local.meta == remote.meta == {"colour": "red"}
    (flower / "data" / "train" / "new.txt").write_text("new")
    assert etc.info("flower", config=config).digest is None


def test_info_of_foreign_archive(config: etc.Config, flower: Path, tmp_path: Path) -> None:
    """An archive without an index is described by what the store knows of it."""
    subprocess.run(
        ["tar", "czf", tmp_path / "bucket" / "theirs.tgz", "-C", flower, "."], check=True
    )
    info = etc.info("theirs", True, config)
    assert info.files is None
    assert info.partitions is None
    assert info.archive_bytes == (tmp_path / "bucket" / "theirs.tgz").stat().st_size
    etc.pull("theirs", config=config)
    assert snapshot(config.home / "theirs") == snapshot(flower)
    assert etc.info("theirs", config=config).kind == "pulled"


def test_repositories(tmp_path: Path, flower: Path) -> None:
    """A dataset goes to the repository that is named, before it or beside it."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "bucket").mkdir()
    config = etc.Config(
        f"file://{tmp_path}/bucket",
        tmp_path / "home",
        repositories={"lab": {"url": f"file://{tmp_path}/lab"}},
    )
    etc.register(flower, config=config)
    etc.push("lab:flower", config=config)
    assert etc.ls(remote=True, config=config) == []
    assert etc.ls(config=config, repository="lab") == ["flower"]
    etc.purge("flower", config)
    assert etc.dataset("lab:flower", auto_pull=True, config=config).name == "flower"
    with pytest.raises(UsageError, match="Two repositories"):
        etc.info("lab:flower", config=config, repository="default")
    with pytest.raises(ConfigError):
        etc.push("elsewhere:flower", config=config)


def test_other_repository_is_no_match(tmp_path: Path, flower: Path) -> None:
    """A dataset asked for from one repository is never silently that of another."""
    for name in ("bucket", "lab"):
        (tmp_path / name).mkdir()
    config = etc.Config(
        f"file://{tmp_path}/bucket",
        tmp_path / "home",
        repositories={"lab": {"url": f"file://{tmp_path}/lab"}},
    )
    etc.register(flower, config=config)
    with pytest.raises(AlreadyExists, match="lab:flower --force"):
        etc.dataset("lab:flower", auto_pull=True, config=config)
    etc.push("flower", config=config)
    etc.purge("flower", config)
    etc.pull("flower", config=config)
    with pytest.raises(AlreadyExists, match="bucket"):
        etc.dataset("lab:flower", auto_pull=True, config=config)
    with pytest.raises(ConfigError):
        etc.dataset("nowhere:flower", auto_pull=True, config=config)
    etc.push("lab:flower", config=config)
    etc.pull("lab:flower", force=True, config=config)
    assert etc.dataset("lab:flower", config=config).name == "flower"


def test_failed_register_registers_nothing(config: etc.Config, flower: Path) -> None:
    """A directory whose meta.json cannot be read is not registered at all."""
    (flower / "meta.json").write_text("{oops")
    with pytest.raises(InvalidDataset, match="JSON"):
        etc.register(flower, config=config)
    assert etc.ls(config=config) == []


def test_unopenable_archive_is_not_installed(
    config: etc.Config, flower: Path, tmp_path: Path
) -> None:
    """An archive whose meta.json cannot be read is not installed, since it could not be opened."""
    (flower / "meta.json").write_text("{oops")
    subprocess.run(["tar", "czf", tmp_path / "bucket" / "bad.tgz", "-C", flower, "."], check=True)
    with pytest.raises(InvalidDataset, match=r"bad\.tgz/meta\.json"):
        etc.pull("bad", config=config)
    assert etc.ls(config=config) == []


def test_changes_are_noticed(config: etc.Config, flower: Path) -> None:
    """Executable bits and empty directories belong to the data: changing them is a change."""
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    assert etc.info("flower", config=config).digest is not None
    (flower / "data" / "train" / "rose.txt").chmod(0o755)
    assert etc.info("flower", config=config).digest is None
    etc.push("flower", force=True, config=config)
    (flower / "data" / "more").mkdir()
    assert etc.info("flower", config=config).digest is None


def test_wrong_config_is_told(flower: Path) -> None:
    """A path or a dictionary as config= is an error that says what it takes."""
    for config in ("etc.toml", {"url": "file:///tmp"}):
        with pytest.raises(UsageError, match=r"etcetera\.Config"):
            etc.ls(config=config)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "-f", "a\nb", "a\\b", "a\0"])
def test_bad_names_touch_nothing(tmp_path: Path, name: str) -> None:
    """A name that cannot be one is refused before any file or request."""
    config = etc.Config("memory://untouched", tmp_path / "home")
    calls = (
        lambda: etc.dataset(name, auto_pull=True, config=config),
        lambda: etc.create(name, config=config),
        lambda: etc.push(name, config=config),
        lambda: etc.pull(name, config=config),
        lambda: etc.purge(name, config),
        lambda: etc.info(name, config=config),
        lambda: etc.info(name, True, config),
        lambda: etc.register(tmp_path, name, config=config),
    )
    for call in calls:
        with pytest.raises(InvalidName):
            call()
    assert not (tmp_path / "home").exists()
    assert not memory_store("memory://untouched").calls


def test_missing_things(config: etc.Config, tmp_path: Path) -> None:
    """What is not there is not found: dataset, archive, bucket."""
    for call in (etc.push, etc.pull, etc.purge, etc.info, etc.dataset):
        with pytest.raises(DatasetNotFound):
            call("nothing", config=config)
    nowhere = etc.Config(f"file://{tmp_path}/nowhere", tmp_path / "home")
    etc.create("x", config=nowhere)
    for attempt in (
        lambda: etc.ls(True, nowhere),
        lambda: etc.push("x", config=nowhere),
        lambda: etc.pull("y", config=nowhere),
    ):
        with pytest.raises(RepositoryNotFound):
            attempt()
    with pytest.raises(ConfigError, match="url"):
        etc.pull("x", config=etc.Config(home=tmp_path / "home"))


def test_bad_archives(config: etc.Config, flower: Path, tmp_path: Path) -> None:
    """An object that is no archive, cut, or damaged, is named, and nothing is installed."""
    bucket = tmp_path / "bucket"
    etc.register(flower, config=config)
    etc.push("flower", config=config)
    whole = (bucket / "flower.tgz").read_bytes()
    (bucket / "text.tgz").write_text("no archive")
    (bucket / "empty.tgz").write_bytes(b"")
    (bucket / "cut.tgz").write_bytes(whole[: len(whole) // 2])
    (bucket / "flipped.tgz").write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    shutil.rmtree(tmp_path / "flower" / "data")
    subprocess.run(["tar", "czf", bucket / "other.tgz", "-C", flower, "."], check=True)
    expected = {
        "text": NotAnArchive,
        "empty": NotAnArchive,
        "cut": TruncatedArchive,
        "flipped": CorruptArchive,
        "other": InvalidDataset,
    }
    for name, error in expected.items():
        with pytest.raises(error, match=f"{name}.tgz"):
            etc.pull(name, config=config)
    assert etc.ls(config=config) == ["flower"]
    assert not list((config.home / ".etcetera" / "staging").iterdir())


def test_unfit_datasets(config: etc.Config, flower: Path, tmp_path: Path) -> None:
    """What could not be restored elsewhere is refused before anything is sent."""
    etc.register(flower, config=config)
    (flower / "data" / "train" / "away").symlink_to("/etc/hostname")
    os.mkfifo(flower / "data" / "train" / "pipe")
    with pytest.raises(InvalidDataset, match=r"away.*pipe"):
        etc.push("flower", config=config)
    assert not list((tmp_path / "bucket").iterdir())


def test_sync_calls_inside_a_loop(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """AS-06: in a notebook, where a loop is running, the sync functions work."""

    async def notebook() -> etc.Dataset:
        etc.register(flower, config=config)
        etc.push("flower", config=config)
        return etc.dataset("flower", auto_install=True, config=other)

    assert asyncio.run(notebook()).keys() == {"train", "test"}


def test_progress_ends_with_done(config: etc.Config, other: etc.Config, flower: Path) -> None:
    """Progress never goes back, and is complete only once the dataset is there."""
    etc.register(flower, config=config)
    moments: list[etc.Progress] = []
    etc.push("flower", config=config, progress=moments.append)
    etc.pull("flower", config=other, progress=moments.append)
    for operation in ("push", "pull"):
        own = [moment for moment in moments if moment.operation == operation]
        assert [moment.phase for moment in own].count("done") == 1
        assert own[-1].phase == "done"
        assert own[-1].done == own[-1].total
        assert [moment.done for moment in own] == sorted(moment.done for moment in own)


def test_settings_come_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flower: Path
) -> None:
    """Without config= everything is read from ~/.etc.toml."""
    (tmp_path / "bucket").mkdir()
    home = tmp_path / "user"
    monkeypatch.setenv("HOME", str(home))
    (home / ".etc.toml").write_text(f'url = "file://{tmp_path}/bucket"\n')
    etc.register(flower, "MNIST")
    etc.push("MNIST")
    assert etc.ls() == etc.ls(remote=True) == ["MNIST"]
    assert (home / ".etc" / "MNIST").is_symlink()


@pytest.mark.parametrize(
    "code",
    [
        "import etcetera; etcetera.dataset.__call__",
        "import etcetera, etcetera.dataset; etcetera.dataset.__call__; etcetera.ls",
        "from etcetera.dataset import Dataset; import etcetera; etcetera.dataset.__call__; "
        "assert etcetera.Dataset is Dataset",
        "import etcetera.api, etcetera; etcetera.dataset.__call__",
        "from etcetera import *; dataset.__call__; adataset.__call__",
    ],
)
def test_dataset_is_a_function_in_any_order(code: str) -> None:
    """The function dataset and the module dataset share a name without getting mixed up."""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light() -> None:
    """Importing the package loads none of what its functions need."""
    code = "import sys, etcetera; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"anyio", "asyncio", "aiobotocore", "typer", "rich", "tomli"}.intersection(modules)


def test_meta_that_is_no_json(config: etc.Config, flower: Path, tmp_path: Path) -> None:
    """A meta.json that cannot be read is refused before anything is sent."""
    etc.register(flower, config=config)
    (flower / "meta.json").write_text("[1, 2]")
    with pytest.raises(InvalidDataset, match=r"meta\.json"):
        etc.push("flower", config=config)
    assert not list((tmp_path / "bucket").iterdir())
