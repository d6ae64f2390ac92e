"""One key of a bucket under which things are tried, and that is empty again afterwards."""

import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import anyio

from etcetera.errors import EtceteraError, NotAllowed, StoreError
from etcetera.stores.common import GRACE_SECONDS, uninterrupted
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_errors import answering
from etcetera.stores.s3_publish import look
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
        self._wrote = True
        return await uninterrupted(self._send(operation, expected, arguments))

    async def _send(
        self, operation: str, expected: Collection[str | int], arguments: dict[str, Any]
    ) -> dict[str, Any]:
        begins = operation == "create_multipart_upload"
        unsure, self._unsure = self._unsure, self._unsure or begins
        try:
            answer = await self.connection.call(
                operation,
                writes=True,
                expected=expected,
                attempts=1 if begins else ATTEMPTS,
                Key=self.key,
                **arguments,
            )
        except (StoreError, NotAllowed):  # it has refused
            self._unsure = unsure
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
        try:
            with anyio.fail_after(GRACE_SECONDS):
                for upload in [*self.uploads, *await self._unknown_uploads()]:
                    await abort(self.connection, self.key, upload)
                if self._wrote:
                    await self._delete()
        except TimeoutError:
            return self.left(f"no answer within {GRACE_SECONDS:.0f} s")
        except EtceteraError as error:
            return self.left(str(error))
        return ""

    async def _unknown_uploads(self) -> list[str]:
        """The ids of uploads whose beginning was not answered."""
        if not self._unsure:
            return []
        page = await self.connection.call(
            "list_multipart_uploads", writes=True, Prefix=self.key, MaxUploads=10
        )
        with answering(self.connection.place):
            return [upload["UploadId"] for upload in page.get("Uploads", ())]

    async def _delete(self) -> None:
        try:
            for version in self._versions:
                await self._remove_object(VersionId=version)
        except NotAllowed:
            await self._remove_object()
            raise
        if not self._versions or await look(self.connection, self.key, blind=True):
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
