"""A multipart upload to an S3 server."""

import asyncio
import base64
import hashlib
import logging
import secrets
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from etcetera.errors import EtceteraError, NotAllowed, StoreError
from etcetera.stores import (
    CannotCopy,
    CannotResume,
    Data,
    ObjectInfo,
    PartLimits,
    Sent,
    Unfinished,
)
from etcetera.stores.common import (
    GRACE_SECONDS,
    Refused,
    check_part,
    check_parts,
    clean_up,
    is_curable,
    leave_note,
    uninterrupted,
)
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_copy import check_copies, copy_part, encoded_crc32
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_publish import NONCE, Publication
from etcetera.stores.s3_unfinished import NO_UPLOAD, check_parts_known

_NO_CHECKSUMS = frozenset[str | int]({"NotImplemented", "InvalidArgument", "InvalidRequest", 501})
_NOT_TWICE = frozenset[str | int]({"NotImplemented", 501})
"""Said by servers that pass parts on at once: one that an earlier push sent must stay the same."""
_NO_PARTS = frozenset[str | int](
    {"InvalidPart", "EntityTooSmall", "InvalidRequest", "InvalidArgument"}
)
_NAMED = ("ETag", "ChecksumCRC32")
"""What names a part when the upload is completed."""
_COPIED = "Copied"

_logger = logging.getLogger("etcetera")


async def content_md5(data: Data) -> str:
    """Return what every server checks, however old; takes 1.5 ms per MiB, so in a thread."""
    # The thread must not look at the data any more when this ends, however it ends.
    return await uninterrupted(anyio.to_thread.run_sync(_content_md5, data), patient=True)


def _content_md5(data: Data) -> str:
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def object_arguments(nonce: str, *, public: bool) -> dict[str, Any]:
    """Return what an object is made with. Never Content-Encoding: servers would unpack it."""
    arguments: dict[str, Any] = {"ContentType": "application/gzip", "Metadata": {NONCE: nonce}}
    if public:
        arguments["ACL"] = "public-read"
    return arguments


