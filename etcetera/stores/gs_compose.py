"""An upload to a server with Google's JSON API alone: its parts are objects, then put together.

Google's own test server, and others that stand in for Google Storage, have no multipart uploads.
Source: Cloud Storage JSON API, "Objects: compose", at most 32 components at once.
"""

import json
import logging
from dataclasses import dataclass, field
from functools import partial

import anyio.to_thread

from etcetera.stores import CannotCopy, Data, ObjectInfo, Sent
from etcetera.stores.common import (
    check_part,
    check_parts,
    uninterrupted,
)
from etcetera.stores.gs_checksum import checksum, combine
from etcetera.stores.gs_client import Connection, as_json
from etcetera.stores.gs_insert import insert
from etcetera.stores.gs_move import make_public
from etcetera.stores.gs_publish import NONCE, Publication, Resource, Target, look
from etcetera.stores.gs_temporary import Temporary, remove_objects, tidy_up
from etcetera.stores.gs_upload import LIMITS, NO_COPIES

COMPONENTS = 32

_logger = logging.getLogger("etcetera")


@dataclass(slots=True)
class ComposedUpload:
    """An object in the making; it cannot be gone on with once this process has ended."""

    target: Target
    temporary: Temporary
    part_size: int
    keep: bool = False
    kept: bool = False
    _published: bool = False
    _parts: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Bytes and CRC32C of each."""

    @property
    def id(self) -> str:
        """What the upload is called; see :class:`etcetera.stores.Upload`."""
        return self.temporary.id("")

    @property
    def _connection(self) -> Connection:
        return self.target.connection

    async def begin(self) -> None:
        """See that there is a bucket.

        Raises:
            RepositoryNotFound: There is none.
        """
        await look(self._connection, self.temporary.key)

    def state(self) -> dict[str, str]:
        """Nothing that would help; see :class:`etcetera.stores.Upload`."""
        return {}

    def part(self, number: int) -> dict[str, str]:
        """Bytes and checksum; see :class:`etcetera.stores.Upload`."""
        size, crc32c = self._parts[number]
        return {"Size": str(size), "CRC32C": f"{crc32c:08x}"}

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:  # noqa: ARG002 - Google checks CRC32C
        """Write one part as an object; see :class:`etcetera.stores.Upload`."""
        check_part(number, len(data), self.part_size, LIMITS.max_parts)
        crc32c = await checksum(data)
        key = self.temporary.part(number)
        # Torn off, it could still come true after everything was removed.
        await uninterrupted(
            insert(self._connection, key, data, crc32c, self.temporary.nonce, sent=sent)
        )
        self._parts[number] = len(data), crc32c

    async def copy_part(
        self, number: int, source: ObjectInfo, start: int, stop: int, crc32: int
    ) -> None:
        """Refuse; see :class:`etcetera.stores.Upload`."""
        del number, source, start, stop, crc32
        raise CannotCopy(NO_COPIES)

    async def complete(self) -> ObjectInfo:
        """Put the parts together; see :class:`etcetera.stores.Upload`."""
        size = check_parts(
            {number: one for number, (one, _) in self._parts.items()}, self.part_size
        )
        crc32c = await anyio.to_thread.run_sync(self._whole)
        publication = Publication(self.target, self.temporary.nonce, size, crc32c)
        return await uninterrupted(self._publish(publication))

    def _whole(self) -> int:
        """The CRC32C of all parts together."""
        crc32c = 0
        for number in sorted(self._parts):
            length, part = self._parts[number]
            crc32c = combine(crc32c, part, length)
        return crc32c

    async def _publish(self, publication: Publication) -> ObjectInfo:
        keys = [self.temporary.part(number) for number in sorted(self._parts)]
        level = 0
        while len(keys) > COMPONENTS:
            level += 1
            groups = [keys[i : i + COMPONENTS] for i in range(0, len(keys), COMPONENTS)]
            keys = [f"{self.temporary.key}/{level}-{number:05}" for number in range(len(groups))]
            for key, group in zip(keys, groups, strict=True):
                await self._compose(group, key, None)
        info = await publication.run(partial(self._compose, keys, self.target.key))
        self._published = True
        if self.target.public:
            await make_public(self._connection, self.target.key, info)
        return info

    async def _compose(self, keys: list[str], target: str, condition: str | None) -> Resource:
        wanted = {
            "sourceObjects": [{"name": key} for key in keys],
            "destination": {
                "contentType": "application/gzip",
                "metadata": {NONCE: self.temporary.nonce},
            },
        }
        return await self._connection.call(
            "POST",
            f"{self._connection.object_path(target)}/compose",
            as_json,
            query={} if condition is None else {"ifGenerationMatch": condition},
            headers={"Content-Type": "application/json"},
            body=(json.dumps(wanted).encode(),),
            writes=True,
            expected={404, 412},
            attempts=None if condition is None else 1,
        )

    async def end(self, error: BaseException | None) -> None:
        """Remove the parts.

        Args:
            error: The one in flight, which gets a note if removing fails.

        Raises:
            StoreError: Removing failed and there is no error in flight.
        """
        if self._published and error is not None:
            _logger.warning("%s was published in spite of the interruption", self.target.name)
        await tidy_up(
            partial(remove_objects, self._connection, self.temporary),
            self._left,
            error,
            published=self.target.name if self._published else "",
        )

    def _left(self, reason: str) -> str:
        bucket = self._connection.place.bucket
        return (
            f"temporary objects are left under gs://{bucket}/{self.temporary.key} ({reason}); "
            f"{self.temporary.advice(bucket)}"
        )
