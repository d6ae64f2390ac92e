"""``memory://name``: objects in a dictionary, for tests; it fails and dawdles on command."""

import zlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count

import anyio

from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
    TruncatedArchive,
)
from etcetera.findings import Finding, fine
from etcetera.settings import RepositorySettings
from etcetera.stores import (
    CannotCopy,
    CannotResume,
    Data,
    ObjectInfo,
    PartLimits,
    PinnedRange,
    Sent,
    SharedUrl,
    Unfinished,
    UploadInfo,
)
from etcetera.stores.common import (
    check_key,
    check_part,
    check_parts,
    check_range,
    clean_up,
    is_curable,
    no_links,
    replaced,
)

_stores: dict[str, "MemoryStore"] = {}
_versions = count(1)
_LIMITS = PartLimits(min_part=1, max_part=5 << 30, max_parts=10_000)


def memory_store(url: str) -> "MemoryStore":
    """Return the store behind ``memory://name``, the same one for the whole process.

    Raises:
        ConfigError: The URL has no name.
    """
    name = url.removeprefix("memory://").strip("/")
    if not name:
        raise ConfigError(f"{url!r} has no name: expected memory://name")
    return _stores.setdefault(name, MemoryStore(url=f"memory://{name}"))


@asynccontextmanager
async def open_memory_store(settings: RepositorySettings) -> AsyncIterator["MemoryStore"]:
    """Open ``memory://name``.

    Raises:
        ConfigError: The URL has no name.
    """
    yield memory_store(settings.url)


@dataclass(slots=True)
class MemoryObject:
    """One version, pinned."""

    store: "MemoryStore"
    info: ObjectInfo

    async def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from *start* to *stop*; see :class:`etcetera.stores.RemoteObject`."""
        check_range(start, stop, self.info.size)
        if start == stop:
            return b""
        await self.store.enter("read")
        present = self.store.objects.get(self.info.key)
        if present is None or present[0].etag != self.info.etag:
            raise RemoteChanged(f"{self.info.key} was replaced while it was read; start again")
        data = present[1][start:stop]
        self.store.bytes_read += len(data)
        if len(data) != stop - start:
            raise TruncatedArchive(f"{self.info.key} ends at byte {len(present[1])}")
        return data


@dataclass(slots=True)
class MemoryUpload:
    """An object in the making."""

    store: "MemoryStore"
    key: str
    part_size: int
    overwrite: bool
    id: str
    replaces: str | None = None
    parts: dict[int, bytes] = field(default_factory=dict)
    copied: bool = False
    keep: bool = False
    kept: bool = False
    modified: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the last part came."""

    def state(self) -> dict[str, str]:
        """Nothing but the id; see :class:`etcetera.stores.Upload`."""
        return {}

    def part(self, number: int) -> dict[str, str]:
        """The checksum of a part; see :class:`etcetera.stores.Upload`."""
        return {"crc32": f"{zlib.crc32(self.parts[number]):08x}"}

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:
        """Keep one part; see :class:`etcetera.stores.Upload`."""
        check_part(number, len(data), self.part_size, self.store.limits.max_parts)
        await self.store.enter("put_part")
        if self.id not in self.store.uploads:
            raise StoreError(f"the upload {self.id} has ended")
        if zlib.crc32(data) != crc32:
            raise StoreError(f"part {number} of {self.key} arrived damaged")
        self.parts[number] = bytes(data)
        self.modified = datetime.now(UTC)
        self.store.bytes_sent += len(data)
        if sent is not None:
            sent(len(data))

    async def copy_part(
        self, number: int, source: ObjectInfo, start: int, stop: int, crc32: int
    ) -> None:
        """Copy one part; see :class:`etcetera.stores.Upload`."""
        check_part(number, stop - start, self.store.limits.max_part, self.store.limits.max_parts)
        await self.store.enter("copy_part")
        info, data = self.store.objects.get(source.key, (None, b""))
        if info is None or info.etag != source.etag:
            raise replaced(source.key)
        self.parts[number] = data[start:stop]
        if zlib.crc32(self.parts[number]) != crc32:
            raise CannotCopy("other bytes were copied")
        self.store.bytes_copied += stop - start
        self.copied = True

    async def complete(self) -> ObjectInfo:
        """Publish the parts; see :class:`etcetera.stores.Upload`."""
        sizes = {number: len(data) for number, data in self.parts.items()}
        check_parts(sizes, 1 if self.copied else self.part_size)
        if any(sizes[number] < self.store.limits.min_part for number in range(1, len(sizes))):
            raise StoreError(f"a part of {self.key} is below {self.store.limits.min_part} bytes")
        await self.store.enter("complete")
        present = self.store.objects.get(self.key)
        if self.replaces and (present is None or present[0].etag != self.replaces):
            raise replaced(self.key)
        data = b"".join(self.parts[number] for number in sorted(self.parts))
        info = self.store.publish(self.key, data, overwrite=self.overwrite)
        del self.store.uploads[self.id]
        return info


