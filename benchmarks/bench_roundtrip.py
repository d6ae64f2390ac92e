"""A round trip of a real tree through a real S3 server: time, memory, and nothing in between.

Pushes a directory to ``rclone serve s3`` and pulls it into another home, each in a process of its
own, and reports the seconds, the CPU seconds and the peak memory of both. Fails if the trees
differ, if either needs more than 256 MiB, or if more than the pulled tree itself was written to
the temporary directory and the home.

    python -m benchmarks.bench_roundtrip [DIRECTORY]

By default the directory is what this interpreter has installed; it is registered as the only
partition of a dataset, without a copy. Files are hard-linked where links cannot be packed.
"""

import argparse
import filecmp
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from tests.servers import rclone_server

MiB = 1 << 20
LIMIT = 256 * MiB


def main() -> int:
    """Run the round trip; return an exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("directory", nargs="?", type=Path, default=Path(sysconfig.get_path("data")))
    parser.add_argument("--json", action="store_true", help="results as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="etcetera-bench-") as temporary:
        results = run(arguments.directory, Path(temporary))
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for step in ("push", "pull"):
            row = results[step]
            print(
                f"{step}: {row['bytes'] / MiB:.0f} MiB in {row['files']} files as "
                f"{row['archive_bytes'] / MiB:.0f} MiB, {row['seconds']:.1f} s, "
                f"{row['cpu_seconds']:.1f} s CPU, peak {row['peak_bytes'] / MiB:.0f} MiB, "
                f"largest temporary file {row['temporary_bytes']} bytes"
            )
        print("identical trees" if results["identical"] else "THE TREES DIFFER")
    worst = max(results[step]["peak_bytes"] for step in ("push", "pull"))
    return 0 if results["identical"] and worst <= LIMIT else 1


def run(directory: Path, temporary: Path) -> dict[str, object]:
    """Push and pull *directory*; everything is written below *temporary*."""
    dataset = temporary / "dataset"
    linked = copy_linked(directory, dataset / "data" / "files")
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


def copy_linked(source: Path, target: Path) -> int:
    """Make a tree of hard links (or copies, across file systems) to the files below *source*."""
    count = 0
    for where, _, files in os.walk(source):
        below = target / Path(where).relative_to(source)
        below.mkdir(parents=True, exist_ok=True)
        for name in files:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                try:
                    os.link(path, below / name)
                except OSError:
                    shutil.copy2(path, below / name)
                count += 1
    return count


def etc(config: Path, home: Path, temporary: Path, *arguments: str) -> dict[str, object]:
    """Run one command of etcetera; return its results with what it cost."""
    scratch = temporary / "tmp"
    scratch.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "etcetera", "--json", "--config", str(config)]
    command += ["--home", str(home), *arguments]
    environment = {**os.environ, "TMPDIR": str(scratch), "AWS_EC2_METADATA_DISABLED": "true"}
    largest = 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    largest = max((path.stat().st_size for path in scratch.rglob("*")), default=0)
    result: dict[str, object] = json.loads(output) if output.strip() else {}
    result["cpu_seconds"] = usage.ru_utime + usage.ru_stime
    result["peak_bytes"] = usage.ru_maxrss * 1024
    result["temporary_bytes"] = largest
    return result


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
