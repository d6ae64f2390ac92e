"""Results → Markdown."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import stages
from benchmarks.data import GiB, MiB
from benchmarks.goals import goals
from benchmarks.peers import OURS

Cell = Callable[[dict[str, Any], dict[str, Any]], str]
"""One contestant's row and the kind's whole result → what stands in the table."""

TITLES = {
    "push": "Push",
    "pull": "Pull of our own archive",
    "pull_pigz": "Pull of an archive made by `tar | pigz`",
}


def markdown(results: dict[str, Any]) -> str:
    """Everything that was measured, for people."""
    parts = ["# What the benchmark found", *_conditions(results)]
    kinds = results.get("kinds", {})
    for step, title in TITLES.items():
        if any(step in result for result in kinds.values()):
            parts += [f"## {title}", "Wall seconds:", _matrix(kinds, step, _seconds)]
            parts += ["Processor seconds for each GiB of data:", _matrix(kinds, step, _cpu)]
            parts += ["Peak memory of all its processes, MiB:", _matrix(kinds, step, _peak)]
    if any("push" in result for result in kinds.values()):
        parts += ["Size of the archive, MiB:", _matrix(kinds, "push", _archive)]
    parts += _links(results.get("link", {}))
    parts += _memory(results.get("memory", {}))
    parts += _start(results.get("startup", {}))
    parts += _stages(results)
    found = goals(results)
    if found:
        rows = [
            [
                goal.what,
                f"{goal.reached:.3g} {goal.unit}",
                f"{goal.limit:.3g} {goal.unit}",
                "yes" if goal.met else "**no**",
                f"`{goal.peer}`" if goal.peer else "",
            ]
            for goal in found
        ]
        header = ["goal", "reached", "at most", "met", "compared with"]
        parts += ["## Goals", _table(header, rows)]
    return "\n\n".join(parts) + "\n"


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield (
        f"{machine['processors']} processors ({machine['processor']}), "
        f"{machine['memory_bytes'] / GiB:.0f} GiB of memory, {machine['system']}, "
        f"Python {machine['python']}, {machine['when']}. "
        f"Load before the first run: {machine['load_before']:.2f}."
    )
    options = results["options"]
    yield (
        f"Each contestant in turn, at most {options['repeats']} runs, medians; one that is "
        "hopelessly slow runs once. Data from a seed; endpoint and contestants share the "
        "processors."
    )
    earlier = results.get("earlier", {})
    for when in sorted(set(earlier.values())):
        names = ", ".join(name for name in earlier if earlier[name] == when)
        yield f"Not measured in this run, but in an earlier one ({when}): {names}."
    if options["quick"]:
        yield (
            "A quick run: with so little data, starting the interpreter is most of what is "
            "measured. The goals are for 1 GiB."
        )
    versions = machine["tools"] | machine["packages"]
    yield "; ".join(f"{name}: {version}" for name, version in versions.items())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                     for line in lines)  # fmt: skip


def _matrix(kinds: dict[str, Any], step: str, cell: Cell) -> str:
    names: list[str] = []
    for result in kinds.values():
        names += [name for name in result.get(step, {}) if name not in names]
    rows = []
    for name in names:
        row = [f"**{name}**" if name == OURS else f"`{name}`"]
        for result in kinds.values():
            one = result.get(step, {}).get(name, {})
            row.append(cell(one, result) if "median" in one else "failed" if one else "")
        rows.append(row)
    header = [
        f"{kind} ({result['bytes'] / MiB:.0f} MiB, {result['files']} files)"
        for kind, result in kinds.items()
    ]
    return _table(["", *header], rows)


def _seconds(row: dict[str, Any], _: dict[str, Any]) -> str:
    runs = len(row["runs"])
    return f"{row['median']['seconds']:.2f}" + (" (one run)" if runs == 1 else "")


def _cpu(row: dict[str, Any], result: dict[str, Any]) -> str:
    median = row["median"]
    share = GiB / result["bytes"]
    own, served = median["cpu_seconds"] * share, median["server_cpu_seconds"] * share
    return f"{own:.2f} (endpoint {served:.2f})"


def _peak(row: dict[str, Any], _: dict[str, Any]) -> str:
    return f"{row['median']['peak_tree'] / MiB:.0f}"


def _archive(row: dict[str, Any], _: dict[str, Any]) -> str:
    size = row.get("archive_bytes")
    return "" if size is None else f"{size / MiB:.0f}"


def _links(links: dict[str, Any]) -> Iterator[str]:
    if not links:
        return
    yield "## Push over a slow link"
    if "failure" in links:
        yield f"Not measured: {links['failure']}."
        return
    rows = []
    for rate, kinds in links.items():
        for kind, row in kinds.items():
            best = row["best"]
            ours = f"{row['median']['seconds']:.2f}" if "median" in row else "failed"
            ratio = f"{row['ratio']:.3f}" if "ratio" in row else ""
            choice = f"{best['seconds']:.2f} ({best['level']})"
            stored = f"{best['levels']['stored']['seconds']:.2f}"
            rows.append([rate, kind, f"{row['bytes'] / MiB:.0f}", ours, choice, ratio, stored])
    header = ["link", "data", "MiB", "our seconds", "best possible", "ratio", "stored"]
    yield _table(header, rows)


def _memory(memory: dict[str, Any]) -> Iterator[str]:
    if not memory:
        return
    yield "## Memory against size"
    rows = []
    for row in memory.get("sizes", []):
        cells = [f"{row['bytes'] / GiB:.4g} GiB"]
        cells += [_step(row.get(step, {})) for step in ("push", "pull")]
        rows.append(cells)
    if "million" in memory:
        million = memory["million"]
        rows.append(["a million files", *(_step(million[step]) for step in ("push", "pull"))])
    yield _table(["dataset", "push", "pull"], rows)


def _step(row: dict[str, Any]) -> str:
    if "peak_tree" not in row:
        return str(row.get("failure", "")).splitlines()[0] if row else ""
    return f"{row['peak_tree'] / MiB:.0f} MiB, {row['seconds']:.1f} s"


def _start(startup: dict[str, Any]) -> Iterator[str]:
    if startup:
        yield "## Start"
        rows = [[f"`{name}`", f"{row['median']['seconds'] * 1000:.0f} ms"]
                for name, row in startup.items()]  # fmt: skip
        yield _table(["command", "median"], rows)


def _stages(results: dict[str, Any]) -> Iterator[str]:
    if not results.get("stages"):
        return
    yield "## Each stage alone"
    yield (
        "MB/s (2^20 bytes), and µs a file, on one processor and on all; bytes before compression, "
        "but for what is cut, sent and fetched."
    )
    kinds = results["stages"]
    rows = []
    for name in stages.STAGES:
        row = [name]
        for result in kinds.values():
            pair = [result["stages"][name][which] for which in ("one", "all")]
            row.append(" / ".join(f"{one['bytes'] / MiB / one['seconds']:.0f}" for one in pair))
            each = [f"{one['seconds'] / one['files'] * 1e6:.1f}" for one in pair if one["files"]]
            row[-1] += f" ({' / '.join(each)} µs)" if each else ""
        rows.append(row)
    yield _table(["", *kinds], rows)
    rows = list(_limits(results))
    if rows:
        yield (
            "The distance to the limit. The first limit is the longest of the stages, each on all "
            "processors; the second what all of them together need of the processors."
        )
        header = [
            "",
            "our seconds",
            "longest stage",
            "times that",
            "all processors busy",
            "times that",
        ]
        yield _table(header, rows)


def _limits(results: dict[str, Any]) -> Iterator[list[str]]:
    for kind, rates in results["stages"].items():
        whole = results.get("kinds", {}).get(kind, {})
        archive = whole.get("push", {}).get(OURS, {}).get("archive_bytes") or whole.get("bytes", 0)
        for step, chain in (("push", stages.PUSH), ("pull", stages.PULL)):
            row = whole.get(step, {}).get(OURS, {})
            if "median" in row:
                limit = stages.limit(rates, chain, whole["bytes"], archive)
                ours = row["median"]["seconds"]
                yield [
                    f"{step}, {kind}",
                    f"{ours:.2f}",
                    f"{limit.seconds:.2f} ({limit.longest})",
                    f"{ours / limit.seconds:.2f}",
                    f"{limit.busy_seconds:.2f}",
                    f"{ours / limit.busy_seconds:.2f}",
                ]
