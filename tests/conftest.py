"""What every test gets."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcetera.stores import s3_client
from tests.servers import (
    RCLONE_BUCKET,
    GSEmulator,
    S3Server,
    gs_emulator,
    moto_server,
    rclone_server,
)

FOREIGN = ("AWS_", "ETC_", "CLOUDSDK_", "GCE_", "GCLOUD_", "GOOGLE_", "STORAGE_EMULATOR_")
"""How the names of variables begin that tests must not see."""


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the user's home, credentials, settings and cloud."""
    for name in tuple(os.environ):
        if name.startswith(FOREIGN):
            monkeypatch.delenv(name)
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


@pytest.fixture(autouse=True)
def restored_logger() -> Iterator[None]:
    """Give the package's logger back as it was."""
    logger = logging.getLogger("etcetera")
    before = (logger.handlers, logger.propagate, logger.level)
    yield
    logger.handlers, logger.propagate, level = before
    logger.setLevel(level)  # forgets what it has remembered of levels, too


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait milliseconds where users wait seconds."""
    monkeypatch.setattr(s3_client, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(s3_client, "LONGEST_DELAY_SECONDS", 0.01)


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """Run moto for all tests."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def small_moto() -> Iterator[S3Server]:
    """Run another one for all tests, which takes parts of any size."""
    with moto_server(least_part=1) as server:
        yield server


@pytest.fixture(scope="session")
def rclone_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory whose directories rclone serves as buckets."""
    directory = tmp_path_factory.mktemp("rclone")
    (directory / RCLONE_BUCKET).mkdir()
    return directory


@pytest.fixture(scope="session")
def rclone(rclone_directory: Path) -> Iterator[S3Server]:
    """Run rclone for all tests."""
    with rclone_server(rclone_directory) as server:
        yield server


@pytest.fixture(scope="session")
def gs_emulator_server() -> Iterator[GSEmulator]:
    """Run an emulator of Google Cloud Storage for all tests."""
    with gs_emulator() as server:
        yield server


@pytest.fixture
def gs_bucket(gs_emulator_server: GSEmulator) -> str:
    """Create a bucket of one's own on that emulator."""
    return gs_emulator_server.make_bucket()
