"""What a store promises, and which one a URL means.

A store holds bytes by key below one repository URL. It knows nothing of datasets, archives or
frames. Every method raises the errors of :mod:`etcetera.errors` and nothing else, apart from
cancellation.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from anyio import to_thread

from etcetera.errors import ConfigError, StoreError
from etcetera.findings import Finding
from etcetera.settings import RepositorySettings, redact_url

if TYPE_CHECKING:
    from etcetera.stores.http import HttpObject, HttpStream

Data = bytes | bytearray | memoryview
"""What can be sent."""
Sent = Callable[[int], object]
"""Told on the event loop how many bytes have just left; has to be quick."""


_NEEDED = {"s3": ("aiobotocore",), "gs": ("aiohttp", "crc32c", "google.auth")}
"""What only some stores import, by their schemes."""


class CannotCopy(StoreError):
    """Why no part of an archive can be copied from another one: everything has to be sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object, as the store describes it."""

    key: str
    """Relative to the repository's prefix."""
    size: int
    """Bytes."""
    modified: datetime
    """With a time zone."""
    etag: str
    """Opaque; two versions of an object never share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartLimits:
    """What a store accepts in a multipart upload."""

    min_part: int
    """Bytes; only the last part may be smaller."""
    max_part: int
    """Bytes."""
    max_parts: int
    """Parts are numbered from 1 to this."""


class PinnedRange(NamedTuple):
    """Some bytes of one version of an object, and no others."""

    start: int
    stop: int
    """Exclusive."""
    etag: str
    """Of the object; never empty."""

    def headers(self) -> dict[str, str]:
        """Those of the one request that may fetch it."""
        return {"Range": f"bytes={self.start}-{self.stop - 1}", "If-Match": f'"{self.etag}"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedUrl:
    """A URL by which anybody can read an object."""

    url: str = field(repr=False)
    """A secret, unless everybody may read the object anyway."""
    expires: datetime | None
    """When it stops working; ``None`` if it never does."""
    part: PinnedRange | None = None
    """What alone can be read, as the server wants it to be asked for."""
    temporary: bool = False
    """Whether it was signed by credentials that end by themselves, perhaps before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """An upload that another process began, as far as a journal knows it."""

    id: str
    """As :attr:`Upload.id`."""
    state: Mapping[str, str]
    """From :meth:`Upload.state`."""
    parts: Sequence[Mapping[str, str]]
    """From :meth:`Upload.part`, of the first so many parts; each of them is a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadInfo:
    """An unfinished upload, as the store describes it."""

    key: str
    """Of the object that it would become."""
    id: str
    size: int
    """Bytes of the parts that are there."""
    modified: datetime
    """When the last part came, or when it began if there is none."""


class CannotResume(StoreError):
    """An unfinished upload is gone, or is not what a journal says: it has to begin anew."""


class RemoteObject(Protocol):
    """One version of one object, pinned: every read sees the same bytes or fails."""

    info: ObjectInfo

    async def read(self, start: int, stop: int) -> bytes | bytearray:
        """Return exactly the bytes from *start* to *stop* (exclusive), held once in memory.

        Retries what can be retried, from where it broke.

        Raises:
            RemoteChanged: The object was replaced or deleted since it was opened.
            NetworkError: After the last retry.
            TruncatedArchive: The object is shorter than its size.
        """


class Upload(Protocol):
    """An object in the making; nobody sees it until :meth:`complete` returns."""

    id: str
    """What the store calls it; shown when it cannot be removed."""
    keep: bool
    """Set once a journal knows it: what resuming can cure does not remove it any more."""
    kept: bool
    """Whether it was left for another process to go on with."""

    def state(self) -> dict[str, str]:
        """What another process has to know to go on with it; holds no secret."""

    def part(self, number: int) -> dict[str, str]:
        """What tells a part that was sent from any other; holds no secret."""

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:
        """Send one part; parts may be sent concurrently and in any order.

        Nobody looks at *data* any more once this returns or raises: its memory can be used again.

        Args:
            number: From 1, without gaps once all are sent.
            data: Exactly ``part_size`` bytes, but 1 to ``part_size`` in the last part.
            crc32: Of *data*, so that the store can refuse what arrived damaged.
            sent: Told of bytes as they leave, also of those that are sent once more.
        """

    async def copy_part(
        self, number: int, source: ObjectInfo, start: int, stop: int, crc32: int
    ) -> None:
        """Make a part of bytes that another object of the repository holds.

        Once there is such a part, all others but the last may have any length that ``limits``
        allow.

        Args:
            number: As for :meth:`put_part`.
            source: The version of the object that is meant.
            start: Of the bytes, in the source.
            stop: Of the bytes, exclusive; at most ``limits.max_part`` from *start*.
            crc32: Of the bytes, so that it can be noticed if others were copied.

        Raises:
            CannotCopy: The store cannot do this, and the upload is of no use.
            RemoteChanged: The source was replaced or deleted.
        """

    async def complete(self) -> ObjectInfo:
        """Publish the parts as one object, at once, and check what is there then.

        Raises:
            AlreadyExists: The key was taken meanwhile and ``overwrite`` is false.
            CannotCopy: The store does not take the parts that were copied.
            RemoteChanged: What ``replaces`` means is no longer there.
        """


class Store(Protocol):
    """Bytes by key, below a repository URL."""

    url: str
    """The repository, without credentials."""
    limits: PartLimits

    def list(self) -> AsyncIterator[ObjectInfo]:
        """Yield the objects directly below the repository, in any order.

        Raises:
            RepositoryNotFound: The bucket or directory does not exist.
        """

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; ``None`` if there is none.

        Also ``None`` if it must not be looked at, but publishing finds out whether it is there.

        Raises:
            RepositoryNotFound: The bucket or directory does not exist.
        """

    def open(self, key: str) -> AbstractAsyncContextManager[RemoteObject | None]:
        """Pin the present version of one object for reading; ``None`` if there is none."""

    async def put(self, key: str, data: Data, *, overwrite: bool) -> ObjectInfo:
        """Store *data*, at most ``limits.max_part`` bytes, whole or not at all.

        Nobody looks at *data* any more once this returns or raises.

        Raises:
            AlreadyExists: The key is taken and *overwrite* is false.
        """

    async def why_no_copies(self) -> str | None:
        """Why no part can be copied from another object; ``None`` if only trying tells."""

    def upload(
        self,
        key: str,
        *,
        part_size: int,
        overwrite: bool,
        resume: Unfinished | None = None,
        replaces: str | None = None,
    ) -> AbstractAsyncContextManager[Upload]:
        """Begin a multipart upload; leaving the block without ``complete`` aborts it.

        Not if a journal knows it (``keep``) and the error is one that resuming can cure.

        Leaving is shielded from cancellation for a bounded time. If even aborting fails, a note
        on the error in flight says what is left and how to remove it.

        Args:
            key: What the object will be called.
            part_size: Bytes of every part but the last; within ``limits``.
            overwrite: Whether to replace an object that has this key.
            resume: Go on with this one instead, of the same key and part size.
            replaces: The ETag of the only version that may be replaced; any, by default.

        Raises:
            RepositoryNotFound: The bucket or directory does not exist.
            CannotResume: The unfinished upload is not what it should be; it has been aborted.
        """

    def unfinished(self, before: datetime) -> AsyncIterator[UploadInfo]:
        """Yield the uploads directly below the repository that nobody seems to go on with.

        Args:
            before: Only those to which nothing has come since.
        """

    async def abandon(self, key: str, upload: str) -> None:
        """Abort an unfinished upload by its id; no error if there is none.

        Raises:
            NotAllowed: It belongs to somebody else.
        """

    async def delete(self, key: str) -> None:
        """Remove one object; no error if there is none."""

    async def share(self, key: str, seconds: int, part: PinnedRange | None) -> SharedUrl:
        """Make a URL by which anybody can read one object, that was looked at before.

        Args:
            key: Of the object.
            seconds: How long it works.
            part: Let only this be read, of only this version.

        Raises:
            UsageError: The store has no such URLs, or none that lives so long.
            NotAllowed: Everybody can read the object, so that nothing of it can be kept back.
        """

    async def examine(self, *, write: bool) -> Sequence[Finding]:
        """Find out what is wrong with the store, and what it can do; raises nothing of that.

        Args:
            write: Whether to try also what has to be written; under one name that no dataset has,
                and that is gone again when this ends, however it ends.
        """


