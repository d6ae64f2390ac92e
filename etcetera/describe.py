"""What is known of a dataset, here and in a repository."""

import logging
import threading
from functools import partial
from pathlib import Path

from etcetera.dataset import MAX_META, Dataset, parse_meta
from etcetera.errors import DatasetNotFound, EtceteraError, InvalidDataset
from etcetera.home import Home
from etcetera.repository import Repository
from etcetera.results import DatasetInfo, Listing, PartitionInfo
from etcetera.transfer.archive import Archive, Index
from etcetera.transfer.flow import in_thread
from etcetera.transfer.reader import Reader, TooLarge
from etcetera.transfer.scan import Totals, scan

_logger = logging.getLogger("etcetera")


def local_info(home: Home, name: str, stop: threading.Event) -> DatasetInfo:
    """Describe a local dataset; looks at every file.

    Raises:
        DatasetNotFound: There is none of that name.
    """
    if home.find(name) is None:
        raise DatasetNotFound(f"There is no local dataset {name}; etc ls shows what there is")
    dataset = Dataset(home.path / name, name)
    scanned = scan(dataset.root, stop)
    entry = home.entry(name)
    receipt = home.receipt(name)
    same = receipt is not None and receipt.vouches_for(scanned)
    return DatasetInfo(
        name=name,
        kind=entry.kind,
        location=str(dataset.root),
        modified=entry.modified,
        partitions=_partitions(scanned.partitions),
        files=scanned.total.files,
        bytes=scanned.total.bytes,
        digest=receipt.digest if receipt is not None and same else None,
        repository=receipt.repository if receipt is not None else None,
        meta=dict(dataset.meta),
        partial=receipt is not None and bool(receipt.selections),
    )


async def remote_info(
    name: str, remotes: Repository, archive: Archive, index: Index | None
) -> DatasetInfo:
    """Describe an archive by its index."""
    info = archive.info
    result = partial(
        DatasetInfo,
        name=name,
        kind="remote",
        location=remotes.url(name),
        modified=info.modified,
        archive_bytes=info.size,
        etag=info.etag,
        repository=remotes.settings.url,
    )
    if index is None:
        return result(partitions=None, files=None, bytes=None, digest=None)
    meta: dict[str, object] = {}
    try:
        content = await Reader(index).read_file("meta.json", MAX_META)
        if content is not None:
            meta = await in_thread(parse_meta, content, f"meta.json of {name}")
    except (InvalidDataset, TooLarge) as error:
        _logger.warning("%s", error)
    return result(
        partitions=await in_thread(_partitions, index.root.partitions),
        files=index.footer.files,
        bytes=index.footer.bytes,
        digest=index.footer.digest,
        meta=meta,
    )


def _partitions(totals: dict[str, Totals]) -> dict[str, PartitionInfo]:
    return {name: PartitionInfo(total.files, total.bytes) for name, total in sorted(totals.items())}


def local_listing(home: Home, stop: threading.Event) -> list[Listing]:
    """List the local datasets; looks at every file."""
    return [
        Listing(
            name=entry.name,
            kind=entry.kind,
            bytes=None if entry.broken else _size(entry.path, stop),
            modified=entry.modified,
            location=str(entry.path),
            broken=entry.broken,
            partial=entry.partial,
        )
        for entry in home.entries()
    ]


def _size(path: Path, stop: threading.Event) -> int | None:
    """Bytes of a dataset's files, ``None`` if it is none or cannot be read."""
    try:
        return scan(path, stop).total.bytes
    except EtceteraError:
        return None
