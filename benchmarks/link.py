"""A push over a slow link, compared with the best that any choice of compression could reach.

Two network namespaces of its own, joined by a pair of virtual interfaces with ``tc tbf``: nothing
outside this machine is reached, and nothing of its other networks is changed. For root only.
"""

import importlib
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data, endpoint
from benchmarks.endpoint import DROPPED
from benchmarks.machine import processors
from benchmarks.measure import CommandError, measure, medians
from benchmarks.peers import OURS, Push, pushers
from benchmarks.stages import frames_of, read_frame
from benchmarks.transfers import Place, register, say

RATES = {"1 Gbit/s": 1_000_000_000, "100 Mbit/s": 100_000_000}
"""Bits a second."""
KINDS = ("text", "images", "big")

_NAME = "etc-bench"
_SERVER, _CLIENT = "10.213.77.1", "10.213.77.2"
_BURST = 256 * data.KiB
_SAMPLE = 64
"""Frames that each codec is tried on."""
_WORTH = 0.98
"""A frame that shrinks to no less than this is stored."""


def unavailable() -> str | None:
    """Why there can be no link here; ``None`` if there can."""
    if os.geteuid() != 0:
        return "network namespaces are for root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "ip and tc are not installed (iproute2)"
    try:
        with _namespaces(RATES["1 Gbit/s"]):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made: {error}"


def run(size: data.Size, repeats: int) -> dict[str, Any]:
    """Push each kind of dataset *repeats* times over each link."""
    result: dict[str, Any] = {}
    way = next(way for way in pushers(None) if way.name == OURS)
    for rate_name, bits in RATES.items():
        for kind in KINDS:
            with data.workspace(2 * size.bytes) as temporary, _namespaces(bits) as prefixes:
                root = Path(temporary)
                server_prefix, client_prefix = prefixes
                with endpoint.running(root, address=_SERVER, prefix=server_prefix) as server:
                    here = Place(root, server)
                    data.make(kind, here.dataset, size)
                    register(here)
                    say(f"link, {rate_name}, {kind}: {size.bytes / data.MiB:.0f} MiB")
                    push = Push(server, DROPPED, here.dataset, here.home)
                    command = [*client_prefix, *way.command(push), "--force"]
                    row = _pushes(command, here, repeats)
                    best = best_choice(here.dataset, bits)
                    row |= {"bytes": size.bytes, "bits_per_second": bits, "best": best}
                    result.setdefault(rate_name, {})[kind] = row
                    if "median" in row:
                        row["ratio"] = row["median"]["seconds"] / best["seconds"]
                        say(f"  {row['median']['seconds']:.2f} s, at best {best['seconds']:.2f} s")
    return result


def _pushes(command: list[str], here: Place, repeats: int) -> dict[str, Any]:
    try:
        runs = [measure(command, environment=here.environment())[0] for _ in range(repeats)]
    except CommandError as error:
        say(f"  FAILED: {error}")
        return {"failure": str(error)}
    return {"runs": [one.as_dict() for one in runs], "median": medians(runs).as_dict()}


