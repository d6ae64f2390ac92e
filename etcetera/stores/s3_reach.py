"""What can be said of a bucket before it is asked for anything: credentials, and the way there."""

from datetime import UTC, datetime
from typing import Any

from etcetera.findings import Finding, fine, problem, warning
from etcetera.stores.reach import reach
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


async def look_for_server(connection: Connection) -> Finding:
    """Look for the server's address, and connect; nothing is sent."""
    from botocore.utils import get_environ_proxies

    endpoint = connection.place.endpoint
    return await reach(
        endpoint,
        "endpoint_url or region",
        proxied=bool(get_environ_proxies(endpoint)),
        anonymous=connection.anonymous,
    )
