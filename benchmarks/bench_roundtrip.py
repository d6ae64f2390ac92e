"""A round trip of real trees through a real S3 server: time, memory, and nothing in between.

Pushes directories to ``rclone serve s3`` and pulls them into another home, each in a process of
its own, and reports the seconds, the CPU seconds and the peak memory of both. Fails if the trees
differ, if either needs more than 256 MiB, or if more than 16 MiB lay in temporary files at any
time, whether they had a name or were deleted already.

    python -m benchmarks.bench_roundtrip [DIRECTORY...]

Each directory becomes a partition of one dataset, without a copy: files are hard-linked where
links cannot be packed. Without any, what this interpreter has installed is taken, and as much of
the system's libraries as makes 1 GiB.
"""

import argparse
import filecmp
import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.measure import tree
from tests.servers import rclone_server

MiB = 1 << 20
MEMORY_LIMIT = 256 * MiB
TEMPORARY_LIMIT = 16 * MiB
"""Far less than the archive: a copy of it would be noticed."""
DEFAULT_BYTES = 1024 * MiB
_SYSTEM = ("/usr/lib", "/usr/share", "/Library/Frameworks")
_EVERY_SECONDS = 0.05


def main() -> int:
    """Run the round trip; return an exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true", help="results as JSON")
    arguments = parser.parse_args()
    limit = None if arguments.directory else DEFAULT_BYTES
    directories = arguments.directory or [
        Path(sysconfig.get_path("data")),
        Path(sysconfig.get_path("stdlib")),
        *(path for path in map(Path, _SYSTEM) if path.is_dir()),
    ]
    with tempfile.TemporaryDirectory(prefix="etcetera-bench-") as temporary:
        results = run(directories, Path(temporary), limit)
    steps = [results["push"], results["pull"]]
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for name, row in zip(("push", "pull"), steps, strict=True):
            print(
                f"{name}: {row['bytes'] / MiB:.0f} MiB in {row['files']} files as "
                f"{row['archive_bytes'] / MiB:.0f} MiB, {row['seconds']:.1f} s, "
                f"{row['cpu_seconds']:.1f} s CPU, peak {row['peak_bytes'] / MiB:.0f} MiB, "
                f"at most {row['temporary_bytes']} bytes in temporary files"
            )
        print("identical trees" if results["identical"] else "THE TREES DIFFER")
    bounded = all(row["peak_bytes"] <= MEMORY_LIMIT for row in steps)
    bare = all(row["temporary_bytes"] <= TEMPORARY_LIMIT for row in steps)
    return 0 if results["identical"] and bounded and bare else 1


def run(directories: Sequence[Path], temporary: Path, limit: int | None) -> dict[str, Any]:
    """Push and pull *directories*; everything is written below *temporary*.

    Args:
        directories: What becomes the partitions.
        temporary: An empty directory.
        limit: Bytes after which no more files are taken.
    """
    dataset = temporary / "dataset"
    linked = size = 0
    for number, directory in enumerate(directories):
        if limit is None or size < limit:
            partition = dataset / "data" / f"{number}-{directory.name or 'root'}"
            left = None if limit is None else limit - size
            count, more = copy_linked(directory, partition, left)
            linked, size = linked + count, size + more
    (temporary / "served" / "bucket").mkdir(parents=True)
    with rclone_server(temporary / "served") as server:
        config = temporary / "etc.toml"
        config.touch(0o600)
        config.write_text(
            f'url = "s3://bucket"\nendpoint_url = "{server.endpoint}"\n'
            f'aws_access_key_id = "{server.key}"\naws_secret_access_key = "{server.secret}"\n'
        )
        etc(config, temporary / "home", temporary, "register", str(dataset), "tree")
        push = etc(config, temporary / "home", temporary, "push", "tree")
        pull = etc(config, temporary / "other", temporary, "pull", "tree")
    return {
        "linked": linked,
        "push": push,
        "pull": pull,
        "identical": identical(dataset, temporary / "other" / "tree"),
    }


def copy_linked(source: Path, target: Path, limit: int | None = None) -> tuple[int, int]:
    """Make a tree of hard links (or copies, across file systems) to the files below *source*.

    Returns:
        How many files there are now, and their bytes.
    """
    count = size = 0
    for where, below, files in os.walk(source):
        below.sort()
        if limit is not None and size >= limit:
            break
        directory = target / Path(where).relative_to(source)
        directory.mkdir(parents=True, exist_ok=True)
        for name in sorted(files):
            path = Path(where, name)
            if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
                continue
            try:
                os.link(path, directory / name)
            except OSError:
                shutil.copy2(path, directory / name)
            count += 1
            size += (directory / name).stat().st_size
    return count, size


def etc(config: Path, home: Path, temporary: Path, *arguments: str) -> dict[str, Any]:
    """Run one command of etcetera; return its results with what it cost."""
    scratch = temporary / "tmp"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "etcetera", "--json", "--config", str(config)]
    command += ["--home", str(home), *arguments]
    environment = {**os.environ, "TMPDIR": str(scratch), "AWS_EC2_METADATA_DISABLED": "true"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        watcher = Watcher(process.pid, scratch)
        watcher.start()
        output = process.stdout.read() if process.stdout is not None else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    watcher.stop()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    result: dict[str, Any] = json.loads(output) if output.strip() else {}
    result["cpu_seconds"] = usage.ru_utime + usage.ru_stime
    result["peak_bytes"] = usage.ru_maxrss * 1024
    result["temporary_bytes"] = watcher.most
    return result


class Watcher(threading.Thread):
    """Adds up temporary files while a process runs: those in a directory, and deleted ones."""

    def __init__(self, process: int, scratch: Path) -> None:
        super().__init__(daemon=True)
        self.most = 0
        """Bytes at the worst time."""
        self._process = process
        self._scratch = scratch
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look again and again."""
        while not self._stopped.wait(_EVERY_SECONDS):
            self._look()

    def stop(self) -> None:
        """Look a last time."""
        self._stopped.set()
        self.join()
        self._look()

    def _look(self) -> None:
        size = 0
        for path in self._scratch.rglob("*"):
            with suppress(OSError):
                status = path.lstat()
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
        for process in tree(self._process):
            size += deleted_bytes(process)
        self.most = max(self.most, size)


def deleted_bytes(process: int) -> int:
    """What the files hold that *process* has open and nobody can name any more."""
    sizes: dict[tuple[int, int], int] = {}
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                status = descriptor.stat()
                if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                    sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def identical(one: Path, other: Path) -> bool:
    """Whether two trees have the same files with the same bytes."""
    names = {path.relative_to(one) for path in one.rglob("*")}
    if names != {path.relative_to(other) for path in other.rglob("*")}:
        return False
    files = [str(name) for name in names if (one / name).is_file()]
    _, mismatch, errors = filecmp.cmpfiles(one, other, files, shallow=False)
    return not (mismatch or errors)


if __name__ == "__main__":
    sys.exit(main())
