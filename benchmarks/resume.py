"""Pushes that are killed and repeated: what is sent in total, and whether the archive is the same.

python -m benchmarks.resume [--google]

The client reaches moto, or a fake of Google Storage, by way of a relay, which lets so many bytes a
second through and counts them. At each of ten fractions of the bytes of a single run the push is
killed with ``kill -9``, and the same command is given again.
"""

import argparse
import asyncio
import hashlib
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import data
from benchmarks.data import MiB
from benchmarks.peers import etc_command
from benchmarks.transfers import environment
from tests.servers import gs_process, make_moto_bucket, moto_server

FRACTIONS = tuple((2 * number + 1) / 20 for number in range(10))
"""Of the bytes of a single run."""
PART_SIZE = 5 * MiB
_PIECE = 64 * data.KiB
_POLL_SECONDS = 0.005


class Relay:
    """Passes bytes on, so many a second, and counts those that go to the server."""

    def __init__(self, upstream: str, rate: float) -> None:
        self.sent = 0
        self.port = 0
        self._upstream = urlsplit(upstream)
        self._rate = rate
        self._free = 0.0  # when the line is

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        there = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        back = asyncio.create_task(self._pump(there[0], writer, counted=False))
        try:
            await self._pump(reader, there[1], counted=True)
            await back
        finally:
            back.cancel()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(_PIECE):
                if counted:
                    self.sent += len(piece)
                    self._free = max(self._free, time.monotonic()) + len(piece) / self._rate
                    await asyncio.sleep(max(0.0, self._free - time.monotonic()))
                writer.write(piece)
                await writer.drain()
        writer.close()


@contextmanager
def relaying(upstream: str, rate: float) -> Iterator[Relay]:
    """Run a relay in a thread of its own."""
    relay, ready = Relay(upstream, rate), threading.Event()
    end: Callable[[], object] = bool

    async def serve() -> None:
        nonlocal end
        stopped = asyncio.Event()
        end = partial(asyncio.get_running_loop().call_soon_threadsafe, stopped.set)
        server = await asyncio.start_server(relay.connect, "127.0.0.1", 0, limit=_PIECE)
        relay.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stopped.wait()
        server.close()

    # At its end it cancels the connections that killed clients have left.
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        ready.wait()
        yield relay
    finally:
        end()
        thread.join()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where archives go, and how to look at one past the relay and the client."""

    endpoint: str
    settings: str
    """All but the endpoint."""
    path: str
    headers: Mapping[str, str]

    def take(self) -> str:
        """Delete the archive; return its SHA-256."""
        connection = http.client.HTTPConnection(urlsplit(self.endpoint).netloc, timeout=60)
        try:
            connection.request("GET", self.path, headers=self.headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != http.client.OK:
                raise RuntimeError(f"{self.path}: {answer.status}")
            connection.request("DELETE", self.path, headers=self.headers)
            connection.getresponse().read()
        finally:
            connection.close()
        return hashlib.sha256(body).hexdigest()


@contextmanager
def s3_bucket() -> Iterator[Bucket]:
    """Run moto."""
    with moto_server() as server:
        bucket = make_moto_bucket(server)
        text = f'url = "s3://{bucket}"\nregion = "us-east-1"\naws_access_key_id = "{server.key}"\n'
        text += f'aws_secret_access_key = "{server.secret}"\n'
        yield Bucket(server.endpoint, text, f"/{bucket}/big.tgz", {})


@contextmanager
def google_bucket(root: Path) -> Iterator[Bucket]:
    """Run the fake of Google Storage."""
    with gs_process(root) as server:
        text = f'url = "gs://{server.bucket}"\ngoogle_credentials = "{server.credentials}"\n'
        headers = {"Authorization": f"Bearer {server.token}"}
        yield Bucket(server.endpoint, text, f"/{server.bucket}/big.tgz", headers)


class Bench:
    """One dataset, one bucket and the relay between."""

    def __init__(self, root: Path, bucket: Bucket, relay: Relay) -> None:
        self.root = root
        self.bucket = bucket
        self.relay = relay
        self.settings = root / "etc.toml"
        self.settings.touch(0o600)
        self.settings.write_text(
            f'{bucket.settings}home = "{root / "home"}"\n'
            f'endpoint_url = "http://127.0.0.1:{relay.port}"\npart_size = {PART_SIZE}\nlevel = 1\n'
        )

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start our command line."""
        return subprocess.Popen(
            [*etc_command(), *arguments, "--json", "--config", str(self.settings)],
            env=environment(self.root),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def push(self) -> tuple[int, int]:
        """Push to the end; return the bytes sent, and those that had been sent before."""
        before = self.relay.sent
        with self.start("push", "big") as running:
            output, errors = running.communicate()
        if running.returncode:
            raise RuntimeError(errors)
        return self.relay.sent - before, json.loads(output)["resumed"]

    def push_and_kill(self, count: int) -> int:
        """Push, but kill it once *count* bytes are sent; return how many were."""
        before = self.relay.sent
        with self.start("push", "big") as running:
            while self.relay.sent - before < count and running.poll() is None:
                time.sleep(_POLL_SECONDS)
            running.kill()
        return self.relay.sent - before


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each fraction; the exit status tells whether all archives are the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--rate", type=float, default=40.0, help="MiB a second")
    parser.add_argument("--google", action="store_true", help="to gs:// instead of s3://")
    parser.add_argument("--times", type=int, default=len(FRACTIONS), help="how many fractions")
    wanted = parser.parse_args(arguments)
    same = True
    with (
        tempfile.TemporaryDirectory(prefix="resume-") as temporary,
        google_bucket(Path(temporary)) if wanted.google else s3_bucket() as bucket,
        relaying(bucket.endpoint, wanted.rate * MiB) as relay,
    ):
        root = Path(temporary)
        data.make("images", root / "dataset", data.Size(wanted.megabytes * MiB, 0))
        bench = Bench(root, bucket, relay)
        with bench.start("register", str(root / "dataset"), "as", "big") as running:
            running.communicate()
        whole, _ = bench.push()
        expected = bucket.take()
        print(f"single run: {whole / MiB:.1f} MiB in {-(-whole // PART_SIZE)} parts")
        print("killed at  sent before  gone on after  sent again    total  archive")
        for fraction in FRACTIONS[: wanted.times]:
            killed = bench.push_and_kill(int(fraction * whole))
            again, resumed = bench.push()
            identical = bucket.take() == expected
            same &= identical
            print(
                f"{fraction:8.0%} {killed / MiB:9.1f} MiB {resumed / MiB:10.1f} MiB"
                f" {again / MiB:7.1f} MiB {(killed + again) / whole:8.1%}"
                f"  {'identical' if identical else 'DIFFERENT'}"
            )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
