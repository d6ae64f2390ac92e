"""The benchmark: what it makes, how it measures, what it concludes.

The peers and the server that ``make bench`` installs are not needed here.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import (
    changes,
    data,
    endpoint,
    goals,
    google,
    link,
    peers,
    resume,
    stages,
    startup,
    tables,
    transfers,
)
from benchmarks.bench_roundtrip import Watcher, copy_linked, deleted_bytes, run
from benchmarks.measure import CommandError, Measurement, measure, medians
from etcetera.dataset import Dataset
from tests.servers import S3Server, make_moto_bucket

TINY = data.Size(3 * data.MiB, 50)


@pytest.mark.parametrize("kind", data.KINDS)
def test_data_comes_from_the_seed(kind: str, tmp_path: Path) -> None:
    """The same seed gives the same valid dataset, another seed another one."""
    one, same = (data.make(kind, tmp_path / name, TINY) for name in ("one", "same"))
    other = data.make(kind, tmp_path / "other", TINY, seed=1)
    assert Dataset(one).keys() == {"train"}
    assert transfers.fingerprint(one) == transfers.fingerprint(same)
    assert transfers.fingerprint(one) != transfers.fingerprint(other)
    sizes = [path.stat().st_size for path in one.rglob("*") if path.is_file()]
    if kind == "small":
        assert len(sizes) == TINY.small_files
        assert all(512 <= size <= 3072 for size in sizes)
    else:
        assert sum(sizes) == TINY.bytes


def test_kinds_compress_as_their_names_say(tmp_path: Path) -> None:
    """Text shrinks, images do not, big files are between."""
    ratios: dict[str, float] = {}
    for kind in data.KINDS:
        # Of the long stretches of big files there have to be several.
        size = data.Size((32 if kind == "big" else 4) * data.MiB, 300)
        tree = data.make(kind, tmp_path / kind, size)
        found = link.best_choice(tree, 1000)["levels"]
        ratios[kind] = found["zlib 6"]["archive_bytes"] / found["stored"]["archive_bytes"]
    assert ratios["text"] < 0.4
    assert ratios["small"] < 0.5
    assert ratios["images"] == 1.0
    assert 0.3 < ratios["big"] < 0.95


def test_a_fingerprint_is_of_paths_and_contents(tmp_path: Path) -> None:
    """The index that other tools unpack is no part of it."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("content")
    (tmp_path / "other" / ".etcetera-index.jsonl").write_text("{}")
    assert transfers.fingerprint(tmp_path / "one") == transfers.fingerprint(tmp_path / "other")
    (tmp_path / "other" / "file").write_text("contents")
    assert transfers.fingerprint(tmp_path / "one") != transfers.fingerprint(tmp_path / "other")


def test_measuring_a_tree_of_processes() -> None:
    """Wall time, the children's processor time and the largest one's memory, not our own."""
    ballast = bytearray(os.urandom(64)) * (data.MiB * 2)  # what a child must not be charged with
    code = "x = bytearray(b'x') * (64 << 20); sum(range(4_000_000))"
    result, output = measure(["bash", "-c", f'"{sys.executable}" -c "{code}"; echo done'])
    assert output == "done\n"
    assert result.seconds > 0.05
    assert result.cpu_seconds > 0.05
    assert 64 * data.MiB < result.peak_process < len(ballast)
    assert result.peak_tree >= result.peak_process


def test_a_failing_command_is_an_error() -> None:
    """With what it said; and one that takes too long is ended, with all it started."""
    with pytest.raises(CommandError, match="exit status 3: trouble"):
        measure(["bash", "-c", "echo trouble >&2; exit 3"])
    with pytest.raises(CommandError):
        measure(["bash", "-c", "sleep 100 | sleep 100"], timeout=0.3)


def test_medians() -> None:
    """Of each column by itself."""
    runs = [Measurement(1, 9, 5, 5), Measurement(2, 8, 6, 7), Measurement(9, 1, 4, 6)]
    assert medians(runs) == Measurement(2, 8, 5, 6)


