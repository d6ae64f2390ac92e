"""A line of the terminal that is written anew while a transfer runs."""

from typing import Any, Self

from rich import progress
from rich.console import Console
from rich.table import Column
from rich.text import Text

from etcetera.cli.output import clean, human_size
from etcetera.cli.progress import describe, measure
from etcetera.progress import Progress

_NAME_LENGTH = 20


class Bar:
    """Draws what a transfer tells; a context manager."""

    def __init__(self, name: str) -> None:
        """Say *name* beside the bar."""
        # The user knows it; what changes needs the room.
        self._name = clean(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…")
        self._moving = False
        self._bar = progress.Progress(
            progress.TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True)
            ),
            progress.BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
            _Amount(table_column=Column(no_wrap=True)),
            progress.TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=Console(stderr=True, highlight=False),
            expand=True,
        )
        self._task = self._bar.add_task(self._name, total=None)

    def draw(self, event: Progress) -> None:
        """Show one moment of the transfer."""
        if not self._moving and event.phase == "transfer":
            self._bar.reset(self._task)  # scanning took time, and moved no bytes
            self._moving = True
        done, total = measure(event)
        description = f"{describe(event)} {self._name}"
        self._bar.update(self._task, description=description, completed=done, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()


class _Amount(progress.ProgressColumn):
    """Percentage, bytes and rate."""

    def render(self, task: Any) -> Text:
        """Return what is known of them."""
        percent, total = "", ""
        if task.total:
            percent = f"{int(100 * task.completed / task.total):3d} %  "
            total = f" of {human_size(task.total)}"
        rate = f"  {human_size(task.speed)}/s" if task.speed else ""
        return Text(f"{percent}{human_size(task.completed)}{total}{rate}")
