"""URLs that let others read one object of a bucket, or a part of it, for a while."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from etcetera.errors import NotAllowed, StoreError, UsageError
from etcetera.stores import PinnedRange, SharedUrl
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_logs import quiet

LONGEST_SECONDS = 7 * 24 * 60 * 60
"""Source: S3 API Reference, "Authenticating Requests: Using Query Parameters"."""


async def sign_url(
    connection: Connection, key: str, seconds: int, part: PinnedRange | None, *, public: bool
) -> SharedUrl:
    """Sign a URL for plain GET requests; see :meth:`etcetera.stores.Store.share`.

    What everybody may read anyway needs no signature.

    Args:
        connection: To the bucket, that has been asked for the object before: so it is known in
            which region the bucket is, and that the credentials work.
        key: As the bucket calls it.
        seconds: How long the URL works.
        part: Only this range of only this version can be read: both are headers that the
            signature covers. The range alone would open other files once the object is replaced.
        public: Whether everybody may read the object.
    """
    client = await connection.get_client()
    url = connection.place.url
    if public or connection.anonymous:
        if part is not None:
            raise NotAllowed(
                f"everybody can read all of {url}, so no part of it can be shared alone: share "
                "the whole"
            )
        return SharedUrl(url=(await _presign(connection, key, 1)).partition("?")[0], expires=None)
    if seconds > LONGEST_SECONDS:
        raise UsageError(
            "S3 signs links for seven days at most (--expires 7d): make a new one then, or let a "
            "bucket policy allow reading"
        )
    headers = {} if part is None else part.headers()
    arguments = {name.replace("-", ""): value for name, value in headers.items()}
    now = datetime.now(UTC)
    signed = await _presign(connection, key, seconds, **arguments)
    _check_signature(signed, headers)
    expires = now + timedelta(seconds=seconds)
    credentials = client._request_signer._credentials
    # Of those that botocore renews itself: instances, roles, single sign-on.
    ends = getattr(credentials, "_expiry_time", None)
    temporary = "X-Amz-Security-Token" in parse_qs(urlsplit(signed).query)
    return SharedUrl(
        url=signed,
        part=part,
        expires=min(expires, ends.astimezone(UTC)) if temporary and ends else expires,
        temporary=temporary,
    )


async def _presign(connection: Connection, key: str, seconds: int, **arguments: Any) -> str:
    client = await connection.get_client()
    with answering(connection.place), quiet():
        url = await client.generate_presigned_url(
            "get_object",
            Params={"Bucket": connection.place.bucket, "Key": key, **arguments},
            ExpiresIn=seconds,
        )
        return str(url)


def _check_signature(url: str, headers: dict[str, str]) -> None:
    """Never hand out a link that opens more than was said, or that a plain request cannot use."""
    expected = ";".join(sorted(["host", *(name.lower() for name in headers)]))
    if parse_qs(urlsplit(url).query).get("X-Amz-SignedHeaders") != [expected]:
        raise StoreError("the link could not be signed as it has to be; nothing was shared")