@dataclass(slots=True)
class S3Upload:
    """An object in the making."""

    connection: Connection
    name: str
    key: str
    part_size: int
    overwrite: bool
    public: bool
    limits: PartLimits
    replaces: str | None = None
    id: str = ""
    keep: bool = False
    kept: bool = False
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    _checksums: bool = False
    _parts: dict[int, dict[str, Any]] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _copied: dict[int, int] = field(default_factory=dict)
    """Bytes of each part that was copied, by its number."""
    _unchecked: bool = False
    """Whether only a listing can tell what was copied."""
    _beginning: bool = False
    _lost: bool = False
    """Whether there may be an upload whose id never came."""
    _publishing: bool = False
    _published: bool = False
    _resumed: bool = False

    async def begin(self) -> None:
        """Ask for the upload; when cancelled, still wait a little to learn its id."""
        self._beginning = True
        await uninterrupted(self._create())

    async def resume(self, earlier: Unfinished) -> None:
        """Go on with an upload, if the server still has the parts that a journal knows."""
        self.id, self.keep, self._resumed = earlier.id, True, True
        if earlier.state.get("public") != str(self.public):
            raise CannotResume("the setting public has changed")
        try:
            await check_parts_known(self.connection, self.key, self.id, earlier.parts)
        except NotAllowed as error:
            if type(error) is not NotAllowed:  # other credentials may see them
                raise
            raise CannotResume(f"its parts cannot be listed ({error})") from error
        self._nonce = earlier.state.get("nonce", self._nonce)
        self._checksums = earlier.state.get("checksums") == str(True)
        for number, part in enumerate(earlier.parts, 1):
            named = {name: part[name] for name in _NAMED if name in part}
            self._parts[number] = {"PartNumber": number} | named
            self._sizes[number] = int(part["Size"])
            if _COPIED in part:
                self._copied[number] = self._sizes[number]

    def state(self) -> dict[str, str]:
        """What was settled at the beginning; see :class:`etcetera.stores.Upload`."""
        checksums, public = str(self._checksums), str(self.public)
        return {"nonce": self._nonce, "checksums": checksums, "public": public}

    def part(self, number: int) -> dict[str, str]:
        """ETag, checksum and size of a part; see :class:`etcetera.stores.Upload`."""
        part = self._parts[number]
        known = {name: part[name] for name in _NAMED if name in part}
        known["Size"] = str(self._sizes[number])
        return known | ({_COPIED: str(True)} if number in self._copied else {})

    async def _create(self) -> None:
        arguments = {"Key": self.key} | object_arguments(self._nonce, public=self.public)
        create = partial(self._call, "create_multipart_upload", lost=self._note_lost, **arguments)
        answer = None
        if self.connection.checksums:
            checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
            try:
                answer = await create(expected=_NO_CHECKSUMS, **checksum)
            except Refused:
                answer = await create()
                self.connection.checksums = False
        if answer is None:
            answer = await create()
        with answering(self.connection.place):
            self.id = answer["UploadId"]
        if self._lost:
            _logger.warning("%s", self._maybe_left())
        # A server that ignores what it does not know does not repeat it.
        self._checksums = answer.get("ChecksumAlgorithm") == "CRC32"

    def _note_lost(self) -> None:
        self._lost = True

    async def _call(
        self, operation: str, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        return await self.connection.call(operation, writes=True, expected=expected, **arguments)

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:
        """Send one part; see :class:`etcetera.stores.Upload`."""
        check_part(number, len(data), self.part_size, self.limits.max_parts)
        if self._checksums:
            check: dict[str, Any] = {"ChecksumCRC32": encoded_crc32(crc32)}
        else:
            check = {"ContentMD5": await content_md5(data)}
        try:
            answer = await self._call(
                "upload_part",
                _NOT_TWICE if self._resumed else (),
                Key=self.key,
                UploadId=self.id,
                PartNumber=number,
                body=data,
                sent=sent,
                **check,
            )
        except Refused as refusal:
            raise CannotResume(f"its parts cannot be replaced ({refusal})") from refusal
        if not answer.get("ETag"):
            raise StoreError(f"{self.connection.place.endpoint} took part {number} without an ETag")
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        if self._checksums:
            part |= check
        self._parts[number], self._sizes[number] = part, len(data)

    async def copy_part(
        self, number: int, source: ObjectInfo, start: int, stop: int, crc32: int
    ) -> None:
        """Copy one part; see :class:`etcetera.stores.Upload`."""
        size = stop - start
        check_part(number, size, self.limits.max_part, self.limits.max_parts)
        source_key = self.key.removesuffix(self.name) + source.key
        etag, checked = await copy_part(
            self.connection, self._which, number, source, source_key, start, stop, crc32
        )
        if not checked and not self._unchecked:
            self._unchecked = True
            await check_copies(self.connection, self._which, {number: size})
        part = {"PartNumber": number, "ETag": etag}
        if self._checksums:
            part["ChecksumCRC32"] = encoded_crc32(crc32)
        self._parts[number], self._sizes[number], self._copied[number] = part, size, size

    @property
    def _which(self) -> dict[str, str]:
        return {"Key": self.key, "UploadId": self.id}

    async def complete(self) -> ObjectInfo:
        """Publish the parts; see :class:`etcetera.stores.Upload`."""
        if self._unchecked:
            await check_copies(self.connection, self._which, self._copied)
        publication = Publication(
            connection=self.connection,
            url=f"{self.connection.place.url}/{self.name}",
            name=self.name,
            key=self.key,
            nonce=self._nonce,
            size=check_parts(self._sizes, self.limits.min_part if self._copied else self.part_size),
            overwrite=self.overwrite,
            replaces=self.replaces,
        )
        return await uninterrupted(self._publish(publication))

    async def _publish(self, publication: Publication) -> ObjectInfo:
        self._publishing = True
        info = await publication.run(self._send_complete)
        self._published = True
        return info

    async def _send_complete(
        self, *, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        if self._checksums:
            arguments["ChecksumType"] = "FULL_OBJECT"
        try:
            return await self.connection.call(
                "complete_multipart_upload",
                writes=True,
                Key=self.key,
                UploadId=self.id,
                MultipartUpload={"Parts": [self._parts[number] for number in sorted(self._parts)]},
                expected={*expected, *_NO_PARTS} if self._copied else expected,
                **arguments,
            )
        except Refused as refusal:
            if self._copied and refusal.is_one_of(_NO_PARTS):
                raise CannotCopy(
                    f"the store does not take parts of different length ({refusal})"
                ) from refusal
            raise

    async def end(self, error: BaseException | None) -> None:
        """Remove the upload, unless it was published, never began, or can be gone on with.

        Args:
            error: The one in flight, which gets a note if removing fails.

        Raises:
            StoreError: Removing failed and there is no error in flight.
        """
        if self._published:
            if error is not None:
                _logger.warning("%s was published in spite of the interruption", self.name)
            return
        if not self.id:
            cancelled = self._beginning and isinstance(error, asyncio.CancelledError)
            if error is not None and (cancelled or self._lost):
                leave_note(error, self._maybe_left())
            return
        if self.keep and is_curable(error):
            self.kept = True
            return
        left = self._left(f"no answer within {GRACE_SECONDS:.0f} s")
        await clean_up(self._abort(error), error, left=left)

    async def _abort(self, error: BaseException | None) -> str:
        """Remove the upload; return what to say if it is left."""
        try:
            with anyio.fail_after(GRACE_SECONDS):
                await self._call(
                    "abort_multipart_upload", NO_UPLOAD, Key=self.key, UploadId=self.id
                )
        except TimeoutError:
            return self._left(f"no answer within {GRACE_SECONDS:.0f} s")
        except Refused:
            if self._publishing and error is not None:
                leave_note(error, f"{self.name} may have been published; look with: etc ls -r")
        except EtceteraError as failure:
            return self._left(str(failure))
        return ""

    def _left(self, reason: str) -> str:
        words = ["abort-multipart-upload", "--key", self.key, "--upload-id", self.id]
        return f"the upload {self.id} is left ({reason}); remove it with: {self._command(*words)}"

    def _maybe_left(self) -> str:
        command = self._command("list-multipart-uploads", "--prefix", self.key)
        return f"an upload of {self.name} may be left; look with: {command}"

    def _command(self, operation: str, *arguments: str) -> str:
        place = self.connection.place
        words = ["aws", "s3api", operation, "--bucket", place.bucket, *arguments]
        words += ["--endpoint-url", place.endpoint]
        if self.connection.profile:
            words += ["--profile", self.connection.profile]
        return shlex.join(words)
