"""Names in a bucket of Google Storage under which things are tried; they are empty afterwards.

One name beside the archives, and the one below ``.etcetera/`` under which uploads come to be:
``etc clean -r`` removes what may be left there, should this process be killed.
"""

import shlex
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

import anyio

from etcetera.errors import EtceteraError, NetworkError, NotAllowed
from etcetera.findings import RESERVED
from etcetera.stores.common import GRACE_SECONDS, Refused, uninterrupted
from etcetera.stores.gs_client import Connection, as_done, as_json
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_publish import NONCE
from etcetera.stores.gs_temporary import Temporary, abort, delete
from etcetera.stores.gs_xml import as_xml, text

_T = TypeVar("_T")


@dataclass(slots=True)
class Scratch:
    """The names, and what has come to be under them."""

    connection: Connection
    prefix: str
    name: str
    """As the repository calls it."""
    temporary: Temporary
    uploads: list[str] = field(default_factory=list)
    """Ids of all that were begun."""
    _unsure: bool = False
    """Whether there may be uploads that are not known."""
    _wrote: bool = False
    """Whether there may be objects."""

    @classmethod
    def of(cls, connection: Connection, prefix: str, mark: str) -> Self:
        """Return names that nobody else has.

        Args:
            connection: To the bucket.
            prefix: Of the repository; empty, or ending with a slash.
            mark: By which they differ from all others.
        """
        name = f"{RESERVED}{mark}"
        return cls(connection, prefix, name, Temporary.of(prefix, name.removeprefix(".")))

    @property
    def key(self) -> str:
        """The name, as the bucket calls it."""
        return self.prefix + self.name

    async def write(self, request: Coroutine[Any, Any, _T]) -> _T:
        """Await what may make an object, whatever comes meanwhile.

        Raises:
            EtceteraError: As the request does.
        """
        # Torn off, it could still come true after everything was removed.
        wrote, self._wrote = self._wrote, True
        try:
            return await uninterrupted(request)
        except NotAllowed:
            self._wrote = wrote
            raise

    async def begin(self, expected: Collection[str | int], *, public: bool) -> str:
        """Begin an upload, and return its id.

        Raises:
            Refused: The answer was an expected error.
            EtceteraError: Any other.
        """
        return await uninterrupted(self._begin(expected, public))

    async def _begin(self, expected: Collection[str | int], public: bool) -> str:
        headers = {"Content-Type": "application/gzip", f"x-goog-meta-{NONCE}": self.temporary.nonce}
        if public:
            headers["x-goog-acl"] = "public-read"
        try:
            begun = await self.connection.call(
                "POST",
                self.connection.xml_path(self.temporary.key),
                partial(as_xml, "InitiateMultipartUploadResult"),
                query={"uploads": ""},
                headers=headers,
                writes=True,
                expected=expected,
                attempts=1,
            )
            with answering(self.connection.place):
                upload = text(begun, "UploadId")
        except NetworkError:
            self._unsure = True
            raise
        self.uploads.append(upload)
        return upload

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
        if self._unsure:
            self.uploads += await self._unknown_uploads()
            self._unsure = False
        while self.uploads:
            await abort(self.connection, self.temporary.key, self.uploads[-1])
            self.uploads.pop()

    async def _unknown_uploads(self) -> list[str]:
        """The ids of uploads whose beginning was not answered."""
        page = await self.connection.call(
            "GET",
            self.connection.xml_path(),
            partial(as_xml, "ListMultipartUploadsResult"),
            query={"uploads": "", "prefix": self.temporary.key, "max-uploads": "10"},
            writes=True,
        )
        with answering(self.connection.place):
            ids = [
                text(one, "UploadId")
                for one in page.findall("Upload")
                if text(one, "Key") == self.temporary.key
            ]
        return [one for one in ids if one not in self.uploads]

    async def _delete(self) -> None:
        if not self._wrote:
            return
        for key in (self.key, self.temporary.key):
            try:
                generations = await self._generations(key)
            except (NotAllowed, Refused):  # whoever must not list may yet delete
                await delete(self.connection, key)
                continue
            for generation in generations:
                await self._delete_version(key, generation)
        self._wrote = False

    async def _generations(self, key: str) -> list[str]:
        """Of all versions of an object, also those that a bucket keeps when it is removed."""
        page = await self.connection.call(
            "GET",
            self.connection.list_path(),
            as_json,
            query={"prefix": key, "versions": "true", "fields": "items(name,generation)"},
            expected={400, 404},
        )
        with answering(self.connection.place):
            items = page.get("items") or ()
            return [str(one["generation"]) for one in items if one["name"] == key]

    async def _delete_version(self, key: str, generation: str) -> None:
        try:
            await self.connection.call(
                "DELETE",
                self.connection.object_path(key),
                as_done,
                query={"generation": generation},
                writes=True,
                expected={404},
            )
        except Refused:  # it was removed by an attempt without an answer
            return

    def left(self, reason: str) -> str:
        """What to say if something could not be removed."""
        bucket = self.connection.place.bucket
        objects = [f"gs://{bucket}/{self.key}", f"gs://{bucket}/{self.temporary.key}"]
        commands = []
        if self._wrote or not self.uploads:
            commands.append(shlex.join(["gcloud", "storage", "rm", "--all-versions", *objects]))
        if self.uploads or self._unsure:
            commands.append("etc clean -r")
        return f"{objects[0]} may be left ({reason}); remove it with: {' and then '.join(commands)}"
