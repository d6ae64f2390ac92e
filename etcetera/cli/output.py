"""What reaches the terminal: text that cannot drive it, sizes for people, columns."""

import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import typer

from etcetera.errors import without_queries
from etcetera.unseen import UNSEEN

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def clean(text: str) -> str:
    """Return *text* with everything escaped that a terminal would not simply show."""
    return UNSEEN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python keeps it
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "surrogatepass").decode()


def show(line: str = "") -> None:
    """Print one line of a result."""
    _print(clean(line))


def show_cells(*cells: str) -> None:
    """Print one line of a result, for other tools: no cell holds the tab that parts them."""
    _print("\t".join(map(clean, cells)))


def show_for_tools(line: str) -> None:
    """Print one line that another tool reads byte by byte; a terminal is spared what drives it."""
    _print(clean(line) if is_terminal() else line.encode())


def show_bytes(data: bytes) -> None:
    """Write a part of a result as it is; not for a terminal."""
    _print(data, newline=False)


def _print(text: str | bytes, *, newline: bool = True) -> None:
    try:
        typer.echo(text, nl=newline)
    except BrokenPipeError:  # whoever reads has seen enough
        raise
    except OSError as error:
        _give_up_output()
        from etcetera.errors import os_errors

        with os_errors("writing the results"):
            raise error from None


def _give_up_output() -> None:
    """Lose what could not be written: Python would try again when it ends, and complain."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def tell(line: str) -> None:
    """Print one line that is no result, to the standard error."""
    # Typer's echo would go round a progress bar that is being drawn, and write into it.
    with suppress(OSError):  # there is nowhere else to say it
        if sys.stderr is not None:
            sys.stderr.write(f"{clean(without_queries(line))}\n")
            sys.stderr.flush()


def show_json(value: Any) -> None:
    """Print a result as JSON, for another program."""
    # Escapes whatever is not ASCII, so nothing has to be cleaned, and nothing is lost.
    _print(to_json(value, indent=2))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return *value* as JSON: paths as text, times as ISO 8601, what is no number as null."""
    import json

    try:
        return json.dumps(value, indent=indent, default=_plain, allow_nan=False)
    except ValueError:  # Python reads NaN and Infinity in a meta.json, and JSON has no such thing
        return json.dumps(_finite(value), indent=indent, default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def is_terminal(stream: Any = None) -> bool:
    """Tell whether *stream*, by default the standard output, is a terminal."""
    stream = sys.stdout if stream is None else stream
    return bool(stream is not None and not stream.closed and stream.isatty())


def can_animate() -> bool:
    """Tell whether the standard error is a terminal on which lines can be written anew."""
    return is_terminal(sys.stderr) and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def human_size(size: float) -> str:
    """Return bytes as people read them: ``4.2 MiB``."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in _UNITS:
        size /= 1024
        # What would be rounded to 1024 belongs to the next unit.
        if size < 1023.95 or unit == _UNITS[-1]:
            break
    return f"{size:.1f} {unit}"


def exact_size(size: int) -> str:
    """Return a size as people would write it into a file: ``8 MiB``, or else all of its bytes."""
    for power, unit in reversed(list(enumerate(_UNITS, 1))):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return f"{size:,} bytes"


def human_count(number: int, thing: str) -> str:
    """Return ``1 file`` or ``1,200 files``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def human_time(moment: datetime) -> str:
    """Return a moment in the time zone of the user, to the minute."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")


def columns(rows: Iterable[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Align cells below each other.

    Args:
        rows: All with the same number of cells.
        right: Which columns are aligned to the right.
    """
    table = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (width - _width(cell))
            cells.append(padding + cell if number in right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def _width(text: str) -> int:
    """Columns on the terminal: none for what combines, two for what is wide."""
    return sum(
        0
        if unicodedata.combining(character)
        else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )
