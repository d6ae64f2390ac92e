"""What can be said of a bucket before it is asked for anything: credentials, and the way there."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import anyio

from etcetera.findings import Finding, fine, problem, warning
from etcetera.stores import patience
from etcetera.stores.s3_client import Connection

_ORIGINS = {
    "explicit": "a key in the settings",
    "env": "a key in the environment (AWS_ACCESS_KEY_ID)",
    "shared-credentials-file": "a key in the AWS credentials file (~/.aws/credentials)",
    "config-file": "a key in the AWS configuration file (~/.aws/config)",
    "custom-process": "a key from the program that the AWS profile names",
    "sso": "single sign-on",
    "login": "aws login",
    "assume-role": "a role that the AWS profile assumes",
    "assume-role-with-web-identity": "a role, by a web identity token",
    "container-role": "the role of this container",
    "iam-role": "the role of this instance",
}


def examine_credentials(connection: Connection, credentials: Any) -> Finding:
    """Say which there are and where they come from, and nothing of what they are."""
    if connection.anonymous:
        return warning(
            "credentials",
            "there are none: a bucket that everybody may read can be pulled from, not pushed to",
            "set aws_access_key_id and aws_secret_access_key, or a profile, in ~/.etc.toml",
        )
    text = _ORIGINS.get(credentials.method, f"found by {credentials.method}")
    if connection.profile and credentials.method != "explicit":
        text += f", profile {connection.place.show(connection.profile)}"
    # Of those that botocore renews itself.
    ends = getattr(credentials, "_expiry_time", None)
    if ends is not None:
        text += f", until {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        if ends < datetime.now(UTC):
            return problem("credentials", f"{text}: expired", "log in again, or renew them")
    elif credentials.token:
        text += ", for a while: it has a session token"
    return fine("credentials", text)


async def reach(connection: Connection) -> Finding:
    """Look for the server's address, and connect; nothing is sent."""
    from botocore.utils import get_environ_proxies

    endpoint = connection.place.endpoint
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if get_environ_proxies(endpoint):
        return fine("endpoint", f"{endpoint}, by the proxy that the environment names")
    try:
        with anyio.fail_after(patience.CONNECT_SECONDS):
            await anyio.getaddrinfo(host, port)
    except (OSError, UnicodeError):
        return problem(
            "endpoint",
            f"nobody knows where {host} is: it has no address",
            "correct endpoint_url or region, or mend the name service of this machine",
        )
    try:
        with anyio.fail_after(patience.CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
        writer.close()
    except OSError as error:
        reasons = {TimeoutError: "does not answer", ConnectionRefusedError: "refuses to connect"}
        reason = reasons.get(type(error), f"cannot be reached ({error.strerror or error})")
        return problem(
            "endpoint",
            f"{host} {reason}, at port {port}",
            "check endpoint_url, whether the server runs, the network and its firewalls",
        )
    if patience.travels_in_the_clear(endpoint) and not connection.anonymous:
        return warning(
            "endpoint",
            f"{endpoint} is not encrypted: everybody on the way can read the data",
            "use https:// if the server has it",
        )
    return fine("endpoint", f"{endpoint} can be reached")
