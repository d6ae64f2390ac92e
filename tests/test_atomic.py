"""etcetera.atomic: whole or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from etcetera import atomic


@pytest.fixture(params=["renameat2", "rename"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's flags for renaming, and without."""
    if request.param == "rename":
        monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)


def make(path: Path, text: str) -> Path:
    """Make a directory with a file in it."""
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("kind", ["directory", "empty", "file", "link", "broken"])
def test_rename_new(tmp_path: Path, kind: str) -> None:
    """Whatever has the name already keeps it."""
    source, target = make(tmp_path / "source", "new"), tmp_path / "target"
    occupy: dict[str, Callable[[], object]] = {
        "directory": lambda: make(target, "old"),
        "empty": target.mkdir,
        "file": target.touch,
        "link": lambda: target.symlink_to(source),
        "broken": lambda: target.symlink_to("nowhere"),
    }
    occupy[kind]()
    inode = target.lstat().st_ino
    with pytest.raises(FileExistsError):
        atomic.rename_new(source, target)
    assert target.lstat().st_ino == inode
    atomic.rename_new(source, tmp_path / "free")
    assert (tmp_path / "free" / "file").read_text() == "new"
    assert not source.exists()


@pytest.mark.usefixtures("either")
def test_replace(tmp_path: Path) -> None:
    """The new one is in place, and the old one aside."""
    source, target = make(tmp_path / "source", "new"), make(tmp_path / "target", "old")
    atomic.replace(source, target, tmp_path / "aside")
    assert (target / "file").read_text() == "new"
    assert (tmp_path / "aside" / "file").read_text() == "old"
    assert not source.exists()


@pytest.mark.usefixtures("either")
def test_replace_link(tmp_path: Path) -> None:
    """A link gives way itself, not what it leads to."""
    canary, target = make(tmp_path / "canary", "sing"), tmp_path / "target"
    target.symlink_to(canary)
    atomic.replace(make(tmp_path / "source", "new"), target, tmp_path / "aside")
    assert (target / "file").read_text() == "new"
    assert (tmp_path / "aside").readlink() == canary
    assert (canary / "file").read_text() == "sing"


@pytest.mark.usefixtures("either")
def test_replace_nothing(tmp_path: Path) -> None:
    """Where there is nothing to replace, nothing changes."""
    source = make(tmp_path / "source", "new")
    with pytest.raises(FileNotFoundError):
        atomic.replace(source, tmp_path / "target", tmp_path / "aside")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "user"}


@pytest.mark.parametrize("failing", [1, 2])
def test_replace_rolls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """When the second of two renames fails, the first one is undone."""
    source, target = make(tmp_path / "source", "new"), make(tmp_path / "target", "old")
    rename_new, calls = atomic.rename_new, 0

    def fail(one: Path, other: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 1 + failing:  # the first one takes the source aside, to try an exchange
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename_new(one, other)

    monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
    monkeypatch.setattr(atomic, "rename_new", fail)
    with pytest.raises(OSError, match="Input/output"):
        atomic.replace(source, target, tmp_path / "aside")
    assert (source / "file").read_text() == "new"
    assert (target / "file").read_text() == "old"
    assert not (tmp_path / "aside").exists()


def test_exchange_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When exchanging fails, both are where they were."""
    source, target = make(tmp_path / "source", "new"), make(tmp_path / "target", "old")
    renameat2 = atomic._renameat2

    def fail(one: Path, other: Path, flag: int) -> bool:
        if flag == atomic._RENAME_EXCHANGE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return renameat2(one, other, flag)

    monkeypatch.setattr(atomic, "_renameat2", fail)
    with pytest.raises(OSError, match="Input/output"):
        atomic.replace(source, target, tmp_path / "aside")
    assert (source / "file").read_text() == "new"
    assert (target / "file").read_text() == "old"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_sync_is_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """CR-16: a file system that cannot sync is used all the same."""

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    atomic.sync(tmp_path)


def test_sync_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-06: a delayed write error is an error."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        atomic.sync(tmp_path)


def test_sync_filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole tree is synced at once, with whatever the system has for it."""
    atomic.sync_filesystem(tmp_path)
    called = []
    monkeypatch.setattr(atomic, "_libc", object)
    monkeypatch.setattr(os, "sync", lambda: called.append(True))
    atomic.sync_filesystem(tmp_path)
    assert called
