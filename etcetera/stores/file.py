"""``file:///directory``: objects as files, published whole or not at all.

Parts are written in place into a hidden ``.<key>.<random>.part`` beside the target, which is
synced and then given its name by a hard link: the one step that fails if the name is taken.
"""

import errno
import os
import shlex
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit
from zlib import crc32

import anyio
import anyio.to_thread
from aiofiles import os as async_os

from etcetera.atomic import rename_new
from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    EtceteraError,
    InvalidName,
    NoSpace,
    NotAllowed,
    RemoteChanged,
    RepositoryNotFound,
    StoreError,
    TruncatedArchive,
)
from etcetera.findings import Finding
from etcetera.settings import RepositorySettings
from etcetera.space import free_at
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
    time_from,
    uninterrupted,
)
from etcetera.stores.file_doctor import examine
from etcetera.stores.file_parts import (
    Descriptor,
    adopt_part,
    create_part,
    dead_parts,
    guarded,
    remove_dead_part,
    remove_dead_parts,
)

THREADS = 16
"""Worker threads for file calls, so that they never queue behind other work."""

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_LIMITS = PartLimits(min_part=1, max_part=5 << 30, max_parts=10_000)
_NO_COPIES = "a directory takes whole archives only"
_T = TypeVar("_T")


def parse_file_url(url: str) -> Path:
    """Return the directory that a ``file:`` URL means.

    Raises:
        ConfigError: Another host, a relative path, or characters to be percent-encoded.
    """
    parts = urlsplit(url)
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise ConfigError(f"{url!r} is no local directory; write file:/// and then its whole path")
    if parts.query or parts.fragment:
        raise ConfigError(
            f"{url!r} has a query or a fragment; in a name write ? as %3F and # as %23"
        )
    return Path(path)


@asynccontextmanager
async def open_file_store(settings: RepositorySettings) -> AsyncIterator["FileStore"]:
    """Open the directory of a ``file:`` URL; it need not exist yet.

    Raises:
        ConfigError: The URL is not one of a local directory.
    """
    directory = parse_file_url(settings.url)
    yield FileStore(settings.url.rstrip("/"), directory, anyio.CapacityLimiter(THREADS))


@dataclass(slots=True)
class FileObject:
    """One open file: a rename over its name does not touch it."""

    store: "FileStore"
    info: ObjectInfo
    descriptor: Descriptor

    async def read(self, start: int, stop: int) -> bytes | bytearray:
        """Return the bytes from *start* to *stop*; see :class:`etcetera.stores.RemoteObject`."""
        check_range(start, stop, self.info.size)
        if start == stop:
            return b""
        return await self.store.run(self._read, start, stop, key=self.info.key)

    def _read(self, start: int, stop: int) -> bytearray:
        data = bytearray(stop - start)
        with self.descriptor.use() as descriptor, memoryview(data) as view:
            filled = 0
            while filled < len(data):
                count = os.preadv(descriptor, [view[filled:]], start + filled)
                if not count:
                    raise TruncatedArchive(
                        f"{self.info.key} was cut to {start + filled} bytes while it was read; "
                        "push it again with --force"
                    )
                filled += count
            status = os.fstat(descriptor)
        if _describe(self.info.key, status).etag != self.info.etag:
            raise RemoteChanged(f"{self.info.key} was changed while it was read; start again")
        return data


