"""One run for many callers."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from anyio import CancelScope

Result = TypeVar("Result")


Listener: TypeAlias = Callable[[Any], None]


@dataclass(slots=True)
class _Flight:
    task: "asyncio.Task[Any]" = field(init=False)
    callers: "dict[asyncio.Future[None], Listener | None]" = field(default_factory=dict)
    """Who waits, by what fails them alone."""

    def tell(self, event: Any) -> None:
        """Tell every caller's listener; one that raises fails no other."""
        for failure, listener in tuple(self.callers.items()):
            if listener is not None and not failure.done():
                try:
                    listener(event)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the caller's own
                    failure.set_exception(error)


_flights: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, _Flight]]" = (
    WeakKeyDictionary()
)


async def share(
    key: Hashable,
    function: Callable[[Listener], Awaitable[Result]],
    listener: Listener | None = None,
) -> Result:
    """Run *function* once for all callers in this event loop that ask for *key* meanwhile.

    A caller that is cancelled, or whose listener raises, leaves the others alone; when the last
    one goes, the run is cancelled, and that caller waits until it has cleaned up.

    Args:
        key: What the run is about.
        function: Given what tells the listeners of all callers.
        listener: This caller's.
    """
    loop = asyncio.get_running_loop()
    flights = _flights.setdefault(loop, {})
    flight = flights.get(key)
    if flight is None:
        flight = flights[key] = _begin(key, flights, function)
    failure: asyncio.Future[None] = loop.create_future()
    flight.callers[failure] = listener
    try:
        await asyncio.wait([flight.task, failure], return_when=asyncio.FIRST_COMPLETED)
        if failure.done():
            failure.result()
        result: Result = flight.task.result()
        return result
    finally:
        del flight.callers[failure]
        failure.cancel()
        if not flight.callers and not flight.task.done():
            # Nobody may join a run that is about to end.
            _forget(key, flights, flight)
            flight.task.cancel()
            with CancelScope(shield=True):
                while not flight.task.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([flight.task])
            if not flight.task.cancelled():
                flight.task.exception()  # Seen: nobody is left to be told.


def _begin(
    key: Hashable,
    flights: dict[Hashable, _Flight],
    function: Callable[[Listener], Awaitable[Any]],
) -> _Flight:
    flight = _Flight()

    async def run() -> Any:
        return await function(flight.tell)

    flight.task = asyncio.ensure_future(run())
    flight.task.add_done_callback(lambda _: _forget(key, flights, flight))
    return flight


def _forget(key: Hashable, flights: dict[Hashable, _Flight], flight: _Flight) -> None:
    # One that ends late must not take its successor along.
    if flights.get(key) is flight:
        del flights[key]
