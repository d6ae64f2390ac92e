"""Any commands in any order, killed or not, beside a model: a short run; see tests/long."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import MemoryMachine
from tests.model.things import forget_sources


@pytest.fixture(autouse=True)
def sources() -> Iterator[None]:
    """Delete the directories that were registered."""
    yield
    forget_sources()


def test_model() -> None:
    """SY-01, CR-23: two homes and one repository always hold what a model of them says."""
    run_state_machine_as_test(
        MemoryMachine,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
