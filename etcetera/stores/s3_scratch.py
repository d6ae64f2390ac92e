"""One key of a bucket under which things are tried, and that is empty again afterwards."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import anyio

from etcetera.errors import EtceteraError, NotAllowed, StoreError
from etcetera.stores.common import GRACE_SECONDS, Refused, uninterrupted
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_trial_reading import ATTEMPTS
from etcetera.stores.s3_unfinished import abort


@dataclass(slots=True)
class Scratch:
    """The key, and what has come to be under it."""

    connection: Connection
    key: str
    uploads: list[str] = field(default_factory=list)
    """Ids of all that were begun."""
    _wrote: bool = False
    _unsure: bool = False
    """Whether there may be uploads that are not known."""
    _versions: list[str] = field(default_factory=list)
    """Of the object, in a bucket that keeps them."""

    async def request(
        self, operation: str, expected: Collection[str | int] = (), **arguments: Any
    ) -> dict[str, Any]:
        """Send a request that changes something, as :meth:`Connection.call` does."""
        # Torn off, it could still come true after everything was removed.
        return await uninterrupted(self._send(operation, expected, arguments))

    async def _send(
        self, operation: str, expected: Collection[str | int], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        begins = operation == "create_multipart_upload"
        unsure, self._unsure = self._unsure, self._unsure or begins
        wrote, self._wrote = self._wrote, True
        try:
            answer = await self.connection.call(
                operation,
                writes=True,
                expected=expected,
                attempts=1 if begins else ATTEMPTS,
                Key=self.key,
                **arguments,
            )
        except (StoreError, NotAllowed) as error:  # it has refused
            self._unsure = unsure
            # Anything else may be the answer to a repetition of what was done.
            if isinstance(error, NotAllowed) or getattr(error, "status", None) == 403:
                self._wrote = wrote
            raise
        if answer.get("VersionId"):
            self._versions.append(answer["VersionId"])
        if begins:
            with answering(self.connection.place):
                self.uploads.append(answer["UploadId"])
            self._unsure = unsure
        return answer

    async def remove(self) -> str:
        """Remove everything; return what to say if something is left."""
        reasons = []
        try:
            with anyio.fail_after(GRACE_SECONDS):
                for remove in (self._abort, self._delete):
                    try:
                        await remove()
                    except EtceteraError as error:
                        reasons.append(str(error))
        except TimeoutError:
            reasons.append(f"no answer within {GRACE_SECONDS:.0f} s")
        return self.left(", ".join(reasons)) if reasons else ""

    async def _abort(self) -> None:
        self.uploads += await self._unknown_uploads()
        while self.uploads:
            await abort(self.connection, self.key, self.uploads[-1])
            self.uploads.pop()

    async def _unknown_uploads(self) -> list[str]:
        """The ids of uploads whose beginning was not answered."""
        if not self._unsure:
            return []
        page = await self.connection.call(
            "list_multipart_uploads", writes=True, Prefix=self.key, MaxUploads=10
        )
        with answering(self.connection.place):
            found = page.get("Uploads", ())
            return [
                upload["UploadId"] for upload in found if upload.get("Key", self.key) == self.key
            ]

    async def _delete(self) -> None:
        if not self._wrote:
            return
        try:
            for version in self._versions:
                await self._remove_object(VersionId=version)
            # A write whose answer was lost has left a version that nobody has told of.
            found = await self._newest()
            while found and found not in self._versions:
                self._versions.append(found)
                await self._remove_object(VersionId=found)
                found = await self._newest()
        except NotAllowed:
            await self._remove_object()
            raise
        if found is not None:
            await self._remove_object()
        self._wrote = False

    async def _newest(self) -> str | None:
        """The version of the object that is there, empty if it has none; ``None`` if it is gone."""
        try:
            answer = await self.connection.call(
                "head_object", expected={403, 404}, attempts=ATTEMPTS, Key=self.key
            )
        except Refused as refusal:
            # Who must not list the bucket is told 403 of what is gone as well.
            return None if refusal.status == 404 or self._versions else ""
        return str(answer.get("VersionId") or "")

    async def _remove_object(self, **arguments: Any) -> None:
        await self.connection.call("delete_object", writes=True, Key=self.key, **arguments)

    def left(self, reason: str) -> str:
        """What to say if something could not be removed."""
        bucket = self.connection.place.bucket
        where = ["--bucket", bucket, "--key", self.key]
        commands = [
            ["aws", "s3api", "abort-multipart-upload", *where, "--upload-id", upload]
            for upload in self.uploads
        ]
        if self._wrote or not commands:
            commands.append(["aws", "s3", "rm", f"s3://{bucket}/{self.key}"])
        more = ["--endpoint-url", self.connection.place.endpoint]
        if self.connection.profile:
            more += ["--profile", self.connection.profile]
        text = " && ".join(shlex.join([*command, *more]) for command in commands)
        return f"s3://{bucket}/{self.key} may be left ({reason}); remove it with: {text}"
