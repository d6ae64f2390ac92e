"""``docs/reliability.md`` lists the cases that are tested, and those that are not."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "reliability.md"
CASE = re.compile(r"\b[A-Z]{2}-\d\d\b")


def section(title: str) -> str:
    """The text below one heading of the document."""
    return DOCUMENT.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_cases_are_listed() -> None:
    """Every case that a test names is listed as tested, and every one listed so has a test."""
    named = {
        case
        for path in TESTS.rglob("*.py")
        if path != Path(__file__)
        for case in CASE.findall(path.read_text())
    }
    listed = set(CASE.findall(section("Cases")))
    assert listed == named


def test_nothing_is_tested_and_left_out() -> None:
    """A case is either tested or left out, with a reason."""
    left_out = section("Left out")
    cases = CASE.findall(left_out)
    assert len(cases) > 5
    assert not set(cases) & set(CASE.findall(section("Cases")))
    for line in left_out.splitlines():
        if line.startswith("| ") and CASE.search(line):
            assert len(line.split("|")) == 4, line
            assert line.split("|")[2].strip(), line
