"""The stores under test, and the servers behind them."""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from etcetera.settings import RepositorySettings
from etcetera.stores import Store
from etcetera.stores.memory import memory_store
from etcetera.stores.s3 import S3Store
from tests.fake_gs import FakeGS, fake_gs_thread
from tests.servers import RCLONE_BUCKET, S3Server, make_moto_bucket
from tests.stores.fake_s3 import FakeS3, fake_s3


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One kind of store, with an empty repository."""

    name: str
    settings: RepositorySettings
    missing: RepositorySettings
    """A repository whose bucket or directory does not exist."""
    part_size: int
    """The smallest the server takes."""
    exclusive: bool
    """Whether of several simultaneous create-only uploads exactly one wins."""
    pins: bool
    """Whether a version that was opened is told from another one."""
    count_uploads: Callable[[Store], Awaitable[int]]
    """How many uploads are open in the repository."""


def s3_settings(server: S3Server, bucket: str, **more: Any) -> RepositorySettings:
    """Return settings of an empty repository in a bucket of *server*."""
    values = {
        "url": f"s3://{bucket}/{secrets.token_hex(8)}/über fix",
        "endpoint_url": server.endpoint,
        "aws_access_key_id": server.key,
        "aws_secret_access_key": server.secret,
        "region": "us-east-1",
    }
    return RepositorySettings(**(values | more))


@pytest.fixture
async def fake() -> AsyncIterator[FakeS3]:
    """Run a fake server."""
    async with fake_s3() as server:
        yield server


@pytest.fixture
def moto_settings(moto: S3Server) -> RepositorySettings:
    """Return settings of an empty bucket on moto."""
    return s3_settings(moto, make_moto_bucket(moto))


@pytest.fixture
def rclone_settings(rclone: S3Server) -> RepositorySettings:
    """Return settings of an empty repository on rclone."""
    return s3_settings(rclone, RCLONE_BUCKET)


async def count_s3_uploads(store: Store) -> int:
    """Ask an S3 server how many uploads are open."""
    opened = cast(S3Store, store)
    answer = await opened.connection.call("list_multipart_uploads")
    return sum(upload["Key"].startswith(opened.prefix) for upload in answer.get("Uploads", ()))


@pytest.fixture
def gs_server() -> Iterator[FakeGS]:
    """Run a fake Google Storage in a thread of its own, with an empty bucket."""
    with fake_gs_thread() as server:
        server.make_bucket("bucket")
        yield server


@pytest.fixture
def gs_settings(gs_server: FakeGS, tmp_path: Path) -> RepositorySettings:
    """Return settings of an empty repository on it, with the key of a service account."""
    key = tmp_path / "key.json"
    key.write_text(json.dumps(gs_server.add_account().info(gs_server.endpoint)))
    return RepositorySettings(
        url="gs://bucket/über fix", endpoint_url=gs_server.endpoint, google_credentials=str(key)
    )


async def count_gs_uploads(store: Store) -> int:
    """Ask for everything that is temporary in the repository."""
    return len([one async for one in store.unfinished(datetime.now(UTC) + timedelta(days=1))])


BACKENDS = ("memory", "file", "moto", "rclone", "fake gs", "emulator")
RESUMABLE = BACKENDS[:-1]
"""Those in which one process can go on with what another has begun."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    """Give the test each kind of store in turn."""
    name = request.param
    if name == "memory":
        settings = RepositorySettings(url=f"memory://{secrets.token_hex(8)}")
        missing = RepositorySettings(url=f"memory://{secrets.token_hex(8)}")
        memory_store(missing.url).exists = False

        async def count_memory_uploads(store: Store) -> int:
            return len(memory_store(store.url).uploads)

        count = count_memory_uploads
    elif name == "file":
        directory = tmp_path / "reposi tory"
        directory.mkdir()
        settings = RepositorySettings(url=f"file://{tmp_path}/reposi%20tory")
        missing = RepositorySettings(url=f"file://{tmp_path}/missing")

        async def count_file_uploads(store: Store) -> int:
            return sum(entry.name.startswith(".") for entry in directory.iterdir())

        count = count_file_uploads
    elif name == "emulator":
        server = request.getfixturevalue("gs_emulator_server")
        url = f"gs://{server.make_bucket()}/über fix"
        settings = RepositorySettings(url=url, endpoint_url=server.endpoint)
        missing = RepositorySettings(url="gs://no-such-bucket", endpoint_url=server.endpoint)
        count = count_gs_uploads
    elif name == "fake gs":
        settings = request.getfixturevalue("gs_settings")
        missing = replace(settings, url="gs://no-such-bucket")
        count = count_gs_uploads
    else:
        settings = request.getfixturevalue(f"{name}_settings")
        missing = s3_settings(request.getfixturevalue(name), "no-such-bucket")
        count = count_s3_uploads
    return Backend(
        name=name,
        settings=settings,
        missing=missing,
        part_size=5 << 20 if name in ("moto", "fake gs") else 1 << 16,
        # rclone ignores If-None-Match, so there the look before publishing has to do.
        exclusive=name not in ("rclone", "emulator"),
        # The emulator knows one version of each object alone.
        pins=name != "emulator",
        count_uploads=count,
    )
