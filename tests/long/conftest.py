"""What lies here is only run when asked for."""

from pathlib import Path

import pytest

from tests.long.scenarios import Versions

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this directory."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """Two versions to go from and to."""
    return Versions(tmp_path_factory.mktemp("versions"))
