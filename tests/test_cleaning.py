"""``etc clean``: what interrupted transfers left."""

import hashlib
import inspect
import os
import re
import time
from pathlib import Path

import pytest

import etcetera as etc
from etcetera import cleaning, journals
from etcetera.cli import main
from etcetera.errors import NetworkError, UsageError
from etcetera.home import Home
from etcetera.staging import RESUME_DAYS
from etcetera.stores.memory import MemoryStore, memory_store
from etcetera.transfer.journal import Journal
from etcetera.transfer.scan import Scan, scan
from tests.datasets import make_large_dataset

MiB = 1 << 20


class Site:
    """A home with a dataset whose push broke off."""

    def __init__(self, directory: Path) -> None:
        self.config = etc.Config(
            f"memory://{directory.name}", directory / "home", part_size="5MiB", workers=2, level=0
        )
        self.store: MemoryStore = memory_store(f"memory://{directory.name}")
        self.source = make_large_dataset(directory / "source", 22 * MiB)
        etc.register(self.source, "big", config=self.config)
        self.store.latency = 0.01
        self.store.faults["put_part", 4] = NetworkError("the line is dead")
        with pytest.raises(NetworkError):
            etc.push("big", config=self.config)
        assert len(self.store.uploads) == 1

    def clean(self, *, force: bool = False, dry_run: bool = False) -> list[tuple[str, str, bool]]:
        """What is found: kind, name and whether it is removed."""
        found = etc.clean(config=self.config, force=force, dry_run=dry_run)
        return [(one.kind, one.name, one.removed) for one in found]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A push that broke off after its first checkpoint."""

    def often(directory: Path, about: dict[str, str | int]) -> Journal:
        return Journal(directory, about, 5 * MiB)

    monkeypatch.setattr(journals, "Journal", often)
    return Site(tmp_path)


def test_twins_have_one_signature() -> None:
    """The function and its async twin take the same arguments and give the same result."""
    assert inspect.signature(etc.clean) == inspect.signature(etc.aclean)


def test_what_goes_on_is_left(site: Site) -> None:
    """What the same push can go on with is named, and stays."""
    assert site.clean() == [("journal", "big", False)]
    assert etc.push("big", config=site.config).resumed > 0
    assert site.clean() == []


def test_force(site: Site) -> None:
    """On request it goes, with its upload; a dry run removes nothing."""
    assert site.clean(force=True, dry_run=True) == [("journal", "big", True)]
    assert len(site.store.uploads) == 1
    assert site.clean(force=True) == [("journal", "big", True)]
    assert not site.store.uploads
    assert site.clean(force=True) == []


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_useless(site: Site, change: str) -> None:
    """A journal of a dataset that has changed, or is gone, is removed with its upload."""
    if change == "gone":
        etc.purge("big", site.config, force=True)
    else:
        (site.source / "data" / "train" / "new").touch()
    assert site.clean() == [("journal", "big", True)]
    assert not site.store.uploads


def test_in_use(site: Site) -> None:
    """What a living process has is not even looked at."""
    found = next(iter((site.config.home / ".etcetera" / "journals").iterdir()))
    held = Journal(found, {})
    assert held.lock()
    assert site.clean(force=True) == []
    held.close()
    assert len(site.clean(force=True)) == 1


def test_remote(site: Site) -> None:
    """UP-11, UP-12: remotely only what is idle goes, never what a process of this home sends."""
    upload = next(iter(site.store.uploads.values()))
    assert etc.clean(True, site.config) == []
    upload.modified = upload.modified.replace(year=2020)
    held = Journal(next(iter((site.config.home / ".etcetera" / "journals").iterdir())), {})
    assert held.lock()
    assert etc.clean(True, site.config) == []
    held.close()
    assert [one.kind for one in etc.clean(True, site.config, dry_run=True)] == ["upload"]
    assert len(site.store.uploads) == 1
    assert [one.kind for one in etc.clean(True, site.config)] == ["upload"]
    assert not site.store.uploads
    with pytest.raises(UsageError, match=r"^older_than must be from 1 to 36500 days, not 0\.5"):
        etc.clean(True, site.config, older_than=0.5)
    with pytest.raises(UsageError, match=r"^force is for what is at home"):
        etc.clean(True, site.config, force=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--older-than", "0.5"), "--older-than must be from 1 to 36500 days, not 0.5"),
        (("--older-than", "nan"), "--older-than must be from 1 to 36500 days, not nan"),
        (("-r", "--force"), "--force is for what is at home; in a repository --older-than decides"),
        (("--repository", "lab", "-f"), "--force is for what is at home; "),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the command line options are called as they are there."""
    assert main(["clean", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_staging(site: Site) -> None:
    """What a killed process staged is removed; what was replaced and is nowhere else stays."""
    private = site.config.home / ".etcetera"
    dead = private / "staging" / "other.1234"
    dead.mkdir(parents=True)
    (dead / "file").write_bytes(bytes(100))
    os.utime(dead, (1, 1))
    kept = private / "kept" / "old.20260101"
    kept.mkdir(parents=True)
    assert site.clean() == [
        ("staging", "other", True), ("kept", "old", False), ("journal", "big", False),
    ]  # fmt: skip
    assert not dead.exists()
    assert kept.exists()


@pytest.mark.parametrize("why", ["force", "age"])
def test_staging_to_go_on_from(why: str, tmp_path: Path) -> None:
    """What a pull left for the next one goes on request, or when it is old."""
    config = etc.Config(f"memory://{tmp_path.name}", tmp_path / "home")
    with Home(config.home).stage_pull("big") as resumable:
        (resumable.tree / "file").write_bytes(bytes(100))
        resumable.keep()
        staged = resumable.tree.parent

    def clean(*, force: bool = False) -> list[tuple[str, str, bool]]:
        found = etc.clean(config=config, force=force)
        return [(one.kind, one.name, one.removed) for one in found]

    assert clean() == [("staging", "big", False)]
    assert staged.exists()
    if why == "age":
        old = time.time() - (RESUME_DAYS + 1) * 86400
        os.utime(staged / "resume.json", (old, old))
    assert clean(force=why == "force") == [("staging", "big", True)]
    assert not staged.exists()


@pytest.mark.parametrize("linked", ["journals", "one"])
def test_linked_journals(site: Site, tmp_path: Path, linked: str) -> None:
    """Where a link leads there are no journals of ours."""
    directory = site.config.home / ".etcetera" / "journals"
    one = next(directory.iterdir())
    moved = directory if linked == "journals" else one
    moved.rename(tmp_path / "elsewhere")
    moved.symlink_to(tmp_path / "elsewhere")
    assert site.clean(force=True) == []
    assert list((tmp_path / "elsewhere").rglob("checkpoint"))
    if linked == "one":
        etc.push("big", config=site.config)  # without one
        assert list((tmp_path / "elsewhere").rglob("checkpoint"))


@pytest.mark.parametrize("what", ["pipe", "length", "time"])
def test_planted_journals(site: Site, what: str) -> None:
    """Whatever stands in a journal, it ends nothing, and takes no room."""
    journal = Journal(next((site.config.home / ".etcetera" / "journals").iterdir()), {})
    checkpoint = journal.directory / "checkpoint"
    if what == "pipe":
        checkpoint.unlink()
        os.mkfifo(checkpoint)
    else:
        content = checkpoint.read_bytes()[:-32]
        old, new = {
            "length": (rb'"frames_length": \d+', b'"frames_length": 4611686018427387904'),
            "time": (rb'"written": "[^"]+"', b'"written": "9999-12-31T23:59:59-23:59"'),
        }[what]
        content = re.sub(old, new, content, count=1)
        checkpoint.write_bytes(content + hashlib.sha256(content).digest())
    (found,) = etc.clean(config=site.config)
    assert (found.kind, found.removed, found.reason) == ("journal", True, "it is damaged")
    assert etc.clean(config=site.config) == []


def test_a_push_comes_meanwhile(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a journal is looked at, a push can have it; then it is left alone."""
    found = next(iter((site.config.home / ".etcetera" / "journals").iterdir()))
    held = Journal(found, {})

    def slow(root: Path) -> Scan:
        assert held.lock()
        return scan(root)

    monkeypatch.setattr(cleaning, "scan", slow)
    (site.source / "data" / "train" / "new").touch()
    assert site.clean() == []
    held.close()
    assert found.exists()


def test_leftover_of_no_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leftover whose time no calendar has is told of like any other."""
    status = tmp_path.lstat()
    far = os.stat_result((*status[:8], 10**15, status[9]))
    monkeypatch.setattr(Path, "lstat", lambda _: far)
    found = cleaning._leftover("trash", tmp_path, "", removed=True)
    assert found.modified.astimezone().year == 9999
