"""One run for many callers."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from anyio import CancelScope

Result = TypeVar("Result")


@dataclass(slots=True)
class _Flight:
    task: "asyncio.Task[Any]"
    callers: int = 0


_flights: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Flight]]" = (
    WeakKeyDictionary()
)


async def share(key: Hashable, function: Callable[[], Awaitable[Result]]) -> Result:
    """Run *function* once for all callers in this event loop that ask for *key* meanwhile.

    A caller that is cancelled leaves the others alone; when the last one is, so is the run, and
    that caller waits until it has cleaned up.
    """
    flights = _flights.setdefault(asyncio.get_running_loop(), {})
    flight = flights.get(key)
    if flight is None:

        async def run() -> Result:
            return await function()

        flight = flights[key] = _Flight(asyncio.ensure_future(run()))
        flight.task.add_done_callback(lambda _: flights.pop(key, None))
    flight.callers += 1
    try:
        result: Result = await asyncio.shield(flight.task)
        return result
    except asyncio.CancelledError:
        if flight.callers == 1 and not flight.task.done():
            # Nobody may join a run that is about to end.
            flights.pop(key, None)
            flight.task.cancel()
            with CancelScope(shield=True):
                await asyncio.wait([flight.task])
        raise
    finally:
        flight.callers -= 1
