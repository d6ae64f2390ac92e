"""Which paths and links a dataset may hold."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcetera.errors import UnsafeArchive
from etcetera.transfer.paths import (
    link_problem,
    normal_path,
    order_key,
    partition_of,
    path_problem,
    rank,
)
from tests import trees

COMPONENTS = st.lists(
    st.sampled_from(["", ".", "..", "a", "b", "...", "..a", "a..", " ", "\n"]), max_size=6
)


@given(COMPONENTS)
def test_normal_path(components: list[str]) -> None:
    """PL-01, PL-18: a name means what the operating system makes of it, or is refused."""
    name = "/".join(components)
    if not name or name.startswith("/") or ".." in components:
        with pytest.raises(UnsafeArchive):
            normal_path(name, 0)
        return
    normal = os.path.normpath(name)
    assert normal_path(name, 0) == ("" if normal == "." else normal)


@given(COMPONENTS, st.integers(0, 3))
def test_link_stays_inside(components: list[str], depth: int) -> None:
    """PL-04, PL-19: a link that is let through cannot lead outside, whatever lies there."""
    target, path = "/".join(components), "d/" * depth + "link"
    if link_problem(path, target) is None:
        assert not target.startswith("/")
        assert os.path.normpath("d/" * depth + target).split("/")[0] != ".."
        names = [part for part in components if part not in ("", ".")]
        assert ".." not in names[names.count("..") :]


@pytest.mark.parametrize(
    ("path", "target"),
    [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a", "./b/"), ("a", "..."), ("a", ".")],
)
def test_good_links(path: str, target: str) -> None:
    """PL-19: what stays inside is allowed."""
    assert link_problem(path, target) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", ".."), ("a", "../a"), ("a/b", "../../c"), ("a/b/c", "x/../y"), ("a", "/a"), ("a", ""),
        ("a", "b\\c"), ("a", "C:x"), ("a", "b\0"), ("a", "\ud800"), ("a", "n" * 256),
        ("a/b", "./../.././c"), ("a/b", "../c/../../d"),
    ],
)  # fmt: skip
def test_bad_links(path: str, target: str) -> None:
    """PL-04, PK-09: what leaves, or could, is refused with a reason."""
    assert link_problem(path, target)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("a", True), ("n" * 255, True), ("n" * 256, False), ("é" * 127, True), ("é" * 128, False),
        ("/".join(["n" * 255] * 15), True), ("/".join(["n" * 255] * 17), False), ("a\\b", False),
        ("a\0b", False), ("C:", False), ("c:/x", False), ("1:x", True), ("\udc80", False),
        ("a\nb\x1b", True),
    ],
)  # fmt: skip
def test_paths(path: str, good: bool) -> None:
    """PL-03, PL-30: names that cannot be restored everywhere are refused with a reason."""
    assert (path_problem(path) is None) == good


@given(st.lists(st.lists(trees.names, min_size=1, max_size=4).map("/".join), unique=True))
def test_order(paths: list[str]) -> None:
    """Paths are sorted component by component, ``data`` last, and never tie."""

    def key(path: str) -> tuple[int, list[str]]:
        return rank(path.split("/")[0]), path.split("/")

    assert sorted(paths, key=order_key) == sorted(paths, key=key)
    assert len({order_key(path) for path in paths}) == len(paths)


def test_order_of_the_top() -> None:
    """What describes a dataset comes first, its data last."""
    paths = ["data", "data-more", "z", "README.md", "a", "meta.json", "README.md.old", "data/a/b"]
    assert sorted(paths, key=order_key) == [
        "meta.json", "README.md", "README.md.old", "a", "data-more", "z", "data", "data/a/b",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "partition"),
    [("data", ""), ("data/a", "a"), ("data/a/b/c", "a"), ("database/a", ""), ("a/data/b", "")],
)
def test_partition(path: str, partition: str) -> None:
    """A partition is what lies directly in ``data``."""
    assert partition_of(path) == partition
