"""``gs://bucket/prefix``: objects in Google Storage, by its own APIs."""

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import anyio

from etcetera.errors import ConfigError, TruncatedArchive
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
from etcetera.stores.common import Refused, check_key, check_range, uninterrupted
from etcetera.stores.gs_checksum import checksum
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_compose import ComposedUpload
from etcetera.stores.gs_doctor import examine
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_insert import insert
from etcetera.stores.gs_publish import Publication, Target, describe, look
from etcetera.stores.gs_share import sign_url
from etcetera.stores.gs_temporary import (
    BUSY,
    Temporary,
    abort,
    delete,
    list_objects,
    remove_objects,
)
from etcetera.stores.gs_unfinished import list_idle
from etcetera.stores.gs_upload import LIMITS, NO_COPIES, GsUpload, NoMultipart
from etcetera.stores.place import Place
from etcetera.stores.ranges import (
    SLOWEST_BYTES_PER_SECOND,
    Range,
    changed,
    check_content_range,
    fill,
    take_body,
)

_CHANGED = frozenset[str | int]({404, 412})
_OUT_OF_RANGE = 416
# Cloud Storage documentation, "About Cloud Storage buckets", bucket names.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@asynccontextmanager
async def open_gs_store(settings: RepositorySettings) -> AsyncIterator["GsStore"]:
    """Open ``gs://bucket/prefix``; credentials are looked for at the first request.

    Raises:
        ConfigError: The URL names no bucket, or has a query or a fragment.
    """
    if not {"?", "#"}.isdisjoint(settings.url):
        raise ConfigError(f"{redact_url(settings.url)!r}: a gs:// URL has neither ? nor #")
    bucket, _, prefix = settings.url.removeprefix("gs://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{redact_url(settings.url)!r} names no bucket; write gs://bucket/prefix, the bucket "
            "in small letters, digits, '-', '_' and '.'"
        )
    prefix = prefix.strip("/")
    place = Place(url=f"gs://{bucket}/{prefix}".rstrip("/"), bucket=bucket)
    connection = Connection(settings, place)
    try:
        yield GsStore(place.url, connection, f"{prefix}/" if prefix else "", settings.public)
    except BaseException as error:
        await connection.close(error)
        raise
    await connection.close(None)


@dataclass(slots=True)
class GsObject:
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
        query = {"alt": "media", "generation": self.info.etag}
        headers = {
            "Range": f"bytes={begin}-{stop - 1}",
            # An object that somebody has marked as compressed comes as it is, not unpacked.
            "Accept-Encoding": "gzip",
            "Cache-Control": "no-transform",
        }
        path = self.connection.object_path(self.key)
        try:
            async with self.connection.stream(path, query, headers, {*_CHANGED, 416}) as answer:
                told = answer.headers.get("x-goog-generation", self.info.etag)
                if told != self.info.etag:
                    raise changed(self.info)
                content_range = answer.headers.get("Content-Range", "")
                ends = check_content_range(
                    content_range, answer.content_length, begin, stop, self.info
                )
                seconds = patience.STALL_SECONDS + (stop - begin) / SLOWEST_BYTES_PER_SECOND
                with answering(self.connection.place), anyio.fail_after(seconds):
                    await take_body(wanted, answer.content.read, self.info, ends=ends)
        except Refused as refusal:
            if refusal.status == _OUT_OF_RANGE:
                raise TruncatedArchive(
                    f"{self.info.key} has less than {self.info.size} bytes; "
                    "push it again with --force"
                ) from refusal
            raise changed(self.info) from refusal


@dataclass(slots=True)
class GsStore:
    """Objects of one bucket, below one prefix."""

    url: str
    connection: Connection
    prefix: str
    """Empty, or ending with a slash."""
    public: bool
    limits: PartLimits = LIMITS

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _target(self, key: str, *, overwrite: bool, replaces: str | None = None) -> Target:
        return Target(
            connection=self.connection,
            prefix=self.prefix,
            name=check_key(key),
            overwrite=overwrite,
            public=self.public,
            replaces=replaces,
        )

    async def list(self) -> AsyncIterator[ObjectInfo]:
        """Yield all objects; see :class:`etcetera.stores.Store`."""
        fields = "name,size,generation,timeCreated,updated"
        async for resource in list_objects(
            self.connection, self.prefix, delimiter="/", fields=fields
        ):
            name = resource["name"].removeprefix(self.prefix)
            # The prefix itself may be an object: a console's "folder".
            if name and "/" not in name:
                yield describe(self.connection.place, name, resource)

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; see :class:`etcetera.stores.Store`."""
        found = await look(self.connection, self._key(key), blind=True)
        return None if found is None else describe(self.connection.place, key, found)

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[GsObject | None]:
        """Pin one object; see :class:`etcetera.stores.Store`."""
        found = await look(self.connection, self._key(key))
        if found is None:
            yield None
        else:
            info = describe(self.connection.place, key, found)
            yield GsObject(self.connection, self._key(key), info)

    async def put(self, key: str, data: Data, *, overwrite: bool) -> ObjectInfo:
        """Store one object; see :class:`etcetera.stores.Store`."""
        nonce, crc32c = secrets.token_hex(16), await checksum(data)
        target = self._target(key, overwrite=overwrite)
        publication = Publication(target, nonce, len(data), crc32c)
        send = partial(
            insert,
            self.connection,
            target.key,
            data,
            crc32c,
            nonce,
            public=self.public,
            attempts=1,
        )
        return await uninterrupted(publication.run(send))

    async def why_no_copies(self) -> str | None:
        """Say so, whatever the bucket; see :class:`etcetera.stores.Store`."""
        return NO_COPIES

    @asynccontextmanager
    async def upload(
        self,
        key: str,
        *,
        part_size: int,
        overwrite: bool,
        resume: Unfinished | None = None,
        replaces: str | None = None,
    ) -> AsyncIterator[GsUpload | ComposedUpload]:
        """Begin an upload, or go on with one; see :class:`etcetera.stores.Store`."""
        target = self._target(key, overwrite=overwrite, replaces=replaces)
        upload: GsUpload | ComposedUpload
        upload = GsUpload(target, Temporary.of(self.prefix, key), part_size)
        try:
            if resume is not None:
                await upload.resume(resume)
            elif self.connection.multipart:
                try:
                    await upload.begin()
                except NoMultipart:
                    self.connection.multipart = False
            if not self.connection.multipart:
                upload = ComposedUpload(target, Temporary.of(self.prefix, key), part_size)
                await upload.begin()
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
        temporary, id_ = Temporary.parse(self.prefix, key, upload)
        if id_:
            await abort(self.connection, temporary.key, id_)
        # If it has just become an object, somebody is about to give that its name.
        await remove_objects(self.connection, temporary, idle=BUSY if id_ else timedelta())

    async def delete(self, key: str) -> None:
        """Remove one object; see :class:`etcetera.stores.Store`."""
        await delete(self.connection, self._key(key))

    async def share(self, key: str, seconds: int, part: PinnedRange | None) -> SharedUrl:
        """Sign a URL; see :class:`etcetera.stores.Store`."""
        return await sign_url(self.connection, self._key(key), seconds, part, public=self.public)

    async def examine(self, *, write: bool) -> Sequence[Finding]:
        """Ask the server for everything; see :class:`etcetera.stores.Store`."""
        return await examine(self.connection, self.prefix, public=self.public, write=write)
