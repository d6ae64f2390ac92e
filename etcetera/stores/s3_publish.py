"""Making an S3 object visible, and finding out whether that has happened.

The reply to the request that publishes may be lost, late or senseless, so it is never believed:
afterwards the object is looked at. A random value in its metadata tells whether it is ours, even
where the same request, sent twice, is refused because of what it did the first time.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio

from etcetera.errors import (
    AlreadyExists,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NotAllowed,
    StoreError,
)
from etcetera.stores import ObjectInfo, patience
from etcetera.stores.common import Refused, replaced, time_from
from etcetera.stores.place import Place
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering, no_credentials

ATTEMPTS = 5
"""How often the request that publishes is sent before giving up."""
CONFLICTS = 2
"""How often a put is sent again because another write of the key was under way."""
CERTAIN_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")
"""Ends of the names of servers that are known not to ignore If-None-Match."""
NONCE = "etcetera-upload"
"""The metadata that tells our object from one that somebody else made meanwhile."""

_EXPECTED = frozenset[str | int](
    {"PreconditionFailed", 412, "ConditionalRequestConflict", "NoSuchUpload"}
)
_CONFLICT = frozenset[str | int]({"ConditionalRequestConflict"})
_UNKNOWN_CONDITION = frozenset[str | int]({"NotImplemented", 501})


async def look_before_publishing(connection: Connection, key: str) -> dict[str, Any] | None:
    """Return the answer to a HEAD request; ``None`` if there is no such object, or may be none.

    S3 says 403 of an absent object to whoever must not list the bucket. Whether the key is free is
    then for the condition to say, on servers that are sure to heed it. Elsewhere going on might
    replace what nobody asked to replace.

    Raises:
        NotAllowed: Nothing can be said about the object, and the server may ignore conditions.
    """
    await connection.get_client()  # before that nobody knows the server's name
    host = urlsplit(connection.place.endpoint).hostname or ""
    blind = connection.conditions and host.endswith(CERTAIN_HOSTS)
    return await look(connection, key, blind=blind)


async def look(connection: Connection, key: str, *, blind: bool = False) -> dict[str, Any] | None:
    """Return the answer to a HEAD request; ``None`` if there is no such object.

    Args:
        connection: Where to look.
        key: As the bucket calls it.
        blind: Take what must be neither looked at nor listed for absent.

    Raises:
        RepositoryNotFound: There is no such bucket.
        NotAllowed: Nothing can be said about the object; NoCredentials where there are none.
    """
    try:
        answer = await connection.call("head_object", Key=key, expected={400, 403, 404})
    except Refused as refusal:
        # A HEAD answer has no body: a listing tells what is wrong.
        if refusal.status == 404 and connection.bucket_seen:
            return None
        try:
            await connection.call("list_objects_v2", Prefix=key, MaxKeys=1)
        except NotAllowed as error:
            if blind and refusal.status == 403 and type(error) is NotAllowed:
                return None
            if refusal.status != 404 or isinstance(error, ExpiredCredentials):
                raise
        if refusal.status == 404:
            connection.bucket_seen = True
            return None
        if connection.anonymous:
            raise no_credentials(connection.place) from refusal
        raise NotAllowed(f"{refusal}; check the rights to read {key}") from refusal
    connection.bucket_seen = True
    return answer


def describe(place: Place, key: str, answer: dict[str, Any]) -> ObjectInfo:
    """Return what a listing or a HEAD answer says about an object.

    Raises:
        NetworkError: It says nothing sensible.
    """
    with answering(place):
        size = answer["ContentLength"] if "ContentLength" in answer else answer["Size"]
        if not 0 <= size < 1 << 63:
            raise ValueError("an impossible size")
        modified = time_from(answer["LastModified"].timestamp())
        return ObjectInfo(key=key, size=size, modified=modified, etag=plain_etag(answer))


def plain_etag(answer: dict[str, Any]) -> str:
    """Return the ETag without quotes, which some servers send and some do not."""
    return str(answer.get("ETag") or "").removeprefix("W/").strip('"')


@dataclass(slots=True, kw_only=True)
class Publication:
    """One object about to become visible."""

    connection: Connection
    url: str
    """Of the object, for messages."""
    name: str
    """As the repository calls it."""
    key: str
    """As the bucket calls it."""
    nonce: str
    size: int
    overwrite: bool
    replaces: str | None = None
    """The ETag of the only version that may be replaced; any, if None."""
    repeatable: bool = False
    """Whether the request can be sent again after a conflict with another write of the key."""

    async def run(self, send: Callable[..., Awaitable[dict[str, Any]]]) -> ObjectInfo:
        """Send the request until it is clear what became of it.

        Args:
            send: Sends it once; takes the arguments of :meth:`Connection.call` to be added.

        Raises:
            AlreadyExists: The key is taken, and not by us.
            RemoteChanged: What it was to replace is no longer there.
            StoreError: What is there now is not what was sent.
            NetworkError: After the last attempt.
        """
        before = await self._look()
        # Not left to the condition alone: some servers ignore it.
        self._check_before(before)
        pauses, conflicts = patience.delays(ATTEMPTS), 0
        while True:
            answer, problem = await self._try(send)
            found = await self._look()
            if found is not None and self._is_ours(found, before, answer):
                return self._checked(found)
            if isinstance(problem, Refused) and problem.status == 412:
                raise self._lost_race() from problem
            if isinstance(problem, Refused):
                conflicts += 1
                conflict = problem.is_one_of(_CONFLICT)
                if not (self.repeatable and conflict and conflicts <= CONFLICTS):
                    raise self._lost(problem, conflict=conflict) from problem
            if answer.get("ETag") and found is None and not await self._can_look():
                raise NotAllowed(
                    f"{self.url} was published, but these credentials must not look at it, so it "
                    "is not checked; allow s3:GetObject"
                )
            if answer.get("ETag") and found is not None:
                raise StoreError(
                    f"{self.url} was replaced by somebody else just now; look at it (etc ls -r "
                    "--long) before you push again with --force"
                )
            pause = next(pauses, None)
            if pause is None:
                raise problem or NetworkError(f"{self.url} did not appear; try again later")
            await anyio.sleep(pause)

    async def _try(
        self, send: Callable[..., Awaitable[dict[str, Any]]]
    ) -> tuple[dict[str, Any], Refused | NetworkError | None]:
        condition = self._condition() if self.connection.conditions else {}
        try:
            if not condition:
                return await send(expected=_EXPECTED, attempts=1), None
            try:
                expected = _EXPECTED | _UNKNOWN_CONDITION
                return await send(expected=expected, attempts=1, **condition), None
            except Refused as refusal:
                if not refusal.is_one_of(_UNKNOWN_CONDITION):
                    raise
                # A look before has to do, and this time one that sees.
                self._check_before(await look(self.connection, self.key))
                answer = await send(expected=_EXPECTED, attempts=1)
                self.connection.conditions = False
                return answer, None
        except (Refused, NetworkError) as error:
            return {}, error

    def _condition(self) -> dict[str, str]:
        """What the request that publishes is to depend on."""
        if self.replaces is not None:
            return {"IfMatch": f'"{self.replaces}"'}
        return {} if self.overwrite else {"IfNoneMatch": "*"}

    def _check_before(self, found: dict[str, Any] | None) -> None:
        """Refuse to replace what is not to be replaced."""
        if self.replaces is not None:
            if found is None or plain_etag(found) != self.replaces:
                raise self._lost_race()
        elif found is not None and not self.overwrite:
            raise self._lost_race()

    def _is_ours(
        self, found: dict[str, Any], before: dict[str, Any] | None, answer: dict[str, Any]
    ) -> bool:
        nonce = found.get("Metadata", {}).get(NONCE)
        if nonce is not None:
            return bool(nonce == self.nonce)
        # The server keeps no metadata: something new of the right size, or what it says it made.
        changed = before is None or plain_etag(found) != plain_etag(before)
        return found.get("ContentLength") == self.size and (changed or bool(answer.get("ETag")))

    def _checked(self, found: dict[str, Any]) -> ObjectInfo:
        info = describe(self.connection.place, self.name, found)
        if info.size != self.size:
            raise StoreError(
                f"{self.url} has {info.size} bytes instead of {self.size}; "
                "push it again with --force"
            )
        return info

    async def _look(self) -> dict[str, Any] | None:
        return await look_before_publishing(self.connection, self.key)

    async def _can_look(self) -> bool:
        try:
            await look(self.connection, self.key)
        except NotAllowed:
            return False
        return True

    def _lost(self, refusal: Refused, *, conflict: bool) -> StoreError:
        if conflict:
            return StoreError(
                f"{self.url} was being written by somebody else at the same moment; push again"
            )
        return StoreError(f"{refusal}; push again")

    def _lost_race(self) -> EtceteraError:
        if self.replaces is None:
            return AlreadyExists(f"{self.url} exists already")
        return replaced(self.url)
