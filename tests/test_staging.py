"""etcetera.staging: what belongs to whom, and goes when."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from etcetera import staging
from etcetera.staging import claim, sweep


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """A directory that a process claimed before it was killed."""
    code = """
import os, signal, sys
from pathlib import Path
from etcetera.staging import claim
with claim(Path(sys.argv[1]), "x") as path:
    (path / "tree" / "deep").mkdir(parents=True)
    (path / "tree" / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], check=False, cwd=Path(__file__).parents[1]
    )
    assert process.returncode == -9
    (path,) = tmp_path.glob("x.*")
    return path


def edit_owner(path: Path, **changes: object) -> None:
    """Make a claim look like somebody else's."""
    owner = json.loads((path / "owner.json").read_text())
    (path / "owner.json").write_text(json.dumps(owner | changes))


def test_dead_owner(dead: Path) -> None:
    """CR-28: what a dead process of this machine left is removed."""
    sweep(dead.parent)
    assert not dead.exists()


def test_living_owner(tmp_path: Path) -> None:
    """CR-28: what belongs to a living process stays, also its own."""
    with claim(tmp_path, "x") as path:
        sweep(tmp_path)
        assert path.exists()
        edit_owner(path, pid=os.getppid(), started=staging._started(os.getppid()))
        sweep(tmp_path)
        assert path.exists()
    assert not path.exists()


def test_number_used_again(tmp_path: Path) -> None:
    """CR-28: a living process that got the number of a dead one does not own its things."""
    with claim(tmp_path, "x") as path:
        edit_owner(path, started="another boot 12345")
        sweep(tmp_path)
        assert not path.exists()


def test_other_machine(dead: Path) -> None:
    """CR-28: what belongs to another machine stays, whatever processes run here."""
    edit_owner(dead, host="elsewhere")
    os.utime(dead, (0, 0))
    sweep(dead.parent)
    assert dead.exists()


@pytest.mark.parametrize("owner", [None, "", "{", "[]", "{}", '{"host": 1}'])
def test_no_owner(dead: Path, owner: str | None) -> None:
    """CR-28: without a legible owner it stays while young, as it may be in the making."""
    if owner is None:
        (dead / "owner.json").unlink()
    else:
        (dead / "owner.json").write_text(owner)
    sweep(dead.parent)
    assert dead.exists()
    old = time.time() - 7200
    os.utime(dead, (old, old))
    sweep(dead.parent)
    assert not dead.exists()


def test_without_proc(dead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-28: where the system does not tell when processes began, their numbers must do."""
    monkeypatch.setattr(staging, "_started", lambda pid: None)
    with claim(tmp_path, "y") as mine:
        sweep(tmp_path)
        assert mine.exists()
        assert not dead.exists()


def test_interrupted_removal(dead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one sweep cannot finish, the next one does: the owner goes last."""

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(staging, "remove_tree", fail)
        sweep(dead.parent)
    assert (dead / "owner.json").exists()
    sweep(dead.parent)
    assert not dead.exists()


def test_nothing_to_sweep(tmp_path: Path) -> None:
    """No directory, nothing to do."""
    sweep(tmp_path / "missing")


@pytest.mark.parametrize("linked", ["entry", "directory", "private"])
def test_links_are_not_followed(linked: str, tmp_path: Path) -> None:
    """CR-28: where a link leads, nothing is swept, however old."""
    victim = tmp_path / "victim"
    (victim / "old").mkdir(parents=True)
    (victim / "old" / "file").touch()
    home = tmp_path / "home"
    (home / ".etcetera").mkdir(parents=True)
    if linked == "entry":
        (home / ".etcetera" / "trash").mkdir()
        (home / ".etcetera" / "trash" / "x.0000").symlink_to(victim)
    elif linked == "directory":
        (home / ".etcetera" / "trash").symlink_to(victim)
    else:
        (home / ".etcetera").rmdir()
        (victim / "trash").mkdir()
        (victim / "old").rename(victim / "trash" / "old")
        (home / ".etcetera").symlink_to(victim)
    before = sorted(victim.rglob("*"))
    for path in before:
        os.utime(path, (1, 1))
    os.utime(victim, (1, 1))
    sweep(home / ".etcetera" / "trash")
    if linked == "entry":
        staging.discard(home / ".etcetera" / "trash" / "x.0000")
    assert sorted(victim.rglob("*")) == before
