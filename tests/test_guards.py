"""The guards of the reader that ``make test-long`` takes out one by one."""

from tests.long.test_guards import GUARDS, PACKAGE


def test_guards_are_there() -> None:
    """SY-09: each guard that is to be taken out is where it is said to be."""
    gone = [one.guard for one in GUARDS if one.guard not in (PACKAGE / one.file).read_text()]
    assert not gone
