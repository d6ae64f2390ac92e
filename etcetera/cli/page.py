"""Markdown, as a terminal shows it."""

from rich.console import Console
from rich.markdown import Markdown
from rich.segment import Segment, Segments

from etcetera.cli.output import clean


def show_markdown(text: str) -> None:
    """Print a page of Markdown that a stranger wrote."""
    console = Console()
    # Links are written out: one that shows another address than it has would be followed.
    page = Markdown("\n".join(map(clean, text.splitlines())), hyperlinks=False)
    # Once more, as parsing decodes what addresses and entities stand for.
    shown = [
        Segment("\n".join(map(clean, segment.text.split("\n"))), segment.style)
        for segment in console.render(page)
        if not segment.control
    ]
    console.print(Segments(shown), end="")
