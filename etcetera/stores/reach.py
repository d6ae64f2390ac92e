"""Whether a server can be reached, and whether the clock here goes as its own does."""

import asyncio
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import anyio

from etcetera.findings import Finding, fine, problem, unknown, warning
from etcetera.stores import patience
from etcetera.stores.common import time_from

EXAMINATION_SECONDS = 300.0
"""How long all questions may take together, but for removing what was written."""
WRONG_SECONDS = 300.0
"""How far a clock may be off; servers refuse requests that are 5 to 15 minutes off."""
INEXACT_SECONDS = 30.0
"""How far any clock is off now and then."""
_TIME = "%Y-%m-%d %H:%M UTC"


async def reach(
    endpoint: str, settings: str, *, proxied: bool, anonymous: bool, which: str = ""
) -> Finding:
    """Look for the server's address, and connect; nothing is sent.

    Args:
        endpoint: Scheme, host and port.
        settings: What to correct if there is no such server.
        proxied: Whether a proxy is asked for it, which alone knows the address.
        anonymous: Whether nothing secret goes there.
        which: What else to say of a server that can be reached.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if proxied:
        return fine("endpoint", f"{endpoint}, by the proxy that the environment names{which}")
    try:
        with anyio.fail_after(patience.CONNECT_SECONDS):
            await anyio.getaddrinfo(host, port)
    except (OSError, UnicodeError):
        return problem(
            "endpoint",
            f"nobody knows where {host} is: it has no address",
            f"correct {settings}, or mend the name service of this machine",
        )
    try:
        with anyio.fail_after(patience.CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except OSError as error:
        reasons = {TimeoutError: "does not answer", ConnectionRefusedError: "refuses to connect"}
        reason = reasons.get(type(error), f"cannot be reached ({error.strerror or error})")
        return problem(
            "endpoint",
            f"{host} {reason}, at port {port}",
            f"check {settings.partition(' ')[0]}, whether the server runs, the network and its "
            "firewalls",
        )
    if patience.travels_in_the_clear(endpoint) and not anonymous:
        return warning(
            "endpoint",
            f"{endpoint} is not encrypted: everybody on the way can read the data{which}",
            "use https:// if the server has it",
        )
    return fine("endpoint", f"{endpoint} can be reached{which}")


def seconds_behind(date: str) -> float | None:
    """Return by how much the clock of this machine is behind a server's, from a head line."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def check_clock(behind: float | None, meaning: str) -> Finding:
    """Say how far the clock of this machine is off.

    Args:
        behind: Seconds by which it is behind the server's, if that is known.
        meaning: What comes of a clock that is wrong.
    """
    if behind is None:
        return unknown("clock", "the server does not tell the time")
    if abs(behind) <= INEXACT_SECONDS:
        return fine("clock", "it goes as the server's does")
    here = datetime.now(UTC)
    there = time_from(here.timestamp() + behind)
    text = (
        f"the clock of this machine is {span(abs(behind))} "
        f"{'behind' if behind > 0 else 'ahead'}: it is {here:{_TIME}} here, {there:{_TIME}} there"
    )
    advice = "set the clock, or let it be set (timedatectl set-ntp true)"
    if abs(behind) <= WRONG_SECONDS:
        return warning("clock", text, advice)
    return problem("clock", f"{text}; {meaning}", advice)


def span(seconds: float) -> str:
    """Return a span of time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 120 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.0f} hours" if seconds < 172800 else f"{seconds / 86400:.0f} days"
