"""``etc://NAME/data/train/x.json``: remote datasets as a read-only file system of fsspec.

Pandas, pyarrow, DuckDB, ``datasets`` and torch read through it, once the extra ``fsspec`` is
installed; nobody has to import this module.
"""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from fsspec.spec import AbstractFileSystem

from etcetera import blocking
from etcetera.config import Config
from etcetera.errors import NotAllowed, PathNotFound
from etcetera.remote_dataset import RemoteDataset
from etcetera.remote_path import RemoteFile, RemotePath


class EtceteraFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Reads what is in remote datasets; ``etc://lab:NAME/...`` is in the repository *lab*.

    Each dataset is opened when it is first asked for and stays the same version from then on,
    until :meth:`invalidate_cache`. Every error is also the built-in one that fsspec promises.
    """

    protocol = "etc"
    root_marker = ""

    def __init__(
        self,
        config: Config | str | None = None,
        repository: str | None = None,
        **storage_options: Any,
    ) -> None:
        """Prepare to read; nothing is opened yet.

        Args:
            config: Settings, or the file that has them; by default from ``~/.etc.toml`` and the
                environment.
            repository: Which one, by default the one at the top of the configuration.
            **storage_options: Those of fsspec itself.
        """
        super().__init__(**storage_options)
        self._config = config if isinstance(config, Config) else Config.load(config)
        self._repository = repository
        self._datasets: dict[str, RemoteDataset] = {}
        self._lock = threading.Lock()

    def ls(self, path: str, detail: bool = True, **_options: Any) -> list[Any]:
        """List a directory, without links to directories; of the root, the datasets."""
        name, inside = _split(self._strip_protocol(path))
        if not name:
            names = blocking.ls(True, self._config, repository=self._repository)
            found = [_description(name, "directory", 0, None) for name in names]
        else:
            found = list(self._list(name, inside))
        return found if detail else [one["name"] for one in found]

    def _list(self, name: str, inside: str) -> Iterator[dict[str, Any]]:
        dataset = self._dataset(name)
        if dataset.file(inside).is_file():
            yield self.info(f"{name}/{inside}")
            return
        for row in dataset.list_directory(inside):
            one = RemotePath.listed(dataset, row)
            if one.is_dir():
                # Whoever walks a tree must not go on by links: they may lead upwards, for ever.
                if row.kind != "l":
                    yield _description(f"{name}/{one.path}", "directory", 0, None)
            elif one.is_file():
                yield _description(f"{name}/{one.path}", "file", one.size, one.modified)

    def info(self, path: str, **_options: Any) -> dict[str, Any]:
        """Describe a file or directory."""
        name, inside = _split(self._strip_protocol(path))
        if not inside:
            if name:
                self._dataset(name)
            return _description(name, "directory", 0, None)
        place = self._dataset(name).file(inside)
        if place.is_dir():
            return _description(f"{name}/{inside}", "directory", 0, None)
        return _description(f"{name}/{inside}", "file", place.size, place.modified)

    def modified(self, path: str) -> datetime:
        """When a file was last modified."""
        when = self.info(path)["mtime"]
        if not isinstance(when, datetime):
            raise PathNotFound(f"{path} is a directory: it has no time")
        return when

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_options: Any
    ) -> bytes:
        """Return the bytes of a file from *start* to *end*; negative ones count from its end."""
        name, inside = _split(self._strip_protocol(path))
        dataset = self._dataset(name)
        if not (start or end is not None):
            return dataset.read(inside)
        first, last = _absolute(start, end, dataset, inside)
        return dataset.read_ranges(inside, [(first, last)])[0]

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        on_error: str = "return",
        **_options: Any,
    ) -> list[Any]:
        """Return a range of each path; those of one file are read together."""
        count = len(paths)
        starts = starts if isinstance(starts, list | tuple) else [starts] * count
        ends = ends if isinstance(ends, list | tuple) else [ends] * count
        if not len(starts) == len(ends) == count:
            raise ValueError("paths, starts and ends are of different lengths")
        wanted: dict[str, list[int]] = {}
        for number, path in enumerate(paths):
            wanted.setdefault(path, []).append(number)
        results: list[Any] = [b""] * count
        for path, numbers in wanted.items():
            ranges = [(starts[number], ends[number]) for number in numbers]
            try:
                pieces: list[Any] = self._ranges(path, ranges)
            except Exception as error:
                if on_error != "return":
                    raise
                pieces = [error] * len(numbers)
            for number, piece in zip(numbers, pieces, strict=True):
                results[number] = piece
        return results

    def _ranges(self, path: str, ranges: list[tuple[int | None, int | None]]) -> list[bytes]:
        name, inside = _split(self._strip_protocol(path))
        dataset = self._dataset(name)
        return dataset.read_ranges(inside, [_absolute(*one, dataset, inside) for one in ranges])

    def invalidate_cache(self, path: str | None = None) -> None:
        """Let go of a dataset, or of all: what is opened next is the version that is there then."""
        name = _split(self._strip_protocol(path))[0] if path else None
        with self._lock:
            gone = [one for one in self._datasets if name in (None, one)]
            closing = [self._datasets.pop(one) for one in gone]
        for dataset in closing:
            dataset.close()

    def _open(self, path: str, mode: str = "rb", **_options: Any) -> RemoteFile:
        if mode != "rb":
            self._refuse(path)
        name, inside = _split(self._strip_protocol(path))
        return self._dataset(name).open(inside)

    def _dataset(self, name: str) -> RemoteDataset:
        with self._lock:
            dataset = self._datasets.get(name)
            if dataset is None:
                dataset = blocking.remote(name, self._config, repository=self._repository)
                self._datasets[name] = dataset
            return dataset

    def _refuse(self, path: Any = "", *_others: Any, **_options: Any) -> NoReturn:
        raise NotAllowed(f"{path}: datasets in a repository can only be read; etc push makes one")

    mkdir = makedirs = rmdir = rm_file = _rm = rm = cp_file = mv = pipe_file = put_file = _refuse
    touch = _refuse


def _split(path: str) -> tuple[str, str]:
    """The dataset, and the path in it."""
    name, _, inside = path.strip("/").partition("/")
    return name, inside


def _description(name: str, kind: str, size: int, modified: datetime | None) -> dict[str, Any]:
    return {"name": name, "type": kind, "size": size, "mtime": modified}


def _absolute(
    start: int | None, end: int | None, dataset: RemoteDataset, path: str
) -> tuple[int, int]:
    if (start or 0) >= 0 and end is not None and end >= 0:
        return start or 0, max(start or 0, end)
    first, last, _ = slice(start, end).indices(dataset.file(path).size)
    return first, max(first, last)
