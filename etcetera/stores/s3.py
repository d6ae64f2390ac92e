"""``s3://bucket/prefix``: objects on any server that speaks the S3 protocol."""

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zlib import crc32

import anyio
import anyio.to_thread

from etcetera.errors import (
    ConfigError,
    NetworkError,
    TruncatedArchive,
)
from etcetera.findings import Finding
from etcetera.settings import RepositorySettings, redact_url
from etcetera.stores import (
    Data,
    ObjectInfo,
    PartLimits,
    PinnedRange,
    SharedUrl,
    Unfinished,
    UploadInfo,
    patience,
)
from etcetera.stores.common import (
    Listed,
    Refused,
    check_key,
    check_range,
    time_from,
    uninterrupted,
)
from etcetera.stores.place import Place
from etcetera.stores.ranges import (
    SLOWEST_BYTES_PER_SECOND,
    Range,
    changed,
    check_content_range,
    fill,
    take_body,
)
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_copy import why_no_copies
from etcetera.stores.s3_doctor import examine
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_publish import (
    Publication,
    describe,
    look,
    look_before_publishing,
    plain_etag,
)
from etcetera.stores.s3_share import sign_url
from etcetera.stores.s3_unfinished import abort, list_idle
from etcetera.stores.s3_upload import S3Upload, content_md5, object_arguments

PAGE_KEYS = 100
"""Of one answer of a listing: parsing 1000 takes 60 to 150 ms."""
EMPTY_PAGES = 1000
"""So many in a row tell of no end."""
_LONGEST_TOKEN = 8192

# S3 User Guide, "Multipart upload limits".
_LIMITS = PartLimits(min_part=5 << 20, max_part=5 << 30, max_parts=10_000)
_CHANGED = frozenset[str | int]({"PreconditionFailed", "NoSuchKey", 404, 412})
_OUT_OF_RANGE = frozenset[str | int]({"InvalidRange", 416})


@asynccontextmanager
async def open_s3_store(settings: RepositorySettings) -> AsyncIterator["S3Store"]:
    """Open ``s3://bucket/prefix``; credentials are looked for at the first request.

    Raises:
        ConfigError: The URL names no bucket, or has a query or a fragment.
    """
    if not {"?", "#"}.isdisjoint(settings.url):
        raise ConfigError(
            f"{redact_url(settings.url)!r}: an s3:// URL has neither ? nor #; take it out"
        )
    bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise ConfigError(f"{redact_url(settings.url)!r} names no bucket; write s3://bucket/prefix")
    prefix = prefix.strip("/")
    place = Place(url=f"s3://{bucket}/{prefix}".rstrip("/"), bucket=bucket)
    connection = Connection(settings, place)
    try:
        yield S3Store(place.url, connection, f"{prefix}/" if prefix else "", settings.public)
    except BaseException as error:
        await connection.close(error)
        raise
    await connection.close(None)


