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
from datetime import datetime
from functools import partial
from typing import Any, Self

import anyio

from etcetera.errors import EtceteraError, InvalidName, NetworkError, StoreError
from etcetera.stores import UploadInfo
from etcetera.stores.common import GRACE_SECONDS, Listed, Refused, check_key, clean_up, time_from
from etcetera.stores.gs_client import Connection, as_done, as_json
from etcetera.stores.gs_errors import answering, no_bucket
from etcetera.stores.gs_xml import as_xml, following, text

RESERVED = ".etcetera/"
PAGE = 100
"""Uploads and parts of one answer: it is parsed on the event loop."""
OBJECTS = 500
"""Objects of one answer."""
_MOST_PARTS = 10_000
"""Cloud Storage documentation, "Quotas and limits", XML API multipart uploads."""

NO_UPLOAD = frozenset[str | int]({"NoSuchUpload", 404})
_NONCE = re.compile(r"[0-9a-f]{32}")

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
        if not _NONCE.fullmatch(nonce):
            raise InvalidName(f"{id!r} is no upload; etc clean -r lists those that are left")
        return cls.of(prefix, check_key(name), nonce), upload

    def id(self, upload: str) -> str:
        """What is shown, and kept in journals."""
        return f"{self.nonce}.{upload}"

    def part(self, number: int) -> str:
        """The key of a part that is an object of its own."""
        return f"{self.key}/{number:05}"

    def command(self, bucket: str) -> str:
        """What removes the objects that are left."""
        return shlex.join(["gcloud", "storage", "rm", f"gs://{bucket}/{self.key}**"])


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
    """Remove an object, or only one version of it; no error if there is none."""
    query = {"ifGenerationMatch": generation} if generation else {}
    with suppress(Refused):
        await connection.call(
            "DELETE",
            connection.object_path(key),
            as_done,
            query=query,
            writes=True,
            expected={404, 412},
        )


async def remove_objects(connection: Connection, place: Temporary) -> None:
    """Remove every object under a temporary key."""
    async for resource in list_objects(connection, place.key):
        await delete(connection, resource["name"])


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
        "fields": f"nextPageToken,prefixes,items({fields})",
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
            mine = [one for one in items if str(one["name"]).startswith(prefix)]
            listed.count(len(items))
        for resource in mine:
            yield resource
        if not token:
            return
        if not isinstance(token, str) or token in seen:
            raise _senseless(connection)
        seen.add(token)
        query["pageToken"] = token


async def list_parts(
    connection: Connection, key: str, upload: str
) -> AsyncIterator[tuple[int, str, int, datetime]]:
    """Yield number, ETag, bytes and time of each part of an upload, by number.

    Raises:
        Refused: There is no such upload.
    """
    number = 0
    while True:
        page = await connection.call(
            "GET",
            connection.xml_path(key),
            partial(as_xml, "ListPartsResult"),
            query={
                "uploadId": upload,
                "max-parts": str(PAGE),
                "part-number-marker": str(number),
            },
            writes=True,
            expected=NO_UPLOAD,
        )
        before = number
        with answering(connection.place):
            parts = [
                (
                    int(text(one, "PartNumber")),
                    text(one, "ETag"),
                    int(text(one, "Size")),
                    _time(text(one, "LastModified")),
                )
                for one in page.findall("Part")
            ]
            more = list(following(page, "NextPartNumberMarker"))
        for part in parts:
            if not number < part[0] <= _MOST_PARTS:
                raise _senseless(connection)
            number = part[0]
            yield part
        if not more:
            return
        if number == before:
            raise _senseless(connection)


async def list_idle(
    connection: Connection, prefix: str, before: datetime
) -> AsyncIterator[UploadInfo]:
    """Yield the uploads and temporary objects of a repository to which nothing has come since."""
    async for upload in _idle_uploads(connection, prefix, before):
        yield upload
    found: dict[tuple[str, str], UploadInfo] = {}
    fields = "name,size,timeCreated"
    async for resource in list_objects(connection, f"{prefix}{RESERVED}", fields=fields):
        with answering(connection.place):
            key, size = resource["name"], int(resource["size"])
            modified = _time(resource["timeCreated"])
        whose = _whose(prefix, key)
        if whose is None:
            continue
        name, nonce = whose
        known = found.get(whose)
        found[whose] = UploadInfo(
            key=name,
            id=f"{nonce}.",
            size=size + (known.size if known else 0),
            modified=max(modified, known.modified) if known else modified,
        )
    for info in found.values():
        if info.modified < before:
            yield info


async def _idle_uploads(
    connection: Connection, prefix: str, before: datetime
) -> AsyncIterator[UploadInfo]:
    query = {"uploads": "", "prefix": f"{prefix}{RESERVED}", "max-uploads": str(PAGE)}
    markers: list[str] = []
    listed = Listed(connection.place.endpoint)
    while True:
        try:
            page = await connection.call(
                "GET",
                connection.xml_path(),
                partial(as_xml, "ListMultipartUploadsResult"),
                query=query,
                writes=True,
                expected={404, 405, 501},
            )
        except Refused:
            return  # it has no such uploads
        with answering(connection.place):
            uploads = [
                (text(one, "Key"), text(one, "UploadId"), _time(text(one, "Initiated")))
                for one in page.findall("Upload")
            ]
            more = list(following(page, "NextKeyMarker", "NextUploadIdMarker"))
            listed.count(len(uploads))
        for key, upload, began in uploads:
            whose = _whose(prefix, key)
            if whose is None or began >= before:
                continue
            size, modified = 0, began
            with suppress(Refused):  # it may end meanwhile
                async for _, _, bytes_, time in list_parts(connection, key, upload):
                    size, modified = size + bytes_, max(modified, time)
            if modified < before:
                name, nonce = whose
                yield UploadInfo(key=name, id=f"{nonce}.{upload}", size=size, modified=modified)
        if not more:
            return
        if more == markers:
            raise _senseless(connection)
        markers = more
        query |= {"key-marker": more[0], "upload-id-marker": more[1]}


def _whose(prefix: str, key: str) -> tuple[str, str] | None:
    """The archive and the nonce that a temporary key belongs to."""
    name, _, rest = key.removeprefix(f"{prefix}{RESERVED}").partition("/")
    nonce = rest.partition("/")[0]
    mine = key.startswith(f"{prefix}{RESERVED}")
    return (name, nonce) if mine and name and _NONCE.fullmatch(nonce) else None


def _time(written: str) -> datetime:
    return time_from(datetime.fromisoformat(written).timestamp())


def _senseless(connection: Connection) -> NetworkError:
    return NetworkError(f"{connection.place.endpoint} lists the same again and again")
