"""What is wrong between here and a bucket: asked for step by step, nothing is written."""

import logging
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import anyio

from etcetera.errors import EtceteraError, NetworkError, NotAllowed, RepositoryNotFound
from etcetera.findings import (
    RESERVED,
    Finding,
    failure,
    fine,
    problem,
    reporting,
    unknown,
    warning,
    within,
)
from etcetera.stores import ObjectInfo
from etcetera.stores.common import Refused
from etcetera.stores.reach import EXAMINATION_SECONDS, check_clock, seconds_behind
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import ELSEWHERE, answering, region_name
from etcetera.stores.s3_publish import describe
from etcetera.stores.s3_reach import examine_credentials, look_for_server
from etcetera.stores.s3_trial import try_writing
from etcetera.stores.s3_trial_reading import ATTEMPTS, check_reading

ANSWER_SECONDS = 20.0
"""How long to wait for the answer to one question."""

_logger = logging.getLogger("etcetera")

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"}
_ANSWERS = frozenset[str | int]({301, 307, 400, 401, 403})
"""What a refused listing is answered with."""


@dataclass(slots=True, eq=False)  # botocore puts it into a dictionary
class _Heard:
    """What the head lines of all answers tell beside the answer."""

    behind: float | None = None
    """Seconds by which the clock of this machine is behind the server's."""
    region: str = ""
    """Of the bucket."""

    def __call__(self, response_dict: dict[str, Any] | None = None, **_: object) -> None:
        headers = (response_dict or {}).get("headers", {})
        self.region = str(headers.get("x-amz-bucket-region", self.region))
        behind = seconds_behind(str(headers.get("date", "")))
        self.behind = self.behind if behind is None else behind


async def examine(
    connection: Connection, prefix: str, *, public: bool, write: bool
) -> list[Finding]:
    """Examine a bucket; see :meth:`etcetera.stores.Store.examine`.

    Args:
        connection: To the bucket.
        prefix: Of all keys; empty, or ending with a slash.
        public: Whether what is pushed should be readable by everybody.
        write: Whether to try also what has to be written.
    """
    try:
        client = await connection.get_client()
    except EtceteraError as error:
        return [failure("credentials" if isinstance(error, NotAllowed) else "endpoint", error)]
    _logger.info("It is at %s", connection.place.endpoint)
    examination = _Examination(connection, prefix, str(client.meta.region_name))
    client.meta.events.register("response-received.s3", examination.heard)
    findings = examination.findings
    findings.append(examine_credentials(connection, client._request_signer._credentials))
    reached = await look_for_server(connection)
    findings.append(reached)
    if reached.status == "problem":
        return findings
    deadline = anyio.current_time() + EXAMINATION_SECONDS
    go_on = False
    with within(EXAMINATION_SECONDS, findings):
        if await examination.look_at_list():
            await examination.look_for_nothing()
            go_on = True
    if not go_on:
        return findings
    key = f"{prefix}{RESERVED}{secrets.token_hex(8)}"
    if write and not connection.anonymous:
        seconds = deadline - anyio.current_time()
        await try_writing(connection, key, findings, public=public, seconds=seconds)
        if {"read", "ranges"}.isdisjoint(one.check for one in findings):  # nothing to try it on
            await examination.read()
    else:
        await examination.read()
        why = "needs credentials" if connection.anonymous else "etc doctor --write tries it"
        what = "conditional writes, checksums, part copy and public objects were not tried"
        findings.append(unknown("write", what, why))
    return findings


