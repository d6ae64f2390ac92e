"""Runs one scenario with many faults, on all processors, and says what it came to."""

import os
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from tests.long.scenarios import Scenario, Site, Versions
from tests.long.sweep import ERRORS, KILL, Point

EVERYTHING = "ETC_SWEEP_ALL"
"""Set this in the environment for every error at every point; it takes hours."""
_SAMPLE = 150

Fault = tuple[Point, str]


@dataclass
class Figures:
    """What a sweep came to."""

    scenario: str
    injected: int = 0
    reached: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.scenario}: {self.injected} faults, {self.reached} reached, "
            f"{len(self.failures)} failures"
        )


def points(scenario: Scenario, versions: Versions, directory: Path) -> list[Point]:
    """Run *scenario* without a fault, and return its points."""
    site = Site(versions, directory / "site")
    scenario.prepare(site)
    assert (site.local(), site.remote()) == (scenario.local[0], scenario.remote[0])
    found = site.command(scenario).points(directory / "log")
    assert (site.local(), site.remote()) == (scenario.local[1], scenario.remote[1])
    assert not site.leftovers()
    return found


def kills(found: Iterable[Point]) -> list[Fault]:
    """A kill before every call that changes something."""
    return _sampled([(point, KILL) for point in found if point.changes])


def errors(
    found: Iterable[Point], everything: bool = bool(os.environ.get(EVERYTHING))
) -> list[Fault]:
    """An error of each call, one after the other of all there are; or all of each."""
    faults = []
    for number, point in enumerate(found):
        possible = ERRORS[:2] if point.call == "close" else ERRORS
        chosen = possible if everything else [possible[number % len(possible)]]
        faults += [(point, error) for error in chosen]
    return faults if everything else _sampled(faults)


def sweep(
    scenario: Scenario, faults: Sequence[Fault], versions: Versions, directory: Path
) -> Figures:
    """Break *scenario* off with each of *faults*, look, and run it again."""
    figures = Figures(scenario.name)
    workers = os.cpu_count() or 1
    free: SimpleQueue[Path] = SimpleQueue()
    for number in range(workers):
        free.put(directory / str(number))

    def inject(fault: Fault) -> tuple[bool, str]:
        place = free.get()
        try:
            return _inject(scenario, fault, Site(versions, place / "site"), place / "log")
        finally:
            free.put(place)

    with ThreadPoolExecutor(workers) as pool:
        for (point, error), (hit, failure) in zip(faults, pool.map(inject, faults), strict=True):
            figures.injected += 1
            figures.reached += hit
            if failure:
                figures.failures.append(f"{error} at {point}: {failure}")
    return figures


def _inject(scenario: Scenario, fault: Fault, site: Site, log: Path) -> tuple[bool, str]:
    scenario.prepare(site)
    ending = site.command(scenario).fail(log, *fault)
    try:
        scenario.check(site, ending)
    except Exception as error:  # noqa: BLE001 - one of many, told with the others
        return ending.hit, f"{type(error).__name__}: {error}"
    return ending.hit, ""


def _sampled(faults: list[Fault]) -> list[Fault]:
    if os.environ.get(EVERYTHING) or len(faults) <= _SAMPLE:
        return faults
    chosen = random.Random(0).sample(range(len(faults)), _SAMPLE)
    return [faults[number] for number in sorted(chosen)]
