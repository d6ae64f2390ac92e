"""What is to be reached, and what was."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.data import GiB, MiB
from benchmarks.peers import OURS

PUSH_LIMITS = {"text": 0.75, "images": 0.75, "big": 0.75, "small": 1.0}
"""Our seconds over those of the best pipeline."""
PULL_LIMITS = {"text": 0.75, "images": 0.6, "big": 0.75, "small": 1.0}
LINK_LIMIT = 1.05
MEMORY_LIMIT = 256 * MiB
MEMORY_GROWTH = 1.1
"""The largest dataset's peak over that of 1 GiB: flat, but for chance."""
MILLION_MEMORY_LIMIT = 600 * MiB
MILLION_MICROSECONDS = {"push": 30.0, "pull": 45.0}
START_LIMIT = 0.150

_PIPELINES = ("tar | igzip -1 -T 2 | s5cmd pipe", "tar | s5cmd pipe", "tar | pigz -1 | s5cmd pipe")
_PLAIN_COPY = "s5cmd cp"
_UNPACKING = "s5cmd cat | tar xz"


class Goal(NamedTuple):
    """One figure that was promised."""

    what: str
    reached: float
    limit: float
    unit: str = ""
    peer: str = ""
    """With whom we are compared."""

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.reached <= self.limit


def seconds(row: dict[str, Any] | None) -> float | None:
    """The median of one contestant; ``None`` if it has none."""
    if row is None or "median" not in row:
        return None
    return float(row["median"]["seconds"])


def goals(results: dict[str, Any]) -> list[Goal]:
    """Every goal that *results* say something about."""
    return [
        *_push(results.get("kinds", {})),
        *_pull(results.get("kinds", {})),
        *_link(results.get("link", {})),
        *_memory(results.get("memory", {})),
        *_start(results.get("startup", {})),
    ]


def _compared(what: str, rows: dict[str, Any], peers: list[str], limit: float) -> Iterator[Goal]:
    ours = seconds(rows.get(OURS))
    theirs = {name: value for name in peers if (value := seconds(rows.get(name))) is not None}
    if ours is not None and theirs:
        best = min(theirs, key=lambda name: theirs[name])
        yield Goal(what, ours / theirs[best], limit, "x", best)


def _push(kinds: dict[str, Any]) -> Iterator[Goal]:
    for kind, result in kinds.items():
        rows = result.get("push", {})
        yield from _compared(f"push, {kind}", rows, list(_PIPELINES), PUSH_LIMITS[kind])
        yield from _compared(f"push, {kind}, plain copy", rows, [_PLAIN_COPY], 1.0)


def _pull(kinds: dict[str, Any]) -> Iterator[Goal]:
    for kind, result in kinds.items():
        ours, pigz = result.get("pull", {}), result.get("pull_pigz", {})
        # Peers may take whichever archive they are faster with.
        best = dict(ours)
        for name, row in pigz.items():
            here, there = seconds(row), seconds(ours.get(name))
            if name != OURS and here is not None and (there is None or here < there):
                best[name] = row
        peers = [name for name in best if name != OURS]
        yield from _compared(f"pull, {kind}", best, peers, PULL_LIMITS[kind])
        yield from _compared(f"pull of tar | pigz, {kind}", pigz, [_UNPACKING], 1.0)


def _link(links: dict[str, Any]) -> Iterator[Goal]:
    for rate, kinds in links.items():
        if isinstance(kinds, dict):
            for kind, row in kinds.items():
                if "ratio" in row:
                    name = f"push over {rate}, {kind}"
                    yield Goal(name, row["ratio"], LINK_LIMIT, "x", row["best"]["level"])


def _memory(memory: dict[str, Any]) -> Iterator[Goal]:
    rows = memory.get("sizes", [])
    for step in ("push", "pull"):
        peaks = {
            row["bytes"]: row[step]["peak_tree"] for row in rows if "peak_tree" in row.get(step, {})
        }
        for size, peak in peaks.items():
            limit = MEMORY_LIMIT / MiB
            yield Goal(f"memory of a {step}, {size / GiB:.4g} GiB", peak / MiB, limit, "MiB")
        if GiB in peaks and max(peaks) > GiB:
            growth = peaks[max(peaks)] / peaks[GiB]
            name = f"memory of a {step}, {max(peaks) / GiB:.4g} GiB over 1 GiB"
            yield Goal(name, growth, MEMORY_GROWTH, "x")
    million = memory.get("million", {})
    for step, limit in MILLION_MICROSECONDS.items():
        row = million.get(step, {})
        if "peak_tree" in row:
            peak = row["peak_tree"] / MiB
            yield Goal(
                f"memory of a {step}, a million files", peak, MILLION_MEMORY_LIMIT / MiB, "MiB"
            )
            each = row["cpu_seconds"] / million["files"] * 1e6
            yield Goal(f"processor time of a {step}, a million files", each, limit, "µs a file")


def _start(startup: dict[str, Any]) -> Iterator[Goal]:
    for name, row in startup.items():
        value = seconds(row)
        if value is not None:
            yield Goal(f"start, {name}", value * 1000, START_LIMIT * 1000, "ms")
