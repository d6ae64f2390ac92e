"""A site for each test, and one dataset for all."""

import logging
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.stores import PartLimits, s3
from etcetera.stores.s3 import S3Store
from tests.datasets import make_large_dataset
from tests.fault_proxy import fault_proxy
from tests.fault_site import OPTIONS, Site
from tests.servers import S3Server


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that makes an archive of five parts, and several frames."""
    return make_large_dataset(tmp_path_factory.mktemp("faults") / "source", 1_200_000, files=6)


@pytest.fixture(scope="session")
def archive(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Its archive."""
    directory = tmp_path_factory.mktemp("archive")
    config = etc.Config(directory.as_uri(), directory / "home")
    config.transfer = OPTIONS
    etc.register(source, "set", config=config)
    etc.push("set", config=config)
    return (directory / "set.tgz").read_bytes()


@pytest.fixture
async def site(
    small_moto: S3Server,
    tmp_path: Path,
    source: Path,
    hasty: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Site]:
    """A place to push from and pull to; fails if a planned fault never came, or something is left.

    Warnings are errors, so a socket or a task that nobody ended fails the test as well.
    """
    limits = PartLimits(min_part=1, max_part=5 << 30, max_parts=10_000)
    monkeypatch.setattr(s3, "S3Store", partial(S3Store, limits=limits))
    async with fault_proxy(small_moto.endpoint) as proxy:
        yield Site(proxy=proxy, server=small_moto, home=tmp_path / "home", source=source)
    told = [one for one in caplog.records if one.name == "asyncio" and one.levelno > logging.INFO]
    assert told == []
