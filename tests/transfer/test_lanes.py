"""Requests at once: as many as help."""

import asyncio
import heapq

import pytest
from anyio import wait_all_tasks_blocked

from etcetera.transfer.lanes import FIRST_LANES, Lane, Lanes

MiB = 1 << 20


async def simulated(most: int, lane_rate: float, line_rate: float, requests: int) -> Lanes:
    """Run *requests* of 8 MiB over a line; another one always waits for a lane.

    Args:
        most: Lanes at most.
        lane_rate: Bytes a second that one connection carries.
        line_rate: Bytes a second that all of them together carry.
        requests: How many.
    """
    now = 0.0
    lanes = Lanes(most, lambda: now)
    running: list[tuple[float, int, Lane]] = []
    following = asyncio.ensure_future(lanes.enter())
    for number in range(requests):
        await wait_all_tasks_blocked()
        while following.done():
            rate = min(lane_rate, line_rate / lanes.count)
            # Connections are never quite alike.
            end = now + 8 * MiB / rate * (1 + number % 7 / 100)
            heapq.heappush(running, (end, len(running) + 100 * number, following.result()))
            following = asyncio.ensure_future(lanes.enter())
            await wait_all_tasks_blocked()
        now, _, lane = heapq.heappop(running)
        lanes.leave(lane, 8 * MiB)
    following.cancel()
    return lanes


async def test_more_while_they_help() -> None:
    """Where each connection is slow and the line is not, all lanes are used."""
    lanes = await simulated(16, 90e6, 10e9, 1200)
    assert lanes.count == 16


async def test_no_more_than_help() -> None:
    """Where the line is full, it stays near the number that fills it."""
    lanes = await simulated(64, 90e6, 110e6, 400)
    assert lanes.count <= FIRST_LANES + 1


@pytest.mark.parametrize("most", [1, 2, 3])
async def test_bound(most: int) -> None:
    """Never more than allowed, also at first."""
    lanes = await simulated(most, 1e6, 1e9, 50)
    assert lanes.count == most


async def test_spare_lanes() -> None:
    """As long as lanes are free, none is added: something else is what limits."""
    now = 0.0
    lanes = Lanes(16, lambda: now)
    for _ in range(100):
        lane = await lanes.enter()
        now += 1.0
        lanes.leave(lane, MiB)
    assert lanes.count == FIRST_LANES


async def test_request_size() -> None:
    """Ranges take half a second each, within bounds."""
    now = 0.0
    lanes = Lanes(1, lambda: now)
    assert lanes.request_size(MiB, 8 * MiB) == 4 * MiB
    for seconds, size in ((10.0, MiB), (1.0, 2 * MiB), (0.4, 5 * MiB), (0.3, 8 * MiB)):
        for _ in range(2):
            lane = await lanes.enter()
            now += seconds
            lanes.leave(lane, 4 * MiB)
        assert lanes.request_size(MiB, 8 * MiB) == pytest.approx(size, rel=0.2)
