"""What a valid dataset is, and access to the files of one."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from etcetera.errors import (
    DirectoryNotFound,
    InvalidDataset,
    InvalidName,
    PartitionNotFound,
    StoreError,
    os_errors,
    quoted,
)
from etcetera.transfer.descend import open_inside
from etcetera.transfer.options import MiB
from etcetera.unseen import UNSEEN

MAX_NAME = 200
"""UTF-8 bytes in a name: leaves room for what home and repositories append, within 255."""


class Dataset:
    """A local dataset: a mapping of partition names to their directories.

    Attributes:
        location: The directory that holds it, with every link resolved.
        name: What it is called.
        meta: The content of ``meta.json``, empty without that file.
        partial: Whether it is known that only a part of it was pulled.
    """

    location: Path
    name: str
    meta: dict[str, object]
    partial: bool = False

    def __init__(self, location: str | os.PathLike[str], name: str | None = None) -> None:
        """Open the dataset at *location*.

        Args:
            location: A directory, or a link to one as ``etc register`` makes it.
            name: What to call it; by default as its directory.

        Raises:
            DirectoryNotFound: There is no such directory.
            InvalidDataset: It is not laid out as a dataset; the message says what is missing.
            NotAllowed: It cannot be read.
        """
        path = Path(location)
        with os_errors(f"opening the dataset {path}"):
            # Once and for all: a link that is replaced later does not mix two datasets.
            self.location = Path(os.path.realpath(path))
            if path.is_symlink() and not self.location.exists():
                raise DirectoryNotFound(
                    f"Directory {self.location} does not exist; {path} only links to it: register "
                    f"the dataset again where it is now (etc register DIRECTORY {path.name} "
                    f"--force), or drop the link (etc purge {path.name})"
                )
            self.validate(self.location)
            self.name = name or self.location.name
            self.meta = _read_meta(self.location)

    @property
    def root(self) -> Path:
        """The directory that holds the dataset; the same as ``location``."""
        return self.location

    @property
    def data(self) -> Path:
        """The directory of the partitions."""
        return self.location / "data"

    def file(self, *parts: str | os.PathLike[str]) -> Path:
        """Return the path of something in the dataset, as in ``file("assets", "labels.txt")``."""
        return self.location.joinpath(*parts)

    def partitions(self) -> list[str]:
        """Return the names of the partitions, sorted."""
        with os_errors(f"listing {self.data}"), os.scandir(self.data) as entries:
            return sorted(
                entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
            )

    def keys(self) -> set[str]:
        """Return the names of the partitions."""
        return set(self.partitions())

    def values(self) -> Iterator[Path]:
        """Yield the directories of the partitions, sorted by name."""
        for partition in self.partitions():
            yield self.data / partition

    def items(self) -> Iterator[tuple[str, Path]]:
        """Yield name and directory of each partition, sorted by name."""
        for partition in self.partitions():
            yield partition, self.data / partition

    def get(self, partition: str, default: Path | None = None) -> Path | None:
        """Return the directory of a partition, or *default* if there is none."""
        return self.data / partition if partition in self else default

    def __getitem__(self, partition: str) -> Path:
        """Return the directory of a partition.

        Raises:
            PartitionNotFound: The dataset has none of that name.
        """
        if partition not in self:
            raise PartitionNotFound(
                f"Partition {partition} does not exist in dataset {self.name}; "
                f"it has {', '.join(self.partitions())}"
            )
        return self.data / partition

    def __contains__(self, partition: object) -> bool:
        # A name that is more than one step, or none, would lead out of data/.
        return (
            isinstance(partition, str)
            and partition != ""
            and not partition.startswith(".")
            and not any(character in partition for character in (os.sep, os.altsep or os.sep, "\0"))
            # Unlike that of a Path, it is false for a name that is too long.
            and os.path.isdir(self.data / partition)  # noqa: PTH112
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self.partitions())

    def __len__(self) -> int:
        return len(self.partitions())

    def __eq__(self, other: object) -> bool:
        # The same directory is the same dataset, whatever it is called.
        return self.location == other.location if isinstance(other, Dataset) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.location)

    def __repr__(self) -> str:
        return f"Dataset({str(self.location)!r}, name={self.name!r})"

    def __str__(self) -> str:
        return self.name

    @classmethod
    def validate(cls, path: str | os.PathLike[str]) -> None:
        """Check that a directory is laid out as a dataset.

        Raises:
            DirectoryNotFound: There is no such directory.
            InvalidDataset: It is not; the message says what is missing.
            NotAllowed: It cannot be read.
        """
        path = Path(path)
        for attempt in range(_ATTEMPTS):
            found = _identity(path)
            if found is None:
                raise DirectoryNotFound(f"Directory {path} does not exist")
            try:
                _check_layout(path)
            except (InvalidDataset, StoreError):
                # A purge or a pull may have taken it away, or replaced it, just now.
                if _identity(path) == found or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a directory from another one in its place; nothing if there is none."""
    with os_errors(f"reading {path}"):
        try:
            status = path.stat()
        except ValueError:  # no path at all
            return None
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
    return status.st_dev, status.st_ino