@dataclass(slots=True)
class FileUpload:
    """A hidden file that gets its name when it is whole."""

    store: "FileStore"
    key: str
    part_size: int
    overwrite: bool
    replaces: str | None = None
    sizes: dict[int, int] = field(default_factory=dict)
    keep: bool = False
    kept: bool = False
    _checksums: dict[int, int] = field(default_factory=dict)
    _opened: tuple[Path, Descriptor] | None = None

    @property
    def id(self) -> str:
        """The path of the hidden file, once there is one."""
        return str(self._opened[0]) if self._opened else ""

    def begin(self) -> None:
        """Make the hidden file, and remove those that killed processes left."""
        remove_dead_parts(self.store.directory, self.key)
        self._opened = create_part(self.store.directory, self.key)

    def resume(self, earlier: Unfinished) -> None:
        """Take over a hidden file, and check what is in it: a power loss may have torn it."""
        path = Path(earlier.id)
        held = adopt_part(self.store.directory, self.key, path)
        if held is None:
            raise CannotResume(f"{path} is gone, or somebody else has it")
        self._opened, self.keep = (path, held), True
        with held.use() as descriptor:
            for number, known in enumerate(earlier.parts, 1):
                data = os.pread(descriptor, self.part_size, (number - 1) * self.part_size)
                self.sizes[number], self._checksums[number] = len(data), crc32(data)
                if len(data) != self.part_size or self.part(number) != known:
                    raise CannotResume(f"part {number} is not in {path}")
            # What was in flight may be longer than what takes its place.
            os.ftruncate(descriptor, len(earlier.parts) * self.part_size)

    def state(self) -> dict[str, str]:
        """Nothing but the path; see :class:`etcetera.stores.Upload`."""
        return {}

    def part(self, number: int) -> dict[str, str]:
        """The checksum of a part; see :class:`etcetera.stores.Upload`."""
        return {"crc32": f"{self._checksums[number]:08x}"}

    @property
    def _open(self) -> tuple[Path, Descriptor]:
        assert self._opened is not None, "an upload is made by begin"  # noqa: S101
        return self._opened

    async def put_part(self, number: int, data: Data, crc32: int, sent: Sent | None = None) -> None:
        """Write one part to its place; see :class:`etcetera.stores.Upload`."""
        check_part(number, len(data), self.part_size, self.store.limits.max_parts)
        await self.store.run(self._write, number, data, key=self.key)
        self.sizes[number], self._checksums[number] = len(data), crc32
        if sent is not None:
            sent(len(data))

    def _write(self, number: int, data: Data) -> None:
        offset, done = (number - 1) * self.part_size, 0
        with self._open[1].use() as descriptor, memoryview(data) as view:
            while done < len(view):
                done += os.pwrite(descriptor, view[done:], offset + done)

    async def copy_part(
        self,
        number: int,  # noqa: ARG002
        source: ObjectInfo,  # noqa: ARG002
        start: int,  # noqa: ARG002
        stop: int,  # noqa: ARG002
        crc32: int,  # noqa: ARG002
    ) -> None:
        """Refuse, see :class:`etcetera.stores.Upload`: parts have their place by their number."""
        raise CannotCopy(_NO_COPIES)

    async def complete(self) -> ObjectInfo:
        """Sync and publish the file; see :class:`etcetera.stores.Upload`."""
        size = check_parts(self.sizes, self.part_size)
        return await self.store.run(self._publish, size, key=self.key)

    def _publish(self, size: int) -> ObjectInfo:
        path, opened = self._open
        with opened.use() as descriptor:
            os.fsync(descriptor)
            status = os.fstat(descriptor)
            if not status.st_nlink:
                raise StoreError(f"somebody removed {path}; push again")
            if status.st_size != size:
                raise StoreError(f"{path} has {status.st_size} bytes instead of {size}; push again")
            target = self.store.directory / self.key
            if self.replaces is not None:
                self._check_replaced(target)
            if self.overwrite:
                path.replace(target)
            else:
                _publish_exclusively(path, target)
            _sync_directory(self.store.directory)
        return _describe(self.key, status)

    def _check_replaced(self, target: Path) -> None:
        with suppress(FileNotFoundError):
            if _describe(self.key, target.stat()).etag == self.replaces:
                return
        raise replaced(str(target))

    def remove(self) -> None:
        """Close the file and remove its hidden name, if it still has it and is not kept."""
        if self._opened is not None:
            path, opened = self._opened
            try:
                opened.close()
            finally:
                if not self.kept:
                    path.unlink(missing_ok=True)


