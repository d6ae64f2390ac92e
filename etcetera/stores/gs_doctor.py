"""What is wrong between here and a bucket of Google Storage: asked step by step.

Nothing is written, but for what ``etcetera.stores.gs_trial`` tries.
"""

import logging
import secrets
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

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
from etcetera.stores.gs_bucket import (
    CREATE,
    DELETE,
    GET,
    Rights,
    find_features,
    find_rights,
    judge_features,
    judge_rights,
    keeps,
)
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_endpoint import EMULATOR
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_identity import LOG_IN, NAME_A_KEY, check_credentials, check_token
from etcetera.stores.gs_publish import describe
from etcetera.stores.gs_questions import ANSWER_SECONDS, ask, check_reading
from etcetera.stores.gs_temporary import checked_name
from etcetera.stores.gs_trial import try_writing
from etcetera.stores.proxies import find_proxy
from etcetera.stores.reach import EXAMINATION_SECONDS, check_clock, reach, seconds_behind

_logger = logging.getLogger("etcetera")

_ANSWERS = frozenset[str | int]({301, 302, 307, 308, 400, 401, 403, 404, 405, 501})
"""What a refused listing is answered with."""
_FIELDS = "items(name,size,generation,timeCreated,updated,contentEncoding)"


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
    examination = _Examination(connection, prefix, public)
    with within(EXAMINATION_SECONDS, examination.findings):
        if await examination.reach() and await examination.look_at_list():
            await examination.look_for_nothing()
            await examination.look_at_bucket()
            await examination.write_or_read(write=write)
    return examination.findings


