"""Pushes and pulls of whole datasets: ours and every peer, in turn."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks import data, endpoint
from benchmarks.endpoint import DROPPED, KEPT, Endpoint
from benchmarks.measure import CommandError, Measurement, measure, medians
from benchmarks.peers import (
    OURS,
    Pull,
    Puller,
    Push,
    Pusher,
    etc_command,
    original,
    pullers,
    pushers,
    write_config,
)

_SLOW_FACTOR, _SLOW_SECONDS = 4.0, 10.0
"""Who takes so many times the fastest, and so long, is no rival, and is not run again."""
_INDEX = ".etcetera-index.jsonl"
_READ = 1 << 20
_CHECKED = replace(data.QUICK, bytes=16 * data.MiB, small_files=2000)
"""What every way to push sends once to be looked at."""


def say(text: str) -> None:
    """Tell whoever waits what is going on."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one comparison happens."""

    root: Path
    endpoint: Endpoint

    @property
    def dataset(self) -> Path:
        """What is pushed."""
        return self.root / "dataset"

    @property
    def home(self) -> Path:
        """Where our own package finds it."""
        return self.root / "home"

    def environment(self) -> dict[str, str]:
        """For every contestant: nothing of the user's own settings."""
        return environment(self.root, self.endpoint)


def environment(root: Path, server: Endpoint | None = None) -> dict[str, str]:
    """Variables for a command that keeps to *root* and to *server*."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "ETC_", "S3_", "RCLONE_"))
        and name not in ("HOME", "TMPDIR")
    }
    for name in ("user", "tmp"):
        (root / name).mkdir(exist_ok=True)
    kept |= {"HOME": str(root / "user"), "TMPDIR": str(root / "tmp")}
    # Where the package is not installed, it is beside this one.
    beside = str(Path(__file__).parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [beside, os.environ.get("PYTHONPATH")]))
    return kept | ({} if server is None else server.environment)


@contextmanager
def place(kind: str, size: data.Size, needed: int) -> Iterator[Place]:
    """A dataset, an endpoint and a home; all of it goes with the block."""
    with data.workspace(needed) as temporary:
        root = Path(temporary)
        with endpoint.running(root) as server:
            here = Place(root, server)
            data.make(kind, here.dataset, size)
            register(here)
            yield here


def register(here: Place) -> None:
    """Make the dataset known to our own package, and write its settings."""
    for bucket in (DROPPED, KEPT):
        write_config(here.root / f"{bucket}.toml", here.endpoint, bucket)
    command = [*etc_command(), "--quiet", "--config", str(here.root / f"{DROPPED}.toml")]
    command += ["--home", str(here.home), "register", str(here.dataset), "dataset"]
    subprocess.run(command, check=True, env=here.environment())


@dataclass(slots=True)
class Contestant:
    """One command that is run several times."""

    name: str
    prepare: Callable[[], list[str]]
    """Makes room for a run; returns the command."""
    finish: Callable[[], None]
    """Looks at the result of the first run, or raises CommandError."""


def in_turn(contestants: Sequence[Contestant], here: Place, repeats: int) -> dict[str, Any]:
    """Run every contestant once, then every one again, and so on.

    Returns:
        For each its runs and their medians, or why it failed.
    """
    runs: dict[str, list[Measurement]] = {one.name: [] for one in contestants}
    failures: dict[str, str] = {}
    slow: set[str] = set()
    for turn in range(repeats):
        for one in contestants:
            if one.name in failures or one.name in slow:
                continue
            command = one.prepare()
            try:
                before = here.endpoint.cpu_seconds()
                result, _ = measure(command, environment=here.environment())
                used = here.endpoint.cpu_seconds() - before
                if turn == 0:
                    one.finish()
            except CommandError as error:
                failures[one.name] = str(error)
                say(f"  {one.name}: FAILED: {error}")
                continue
            runs[one.name].append(replace(result, server_cpu_seconds=used))
            say(f"  {turn + 1}/{repeats} {one.name}: {result.seconds:.2f} s")
        done = {name: of[0].seconds for name, of in runs.items() if of}
        fastest = min(done.values(), default=0.0)
        limit = max(_SLOW_SECONDS, _SLOW_FACTOR * fastest)
        slow = {name for name, seconds in done.items() if seconds > limit and name != OURS}
    rows: dict[str, Any] = {}
    for name, of in runs.items():
        rows[name] = {"runs": [run.as_dict() for run in of]}
        if of and name not in failures:
            rows[name]["median"] = medians(of).as_dict()
        else:
            rows[name]["failure"] = failures.get(name, "it was not run")
    return rows


def compare(kind: str, size: data.Size, repeats: int, steps: Sequence[str]) -> dict[str, Any]:
    """Push and pull one kind of dataset in every way.

    Args:
        kind: Of the data.
        size: Of the data.
        repeats: Runs of each contestant.
        steps: Of ``push`` and ``pull``, those that are wanted.
    """
    package = original(Path(sys.prefix))
    if "push" in steps:
        check_pushes(kind, package)
    small = size.small_files * 8 * data.KiB  # with what a file system adds to each
    with place(kind, size, 6 * (small if kind == "small" else size.bytes)) as here:
        files, count = _extent(here.dataset)
        result: dict[str, Any] = {"bytes": count, "files": files, "where": str(here.root.parent)}
        if "push" in steps:
            say(f"push, {kind}: {count / data.MiB:.0f} MiB in {files} files")
            result["push"] = push_all(here, pushers(package), repeats)
        if "pull" in steps:
            say(f"pull, {kind}: {count / data.MiB:.0f} MiB in {files} files")
            result |= pull_all(here, package, repeats)
    return result


def push_all(here: Place, ways: Sequence[Pusher], repeats: int) -> dict[str, Any]:
    """Push the dataset to the bucket that keeps nothing, in every way."""
    push = Push(here.endpoint, DROPPED, here.dataset, here.home)
    sizes: dict[str, int | None] = {}

    def contestant(way: Pusher) -> Contestant:
        def prepare() -> list[str]:
            if not way.key.endswith("/"):
                here.endpoint.delete(DROPPED, way.key)
            return way.command(push)

        def finish() -> None:
            if way.key.endswith("/"):
                return
            sizes[way.name] = here.endpoint.size(DROPPED, way.key)
            if not sizes[way.name]:
                raise CommandError(f"{way.name} left no object {way.key}")

        return Contestant(way.name, prepare, finish)

    rows = in_turn([contestant(way) for way in ways], here, repeats)
    for way in ways:
        rows[way.name]["archive_bytes"] = sizes.get(way.name)
    return rows


def pull_all(here: Place, package: Path | None, repeats: int) -> dict[str, Any]:
    """Pull our archive and one made by ``tar | pigz``, each in every way."""
    push = Push(here.endpoint, KEPT, here.dataset, here.home)
    result: dict[str, Any] = {}
    expected = fingerprint(here.dataset)
    by_name = {way.name: way for way in pushers(None)}
    for title, way in (("pull", OURS), ("pull_pigz", "tar | pigz -1 | s5cmd pipe")):
        pusher = by_name[way]
        measure(pusher.command(push), environment=here.environment())
        ways = pullers(package, pusher.key.removesuffix(".tgz"))
        if title == "pull_pigz":
            say("pull of an archive made by tar | pigz")
        pull = Pull(here.endpoint, pusher.key, here.root / "target")
        one_by_one = [_pull_contestant(puller, pull, expected) for puller in ways]
        result[title] = in_turn(one_by_one, here, repeats)
        remove(pull.target)
        here.endpoint.delete(KEPT, pusher.key)
    return result


def _pull_contestant(way: Puller, pull: Pull, expected: str) -> Contestant:
    def prepare() -> list[str]:
        remove(pull.target)
        pull.target.mkdir()
        return way.command(pull)

    def finish() -> None:
        if fingerprint(pull.target / way.result) != expected:
            raise CommandError(f"{way.name} installed something else")

    return Contestant(way.name, prepare, finish)


def check_pushes(kind: str, package: Path | None) -> None:
    """Push a little in every way to a bucket that keeps it, and unpack it with tar.

    Raises:
        CommandError: What arrived is not what was sent.
    """
    with place(kind, _CHECKED, 10 * _CHECKED.bytes) as here:
        expected = fingerprint(here.dataset)
        push = Push(here.endpoint, KEPT, here.dataset, here.home)
        for way in pushers(package):
            try:
                measure(way.command(push), environment=here.environment())
            except CommandError as error:
                say(f"  {way.name} fails: {error}")
                continue
            target = here.root / "unpacked"
            target.mkdir()
            if way.key.endswith("/"):
                _collect(here.endpoint, way.key, target)
            else:
                _untar(here.endpoint.path(way.key), target)
                here.endpoint.delete(KEPT, way.key)
            if fingerprint(target) != expected:
                raise CommandError(f"{way.name} pushed something else")
            remove(target)


def _untar(archive: Path, target: Path) -> None:
    subprocess.run(["tar", "-C", str(target), "-xf", str(archive)], check=True)
    # An archive of a directory by its name has all its files below that.
    inside = list(target.iterdir())
    if len(inside) == 1 and inside[0].name != "data":
        for path in list(inside[0].iterdir()):
            path.rename(target / path.name)
        inside[0].rmdir()


def _collect(server: Endpoint, prefix: str, target: Path) -> None:
    for path in (server.directory / "objects" / KEPT).iterdir():
        key = unquote(path.name)
        if key.startswith(prefix):
            place = target / key.removeprefix(prefix)
            place.parent.mkdir(parents=True, exist_ok=True)
            path.rename(place)


def fingerprint(directory: Path) -> str:
    """A hash over the paths and the contents of all files, but for our index."""
    rows: list[str] = []
    for where, _, names in os.walk(directory):
        for name in names:
            path = Path(where, name)
            relative = path.relative_to(directory).as_posix()
            if relative != _INDEX:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                rows.append(f"{relative}\0{digest}")
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def _extent(directory: Path) -> tuple[int, int]:
    sizes = [
        Path(where, name).stat().st_size for where, _, names in os.walk(directory) for name in names
    ]
    return len(sizes), sum(sizes)


def remove(directory: Path) -> None:
    """Remove a tree, if it is there."""
    shutil.rmtree(directory, ignore_errors=True)
