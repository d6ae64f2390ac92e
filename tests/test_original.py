"""etcetera 0.0.12, the original package, and this one read each other's archives."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import etcetera as etc
from tests.datasets import make_dataset, make_large_dataset, snapshot
from tests.servers import S3Server, make_moto_bucket

ORIGINAL = ("etcetera==0.0.12", "toml==0.10.2")


@pytest.fixture(scope="session")
def original() -> Path:
    """A directory that holds the original package, installed once per environment.

    It is called like this one, so it cannot be installed beside it; boto3 is there for moto.
    """
    directory = Path(sys.prefix) / "etcetera-0.0.12"
    if not (directory / "etcetera" / "engine.py").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
        subprocess.run([*command, str(directory), *ORIGINAL], check=True)
    return directory


class Original:
    """The original package, with a home of its own."""

    def __init__(self, directory: Path, home: Path, bucket: str, server: S3Server) -> None:
        self.home = home
        self._directory = directory
        self._config = (
            f"Config('s3://{bucket}', {str(home)!r}, endpoint_url={server.endpoint!r}, "
            f"aws_access_key_id={server.key!r}, aws_access_key_secret={server.secret!r})"
        )

    def run(self, call: str) -> str:
        """Evaluate *call*, which takes ``config=c``; return what it printed."""
        code = (
            f"import sys; sys.path.insert(0, {str(self._directory)!r})\n"
            f"import etcetera; assert etcetera.__version__ == '0.0.12'\n"
            f"from etcetera import *; c = {self._config}\n{call}\n"
        )
        return subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout


@pytest.fixture
def bucket(moto: S3Server) -> str:
    """An empty bucket on moto."""
    return make_moto_bucket(moto)


@pytest.fixture
def theirs(original: Path, tmp_path: Path, bucket: str, moto: S3Server) -> Original:
    """The original package and the bucket."""
    return Original(original, tmp_path / "theirs", bucket, moto)


@pytest.fixture
def ours(tmp_path: Path, bucket: str, moto: S3Server) -> etc.Config:
    """This package and the same bucket; the secret under the name the old code had for it."""
    return etc.Config(
        f"s3://{bucket}",
        tmp_path / "ours",
        endpoint_url=moto.endpoint,
        region="us-east-1",
        aws_access_key_id=moto.key,
        aws_access_key_secret=moto.secret,
    )


@pytest.fixture(params=["small", "multipart"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A dataset, with every kind of entry or larger than a part."""
    if request.param == "small":
        return make_dataset(tmp_path / "source")
    return make_large_dataset(tmp_path / "source", 20 << 20)


def test_they_pull_what_we_push(ours: etc.Config, theirs: Original, source: Path) -> None:
    """The original installs our archive; only the index comes with it as a file."""
    etc.register(source, "MNIST", config=ours)
    etc.push("MNIST", config=ours)
    assert theirs.run("print(list(ls(remote=True, config=c)))") == "['MNIST']\n"
    theirs.run("pull('MNIST', config=c)")
    assert theirs.run("print(list(ls(config=c)))") == "['MNIST']\n"
    (theirs.home / "MNIST" / ".etcetera-index.jsonl").unlink()
    assert snapshot(theirs.home / "MNIST") == snapshot(source)


def test_we_pull_what_they_push(ours: etc.Config, theirs: Original, source: Path) -> None:
    """SY-05: an archive of the original is installed unchanged, hard links and all."""
    name = next(path for path in sorted(source.rglob("*")) if path.is_file())
    name.with_name("same").hardlink_to(name)
    theirs.run(f"register({str(source)!r}, 'MNIST', config=c)\npush('MNIST', config=c)")
    assert etc.ls(remote=True, config=ours) == ["MNIST"]
    result = etc.pull("MNIST", config=ours)
    pulled, original = snapshot(result.path), snapshot(source)
    assert pulled == original
    # Pushed again, it is the same version of the data.
    assert etc.push("MNIST", force=True, config=ours).digest == result.digest


def test_round_trip_through_them(ours: etc.Config, theirs: Original, source: Path) -> None:
    """What they pulled from us and push again, index file and all, is the dataset we had."""
    etc.register(source, "MNIST", config=ours)
    digest = etc.push("MNIST", config=ours).digest
    theirs.run("pull('MNIST', config=c)\npush('MNIST', force=True, config=c)")
    etc.purge("MNIST", ours)
    assert etc.pull("MNIST", config=ours).digest == digest
    assert snapshot(ours.home / "MNIST") == snapshot(source)
    shutil.copytree(theirs.home / "MNIST", ours.home / "theirs", symlinks=True)
    assert etc.push("theirs", config=ours).digest == digest
