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
    """Bytes of the tar stream by the level of compression they got; 0 is stored. What was packed by
    an earlier push, or copied, is not among them."""
    resumed: int = 0
    """Bytes of the archive that an earlier push, which broke off, had sent."""
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
    """Of the whole archive."""
    replaces: bool
    """Whether a local dataset had the name."""
    digest: str | None = None
    etag: str | None = None
    partial: bool = False
    """Whether only a part of the dataset is there now."""
    received: int | None = None
    """Bytes of the archive that were fetched for files.

    In a dry run at most, since what is here already is not fetched; ``None`` without an index.
    """
    kept: Path | None = None
    """Where the replaced dataset is, if no repository has a copy of it."""
    seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareResult:
    """A link to a dataset, or to one of its partitions."""

    name: str
    partition: str | None
    """The only one that the link opens; ``None`` if it opens all."""
    url: str = field(repr=False)
    """The link, for ``etc pull``; opens what is shared to whoever knows it."""
    command: str = field(repr=False)
    """The same for a shell with ``curl`` and ``tar``; unpacks into the working directory."""
    bytes: int
    """What is fetched."""
    expires: datetime | None
    """When the link stops working; ``None`` if everybody can read the archive anyway."""
    temporary: bool
    """Whether it was signed with a session token: then it ends with the session, which may be
    before *expires*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that a transfer left that did not come to its end."""

    kind: Literal["staging", "trash", "journal", "upload", "kept"]
    """A dataset in the making, or on its way out; what is known of a push; an unfinished upload;
    a dataset that was replaced but is in no repository."""
    name: str
    """The dataset."""
    place: str
    """A directory, or where the archive would be."""
    bytes: int
    """That it takes there."""
    modified: datetime
    """When something last happened to it; UTC."""
    reason: str
    """Why it is, or is not, to be removed."""
    removed: bool
    """Whether it is gone, or would be; ``kept`` never is."""


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
    partial: bool = False
    """Whether a local dataset is only a part of the one that the digest names."""


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
    partial: bool = False
    """Whether only a part of it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What a check of a dataset has found; paths come in the order of the archive."""

    name: str
    kind: Literal["local", "remote"]
    location: str
    """A directory, or the URL of an archive."""
    files: int
    """That are there and should be."""
    bytes: int
    """Of these files."""
    missing: tuple[str, ...] = ()
    """What should be there and is not."""
    changed: tuple[str, ...] = ()
    """What has another content, kind, link target or executable bit than it should; in an archive,
    what lies in damaged frames."""
    extra: tuple[str, ...] = ()
    """What is there and should not be."""
    problem: str | None = None
    """What is wrong with the archive."""
    quick: bool = False
    """Whether only sizes and times were compared."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.missing or self.changed or self.extra or self.problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatus:
    """How a local dataset compares with the one in the repository."""

    name: str
    state: Literal["same", "older", "changed", "different", "absent", "unknown"]
    """``same``: both are as they were pushed or pulled. ``older``: the repository has another
    version by now, the local one is as it was. ``changed``: the local one has changed, the
    repository's has not. ``different``: both have. ``absent``: the repository has none.
    ``unknown``: nobody can tell, see *reason*."""
    repository: str | None
    """Its URL."""
    digest: str | None = None
    """Of what was pushed or pulled last."""
    remote_digest: str | None = None
    """Of what is in the repository, where that was looked up."""
    reason: str | None = None
    """Why nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What was done, or would be, to have one dataset of a lock file."""

    name: str
    action: Literal["nothing", "pull", "replace"]
    digest: str
    kept: Path | None = None
    """Where the replaced dataset is, if no repository has a copy of it."""
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryInfo:
    """A file, directory or link in a dataset."""

    path: str
    """Relative to the dataset."""
    kind: Literal["file", "directory", "link"]
    files: int
    """1 for a file, 0 for a link; of a directory all that lie below it."""
    bytes: int
    """Of these files."""
    modified: datetime | None
    """``None`` for a directory."""
    target: str | None
    """Of a link."""


@dataclass(frozen=True, slots=True)
class PartitionSizes:
    """What a partition takes."""

    files: int
    bytes: int
    archive_bytes: int | None
    """What it takes in the archive; ``None`` if that has no index, and for a local dataset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSizes:
    """What a dataset takes."""

    name: str
    partitions: dict[str, PartitionSizes]
    other: PartitionSizes
    """What lies outside the partitions."""
    files: int
    """All together."""
    bytes: int
    archive_bytes: int | None
    """Of the whole archive, its index included; ``None`` for a local dataset."""
