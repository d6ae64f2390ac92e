"""Transfers over a line that fails at random, again and again; and pulls without number.

``SOAK_CYCLES`` and ``SOAK_PULLS`` say how many, ``SOAK_SEED`` which random faults.
"""

import asyncio
import gc
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.errors import EtceteraError
from etcetera.stores import PartLimits, patience, s3
from etcetera.stores.s3 import S3Store
from etcetera.transfer.options import KiB, TransferOptions
from tests.datasets import make_large_dataset, settle, snapshot
from tests.fault_proxy import (
    ALWAYS,
    Exchange,
    Fault,
    Rule,
    answer,
    broken_body,
    fault_proxy,
    lose_reply,
    reset_upload,
    stall,
)
from tests.fault_site import Site, assert_readable
from tests.servers import S3Server

CYCLES = int(os.environ.get("SOAK_CYCLES", "200"))
PULLS = int(os.environ.get("SOAK_PULLS", "1000"))
SEED = int(os.environ.get("SOAK_SEED", "1"))
RATE = 0.05
BAD_RATE = 0.7
"""Of every tenth cycle: so many faults that attempts run out."""
SIZES = {"tiny": 10_000, "small": 300_000, "middle": 1_200_000, "large": 4_000_000}


@dataclass(slots=True)
class Chaos:
    """Breaks some of the requests."""

    source: random.Random
    rate: float = RATE
    requests: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    async def __call__(self, exchange: Exchange) -> None:
        """Pass a request on, or break it in one of many ways."""
        self.requests += 1
        if self.source.random() >= self.rate:
            await exchange.send(await exchange.forward())
            return
        length = self.source.randrange(300_000)
        reset = self.source.random() < 0.5
        faults: dict[str, Callable[[], Fault]] = {
            "reset while sending": lambda: reset_upload(length),
            "body cut": lambda: broken_body(length, reset=reset),
            "lost reply": lambda: lose_reply(reset=reset),
            "500": lambda: answer(500, "InternalError"),
            "503": lambda: answer(503, "SlowDown"),
            "stall": lambda: stall(served=reset),
            "stall in the body": lambda: stall(stop=length),
        }
        kind = self.source.choice(sorted(faults))
        self.kinds[kind] += 1
        await faults[kind]()(exchange)