@dataclass(slots=True)
class _Examination:
    """What is asked, and what was found."""

    connection: Connection
    prefix: str
    public: bool
    findings: list[Finding] = field(default_factory=list)
    anonymous: bool = False
    archive: ObjectInfo | None = None
    """Some archive of the repository; its key as the bucket calls it."""
    rights: Rights | None = None
    bucket: Mapping[str, Any] | None = None

    async def reach(self) -> bool:
        """Look who asks, and for the server; return whether to go on with questions."""
        connection, endpoint = self.connection, self.connection.place.endpoint
        try:
            credentials = await connection.credentials()
        except EtceteraError as error:
            self.findings.append(failure("credentials", error))
            return False
        _logger.info("It is at %s", endpoint)
        self.anonymous = credentials.anonymous
        self.findings += await check_credentials(connection, credentials)
        reached = await reach(
            endpoint,
            connection.endpoint_from or "the network",
            proxied=find_proxy(endpoint, connection.place) is not None,
            anonymous=self.anonymous,
            which=self._which(),
        )
        self.findings.append(reached)
        if reached.status == "problem":
            return False
        try:
            headers = await connection.greet(ANSWER_SECONDS)
        except EtceteraError as error:
            self.findings[-1] = self._no_answer(error)
            return False
        behind = seconds_behind(headers.get("Date", ""))
        self.findings.append(check_clock(behind, "nobody gets a token with such a time"))
        if self.anonymous:
            return True
        token = await check_token(credentials, behind)
        self.findings.append(token)
        return token.status == "ok"

    def _which(self) -> str:
        """What to say of a server that is not Google's."""
        if self.connection.google:
            return ""
        by = "environment variable " if self.connection.endpoint_from == EMULATOR else ""
        return f"; it is not Google's own, but the one of {by}{self.connection.endpoint_from}"

    def _correction(self) -> str:
        """What to do if the server is none."""
        if not self.connection.endpoint_from:
            return "see whether a proxy or a login page lies between here and Google"
        return f"correct or remove {self.connection.endpoint_from}"

    async def _may_read(self) -> bool:
        """Whether whoever asks may read what must not be listed."""
        with suppress(EtceteraError):
            return GET in (await find_rights(self.connection, public=False) or ())
        return False

    def _no_answer(self, error: EtceteraError) -> Finding:
        text = str(error)
        if isinstance(error, NetworkError) and "cannot be trusted" in text:
            advice = (
                f"{self._correction()}; if it has a certificate of your own authority, set "
                "SSL_CERT_FILE"
            )
            return problem("endpoint", text.rpartition("; ")[0], advice)
        if isinstance(error, NetworkError) and "did not answer sensibly" in text:
            return problem("endpoint", text.rpartition("; ")[0], self._correction())
        return failure("endpoint", error)

    async def look_at_list(self) -> bool:
        """Ask for a list of the repository; return whether to go on with other questions."""
        query = {
            "prefix": self.prefix,
            "delimiter": "/",
            "maxResults": "100",
            "fields": f"kind,prefixes,{_FIELDS}",
        }
        try:
            page = await ask(self.connection, self.connection.list_path(), query, _ANSWERS)
            with answering(self.connection.place):
                self._take(page)
        except Refused as refusal:
            self.findings.append(self._meaning(refusal))
            if self.findings[-1].check != "list":
                return False
            # Everything else would be refused for the same reason.
            return not self.anonymous or await self._may_read()
        except RepositoryNotFound as error:
            self.findings.append(failure("bucket", error))
            return False
        except NotAllowed as error:
            self.findings.append(failure(_about(error), error))
            return False
        except EtceteraError as error:
            self.findings.append(self._no_answer(error))
            return False
        return True

    def _take(self, page: Mapping[str, Any]) -> None:
        """Say that a list came, and look for an archive that a piece of can be read."""
        encoded = []
        for entry in page.get("items") or ():
            name = checked_name(entry)
            if not (name.startswith(self.prefix) and name.endswith(".tgz")):
                continue
            if int(entry.get("size", 0)) <= 16:
                continue
            if entry.get("contentEncoding"):
                encoded.append(str(entry["name"]))
            self.archive = describe(self.connection.place, entry["name"], entry)
        text = f"{self.connection.place.url} can be listed"
        if self.archive is None:
            text += "; it has no datasets: if that is wrong, correct the url"
        self.findings.append(fine("list", text))
        if encoded:
            self.findings.append(self._judge_encoding(encoded))

    def _judge_encoding(self, names: list[str]) -> Finding:
        place = self.connection.place
        shown = place.show(names[0]) + (f" and {len(names) - 1} more" if names[1:] else "")
        command = shlex.join(
            [
                *("gcloud", "storage", "objects", "update", "--clear-content-encoding"),
                f"gs://{place.bucket}/{names[0]}",
            ]
        )
        return warning(
            "encoding",
            f"marked with a Content-Encoding: {shown}; whoever gets that otherwise than by "
            "etcetera gets it unpacked, and other bytes than were pushed",
            f"take the mark away: {command}",
        )

    def _meaning(self, refusal: Refused) -> Finding:
        """What a refused listing says."""
        if refusal.status not in (401, 403):
            text = f"{self.connection.place.endpoint} does not answer as Google Storage ({refusal})"
            return problem("endpoint", text, self._correction())
        if self.anonymous:
            text = f"without credentials the repository cannot be listed ({refusal})"
            return problem("list", text, self._who())
        if refusal.status == 401:
            text = f"the server does not take the token of these credentials ({refusal})"
            return problem("access", text, f"{self._correction()}, or log in again")
        return problem(
            "list",
            f"the credentials have no right to list the repository ({refusal}): etc ls -r cannot "
            "work",
            "ask the bucket's owner for the right storage.objects.list",
        )

    def _who(self) -> str:
        """What to do where there are no credentials."""
        return LOG_IN if self.connection.google else NAME_A_KEY

    async def look_for_nothing(self) -> None:
        """Ask for an object that is not there: etcetera asks so whether a name is free."""
        check = "absent names"
        path = self.connection.object_path(f"{self.prefix}{RESERVED}{secrets.token_hex(8)}")
        with reporting(self.findings, check):
            try:
                await ask(self.connection, path, {"fields": "generation"}, {401, 403, 404})
            except Refused as refusal:
                if refusal.status == 404:
                    self.findings.append(fine(check, "the server says which are free"))
                    return
                self.findings.append(
                    warning(
                        check,
                        f"of a name that is free the server says {refusal.status}, not 404: "
                        "whether a name is taken is seen only when it is published",
                        "ask the bucket's owner for the right storage.objects.list",
                    )
                )
                return
            text = "the server says of any name that it is taken"
            self.findings.append(problem(check, text, self._correction()))

    async def look_at_bucket(self) -> None:
        """Ask what is allowed, and how the bucket is set up."""
        with reporting(self.findings, "rights"):
            self.rights = await find_rights(self.connection, public=self.public)
            self.findings.append(
                judge_rights(self.rights, anonymous=self.anonymous, public=self.public)
            )
        with reporting(self.findings, "bucket"):
            self.bucket = await find_features(self.connection)
            self.findings += judge_features(
                self.connection, self.bucket, public=self.public, reads_only=not self._may(CREATE)
            )

    def _may(self, right: str) -> bool:
        return self.rights is None or right in self.rights

    def _why_not_write(self) -> str:
        """Why nothing is tried that has to be written; nothing if it is."""
        if self.anonymous and self.connection.google:
            return "needs credentials"
        if not self._may(CREATE):
            return f"needs the right {CREATE}"
        if not self._may(DELETE):
            return f"needs the right {DELETE}: what is written could not be removed again"
        if keeps(self.bucket):
            return "needs a bucket that lets go what is written"
        return ""

    async def write_or_read(self, *, write: bool) -> None:
        """Try what a push relies on, if that is wanted and can be; else only reading."""
        why = self._why_not_write() if write else "etc doctor --write tries it"
        if not why:
            await try_writing(self.connection, self.prefix, self.findings, public=self.public)
            return
        if self.archive is None:
            text = "no archive is known to try it on"
            self.findings.append(unknown("read", text, "push a dataset"))
        else:
            with reporting(self.findings, "read"):
                self.findings += await check_reading(self.connection, self.archive)
        what = "conditional writes, checksums, uploads and moves were not tried"
        self.findings.append(unknown("write", what, why))


def _about(error: NotAllowed) -> str:
    """What a refusal is about that says itself what to do."""
    return "billing" if "has to pay" in str(error) else "access"
