"""Levels chosen by what limits: the line or the processors."""

import heapq
from collections.abc import Callable

import pytest

from etcetera.transfer import pace
from etcetera.transfer.codec import Frame, stored_size
from etcetera.transfer.pace import Idle, Pace

MiB = 1 << 20
PART = 8 * MiB
WORKERS = 8
FRAME = 512 << 10
# Bytes a second and size, as isal and zlib-ng have them with text.
LEVELS = {
    1: (600e6, 0.247),
    3: (280e6, 0.233),
    4: (108e6, 0.212),
    5: (90e6, 0.205),
    7: (51e6, 0.202),
}
PROCESSORS = 2


def frame(length: int) -> Frame:
    """One that shrank to *length*."""
    return Frame(bytes(length), FRAME, 0, 0)


class Simulation:
    """Processors that pack, and a line that carries whole parts."""

    def __init__(
        self, line: Callable[[float], float], level: int | None, total: int, lanes: int = 4
    ) -> None:
        self.lanes = lanes
        self.now = 0.0
        self.idle_seconds = self.looked_at = 0.0
        self.pace = Pace(
            level,
            part_size=PART,
            first=2,
            most=WORKERS // 2,
            clock=lambda: self.now,
            spare=self.spare,
        )
        self.line = line
        self.left = total // FRAME

    def spare(self) -> float:
        """Idle processors since it was asked for last."""
        seconds, self.idle_seconds = self.idle_seconds, 0.0
        elapsed, self.looked_at = self.now - self.looked_at, self.now
        return seconds / max(elapsed, 1e-9)

    def run(self) -> float:
        """Seconds until everything is sent."""
        idle = PROCESSORS
        busy: list[tuple[float, int]] = []
        waiting = 0  # bytes of whole parts
        cut = 0
        lanes: list[int] = []  # bytes that are left of the parts under way, which share the line
        tick = 0.005
        while True:
            held = len(lanes) + waiting // PART + 1
            while idle and self.left and held <= WORKERS + 1:
                level = self.pace.level()
                heapq.heappush(busy, (self.now + FRAME / LEVELS[level][0], level))
                idle, self.left = idle - 1, self.left - 1
            if not self.left and not busy:
                waiting, cut = waiting + cut, 0
            while waiting and len(lanes) < self.lanes:
                lanes.append(min(PART, waiting))
                waiting -= lanes[-1]
            if not lanes and not busy and not self.left:
                return self.now
            step = min(tick, busy[0][0] - self.now) if busy else tick
            for i, left in enumerate(lanes):
                count = min(left, int(self.line(self.now) * step / len(lanes)))
                lanes[i] -= count
                self.pace.sent(count)
            lanes = [left for left in lanes if left]
            self.now += step
            self.idle_seconds += idle * step
            while busy and busy[0][0] <= self.now:
                _, level = heapq.heappop(busy)
                idle += 1
                made = frame(int(FRAME * LEVELS[level][1]))
                cut += len(made.data)
                self.pace.packed(level, made)
                if cut >= PART:
                    waiting, cut = waiting + PART, cut - PART


@pytest.fixture(autouse=True)
def ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one with zlib-ng."""
    monkeypatch.setattr(pace, "LADDER", tuple(LEVELS))


@pytest.mark.parametrize("lanes", [4, 8])
@pytest.mark.parametrize("rate", [1e6, 12.5e6, 25e6, 31e6, 40e6, 60e6, 125e6, 1e9])
def test_as_good_as_the_best(rate: float, lanes: int) -> None:
    """Over any line it takes hardly longer than with the best fixed level."""
    total = int(min(1024, 8 * rate / 1e6 + 256)) * MiB
    best = min(Simulation(lambda _: rate, level, total, lanes).run() for level in LEVELS)
    assert Simulation(lambda _: rate, None, total, lanes).run() < 1.1 * best


def test_line_that_slows_down() -> None:
    """When the line becomes slow, the level rises."""
    simulation = Simulation(lambda now: 1e9 if now < 1.0 else 10e6, None, 2048 * MiB)
    simulation.run()
    assert simulation.pace.levels[1] > 512 * MiB
    assert simulation.pace.levels[7] > 200 * MiB


def test_line_that_becomes_fast() -> None:
    """When the line becomes fast, packing does not hold it up."""
    simulation = Simulation(lambda now: 10e6 if now < 5.0 else 1e9, None, 2048 * MiB)
    seconds = simulation.run()
    assert seconds < 8.0
    assert simulation.pace.levels[1] > 1024 * MiB


def test_busy_processors() -> None:
    """While no processor is idle, the level does not rise, however much waits."""
    now = 0.0
    chosen = Pace(None, part_size=PART, first=2, most=WORKERS, clock=lambda: now, spare=lambda: 0.0)
    for _ in range(300):
        now += 0.01
        chosen.sent(PART // 64)
        if not chosen.guessing:
            chosen.packed(chosen.level(), frame(PART // 32))
    seen = set()
    for _ in range(300):
        now += 0.01
        chosen.sent(PART // 64)
        chosen.packed(chosen.level(), frame(PART // 32))
        seen.add(chosen.level())
    assert len(seen) == 1


@pytest.mark.parametrize("level", [0, 1, 6])
def test_fixed(level: int) -> None:
    """A level that was asked for stays, whatever the line does."""
    chosen = Pace(level, part_size=PART, first=2, most=WORKERS)
    for _ in range(100):
        assert chosen.level() == level
        assert not chosen.guessing
        chosen.packed(level, frame(PART // 8))
    assert sum(chosen.levels.values()) == 100 * FRAME


def test_stored_frames_are_no_guess() -> None:
    """What does not shrink can be packed ahead: no level would make it smaller."""
    chosen = Pace(None, part_size=PART, first=2, most=WORKERS)
    stored = Frame(bytes(stored_size(MiB)), MiB, 0, 0)
    for _ in range(64):
        chosen.packed(chosen.level(), stored)
    assert not chosen.guessing
    assert chosen.levels == {0: 64 * MiB}


def test_idle() -> None:
    """A process that works leaves less than one that does not."""
    idle = Idle()
    assert idle.processors() <= idle.count
