"""A line of the terminal that is written anew while a transfer runs."""

from collections import deque
from math import ceil
from time import monotonic
from typing import Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from etcetera.cli import interruption
from etcetera.cli.output import clean, human_size
from etcetera.cli.progress import describe, measure
from etcetera.progress import Progress

_NAME_LENGTH = 20
_SHORTEST, _LONGEST = 8, 40
"""Columns of a bar."""
_ECHO = 4
"""Columns left free for the ``^C`` that a terminal shows: a line must not become two."""
_SECONDS = 10.0
"""Over which the rate is taken."""


class Bar:
    """Draws what a transfer tells; a context manager.

    It stays when everything is done; otherwise it goes, and makes room for what has happened.
    """

    def __init__(self, name: str) -> None:
        """Say *name* beside the bar."""
        # The user knows it; what changes needs the room.
        self._name = clean(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…")
        self._event: Progress | None = None
        self._samples: deque[tuple[float, int]] = deque()
        self._live = Live(
            console=Console(stderr=True, highlight=False),
            get_renderable=lambda: self,
            refresh_per_second=10,
            transient=True,
            redirect_stdout=False,  # results may go elsewhere
        )

    def draw(self, event: Progress) -> None:
        """Show one moment of the transfer."""
        if event.phase == "transfer":  # scanning took time, and moved no bytes
            now = monotonic()
            if not event.transferred:  # what an earlier push has sent tells nothing of the rate
                self._samples.clear()
            self._samples.append((now, measure(event)[0]))
            while self._samples[0][0] < now - _SECONDS:
                self._samples.popleft()
        self._event = event

    def __enter__(self) -> Self:
        interruption.current.clear = self._live.stop
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._live.transient = self._event is None or self._event.phase != "done"
        self._live.stop()
        interruption.current.clear = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as much as there is room for."""
        words, bar, figures = self.fit(options.max_width - _ECHO)
        yield Text(words, end="", no_wrap=True)
        if bar:
            done, total = measure(self._event) if self._event else (0, None)
            yield Text(" ", end="")
            yield ProgressBar(total, done, width=bar, pulse=total is None)
        yield Text(f" {figures}" if figures else "", end="", no_wrap=True)

    def fit(self, width: int) -> tuple[str, int, str]:
        """Return words, the length of a bar and figures that need no more than *width* columns."""
        words = f"{describe(self._event)} {self._name}" if self._event else self._name
        figures = self._figures()
        text = ""
        for left_out in ("", "rate", "amount", "left"):
            figures.pop(left_out, None)
            text = "  ".join(figures.values())
            room = width - cell_len(words) - cell_len(text) - 2
            if room >= _SHORTEST:
                return words, min(room, _LONGEST), text
        shown = Text(words)
        shown.truncate(max(width - cell_len(text) - 1, 1), overflow="ellipsis")
        return shown.plain, 0, text

    def _figures(self) -> dict[str, str]:
        """Return what is known of the amounts, in the order in which it is shown."""
        if self._event is None:
            return {}
        done, total = measure(self._event)
        figures = {}
        if total:
            figures["percent"] = f"{int(100 * done / total):3d} %"
        # At the end the summary says all of them, and of the files instead of the archive.
        if self._event.phase != "transfer" or not done:
            return figures
        figures["amount"] = human_size(done) + (f" of {human_size(total)}" if total else "")
        seconds = self._samples[-1][0] - self._samples[0][0]
        rate = (self._samples[-1][1] - self._samples[0][1]) / seconds if seconds else 0
        if rate > 0:
            figures["rate"] = f"{human_size(rate)}/s"
            if total:
                figures["left"] = _clock((total - done) / rate)
        return figures


def _clock(seconds: float) -> str:
    minutes, rest = divmod(ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
