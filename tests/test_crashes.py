"""A few of the crashes and errors that make test-long tries everywhere."""

from pathlib import Path

import pytest

from tests.long.runner import errors, kills, points, sweep
from tests.long.scenarios import SCENARIOS, Versions
from tests.long.sweep import Command


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Two versions to go from and to."""
    return Versions(tmp_path_factory.mktemp("versions"))


@pytest.mark.parametrize(("name", "count"), [("pull", 5), ("push", 3), ("purge", 3)])
def test_broken_off(name: str, count: int, versions: Versions, tmp_path: Path) -> None:
    """CR-03, CR-04, CR-12, FR-01: killed or refused, all is whole, and the next command works."""
    scenario = next(one for one in SCENARIOS if one.name == name)
    found = points(scenario, versions, tmp_path)
    deadly, refused = kills(found), errors(found)
    faults = deadly[:: len(deadly) // count][-count:] + refused[:: len(refused) // 2][-2:]
    figures = sweep(scenario, faults, versions, tmp_path)
    assert not figures.failures, "\n".join(figures.failures)
    assert figures.reached >= len(faults) - 1


def test_names_without_links(versions: Versions, tmp_path: Path) -> None:
    """FR-06: a repository that knows no hard links gets whole archives all the same."""
    scenario = next(one for one in SCENARIOS if one.name == "push")
    for error in ("EPERM", "EXDEV"):
        (tmp_path / error).mkdir()
        found = [one for one in points(scenario, versions, tmp_path / error) if one.call == "link"]
        figures = sweep(scenario, [(one, error) for one in found], versions, tmp_path / error)
        assert not figures.failures, "\n".join(figures.failures)
        assert figures.reached == 1


def test_the_sweep_sees_what_changes(tmp_path: Path) -> None:
    """What a command changes is found, once for each time."""
    home = tmp_path / "home"
    command = Command(("create", "flower"), tmp_path, {"ETC_HOME": str(home)})
    changes = [one for one in command.points(tmp_path / "log") if one.changes]
    assert [one.call for one in changes if one.path == "{site}/home"] == ["mkdir", "fsync"]
    assert {one.path for one in changes if one.call == "renameat2"} == {
        next(one.path for one in changes if one.path.endswith("/tree"))
    }
