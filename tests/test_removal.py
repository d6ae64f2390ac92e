"""etcetera.removal: trees of any shape, links never followed."""

import os
from pathlib import Path

import pytest

from etcetera import removal
from etcetera.removal import remove_tree


def test_nothing(tmp_path: Path) -> None:
    """Nothing there is no error."""
    remove_tree(tmp_path / "missing")


def test_file_and_link(tmp_path: Path) -> None:
    """A file, or a link to a directory, goes by itself."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"user", "kept"}
    assert (tmp_path / "kept" / "file").exists()


def test_links_inside(tmp_path: Path) -> None:
    """Links at any depth, to files, directories, nothing or themselves, are not followed."""
    canary = tmp_path / "canary"
    (canary / "directory").mkdir(parents=True)
    (canary / "file").write_text("sing")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    for directory in (tree, tree / "a", tree / "a" / "b"):
        (directory / "one").symlink_to(canary)
        (directory / "two").symlink_to(canary / "file")
        (directory / "three").symlink_to("three")
        (directory / "four").symlink_to("..")
    remove_tree(tree)
    assert not tree.exists()
    assert (canary / "file").read_text() == "sing"
    assert (canary / "directory").is_dir()


def test_deep(tmp_path: Path) -> None:
    """RG-09: a tree deeper than any path may be long, and than open files are allowed, goes."""
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=descriptor)
        below = os.open("directory", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        os.close(os.open("file", os.O_CREAT, dir_fd=below))
        descriptor = below
    os.close(descriptor)
    remove_tree(tree)
    assert not tree.exists()


def test_wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with more names than are read at once goes whole."""
    monkeypatch.setattr(removal, "_BATCH", 10)
    tree = tmp_path / "tree"
    for i in range(35):
        (tree / "inner" / f"directory{i}" / "below").mkdir(parents=True)
        (tree / "inner" / f"file{i}").touch()
    remove_tree(tree)
    assert not tree.exists()


def test_descriptors(tmp_path: Path) -> None:
    """No directory stays open, neither after success nor after an error."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - to be counted, not read
    for _ in range(3):
        (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
        remove_tree(tmp_path / "tree")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_error_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error says which tree it was, and what in it."""
    (tmp_path / "tree" / "a").mkdir(parents=True)

    def fail(path: str, **_: int) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    monkeypatch.setattr(os, "rmdir", fail)
    with pytest.raises(PermissionError) as caught:
        remove_tree(tmp_path / "tree")
    assert caught.value.filename == str(tmp_path / "tree" / "a")
