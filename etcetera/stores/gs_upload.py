"""A multipart upload to Google Storage: parts by the XML API, then a move that publishes.

The upload itself knows no conditions, so it makes an object under a temporary key, and what
publishes is moving that one, on the condition that the name is still free. Parts of such an
upload are no objects, and the source of a move is not kept by soft delete.
Source: Cloud Storage documentation, "XML API multipart uploads", "Objects: move".
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread

from etcetera.errors import NotAllowed, StoreError
from etcetera.stores import CannotCopy, CannotResume, Data, ObjectInfo, PartLimits, Sent, Unfinished
from etcetera.stores.common import (
    Refused,
    check_part,
    check_parts,
    is_curable,
    leave_note,
    uninterrupted,
)
from etcetera.stores.gs_checksum import checksum, combine, decoded, encoded
from etcetera.stores.gs_client import Answer, Connection
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_move import COMPLETE_SECONDS, check_retention, make_public, publish_from
from etcetera.stores.gs_publish import (
    NONCE,
    Publication,
    Resource,
    Target,
    check_content,
    generation,
    is_ours,
    look,
)
from etcetera.stores.gs_temporary import (
    CLEAN,
    NO_UPLOAD,
    Temporary,
    abort,
    remove_objects,
    tidy_up,
)
from etcetera.stores.gs_unfinished import list_parts
from etcetera.stores.gs_xml import as_xml, completion, text

# Cloud Storage documentation, "Quotas and limits", XML API multipart uploads.
LIMITS = PartLimits(min_part=5 << 20, max_part=5 << 30, max_parts=10_000)
NO_MULTIPART = frozenset[str | int]({404, 405, 501, "NotImplemented"})
"""What servers answer that have no multipart uploads: Google's test server, and other ones."""
NO_COPIES = "Google Storage copies no parts of objects"

_logger = logging.getLogger("etcetera")


class NoMultipart(Exception):
    """The server has no multipart uploads."""


