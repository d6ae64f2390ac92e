"""Names in a bucket that are not published yet, and what may be left under them.

Everything lies under ``.etcetera/NAME/NONCE`` beside the archives, a prefix that no listing of a
repository looks into: uploads by their id, and objects.
"""

import logging
import re
import secrets
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import anyio

from etcetera.errors import EtceteraError, InvalidName, NetworkError, StoreError
from etcetera.stores.common import GRACE_SECONDS, Listed, Refused, check_key, clean_up, time_from
from etcetera.stores.gs_client import Connection, as_done, as_json
from etcetera.stores.gs_errors import answering, no_bucket
from etcetera.stores.gs_publish import generation

RESERVED = ".etcetera/"
BUSY = timedelta(hours=1)
"""How long at most a push takes to give an object its name."""
CLEAN = "etc clean -r --older-than 1"
"""What removes all that is temporary and a day old: nobody still pushes that."""
OBJECTS = 500
"""Objects of one answer."""

NO_UPLOAD = frozenset[str | int]({"NoSuchUpload", 404})
NONCE_PATTERN = re.compile(r"[0-9a-f]{32}")

_logger = logging.getLogger("etcetera")


@dataclass(frozen=True, slots=True)
class Temporary:
    """Where the bytes of one archive are until it is published."""

    key: str
    """As the bucket calls it."""
    nonce: str

    @classmethod
    def of(cls, prefix: str, name: str, nonce: str = "") -> Self:
        """Return the place for an archive.

        Args:
            prefix: Of the repository; empty, or ending with a slash.
            name: Of the archive, as the repository calls it.
            nonce: Of an earlier run; a new one by default.
        """
        nonce = nonce or secrets.token_hex(16)
        return cls(f"{prefix}{RESERVED}{name}/{nonce}", nonce)

    @classmethod
    def parse(cls, prefix: str, name: str, id: str) -> tuple[Self, str]:  # noqa: A002 - as Upload.id
        """Return the place and the upload, if there is one, that an id means.

        Raises:
            InvalidName: It is no id.
        """
        nonce, _, upload = id.partition(".")
        if not NONCE_PATTERN.fullmatch(nonce):
            raise InvalidName(f"{id!r} is no upload; etc clean -r lists those that are left")
        return cls.of(prefix, check_key(name), nonce), upload

    def id(self, upload: str) -> str:
        """What is shown, and kept in journals."""
        return f"{self.nonce}.{upload}"

    def part(self, number: int) -> str:
        """The key of a part that is an object of its own."""
        return f"{self.key}/{number:05}"

    def advice(self, bucket: str) -> str:
        """What to do about objects that are left."""
        words = ["gcloud", "storage", "rm", "--all-versions", f"gs://{bucket}/{self.key}**"]
        return f"remove it with: {shlex.join(words)}; or tomorrow with: {CLEAN}"


async def tidy_up(
    remove: Callable[[], Awaitable[None]],
    left: Callable[[str], str],
    error: BaseException | None,
    *,
    published: str,
) -> None:
    """Remove what is temporary; never without a word if that fails.

    Args:
        remove: Does it.
        left: What to say if something is left, for a reason.
        error: The one in flight, which gets a note then.
        published: The name of what was published: then a warning is enough.

    Raises:
        StoreError: Something is left, nothing was published and there is no error in flight.
    """
    slow = left(f"no answer within {GRACE_SECONDS:.0f} s")

    async def run() -> str:
        try:
            with anyio.fail_after(GRACE_SECONDS):
                await remove()
        except TimeoutError:
            return slow
        except EtceteraError as failure:
            return left(str(failure))
        return ""

    try:
        await clean_up(run(), error, left=slow)
    except StoreError as failure:
        if not published:
            raise
        _logger.warning("%s was published, but %s", published, failure)


async def abort(connection: Connection, key: str, upload: str) -> None:
    """Remove an upload; no error if there is none."""
    with suppress(Refused):
        await connection.call(
            "DELETE",
            connection.xml_path(key),
            as_done,
            query={"uploadId": upload},
            writes=True,
            expected=NO_UPLOAD,
        )


async def delete(connection: Connection, key: str, generation: str = "") -> None:
    """Remove an object; no error if there is none.

    Args:
        connection: To the bucket.
        key: As the bucket calls it.
        generation: Of the version that is removed for good, also in a bucket that keeps versions.
    """
    query = {"generation": generation} if generation else {}
    with suppress(Refused):
        await connection.call(
            "DELETE",
            connection.object_path(key),
            as_done,
            query=query,
            writes=True,
            expected={404},
        )


async def remove_objects(
    connection: Connection, place: Temporary, idle: timedelta = timedelta()
) -> None:
    """Remove every object under a temporary key.

    Args:
        connection: To the bucket.
        place: The key.
        idle: Leave those that are not older.
    """
    now = datetime.now(UTC)
    fields = "name,generation,timeCreated"
    async for resource in list_objects(connection, place.key, fields=fields):
        with answering(connection.place):
            key, version = resource["name"], generation(resource)
            made = time_of(resource["timeCreated"])
        if made <= now - idle:
            await delete(connection, key, version)


async def list_objects(
    connection: Connection, prefix: str, *, delimiter: str = "", fields: str = "name"
) -> AsyncIterator[dict[str, Any]]:
    """Yield the objects whose keys begin with *prefix*, as the JSON API describes them.

    Args:
        connection: Where to look.
        prefix: Of their keys.
        delimiter: Leave out those that have it behind the prefix.
        fields: What to tell of each.
    """
    query = {
        "prefix": prefix,
        "maxResults": str(OBJECTS),
        "fields": f"nextPageToken,items({fields})",
    }
    if delimiter:
        query["delimiter"] = delimiter
    seen: set[str] = set()
    listed = Listed(connection.place.endpoint)
    while True:
        try:
            page = await connection.call(
                "GET", connection.list_path(), as_json, query=query, expected={404}
            )
        except Refused as refusal:
            raise no_bucket(connection.place) from refusal
        with answering(connection.place):
            items, token = page.get("items") or [], page.get("nextPageToken") or ""
            mine = [one for one in items if checked_name(one).startswith(prefix)]
            listed.count(len(items))
        for resource in mine:
            yield resource
        if not token:
            return
        if not isinstance(token, str) or token in seen:
            raise senseless(connection)
        seen.add(token)
        query["pageToken"] = token


def checked_name(resource: dict[str, Any]) -> str:
    """Return the key of an object that a listing tells of.

    Raises:
        ValueError: It is none.
    """
    name = resource["name"]
    if not isinstance(name, str):
        raise ValueError("a name that is no text")
    name.encode()  # as any later request does
    return name


def time_of(written: str) -> datetime:
    """Return a time as Google writes it."""
    return time_from(datetime.fromisoformat(written).timestamp())


def senseless(connection: Connection) -> NetworkError:
    """Return the error for a server that never ends, or goes back."""
    return NetworkError(f"{connection.place.endpoint} lists the same again and again")
