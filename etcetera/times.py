"""Times that a file or a server gives."""

from datetime import UTC, datetime

# A day within what datetime can hold.
_EARLIEST = datetime(1, 1, 2, tzinfo=UTC).timestamp()
_LATEST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def time_from(seconds: float) -> datetime:
    """Return the time that a clock, right or not, meant; any time zone can show it."""
    return datetime.fromtimestamp(min(max(seconds, _EARLIEST), _LATEST), UTC)
