"""The fake Google Cloud Storage: how one gets its tokens."""

import base64
from collections.abc import Iterator
from typing import Any

import google.auth.transport.requests
import google.oauth2.credentials
import pytest
import requests
from google.auth import exceptions, impersonated_credentials
from google.oauth2 import service_account

from tests.fake_gs import FakeGS, fake_gs_thread

pytestmark = pytest.mark.timeout(30)
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@pytest.fixture
def server() -> Iterator[FakeGS]:
    """Run a fake server that looks at tokens, with a bucket and an object."""
    with fake_gs_thread() as fake:
        fake.make_bucket("bucket")
        fake.put("bucket", "a", b"1")
        fake.secured = True
        yield fake


def refresh(credentials: Any) -> str:
    """Get a token."""
    with requests.Session() as session:
        credentials.refresh(google.auth.transport.requests.Request(session))
    return str(credentials.token)


def read(server: FakeGS, token: str) -> requests.Response:
    """Ask for an object."""
    url = f"{server.endpoint}/storage/v1/b/bucket/o/a"
    return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)


def account_credentials(server: FakeGS, info: dict[str, str]) -> Any:
    """Return what google-auth makes of a key file."""
    make: Any = service_account.Credentials.from_service_account_info
    return make(info, scopes=[SCOPE])


def test_tokens(server: FakeGS) -> None:
    """Tokens are good for some things, and for a while."""
    token = server.allow(permissions=["storage.objects.get"])
    assert read(server, token).status_code == 200
    server.expire_tokens()
    for bad in (token, "unknown"):
        answer = read(server, bad)
        error = answer.json()["error"]["errors"][0]
        assert (answer.status_code, error["reason"]) == (401, "authError")
        assert "invalid_token" in answer.headers["WWW-Authenticate"]
    poor = server.allow(permissions=["storage.objects.list"])
    assert read(server, poor).status_code == 403


def test_service_account(server: FakeGS) -> None:
    """A service account signs for its token."""
    info = server.add_account().info(server.endpoint)
    assert read(server, refresh(account_credentials(server, info))).status_code == 200
    stranger = FakeGS().add_account("stranger").info(server.endpoint)
    with pytest.raises(exceptions.RefreshError, match="invalid_grant"):
        refresh(account_credentials(server, stranger))


def test_signed_token(server: FakeGS) -> None:
    """A token that the account has signed itself is good, too."""
    info = server.add_account().info(server.endpoint)
    made = account_credentials(server, info).with_always_use_jwt_access(True)
    made._create_self_signed_jwt("https://storage.googleapis.com/")
    assert read(server, refresh(made)).status_code == 200
    assert "token" not in server.operations


def test_user(server: FakeGS) -> None:
    """A user has a refresh token, until it is revoked."""
    make: Any = google.oauth2.credentials.Credentials
    info = server.add_user()
    made = make(
        None,
        refresh_token=info["refresh_token"],
        client_id=info["client_id"],
        client_secret=info["client_secret"],
        token_uri=f"{server.endpoint}/token",
    )
    assert read(server, refresh(made)).status_code == 200
    server.users.clear()
    with pytest.raises(exceptions.RefreshError, match="revoked"):
        refresh(made)


def test_machine(server: FakeGS) -> None:
    """A machine asks its metadata server."""
    root = f"{server.endpoint}/computeMetadata/v1"
    path = f"{root}/instance/service-accounts/default"
    assert requests.get(f"{path}/token", timeout=10).status_code == 403
    flavor = {"Metadata-Flavor": "Google"}
    assert requests.get(f"{path}/token", headers=flavor, timeout=10).status_code == 404
    server.add_account(server.instance)
    answer = requests.get(f"{path}/token", headers=flavor, timeout=10)
    assert answer.headers["Metadata-Flavor"] == "Google"
    assert read(server, answer.json()["access_token"]).status_code == 200
    answer = requests.get(f"{path}/?recursive=true", headers=flavor, timeout=10)
    assert answer.json()["email"] == server.instance
    answer = requests.get(f"{root}/project/project-id", headers=flavor, timeout=10)
    assert answer.text == "test-project"


def test_impersonation(server: FakeGS) -> None:
    """Someone with the right to do so gets another account's tokens, and signs as it."""
    robot = server.add_account("robot")
    source = account_credentials(server, server.add_account("user").info(server.endpoint))
    refresh(source)
    made = impersonated_credentials.Credentials(  # type: ignore[no-untyped-call]
        source_credentials=source,
        target_principal=robot.email,
        target_scopes=[SCOPE],
        iam_endpoint_override=(
            f"{server.endpoint}/v1/projects/-/serviceAccounts/{robot.email}:generateAccessToken"
        ),
    )
    assert read(server, refresh(made)).status_code == 200
    url = f"{server.endpoint}/v1/projects/-/serviceAccounts/{robot.email}:signBlob"
    body = {"payload": base64.b64encode(b"text").decode()}
    headers = {"Authorization": f"Bearer {source.token}"}
    answer = requests.post(url, json=body, headers=headers, timeout=10)
    assert robot.verify(base64.b64decode(answer.json()["signedBlob"]), b"text")
    answer = requests.post(url, json=body, timeout=10)
    assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
