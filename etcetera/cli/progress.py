"""What is said while a transfer runs, and whether anybody would see it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etcetera.cli.options import Options
from etcetera.cli.output import can_animate

if TYPE_CHECKING:
    from etcetera.progress import Progress, ProgressCallback

_ALMOST = 0.99
"""What is shown at most before everything is published or installed."""
_WORDS = {
    "push": ("pushing", "published"),
    "pull": ("pulling", "installed"),
    "verify": ("checking", "checked"),
}


def describe(event: "Progress") -> str:
    """Say what a transfer is doing."""
    doing, done = _WORDS[event.operation]
    if event.phase == "done":
        return done
    return {"scan": "scanning", "install": "installing", "publish": "publishing"}.get(
        event.phase, doing
    )


def measure(event: "Progress") -> tuple[int, int | None]:
    """Return the bytes that are done and how many there will be, never all of them too early."""
    if event.total is None:  # only the archive's bytes can be counted
        return event.transferred, None
    if event.phase == "done":
        return event.total, event.total
    return min(event.done, int(event.total * _ALMOST)), event.total


@contextmanager
def shown(options: Options, name: str) -> Iterator["ProgressCallback | None"]:
    """Yield what draws a bar, ``None`` if nobody would see it."""
    if options.quiet or options.json or not can_animate():
        yield None
        return
    from etcetera.cli.bar import Bar

    with Bar(name) as bar:
        yield bar.draw
