"""Worker processes: the same work, and no trace of them afterwards."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.errors import CorruptArchive, SourceChanged, StoreError
from etcetera.stores.memory import memory_store
from etcetera.transfer import flow, workers
from etcetera.transfer.codec import Frame
from etcetera.transfer.extract import Extractor
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.pack import Group, open_root
from etcetera.transfer.scan import scan
from etcetera.transfer.tar import Entry
from tests.datasets import make_dataset, settle, snapshot


def children() -> list[int]:
    """Processes that this one has started and not waited for."""
    found: list[int] = []
    for thread in Path("/proc/self/task").iterdir():
        with suppress(
            FileNotFoundError, ProcessLookupError
        ):  # A thread, or a child, that has just ended.
            listed = (thread / "children").read_text().split()
            names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in listed}
            found += [pid for pid, name in names.items() if b"etcetera.transfer.worker" in name]
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset of every kind of entry, with some more small files."""
    root = make_dataset(tmp_path / "source")
    for number in range(300):
        (root / "data" / "train" / f"{number:04}").write_text(f"{number}\n" * number)
    settle(root)
    return root


def test_round_trip(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What processes pack is byte for byte what threads pack, and they unpack it as well."""
    own = etc.Config(f"memory://{tmp_path.name}", tmp_path / "home", threads=2, level=1)
    other = etc.Config(own.url, tmp_path / "other", threads=2, level=1)
    etc.register(source, "x", config=own)
    etc.push("x", config=own)
    store = memory_store(f"memory://{tmp_path.name}")
    expected = store.objects["x.tgz"][1]
    monkeypatch.setattr(flow, "_MANY_FILES", 10)
    packed: list[int] = []
    real = workers.Workers.pack

    def pack(
        self: workers.Workers, entries: list[Entry], level: int
    ) -> tuple[Frame, list[PackedMember]]:
        packed.append(len(entries))
        return real(self, entries, level)

    monkeypatch.setattr(workers.Workers, "pack", pack)
    etc.push("x", force=True, config=own)
    assert packed
    assert store.objects["x.tgz"][1] == expected
    assert snapshot(etc.pull("x", config=other).path) == snapshot(source)
    assert not children()


def test_errors_cross_over(source: Path, tmp_path: Path) -> None:
    """An error in a process comes out as the same exception with the same text."""
    entries = [entry for entry in scan(source).entries() if entry.path.endswith("rose.txt")]
    (source / "data" / "train" / "rose.txt").write_text("changed")
    with (
        workers.workers(1, "pack", os.fsencode(source)) as crew,
        pytest.raises(SourceChanged, match="rose"),
    ):
        assert crew is not None
        crew.pack(entries, 1)
    assert not children()
    (tmp_path / "tree").mkdir()
    extractor = Extractor(tmp_path / "tree")
    with workers.workers(1, "unpack", os.fsencode(tmp_path / "tree")) as crew:
        assert crew is not None
        assert crew.unpack(b"", 0, [], extractor) == 0
    extractor.close()


def test_same_as_here(source: Path) -> None:
    """One group gives the same frame and members in a process and in this one."""
    entries = list(scan(source).entries())[:50]
    root = open_root(source)
    here = Group(entries).pack(root, 1)
    os.close(root)
    with workers.workers(2, "pack", os.fsencode(source)) as crew:
        assert crew is not None
        assert crew.pack(entries, 1) == here


def test_killed_worker(source: Path) -> None:
    """A process that is killed is an error that says so, and the others still end."""
    with (
        workers.workers(2, "pack", os.fsencode(source)) as crew,
        pytest.raises(StoreError, match="-9"),
    ):
        assert crew is not None
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        crew.pack(list(scan(source).entries())[:5], 1)
    assert not children()


def test_nothing_to_start(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started, as in a program that embeds Python, threads do it."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with workers.workers(2, "pack", os.fsencode(source)) as crew:
        assert crew is None
    monkeypatch.setattr(flow, "_MANY_FILES", 10)
    config = etc.Config(f"memory://{tmp_path.name}", tmp_path / "home", threads=2, level=1)
    etc.register(source, "x", config=config)
    assert etc.push("x", config=config).files > 300


def test_current_directory_is_not_imported(source: Path, tmp_path: Path) -> None:
    """Modules that lie in the current directory, whoever put them there, are not run."""
    for name in ("marshal", "hashlib", "json", "struct", "etcetera"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(1)\n")
    code = (
        "import os, sys\n"
        "from etcetera.transfer import workers\n"
        "os.chdir(sys.argv[1])\n"
        "with workers.workers(1, 'pack', os.fsencode(sys.argv[2])) as crew:\n"
        "    assert crew is not None\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path, source], check=True)
    assert not (tmp_path / "ran").exists()


def test_damaged_frame(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process refuses is refused; nothing is installed and no process is left."""
    monkeypatch.setattr(flow, "_MANY_FILES", 10)
    config = etc.Config(f"memory://{tmp_path.name}", tmp_path / "home", threads=2, level=1)
    etc.register(source, "x", config=config)
    etc.push("x", config=config)
    etc.purge("x", config)
    store = memory_store(f"memory://{tmp_path.name}")
    info, data = store.objects["x.tgz"]
    store.objects["x.tgz"] = (info, data[:500] + bytes([data[500] ^ 4]) + data[501:])
    with pytest.raises(CorruptArchive, match=r"x\.tgz"):
        etc.pull("x", config=config)
    assert etc.ls(config=config) == []
    assert not children()
