"""What a server of Google Storage does with what etcetera relies on, found out by trying.

Everything happens under names that no dataset has, and is removed however it ends. Nothing that
everybody may read comes to be: an upload that asks for it is begun, and never completed.
"""

import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import anyio

from etcetera.errors import EtceteraError, NetworkError, NoCredentials, NotAllowed
from etcetera.findings import Finding, fine, problem, reporting, unknown, warning
from etcetera.stores import ObjectInfo
from etcetera.stores.common import GRACE_SECONDS, Refused, clean_up
from etcetera.stores.gs_checksum import checksum, encoded
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_insert import insert
from etcetera.stores.gs_move import publish_from
from etcetera.stores.gs_publish import (
    NONCE,
    Publication,
    Resource,
    Target,
    check_content,
    describe,
    generation,
    look,
)
from etcetera.stores.gs_questions import ATTEMPTS, check_reading
from etcetera.stores.gs_scratch import Scratch
from etcetera.stores.gs_temporary import NO_UPLOAD, abort
from etcetera.stores.gs_unfinished import list_parts
from etcetera.stores.gs_upload import NO_MULTIPART
from etcetera.stores.gs_xml import as_xml, completion

_PART = 5 << 20
"""Bytes: no part but the last may be shorter."""
_MORE = 1024
STEP_SECONDS = 60.0
"""How long one step may take in which no part is sent."""
_ANY_REFUSAL = frozenset[str | int]({400, 403, 405, 409, 412, 501})
_ONE_AT_A_TIME = "let one person at a time push a name"
_Made = TypeVar("_Made")


async def try_writing(
    connection: Connection, prefix: str, findings: list[Finding], *, public: bool
) -> None:
    """Try what a push relies on; add to *findings* what comes of it, and remove everything.

    Args:
        connection: To the bucket.
        prefix: Of the repository; empty, or ending with a slash.
        findings: So far.
        public: Whether what is pushed should be readable by everybody.
    """
    scratch = Scratch.of(connection, prefix, secrets.token_hex(8))
    left = scratch.left(f"no answer within {GRACE_SECONDS:.0f} s")
    try:
        await _Trial(connection, scratch, findings, public).run()
    except BaseException as error:
        await clean_up(scratch.remove(), error, left=left)
        raise
    with reporting(findings, "removing"):
        await clean_up(scratch.remove(), None, left=left)
        findings.append(fine("removing", "what was written for these checks is gone again"))