@dataclass(slots=True)
class S3Object:
    """One version of one object."""

    connection: Connection
    key: str
    info: ObjectInfo

    async def read(self, start: int, stop: int) -> bytearray:
        """Return the bytes from *start* to *stop*; see :class:`etcetera.stores.RemoteObject`."""
        check_range(start, stop, self.info.size)
        return await fill(Range(start, stop), self._receive, lambda: self.connection.attempts)

    async def _receive(self, wanted: Range) -> None:
        """Add what one request brings."""
        begin, stop = wanted.position, wanted.stop
        answer = await self._ask(begin, stop)
        body = answer["Body"]
        try:
            seconds = patience.STALL_SECONDS + (stop - begin) / SLOWEST_BYTES_PER_SECOND
            with answering(self.connection.place), anyio.fail_after(seconds):
                ends = self._check(answer, begin, stop)
                await take_body(wanted, body.read, self.info, ends=ends)
        finally:
            # Gives the connection up, unless the body was read to its end.
            body.close()

    async def _ask(self, begin: int, stop: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {"Range": f"bytes={begin}-{stop - 1}"}
        if self.info.etag:
            arguments["IfMatch"] = f'"{self.info.etag}"'
        try:
            return await self.connection.call(
                "get_object",
                Key=self.key,
                expected=_CHANGED | _OUT_OF_RANGE,
                attempts=1,
                **arguments,
            )
        except Refused as refusal:
            if refusal.is_one_of(_OUT_OF_RANGE):
                raise TruncatedArchive(
                    f"{self.info.key} has less than {self.info.size} bytes; "
                    "push it again with --force"
                ) from refusal
            raise changed(self.info) from refusal

    def _check(self, answer: dict[str, Any], begin: int, stop: int) -> bool:
        """Return whether the body ends at or before *stop*, if it begins at *begin* at all."""
        # Some servers ignore If-Match, and some know no ETags.
        etag = plain_etag(answer)
        if etag and self.info.etag:
            same = etag == self.info.etag
        else:
            same = time_from(answer["LastModified"].timestamp()) == self.info.modified
        if not same:
            raise changed(self.info)
        told, length = answer.get("ContentRange", ""), answer.get("ContentLength")
        return check_content_range(told, length, begin, stop, self.info)


@dataclass(slots=True)
class S3Store:
    """Objects of one bucket, below one prefix."""

    url: str
    connection: Connection
    prefix: str
    """Empty, or ending with a slash."""
    public: bool
    limits: PartLimits = _LIMITS

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    async def list(self) -> AsyncIterator[ObjectInfo]:
        """Yield all objects; see :class:`etcetera.stores.Store`."""
        token: dict[str, Any] = {}
        seen: set[str] = set()
        last: tuple[str, ...] = ()
        empty = 0
        listed = Listed(self.connection.place.endpoint)
        while True:
            page = await self.connection.call(
                "list_objects_v2", Prefix=self.prefix, Delimiter="/", MaxKeys=PAGE_KEYS, **token
            )
            with answering(self.connection.place):
                # Of a server that does not count, it may be a page of thousands.
                found, ends, following = await anyio.to_thread.run_sync(
                    _interpret, page, self.prefix, self.connection.place
                )
            listed.count(len(found))
            for info in found:
                yield info
            if not following:
                return
            empty = 0 if ends else empty + 1
            if following in seen or (ends and ends == last) or empty > EMPTY_PAGES:
                raise NetworkError(
                    f"{self.connection.place.endpoint} lists the same again and again"
                )
            seen.add(following)
            last = ends or last
            token["ContinuationToken"] = following

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; see :class:`etcetera.stores.Store`."""
        answer = await look_before_publishing(self.connection, self._key(key))
        return None if answer is None else describe(self.connection.place, key, answer)

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[S3Object | None]:
        """Pin one object; see :class:`etcetera.stores.Store`."""
        answer = await look(self.connection, self._key(key))
        found = None if answer is None else describe(self.connection.place, key, answer)
        yield None if found is None else S3Object(self.connection, self._key(key), found)

    async def put(self, key: str, data: Data, *, overwrite: bool) -> ObjectInfo:
        """Store one object; see :class:`etcetera.stores.Store`."""
        if self.public:
            # A bucket that allows no public objects refuses to begin, before it has any data.
            part_size = max(len(data), self.limits.min_part)
            async with self.upload(key, part_size=part_size, overwrite=overwrite) as upload:
                await upload.put_part(1, data, crc32(data))
                return await upload.complete()
        nonce = secrets.token_hex(16)
        arguments = object_arguments(nonce, public=False)
        arguments["ContentMD5"] = await content_md5(data)

        async def send(**more: Any) -> dict[str, Any]:
            return await self.connection.call(
                "put_object", writes=True, Key=self._key(key), body=data, **arguments, **more
            )

        publication = Publication(
            connection=self.connection,
            url=f"{self.url}/{key}",
            name=key,
            key=self._key(key),
            nonce=nonce,
            size=len(data),
            overwrite=overwrite,
            repeatable=True,
        )
        return await uninterrupted(publication.run(send))

    async def why_no_copies(self) -> str | None:
        """Go by the name of the server; see :class:`etcetera.stores.Store`."""
        return await why_no_copies(self.connection)

    @asynccontextmanager
    async def upload(
        self,
        key: str,
        *,
        part_size: int,
        overwrite: bool,
        resume: Unfinished | None = None,
        replaces: str | None = None,
    ) -> AsyncIterator[S3Upload]:
        """Begin an upload, or go on with one; see :class:`etcetera.stores.Store`."""
        upload = S3Upload(
            self.connection,
            key,
            self._key(key),
            part_size,
            overwrite,
            self.public,
            self.limits,
            replaces,
        )
        try:
            if resume is None:
                await upload.begin()
            else:
                await upload.resume(resume)
            yield upload
        except BaseException as error:
            await upload.end(error)
            raise
        await upload.end(None)

    def unfinished(self, before: datetime) -> AsyncIterator[UploadInfo]:
        """Yield idle uploads; see :class:`etcetera.stores.Store`."""
        return list_idle(self.connection, self.prefix, before)

    async def abandon(self, key: str, upload: str) -> None:
        """Abort an upload by its id; see :class:`etcetera.stores.Store`."""
        await abort(self.connection, self._key(key), upload)

    async def delete(self, key: str) -> None:
        """Remove one object; see :class:`etcetera.stores.Store`."""
        await self.connection.call("delete_object", writes=True, Key=self._key(key))

    async def share(self, key: str, seconds: int, part: PinnedRange | None) -> SharedUrl:
        """Sign a URL; see :class:`etcetera.stores.Store`."""
        return await sign_url(self.connection, self._key(key), seconds, part, public=self.public)

    async def examine(self, *, write: bool) -> Sequence[Finding]:
        """Ask the server for everything; see :class:`etcetera.stores.Store`."""
        return await examine(self.connection, self.prefix, public=self.public, write=write)


def _interpret(
    page: dict[str, Any], prefix: str, place: Place
) -> tuple[list[ObjectInfo], tuple[str, ...], str]:
    """Return the objects of a page, what it ends with, and the token of the next one, if any."""
    found, keys = [], []
    for entry in page.get("Contents", ()):
        keys.append(entry["Key"])
        name = entry["Key"].removeprefix(prefix)
        # The prefix itself may be an object: a console's "folder". And some servers list all keys.
        if entry["Key"].startswith(prefix) and name and "/" not in name:
            found.append(describe(place, name, entry))
    below = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    following = page.get("NextContinuationToken") if page.get("IsTruncated") else ""
    if not isinstance(following, str | None) or len(following or "") > _LONGEST_TOKEN:
        raise TypeError("no continuation token")
    return found, (*keys[-1:], *below[-1:]), following or ""
