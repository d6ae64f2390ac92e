"""Who asks Google Storage, as ``etc doctor`` says it; never what proves it."""

import stat
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from etcetera.errors import EtceteraError, ExpiredCredentials
from etcetera.findings import Finding, failure, fine, problem, warning
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_credentials import Credentials
from etcetera.stores.reach import WRONG_SECONDS, span

LOG_IN = (
    "log in with: gcloud auth application-default login; or set google_credentials in ~/.etc.toml "
    "to the file of a service account's key"
)
NAME_A_KEY = (
    "name the file of credentials with google_credentials in ~/.etc.toml: those that are found "
    "otherwise go to Google's own servers alone"
)


async def check_credentials(connection: Connection, credentials: Credentials) -> list[Finding]:
    """Say which there are and where they come from, and who else may read them."""
    if credentials.anonymous and connection.google:
        return [
            warning(
                "credentials",
                "there are none: a bucket that everybody may read can be pulled from, not pushed "
                "to",
                LOG_IN,
            )
        ]
    if credentials.anonymous:
        return [
            fine(
                "credentials",
                "there are none: those that google_credentials does not name go to Google's own "
                "servers alone",
            )
        ]
    who = connection.place.show(credentials.account)
    who = f", acting for {who}" if credentials.acting else f", {who}" if who else ""
    found = [fine("credentials", f"{credentials.kind}{who}, from {credentials.origin}")]
    if credentials.file:
        found += await anyio.to_thread.run_sync(_exposures, credentials.file)
    return found


def _exposures(file: str) -> list[Finding]:
    """Say so if others may read a file."""
    try:
        mode = stat.S_IMODE(Path(file).stat().st_mode)
    except OSError:  # it was there when it was read
        return []
    if not mode & 0o077:
        return []
    return [
        warning(
            "key file", f"{file} holds a secret key and others may open it", f"chmod 600 {file}"
        )
    ]


async def check_token(credentials: Credentials, behind: float | None) -> Finding:
    """Ask for a token, which google-auth waits for less than half a minute.

    Args:
        credentials: There are some.
        behind: Seconds by which the clock here is behind, if that is known.
    """
    try:
        await credentials.token()
    except ExpiredCredentials as error:
        return problem("token", _reason(str(error)), _advice(credentials, behind))
    except EtceteraError as error:
        return failure("token", error)
    ends = credentials.expires
    left = (ends - datetime.now(UTC)).total_seconds() if ends else 0
    until = f", good for {span(left)} and then renewed" if left > 0 else ""
    who = f" for {credentials.place.show(credentials.account)}" if credentials.account else ""
    return fine("token", f"the server of the credentials gives one{who}{until}")


def _reason(text: str) -> str:
    return text.partition("; ")[0]


def _advice(credentials: Credentials, behind: float | None) -> str:
    if behind is not None and abs(behind) > WRONG_SECONDS:
        return "set the clock of this machine: a wrong one is the usual reason"
    if not credentials.file:
        return "log in again, for instance with: gcloud auth application-default login"
    if credentials.kind.startswith("the key"):
        return (
            f"see whether the account still is and still has this key; make a new key for "
            f"{credentials.file} if not"
        )
    return f"log in again: gcloud auth application-default login renews {credentials.file}"
