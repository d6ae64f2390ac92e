"""What is on the disk when the power fails; needs root, for it mounts images of disks.

The disk is an image that the system writes to late. A process is killed at some point, and the
image copied before anything more is written: that is what a power loss at this moment leaves.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.long.runner import EVERYTHING
from tests.long.scenarios import SCENARIOS, Scenario, Site, Versions
from tests.long.sweep import KILL, Ending, Point

_LAST = 30
"""Points before the end of a command, where names change."""
_SAMPLE = 14


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Two versions to go from and to."""
    return Versions(tmp_path_factory.mktemp("versions"))


@contextmanager
def _mounted(image: Path, place: Path) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    # Nothing is written that nobody waits for.
    _done("mount", "-o", "loop,commit=300", str(image), str(place))
    try:
        yield
    finally:
        _done("umount", str(place))


def _done(*command: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": path})


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "scenario",
    [one for one in SCENARIOS if one.name in ("pull", "pull-force", "push", "push-force", "purge")],
    ids=lambda scenario: scenario.name,
)
def test_power_loss(
    scenario: Scenario,
    versions: Versions,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """CR-12, CR-13, CR-14: after a power loss all is whole, and what was said to be done is."""
    place, fresh, image = tmp_path / "disk", tmp_path / "fresh.img", tmp_path / "disk.img"
    with fresh.open("wb") as file:
        file.truncate(24 << 20)
    _done("mkfs.ext4", "-q", "-F", str(fresh))
    with _mounted(fresh, place):
        site = Site(versions, place)
        scenario.prepare(site)
        _done("sync", "--file-system", str(place))
    shutil.copy(fresh, image)
    with _mounted(image, place):
        found = [one for one in site.command(scenario).points(tmp_path / "log") if one.changes]
    chosen: list[Point | None] = [*found[-_LAST:]]
    if not os.environ.get(EVERYTHING) and len(chosen) > _SAMPLE:
        chosen = random.Random(0).sample(chosen, _SAMPLE)
    reached = 0
    for committed in (False, True):
        for point in (*chosen, None):
            shutil.copy(fresh, image)
            crashed = tmp_path / "crashed.img"
            with _mounted(image, place):
                ending = _break_off(site, scenario, point, tmp_path / "log")
                if committed:
                    _commit(place)
                shutil.copy(image, crashed)
            reached += ending.hit
            with _mounted(crashed, place):
                scenario.check(site, ending)
    figures = f"{scenario.name}: {2 * len(chosen) + 2} losses, {reached} reached"
    record_property("losses", figures)
    print(figures)  # noqa: T201


def test_a_loss_would_be_seen(versions: Versions, tmp_path: Path) -> None:
    """CR-12: a pull that did not wait for the disk leaves files without what was in them."""
    scenario = next(one for one in SCENARIOS if one.name == "pull")
    place, image, crashed = tmp_path / "disk", tmp_path / "disk.img", tmp_path / "crashed.img"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    _done("mkfs.ext4", "-q", "-F", str(image))
    with _mounted(image, place):
        site = Site(versions, place)
        scenario.prepare(site)
        _done("sync", "--file-system", str(place))
        command = replace(site.command(scenario), unsynced=True)
        command.points(tmp_path / "log")
        _commit(place)
        shutil.copy(image, crashed)
    with _mounted(crashed, place):
        assert site.local().startswith("broken")


def _break_off(site: Site, scenario: Scenario, point: Point | None, log: Path) -> Ending:
    command = site.command(scenario)
    return command.run() if point is None else command.fail(log, point, KILL)


def _commit(place: Path) -> None:
    """Have the system write down which names there are, but not what is in the files."""
    with (place / "unrelated").open("wb") as file:
        os.fsync(file.fileno())
