"""Uploads to an S3 server that have not ended: their parts, and which of them nobody goes on with.

Answers come in pages, each of which says where the next one begins; a server that never ends, or
goes back, is not believed.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from etcetera.errors import StoreError
from etcetera.stores import CannotResume, UploadInfo
from etcetera.stores.common import Listed, Refused, time_from
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_publish import plain_etag

PAGE = 100
"""Of one answer: it is parsed on the event loop, 1000 in 60 to 150 ms."""

_MOST_PARTS = 10_000
"""S3 User Guide, "Multipart upload limits"."""

NO_UPLOAD = frozenset[str | int]({"NoSuchUpload", 404})
_NO_LIST = frozenset[str | int]({*NO_UPLOAD, "NotImplemented", 405, 501})


async def abort(connection: Connection, key: str, upload: str) -> None:
    """Remove an upload; no error if there is none."""
    with suppress(Refused):
        await connection.call(
            "abort_multipart_upload", writes=True, expected=NO_UPLOAD, Key=key, UploadId=upload
        )


async def list_parts(
    connection: Connection, key: str, upload: str
) -> AsyncIterator[dict[str, Any]]:
    """Yield the parts of an upload as the server describes them, by number.

    Raises:
        Refused: There is no such upload, or the server has no such list.
        NotAllowed: They must not be listed.
    """
    number = 0
    while True:
        page = await connection.call(
            "list_parts",
            writes=True,
            expected=_NO_LIST,
            Key=key,
            UploadId=upload,
            MaxParts=PAGE,
            PartNumberMarker=number,
        )
        before = number
        for part in page.get("Parts", ()):
            if not number < part["PartNumber"] <= _MOST_PARTS:
                raise _senseless(connection)
            number = part["PartNumber"]
            yield part
        if not page.get("IsTruncated"):
            return
        if number == before:
            raise _senseless(connection)


async def check_parts_known(
    connection: Connection,
    key: str,
    upload: str,
    known: Sequence[Mapping[str, str]],
) -> None:
    """See that the server still has the first parts of an upload, and no others in their place.

    Args:
        connection: Where to look.
        key: As the bucket calls it.
        upload: Its id.
        known: ``ETag`` and ``Size`` of each, and ``ChecksumCRC32`` where the server was told one.

    Raises:
        CannotResume: They are not what they should be.
    """
    expected = 0
    try:
        with answering(connection.place):
            async for part in list_parts(connection, key, upload):
                if expected == len(known):
                    return
                if part["PartNumber"] != expected + 1:
                    break
                mine = known[expected]
                checksum = part.get("ChecksumCRC32")
                if (
                    str(part["Size"]) != mine.get("Size")
                    or plain_etag(part) != plain_etag(dict(mine))
                    or (checksum and checksum != mine.get("ChecksumCRC32", checksum))
                ):
                    raise CannotResume(f"part {expected + 1} on the server is another one")
                expected += 1
    except Refused as refusal:
        raise CannotResume(f"the server does not have it any more ({refusal})") from refusal
    if expected < len(known):
        raise CannotResume(f"the server does not have part {expected + 1}")


async def list_idle(
    connection: Connection, prefix: str, before: datetime
) -> AsyncIterator[UploadInfo]:
    """Yield the uploads directly below *prefix* to which nothing has come since *before*."""
    marker: dict[str, Any] = {}
    listed = Listed(connection.place.endpoint)
    while True:
        page = await connection.call(
            "list_multipart_uploads",
            writes=True,
            Prefix=prefix,
            Delimiter="/",
            MaxUploads=PAGE,
            **marker,
        )
        with answering(connection.place):
            listed.count(len(page.get("Uploads", ())))
            for upload in page.get("Uploads", ()):
                name = upload["Key"].removeprefix(prefix)
                began = time_from(upload["Initiated"].timestamp())
                mine = upload["Key"].startswith(prefix)  # some servers list all
                if not mine or not name or "/" in name or began >= before:
                    continue
                found = await _describe(connection, upload["Key"], name, upload["UploadId"], began)
                if found is not None and found.modified < before:
                    yield found
            if not page.get("IsTruncated"):
                return
            following = {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page["NextUploadIdMarker"],
            }
            if following == marker or not all(isinstance(one, str) for one in following.values()):
                raise _senseless(connection)
            marker = following


async def _describe(
    connection: Connection, key: str, name: str, upload: str, began: datetime
) -> UploadInfo | None:
    size, modified = 0, began
    try:
        async for part in list_parts(connection, key, upload):
            size += part["Size"]
            modified = max(modified, time_from(part["LastModified"].timestamp()))
    except Refused:  # ended meanwhile
        return None
    return UploadInfo(key=name, id=upload, size=size, modified=modified)


def _senseless(connection: Connection) -> StoreError:
    return StoreError(f"{connection.place.endpoint} lists the same again and again")
