"""A whole round against an S3 server on this machine, leaving nothing behind."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.request import ProxyHandler, Request, build_opener

import typer

import etcetera
from etcetera.cli import interruption
from etcetera.cli.options import Options
from etcetera.cli.output import human_count, human_size, show
from etcetera.cli.pictures import make_dataset
from etcetera.errors import ConfigError, UsageError

_BUCKET = "team"
_PATIENCE = 10.0
"""Seconds for a command to clean up."""
_SNIPPET = """\
import etcetera as etc
flowers = etc.dataset("flowers", auto_install=True)
print(sorted(flowers.keys()), flowers.meta["title"])
print(len(list((flowers["train"] / "lily").iterdir())), "lilies in", flowers["train"].name)
"""
_NEXT = """\
Your turn. Write down where your team's datasets live, in ~/.etc.toml:

    url = "s3://your-bucket/datasets"
    region = "eu-central-1"
    aws_access_key_id = "..."
    aws_secret_access_key = "..."

Without the last two, whatever AWS tools use on this machine is used. Google Storage is
gs://your-bucket/datasets, after a login by gcloud; file:///a/shared/disk needs no keys.
Then: etc register DIR as NAME, and etc push NAME.
"""


def run(options: Options) -> None:
    """Tell the story and run it.

    Raises:
        ConfigError: What the demo needs is not installed.
        typer.Exit: One of its commands failed, and has said why.
    """
    if options.json:
        raise UsageError("etc demo tells a story and has no results: leave out --json")
    if find_spec("moto") is None or find_spec("aiobotocore") is None:
        raise ConfigError("etc demo needs the extra 'demo': pip install 'etcetera[demo]'")
    with TemporaryDirectory(prefix="etcetera-demo-") as directory, _server() as endpoint:
        _Demo(Path(directory), endpoint).play()


@contextmanager
def _server() -> Iterator[str]:
    """Run an S3 server with one bucket in it and yield its endpoint."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        _request("PUT", f"{endpoint}/{_BUCKET}")
        yield endpoint
    finally:
        server.stop()


def _request(method: str, url: str) -> bytes:
    # moto wants requests to be signed, and does not look how.
    request = Request(url, method=method, headers={"Authorization": "AWS demo:demo"})  # noqa: S310
    # A proxy would look for our loopback on its own machine.
    with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
        content: bytes = answer.read()
    return content


class _Demo:
    """The story, in a directory of its own."""

    def __init__(self, directory: Path, endpoint: str) -> None:
        self._directory = directory
        self._endpoint = endpoint
        self._environment = _environment(directory / "etc.toml")

    def play(self) -> None:
        """Run every step."""
        self._write_config()
        make_dataset(self._directory / "flowers")
        count, size = _measure(self._directory / "flowers")
        _say(f"Alice has drawn flowers: {human_count(count, 'file')}, {human_size(size)}.")
        self._etc("--home", "alice", "register", "./flowers")
        self._etc("--home", "alice", "ls", "--long")
        _say(f"She publishes them; the repository is an S3 server at {self._endpoint}.")
        self._etc("--home", "alice", "push", "flowers", size=size)
        self._etc("ls", "-r")
        _say("Its index alone, a few kilobytes, tells what an archive holds.")
        self._etc("info", "flowers", "-r")
        _say("Bob installs them.")
        self._etc("--home", "bob", "pull", "flowers", size=size)
        self._etc("--home", "bob", "info", "flowers")
        self._compare("flowers", "bob/flowers")
        _say("Carol's program asks for them, and they are installed on the way.")
        self._python()
        self._tar()
        _say("Bob needs the space; the repository still has them.")
        self._etc("--home", "bob", "purge", "flowers")
        show()
        for line in _NEXT.splitlines():
            show(line)

    def _write_config(self) -> None:
        lines = (
            f'url = "s3://{_BUCKET}/datasets"',
            f'endpoint_url = "{self._endpoint}"',
            'region = "us-east-1"',
            'aws_access_key_id = "alice-and-bob"',
            'aws_secret_access_key = "not-very-secret"',
        )
        path = self._directory / "etc.toml"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")

    def _etc(self, *arguments: str, size: int = 0) -> None:
        command = [sys.executable, "-m", "etcetera", *arguments]
        self._run(f"etc {shlex.join(arguments)}", command, size=size)

    def _python(self) -> None:
        self._environment["ETC_HOME"] = "carol"
        first, *others = _SNIPPET.splitlines()
        shown = "\n".join([f">>> {first}", *(f">>> {line}" for line in others)])
        self._run(shown, [sys.executable, "-c", _SNIPPET], prompt="")
        del self._environment["ETC_HOME"]

    def _tar(self) -> None:
        """List the archive with a tool that knows nothing of etcetera."""
        tar = shutil.which("tar")
        if tar is None:
            return
        _say("An archive is a plain .tgz: any tool reads it, its last member is the index.")
        archive = _request("GET", f"{self._endpoint}/{_BUCKET}/datasets/flowers.tgz")
        (self._directory / "flowers.tgz").write_bytes(archive)
        show("$ tar tzf flowers.tgz")
        listed = subprocess.run(  # noqa: S603
            [tar, "tzf", "flowers.tgz"],
            cwd=self._directory,
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )
        names = listed.stdout.splitlines()
        for line in (*names[:3], f"... {len(names) - 5} more ...", *names[-2:]):
            show(line)

    def _compare(self, one: str, other: str) -> None:
        first, second = (_contents(self._directory / path) for path in (one, other))
        if first != second:
            show(f"{one} and {other} differ")
            raise typer.Exit(1)
        show(f"{one} and {other} are identical: {human_count(len(first), 'file')}, byte for byte")

    def _run(self, shown: str, command: Sequence[str], prompt: str = "$ ", size: int = 0) -> None:
        for number, line in enumerate(shown.splitlines()):
            show((prompt if number == 0 else "") + line)
        began = perf_counter()
        # The command writes to the terminal itself, progress included.
        with subprocess.Popen(  # noqa: S603
            command, cwd=self._directory, env=self._environment
        ) as process:
            try:
                status = process.wait()
            except BaseException:
                _let_end(process)
                raise
        seconds = perf_counter() - began
        # Of the whole command, start and all.
        show(f"  ({seconds:.2f} s{f', {human_size(size / seconds)}/s' if size else ''})")
        if status:
            raise typer.Exit(status)


def _let_end(process: subprocess.Popen[bytes]) -> None:
    """Wait until a command that was interrupted has cleaned up."""
    if interruption.current.signal == signal.SIGINT:
        # The terminal has told it, too; being told twice, it would not clean up.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
            return
    process.terminate()
    process.wait()


def _environment(config: Path) -> dict[str, str]:
    """Keep the demo away from the user's settings, keys and proxies."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "ETC_"))
    }
    package = str(Path(etcetera.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return environment | {
        "ETC_CONFIG": str(config),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        # The commands run elsewhere, where a relative path means something else.
        "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package,
    }


def _say(line: str) -> None:
    show()
    show(line)


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _measure(directory: Path) -> tuple[int, int]:
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)