def test_commands_are_quoted(tmp_path: Path) -> None:
    """Every way to push and pull names the dataset as one word, whatever it is called."""
    place = tmp_path / "a name; with 'quotes'"
    server = endpoint.Endpoint("127.0.0.1", 1, 1, tmp_path)
    push = peers.Push(server, endpoint.DROPPED, place, tmp_path / "home")
    for pusher in peers.pushers(tmp_path):
        command = pusher.command(push)
        if command[0] == "bash":
            subprocess.run(["bash", "-n", *command[3:]], check=True)
        assert command[-1]
    pull = peers.Pull(server, "dataset.tgz", place)
    names = [puller.name for puller in peers.pullers(tmp_path, "dataset") if puller.command(pull)]
    assert names[-1] == peers.OURS
    assert len(names) == len(set(names)) == 5


def test_the_endpoint_is_for_this_machine_alone(tmp_path: Path) -> None:
    """It says what is missing, and where clients are to look for it."""
    assert endpoint.available() is None or isinstance(endpoint.available(), str)
    server = endpoint.Endpoint("127.0.0.1", 4321, os.getpid(), tmp_path)
    assert server.url == "http://127.0.0.1:4321"
    assert server.path("a/b c.tgz").name == "a%2Fb%20c.tgz"
    assert set(server.environment.values()) >= {server.url, os.devnull}


def _results() -> dict[str, Any]:
    def row(seconds: float) -> dict[str, Any]:
        one = Measurement(seconds, seconds, 100 << 20, 120 << 20).as_dict()
        return {"runs": [one], "median": one, "archive_bytes": data.MiB}

    push = {way.name: row(4.0) for way in peers.pushers(None)} | {peers.OURS: row(2.0)}
    pull = {way.name: row(3.0) for way in peers.pullers(None, "x")} | {peers.OURS: row(2.7)}
    push["s5cmd cp"] = {"runs": [], "failure": "out of order"}
    kind = {"bytes": data.GiB, "files": 9, "push": push, "pull": pull, "pull_pigz": pull}
    return {
        "machine": {
            "when": "now", "system": "Linux", "processor": "one", "processors": 2, "python": "3",
            "memory_bytes": data.GiB, "load_before": 0.0, "tools": {"tar": "1"}, "packages": {},
        },
        "options": {"repeats": 1, "quick": True},
        "kinds": {"text": kind},
        "startup": {"etc ls": row(0.1)},
        "memory": {"sizes": [
            {"bytes": data.GiB, "push": row(1)["median"], "pull": {"failure": "no room"}},
        ]},
        "link": {"failure": "for root only"},
    }  # fmt: skip


def test_goals_and_tables() -> None:
    """Ratios to the best peer, whether they are good enough, and all of it in Markdown."""
    results = _results()
    found = {goal.what: (goal.reached, goal.met) for goal in goals.goals(results)}
    assert found["push, text"] == (0.5, True)
    assert found["pull, text"] == (2.7 / 3.0, False)
    assert found["start, etc ls"] == (100.0, True)
    assert found["memory of a push, 1 GiB"] == (120.0, True)
    assert "push, text, plain copy" not in found
    text = tables.markdown(results)
    assert "| push, text | 0.5 x | 0.75 x | yes |" in text
    assert "| `s5cmd cp` | failed |" in text
    assert "no room" in text
    assert "for root only" in text


