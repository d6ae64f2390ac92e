"""``gs://`` as users meet it: every command; processes that are killed, interrupted, or many."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import fsspec
import pytest
from aiohttp import web

import etcetera as etc
from etcetera.cli import main
from etcetera.filesystem import EtceteraFileSystem
from etcetera.transfer.journal import CHECKPOINT_BYTES
from tests.datasets import make_dataset, make_large_dataset, snapshot
from tests.fake_gs import FakeGS, fake_gs_thread, faults
from tests.fake_gs.calls import Call
from tests.fake_gs.faults import ALWAYS, Fault, Serve
from tests.signals import inherited
from tests.test_sharing import files, part_of, shell

MiB = 1 << 20
PART = 5 * MiB
SECONDS = 90.0
"""Whatever is waited for comes within so many."""
OLD = 8 * 24 * 3600.0
"""Older than what ``etc clean -r`` leaves alone."""
PREFIX = "über fix"
BIG = f"{PREFIX}/big.tgz"


@dataclass(slots=True)
class Site:
    """A server that looks at who asks, settings for it, and homes."""

    directory: Path
    server: FakeGS
    settings: Path = field(init=False)

    def __post_init__(self) -> None:
        self.server.make_bucket("bucket")
        self.server.secured = True
        key = self.directory / "key.json"
        key.write_text(json.dumps(self.server.add_account().info(self.server.endpoint)))
        self.settings = self.directory / "etc.toml"
        where = f'endpoint_url = "{self.server.endpoint}"\ngoogle_credentials = "{key}"\n'
        self.settings.write_text(
            f'url = "gs://bucket/{PREFIX}"\nhome = "{self.directory / "home"}"\n{where}'
            f"part_size = {PART}\nworkers = 2\nlevel = 0\n"
            f'[repositories.other]\nurl = "gs://bucket/other"\n{where}'
        )

    @property
    def config(self) -> etc.Config:
        """What the command line reads."""
        return etc.Config.load(self.settings)

    def home(self, name: str) -> etc.Config:
        """The same with another home."""
        return etc.Config.load(self.settings, home=self.directory / name)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start the command line."""
        return subprocess.Popen(
            [sys.executable, "-m", "etcetera", *arguments, "--config", str(self.settings)],
            env=os.environ | {"PYTHONPATH": str(Path(etc.__file__).parent.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, running: "subprocess.Popen[str]", status: int = 0) -> tuple[str, str]:
        """Wait for a process; return what it wrote."""
        try:
            output, errors = running.communicate(timeout=SECONDS)
        finally:
            running.kill()
        assert running.returncode == status, (output, errors)
        assert "Traceback" not in errors
        return output, errors

    def register(self, size: int) -> Path:
        """Make and register the large dataset."""
        source = make_large_dataset(self.directory / "source", size)
        etc.register(source, "big", config=self.config)
        return source

    def hold(self, operation: str, skip: int = 0) -> threading.Event:
        """Have the server be silent, once it has all of such a request; tell when it has one."""
        reached = threading.Event()

        async def fault(call: Call, serve: Serve) -> web.StreamResponse:
            await call.body()
            reached.set()
            return await faults.stall()(call, serve)

        self.server.plan(operation, fault, skip=skip, times=ALWAYS)
        return reached

    def wait_for(self, running: "subprocess.Popen[str]", found: Callable[[], object]) -> None:
        """Wait until something is so while a process runs."""
        deadline = time.monotonic() + SECONDS
        while not found():
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def checkpoints(self) -> list[Path]:
        """What pushes can go on from."""
        return list(self.directory.glob("home/.etcetera/journals/*/checkpoint"))

    def sent(self) -> int:
        """Bytes of parts that have come to the server, whatever it did with them."""
        return sum(seen.size for seen in self.server.requests if seen.operation == "xml.part")

    def kept(self) -> dict[str, bytes]:
        """Every object in the bucket."""
        return {name: blob.data for name, blob in self.server.buckets["bucket"].objects.items()}

    def uploads(self) -> int:
        """How many are neither completed nor aborted."""
        return len(self.server.buckets["bucket"].uploads)

    def age(self) -> None:
        """Make everything in the bucket old."""
        bucket = self.server.buckets["bucket"]
        for upload in bucket.uploads.values():
            upload.started -= OLD
            for part in upload.parts.values():
                part.at -= OLD
        for blob in bucket.objects.values():
            blob.created -= OLD

    def assert_only(self, *names: str) -> None:
        """See that nothing else is in the bucket."""
        assert set(self.kept()) == set(names)
        assert self.uploads() == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An empty repository, and processes that can be interrupted."""
    with fake_gs_thread() as server, inherited({signal.SIGINT: signal.SIG_DFL}):
        yield Site(tmp_path, server)


# Every command


@dataclass(slots=True)
class Shell:
    """The command line, in this process."""

    site: Site
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, home: str = "home", status: int = 0) -> str:
        """Give a command that ends like this; return what it printed."""
        options = ["--config", str(self.site.settings), "--home", str(self.site.directory / home)]
        found = main([*options, *arguments])
        output = self.capsys.readouterr()
        assert found == status, (output.out, output.err)
        return output.out

    def push(self) -> int:
        """Push the large dataset; return how many bytes had been sent before."""
        return int(json.loads(self("push", "big", "--json"))["resumed"])


@pytest.fixture
def command(site: Site, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line."""
    return Shell(site, capsys)


@pytest.fixture
def shown(site: Site, command: Shell) -> Shell:
    """The command line, with a dataset that is pushed."""
    flower = make_dataset(site.directory / "flower")
    command("register", str(flower))
    assert "Would push flower" in command("push", "flower", "--dry-run")
    assert site.kept() == {}
    pushed = command("push", "flower")
    assert pushed.startswith(f"Pushed flower: gs://bucket/{PREFIX}/flower.tgz\n")
    command("push", "flower", status=4)
    return command


def test_looking(site: Site, shown: Shell) -> None:
    """What is in the repository is listed, described, read and checked."""
    assert shown("ls", "-r") == "flower\n"
    assert shown("ls", "-r", "--long").startswith("flower\t")
    assert "test" in shown("ls", "-r", "flower")
    assert "rose.txt" in shown("ls", "-r", "--long", "flower", "data/train")
    assert shown("cat", "-r", "flower", "data/train/rose.txt") == "rose\n" * 1000
    assert "train" in shown("du", "-r", "flower")
    assert "colour: red" in shown("info", "-r", "flower")
    assert "  data/train/rose.txt\n" in shown("info", "-r", "flower", "--checksums")
    shown("verify", "-r", "flower")
    assert shown("status") == f"flower\tsame\tgs://bucket/{PREFIX}\n"
    assert "Nothing to remove" in shown("clean", "-r")
    shown("doctor")
    shown("doctor", "--write")
    site.assert_only(f"{PREFIX}/flower.tgz")
    data = bytearray(site.server.data("bucket", f"{PREFIX}/flower.tgz"))
    data[len(data) // 3] ^= 1
    site.server.put("bucket", f"{PREFIX}/flower.tgz", bytes(data))
    shown("verify", "-r", "flower", status=7)


def test_pulling(site: Site, shown: Shell) -> None:
    """All of it, a partition, more of it, one version; and exactly what a lock file names."""
    flower = snapshot(site.directory / "flower")
    (site.directory / "etc.lock").write_text(shown("lock"))
    shown("pull", "flower", home="whole")
    assert snapshot(site.directory / "whole" / "flower") == flower
    shown("pull", "flower", "--partition", "test", home="part")
    dataset = site.directory / "part" / "flower"
    assert {path.name for path in (dataset / "data").iterdir()} == {"test"}
    shown("pull", "flower", "--include", "data/train/*.txt", "--exclude", "**/na*", home="part")
    assert {path.name for path in (dataset / "data" / "train").iterdir()} == {"rose.txt"}
    shown("pull", "flower", home="part")
    assert snapshot(dataset) == flower
    lock = str(site.directory / "etc.lock")
    assert shown("sync", lock, "--dry-run", home="sync") == "Would pull flower\n"
    assert shown("sync", lock, home="sync") == "Pulled flower\n"
    assert shown("status", home="sync") == f"flower\tsame\tgs://bucket/{PREFIX}\n"
    shown("pull", "flower", "--digest", f"sha256:{'0' * 64}", home="none", status=7)
    shown("pull", "other:flower", home="none", status=3)
    shown("purge", "flower", home="whole")
    assert shown("ls", home="whole") == ""
    assert shown("ls", "-r") == "flower\n"


def test_new_version(site: Site, shown: Shell) -> None:
    """In the place of the old one everything is sent, and it is said why."""
    shown("pull", "flower", home="whole")
    (site.directory / "flower" / "data" / "train" / "new").write_text("tulip")
    assert shown("status").startswith("flower\tchanged\t")
    assert "copies no parts" in shown("push", "flower", "--force", "--dry-run")
    assert "copies no parts" in shown("push", "flower", "--force")
    shown("register", str(site.directory / "flower"), "as", "second")
    assert "copies no parts" in shown("push", "second", "--base", "flower")
    assert shown("status", home="whole").startswith("flower\tolder\t")
    shown("pull", "flower", "--force", home="whole")
    assert snapshot(site.directory / "whole" / "flower") == snapshot(site.directory / "flower")
    site.assert_only(f"{PREFIX}/flower.tgz", f"{PREFIX}/second.tgz")


@pytest.mark.parametrize("partition", [None, "train"])
def test_sharing(site: Site, shown: Shell, partition: str | None) -> None:
    """A link is followed by curl and tar, by the command line, and from Python."""
    whole = snapshot(site.directory / "flower")
    expected = part_of(whole, partition) if partition else whole
    options = [] if partition is None else ["--partition", partition]
    link, command = shown("share", "flower", "--expires", "1h", *options).splitlines()
    done = shell(command, site.directory / "plain")
    assert done.returncode == 0, done.stderr
    (site.directory / "plain" / ".etcetera-index.jsonl").unlink(missing_ok=True)
    assert files(snapshot(site.directory / "plain")) == files(expected)
    nobody = etc.Config(None, site.directory / "nobody")
    assert main(["--home", str(nobody.home), "pull", link]) == 0
    found = snapshot(nobody.home / "flower")
    assert (part_of(found, partition) if partition else found) == expected
    pulled = etc.pull(link, config=etc.Config(None, site.directory / "python"))
    assert snapshot(pulled.path) == found
    site.server.clock = lambda: time.time() + 3700
    assert main(["--home", str(site.directory / "late"), "pull", link]) != 0
    site.server.clock = time.time


async def test_from_python(site: Site) -> None:
    """Datasets that come when they are opened, and single files by fsspec."""
    flower = make_dataset(site.directory / "flower")
    await etc.aregister(flower, config=site.config)
    pushed = await etc.apush("flower", config=site.config)
    found = await etc.adataset("flower", auto_install=True, config=site.home("one"))
    assert snapshot(found.root) == snapshot(flower)
    other = site.home("two")
    blocking = await asyncio.to_thread(
        lambda: etc.dataset("flower", auto_install=True, digest=pushed.digest, config=other)
    )
    assert snapshot(blocking.root) == snapshot(flower)
    EtceteraFileSystem.clear_instance_cache()
    system = fsspec.filesystem("etc", config=site.home("three"))
    try:
        read = await asyncio.to_thread(system.cat_file, "flower/data/train/rose.txt")
        assert read == b"rose\n" * 1000
        names = await asyncio.to_thread(system.ls, "flower/data", detail=False)
        assert sorted(names) == ["flower/data/test", "flower/data/train"]
    finally:
        await asyncio.to_thread(system.invalidate_cache)
        EtceteraFileSystem.clear_instance_cache()
    assert not (site.directory / "three" / "flower").exists()


# Killed, interrupted, many


def test_killed_while_sending(site: Site, command: Shell) -> None:
    """UP-11: after kill -9 the same push goes on, and makes what one go would have made."""
    size = 120 * MiB
    site.register(size)
    command("push", "big", "--repository", "other", "--quiet")
    whole, once = site.kept()["other/big.tgz"], site.sent()
    assert size < once < size + PART
    reached = site.hold("xml.part", skip=CHECKPOINT_BYTES // PART + 2)
    with site.start("push", "big") as running:
        site.wait_for(running, lambda: reached.is_set() and site.checkpoints())
        running.kill()
    site.server.rules.clear()
    assert BIG not in site.kept()
    assert site.uploads() == 1
    # What somebody may still be sending is left alone; what could be gone on with is only named.
    assert "Nothing to remove" in command("clean", "-r")
    assert "the same push goes on from there" in command("clean")
    site.age()
    assert "would remove  upload  big" in command("clean", "-r", "--dry-run")
    assert site.uploads() == 1
    assert command.push() >= CHECKPOINT_BYTES
    assert site.sent() - once < 1.3 * once
    assert site.kept()[BIG] == whole
    site.assert_only(BIG, "other/big.tgz")
    assert command("clean") == "Nothing to remove\n"


def test_killed_and_dropped(site: Site, command: Shell) -> None:
    """UP-10: what a killed push left is removed, once it is old, and the next begins anew."""
    site.register(12 * MiB)
    reached = site.hold("xml.part", skip=1)
    with site.start("push", "big") as running:
        site.wait_for(running, reached.is_set)
        running.kill()
    site.server.rules.clear()
    assert "Nothing to remove" in command("clean", "-r")
    assert site.uploads() == 1
    site.age()
    assert "removed  upload  big" in command("clean", "-r")
    assert site.uploads() == 0
    assert command.push() == 0
    site.assert_only(BIG)


@pytest.mark.parametrize("size", [12 * MiB, 80 * MiB], ids=["no journal", "journal"])
def test_killed_before_the_name(site: Site, command: Shell, size: int) -> None:
    """UP-09: with all bytes in one object, but not under its name yet, the next push just works.

    Who has a journal sends none of them again.
    """
    source = site.register(size)
    reached = site.hold("objects.move")
    with site.start("push", "big") as running:
        site.wait_for(running, reached.is_set)
        running.kill()
    site.server.rules.clear()
    (left,) = site.kept()
    assert left.startswith(f"{PREFIX}/.etcetera/big.tgz/")
    assert command("ls", "-r") == ""
    assert bool(site.checkpoints()) == (size > CHECKPOINT_BYTES)
    sent = site.server.count("xml.part")
    assert (command.push() == 0) == (size < CHECKPOINT_BYTES)
    assert (site.server.count("xml.part") == sent) == (size > CHECKPOINT_BYTES)
    if size < CHECKPOINT_BYTES:  # nobody knows of it
        site.assert_only(BIG, left)
        assert "Nothing to remove" in command("clean", "-r")
        site.age()
        assert "removed  upload  big" in command("clean", "-r")
    site.assert_only(BIG)
    assert command("clean") == "Nothing to remove\n"
    pulled = etc.pull("big", config=site.home("whole"))
    assert snapshot(pulled.path) == snapshot(source)


@pytest.mark.parametrize("size", [12 * MiB, 80 * MiB], ids=["at once", "after 64 MiB"])
def test_interrupted(site: Site, command: Shell, size: int) -> None:
    """UP-08: Ctrl-C leaves nothing, or what the next push goes on from, and says how much."""
    site.register(size)
    after = CHECKPOINT_BYTES // PART + 2 if size > CHECKPOINT_BYTES else 1
    reached = site.hold("xml.part", skip=after)
    with site.start("push", "big") as running:
        enough = after == 1
        site.wait_for(running, lambda: reached.is_set() and (enough or site.checkpoints()))
        running.send_signal(signal.SIGINT)
        output, errors = site.finish(running, 130)
    site.server.rules.clear()
    assert output == ""
    assert "interrupted" in errors.lower()
    assert ("65 MiB are in the repository: give the same command again" in errors) != enough
    assert site.uploads() == (not enough)
    assert site.kept() == {}
    assert (command.push() == 0) == enough
    site.assert_only(BIG)


def test_ten_at_once(site: Site) -> None:
    """FR-02: of ten processes that publish one name at one moment, one does, and nine are told."""
    pushers, made = 10, []
    meet = asyncio.Barrier(pushers)

    async def together(call: Call, serve: Serve) -> web.StreamResponse:
        await call.body()
        await asyncio.wait_for(meet.wait(), SECONDS)
        return await serve()

    fault: Fault = together
    site.server.plan("objects.move", fault, times=pushers)
    for number in range(pushers):
        source = make_large_dataset(site.directory / str(number), 6 * MiB + number)
        etc.register(source, "big", config=site.home(f"home{number}"))
    running = [
        site.start("push", "big", "--json", "--home", str(site.directory / f"home{number}"))
        for number in range(pushers)
    ]
    for number, process in enumerate(running):
        output, errors = process.communicate(timeout=SECONDS)
        assert process.returncode in (0, 4), (output, errors)
        assert "Traceback" not in errors
        if process.returncode == 0:
            made.append(number)
        else:
            assert json.loads(errors)["error"] == "AlreadyExists"
    assert len(made) == 1
    site.assert_only(BIG)
    pulled = etc.pull("big", config=site.home("whole"))
    assert snapshot(pulled.path) == snapshot(site.directory / str(made[0]))
