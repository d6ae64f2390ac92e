"""What the terminal gets to see."""

import io
import json
import sys
import unicodedata
from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from etcetera.cli.bar import Bar
from etcetera.cli.output import (
    can_animate,
    clean,
    columns,
    exact_size,
    human_count,
    human_size,
    show,
    show_json,
    tell,
    to_json,
)
from etcetera.cli.progress import describe, measure
from etcetera.dataset import is_name
from etcetera.progress import Phase, Progress


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, and wörter", "plain, and wörter"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("flow\u200bers\ufeff\u00ad\u2060", "flow\\u200bers\\ufeff\\xad\\u2060"),
        ("flow\u200ders", "flow\\u200ders"),
        ("a\U000e0041", "a\\U000e0041"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("one\u2028two", "one\\u2028two"),
        ("\udcff", "\\xff"),
        ("flowers\u3164\ufe0f", "flowers\\u3164\ufe0f"),
        ("flowers\ufe0f \u2764\ufe0f", "flowers\\ufe0f \u2764\ufe0f"),
        ("\u0600\u06dd", "\u0600\u06dd"),
        ("\u2800\U000e0100\U0001d173", "\\u2800\\U000e0100\\U0001d173"),
        ("\ud800", "\\ud800"),
    ],
)
def test_clean_escapes_what_drives_a_terminal(text: str, shown: str) -> None:
    """SE-11: no control character, direction mark or broken byte is printed as such."""
    assert clean(text) == shown


DRAWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
"""Of category Cf, and seen."""
IGNORED = [
    *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000),
]  # fmt: skip
"""Default_Ignorable_Code_Point."""


def test_nothing_unseen_is_shown() -> None:
    """SE-11: whatever Unicode calls a control, a format or ignorable is escaped; the rest stays."""
    formats = ("Cc", "Cf", "Cs", "Zl", "Zp")
    unseen = {code for code in range(0x110000) if unicodedata.category(chr(code)) in formats}
    unseen = (unseen - DRAWN) | {*IGNORED, 0x2800}
    for code in unseen:
        assert clean(f"a{chr(code)}b") != f"a{chr(code)}b", hex(code)
        assert not is_name(f"a{chr(code)}b"), hex(code)
    assigned = [code for code in range(0x20, 0x30000) if unicodedata.category(chr(code)) != "Cn"]
    shown = "".join(chr(code) for code in assigned if code not in unseen)
    assert clean(shown) == shown


def test_json_is_json() -> None:
    """What Python reads as a number and JSON does not know is null."""
    value = {"a": float("nan"), "b": [float("-inf"), 1.5, "x"], "c": (1, None)}
    assert json.loads(to_json(value)) == {"a": None, "b": [None, 1.5, "x"], "c": [1, None]}


def test_everything_printed_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    """SE-11: results and messages go through the same escaping."""
    show("a\x1bb")
    tell("c\x1bd")
    show_json({"e": "\x1b\u202e"})
    printed = capsys.readouterr()
    assert printed.out == 'a\\x1bb\n{\n  "e": "\\u001b\\u202e"\n}\n'
    assert printed.err == "c\\x1bd\n"


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_human_size(size: int, shown: str) -> None:
    """Sizes are rounded, and never to 1024 of a unit."""
    assert human_size(size) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (8 << 20, "8 MiB"),
        (1536 << 20, "1536 MiB"),
        (5 << 30, "5 GiB"),
        (5_000_000, "5,000,000 bytes"),
    ],
)
def test_exact_size(size: int, shown: str) -> None:
    """What was written into a file is shown as such, and never rounded."""
    assert exact_size(size) == shown


def test_human_count() -> None:
    """One is singular."""
    assert human_count(1, "file") == "1 file"
    assert human_count(12_345, "file") == "12,345 files"


def test_columns_align_what_is_wide_or_combines() -> None:
    """Characters count by the columns they take."""
    rows = [("ab", "1"), ("日本", "22"), ("e\u0301", "333")]
    assert columns(rows, right=frozenset({1})) == ["ab      1", "日本   22", "e\u0301     333"]


def test_json_has_iso_times() -> None:
    """Times can be read back."""
    assert to_json(datetime(2026, 1, 2, tzinfo=UTC)) == '"2026-01-02T00:00:00+00:00"'


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_dumb_terminal_is_not_animated(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are written anew only where that works."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert can_animate()
    monkeypatch.setenv("TERM", term)
    assert not can_animate()


def _event(phase: Phase, done: int, total: int | None, operation: str = "push") -> Progress:
    return Progress(
        operation="push" if operation == "push" else "pull",
        name="x",
        phase=phase,
        done=done,
        total=total,
        transferred=7,
    )


@pytest.mark.parametrize(
    ("event", "words", "measured"),
    [
        (_event("scan", 0, None), "scanning", (7, None)),
        (_event("transfer", 50, 100), "pushing", (50, 100)),
        (_event("transfer", 100, 100), "pushing", (99, 100)),
        (_event("publish", 100, 100), "publishing", (99, 100)),
        (_event("done", 100, 100), "published", (100, 100)),
        (_event("transfer", 100, 100, "pull"), "pulling", (99, 100)),
        (_event("install", 100, 100, "pull"), "installing", (99, 100)),
        (_event("transfer", 0, None, "pull"), "pulling", (7, None)),
        (_event("done", 100, 100, "pull"), "installed", (100, 100)),
    ],
)
def test_progress_is_whole_only_when_done(
    event: Progress, words: str, measured: tuple[int, int | None]
) -> None:
    """All bytes being there is not the end: only being published or installed is."""
    assert describe(event) == words
    assert measure(event) == measured


@pytest.mark.parametrize("name", ["x", "a-very-long-name-of-a-dataset", "日本語日本語日本語"])
@pytest.mark.parametrize(
    "event",
    [_event("scan", 0, None), _event("transfer", 5 << 20, 9 << 20), _event("done", 9, 9)],
)
def test_a_bar_fits(event: Progress, name: str) -> None:
    """A line never becomes two, and what matters most goes last."""
    bar = Bar(name)
    for moment in (_event("transfer", 1 << 20, 9 << 20), event):
        bar.draw(moment)
    for width in range(20, 150):
        words, length, figures = bar.fit(width)
        assert cell_len(words) + length + 1 + cell_len(figures) + (length > 0) <= width
        assert words.startswith(describe(event)[:3])
        assert ("%" in figures) == (event.phase != "scan")
        assert "B" not in figures or event.phase == "transfer"
    assert bar.fit(150)[1] == 40
