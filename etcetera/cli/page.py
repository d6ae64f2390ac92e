"""Markdown, as a terminal shows it."""

from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from rich.console import Console
from rich.markdown import CodeBlock, Markdown, MarkdownElement
from rich.segment import Segment, Segments

from etcetera.cli.output import clean

if TYPE_CHECKING:
    from markdown_it.token import Token

_MOST_CELLS = 10_000
"""In all tables: the first row of one may give thousands of empty cells to each line below it."""
_MOST_BRACKETS = 2_000
"""Each may begin a link that is searched for up to the end."""


class _Code(CodeBlock):
    """A block of code in one colour: some highlighters take time without end."""

    @classmethod
    def create(cls, markdown: Markdown, token: "Token") -> "_Code":  # noqa: ARG003
        return cls("text", markdown.code_theme)


class _Page(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
    }


def show_markdown(text: str) -> bool:
    """Print a page of Markdown that a stranger wrote.

    Returns:
        Whether it was done: rendering what is very intricate would take minutes.
    """
    lines = [clean(line) for line in text.splitlines()]
    if text.count("[") > _MOST_BRACKETS or _cells(lines) > _MOST_CELLS:
        return False
    console = Console()
    # Links are written out: one that shows another address than it has would be followed.
    page = _Page("\n".join(lines), hyperlinks=False)
    # Once more, as parsing decodes what addresses and entities stand for.
    shown = [
        Segment("\n".join(map(clean, segment.text.split("\n"))), segment.style)
        for segment in console.render(page)
        if not segment.control
    ]
    console.print(Segments(shown), end="")
    return True


def _cells(lines: list[str]) -> int:
    """At least as many cells as the tables have, if each paragraph is one."""
    cells = 0
    for is_text, block in groupby(lines, lambda line: bool(line.strip(" "))):
        bars = [line.count("|") for line in block]
        if is_text and any(bars):
            cells += len(bars) * (max(bars) + 1)
    return cells