@dataclass(slots=True)
class FileStore:
    """Files below one directory; names that begin with a dot are not objects."""

    url: str
    directory: Path
    limiter: anyio.CapacityLimiter
    limits: PartLimits = _LIMITS

    async def run(self, function: Callable[..., _T], *arguments: object, key: str = "") -> _T:
        """Run a blocking call in a worker thread, to its end, and translate its errors."""
        with self._errors(key):
            # Without a deadline: syncing takes as long as the disk does.
            return await uninterrupted(
                anyio.to_thread.run_sync(function, *arguments, limiter=self.limiter), patient=True
            )

    async def list(self) -> AsyncIterator[ObjectInfo]:
        """Yield all objects; see :class:`etcetera.stores.Store`."""
        for info in await self.run(_scan, self.directory):
            yield info

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe one object; see :class:`etcetera.stores.Store`."""
        path = self.directory / check_key(key)
        with self._errors(key):
            try:
                status = await async_os.stat(path)
            except FileNotFoundError:
                await async_os.stat(self.directory)
                return None
        return _describe(key, status) if stat.S_ISREG(status.st_mode) else None

    @asynccontextmanager
    async def open(self, key: str) -> AsyncIterator[FileObject | None]:
        """Pin one object; see :class:`etcetera.stores.Store`."""
        with ExitStack() as closing:
            yield await self.run(self._open, check_key(key), closing, key=key)

    def _open(self, key: str, closing: ExitStack) -> FileObject | None:
        try:
            # O_NONBLOCK: a named pipe must not hold the thread for ever.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self.directory / key, flags)
        except FileNotFoundError:
            self.directory.stat()
            return None
        opened = Descriptor(descriptor)
        closing.callback(opened.close)
        status = os.fstat(descriptor)
        regular = stat.S_ISREG(status.st_mode)
        return FileObject(self, _describe(key, status), opened) if regular else None

    async def put(self, key: str, data: Data, *, overwrite: bool) -> ObjectInfo:
        """Store one object; see :class:`etcetera.stores.Store`."""
        part_size = max(1, len(data))
        async with self.upload(key, part_size=part_size, overwrite=overwrite) as upload:
            if data:
                await upload.put_part(1, data, 0)
                return await upload.complete()
            return await self.run(upload._publish, 0, key=key)

    async def why_no_copies(self) -> str | None:
        """Say that a directory only takes whole archives; see :class:`etcetera.stores.Store`."""
        return _NO_COPIES

    @asynccontextmanager
    async def upload(
        self,
        key: str,
        *,
        part_size: int,
        overwrite: bool,
        resume: Unfinished | None = None,
        replaces: str | None = None,
    ) -> AsyncIterator[FileUpload]:
        """Begin an upload, or go on with one; see :class:`etcetera.stores.Store`."""
        upload = FileUpload(self, check_key(key), part_size, overwrite, replaces)
        try:
            if resume is None:
                await self.run(upload.begin, key=key)
            else:
                await self.run(upload.resume, resume, key=key)
            yield upload
        except BaseException as error:
            upload.kept = upload.keep and is_curable(error)
            await clean_up(self._remove(upload), error, left="", patient=True)
            raise
        await clean_up(self._remove(upload), None, left="", patient=True)

    async def _remove(self, upload: FileUpload) -> str:
        """Remove what is left of an upload; return what to say if that fails."""
        try:
            await self.run(upload.remove, key=upload.key)
        except EtceteraError as error:
            return f"an unfinished upload is left ({error}): rm {shlex.quote(upload.id)}"
        return ""

    async def unfinished(self, before: datetime) -> AsyncIterator[UploadInfo]:
        """Yield idle uploads; see :class:`etcetera.stores.Store`."""
        for key, path, status in await self.run(dead_parts, self.directory, before.timestamp()):
            modified = time_from(status.st_mtime)
            yield UploadInfo(key=key, id=str(path), size=status.st_size, modified=modified)

    async def abandon(self, key: str, upload: str) -> None:
        """Remove a hidden file that nobody holds; see :class:`etcetera.stores.Store`."""
        await self.run(remove_dead_part, self.directory, check_key(key), Path(upload), key=key)

    async def delete(self, key: str) -> None:
        """Remove one object; see :class:`etcetera.stores.Store`."""
        await self.run(self._delete, check_key(key), key=key)

    async def share(self, key: str, seconds: int, part: PinnedRange | None) -> SharedUrl:  # noqa: ARG002 - it refuses
        """Refuse; see :class:`etcetera.stores.Store`."""
        raise no_links(self.url)

    async def examine(self, *, write: bool) -> Sequence[Finding]:
        """Look at the directory; see :class:`etcetera.stores.Store`."""
        return await self.run(partial(examine, self.directory, write=write))

    def _delete(self, key: str) -> None:
        try:
            (self.directory / key).unlink()
        except FileNotFoundError:
            self.directory.stat()
        else:
            _sync_directory(self.directory)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Translate what the operating system says about *key*, or about the directory."""
        path = self.directory / key
        try:
            yield
        except EtceteraError:
            raise
        except FileExistsError as error:
            raise AlreadyExists(f"{key} exists already in {self.url}") from error
        except (FileNotFoundError, NotADirectoryError) as error:
            reason = "is no directory" if error.errno == errno.ENOTDIR else "does not exist"
            raise RepositoryNotFound(
                f"{self.directory} {reason}; make it with: "
                f"mkdir -p {shlex.quote(str(self.directory))}"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpace(
                    f"no space left for {path}; free some and try again ({free_at(self.directory)})"
                ) from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise NotAllowed(f"{path}: {error.strerror}; check its owner and mode") from error
            if error.errno == errno.ENAMETOOLONG:
                raise InvalidName(f"{key!r} is too long for a file name") from error
            raise StoreError(f"{path}: {error.strerror}") from error


def _describe(key: str, status: os.stat_result) -> ObjectInfo:
    # Not the change time: it moves when the hidden name is removed.
    etag = f"{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    modified = time_from(status.st_mtime)
    return ObjectInfo(key=key, size=status.st_size, modified=modified, etag=etag)


def _scan(directory: Path) -> list[ObjectInfo]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            # An entry may vanish between the listing and the look at it.
            with suppress(FileNotFoundError):
                if not entry.name.startswith(".") and entry.is_file():
                    found.append(_describe(entry.name, entry.stat()))
    return found


def _publish_exclusively(source: Path, target: Path) -> None:
    """Give *source* the name *target* unless that is taken; exactly one of many succeeds."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    # Without hard links renaming may not be exclusive either, so a guard keeps others out.
    with guarded(target):
        rename_new(source, target)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