@dataclass(slots=True)
class Soak:
    """One home that pushes, one that pulls, and what has come of it."""

    site: Site
    chaos: Chaos
    other: Path
    source: random.Random
    sources: dict[str, Path]
    outcomes: Counter[str] = field(default_factory=Counter)
    published: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Of the last error."""
    left: int = 0

    async def cycle(self, number: int, told: Callable[[], str]) -> None:
        """Push a new version, pull it; each ends well or says why not, and leaves nothing."""
        name = self.source.choice(sorted(SIZES))
        root = self.sources[name]
        (root / "data" / "train" / "number").write_text(str(number))
        settle(root)
        config = self.site.config()
        config.transfer = TransferOptions(
            part_size=self.source.choice([64, 200, 512]) * KiB,
            workers=self.source.choice([1, 3, 8]),
            level=1,
        )
        self.chaos.rate = RATE if number % 10 else BAD_RATE
        base = self.source.choice(["", "", None])
        versions = [self.published.get(name)]
        pushed = await self._try(
            "push", partial(etc.apush, name, force=True, base=base, config=config)
        )
        if pushed:
            versions = []
        versions.append(snapshot(root))
        self._check_uploads(told)
        mirror = self.site.config()
        mirror.home = self.other
        mirror.transfer = config.transfer
        before = snapshot(self.other / name)
        pull = partial(etc.apull, name, force=True, config=mirror)
        if not await self._try("pull", pull):
            assert snapshot(self.other / name) == before
            self.chaos.rate = 0.0
            if name in await etc.als(remote=True, config=mirror):
                await pull()
        now = snapshot(self.other / name)
        assert now in versions or (not now and None in versions)
        self.published[name] = now or None
        for home in (self.site.home, self.other):
            staging = home / ".etcetera" / "staging"
            assert not staging.exists() or not list(staging.iterdir())

    async def _try(self, what: str, call: Callable[[], object]) -> bool:
        try:
            async with asyncio.timeout(120):
                await call()  # type: ignore[misc]
        except EtceteraError as error:
            assert_readable(error)
            self.outcomes[f"{what}: {type(error).__name__}"] += 1
            self.notes = getattr(error, "__notes__", [])
            return False
        self.outcomes[f"{what}: whole"] += 1
        self.notes = []
        return True

    def _check_uploads(self, told: Callable[[], str]) -> None:
        """What is left in the repository was told of; remove it."""
        text = "\n".join([*self.notes, told()])
        listed = self.site.ask("GET", "/?uploads")[1].decode()
        found = re.findall(r"<UploadId>(.*?)</UploadId>\s*<Key>(.*?)</Key>", listed)
        for upload, key in found:
            assert upload in text or "may be left" in text, (found, text)
            self.site.ask("DELETE", f"/{key}?uploadId={upload}")
            self.left += 1
        assert self.site.open_uploads() == 0


@pytest.mark.timeout(0)
async def test_line_that_fails_at_random(
    small_moto: S3Server,
    tmp_path: Path,
    hasty: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    record_property: Callable[[str, object], None],
) -> None:
    """Whatever fails whenever, each transfer ends whole or with an error, and leaves nothing."""
    monkeypatch.setattr(patience, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(patience, "REQUEST_SECONDS", 1.0)
    limits = PartLimits(min_part=1, max_part=5 << 30, max_parts=10_000)
    monkeypatch.setattr(s3, "S3Store", partial(S3Store, limits=limits))
    sources = {
        name: make_large_dataset(tmp_path / name, size, files=8) for name, size in SIZES.items()
    }
    chaos = Chaos(random.Random(SEED))
    began = time.monotonic()
    async with fault_proxy(small_moto.endpoint) as proxy:
        proxy.plan(Rule("any", chaos, times=ALWAYS))
        site = Site(proxy=proxy, server=small_moto, home=tmp_path / "home", source=sources["small"])
        for name, root in sources.items():
            await etc.aregister(root, name, config=site.config())
        soak = Soak(site, chaos, tmp_path / "other", random.Random(SEED + 1), sources)
        for number in range(1, CYCLES + 1):
            await soak.cycle(number, lambda: caplog.text)
            caplog.clear()
            proxy.seen.clear()
    figures = {
        "cycles": CYCLES,
        "seconds": round(time.monotonic() - began),
        "requests": chaos.requests,
        "faults": dict(chaos.kinds.most_common()),
        "outcomes": dict(soak.outcomes.most_common()),
        "uploads left and told of": soak.left,
    }
    for name, value in figures.items():
        record_property(name, value)
        print(f"{name}: {value}")  # noqa: T201
    assert soak.outcomes["push: whole"] > CYCLES * 0.8
    assert soak.outcomes["pull: whole"] > CYCLES * 0.8


def _resources() -> dict[str, int]:
    """What this process holds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "resident KiB": pages * os.sysconf("SC_PAGE_SIZE") // KiB,
    }


@pytest.mark.timeout(0)
async def test_pulls_without_number(
    moto: S3Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """SY-10: a process that pulls a thousand times holds no more than after the first ones."""
    async with fault_proxy(moto.endpoint) as proxy:
        source = make_large_dataset(tmp_path / "source", 300_000, files=20)
        site = Site(proxy=proxy, server=moto, home=tmp_path / "home", source=source)
        await site.push()
        config = site.config(endpoint_url=moto.endpoint)
        config.home = tmp_path / "other"
        seen = []
        warm = max(1, PULLS // 5)
        for number in range(PULLS):
            await etc.apull("set", force=True, config=config)
            if number >= warm and number % warm == 0:
                seen.append(_resources())
        seen.append(_resources())
    print(f"pulls: {PULLS}; held after each fifth: {seen}")  # noqa: T201
    record_property("held", seen)
    first, last = seen[0], seen[-1]
    for what in ("descriptors", "tasks"):
        assert last[what] <= first[what]
    assert last["threads"] <= first["threads"] + 1
    assert last["resident KiB"] - first["resident KiB"] < 8 * KiB
