"""Many more processes, tasks and moments than the tests of every day have."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_concurrency import contend, interleave

Record = Callable[[str, object], None]


def tell(what: str, found: Counter[str], record: Record) -> None:
    """Record and print figures."""
    for key, number in found.items():
        record(f"{what}: {key}", number)
    figures = ", ".join(f"{number:,} {key}" for key, number in sorted(found.items()))
    print(f"{what}: {figures}")  # noqa: T201


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("locks", ["locks", "no locks"])
async def test_thousand_interleavings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Record, locks: str
) -> None:
    """CR-23, CR-26: a thousand times a pull and a purge meet, each time otherwise."""
    if locks == "no locks":
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
    ends = await interleave(tmp_path, 1000, 4)
    assert ends["there"] + ends["gone"] == 1000
    assert not (locks == "locks" and (ends["without receipt"] or ends["wanted force"]))
    tell(f"pull and purge, {locks}", ends, record_property)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("locks", ["locks", "no locks"])
@pytest.mark.parametrize("kills", [0, 3])
def test_many_processes(tmp_path: Path, record_property: Record, locks: str, kills: int) -> None:
    """CR-20 to CR-22, CR-26, CR-30: eight processes of two tasks, some of them killed."""
    found: Counter[str] = Counter()
    for seed in range(3):
        directory = tmp_path / str(seed)
        directory.mkdir()
        found += contend(directory, 8, 25, locks, 1000 * seed + 7, kills)
    assert bool(found["killed"]) == bool(kills)
    tell(f"processes, {locks}, {kills} of 8 killed", found, record_property)
