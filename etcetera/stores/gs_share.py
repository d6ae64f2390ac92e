"""URLs that let others read one object of Google Storage, or a part of it, for a while."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote, urlsplit

from etcetera.errors import NotAllowed, StoreError, UsageError
from etcetera.stores import PinnedRange, SharedUrl
from etcetera.stores.gs_client import Connection

LONGEST_SECONDS = 7 * 24 * 60 * 60
"""Source: Cloud Storage documentation, "Signed URLs"."""
_ALGORITHM = "GOOG4-RSA-SHA256"


async def sign_url(
    connection: Connection, key: str, seconds: int, part: PinnedRange | None, *, public: bool
) -> SharedUrl:
    """Sign a URL for plain GET requests; see :meth:`etcetera.stores.Store.share`.

    What everybody may read anyway needs no signature.

    Args:
        connection: To the bucket.
        key: As the bucket calls it.
        seconds: How long the URL works.
        part: Only this range of only this version can be read: both are headers that the
            signature covers. The range alone would open other files once the object is replaced.
        public: Whether everybody may read the object.
    """
    url = connection.place.url
    credentials = await connection.credentials()
    if public or credentials.anonymous:
        if part is not None:
            raise NotAllowed(
                f"everybody can read all of {url}, so no part of it can be shared alone: share "
                "the whole"
            )
        plain = f"{connection.place.endpoint}{connection.xml_path(key)}"
        return SharedUrl(url=plain, expires=None)
    if seconds > LONGEST_SECONDS:
        raise UsageError(
            "Google signs links for seven days at most (--expires 7d): make a new one then, or let "
            "a policy of the bucket allow reading"
        )
    if part is not None:
        part = part._replace(etag=await _etag(connection, key, part.etag))
    account = await credentials.signer()
    now = datetime.now(UTC)
    text, query = _to_sign(connection, key, account, now, seconds, part)
    signature = await credentials.sign(text.encode())
    plain = f"{connection.place.endpoint}{connection.xml_path(key)}"
    return SharedUrl(
        url=f"{plain}?{query}&X-Goog-Signature={signature.hex()}",
        expires=now + timedelta(seconds=seconds),
        part=part,
        temporary=not credentials.has_key,
    )


async def _etag(connection: Connection, key: str, generation: str) -> str:
    """Return the ETag by which the XML API, which serves links, knows a version."""
    etag = await connection.call(
        "HEAD",
        connection.xml_path(key),
        lambda answer: answer.headers["ETag"],
        query={"generation": generation},
        writes=True,
    )
    etag = etag.removeprefix("W/").strip('"')
    if not (etag and etag.isascii() and etag.isprintable()):
        raise StoreError(f"{connection.place.endpoint} tells no ETag that can be signed")
    return etag


def _to_sign(
    connection: Connection,
    key: str,
    account: str,
    now: datetime,
    seconds: int,
    part: PinnedRange | None,
) -> tuple[str, str]:
    """Return what the signature is made of, and the query that it ends.

    Source: Cloud Storage documentation, "V4 signing process", "Canonical requests".
    """
    headers = {"host": urlsplit(connection.place.endpoint).netloc}
    if part is not None:
        headers |= {name.lower(): value for name, value in part.headers().items()}
    names = ";".join(sorted(headers))
    scope = f"{now:%Y%m%d}/auto/storage/goog4_request"
    fields = {
        "X-Goog-Algorithm": _ALGORITHM,
        "X-Goog-Credential": f"{account}/{scope}",
        "X-Goog-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Goog-Expires": str(seconds),
        "X-Goog-SignedHeaders": names,
    }
    if connection.project:
        fields["userProject"] = connection.project
    query = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(fields.items())
    )
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    canonical = "\n".join(
        ["GET", connection.xml_path(key), query, *lines, "", names, "UNSIGNED-PAYLOAD"]
    )
    digest = sha256(canonical.encode()).hexdigest()
    return "\n".join([_ALGORITHM, fields["X-Goog-Date"], scope, digest]), query
