"""Uploads to Google Storage that have not ended, and objects that were not published."""

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial

from etcetera.errors import InvalidName
from etcetera.stores import UploadInfo
from etcetera.stores.common import Listed, Refused, check_key
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_temporary import (
    NO_UPLOAD,
    NONCE_PATTERN,
    RESERVED,
    list_objects,
    senseless,
    time_of,
)
from etcetera.stores.gs_xml import as_xml, following, text

PAGE = 500
"""Uploads and parts of one answer."""
_MOST_PARTS = 10_000
"""Cloud Storage documentation, "Quotas and limits", XML API multipart uploads."""


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
                    time_of(text(one, "LastModified")),
                )
                for one in page.findall("Part")
            ]
            more = list(following(page, "NextPartNumberMarker"))
        for part in parts:
            if not number < part[0] <= _MOST_PARTS:
                raise senseless(connection)
            number = part[0]
            yield part
        if not more:
            return
        if number == before:
            raise senseless(connection)


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
            key, size = resource["name"], int(resource.get("size", 0))
            modified = time_of(resource["timeCreated"])
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
                (text(one, "Key"), text(one, "UploadId"), time_of(text(one, "Initiated")))
                for one in page.findall("Upload")
            ]
            more = list(following(page, "NextKeyMarker", "NextUploadIdMarker"))
            listed.count(len(uploads))
        for key, upload, began in uploads:
            whose = _whose(prefix, key)
            if whose is None or began >= before:
                continue
            size, modified = 0, began
            try:
                async for _, _, bytes_, time in list_parts(connection, key, upload):
                    size, modified = size + bytes_, max(modified, time)
            except Refused:  # it has ended meanwhile
                continue
            if modified < before:
                name, nonce = whose
                yield UploadInfo(key=name, id=f"{nonce}.{upload}", size=size, modified=modified)
        if not more:
            return
        if more == markers:
            raise senseless(connection)
        markers = more
        query |= {"key-marker": more[0], "upload-id-marker": more[1]}


def _whose(prefix: str, key: str) -> tuple[str, str] | None:
    """The archive and the nonce that a temporary key belongs to."""
    name, _, rest = key.removeprefix(f"{prefix}{RESERVED}").partition("/")
    nonce = rest.partition("/")[0]
    mine = key.startswith(f"{prefix}{RESERVED}") and NONCE_PATTERN.fullmatch(nonce)
    try:
        return (check_key(name), nonce) if mine else None
    except InvalidName:
        return None
