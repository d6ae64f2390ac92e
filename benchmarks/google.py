"""A round trip over gs:// and the same over s3://: what each costs the client.

    python -m benchmarks.google [MEGABYTES] [--repeats 3] [--without-rclone]

Pushes a dataset to a fake of Google Storage, to moto and to ``rclone serve s3``, and pulls it
again, each several times in turn and in a process of its own. What is compared are processor
seconds and memory of that process. The wall time is the servers', which are slower than the client.
Of moto only little data is pulled: for each range it reads the whole archive.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import data
from benchmarks.data import GiB, MiB
from benchmarks.measure import Measurement, measure, medians
from benchmarks.peers import etc_command
from benchmarks.transfers import environment, fingerprint
from tests.servers import (
    RCLONE_BUCKET,
    S3Server,
    gs_process,
    make_moto_bucket,
    moto_server,
    rclone_server,
)

STEPS = ("start", "push", "pull")
"""To start is to ask what there is: what the other two take beside the data."""
GS = "gs (fake)"
# The same for all: by itself each would choose one that its server is as fast as.
_OPTIONS = "level = 1\n"
_MOST_OF_MOTO = 128 * MiB
"""Of larger archives, no range is asked of it."""


@dataclass(slots=True)
class Way:
    """One store that the dataset goes to and comes from."""

    name: str
    config: Path
    pulls: bool = True
    runs: dict[str, list[Measurement]] = field(default_factory=lambda: {step: [] for step in STEPS})


def s3_text(server: S3Server, bucket: str) -> str:
    """Settings for a bucket of S3."""
    return (
        f'url = "s3://{bucket}"\nendpoint_url = "{server.endpoint}"\nregion = "us-east-1"\n'
        f'aws_access_key_id = "{server.key}"\naws_secret_access_key = "{server.secret}"\n'
    )


def ways(root: Path, stack: ExitStack, size: int, *, rclone: bool) -> Iterator[Way]:
    """Start the servers, and write settings for each; they end with *stack*."""

    def way(name: str, text: str, *, pulls: bool = True) -> Way:
        path = root / f"{name.split()[0]}-{name.split()[-1].strip('()')}.toml"
        path.touch(0o600)
        path.write_text(f"{text}{_OPTIONS}")
        return Way(name, path, pulls)

    google = stack.enter_context(gs_process(root))
    yield way(
        GS,
        f'url = "gs://{google.bucket}"\nendpoint_url = "{google.endpoint}"\n'
        f'google_credentials = "{google.credentials}"\n',
    )
    moto = stack.enter_context(moto_server())
    text = s3_text(moto, make_moto_bucket(moto))
    yield way("s3 (moto)", text, pulls=size <= _MOST_OF_MOTO)
    if rclone:
        (root / "served" / RCLONE_BUCKET).mkdir(parents=True)
        server = stack.enter_context(rclone_server(root / "served"))
        yield way("s3 (rclone)", s3_text(server, RCLONE_BUCKET))


def run(root: Path, everybody: Sequence[Way], repeats: int) -> None:
    """Push and pull the dataset in *root* over every way, then over every one again, and so on."""
    dataset, variables = root / "dataset", environment(root)
    expected = fingerprint(dataset)
    for turn in range(repeats):
        for way in everybody:
            options = ["--quiet", "--config", str(way.config), "--home"]
            here, there = str(root / "here"), root / "there"
            register = [*etc_command(), *options, here, "register", str(dataset), "dataset", "-f"]
            measure(register, environment=variables)
            # The first version stays on the server: a base would be copied from where that works.
            for step, command in (
                ("start", [here, "ls", "-r"]),
                ("push", [here, "push", "dataset", "--force", "--base", ""]),
                ("pull", [str(there), "pull", "dataset"]),
            ):
                if step == "pull" and not way.pulls:
                    continue
                found, _ = measure([*etc_command(), *options, *command], environment=variables)
                way.runs[step].append(found)
                say = f"{turn + 1}/{repeats} {step} {way.name}: {found.cpu_seconds:.2f} s of CPU"
                print(say, file=sys.stderr, flush=True)
            if way.pulls and fingerprint(there / "dataset") != expected:
                raise SystemExit(f"{way.name}: what was pulled is not what was pushed")
            shutil.rmtree(there, ignore_errors=True)


def table(everybody: Sequence[Way], size: int) -> list[str]:
    """One line for each step and way: medians, and how many times those of gs are as much."""
    lines = [
        f"{'':20} {'CPU s':>6} {'gs/it':>6} {'s/GiB':>6} {'gs/it':>6} {'peak MiB':>8} {'gs/it':>6}"
        f" {'wall s':>6}",
    ]
    start = {way.name: medians(way.runs["start"]).cpu_seconds for way in everybody}
    for step in STEPS:
        rows = {}
        for way in everybody:
            if not way.runs[step]:
                continue
            one = medians(way.runs[step])
            each = (one.cpu_seconds - start[way.name]) * GiB / size
            rows[way.name] = (one.cpu_seconds, each, one.peak_process / MiB), one.seconds
        for name, (values, seconds) in rows.items():
            columns = [
                f"{value:{width}.2f} {_ratio(google, value)}"
                for value, google, width in zip(values, rows[GS][0], (6, 6, 8), strict=True)
            ]
            lines.append(f"{step + ', ' + name:20} {' '.join(columns)} {seconds:6.2f}")
    return [
        *lines,
        "CPU s: user and system time of the client; s/GiB: without what it takes to start.",
        "wall s: the servers' more than the client's; it says nothing of real stores.",
    ]


def _ratio(google: float, other: float) -> str:
    return f"{google / other:6.2f}" if other > 0 else f"{'':6}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return an exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("megabytes", type=int, nargs="?", default=1024, metavar="MEGABYTES")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without-rclone", action="store_true")
    wanted = parser.parse_args(arguments)
    size = wanted.megabytes * MiB
    with data.workspace(6 * size) as temporary, ExitStack() as stack:
        root = Path(temporary)
        # What servers write belongs there as well.
        before, tempfile.tempdir = tempfile.tempdir, temporary
        stack.callback(setattr, tempfile, "tempdir", before)
        stack.callback(_restore, "TMPDIR", os.environ.get("TMPDIR"))
        os.environ["TMPDIR"] = temporary
        data.make("images", root / "dataset", data.Size(size, 0))
        everybody = list(ways(root, stack, size, rclone=not wanted.without_rclone))
        run(root, everybody, wanted.repeats)
        print("\n".join(table(everybody, size)))
    return 0


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


if __name__ == "__main__":
    sys.exit(main())