@dataclass(slots=True)
class MemoryStore:
    """Bytes by key in this process, with what a test wants to see or to break."""

    url: str
    limits: PartLimits = _LIMITS
    exists: bool = True
    """Whether the repository is there at all."""
    latency: float = 0.0
    """Seconds before every call is answered."""
    faults: dict[tuple[str, int], Exception] = field(default_factory=dict)
    """Raised instead of answering: by method (``list``, ``head``, ``open``, ``read``, ``put``,
    ``upload``, ``put_part``, ``copy_part``, ``complete``, ``abort``, ``unfinished``, ``abandon``,
    ``delete``) and its call, counted from 1."""
    calls: Counter[str] = field(default_factory=Counter)
    """How often each method was called."""
    objects: dict[str, tuple[ObjectInfo, bytes]] = field(default_factory=dict)
    uploads: dict[str, MemoryUpload] = field(default_factory=dict)
    """The open ones, by id."""
    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_copied: int = 0

    async def enter(self, method: str) -> None:
        """Count a call, wait out the latency and raise the fault planned for it, if any.

        Raises:
            RepositoryNotFound: ``exists`` is false.
        """
        self.calls[method] += 1
        fault = self.faults.get((method, self.calls[method]))
        await anyio.sleep(self.latency)
        if fault is not None:
            raise fault
        if not self.exists:
            raise RepositoryNotFound(f"{self.url} does not exist")

    def publish(self, key: str, data: bytes, *, overwrite: bool) -> ObjectInfo:
        """Make *data* visible at once.

        Raises:
            AlreadyExists: The key is taken and *overwrite* is false.
        """
        if key in self.objects and not overwrite:
            raise AlreadyExists(f"{key} exists already in {self.url}")
        now = datetime.now(UTC)
        info = ObjectInfo(key=key, size=len(data), modified=now, etag=str(next(_versions)))
        self.objects[key] = (info, data)
        return info

    async def list(self) -> AsyncIterator[ObjectInfo]:
        """Yield all objects; see :class:`etcetera.stores.Store`."""
        await self.enter("list")
        for info, _ in tuple(self.objects.values()):
            yield info

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; see :class:`etcetera.stores.Store`."""
        await self.enter("head")
        found = self.objects.get(check_key(key))
        return found[0] if found else None

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[MemoryObject | None]:
        """Pin one object; see :class:`etcetera.stores.Store`."""
        await self.enter("open")
        found = self.objects.get(check_key(key))
        yield MemoryObject(self, found[0]) if found else None

    async def put(self, key: str, data: Data, *, overwrite: bool) -> ObjectInfo:
        """Store one object; see :class:`etcetera.stores.Store`."""
        check_key(key)
        await self.enter("put")
        self.bytes_sent += len(data)
        return self.publish(key, bytes(data), overwrite=overwrite)

    async def why_no_copies(self) -> str | None:
        """Nothing is in the way; see :class:`etcetera.stores.Store`."""
        return None

    @asynccontextmanager
    async def upload(
        self,
        key: str,
        *,
        part_size: int,
        overwrite: bool,
        resume: Unfinished | None = None,
        replaces: str | None = None,
    ) -> AsyncIterator[MemoryUpload]:
        """Begin an upload, or go on with one; see :class:`etcetera.stores.Store`."""
        check_key(key)
        await self.enter("upload")
        identity = f"upload-{next(_versions)}" if resume is None else resume.id
        upload = MemoryUpload(self, key, part_size, overwrite, identity, replaces)
        try:
            if resume is not None:
                self._adopt(upload, resume)
            self.uploads[upload.id] = upload
            yield upload
        except BaseException as error:
            await self._abort(upload, error)
            raise
        await self._abort(upload, None)

    def _adopt(self, upload: MemoryUpload, resume: Unfinished) -> None:
        """Take over the parts that an earlier upload has sent."""
        earlier = self.uploads.get(resume.id)
        if earlier is None:
            raise CannotResume(f"the upload {resume.id} is gone")
        upload.parts, upload.copied, upload.keep = earlier.parts, earlier.copied, True
        for number, known in enumerate(resume.parts, 1):
            if number not in upload.parts:
                raise CannotResume(f"part {number} is not there")
            if upload.part(number) != known:
                raise CannotResume(f"part {number} is another one")

    async def _abort(self, upload: MemoryUpload, error: BaseException | None) -> None:
        if upload.id in self.uploads:
            if upload.keep and is_curable(error):
                upload.kept = True
                return
            left = f"the upload {upload.id} of {upload.key} could not be removed"
            await clean_up(self._remove(upload, left), error, left=left)

    async def _remove(self, upload: MemoryUpload, left: str) -> str:
        try:
            await self.enter("abort")
        except Exception as failure:  # noqa: BLE001 - whatever a test has planned
            return f"{left} ({failure})"
        del self.uploads[upload.id]
        return ""

    async def unfinished(self, before: datetime) -> AsyncIterator[UploadInfo]:
        """Yield idle uploads; see :class:`etcetera.stores.Store`."""
        await self.enter("unfinished")
        for upload in tuple(self.uploads.values()):
            if upload.modified < before:
                size = sum(map(len, upload.parts.values()))
                yield UploadInfo(key=upload.key, id=upload.id, size=size, modified=upload.modified)

    async def abandon(self, key: str, upload: str) -> None:  # noqa: ARG002 - the id is enough
        """Abort an upload; see :class:`etcetera.stores.Store`."""
        await self.enter("abandon")
        self.uploads.pop(upload, None)

    async def delete(self, key: str) -> None:
        """Remove one object; see :class:`etcetera.stores.Store`."""
        await self.enter("delete")
        self.objects.pop(check_key(key), None)

    async def share(self, key: str, seconds: int, part: PinnedRange | None) -> SharedUrl:  # noqa: ARG002 - it refuses
        """Refuse; see :class:`etcetera.stores.Store`."""
        raise no_links(self.url)

    async def examine(self, *, write: bool) -> Sequence[Finding]:  # noqa: ARG002 - it can do everything
        """Say that there is nothing to be examined; see :class:`etcetera.stores.Store`."""
        await self.enter("examine")
        return [fine("repository", "it lies in the memory of this process, and ends with it")]
