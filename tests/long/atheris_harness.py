"""One target of :mod:`tests.fuzzing` below atheris; its name comes first, then libFuzzer's options.

Run with ``python tests/long/atheris_harness.py tar -max_total_time=60`` to find more.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))
with atheris.instrument_imports(include=["etcetera"]):
    from tests.fuzzing import TARGETS


def main() -> None:
    """Run it."""
    target = TARGETS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as place:
        atheris.Setup(sys.argv, lambda data: target(data, Path(place)))
        atheris.Fuzz()


main()
