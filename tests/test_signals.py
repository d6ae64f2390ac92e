"""Ctrl-C on the command line, in every phase of a push and of a pull."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import etcetera as etc
from etcetera.findings import RESERVED
from tests.datasets import make_large_dataset, settle, snapshot
from tests.servers import S3Server, make_moto_bucket
from tests.signals import inherited
from tests.slow_server import Hold, SlowProxy, slow_proxy
from tests.test_cancellation import without_index

MiB = 1 << 20
SECONDS = 8.0
"""An interrupted process has to end within so many; it takes a fraction, but machines are busy."""

SLOW = """
import os, sys, time

real = {function}

def slow(*arguments, **options):
    frame, names = sys._getframe(1), []
    while frame is not None:
        names.append(frame.f_code.co_filename.rpartition(os.sep)[2])
        frame = frame.f_back
    if {caller!r} in names:
        open({marker!r}, "w").close()
        time.sleep({seconds})
    return real(*arguments, **options)

{function} = slow
"""
"""A module that Python imports at the start: it makes one call of the system take its time."""


@dataclass(slots=True)
class Site:
    """A home, a bucket and what is between them."""

    directory: Path
    proxy: SlowProxy
    bucket: str
    source: Path

    @property
    def home(self) -> Path:
        """Where datasets are."""
        return self.directory / "home"

    @property
    def config(self) -> etc.Config:
        """What the command line is told by its environment."""
        return etc.Config(
            f"s3://{self.bucket}",
            self.home,
            endpoint_url=self.proxy.endpoint,
            region="us-east-1",
            part_size="5MiB",
            workers=2,
        )

    def start(self, *arguments: str, slow: str = "") -> "subprocess.Popen[str]":
        """Start the command line."""
        path = [str(Path(etc.__file__).parent.parent)]
        if slow:
            (self.directory / "slow").mkdir()
            (self.directory / "slow" / "sitecustomize.py").write_text(slow)
            path.insert(0, str(self.directory / "slow"))
        settings = self.directory / "etc.toml"
        settings.write_text(
            f'url = "s3://{self.bucket}"\nhome = "{self.home}"\nregion = "us-east-1"\n'
            f'endpoint_url = "{self.proxy.endpoint}"\npart_size = "5MiB"\nworkers = 2\n'
        )
        return subprocess.Popen(
            [sys.executable, "-m", "etcetera", *arguments, "--config", str(settings)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def interrupt(
        self, running: "subprocess.Popen[str]", then: Callable[[], object] = lambda: None
    ) -> None:
        """Send SIGINT, and see that the process ends as it should."""
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        then()
        try:
            output, errors = running.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGABRT)  # it says where each of its threads is
            pytest.fail(f"It does not end: {running.communicate()}")
        assert time.monotonic() - began < SECONDS
        assert (running.returncode, output) == (130, ""), errors
        assert "Traceback" not in errors
        assert "interrupted" in errors.lower()
        assert self.open_uploads() == 0
        if self.proxy.hold is not None:
            self.proxy.hold.go_on.set()
        self.proxy.hold = None

    def open_uploads(self) -> int:
        """How many uploads the server knows."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        connection.request("GET", f"/{self.bucket}?uploads")
        text = connection.getresponse().read()
        connection.close()
        assert b"ListMultipartUploadsResult" in text
        return text.count(b"<UploadId>")

    def put(self, data: bytes) -> None:
        """Store an archive, past the proxy."""
        connection = http.client.HTTPConnection(self.proxy.upstream, timeout=30)
        connection.request("PUT", f"/{self.bucket}/big.tgz", data)
        assert connection.getresponse().status == 200
        connection.close()

    def staged(self) -> list[Path]:
        """What is left of trees being built."""
        staging = self.home / ".etcetera" / "staging"
        return list(staging.iterdir()) if staging.exists() else []


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A dataset of several parts, and its archive."""
    directory = tmp_path_factory.mktemp("signals")
    (directory / "repository").mkdir()
    source = make_large_dataset(directory / "source", 12 * MiB, files=12)
    config = etc.Config((directory / "repository").as_uri(), directory / "home")
    etc.register(source, "big", config=config)
    etc.push("big", config=config)
    return source, (directory / "repository" / "big.tgz").read_bytes()


@pytest.fixture
def site(tmp_path: Path, moto: S3Server, archive: tuple[Path, bytes]) -> Iterator[Site]:
    """A home without datasets and an empty bucket; processes that can be interrupted."""
    with (
        inherited({signal.SIGINT: signal.SIG_DFL}),
        slow_proxy(moto.endpoint) as proxy,
    ):
        yield Site(tmp_path, proxy, make_moto_bucket(moto), archive[0])


def wait_for(path: Path, running: "subprocess.Popen[str]") -> None:
    """Wait until a file is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_scanning(site: Site, tmp_path: Path) -> None:
    """Interrupted while it looks at many files, a push has sent nothing, and can be repeated."""
    source = tmp_path / "many"
    for number in range(200):
        directory = source / "data" / "train" / f"{number:03}"
        directory.mkdir(parents=True)
        for name in "abcde":
            (directory / name).touch()
    settle(source)
    etc.register(source, "many", config=site.config)
    marker = tmp_path / "marker"
    slow = SLOW.format(function="os.scandir", caller="scan.py", marker=str(marker), seconds=0.01)
    with site.start("push", "many", slow=slow) as running:
        wait_for(marker, running)
        site.interrupt(running)
    assert etc.ls(True, site.config) == []
    assert etc.push("many", config=site.config).files == 1000


