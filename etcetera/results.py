"""What calls tell about datasets and transfers."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class PushResult:
    """A dataset that was published, or would be."""

    name: str
    url: str
    """Of the archive."""
    files: int
    bytes: int
    """Of the files."""
    archive_bytes: int
    """Of the archive; in a dry run the most it can have."""
    part_size: int
    """Bytes."""
    memory: int
    """Bytes of parts that are held at once."""
    replaces: bool
    """Whether an older archive had the name."""
    public: bool
    """Whether everybody may read it."""
    digest: str | None = None
    """Names this version of the data; ``None`` in a dry run."""
    etag: str | None = None
    levels: dict[int, int] = field(default_factory=dict)
    """Bytes of the tar stream that were packed by the level of compression they got; 0 is
    stored."""
    copied: int = 0
    """Bytes of the archive that were copied inside the store, from an older archive."""
    why_whole: str | None = None
    """Why nothing could be copied; ``None`` if something was, or there was no older archive."""
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def sent(self) -> int:
        """Bytes of the archive that were sent; in a dry run the most."""
        return self.archive_bytes - self.copied


@dataclass(frozen=True, slots=True, kw_only=True)
class PullResult:
    """A dataset that was installed, or would be."""

    name: str
    url: str
    path: Path
    """Where the dataset is, or would be."""
    files: int | None
    """``None`` in a dry run if the archive has no index."""
    bytes: int | None
    """Of the files; ``None`` as above."""
    archive_bytes: int
    replaces: bool
    """Whether a local dataset had the name."""
    digest: str | None = None
    etag: str | None = None
    kept: Path | None = None
    """Where the replaced dataset is, if no repository has a copy of it."""
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """What a partition holds."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetInfo:
    """What is known of a dataset without unpacking it."""

    name: str
    kind: Literal["pulled", "registered", "created", "remote"]
    location: str
    """A directory, or the URL of an archive."""
    modified: datetime
    partitions: dict[str, PartitionInfo] | None
    """``None`` if the archive has no index: then only unpacking it would tell."""
    files: int | None
    """``None`` as above."""
    bytes: int | None
    """Of the files; ``None`` as above."""
    digest: str | None
    """``None`` as above, and for a local dataset that was never pushed or pulled, or has changed
    since."""
    archive_bytes: int | None = None
    """``None`` for a local dataset."""
    etag: str | None = None
    """``None`` for a local dataset."""
    repository: str | None = None
    """Where a local dataset was last pushed to or pulled from."""
    meta: dict[str, object] = field(default_factory=dict)
    """What ``meta.json`` holds; empty without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One line of a long listing."""

    name: str
    kind: Literal["pulled", "registered", "created", "remote"]
    bytes: int | None
    """Of the files; of the archive for a remote one; ``None`` if a link leads nowhere."""
    modified: datetime
    location: str
    broken: bool = False