@dataclass(slots=True)
class _Trial:
    """What is tried under the names of one scratch."""

    connection: Connection
    scratch: Scratch
    findings: list[Finding]
    public: bool
    _begins: bool = False
    """Whether an upload can be begun."""
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))

    async def run(self) -> None:
        """Try everything, one after the other."""
        with reporting(self.findings, "write"):
            info = await self._try_conditional_put()
            if info is None:
                return
            self.findings.append(fine("write", "objects can be written"))
            with reporting(self.findings, "read"):
                self.findings += await check_reading(self.connection, info)
            with reporting(self.findings, "uploads"):
                await self._try_upload(info)
            if not self._begins:
                self.findings.append(unknown("public", "not tried: no upload can be begun there"))
                return
            upload = ""
            with reporting(self.findings, "public"):
                upload = await self._begin_public()
            if upload:
                with reporting(self.findings, "aborting"):
                    await self._try_abort(upload)

    async def _put(self, data: bytes, nonce: str) -> Resource:
        crc32c = await checksum(data)
        return await insert(
            self.connection, self.scratch.key, data, crc32c, nonce, "0", attempts=ATTEMPTS
        )

    async def _try_conditional_put(self) -> ObjectInfo | None:
        """Publish a name twice; return what is there then, if there can be something."""
        check, data = "conditional writes", os.urandom(64)
        try:
            resource = await self.scratch.write(self._put_first(data))
        except NoCredentials:
            raise
        except NotAllowed as error:
            self.findings.append(
                warning(
                    "write",
                    f"objects cannot be written ({_short(error)}): datasets can be pulled, not "
                    "pushed",
                    "ask the bucket's owner for the role Storage Object User "
                    "(roles/storage.objectUser), if you want to push",
                )
            )
            return None
        check_content(
            self.connection.place, self.scratch.name, resource, len(data), await checksum(data)
        )
        if resource.get("retentionExpirationTime") or resource.get("eventBasedHold"):
            text = "the bucket keeps what is written, so that nothing temporary can be removed"
            advice = 'let archives fit into one part (part_size = "5GiB" at most)'
            self.findings.append(problem("retention", text, advice))
            return None
        try:
            resource = await self.scratch.write(self._put(data, secrets.token_hex(16)))
        except Refused as refusal:
            if refusal.status != 412:
                raise
            self.findings.append(fine(check, "of two pushes of one name the second is refused"))
        else:
            text = (
                "the server ignores ifGenerationMatch: two pushes of one name at the same moment "
                "are not told apart"
            )
            self.findings.append(warning(check, text, _ONE_AT_A_TIME))
        return describe(self.connection.place, self.scratch.key, resource)

    async def _put_first(self, data: bytes) -> Resource:
        """Write the object; the answer may be one to a repetition of what was done."""
        try:
            return await self._put(data, self._nonce)
        except Refused:
            found = await look(self.connection, self.scratch.key)
            if found is None or (found.get("metadata") or {}).get(NONCE) != self._nonce:
                raise
            return found

    async def _try_upload(self, info: ObjectInfo) -> None:
        """Replace the object by what becomes of two parts."""
        try:
            upload = await self.scratch.begin(NO_MULTIPART, public=False)
        except Refused as refusal:
            self.findings.append(
                warning(
                    "uploads",
                    f"the server has no multipart uploads ({refusal.status}): each part of an "
                    "archive is an object until they are put together, which was not tried",
                    "nothing has to be done: it works, but takes longer",
                )
            )
            return
        self._begins = True
        data = os.urandom(_PART + _MORE)
        first, rest = data[:_PART], data[_PART:]
        await self._try_checksum(upload, rest)
        etags = {
            number: await self._put_part(upload, number, part, await checksum(part))
            for number, part in enumerate((first, rest), 1)
        }
        made = await self.scratch.write(self._within(partial(self._complete, upload, etags)))
        if made is None:
            text, advice = "parts do not become an object", "tell whoever runs the server"
            self.findings.append(problem("uploads", text, advice))
            return
        crc32c = await checksum(data)
        check_content(self.connection.place, "what became of two parts", made, len(data), crc32c)
        self.findings.append(fine("uploads", "an archive comes to be from its parts"))
        source = generation(made)
        with reporting(self.findings, "moving"):
            if await self._try_condition(source):
                await self._try_move(source, info, len(data), crc32c)

    async def _put_part(self, upload: str, number: int, data: bytes, crc32c: int) -> str:
        return await self.connection.call(
            "PUT",
            self.connection.xml_path(self.scratch.temporary.key),
            lambda answer: answer.headers["ETag"],
            query={"partNumber": str(number), "uploadId": upload},
            headers={"x-goog-hash": f"crc32c={encoded(crc32c)}"},
            body=(data,),
            writes=True,
            expected={400, "BadDigest"},
            attempts=ATTEMPTS,
        )

    async def _try_checksum(self, upload: str, data: bytes) -> None:
        """Send a part whose checksum is that of other bytes."""
        try:
            await self._put_part(upload, 1, data, await checksum(data[::-1]))
        except Refused:
            text = "the server refuses what was damaged on the way (CRC32C)"
            self.findings.append(fine("checksums", text))
            return
        self.findings.append(
            warning(
                "checksums",
                "the server compares no CRC32C: what is damaged on the way there is stored so",
                "check what you push: etc verify -r NAME",
            )
        )

    async def _complete(self, upload: str, etags: dict[int, str]) -> Resource | None:
        """Make an object of the parts, and look at it, whether the reply comes or not."""
        try:
            await self.connection.call(
                "POST",
                self.connection.xml_path(self.scratch.temporary.key),
                partial(as_xml, "CompleteMultipartUploadResult"),
                query={"uploadId": upload},
                headers={"Content-Type": "application/xml"},
                body=(completion(etags),),
                writes=True,
                expected=NO_UPLOAD,
                attempts=ATTEMPTS,
            )
        except (Refused, NetworkError):
            made = await look(self.connection, self.scratch.temporary.key)
            if made is None:
                raise
            return made
        return await look(self.connection, self.scratch.temporary.key)

    async def _within(self, step: Callable[[], Awaitable[_Made]]) -> _Made:
        with answering(self.connection.place), anyio.fail_after(STEP_SECONDS):
            return await step()

    async def _try_condition(self, source: str) -> bool:
        """Publish on a condition that does not hold; return whether that is refused."""
        check = "conditional uploads"
        move = partial(
            publish_from, self.connection, self.scratch.temporary.key, source, self.scratch.key, "0"
        )
        try:
            await self.scratch.write(self._within(partial(_again, move)))
        except Refused as refusal:
            if refusal.status != 412:
                raise
            text = "a push replaces only what it was told to replace"
            self.findings.append(fine(check, text))
            return True
        text = (
            "the server ignores ifGenerationMatch: two pushes of one name at the same moment are "
            "not told apart"
        )
        self.findings.append(warning(check, text, _ONE_AT_A_TIME))
        return False

    async def _try_move(self, source: str, info: ObjectInfo, size: int, crc32c: int) -> None:
        """Publish on conditions that hold."""
        connection, scratch = self.connection, self.scratch
        target = Target(
            connection=connection,
            prefix=scratch.prefix,
            name=scratch.name,
            overwrite=True,
            public=False,
            replaces=info.etag,
        )
        publication = Publication(target, scratch.temporary.nonce, size, crc32c)
        move = partial(publish_from, connection, scratch.temporary.key, source, scratch.key)
        await scratch.write(self._within(partial(publication.run, move)))
        if connection.moves:
            text = "an archive gets its name when all of it is there, by a move"
            self.findings.append(fine("moving", text))
            return
        self.findings.append(
            warning(
                "moving",
                "the server moves no objects there, so an archive is copied inside the store to "
                "get its name",
                "nothing has to be done: it works, but takes longer",
            )
        )

    async def _begin_public(self) -> str:
        """Begin an upload that everybody could read; return the id of what was begun."""
        if any(one.check == "public" and one.status == "problem" for one in self.findings):
            return await self.scratch.begin(NO_MULTIPART, public=False)
        try:
            upload = await self.scratch.begin(_ANY_REFUSAL, public=True)
        except (Refused, NotAllowed) as error:
            text = f"no object can be made public there ({_short(error)})"
            self.findings[:] = [one for one in self.findings if one.check != "public"]
            if self.public:
                advice = "remove public = true and let a policy of the bucket allow reading"
                self.findings.append(problem("public", text, advice))
            else:
                self.findings.append(fine("public", f"{text}; public = true would not work"))
            return await self.scratch.begin(NO_MULTIPART, public=False)
        self.findings[:] = [one for one in self.findings if one.check != "public"]
        text = "the server does not refuse public = true; nothing was made public"
        self.findings.append(fine("public", text))
        return upload

    async def _try_abort(self, upload: str) -> None:
        """Abort an upload, and see whether it is gone."""
        key = self.scratch.temporary.key
        await abort(self.connection, key, upload)
        try:
            async for _ in list_parts(self.connection, key, upload):
                pass
        except Refused:
            text = "an upload that breaks off is removed"
            self.findings.append(fine("aborting", text))
            return
        self.findings.append(
            warning(
                "aborting",
                "the server still has an upload after it was aborted: what breaks off stays",
                "let a lifecycle rule of the bucket abort incomplete multipart uploads",
            )
        )


async def _again(step: Callable[[], Awaitable[Resource]]) -> Resource:
    """Take a step once more if there is no answer: its condition does not hold anyway."""
    try:
        return await step()
    except NetworkError:
        return await step()


def _short(error: EtceteraError) -> str:
    return str(error).partition("; ")[0]