@contextmanager
def _namespaces(bits: int) -> Iterator[tuple[list[str], list[str]]]:
    """Two namespaces joined by a link of *bits* a second; commands that run others in them."""
    _remove_stale()
    names = [f"{_NAME}-{os.getpid()}-{end}" for end in ("server", "client")]
    interfaces = ["veth-server", "veth-client"]
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", names[0], "link", "add", interfaces[0], "type", "veth",
            "peer", "name", interfaces[1], "netns", names[1])  # fmt: skip
        for name, interface, address in zip(names, interfaces, (_SERVER, _CLIENT), strict=True):
            _ip("-n", name, "address", "add", f"{address}/30", "dev", interface)
            _ip("-n", name, "link", "set", interface, "up")
            shape = ["tc", "-n", name, "qdisc", "add", "dev", interface, "root", "tbf"]
            shape += ["rate", f"{bits}bit", "burst", str(_BURST), "latency", "50ms"]
            subprocess.run(shape, check=True)
        yield ["ip", "netns", "exec", names[0]], ["ip", "netns", "exec", names[1]]
    finally:
        for name in names:
            # What is in it goes as well, once nobody runs there any more.
            subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _remove_stale() -> None:
    """Remove what a benchmark left that was killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        name = line.split()[0] if line.split() else ""
        if name.startswith(f"{_NAME}-"):
            owner = name.split("-")[2]
            if owner.isdigit() and not Path("/proc", owner).exists():
                subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)


Compress = Callable[[bytes], int]
"""Returns how long a frame is then."""


def _codec(module: str, level: int) -> Compress:
    library = importlib.import_module(module)

    def compress(content: bytes) -> int:
        compressor = library.compressobj(level, 8, -15)
        size = len(compressor.compress(content))
        return size + len(compressor.flush(library.Z_SYNC_FLUSH))

    return compress


def codecs() -> dict[str, tuple[str, int]]:
    """Every fixed level that could be chosen: module and level."""
    found: dict[str, tuple[str, int]] = {}
    for name, module, levels in (
        ("isal", "isal.isal_zlib", range(4)),
        ("zlib-ng", "zlib_ng.zlib_ng", range(1, 10)),
        ("zlib", "zlib", (1, 3, 6, 9)),
    ):
        with suppress(ImportError):
            importlib.import_module(module)
            found |= {f"{name} {level}": (module, level) for level in levels}
    return found


def best_choice(dataset: Path, bits: int) -> dict[str, Any]:
    """The least time that any fixed level could take over a link of *bits* a second.

    Frames that do not shrink are stored at no cost. Compressing and sending go on at the same
    time, on all processors and at line rate: the longer of both is what a level takes.
    """
    frames = list(frames_of(dataset))
    step = max(1, len(frames) // _SAMPLE)
    contents = [read_frame(dataset, frame) for frame in frames[::step]]
    size = sum(piece.size for frame in frames for piece in frame)
    scale = size / sum(map(len, contents))
    rows = {"stored": _Choice(0.0, float(size)).row(bits)}
    count = processors()
    context = multiprocessing.get_context("spawn")
    with context.Pool(count, _prepare, (contents,)) as pool:
        for name, (module, level) in codecs().items():
            tasks = [(module, level, number) for number in range(len(contents))]
            tries = pool.starmap(_try_frame, tasks, chunksize=1)
            sent = sum(min(one.sent, one.size) for one in tries)
            # Of processors that others use as well, only what is used here counts.
            busy = sum(one.seconds for one in tries if one.sent < one.size * _WORTH)
            rows[name] = _Choice(busy / count * scale, sent * scale).row(bits)
    best = min(rows, key=lambda name: rows[name]["seconds"])
    return {"level": best, **rows[best], "levels": rows}


class _Choice:
    def __init__(self, compress_seconds: float, archive_bytes: float) -> None:
        self._compress_seconds = compress_seconds
        self._archive_bytes = archive_bytes

    def row(self, bits: int) -> dict[str, float]:
        send_seconds = self._archive_bytes * 8 / bits
        return {
            "seconds": max(self._compress_seconds, send_seconds),
            "compress_seconds": self._compress_seconds,
            "send_seconds": send_seconds,
            "archive_bytes": self._archive_bytes,
        }


class _Try(NamedTuple):
    seconds: float
    sent: int
    size: int


_contents: list[bytes] = []
"""What is tried, in each process."""


def _prepare(contents: list[bytes]) -> None:
    _contents[:] = contents


def _try_frame(module: str, level: int, number: int) -> _Try:
    compress = _codec(module, level)
    content = _contents[number]
    start = time.thread_time()
    sent = compress(content)
    return _Try(time.thread_time() - start, sent, len(content))