@dataclass(slots=True)
class _Examination:
    """What is asked of a server that can be reached."""

    connection: Connection
    prefix: str
    region: str
    """In which requests are signed."""
    heard: _Heard = field(default_factory=_Heard)
    findings: list[Finding] = field(default_factory=list)
    archive: ObjectInfo | None = None
    """Some archive of the repository; its key as the bucket calls it."""

    async def ask(
        self, operation: str, expected: Collection[str | int], **arguments: Any
    ) -> dict[str, Any]:
        with answering(self.connection.place), anyio.fail_after(ANSWER_SECONDS):
            return await self.connection.call(
                operation, expected=expected, attempts=ATTEMPTS, **arguments
            )

    async def look_at_list(self) -> bool:
        """Ask for a list of the repository; return whether to go on with other questions."""
        go_on, found = True, []
        try:
            page = await self.ask(
                "list_objects_v2", _ANSWERS, Prefix=self.prefix, Delimiter="/", MaxKeys=100
            )
            with answering(self.connection.place):
                for entry in page.get("Contents", ()):
                    key = entry["Key"]
                    mine = key.startswith(self.prefix) and key.endswith(".tgz")
                    if mine and entry["Size"] > 16:
                        self.archive = describe(self.connection.place, key, entry)
            text = f"{self.connection.place.url} can be listed"
            if self.archive is None:
                text += "; it has no datasets: if that is wrong, correct the url"
            found = [fine("list", text)]
        except Refused as refusal:
            found = [self._meaning(refusal)]
            go_on = found[0].check == "list"
        except RepositoryNotFound as error:
            found, go_on = [failure("bucket", error)], False
        except EtceteraError as error:
            found, go_on = [self._no_answer(error)], False
        meaning = "servers refuse what is signed with such a time"
        self.findings.append(check_clock(self.heard.behind, meaning))
        if found[0].check != "region":
            self.findings += self._region()
        self.findings += found
        return go_on

    def _no_answer(self, error: EtceteraError) -> Finding:
        if isinstance(error, NetworkError) and "cannot be trusted" in str(error):
            return problem(
                "endpoint",
                str(error).rpartition("; ")[0],
                "if it has a certificate of your own authority, set AWS_CA_BUNDLE; if it is not "
                "encrypted at all, write http:// instead of https://",
            )
        return failure("endpoint", error)

    def _meaning(self, refusal: Refused) -> Finding:
        """What a refused listing says."""
        code, said = refusal.code, str(refusal)
        if code == "InvalidAccessKeyId":
            return problem(
                "access",
                f"the server does not know the access key ({said})",
                "correct aws_access_key_id, or endpoint_url if it is the key of another server",
            )
        if code == "SignatureDoesNotMatch":
            return problem(
                "access",
                f"the secret key is not the one of the access key ({said})",
                "copy both of them again",
            )
        if code in _EXPIRED:
            return problem(
                "access", f"the credentials are expired ({said})", "log in again, or renew them"
            )
        if code in ("RequestTimeTooSkewed", "RequestExpired"):
            return problem(
                "access",
                f"the signatures of this machine have another time than the server ({said})",
                "set the clock of this machine",
            )
        if code in ELSEWHERE:
            region = region_name(self.heard.region)
            return problem(
                "region",
                f"the bucket is in another region, or at another server ({said})",
                f'write region = "{region}"' if region else "correct region and endpoint_url",
            )
        if refusal.status not in (401, 403):
            advice = "check url and endpoint_url, or ask whoever runs the server"
            return problem("endpoint", said, advice)
        if self.connection.anonymous:
            return problem(
                "list",
                f"without credentials the repository cannot be listed ({said})",
                "set aws_access_key_id and aws_secret_access_key, or a profile, in ~/.etc.toml",
            )
        return problem(
            "list",
            f"the credentials have no right to list the repository ({said}): etc ls -r cannot work",
            "ask the bucket's owner for the right s3:ListBucket",
        )

    def _region(self) -> list[Finding]:
        region = region_name(self.heard.region)
        if region in ("", self.region):
            return []
        return [
            warning(
                "region",
                f"the bucket is in {region}, not in {self.region}: requests go there by a detour",
                f'write region = "{region}"',
            )
        ]

    async def look_for_nothing(self) -> None:
        """Ask for an object that is not there: etcetera asks so whether a name is free."""
        with reporting(self.findings, "absent names"):
            try:
                key = f"{self.prefix}{RESERVED}{secrets.token_hex(8)}"
                await self.ask("head_object", {400, 403, 404}, Key=key)
            except Refused as refusal:
                if refusal.status == 404:
                    self.findings.append(fine("absent names", "the server says which are free"))
                    return
                self.findings.append(
                    warning(
                        "absent names",
                        f"of a name that is free the server says {refusal.status}, not 404: a push "
                        "may not be able to tell whether a name is taken",
                        "ask the bucket's owner for the right s3:ListBucket",
                    )
                )
                return
            self.findings.append(
                problem(
                    "absent names",
                    "the server says of any name that it is taken",
                    "check endpoint_url: is it an S3 server?",
                )
            )

    async def read(self) -> None:
        """Ask for a piece of some archive."""
        if self.archive is None:
            self.findings.append(
                unknown("read", "no archive is known to try it on", "push a dataset")
            )
            return
        with reporting(self.findings, "read"), answering(self.connection.place):
            with anyio.fail_after(ANSWER_SECONDS):
                self.findings += await check_reading(self.connection, self.archive)
