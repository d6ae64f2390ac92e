"""Measure etcetera beside its peers: everything, or what ``--only`` names.

Writes JSON, a Markdown table and plots into a directory; says on standard error what it does.
Only this machine is ever addressed.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import data, endpoint, link, machine, memory, peers, plots, stages, startup, tables
from benchmarks.goals import goals
from benchmarks.transfers import compare, say

SECTIONS = ("startup", "push", "pull", "link", "stages", "memory")
"""In the order they are measured."""
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure; return an exit status."""
    options = _arguments()
    problems = [f"{name} is missing" for name in peers.missing()]
    problems += [problem for problem in [endpoint.available()] if problem]
    if problems:
        say("; ".join(problems) + ": make bench installs what it needs")
        return 1
    # A request to end is an error like any other: what runs and what was made goes first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    options.results.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "options": {
            "quick": options.quick,
            "repeats": options.repeats,
            "bytes": options.size.bytes,
            "small_files": options.size.small_files,
            "seed": data.SEED,
        },
    }
    sections = _sections(options)
    for name in ("startup", "kinds", "link", "stages", "memory"):
        if name not in sections:
            _take_earlier(options.results / f"{name}.json", results, name)
    for name, measured in sections.items():
        say(f"{name}, after {time.monotonic() - started:.0f} s")
        results[name] = measured()
        _write(options.results, results, name)
        # Each time, so that nothing is lost when a later section fails.
        (options.results / "table.md").write_text(tables.markdown(results))
    plots.draw(results, options.results)
    for goal in goals(results):
        say(f"{'met   ' if goal.met else 'MISSED'} {goal.what}: {goal.reached:.3g} {goal.unit} "
            f"(at most {goal.limit:.3g})")  # fmt: skip
    say(f"{options.results / 'table.md'}, after {time.monotonic() - started:.0f} s")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, few runs")
    parser.add_argument("--million", action="store_true", help="also a million small files")
    parser.add_argument("--only", default=",".join(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument("--kinds", default=",".join(data.KINDS), help=",".join(data.KINDS))
    parser.add_argument("--megabytes", type=int, help="of each kind but the small files")
    parser.add_argument("--files", type=int, help="small ones")
    parser.add_argument("--repeats", type=int, help="runs of each contestant")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they are written")
    options = parser.parse_args()
    options.only, options.kinds = options.only.split(","), options.kinds.split(",")
    for given, known in ((options.only, SECTIONS), (options.kinds, data.KINDS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"{', '.join(unknown)}: not one of {', '.join(known)}")
    options.repeats = options.repeats or (1 if options.quick else 5)
    size = data.QUICK if options.quick else data.FULL
    options.size = data.Size(
        (options.megabytes or size.bytes // data.MiB) * data.MiB, options.files or size.small_files
    )
    return options


def _sections(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    size: data.Size = options.size
    wanted = [name for name in SECTIONS if name in options.only]
    steps = [name for name in wanted if name in ("push", "pull")]
    sections: dict[str, Callable[[], Any]] = {}
    if "startup" in wanted:
        sections["startup"] = lambda: startup.run(3 if options.quick else 15)
    if steps:
        sections["kinds"] = lambda: {
            kind: compare(kind, size, options.repeats, steps) for kind in options.kinds
        }
    if "link" in wanted:
        sections["link"] = lambda: _link(size, 1 if options.quick else 3)
    if "stages" in wanted:
        part = data.Size(min(size.bytes, 256 * data.MiB) // (4 if options.quick else 1),
                         min(size.small_files, 25_000) // (4 if options.quick else 1))  # fmt: skip
        kinds = options.kinds[:1] if options.quick else options.kinds
        sections["stages"] = lambda: {kind: stages.run(kind, part) for kind in kinds}
    if "memory" in wanted:
        sections["memory"] = lambda: _memory(quick=options.quick, million=options.million)
    return sections


def _link(size: data.Size, repeats: int) -> dict[str, Any]:
    problem = link.unavailable()
    if problem is not None:
        say(f"  not measured: {problem}")
        return {"failure": problem}
    return link.run(size, repeats)


def _memory(*, quick: bool, million: bool) -> dict[str, Any]:
    sizes = memory.QUICK_SIZES if quick else memory.FULL_SIZES
    result: dict[str, Any] = {"sizes": memory.run(sizes)}
    if million:
        result["million"] = memory.million()
    return result


def _take_earlier(path: Path, results: dict[str, Any], name: str) -> None:
    """Put a section of an earlier run into the tables, if it measured the same."""
    try:
        earlier = json.loads(path.read_text())
    except FileNotFoundError:
        return
    if earlier["options"] == results["options"]:
        results[name] = earlier[name]
        results.setdefault("earlier", {})[name] = earlier["machine"]["when"]


def _write(directory: Path, results: dict[str, Any], name: str) -> None:
    """One section, with what it was measured on."""
    held = {key: results[key] for key in ("machine", "options", name)}
    (directory / f"{name}.json").write_text(json.dumps(held, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
