"""Making an object visible in Google Storage, on the condition that its name is free, or is ours.

Every request that publishes depends on the generation that its name has: 0 where there is none.
Where the reply is lost, a random value in the object's metadata tells whether it is ours.
Source: Cloud Storage documentation, "Request preconditions".
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio

from etcetera.errors import AlreadyExists, EtceteraError, NetworkError, NotAllowed, StoreError
from etcetera.stores import ObjectInfo, patience
from etcetera.stores.common import Refused, replaced, time_from
from etcetera.stores.gs_checksum import encoded
from etcetera.stores.gs_client import Connection, as_json
from etcetera.stores.gs_errors import answering, no_bucket, no_credentials
from etcetera.stores.place import Place

Resource = dict[str, Any]
"""An object, as the JSON API describes it."""
ATTEMPTS = 5
"""How often the request that publishes is sent before giving up."""
CONFLICTS = 5
"""How often a forced one is sent again because somebody else has replaced the object meanwhile."""
NONCE = "etcetera-upload"
"""The metadata that tells our object from one that somebody else made meanwhile."""
FIELDS = "name,size,generation,timeCreated,updated,crc32c,metadata"
"""Of an object that anybody here looks at."""


async def look(connection: Connection, key: str, *, blind: bool = False) -> Resource | None:
    """Return what there is to say about an object; ``None`` if there is none.

    Args:
        connection: Where to look.
        key: As the bucket calls it.
        blind: Take what must be neither looked at nor listed for absent; on Google's own servers,
            where publishing finds out.

    Raises:
        RepositoryNotFound: There is no such bucket.
        NotAllowed: Nothing can be said about the object; NoCredentials where there are none.
    """
    try:
        found = await connection.call(
            "GET",
            connection.object_path(key),
            as_json,
            query={"fields": FIELDS},
            expected={403, 404},
        )
    except Refused as refusal:
        if refusal.status == 404 and connection.bucket_seen:
            return None
        # Google says 403 of an absent object to whoever must not list the bucket.
        try:
            query = {"prefix": key, "maxResults": "1", "fields": "kind"}
            await connection.call(
                "GET", connection.list_path(), as_json, query=query, expected={404}
            )
        except Refused as nothing:
            raise no_bucket(connection.place) from nothing
        except NotAllowed as error:
            seen = refusal.status == 404 or (blind and connection.google)
            if not seen or type(error) is not NotAllowed:
                raise
            return None
        if refusal.status == 404:
            connection.bucket_seen = True
            return None
        if (await connection.credentials()).anonymous:
            raise no_credentials(connection.place) from refusal
        raise NotAllowed(f"{refusal}; check the right storage.objects.get") from refusal
    connection.bucket_seen = True
    return found


def describe(place: Place, name: str, resource: Resource) -> ObjectInfo:
    """Return what a listing or a look says about an object.

    Raises:
        NetworkError: It says nothing sensible.
    """
    with answering(place):
        size = int(resource.get("size", 0))  # some servers leave out what is zero
        if not 0 <= size < 1 << 63:
            raise ValueError("an impossible size")
        created = resource.get("timeCreated") or resource["updated"]
        modified = time_from(datetime.fromisoformat(created).timestamp())
        return ObjectInfo(key=name, size=size, modified=modified, etag=generation(resource))


def generation(resource: Resource) -> str:
    """Return what tells the versions of an object apart.

    Raises:
        ValueError: It is no number.
    """
    number = str(resource["generation"])
    if not (number.isascii() and number.isdecimal() and len(number) < 20):
        raise ValueError("a generation that is no number")
    return number


def is_ours(resource: Resource, nonce: str) -> bool:
    """Whether an object is one that was made with *nonce*."""
    metadata = resource.get("metadata")
    return isinstance(metadata, dict) and metadata.get(NONCE) == nonce


def check_content(place: Place, what: str, resource: Resource, size: int, crc32c: int) -> None:
    """Raise StoreError if an object does not hold the bytes that were sent."""
    with answering(place):
        found, checksum = int(resource.get("size", 0)), resource["crc32c"]
    if found != size or checksum != encoded(crc32c):
        raise StoreError(
            f"{what} has other bytes than were sent ({found} bytes, CRC32C {place.show(checksum)}, "
            f"instead of {size}, {encoded(crc32c)}); push it again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An object that is to be, and on which conditions."""

    connection: Connection
    prefix: str
    """Of the repository; empty, or ending with a slash."""
    name: str
    """As the repository calls it."""
    overwrite: bool
    public: bool
    """Whether everybody may read it."""
    replaces: str | None = None
    """The generation of the only version that may be replaced; any, if None."""

    @property
    def key(self) -> str:
        """As the bucket calls it."""
        return self.prefix + self.name

    @property
    def url(self) -> str:
        """For messages."""
        return f"{self.connection.place.url}/{self.name}"


@dataclass(frozen=True, slots=True)
class Publication:
    """One object about to become visible."""

    target: Target
    nonce: str
    size: int
    crc32c: int

    @property
    def _place(self) -> Place:
        return self.target.connection.place

    async def run(self, send: Callable[[str], Awaitable[Resource]]) -> ObjectInfo:
        """Send the request until it is clear what became of it.

        Args:
            send: Sends it once, if the name still has this generation ("0" for none).

        Raises:
            AlreadyExists: The key is taken, and not by us.
            RemoteChanged: What it was to replace is no longer there.
            StoreError: What is there now is not what was sent.
            NetworkError: After the last attempt.
        """
        found = await self._look()
        pauses, conflicts = patience.delays(ATTEMPTS), 0
        while True:
            # Not left to the condition alone: other servers may ignore it.
            condition = self._condition(found)
            try:
                return self._checked(await send(condition))
            except (Refused, NetworkError) as error:
                problem = error
            found = await self._look()
            if found is not None and is_ours(found, self.nonce):
                return self._checked(found)
            if isinstance(problem, NetworkError):
                pause = next(pauses, None)
                if pause is None:
                    raise problem
                await anyio.sleep(pause)
            elif problem.status in (409, 412):
                # What is there now decides: whoever wrote it may have removed it again.
                self._condition(found)
                conflicts += 1
                if conflicts > CONFLICTS:
                    raise StoreError(
                        f"{self.target.url} is written by others again and again; push again later"
                    ) from problem
            else:
                raise StoreError(f"{problem}; push again") from problem

    def _condition(self, found: Resource | None) -> str:
        """Which generation the name must have: that which was seen, and may be replaced."""
        with answering(self._place):
            there = generation(found) if found is not None else "0"
        if self.target.replaces is not None and self.target.replaces != there:
            raise self._lost_race()
        if there != "0" and not self.target.overwrite:
            raise self._lost_race()
        return there

    def _checked(self, resource: Resource) -> ObjectInfo:
        if resource.get("name") != self.target.key or not is_ours(resource, self.nonce):
            raise NetworkError(
                f"{self._place.endpoint} tells of another object than it was to make"
            )
        check_content(self._place, self.target.url, resource, self.size, self.crc32c)
        return describe(self._place, self.target.name, resource)

    async def _look(self) -> Resource | None:
        target = self.target
        return await look(target.connection, target.key, blind=not target.overwrite)

    def _lost_race(self) -> EtceteraError:
        if self.target.replaces is not None:
            return replaced(self.target.url)
        if self.target.overwrite:
            return StoreError(
                f"{self.target.url} is replaced by others again and again; push again later"
            )
        return AlreadyExists(f"{self.target.url} exists already")
