"""How many requests are under way at once: as many as make a transfer faster, and no more.

One connection to S3 carries some 80 to 100 MB/s, and one to a distant server less; but more of
them than the line or the processors can feed only cost memory. So it is tried out.
"""

import logging
import time
from collections.abc import Callable

from anyio import CapacityLimiter

from etcetera.transfer.options import MiB

FIRST_LANES = 4
"""Requests at first, if that many are allowed."""
WORTH = 1.05
"""A lane more has to make the transfer faster by this factor to be kept."""
ROUND_SECONDS = 0.5
"""A round lasts at least so long, and until each lane has ended two requests."""
REQUEST_SECONDS = 0.5
"""A range should take so long: little is lost if it breaks, and asking for it costs little."""
REST_ROUNDS = 8
"""Rounds after which it is tried again whether more help: a line changes."""

_logger = logging.getLogger("etcetera")


class Lane:
    """What one request holds while it is under way."""

    began = 0.0


class Lanes:
    """Lets up to *most* requests run at once; used from one event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with few lanes.

        Args:
            most: Requests at once, at most.
            clock: Gives seconds.
        """
        self._most = most
        self._clock = clock
        self._limiter = CapacityLimiter(min(FIRST_LANES, most))
        self._rate = 0.0  # bytes a second in the last round
        self._before = 0.0  # bytes a second in the round before the last lane was added
        self._trying = False
        self._warm = False
        self._rest = 0
        self._begin_round()

    @property
    def count(self) -> int:
        """Requests that may be under way now."""
        return int(self._limiter.total_tokens)

    def request_size(self, least: int, most: int) -> int:
        """Bytes that the next request should ask for, within bounds; half of *most* at first."""
        size = int(self._rate * REQUEST_SECONDS / self.count) or most // 2
        return max(least, min(size, most))

    async def enter(self) -> Lane:
        """Wait until one more request may begin; return what it holds, for :meth:`leave`."""
        lane = Lane()
        await self._limiter.acquire_on_behalf_of(lane)
        lane.began = self._clock()
        return lane

    def leave(self, lane: Lane, size: int) -> None:
        """Count a request that has ended, and let another begin.

        Args:
            lane: From :meth:`enter`.
            size: Bytes that it has brought or sent.
        """
        now = self._clock()
        # Where nobody waits for a lane, something else is what limits the transfer.
        self._full &= self._limiter.statistics().tasks_waiting > 0
        if lane.began >= self._began:
            self._bytes += size
            self._seconds += now - lane.began
            self._requests += 1
        if now - self._began >= ROUND_SECONDS and self._requests >= 2 * self.count:
            # Not the bytes of the round over its length: requests do not end when it does.
            self._rate = self.count * self._bytes / max(self._seconds, 1e-6)
            if self._full and self._warm:
                self._decide()
            self._trying &= self._full
            self._warm = True  # connections are slow at first
            self._begin_round()
        self._limiter.release_on_behalf_of(lane)

    def _begin_round(self) -> None:
        self._began = self._clock()
        self._seconds = 0.0  # of all its requests together
        self._bytes = self._requests = 0
        self._full = True

    def _decide(self) -> None:
        if self._trying and self._rate < self._before * WORTH:
            self._trying = False
            self._rest = REST_ROUNDS
            self._set(self.count - 1)
        elif self._rest:
            self._rest -= 1
        elif self.count < self._most:
            self._trying = True
            self._before = self._rate
            self._set(self.count + 1)
        else:
            self._trying = False

    def _set(self, count: int) -> None:
        _logger.info("%d requests at once: %.1f MiB/s with %d", count, self._rate / MiB, self.count)
        self._limiter.total_tokens = count
