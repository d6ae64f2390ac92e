"""Every field of a header set to what readers may disagree about."""

from collections.abc import Callable
from pathlib import Path

from tests.transfer.test_differential import LISTED, differing, sweep


def test_sweep(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """TF-29, TF-33: each disagreement is refused by us, or listed with its reason."""
    accepted, listed = 0, 0
    archives = sweep()
    for number, (name, pieces) in enumerate(archives.items()):
        place = tmp_path / str(number)
        place.mkdir()
        others = differing(pieces, place)
        if others is not None:
            accepted += 1
            listed += bool(others)
            assert others == set(LISTED.get(name, {})), name
    figures = {"archives": len(archives), "accepted": accepted, "listed": listed}
    for key, value in figures.items():
        record_property(key, value)
    print(figures)  # noqa: T201
