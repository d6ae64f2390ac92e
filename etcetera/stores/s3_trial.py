"""What an S3 server does with what etcetera relies on, found out by trying.

Everything happens under one key that no dataset has, and is removed however it ends. Nothing that
everybody may read comes to be: an upload that asks for it is begun, and never completed.
"""

import os
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import anyio

from etcetera.errors import NotAllowed
from etcetera.findings import Finding, fine, problem, reporting, unknown, warning, within
from etcetera.stores import CannotCopy, ObjectInfo, patience
from etcetera.stores.common import GRACE_SECONDS, Refused, clean_up, uninterrupted
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_copy import check_copies, copy_part, encoded_crc32, why_no_copies
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_publish import describe
from etcetera.stores.s3_scratch import Scratch
from etcetera.stores.s3_trial_reading import ATTEMPTS, CONDITION_HEEDED, OTHER_ETAG, check_reading
from etcetera.stores.s3_unfinished import NO_UPLOAD, abort, list_parts
from etcetera.stores.s3_upload import content_md5, object_arguments

_COPIED = 5 << 20
"""Bytes: S3 copies no shorter part but the last."""
_MORE = 1024
_UNKNOWN_CONDITION = frozenset[str | int]({"NotImplemented", 501})
_ANY_REFUSAL = frozenset[str | int]({400, 403, 405, 409, 412, 501})
_CONDITIONS = (
    (
        "If-None-Match",
        {"IfNoneMatch": "*"},
        "two pushes of one name at the same moment are not told apart",
    ),
    (
        "If-Match",
        {"IfMatch": OTHER_ETAG},
        "a forced push may replace what somebody else has pushed at the same moment",
    ),
)
"""Of publishing an upload: none of them holds."""
_ONE_AT_A_TIME = "let one person at a time push a name"


async def try_writing(
    connection: Connection,
    key: str,
    findings: list[Finding],
    *,
    public: bool,
    seconds: float,
) -> None:
    """Try what a push relies on; add to *findings* what comes of it, and remove everything.

    Args:
        connection: To the bucket.
        key: As the bucket calls it; nobody else has it.
        findings: So far.
        public: Whether what is pushed should be readable by everybody.
        seconds: How long it may take, but for removing.
    """
    scratch = Scratch(connection, key)
    left = scratch.left(f"no answer within {GRACE_SECONDS:.0f} s")
    try:
        with within(seconds, findings):
            await _Trial(connection, scratch, findings, public).run()
    except BaseException as error:
        await clean_up(scratch.remove(), error, left=left)
        raise
    with reporting(findings, "removing"):
        await clean_up(scratch.remove(), None, left=left)
        findings.append(fine("removing", "what was written for these checks is gone again"))


