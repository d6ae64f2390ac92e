"""An error of the system at every call that has to do with files; needs the right to trace."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.long.runner import errors, points, sweep
from tests.long.scenarios import SCENARIOS, Scenario, Versions


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_an_error_anywhere(
    scenario: Scenario,
    versions: Versions,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """CR-04, CR-06, CR-09, FR-01: an error anywhere is told in a line, and nothing has changed."""
    figures = sweep(scenario, errors(points(scenario, versions, tmp_path)), versions, tmp_path)
    record_property("errors", str(figures))
    print(figures)  # noqa: T201
    assert not figures.failures, "\n".join(figures.failures)
    assert figures.reached >= min(0.95 * figures.injected, figures.injected - 1)
