"""How long a store waits for a server, and how often it tries."""

import ipaddress
import random
from collections.abc import Iterator
from urllib.parse import urlsplit

CONNECT_SECONDS = 10.0
STALL_SECONDS = 60.0
"""How long a server may be silent, and how long 256 KiB of a body may take to leave."""
REQUEST_SECONDS = 120.0
"""How long any request may take that sends no body."""
ATTEMPTS = 8
FIRST_ATTEMPTS = 3
"""Until a server has answered at all: it may well be the wrong one."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 20.0
CONNECTIONS = 264
"""The pool is opened on demand and is never what limits: at most 256 workers, and some more."""


def delays(attempts: int) -> Iterator[float]:
    """Yield the seconds to wait after each attempt but the last, doubling, with jitter."""
    for attempt in range(attempts - 1):
        longest = min(FIRST_DELAY_SECONDS * 2**attempt, LONGEST_DELAY_SECONDS)
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret


def travels_in_the_clear(endpoint: str) -> bool:
    """Whether others on the way can read what goes to and comes from *endpoint*."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost" or host.endswith(".localhost")
    return parts.scheme == "http" and not local
