"""What lies here is only run when asked for."""

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this directory."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.long)