def open_store(settings: RepositorySettings) -> AbstractAsyncContextManager[Store]:
    """Connect to the store that the repository's URL means.

    Opening is cheap and sends nothing; leaving closes every connection.

    Raises:
        ConfigError: The URL names no known store; or, on entering, the rest of it cannot be, or
            the extra that the store needs is not installed.
    """
    scheme, separator, _ = settings.url.partition("://")
    if not separator or scheme not in ("s3", "gs", "file", "memory"):
        raise ConfigError(
            f"{redact_url(settings.url)!r} is no repository URL; write s3://bucket/prefix, "
            "gs://bucket/prefix or file:///directory"
        )
    return _open(scheme, settings)


@asynccontextmanager
async def _open(scheme: str, settings: RepositorySettings) -> AsyncIterator[Store]:
    # Even importing takes too long for an event loop.
    opener = await to_thread.run_sync(_load, scheme, redact_url(settings.url))
    async with opener(settings) as store:
        yield store


def _load(
    scheme: str, shown_url: str
) -> Callable[[RepositorySettings], AbstractAsyncContextManager[Store]]:
    for needed in _NEEDED.get(scheme, ()):
        _require(needed, scheme, shown_url)
    module = import_module(f"etcetera.stores.{scheme}")
    opener: Callable[[RepositorySettings], AbstractAsyncContextManager[Store]]
    opener = getattr(module, f"open_{scheme}_store")
    return opener


def _require(module: str, extra: str, shown_url: str) -> None:
    if find_spec(module.partition(".")[0]) is None or find_spec(module) is None:
        raise ConfigError(
            f"{shown_url} needs the extra '{extra}'; install it: pip install 'etcetera[{extra}]'"
        )


@asynccontextmanager
async def open_url(
    url: str, part: PinnedRange | None = None
) -> AsyncIterator["HttpObject | HttpStream"]:
    """Pin the present version of what is at an ``http(s)://`` URL for reading.

    Args:
        url: Its query is taken for a secret.
        part: The bytes that alone may be read; what is opened has only these.

    Yields:
        A stream, which can be read from front to back only, if it is a part, or if the server has
        no ranges.

    Raises:
        UsageError: It is no URL.
        DatasetNotFound: There is nothing.
        NotAllowed: It must not be read, or no longer.
    """
    http = await to_thread.run_sync(_load_http, redact_url(url))
    async with http.open_http(url, part) as remote:
        yield remote


def _load_http(shown_url: str) -> Any:
    _require("aiohttp", "s3", shown_url)
    return import_module("etcetera.stores.http")
