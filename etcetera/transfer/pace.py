"""Which compression level the next frame gets, when none was asked for.

The best one that does not slow the transfer. What tells is the backlog, bytes that are packed and
have not left yet: while it is large and processors are idle, the line is what limits, and better
levels cost nothing; when it runs dry, the line waits, and the fastest level is none too fast.
"""

import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from math import inf
from pathlib import Path

from etcetera.transfer.codec import LADDER, Frame
from etcetera.transfer.flow import processors
from etcetera.transfer.options import MiB

_STEP_SECONDS = 0.1
"""The level changes at most so often: frames that are under way still have the old one."""
_WINDOW_SECONDS = 1.0
"""Over which the speed of the line is measured."""
_FILLING_SECONDS = 0.5
"""What leaves so soon may only fill buffers of the system."""
_KNOWN_SECONDS = 0.5
"""After so many more, the speed of the line is known."""
_AHEAD_SECONDS = 2.0
"""A backlog for so long is as good as a longer one."""
_MUCH, _LITTLE, _NONE = 0.6, 0.35, 0.15
"""Parts of the wanted backlog: above the first the level rises, below the others it falls by one
step or to the lowest."""
_SPARE = 0.25
"""Processors that have to be idle for a better level."""

_logger = logging.getLogger("etcetera")


class Pace:
    """Chooses levels; packing threads and the event loop both tell it what they do."""

    def __init__(
        self,
        level: int | None,
        *,
        part_size: int,
        first: int,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        spare: Callable[[], float] | None = None,
    ) -> None:
        """Begin at the fastest level, so that the line has something to carry at once.

        Args:
            level: A fixed one; ``None`` to choose.
            part_size: Bytes that are sent as one.
            first: Parts that are packed so, not counting stored frames.
            most: Parts that can be packed and have not left.
            clock: Gives seconds.
            spare: Gives the number of processors that were idle since it was called last.
        """
        self._fixed = level
        self._part_size = part_size
        self._first = first * part_size
        self._capacity = most * part_size
        self._clock = clock
        self._spare = spare
        self._lock = threading.Lock()
        self._rung = 0
        self._packed = self._shrunk = self._sent = 0
        self._line: deque[tuple[float, int]] = deque()
        self._changed = self._began = clock()
        self._known = False
        self.levels: Counter[int] = Counter()
        """Tar bytes by the level they were packed with; 0 is stored."""

    def level(self) -> int:
        """For the next frame."""
        return LADDER[self._rung] if self._fixed is None else self._fixed

    @property
    def guessing(self) -> bool:
        """Whether enough was packed fast, and nothing is known of the line yet."""
        return self._fixed is None and not self._known and self._shrunk >= self._first

    def sent(self, count: int) -> None:
        """Count archive bytes that have just left; for the event loop."""
        now = self._clock()
        if not self._sent:
            self._began = now
        filled = now - self._began >= _FILLING_SECONDS
        if filled and (not self._line or now - self._line[-1][0] >= _WINDOW_SECONDS / 16):
            self._line.append((now, self._sent))
        self._sent += count

    def packed(self, level: int, frame: Frame) -> None:
        """Count a frame; for the packing threads.

        Args:
            level: It was made with.
            frame: What came out.
        """
        with self._lock:
            self.levels[0 if frame.stored else level] += frame.size
            self._packed += len(frame.data)
            self._shrunk += 0 if frame.stored else len(frame.data)
            if self._fixed is None:
                self._choose()

    def _choose(self) -> None:
        now = self._clock()
        # What is not yet a whole part cannot be sent.
        backlog = self._packed // self._part_size * self._part_size - self._sent
        if not self._known:
            dry = self._sent > 0 and backlog <= 0
            self._known = dry or bool(self._line and now - self._line[0][0] >= _KNOWN_SECONDS)
            if self.guessing:
                # On a fast line that costs a few frames; on a slow one, packing fast would have
                # filled the backlog before anything is known.
                self._step(len(LADDER) - 1, now)
            if not self._known:
                return
            self._spare = self._spare or Idle().processors
        wanted = min(self._capacity, self._speed(now) * _AHEAD_SECONDS)
        if backlog <= wanted * _NONE:
            self._step(0, now)
        elif now - self._changed < _STEP_SECONDS:
            return
        elif backlog < wanted * _LITTLE:
            self._step(self._rung - 1, now)
        elif backlog > wanted * _MUCH and self._rung + 1 < len(LADDER):
            if self._spare is not None and self._spare() >= _SPARE:
                self._step(self._rung + 1, now)
            self._changed = now

    def _step(self, rung: int, now: float) -> None:
        rung = max(0, rung)
        if rung != self._rung:
            self._rung, self._changed = rung, now
            _logger.info(
                "Level %d: %.1f MiB wait to be sent",
                LADDER[rung], (self._packed - self._sent) / MiB,
            )  # fmt: skip

    def _speed(self, now: float) -> float:
        """Bytes a second that have left lately."""
        line = self._line
        while len(line) > 2 and line[1][0] < now - _WINDOW_SECONDS:
            line.popleft()
        if not line:
            return inf
        began, sent = line[0]
        return (self._sent - sent) / max(now - began, 1e-3)


class Idle:
    """How many processors were idle lately, as far as this process can know."""

    def __init__(self) -> None:
        self.count = processors()
        self._last = self._look()

    def processors(self) -> float:
        """Of those that this process may use, since the last call."""
        before, self._last = self._last, self._look()
        seconds = max(self._last[0] - before[0], 1e-3)
        used, idle = ((self._last[i] - before[i]) / seconds for i in (1, 2))
        return min(self.count - used, idle) if self._last[2] else self.count - used

    def _look(self) -> tuple[float, float, float]:
        """The time, processor seconds of this process, and idle ones of the whole machine."""
        try:
            fields = Path("/proc/stat").read_bytes().split(None, 6)
            idle = (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):  # not Linux, or kept from us
            idle = 0.0
        return time.monotonic(), time.process_time(), idle
