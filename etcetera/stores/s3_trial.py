"""What an S3 server does with what etcetera relies on, found out by trying.

Everything happens under one key that no dataset has, and is removed however it ends. Nothing that
everybody may read comes to be: an upload that asks for it is begun, and never completed.
"""

import os
import secrets
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import anyio

from etcetera.errors import EtceteraError, NotAllowed
from etcetera.findings import Finding, fine, problem, reporting, unknown, warning
from etcetera.stores import CannotCopy, ObjectInfo
from etcetera.stores.common import GRACE_SECONDS, clean_up, uninterrupted
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_copy import check_copies, copy_part, encoded_crc32, why_no_copies
from etcetera.stores.s3_errors import Refused, answering
from etcetera.stores.s3_publish import describe
from etcetera.stores.s3_trial_reading import ATTEMPTS, CONDITION_HEEDED, OTHER_ETAG, check_reading
from etcetera.stores.s3_unfinished import NO_UPLOAD, abort, list_parts
from etcetera.stores.s3_upload import content_md5, object_arguments

_COPIED = 5 << 20
"""Bytes: S3 copies no shorter part but the last."""
_MORE = 1024
_UNKNOWN_CONDITION = frozenset[str | int]({"NotImplemented", 501})
_ANY_REFUSAL = frozenset[str | int]({400, 403, 405, 409, 412, 501})
_ONE_AT_A_TIME = "let one person at a time push a name"


async def try_writing(
    connection: Connection, key: str, findings: list[Finding], *, public: bool
) -> None:
    """Try what a push relies on; add to *findings* what comes of it, and remove everything.

    Args:
        connection: To the bucket.
        key: As the bucket calls it; nobody else has it.
        findings: So far.
        public: Whether what is pushed should be readable by everybody.
    """
    trial = _Trial(connection, key, findings, public)
    left = trial.left(f"no answer within {GRACE_SECONDS:.0f} s")
    try:
        await trial.run()
    except BaseException as error:
        await clean_up(trial.remove(), error, left=left)
        raise
    with reporting(findings, "removing"):
        await clean_up(trial.remove(), None, left=left)
        findings.append(fine("removing", "what was written for these checks is gone again"))


