"""A kill before every change of the file system; needs the right to trace own children."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.long.runner import kills, points, sweep
from tests.long.scenarios import SCENARIOS, Scenario, Versions


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_kill_anywhere(
    scenario: Scenario,
    versions: Versions,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """CR-03, CR-12, FR-01: after a kill -9 anywhere all is whole, and the same command works."""
    figures = sweep(scenario, kills(points(scenario, versions, tmp_path)), versions, tmp_path)
    record_property("kills", str(figures))
    print(figures)  # noqa: T201
    assert not figures.failures, "\n".join(figures.failures)
    assert figures.reached >= min(0.95 * figures.injected, figures.injected - 1)