@dataclass(slots=True)
class GsUpload:
    """An object in the making."""

    target: Target
    temporary: Temporary
    part_size: int
    keep: bool = False
    kept: bool = False
    _upload: str = ""
    """Its id, as the server calls it."""
    _beginning: bool = False
    _lost: bool = False
    """Whether there may be an upload whose id never came."""
    _completing: bool = False
    """Whether there may be a temporary object."""
    _assembled: bool = False
    """Whether an earlier run has put the parts together: then they are compared, and not sent."""
    _published: bool = False
    _parts: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What the upload is called; see :class:`etcetera.stores.Upload`."""
        return self.temporary.id(self._upload)

    @property
    def _connection(self) -> Connection:
        return self.target.connection

    @property
    def _key(self) -> str:
        return self.temporary.key

    async def begin(self) -> None:
        """Ask for the upload; when cancelled, still wait a little to learn its id.

        Raises:
            NoMultipart: The server has no such uploads.
        """
        await check_retention(self._connection)
        self._beginning = True
        await uninterrupted(self._create())

    async def _create(self) -> None:
        headers = {"Content-Type": "application/gzip", f"x-goog-meta-{NONCE}": self.temporary.nonce}
        if self.target.public:
            headers["x-goog-acl"] = "public-read"
        try:
            self._upload = await self._connection.call(
                "POST",
                self._connection.xml_path(self._key),
                _upload_id,
                query={"uploads": ""},
                headers=headers,
                writes=True,
                expected=NO_MULTIPART,
                lost=self._note_lost,
            )
        except Refused as refusal:
            if self._connection.google:
                raise StoreError(f"{refusal}; nothing was sent") from refusal
            raise NoMultipart from refusal
        if self._lost:
            _logger.warning("%s", self._maybe_left())

    def _note_lost(self) -> None:
        self._lost = True

    async def resume(self, earlier: Unfinished) -> None:
        """Go on with an upload, if the server still has the parts that a journal knows."""
        self.temporary, self._upload = Temporary.parse(
            self.target.prefix, self.target.name, earlier.id
        )
        self.keep = self._completing = True  # the parts may have become an object
        if earlier.state.get("public") != str(self.target.public):
            raise CannotResume("the setting public has changed")
        if not self._upload:
            await remove_objects(self._connection, self.temporary)
            raise CannotResume("it had no parts that could be gone on with")
        try:
            await self._check_known(earlier.parts)
        except NotAllowed as error:
            if type(error) is not NotAllowed:  # other credentials may see them
                raise
            raise CannotResume(f"its parts cannot be listed ({error})") from error
        self._parts = {number: dict(part) for number, part in enumerate(earlier.parts, 1)}
        try:
            if not all(1 <= int(part["Size"]) <= LIMITS.max_part for part in earlier.parts):
                raise ValueError("a part of no length")
            await anyio.to_thread.run_sync(self._whole)
        except (ValueError, LookupError) as error:
            raise CannotResume("what the journal says of its parts cannot be") from error

    async def _check_known(self, known: Sequence[Mapping[str, str]]) -> None:
        """See that the server still has the first parts, and no others in their place."""
        expected = 0
        try:
            async for number, etag, size, _ in list_parts(
                self._connection, self._key, self._upload
            ):
                if expected == len(known) or number != expected + 1:
                    break
                mine = known[expected]
                if str(size) != mine.get("Size") or etag.strip('"') != mine.get("ETag", "").strip(
                    '"'
                ):
                    raise CannotResume(f"part {number} on the server is another one")
                expected += 1
        except Refused as refusal:
            if await look(self._connection, self._key) is None:
                raise CannotResume(f"the server does not have it any more ({refusal})") from refusal
            self._assembled = True
            return
        if expected < len(known):
            raise CannotResume(f"the server does not have part {expected + 1}")

    def state(self) -> dict[str, str]:
        """What was settled at the beginning; see :class:`etcetera.stores.Upload`."""
        return {"public": str(self.target.public)}

    def part(self, number: int) -> dict[str, str]:
        """ETag, checksum and size of a part; see :class:`etcetera.stores.Upload`."""
        return self._parts[number]

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:  # noqa: ARG002 - Google checks CRC32C
        """Send one part; see :class:`etcetera.stores.Upload`."""
        check_part(number, len(data), self.part_size, LIMITS.max_parts)
        crc32c = encoded(await checksum(data))
        etag = "" if self._assembled else await self._send(number, data, crc32c, sent)
        self._parts[number] = {"ETag": etag, "CRC32C": crc32c, "Size": str(len(data))}

    async def _send(self, number: int, data: Data, crc32c: str, sent: Sent | None) -> str:
        return await self._connection.call(
            "PUT",
            self._connection.xml_path(self._key),
            lambda answer: answer.headers["ETag"],
            query={"partNumber": str(number), "uploadId": self._upload},
            headers={"x-goog-hash": f"crc32c={crc32c}"},
            body=(data,),
            sent=sent,
            writes=True,
        )

    async def copy_part(
        self, number: int, source: ObjectInfo, start: int, stop: int, crc32: int
    ) -> None:
        """Refuse; see :class:`etcetera.stores.Upload`."""
        del number, source, start, stop, crc32
        raise CannotCopy(NO_COPIES)

    async def complete(self) -> ObjectInfo:
        """Make the object, check it, and publish it; see :class:`etcetera.stores.Upload`."""
        sizes = {number: int(part["Size"]) for number, part in self._parts.items()}
        size = check_parts(sizes, self.part_size)
        crc32c = await anyio.to_thread.run_sync(self._whole)
        return await uninterrupted(self._publish(size, crc32c))

    def _whole(self) -> int:
        """The CRC32C of all parts together; 10,000 of them take some 0.1 s."""
        crc32c = 0
        for number in sorted(self._parts):
            part = self._parts[number]
            crc32c = combine(crc32c, decoded(part["CRC32C"]), int(part["Size"]))
        return crc32c

    async def _publish(self, size: int, crc32c: int) -> ObjectInfo:
        self._completing = True
        resource = await self._assemble()
        what = f"what the parts of {self.target.name} became"
        check_content(self._connection.place, what, resource, size, crc32c)
        with answering(self._connection.place):
            source = generation(resource)
        publication = Publication(self.target, self.temporary.nonce, size, crc32c)
        move = partial(publish_from, self._connection, self._key, source, self.target.key)
        info = await publication.run(move)
        self._published = True
        self._completing = not self._connection.moves
        if self.target.public:
            await make_public(self._connection, self.target.key, info)
        return info

    async def _assemble(self) -> Resource:
        """Make one temporary object of the parts; whether the reply comes or not."""
        problem: Refused | None = None
        made = ""
        try:
            if not self._assembled:
                made = await self._complete()
        except Refused as refusal:
            problem = refusal
        resource = await look(self._connection, self._key)
        if resource is None:
            raise problem or StoreError(f"{self.target.name}: its parts did not become an object")
        with answering(self._connection.place):
            found = generation(resource)
        if not is_ours(resource, self.temporary.nonce) or made not in ("", found):
            raise StoreError(
                f"{self.target.name}: somebody else has written over its temporary object; push "
                "it again"
            )
        return resource

    async def _complete(self) -> str:
        """Ask for the object; return its generation, if that is told."""
        etags = {number: part["ETag"] for number, part in self._parts.items()}

        def made(answer: Answer) -> str:
            as_xml("CompleteMultipartUploadResult", answer)
            return answer.headers.get("x-goog-generation", "")

        return await self._connection.call(
            "POST",
            self._connection.xml_path(self._key),
            made,
            query={"uploadId": self._upload},
            headers={"Content-Type": "application/xml"},
            body=(completion(etags),),
            writes=True,
            expected=NO_UPLOAD,  # where an earlier attempt, unanswered, has done it
            seconds=COMPLETE_SECONDS,
        )

    async def end(self, error: BaseException | None) -> None:
        """Remove what is temporary, unless it never began, or can be gone on with.

        Args:
            error: The one in flight, which gets a note if removing fails.

        Raises:
            StoreError: Removing failed and there is no error in flight.
        """
        if self._published and error is not None:
            _logger.warning("%s was published in spite of the interruption", self.target.name)
        if self._published and not self._completing:
            return
        if not self._upload:
            cancelled = self._beginning and isinstance(error, asyncio.CancelledError)
            if error is not None and (cancelled or self._lost):
                leave_note(error, self._maybe_left())
            return
        if not self._published and self.keep and is_curable(error):
            self.kept = True
            return
        await tidy_up(
            self._remove, self._left, error, published=self.target.name if self._published else ""
        )

    async def _remove(self) -> None:
        try:
            if not self._published:
                await abort(self._connection, self._key, self._upload)
        finally:
            if self._completing:
                await remove_objects(self._connection, self.temporary)

    def _left(self, reason: str) -> str:
        what = "" if self._published else f"the upload {self.id}"
        if self._completing:
            bucket = self._connection.place.bucket
            what += " or " if what else ""
            what += f"the temporary object gs://{bucket}/{self._key}"
            return f"{what} is left ({reason}); {self.temporary.advice(bucket)}"
        return f"{what} is left ({reason}); tomorrow remove it with: {CLEAN}"

    def _maybe_left(self) -> str:
        return f"an upload of {self.target.name} may be left; tomorrow look with: {CLEAN}"


def _upload_id(answer: Answer) -> str:
    return text(as_xml("InitiateMultipartUploadResult", answer), "UploadId")
