"""What gives tokens: OAuth, a machine's metadata server, and the IAM credentials service."""

import base64
import json
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal, invalid, invalid_credentials
from tests.fake_gs.model import rfc3339

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_FLAVOR = {"Metadata-Flavor": "Google"}


def _json(found: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=json.dumps(found).encode(),
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def _refused(error: str, description: str, status: int = 400) -> web.Response:
    return _json({"error": error, "error_description": description}, status)


async def token(call: Call) -> web.Response:
    """Give a token for a signed assertion, or for a refresh token."""
    server = call.server
    form = {key: values[0] for key, values in parse_qs((await call.body()).decode()).items()}
    seconds = int(server.token_seconds)
    if form.get("grant_type") == _JWT_BEARER:
        found = server.read_assertion(form.get("assertion", ""))
        if found is None or found[1].get("aud") not in (
            "https://oauth2.googleapis.com/token",
            f"http://{call.request.host}/token",
        ):
            return _refused("invalid_grant", "Invalid JWT Signature.")
        account, claims = found
        if not claims.get("scope"):
            return _refused("invalid_scope", "Empty or missing scope not allowed.")
        given = server.issue(account.email, account.permissions)
        return _json({"access_token": given, "expires_in": seconds, "token_type": "Bearer"})
    if form.get("grant_type") == "refresh_token":
        user = server.users.get(form.get("refresh_token", ""))
        if user is None:
            return _refused("invalid_grant", "Token has been expired or revoked.")
        if (form.get("client_id"), form.get("client_secret")) != (
            user.client_id,
            user.client_secret,
        ):
            return _refused("invalid_client", "The OAuth client was not found.", 401)
        given = server.issue(user.name, user.permissions)
        scope = "https://www.googleapis.com/auth/cloud-platform"
        more = {"scope": scope, "token_type": "Bearer"}
        return _json({"access_token": given, "expires_in": seconds} | more)
    return _refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")


async def metadata(call: Call) -> web.Response:
    """Tell what a machine at Google's knows of itself."""
    server = call.server
    if call.path != "/" and call.headers.get("metadata-flavor") != "Google":
        return web.Response(status=403, text="Missing Metadata-Flavor:Google header.")
    account = server.accounts.get(server.instance)
    default = "instance/service-accounts/default"
    plain = {
        "": "computeMetadata/\n",
        "project/project-id": "test-project",
        "universe/universe-domain": "googleapis.com",
        f"{default}/email": server.instance,
        f"{default}/scopes": "https://www.googleapis.com/auth/cloud-platform\n",
    }
    name = call.name.removesuffix("/")
    if name == default and account is not None:
        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        found = {"aliases": ["default"], "email": server.instance, "scopes": scopes}
        return _json(found, headers=_FLAVOR)
    if name in (f"{default}/token", f"instance/service-accounts/{server.instance}/token"):
        if account is None:
            return web.Response(status=404, text="no such account", headers=_FLAVOR)
        given = server.issue(account.email, account.permissions)
        seconds = int(server.token_seconds)
        found_token = {"access_token": given, "expires_in": seconds, "token_type": "Bearer"}
        return _json(found_token, headers=_FLAVOR)
    if name not in plain:
        return web.Response(status=404, text="not found", headers=_FLAVOR)
    return web.Response(text=plain[name], headers=_FLAVOR)


async def iam(call: Call) -> web.Response:
    """Act in a service account's name: give its tokens, or sign as it."""
    server, given = call.server, await call.json()
    text = call.headers.get("authorization", "").removeprefix("Bearer ")
    asking = server.tokens.get(text)
    if asking is None or asking.expires <= server.clock():
        return _status(invalid_credentials(), "UNAUTHENTICATED")
    account = server.accounts.get(call.bucket_name)
    words = {
        "generateAccessToken": "iam.serviceAccounts.getAccessToken",
        "signBlob": "iam.serviceAccounts.signBlob",
    }
    if call.name not in words:
        return _status(Refusal(404, "notFound", "Not found"), "NOT_FOUND")
    permission = words[call.name]
    if account is None or (asking.permissions is not None and permission not in asking.permissions):
        text = f"Permission '{permission}' denied on resource (or it may not exist)."
        return _status(Refusal(403, "forbidden", text), "PERMISSION_DENIED")
    if call.name == "signBlob":
        signed = account.sign(base64.b64decode(given.get("payload", "")))
        return _json({"keyId": account.key_id, "signedBlob": base64.b64encode(signed).decode()})
    if not given.get("scope"):
        text = "scope is required"
        return _status(invalid(text), "INVALID_ARGUMENT")
    seconds = float(str(given.get("lifetime", "3600s")).removesuffix("s"))
    made = server.issue(account.email, account.permissions, seconds)
    until = rfc3339(server.clock() + seconds)[:-5] + "Z"
    return _json({"accessToken": made, "expireTime": until})


def _status(refusal: Refusal, status: str) -> web.Response:
    error = {"code": refusal.status, "message": refusal.message, "status": status}
    return _json({"error": error}, refusal.status, refusal.headers)


HANDLERS = {"token": token, "metadata": metadata, "iam": iam}