def test_the_limit_is_the_longest_stage() -> None:
    """Scaled to the dataset; what comes after compression, to the archive."""

    def stage(seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "cpu_seconds": seconds, "bytes": data.MiB, "files": 1}

    times = dict.fromkeys(stages.STAGES, 0.25) | {"compress": 1.0, "upload": 3.0}
    rates = {"processors": 2, "stages": {name: {"all": stage(t)} for name, t in times.items()}}
    whole = stages.limit(rates, stages.PUSH, 2 * data.MiB, 2 * data.MiB)
    assert (whole.longest, whole.seconds) == ("upload", 6.0)
    half = stages.limit(rates, stages.PUSH, 2 * data.MiB, data.MiB // 2)
    assert (half.longest, half.seconds) == ("compress", 2.0)
    assert half.busy_seconds == pytest.approx((2.0 + 0.5 + 0.5 + 1.5 + 0.125) / 2)


def test_the_best_choice_for_a_link(tmp_path: Path) -> None:
    """On a slow link the smallest archive, on a fast one whatever is ready first."""
    tree = data.make("text", tmp_path / "text", TINY)
    slow, fast = link.best_choice(tree, 1_000), link.best_choice(tree, 10**15)
    assert slow["level"].startswith("zlib")
    assert slow["seconds"] == pytest.approx(slow["archive_bytes"] * 8 / 1_000)
    assert fast["level"] == "stored"


def test_starting_is_measured() -> None:
    """Help, listing and completion, each as a process."""
    rows = startup.run(1)
    assert list(rows) == ["etc --help", "etc ls", "completion"]
    assert all(0 < row["median"]["seconds"] < 60 for row in rows.values())


def test_a_round_trip_of_several_directories(tmp_path: Path) -> None:
    """Each directory is a partition; nothing lies in temporary files."""
    for name in ("one", "other"):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below" / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "work").mkdir()
    results = run([tmp_path / "one", tmp_path / "other"], tmp_path / "work", None)
    assert results["identical"]
    assert results["linked"] == results["push"]["files"] == 2
    assert results["push"]["temporary_bytes"] < 100_000
    assert results["pull"]["temporary_bytes"] < 100_000


def test_copying_ends_at_the_limit(tmp_path: Path) -> None:
    """Between directories, once there is enough."""
    for name in "abc":
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "file").write_bytes(bytes(1000))
    assert copy_linked(tmp_path / "source", tmp_path / "target", 1500) == (2, 2000)


def test_deleted_files_are_noticed(tmp_path: Path) -> None:
    """A temporary file without a name counts like one with a name."""
    code = (
        "import os, sys, tempfile; f = tempfile.TemporaryFile(); f.write(bytes(300_000));"
        "f.flush(); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        deleted = 300_000 if Path("/proc").is_dir() else 0
        assert deleted_bytes(process.pid) == deleted
        (tmp_path / "named").write_bytes(bytes(1000))
        watcher = Watcher(process.pid, tmp_path)
        watcher.start()
        watcher.stop()
        assert watcher.most == deleted + 1000
        process.communicate()


def test_changes(moto: S3Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a change moves is counted on the wire: about what changed, and not everything."""
    size = 24 * data.MiB
    changes.run(moto, make_moto_bucket(moto), size, tmp_path, changes.CHANGES[:1])
    name, row = changes.CHANGES[0].name, capsys.readouterr().out.splitlines()[-1]
    new, up, _ = map(float, row.removeprefix(name).split())
    assert 0.1 < new < up < 2 * new < 1


def test_google(capsys: pytest.CaptureFixture[str]) -> None:
    """A round trip to a fake of Google Storage, and the same to S3, is measured and compared."""
    before = os.environ.get("TMPDIR")
    assert google.main(["4", "--repeats", "1", "--without-rclone"]) == 0
    assert os.environ.get("TMPDIR") == before
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[1:-2]}
    assert list(rows) == [
        f"{step}, {name}" for step in google.STEPS for name in (google.GS, "s3 (moto)")
    ]
    for name, row in rows.items():
        assert float(row[0]) > 0
        assert (float(row[1]) == 1) or not name.endswith(google.GS)
        assert 20 < float(row[-3]) < 500


def test_resume(capsys: pytest.CaptureFixture[str]) -> None:
    """A push that is killed and repeated makes the archive of a single run."""
    options = ["--google", "--megabytes", "12", "--rate", "100", "--times", "1"]
    assert resume.main(options) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("single run: 12")
    assert last.endswith("identical")