@dataclass(slots=True)
class _Trial:
    """What is tried under one key."""

    connection: Connection
    key: str
    findings: list[Finding]
    public: bool
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))
    _wrote: bool = False
    _versions: list[str] = field(default_factory=list)
    """Of the object, in a bucket that keeps them."""
    _uploads: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Try everything, one after the other."""
        with reporting(self.findings, "write"):
            if not await self._try_conditional_put():
                return
            data = os.urandom(_COPIED + _MORE)
            stored = await self._put(data)
            self.findings.append(fine("write", "objects can be written"))
            info = await self._look()
            if info is None or info.size != len(data) or not stored.get("ETag"):
                text = "the server took an object and does not have it as it was sent"
                self.findings.append(problem("write", text, "check endpoint_url and the server"))
                return
            with reporting(self.findings, "read"):
                self.findings += await check_reading(self.connection, info)
            with reporting(self.findings, "uploads"):
                await self._try_upload(info, data)
            with reporting(self.findings, "public"):
                await self._try_public()

    async def _request(
        self, operation: str, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        # Torn off, it could still come true after everything was removed.
        return await uninterrupted(self._send(operation, expected, arguments))

    async def _send(
        self, operation: str, expected: Collection[str | int], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        answer = await self.connection.call(
            operation, writes=True, expected=expected, attempts=ATTEMPTS, Key=self.key, **arguments
        )
        if answer.get("VersionId"):
            self._versions.append(answer["VersionId"])
        if operation == "create_multipart_upload":
            with answering(self.connection.place):
                self._uploads.append(answer["UploadId"])
        return answer

    async def _put(
        self, data: bytes, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        self._wrote = True
        arguments |= object_arguments(self._nonce, public=False)
        md5 = await content_md5(data)
        return await self._request("put_object", expected, body=data, ContentMD5=md5, **arguments)

    async def _look(self) -> ObjectInfo | None:
        try:
            answer = await self.connection.call(
                "head_object", expected={403, 404}, attempts=ATTEMPTS, Key=self.key
            )
        except Refused:
            return None
        return describe(self.connection.place, self.key, answer)

    async def _try_conditional_put(self) -> bool:
        """Publish a name twice; return whether it can be published at all."""
        check = "conditional writes"
        try:
            await self._put(b"etc doctor", {403, *_UNKNOWN_CONDITION}, IfNoneMatch="*")
            try:
                await self._put(b"etc doctor", CONDITION_HEEDED, IfNoneMatch="*")
            except Refused:
                text = "of two pushes of one name the second is refused"
                self.findings.append(fine(check, text))
                return True
            reason = "the server ignores If-None-Match"
        except Refused as refusal:
            if refusal.status == 403:
                self.findings.append(
                    problem(
                        "write",
                        f"objects must not be written ({refusal}): etc push cannot work",
                        "ask the bucket's owner for the right s3:PutObject, if you want to push",
                    )
                )
                return False
            reason = "the server knows no If-None-Match"
        text = f"{reason}: two pushes of one name at the same moment are not told apart"
        self.findings.append(warning(check, text, _ONE_AT_A_TIME))
        return True

    async def _try_upload(self, info: ObjectInfo, data: bytes) -> None:
        """Replace the object by an upload, of a part copied from it and another one."""
        upload, checksums = await self._begin()
        await self._try_checksums(upload, data[_COPIED:], checksums)
        parts = []
        copied = await self._try_copy(upload, info, data, checksums)
        if copied is not None:
            parts.append(copied)
        rest = data[_COPIED:]
        check = await _checksum(rest, checksums)
        answer = await self._request(
            "upload_part",
            UploadId=upload,
            PartNumber=len(parts) + 1,
            body=rest,
            **check,
        )
        parts.append(_part(len(parts) + 1, answer.get("ETag"), rest, checksums))
        expected = data if copied is not None else rest
        if await self._complete(upload, parts, checksums, info):
            await self._compare(expected, copied is not None)

    async def _begin(self, **arguments: Any) -> tuple[str, bool]:
        """Begin an upload; return its id, and whether the server compares CRC-32."""
        arguments |= object_arguments(self._nonce, public="ACL" in arguments)
        checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        try:
            answer = await self._request(
                "create_multipart_upload", {400, *_UNKNOWN_CONDITION}, **arguments, **checksum
            )
        except Refused:
            answer = await self._request("create_multipart_upload", **arguments)
        return self._uploads[-1], answer.get("ChecksumAlgorithm") == "CRC32"

    async def _try_checksums(self, upload: str, data: bytes, checksums: bool) -> None:
        """Send a part whose checksum is that of other bytes."""
        wrong = await _checksum(data[::-1], checksums)
        name = "CRC-32" if checksums else "MD5"
        try:
            await self._request(
                "upload_part",
                {400, 422, "BadDigest", "XAmzContentChecksumMismatch"},
                UploadId=upload,
                PartNumber=1,
                body=data,
                **wrong,
            )
        except Refused:
            text = f"the server refuses what was damaged on the way ({name})"
            self.findings.append(fine("checksums", text))
            return
        self.findings.append(
            warning(
                "checksums",
                f"the server compares no {name}: what is damaged on the way there is stored so",
                "check what you push: etc verify -r NAME",
            )
        )

    async def _try_copy(
        self, upload: str, info: ObjectInfo, data: bytes, checksums: bool
    ) -> dict[str, Any] | None:
        """Copy the first part from the object; return what names it."""
        which = {"Key": self.key, "UploadId": upload}
        reason = await why_no_copies(self.connection)
        if reason is None:
            first = data[:_COPIED]
            try:
                etag, _ = await uninterrupted(
                    copy_part(self.connection, which, 1, info, self.key, 0, _COPIED, crc32(first))
                )
                await check_copies(self.connection, which, {1: _COPIED})
            except CannotCopy as error:
                reason = str(error)
            else:
                text = "what an older archive has is copied inside the store"
                self.findings.append(fine("part copy", text))
                return _part(1, etag, first, checksums)
        text = f"{reason}: pushing a new version sends all of it"
        advice = "nothing has to be done: it works, but takes longer"
        self.findings.append(warning("part copy", text, advice))
        return None

    async def _complete(
        self, upload: str, parts: list[dict[str, Any]], checksums: bool, info: ObjectInfo
    ) -> bool:
        """Publish on conditions that do not hold, then on one that does; return whether it is."""
        arguments: dict[str, Any] = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
        if checksums:
            arguments["ChecksumType"] = "FULL_OBJECT"
        heeded = CONDITION_HEEDED | _UNKNOWN_CONDITION
        check = "conditional uploads"
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": OTHER_ETAG}):
            try:
                await self._request("complete_multipart_upload", heeded, **arguments, **condition)
            except Refused as refusal:
                if refusal.is_one_of(CONDITION_HEEDED):
                    continue
                reason = f"the server does not know {_header(condition)}"
            else:
                reason = f"the server ignores {_header(condition)}"
            text = f"{reason}: two pushes of one name at the same moment are not told apart"
            self.findings.append(warning(check, text, _ONE_AT_A_TIME))
            if reason.startswith("the server ignores"):
                return True
            break
        else:
            text = "a push replaces only what it was told to replace"
            self.findings.append(fine(check, text))
        try:
            await self._request("complete_multipart_upload", NO_UPLOAD, **arguments)
        except Refused:
            text = "the server drops an upload whose condition does not hold"
            self.findings.append(unknown("uploads", text))
            return False
        return True

    async def _compare(self, expected: bytes, copied: bool) -> None:
        """See that the object is what the parts were."""
        answer = await self.connection.call(
            "get_object", attempts=ATTEMPTS, Key=self.key, Range=f"bytes=0-{len(expected) - 1}"
        )
        with answering(self.connection.place), anyio.fail_after(60):
            async with answer["Body"] as body:
                found = await body.read(len(expected) + 1)
        if found == expected:
            self.findings.append(fine("uploads", "an archive comes to be from its parts"))
            return
        what = "parts, some of them copied," if copied else "parts"
        self.findings.append(
            problem(
                "uploads",
                f"an object that was made of {what} is not what they were",
                "do not push there; tell whoever runs the server",
            )
        )

    async def _try_public(self) -> None:
        """Begin an upload that everybody could read, and abort it."""
        try:
            answer = await self._request(
                "create_multipart_upload",
                _ANY_REFUSAL,
                **object_arguments(self._nonce, public=True),
            )
        except (Refused, NotAllowed) as error:
            text = f"the bucket lets no object be public ({error})"
            if self.public:
                advice = "remove public = true and let a bucket policy allow reading"
                self.findings.append(problem("public", text, advice))
            else:
                self.findings.append(fine("public", f"{text}; public = true would not work"))
            return
        self.findings.append(
            fine("public", "the server does not refuse public = true; nothing was made public")
        )
        with answering(self.connection.place):
            upload = answer["UploadId"]
        await abort(self.connection, self.key, upload)
        try:
            async for _ in list_parts(self.connection, self.key, upload):
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

    async def remove(self) -> str:
        """Remove everything; return what to say if something is left."""
        try:
            with anyio.fail_after(GRACE_SECONDS):
                for upload in self._uploads:
                    await abort(self.connection, self.key, upload)
                if self._wrote:
                    await self._delete()
        except TimeoutError:
            return self.left(f"no answer within {GRACE_SECONDS:.0f} s")
        except EtceteraError as error:
            return self.left(str(error))
        return ""

    async def _delete(self) -> None:
        try:
            for version in self._versions:
                await self._remove_object(VersionId=version)
        except NotAllowed:
            await self._remove_object()
            raise
        if not self._versions:
            await self._remove_object()

    async def _remove_object(self, **arguments: Any) -> None:
        await self.connection.call("delete_object", writes=True, Key=self.key, **arguments)

    def left(self, reason: str) -> str:
        """What to say if something could not be removed."""
        place = self.connection.place
        words = ["aws", "s3", "rm", f"s3://{place.bucket}/{self.key}"]
        words += ["--endpoint-url", place.endpoint]
        if self.connection.profile:
            words += ["--profile", self.connection.profile]
        return (
            f"s3://{place.bucket}/{self.key} may be left ({reason}); remove it with: "
            f"{shlex.join(words)}"
        )


async def _checksum(data: bytes, checksums: bool) -> dict[str, str]:
    if checksums:
        return {"ChecksumCRC32": encoded_crc32(crc32(data))}
    return {"ContentMD5": await content_md5(data)}


def _part(number: int, etag: object, data: bytes, checksums: bool) -> dict[str, Any]:
    named = {"PartNumber": number, "ETag": etag}
    return named | ({"ChecksumCRC32": encoded_crc32(crc32(data))} if checksums else {})


def _header(condition: dict[str, str]) -> str:
    return "If-Match" if "IfMatch" in condition else "If-None-Match"