PUSHING = [
    pytest.param(Hold("HEAD"), id="looking"),
    pytest.param(Hold("POST", "uploads"), id="beginning"),
    pytest.param(Hold("PUT", "partNumber"), id="sending"),
    pytest.param(Hold("PUT", "partNumber=3"), id="sending the last"),
]


@pytest.mark.parametrize("hold", PUSHING)
def test_pushing(site: Site, hold: Hold) -> None:
    """UP-08: interrupted while the server is silent, a push leaves nothing; it can be repeated."""
    etc.register(site.source, "big", config=site.config)
    site.proxy.hold = hold
    with site.start("push", "big") as running:
        assert hold.reached.wait(30)
        # An upload is begun to the end: only then can it be removed.
        then = hold.go_on.set if hold.word == "uploads" else lambda: None
        site.interrupt(running, then)
    assert etc.ls(True, site.config) == []
    etc.push("big", config=site.config)
    assert etc.ls(True, site.config) == ["big"]


def test_completing(site: Site) -> None:
    """UP-09: interrupted while it is published, a push waits for the outcome, and says it."""
    etc.register(site.source, "big", config=site.config)
    site.proxy.hold = hold = Hold("POST", "uploadId")

    def answer() -> None:
        time.sleep(0.3)
        hold.go_on.set()

    with site.start("push", "big") as running:
        assert hold.reached.wait(30)
        site.interrupt(running, answer)
    assert etc.ls(True, site.config) == ["big"]
    etc.push("big", True, site.config)


EXAMINING = [
    pytest.param(Hold("POST", "uploads"), id="beginning"),
    pytest.param(Hold("PUT", "partNumber"), id="sending"),
]


@pytest.mark.parametrize("hold", EXAMINING)
def test_examining(site: Site, hold: Hold) -> None:
    """Interrupted while it tries what the server can do, etc doctor leaves nothing there."""
    site.proxy.hold = hold
    with site.start("doctor", "--write") as running:
        assert hold.reached.wait(30)
        site.interrupt(running, hold.go_on.set)
    connection = http.client.HTTPConnection(site.proxy.upstream, timeout=30)
    connection.request("GET", f"/{site.bucket}")
    assert RESERVED.encode() not in connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "not indexed"])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_fetching(site: Site, archive: tuple[Path, bytes], indexed: bool, skip: int) -> None:
    """Interrupted while it fetches, a pull leaves no tree, and can be repeated."""
    site.put(archive[1] if indexed else without_index(archive[1]))
    site.proxy.hold = hold = Hold("GET", "big.tgz", skip=skip)
    with site.start("pull", "big") as running:
        assert hold.reached.wait(30)
        site.interrupt(running)
    assert site.staged() == []
    assert etc.ls(config=site.config) == []
    result = etc.pull("big", config=site.config)
    assert snapshot(result.path) == snapshot(site.source)


@pytest.mark.parametrize("moment", ["unpacked", "renamed"])
def test_installing(site: Site, archive: tuple[Path, bytes], tmp_path: Path, moment: str) -> None:
    """Interrupted while it installs, a pull leaves the dataset whole or not at all."""
    site.put(archive[1])
    marker = tmp_path / "marker"
    function = {"unpacked": "os.utime", "renamed": "os.fsync"}[moment]
    caller = {"unpacked": "extract.py", "renamed": "install.py"}[moment]
    slow = SLOW.format(function=function, caller=caller, marker=str(marker), seconds=0.2)
    with site.start("pull", "big", slow=slow) as running:
        wait_for(marker, running)
        site.interrupt(running)
    assert site.staged() == []
    if etc.ls(config=site.config):
        assert snapshot(site.home / "big") == snapshot(site.source)
    result = etc.pull("big", True, site.config)
    assert snapshot(result.path) == snapshot(site.source)


def test_proxy(site: Site) -> None:
    """What stands before the server changes nothing."""
    etc.register(site.source, "big", config=site.config)
    etc.push("big", config=site.config)
    assert urlsplit(site.proxy.endpoint).netloc != site.proxy.upstream
    etc.purge("big", site.config)
    assert snapshot(etc.pull("big", config=site.config).path) == snapshot(site.source)
