"""Results → pictures (SVG)."""

import importlib
from pathlib import Path
from typing import Any

from benchmarks.data import GiB, MiB
from benchmarks.peers import OURS
from benchmarks.tables import TITLES

_OURS, _THEIRS, _LIMIT = "#c2410c", "#94a3b8", "#475569"


def draw(results: dict[str, Any], directory: Path) -> list[Path]:
    """Draw whatever *results* hold; return the files."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "etcetera", "font.size": 9}
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    paths: list[Path] = []
    kinds = results.get("kinds", {})
    for step, title in TITLES.items():
        if any(step in result for result in kinds.values()):
            for column, label in _COLUMNS.items():
                path = directory / f"{step}-{column}.svg"
                _bars(pyplot, kinds, step, column, f"{title.replace('`', '')}: {label}", path)
                paths.append(path)
    rows = results.get("memory", {}).get("sizes", [])
    if rows:
        paths.append(directory / "memory-by-size.svg")
        _lines(pyplot, rows, paths[-1])
    return paths


_COLUMNS = {"seconds": "wall seconds", "cpu": "processor seconds per GiB", "memory": "peak MiB"}


def _value(row: dict[str, Any], result: dict[str, Any], column: str) -> float:
    median = row["median"]
    if column == "cpu":
        return float(median["cpu_seconds"] * GiB / result["bytes"])
    return float(median["seconds"] if column == "seconds" else median["peak_tree"] / MiB)


def _bars(
    pyplot: Any, kinds: dict[str, Any], step: str, column: str, title: str, path: Path
) -> None:
    shown = {kind: result for kind, result in kinds.items() if step in result}
    figure, axes = pyplot.subplots(1, len(shown), figsize=(3.6 * len(shown) + 2, 3.2), sharey=True)
    flat = [axes] if len(shown) == 1 else list(axes)
    for axis, (kind, result) in zip(flat, shown.items(), strict=True):
        names = list(result[step])
        values = [
            _value(result[step][name], result, column) if "median" in result[step][name] else 0.0
            for name in names
        ]
        colours = [_OURS if name == OURS else _THEIRS for name in names]
        # Who takes many times as long as the others is cut short, and says so.
        end = 4 * max(sorted(values)[len(values) // 2], 1e-3)
        bars = axis.barh(names, [min(value, end) for value in values], color=colours)
        labels = [f"{value:.3g}" + (" …" if value > end else "") for value in values]
        axis.bar_label(bars, labels, padding=2)
        axis.set_xlim(0, 1.2 * min(max(*values, 1e-3), end))
        axis.set_title(kind)
        axis.spines[["top", "right"]].set_visible(False)
    flat[0].invert_yaxis()
    figure.suptitle(title)
    _save(pyplot, figure, path)


def _lines(pyplot: Any, rows: list[dict[str, Any]], path: Path) -> None:
    figure, axis = pyplot.subplots(figsize=(6, 3.2))
    for step, colour in (("push", _OURS), ("pull", "#1d4ed8")):
        points = [
            (row["bytes"] / GiB, row[step]["peak_tree"] / MiB)
            for row in rows
            if "peak_tree" in row.get(step, {})
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker="o", color=colour, label=step)
    axis.axhline(256, color=_LIMIT, linestyle="--", label="256 MiB")
    axis.set_xscale("log", base=2)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("GiB of data")
    axis.set_ylabel("peak MiB")
    axis.legend()
    axis.spines[["top", "right"]].set_visible(False)
    _save(pyplot, figure, path)


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
