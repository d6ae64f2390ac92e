"""Parts copied from another object of the bucket, and what became of them.

Some servers answer 200 to a copy and store nothing, so a part counts as copied only if the answer
has its CRC-32, or the server lists it with the right size.
"""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from etcetera.errors import NotAllowed, StoreError
from etcetera.stores import CannotCopy, ObjectInfo
from etcetera.stores.common import Refused, replaced
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_unfinished import list_parts

_UNABLE = {
    "r2.cloudflarestorage.com": "the store wants all parts equal",
    "storage.googleapis.com": "the store copies no parts",
}
"""Ends of the names of servers, and why no part can be copied there."""
_CHANGED = frozenset[str | int]({"PreconditionFailed", "NoSuchKey", 412})


async def why_no_copies(connection: Connection) -> str | None:
    """Why no part can be copied; ``None`` if only trying tells."""
    await connection.get_client()  # before that nobody knows the server's name
    host = urlsplit(connection.place.endpoint).hostname or ""
    for name, reason in _UNABLE.items():
        if host == name or host.endswith(f".{name}"):
            return reason
    return None


async def copy_part(
    connection: Connection,
    upload: Mapping[str, Any],
    number: int,
    source: ObjectInfo,
    source_key: str,
    start: int,
    stop: int,
    crc32: int,
) -> tuple[str, bool]:
    """Ask for a copy.

    Args:
        connection: Of the bucket.
        upload: Its key and id, as arguments of a request.
        number: Of the part.
        source: The version to copy from.
        source_key: As the bucket calls it.
        start: In the source.
        stop: In the source, exclusive.
        crc32: Of the bytes.

    Returns:
        The ETag of the part, and whether the server has computed the same CRC-32.

    Raises:
        CannotCopy: The server refuses, or has copied something else.
        RemoteChanged: The source is another version.
    """
    try:
        answer = await connection.call(
            "upload_part_copy",
            writes=True,
            expected=_CHANGED,
            PartNumber=number,
            CopySource={"Bucket": connection.place.bucket, "Key": source_key},
            CopySourceRange=f"bytes={start}-{stop - 1}",
            CopySourceIfMatch=f'"{source.etag}"',
            **upload,
        )
    except Refused as refusal:
        raise replaced(source.key) from refusal
    except StoreError as error:
        raise CannotCopy(f"the store copies no parts ({error})") from error
    except NotAllowed as error:
        if type(error) is not NotAllowed:
            raise
        raise CannotCopy(f"copying is not allowed ({error})") from error
    with answering(connection.place):
        result = answer.get("CopyPartResult") or {}
        etag, checksum = result.get("ETag"), result.get("ChecksumCRC32")
    if not etag:
        raise CannotCopy("the store does not say what it has copied")
    if checksum is not None and checksum != encoded_crc32(crc32):
        raise CannotCopy("the store has copied other bytes than the older archive's index says")
    return str(etag), checksum is not None


async def check_copies(
    connection: Connection, upload: Mapping[str, Any], copied: Mapping[int, int]
) -> None:
    """Raise CannotCopy unless the server has these parts.

    Args:
        connection: Of the bucket.
        upload: Its key and id, as arguments of a request.
        copied: Bytes by the number of a part.
    """
    stored: dict[int, int] = {}
    try:
        with answering(connection.place):
            async for part in list_parts(connection, upload["Key"], upload["UploadId"]):
                stored[part["PartNumber"]] = part["Size"]
    except Refused as refusal:
        raise CannotCopy(f"the store does not say what it has copied ({refusal})") from refusal
    except (StoreError, NotAllowed) as error:
        if type(error) not in (StoreError, NotAllowed):
            raise
        raise CannotCopy(f"the store does not say what it has copied ({error})") from error
    for number, size in copied.items():
        if stored.get(number) != size:
            found = stored.get(number, 0)
            raise CannotCopy(f"the store says that it has copied {size:,} bytes, and has {found:,}")


def encoded_crc32(crc32: int) -> str:
    """As S3 wants it."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode("ascii")