@dataclass(slots=True)
class _Trial:
    """What is tried under one key."""

    connection: Connection
    scratch: Scratch
    findings: list[Finding]
    public: bool
    _nonce: str = field(default_factory=lambda: secrets.token_hex(16))

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
            upload = ""
            with reporting(self.findings, "public"):
                upload = await self._try_public()
            if upload:
                with reporting(self.findings, "aborting"):
                    await self._try_abort(upload)

    async def _put(
        self, data: bytes, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        arguments |= object_arguments(self._nonce, public=False)
        md5 = await content_md5(data)
        return await self.scratch.request(
            "put_object", expected, body=data, ContentMD5=md5, **arguments
        )

    async def _look(self) -> ObjectInfo | None:
        try:
            answer = await self.connection.call(
                "head_object", expected={403, 404}, attempts=ATTEMPTS, Key=self.scratch.key
            )
        except Refused:
            return None
        return describe(self.connection.place, self.scratch.key, answer)

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
                    warning(
                        "write",
                        f"objects cannot be written ({refusal}): datasets can be pulled, not "
                        "pushed",
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
        rest = data[_COPIED:]
        # Of its own: some servers drop an upload of which a part was refused.
        await self._try_checksums(*await self._begin(), rest)
        upload, checksums = await self._begin()
        copied = await self._try_copy(upload, info, data[:_COPIED], checksums)
        if copied is None:
            upload, checksums = await self._begin()
        parts = [] if copied is None else [copied]
        number = len(parts) + 1
        answer = await self.scratch.request(
            "upload_part",
            UploadId=upload,
            PartNumber=number,
            body=rest,
            **await _checksum(rest, checksums),
        )
        parts.append(_part(number, answer.get("ETag"), rest, checksums))
        if await self._complete(upload, parts, checksums):
            await self._compare(rest if copied is None else data)

    async def _begin(self, **arguments: Any) -> tuple[str, bool]:
        """Begin an upload; return its id, and whether the server compares CRC-32."""
        arguments |= object_arguments(self._nonce, public="ACL" in arguments)
        checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        try:
            answer = await self.scratch.request(
                "create_multipart_upload", {400, *_UNKNOWN_CONDITION}, **arguments, **checksum
            )
        except Refused:
            answer = await self.scratch.request("create_multipart_upload", **arguments)
        return self.scratch.uploads[-1], answer.get("ChecksumAlgorithm") == "CRC32"

    async def _try_checksums(self, upload: str, checksums: bool, data: bytes) -> None:
        """Send a part whose checksum is that of other bytes."""
        wrong = await _checksum(data[::-1], checksums)
        name = "CRC-32" if checksums else "MD5"
        try:
            await self.scratch.request(
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
        self, upload: str, info: ObjectInfo, first: bytes, checksums: bool
    ) -> dict[str, Any] | None:
        """Copy the first part from the object; return what names it."""
        which = {"Key": self.scratch.key, "UploadId": upload}
        reason = await why_no_copies(self.connection)
        if reason is None:
            try:
                etag, _ = await uninterrupted(
                    copy_part(
                        self.connection, which, 1, info, self.scratch.key, 0, _COPIED, crc32(first)
                    )
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

    async def _complete(self, upload: str, parts: list[dict[str, Any]], checksums: bool) -> bool:
        """Publish on conditions that do not hold, then without; return whether it is published."""
        arguments: dict[str, Any] = {"UploadId": upload, "MultipartUpload": {"Parts": parts}}
        if checksums:
            arguments["ChecksumType"] = "FULL_OBJECT"
        check = "conditional uploads"
        for name, condition, meaning in _CONDITIONS:
            try:
                await self.scratch.request(
                    "complete_multipart_upload",
                    CONDITION_HEEDED | _UNKNOWN_CONDITION,
                    **arguments,
                    **condition,
                )
            except Refused as refusal:
                if refusal.is_one_of(CONDITION_HEEDED):
                    continue
                text = f"the server knows no {name}: {meaning}"
                self.findings.append(warning(check, text, _ONE_AT_A_TIME))
                break
            text = f"the server ignores {name}: {meaning}"
            self.findings.append(warning(check, text, _ONE_AT_A_TIME))
            return True
        else:
            text = "a push replaces only what it was told to replace"
            self.findings.append(fine(check, text))
        try:
            await self.scratch.request("complete_multipart_upload", NO_UPLOAD, **arguments)
        except Refused:
            text = "not tried: the server drops an upload whose condition does not hold"
            self.findings.append(unknown("uploads", text))
            return False
        return True

    async def _compare(self, expected: bytes) -> None:
        """See that the object is what the parts were."""
        every = f"bytes=0-{len(expected) - 1}"
        answer = await self.connection.call(
            "get_object", attempts=ATTEMPTS, Key=self.scratch.key, Range=every
        )
        found = bytearray()
        with answering(self.connection.place), anyio.fail_after(patience.STALL_SECONDS):
            async with answer["Body"] as body:
                while len(found) <= len(expected) and (piece := await body.read(1 << 20)):
                    found += piece
        if found == expected:
            self.findings.append(fine("uploads", "an archive comes to be from its parts"))
            return
        text = "an object is not what its parts were"
        advice = "do not push there; tell whoever runs the server"
        self.findings.append(problem("uploads", text, advice))

    async def _try_public(self) -> str:
        """Begin an upload that everybody could read; return its id."""
        try:
            answer = await self.scratch.request(
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
            return ""
        self.findings.append(
            fine("public", "the server does not refuse public = true; nothing was made public")
        )
        return str(answer["UploadId"])

    async def _try_abort(self, upload: str) -> None:
        """Abort an upload, and see whether it is gone."""
        await abort(self.connection, self.scratch.key, upload)
        try:
            async for _ in list_parts(self.connection, self.scratch.key, upload):
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


async def _checksum(data: bytes, checksums: bool) -> dict[str, str]:
    if checksums:
        return {"ChecksumCRC32": encoded_crc32(crc32(data))}
    return {"ContentMD5": await content_md5(data)}


def _part(number: int, etag: object, data: bytes, checksums: bool) -> dict[str, Any]:
    named = {"PartNumber": number, "ETag": etag}
    return named | ({"ChecksumCRC32": encoded_crc32(crc32(data))} if checksums else {})
