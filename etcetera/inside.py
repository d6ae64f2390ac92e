"""What is inside a dataset, here or in a repository, without installing it."""

import os
from typing import BinaryIO, Literal

from etcetera.api import loaded, scanning
from etcetera.config import Config
from etcetera.dataset import Dataset
from etcetera.errors import DatasetNotFound, PathNotFound, os_errors
from etcetera.home import Home
from etcetera.repository import open_reader, split_name
from etcetera.results import DatasetSizes, EntryInfo, PartitionSizes
from etcetera.times import time_from
from etcetera.transfer.children import Child, Children
from etcetera.transfer.descend import open_inside
from etcetera.transfer.flow import in_thread
from etcetera.transfer.paths import path_in_dataset
from etcetera.transfer.scan import Scan, scan
from etcetera.transfer.sizes import PartitionSize, sizes_of_entries

_KINDS: dict[str, Literal["file", "directory", "link"]] = {
    "f": "file",
    "d": "directory",
    "l": "link",
}


async def aentries(
    name: str,
    path: str = "",
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> list[EntryInfo]:
    """List what lies directly in a directory of a dataset, with sums over what lies deeper.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        path: Of the directory, or of a file, which is listed itself. By default the partitions,
            and what lies beside them.
        remote: Look into the archive in the repository, reading its index alone.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
        PathNotFound: It has no such path.
    """
    repository, name = split_name(name, repository)
    config = await loaded(config)
    path = path_in_dataset(path)
    paths = ("", "data") if path == "" else (path,)
    if remote or repository:
        async with open_reader(config, repository, name) as (_, reader):
            found = [await reader.children(one) for one in paths]
    else:
        scanned = await _scanned(config, name)
        found = [await in_thread(_children, one, scanned) for one in paths]
    if not found[0].is_directory and not found[0].rows():
        command = f"etc ls {'-r ' if remote or repository else ''}{name}"
        raise PathNotFound(f"There is no {path} in {name}; {command} shows what there is")
    rows = [row for children in found for row in children.rows() if row.path != "data"]
    return [_entry(row) for row in rows]


async def asizes(
    name: str,
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
) -> DatasetSizes:
    """Tell what each partition takes, and in a repository what of the archive.

    Args:
        name: Of the dataset; ``lab:NAME`` for the one in the repository *lab*.
        remote: Look into the archive in the repository, reading its index alone.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.

    Raises:
        DatasetNotFound: There is none of that name.
    """
    repository, name = split_name(name, repository)
    config = await loaded(config)
    archive_bytes = None
    if remote or repository:
        async with open_reader(config, repository, name) as (_, reader):
            sizes = await reader.sizes()
            archive_bytes = reader.archive.info.size
    else:
        scanned = await _scanned(config, name)
        sizes = await in_thread(sizes_of_entries, scanned.entries())
    partitions = {part: _sizes(size) for part, size in sorted(sizes.items()) if part}
    other = _sizes(sizes.get("", PartitionSize()))
    return DatasetSizes(
        name=name,
        partitions=partitions,
        other=other,
        files=sum(size.files for size in sizes.values()),
        bytes=sum(size.bytes for size in sizes.values()),
        archive_bytes=archive_bytes,
    )


def open_local(name: str, path: str, config: Config) -> BinaryIO:
    """Open one file of a local dataset.

    Raises:
        DatasetNotFound: There is no such dataset.
        PathNotFound: It has no such file.
        UsageError: The path leads out of the dataset.
        InvalidDataset: A link in it does.
    """
    home = Home(config.home)
    if home.find(name) is None:
        raise _no_dataset(name)
    normal = path_in_dataset(path)
    dataset = Dataset(home.path / name, name)
    with os_errors(f"opening {dataset.file(normal)}"):
        try:
            return os.fdopen(open_inside(dataset.root, normal or "."), "rb")
        except IsADirectoryError as error:
            raise PathNotFound(f"{path} in {name} is a directory: name a file in it") from error
        except FileNotFoundError as error:
            raise PathNotFound(
                f"There is no file {path} in {name}; etc ls {name} shows what there is"
            ) from error


def _no_dataset(name: str) -> DatasetNotFound:
    return DatasetNotFound(f"There is no local dataset {name}; etc ls shows what there is")


async def _scanned(config: Config, name: str) -> Scan:
    home = Home(config.home)
    if await in_thread(home.find, name) is None:
        raise _no_dataset(name)
    dataset = await in_thread(Dataset, home.path / name, name)
    return await scanning(scan, dataset.root)


def _children(path: str, scanned: Scan) -> Children:
    children = Children(path)
    for entry in scanned.entries():
        children.add(entry)
    return children


def _entry(row: Child) -> EntryInfo:
    return EntryInfo(
        path=row.path,
        kind=_KINDS[row.kind],
        files=row.files,
        bytes=row.size,
        modified=None if row.mtime is None else time_from(row.mtime),
        target=row.target or None,
    )


def _sizes(size: PartitionSize) -> PartitionSizes:
    return PartitionSizes(size.files, size.bytes, size.archive_bytes)
