"""A dataset in a repository, read without being pulled."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self

import anyio

from etcetera.config import Config
from etcetera.errors import PartitionNotFound, UsageError
from etcetera.remote_path import RemoteFile, RemotePath
from etcetera.remote_reading import (
    begin_files,
    list_directory,
    look_up,
    open_file,
    read_file,
    read_meta,
    read_ranges,
)
from etcetera.remote_session import Sessions
from etcetera.transfer.children import Child
from etcetera.transfer.flow import in_thread
from etcetera.transfer.paths import path_in_dataset
from etcetera.transfer.tar import Entry


class RemoteDataset(Mapping[str, RemotePath]):
    """One version of a dataset in a repository: a mapping of partition names to their directories.

    Made by :func:`etcetera.remote` and :func:`etcetera.aremote`. It reads no more of the archive
    than the index and the frames that hold what is asked for. It may be used by any number of
    threads and event loops; in another process (it can be pickled, and outlives a fork) it opens
    the same version anew. Should that be replaced in the repository, reading raises RemoteChanged.

    Of an archive without an index everything is read once when it is opened, and once more for
    each file and each loop.

    Attributes:
        name: What it is called.
    """

    def __init__(
        self, name: str, config: Config, repository: str | None = None, etag: str | None = None
    ) -> None:
        """Prepare to open a dataset; nothing is sent yet.

        Args:
            name: Of the dataset.
            config: Settings.
            repository: Which one, by default the one at the top of the configuration.
            etag: Of the only version that is accepted.
        """
        self.name = name
        self._sessions = Sessions(config, repository, name, etag)
        self._meta: dict[str, object] | None = None

    @property
    def url(self) -> str:
        """Of the archive."""
        return self._sessions.opened().url

    @property
    def etag(self) -> str:
        """Of the archive."""
        return self._sessions.opened().reader.archive.info.etag

    @property
    def digest(self) -> str | None:
        """Names this version of the data; ``None`` if the archive has no index."""
        return self._sessions.opened().reader.digest

    @property
    def meta(self) -> dict[str, object]:
        """The content of ``meta.json``, empty without that file.

        Raises:
            InvalidDataset: It is no JSON object.
        """
        if self._meta is None:
            self._meta = self._sessions.run(partial(read_meta, name=self.name))
        return self._meta

    async def ameta(self) -> dict[str, object]:
        """The same as ``meta``."""
        if self._meta is None:
            self._meta = await self._sessions.arun(partial(read_meta, name=self.name))
        return self._meta

    @property
    def root(self) -> RemotePath:
        """The directory that holds everything."""
        return RemotePath(self, "")

    def file(self, *parts: str | PurePosixPath) -> RemotePath:
        """Return the path of something in the dataset, as in ``file("assets", "labels.txt")``.

        Raises:
            UsageError: It leads out of the dataset.
        """
        return RemotePath(self, path_in_dataset(PurePosixPath(*parts)))

    def partitions(self) -> list[str]:
        """Return the names of the partitions, sorted."""
        return list(self._sessions.opened().partitions)

    def keys(self) -> set[str]:  # type: ignore[override]  # as Dataset has it
        """Return the names of the partitions."""
        return set(self._sessions.opened().partitions)

    def __getitem__(self, partition: str) -> RemotePath:
        """Return the directory of a partition.

        Raises:
            PartitionNotFound: The dataset has none of that name.
        """
        if partition not in self:
            raise PartitionNotFound(
                f"Partition {partition} does not exist in dataset {self.name}; "
                f"it has {', '.join(self.partitions())}"
            )
        return RemotePath(self, f"data/{partition}")

    def __contains__(self, partition: object) -> bool:
        return partition in self._sessions.opened().partitions

    def __iter__(self) -> Iterator[str]:
        return iter(self.partitions())

    def __len__(self) -> int:
        return len(self._sessions.opened().partitions)

    def open(self, path: str | PurePosixPath) -> RemoteFile:
        """Open one file as a seekable binary file.

        What is read has been checked: frames by their checksums, files that lie in one frame by
        their SHA-256 (all of less than a MiB do), larger ones by it when they are read from front
        to back.

        Raises:
            PathNotFound: There is no such file.
            UsageError: The path leads out of the dataset.
        """
        file = self._sessions.run(partial(open_file, path=path_in_dataset(path)))
        return RemoteFile(file, self._sessions.run)

    async def aopen(self, path: str | PurePosixPath) -> anyio.AsyncFile[bytes]:
        """The same as :meth:`open`; what is awaited reads in a worker thread."""
        file = await self._sessions.arun(partial(open_file, path=path_in_dataset(path)))
        return anyio.wrap_file(RemoteFile(file, self._sessions.run))

    def read(self, path: str | PurePosixPath) -> bytes:
        """Return the content of one file, checked by its SHA-256.

        Raises:
            PathNotFound: There is no such file.
        """
        return self._sessions.run(partial(read_file, path=path_in_dataset(path)))

    async def aread(self, path: str | PurePosixPath) -> bytes:
        """The same as :meth:`read`."""
        return await self._sessions.arun(partial(read_file, path=path_in_dataset(path)))

    def read_ranges(self, path: str | PurePosixPath, ranges: list[tuple[int, int]]) -> list[bytes]:
        """Return several pieces of one file, each from a start to a stop; some are fetched at once.

        Raises:
            PathNotFound: There is no such file.
        """
        use = partial(read_ranges, path=path_in_dataset(path), ranges=ranges)
        return self._sessions.run(use)

    def files(self, below: str | PurePosixPath = "") -> Iterator[RemotePath]:
        """Yield the files below a directory, in the order of the archive and with their content.

        They are fetched ahead in large ranges, in bounded memory: some 50 MiB. Those of more than
        8 MiB are not fetched, but can be opened. Links are left out.

        Raises:
            PathNotFound: There is no such directory.
        """
        batches = self._sessions.run(partial(begin_files, below=path_in_dataset(below)))
        try:
            while (batch := self._sessions.run(lambda _: batches.next())) is not None:
                for entry, content in batch:
                    yield RemotePath(self, entry.path, entry, content)
        finally:
            with suppress(UsageError):  # closed meanwhile
                self._sessions.run(lambda _: batches.end())

    async def afiles(self, below: str | PurePosixPath = "") -> AsyncGenerator[RemotePath]:
        """The same as :meth:`files`."""
        batches = await self._sessions.arun(partial(begin_files, below=path_in_dataset(below)))
        try:
            while (batch := await self._sessions.arun(lambda _: batches.next())) is not None:
                for entry, content in batch:
                    yield RemotePath(self, entry.path, entry, content)
        finally:
            with anyio.CancelScope(shield=True), suppress(UsageError):
                await self._sessions.arun(lambda _: batches.end())

    def look_up(self, path: str) -> Entry | None:
        """What is at a path, once links are followed; ``None`` if nothing."""
        return self._sessions.run(partial(look_up, path=path))

    def list_directory(self, path: str) -> list[Child]:
        """What is directly in a directory.

        Raises:
            PathNotFound: There is no such directory.
        """
        return self._sessions.run(partial(list_directory, path=path))

    def close(self) -> None:
        """Close the connection; what is still being read is cancelled."""
        self._sessions.close()

    async def aclose(self) -> None:
        """The same as :meth:`close`."""
        await in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __eq__(self, other: object) -> bool:
        # The same version of the same archive is the same dataset.
        if not isinstance(other, RemoteDataset):
            return NotImplemented
        return (self.url, self.etag) == (other.url, other.etag)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        repository = self._sessions.repository
        return f"RemoteDataset({f'{repository}:' * bool(repository) + self.name!r})"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        sessions = self._sessions
        return RemoteDataset, (self.name, sessions.config, sessions.repository, self.etag)

    async def aconnect(self) -> None:
        """Connect now, not when something is asked for.

        Raises:
            DatasetNotFound: The repository has no such dataset.
            ArchiveError: The archive is none, or its index is damaged.
        """
        try:
            await self._sessions.aopened()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.aclose()
            raise
