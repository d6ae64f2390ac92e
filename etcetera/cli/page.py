"""Markdown, as a terminal shows it."""

from rich.console import Console
from rich.markdown import Markdown

from etcetera.cli.output import clean


def show_markdown(text: str) -> None:
    """Print a page of Markdown that a stranger wrote."""
    lines = [clean(line) for line in text.splitlines()]
    # Links are written out: one that shows another address than it has would be followed.
    Console().print(Markdown("\n".join(lines), hyperlinks=False))
