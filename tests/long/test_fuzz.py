"""The readers on many more changed bytes than every day: seeded, and led by coverage."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzzing import TARGETS, TOKENS, Change, change, seeds

SECONDS = 30
"""For each target, with each fuzzer."""
HARNESS = Path(__file__).with_name("atheris_harness.py")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", TARGETS)
def test_seeded(
    target: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """TF, GZ: each execution can be had again from its number, which is its seed."""
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end:
        chance = random.Random(number)
        changes = [
            Change(
                chance.randrange(1 << 16),
                chance.choice((0, 0, 1, 1, 2, 4, 12, 512)),
                chance.choice((chance.choice(TOKENS), chance.randbytes(chance.randrange(8)))),
            )
            for _ in range(chance.randrange(1, 8))
        ]
        data = change(chance.choice(seeds(target)), changes)
        try:
            TARGETS[target](data, tmp_path)
        except BaseException as error:
            error.add_note(f"seed {number}: {data[:3_000]!r}")
            raise
        number += 1
    record_property("executions", number)
    print(f"{target}: {number:,} executions")  # noqa: T201
    assert number


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", [name for name in TARGETS if name != "lock"])
def test_by_coverage(
    target: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """TF, GZ: atheris, which keeps what reaches new lines, finds no error that is not ours."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(target)):
        (corpus / str(number)).write_bytes(seed)
    command: list[str | Path] = [
        sys.executable,
        HARNESS,
        target,
        f"-max_total_time={SECONDS}",
        "-max_len=20000",
    ]
    done = subprocess.run(
        [*command, "-print_final_stats=1", f"-artifact_prefix={tmp_path}/", corpus],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
    match = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert match
    record_property("executions", int(match[1]))
    print(f"{target}: {int(match[1]):,} executions led by coverage")  # noqa: T201
