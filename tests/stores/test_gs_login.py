"""Google Storage: where credentials come from, and what they sign."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from google.auth.compute_engine import _metadata

from etcetera.errors import ConfigError, ExpiredCredentials
from etcetera.settings import RepositorySettings
from etcetera.stores import open_store
from etcetera.stores.gs_credentials import Credentials, find_credentials
from etcetera.stores.place import Place
from tests.fake_gs import FakeGS, fake_gs

SETTINGS = RepositorySettings(url="gs://bucket")
IAM = "v1/projects/-/serviceAccounts/{}"
pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeGS]:
    """Run a server that makes tokens as Google's do."""
    async with fake_gs() as server:
        server.make_bucket("bucket")
        server.secured = True
        token = f"{server.endpoint}/token"
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", token)
        for name, method in (
            ("_IAM_ENDPOINT", "generateAccessToken"),
            ("_IAM_SIGN_ENDPOINT", "signBlob"),
        ):
            monkeypatch.setattr(f"google.auth.iam.{name}", f"{server.endpoint}/{IAM}:{method}")
        yield server


def place() -> Place:
    """Return where the bucket is."""
    return Place(url="gs://bucket", bucket="bucket", endpoint="https://storage.googleapis.com")


async def find(settings: RepositorySettings = SETTINGS) -> Credentials:
    """Look for credentials, for Google's own server."""
    return await find_credentials(settings, place(), trusted=True)


async def assert_known(server: FakeGS, credentials: Credentials, name: str) -> None:
    """The credentials give a token, which is one of whom they should be of."""
    token = await credentials.token()
    assert token is not None
    assert server.tokens[token].name == name
    assert token in credentials.place.secrets


async def test_variable(server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-07: the variable that Google's clients know names a key."""
    account = server.add_account()
    path = tmp_path / "key.json"
    path.write_text(json.dumps(account.info(server.endpoint)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    await assert_known(server, await find(), account.email)


async def test_login(server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-07: what gcloud has left behind after a login is found."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    login = server.add_user(name="someone@example.com") | {"quota_project_id": "mine"}
    (tmp_path / "application_default_credentials.json").write_text(json.dumps(login))
    credentials = await find()
    await assert_known(server, credentials, "someone@example.com")
    assert login["refresh_token"] in credentials.place.secrets


async def test_instance(server: FakeGS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-07: a machine of Google's has an account of its own."""
    host = urlsplit(server.endpoint).netloc
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", host)
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", False)
    monkeypatch.setattr(_metadata, "_GCE_METADATA_HOST", host)
    server.add_account(server.instance)
    credentials = await find()
    await assert_known(server, credentials, server.instance)
    assert credentials.account == server.instance
    signed = await credentials.sign(b"data")
    assert server.accounts[server.instance].verify(signed, b"data")


async def test_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AU-11: where there is nothing, nobody asks."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setattr(_metadata, "_NO_GCE_CHECK", True)
    credentials = await find()
    assert credentials.anonymous
    assert await credentials.token() is None
    with pytest.raises(ConfigError, match="takes credentials of one's own"):
        await find(RepositorySettings(url="gs://bucket", google_impersonate="a@b"))


@pytest.mark.parametrize("content", ["{", "[]", '"x"', '{"type": "service_account"}', "[" * 9999])
async def test_damaged_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """A default that is damaged is an error, and not nobody."""
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    (tmp_path / "application_default_credentials.json").write_text(content)
    with pytest.raises(ConfigError, match="default credentials"):
        await find()


async def test_link_by_google(server: FakeGS, tmp_path: Path) -> None:
    """Whoever may act for an account has links signed by Google, with its key."""
    robot = server.add_account("robot")
    path = tmp_path / "user.json"
    path.write_text(json.dumps(server.add_user()))
    settings = RepositorySettings(
        url="gs://bucket",
        endpoint_url=server.endpoint,
        google_credentials=str(path),
        google_impersonate=robot.email,
    )
    async with open_store(settings) as store:
        await store.put("a.tgz", b"data", overwrite=False)
        shared = await store.share("a.tgz", 60, None)
    assert shared.temporary
    async with aiohttp.ClientSession() as session, session.get(shared.url) as answer:
        assert await answer.read() == b"data"


async def test_may_not_act(server: FakeGS, tmp_path: Path) -> None:
    """Whoever may not act for an account is told which role that takes."""
    robot = server.add_account("robot")
    path = tmp_path / "user.json"
    path.write_text(json.dumps(server.add_user(["storage.objects.get"])))
    settings = RepositorySettings(
        url="gs://bucket",
        endpoint_url=server.endpoint,
        google_credentials=str(path),
        google_impersonate=robot.email,
    )
    async with open_store(settings) as store:
        with pytest.raises(ExpiredCredentials, match="Service Account Token Creator"):
            await store.head("a.tgz")