def _check_layout(path: Path) -> None:
    data = path / "data"
    with os_errors(f"reading {path}"):
        if not data.is_dir():
            raise InvalidDataset(
                f'Directory {path} is not a dataset: expect "data/" subdirectory to exist; '
                "make one with a directory for each partition in it, as data/train, and put "
                "the files there"
            )
        empty = True
        with os.scandir(data) as entries:
            for entry in entries:
                if not entry.is_dir():
                    raise InvalidDataset(
                        f'Directory {path} is not a dataset: "data/" must have only partition '
                        f"subdirectories, seen: {data / entry.name}"
                    )
                if entry.name.startswith("."):
                    raise InvalidDataset(
                        f'Directory {path} is not a dataset: "data/{entry.name}" is hidden, '
                        "and a partition must not be; delete it, rename it, or move it out of "
                        '"data/"'
                    )
                empty = False
        if empty:
            raise InvalidDataset(
                f'Directory {path} is not a dataset: "data/" must have at least one partition '
                "in it; make a directory there, as data/train, and put the files into it"
            )


Mapping.register(Dataset)


def check_name(name: str) -> str:
    """Return *name* if a dataset may be called so.

    Raises:
        InvalidName: It may not; the message says why.
    """
    _check_component(name, "dataset")
    if name.startswith("-"):
        raise InvalidName(f"{quoted(name)} cannot name a dataset: it must not begin with '-'")
    if ":" in name:
        raise InvalidName(
            f"{quoted(name)} cannot name a dataset: ':' separates a repository from a dataset"
        )
    if name != name.strip():
        raise InvalidName(f"{name!r} cannot name a dataset: it has spaces around it")
    return name


def is_name(name: str) -> bool:
    """Whether :func:`check_name` lets *name* pass."""
    try:
        check_name(name)
    except InvalidName:
        return False
    return True


def check_partition(partition: str) -> str:
    """Return *partition* if a new partition may be called so.

    Raises:
        InvalidName: It may not; the message says why.
    """
    _check_component(partition, "partition")
    return partition


def _check_component(name: str, kind: str) -> None:
    """Refuse what is not a single, visible, portable component of a path."""
    refused = f"{quoted(name)} cannot name a {kind}"  # as by repr: control characters are escaped
    if not isinstance(name, str):
        raise InvalidName(f"{refused}: it must be a string")
    if not name:
        raise InvalidName(f"{refused}: it is empty")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(f"{refused}: it is not valid Unicode") from error
    if found := UNSEEN.search(name):
        raise InvalidName(
            f"{refused}: it has characters in it that nobody sees (U+{ord(found[0]):04X})"
        )
    if "/" in name or "\\" in name:
        raise InvalidName(f"{refused}: it must not have '/' or '\\' in it")
    if name.startswith("."):
        raise InvalidName(f"{refused}: it must not begin with '.'")
    if length > MAX_NAME:
        raise InvalidName(f"{refused}: it has {length} bytes, and {MAX_NAME} is the limit")


MAX_META = MiB
"""Bytes of a ``meta.json``; one that a stranger wrote must not fill the memory."""
_MAX_META_VALUES = 200_000
"""Values and keys in it; parsing them keeps every thread waiting."""
_MAX_META_DEPTH = 100
_ATTEMPTS = 3
"""How often a directory is looked at that is replaced meanwhile."""


def _read_meta(root: Path) -> dict[str, object]:
    try:
        file = os.fdopen(open_inside(root, "meta.json"), "rb")
    except (FileNotFoundError, IsADirectoryError):
        return {}
    with file:
        return parse_meta(file.read(MAX_META + 1), str(root / "meta.json"))


def parse_meta(content: bytes, where: str) -> dict[str, object]:
    """What a ``meta.json`` holds.

    Args:
        content: The file's bytes.
        where: Names it in errors.

    Raises:
        InvalidDataset: It is not a JSON object, too large, or too deep.
    """
    # Those in texts count as well: that many make no difference.
    if len(content) > MAX_META or sum(map(content.count, b"[{,:")) > _MAX_META_VALUES:
        raise InvalidDataset(
            f"{where} is too large: at most {MAX_META // MiB} MiB and {_MAX_META_VALUES:,} values; "
            "keep more than that in a file of its own, below assets/"
        )
    try:
        meta = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidDataset(f"{where} is not valid JSON: {error}") from error
    if not isinstance(meta, dict):
        raise InvalidDataset(f"{where} must hold a JSON object, not a {type(meta).__name__}")
    if _is_deep(meta):
        raise InvalidDataset(
            f"{where} has lists or objects in more than {_MAX_META_DEPTH} others: make it flatter, "
            "or keep it in a file of its own, below assets/"
        )
    return meta


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(_MAX_META_DEPTH):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        level = below
    return any(isinstance(one, (dict, list)) for one in level)
