"""What the fake server keeps: buckets, objects, and uploads."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import google_crc32c

MIB = 1 << 20

PLAIN_FIELDS = (
    "contentType",
    "contentEncoding",
    "contentLanguage",
    "contentDisposition",
    "cacheControl",
    "customTime",
    "storageClass",
)
"""Of an object, what a writer may set and nobody looks into."""

PREDEFINED_ACLS = {
    "authenticatedRead": "allAuthenticatedUsers",
    "bucketOwnerFullControl": "",
    "bucketOwnerRead": "",
    "private": "",
    "projectPrivate": "",
    "publicRead": "allUsers",
}
"""Whom each lets read, other than the owner."""

READS = frozenset({"storage.objects.get", "storage.objects.list"})
"""What a bucket may allow everyone."""


def rfc3339(seconds: float) -> str:
    """Write a time as JSON has it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def http_date(seconds: float) -> str:
    """Write a time as head lines have it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%a, %d %b %Y %H:%M:%S} GMT"


def crc32c(data: bytes) -> str:
    """Return the checksum as Google writes it."""
    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def md5(data: bytes) -> str:
    """Return the digest as Google writes it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


@dataclass(slots=True)
class Identity:
    """Who asks, and what they may."""

    name: str = ""
    """Nobody's is empty."""
    permissions: frozenset[str] | None = frozenset()
    """``None``: everything."""

    def may(self, permission: str) -> bool:
        """Whether *permission* is theirs everywhere."""
        return self.permissions is None or permission in self.permissions


@dataclass(slots=True)
class Blob:
    """One generation of an object."""

    bucket: str
    name: str
    data: bytes = field(repr=False)
    generation: int
    created: float
    updated: float
    metageneration: int = 1
    fields: dict[str, str] = field(default_factory=dict)
    """By their names in JSON; see :data:`PLAIN_FIELDS`."""
    metadata: dict[str, str] = field(default_factory=dict)
    acl: dict[str, str] = field(default_factory=dict)
    """What each entity may: ``{"allUsers": "READER"}``."""
    components: int = 0
    """Of how many it was composed; such objects have no MD5."""
    has_md5: bool = True
    event_based_hold: bool = False
    temporary_hold: bool = False
    deleted: float | None = None
    """When it stopped being the live one."""
    soft_deleted: float | None = None
    crc32c: str = ""
    _md5: str = ""

    def __post_init__(self) -> None:
        self.crc32c = self.crc32c or crc32c(self.data)

    @property
    def md5(self) -> str:
        """Return the digest, which is computed only once."""
        self._md5 = self._md5 or md5(self.data)
        return self._md5

    @property
    def path(self) -> str:
        """Return ``bucket/name``."""
        return f"{self.bucket}/{self.name}"

    @property
    def public(self) -> bool:
        """Whether everyone may read it."""
        return self.acl.get("allUsers") in ("READER", "OWNER")

    @property
    def etag(self) -> str:
        """Return the entity tag of the JSON API."""
        raw = b"\x08" + _varint(self.generation) + b"\x10" + _varint(self.metageneration)
        return base64.b64encode(raw).decode()

    @property
    def xml_etag(self) -> str:
        """Return the entity tag of the XML API: the MD5, if there is one."""
        if not self.has_md5:
            return f'"-{self.etag}"'
        return f'"{base64.b64decode(self.md5).hex()}"'

    @property
    def hashes(self) -> list[str]:
        """Return the values of ``x-goog-hash``, each on a line of its own."""
        found = [f"crc32c={self.crc32c}"]
        return [*found, f"md5={self.md5}"] if self.has_md5 else found

    def resource(self, endpoint: str, *, full: bool = False) -> dict[str, Any]:
        """Describe it as the JSON API does.

        Args:
            endpoint: For the links in it.
            full: Whether with its access control list.
        """
        link = f"/storage/v1/b/{self.bucket}/o/{quote(self.name, safe='')}"
        media = f"{endpoint}/download{link}?generation={self.generation}&alt=media"
        found: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.path}/{self.generation}",
            "selfLink": f"{endpoint}{link}",
            "mediaLink": media,
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            **self.fields,
            "size": str(len(self.data)),
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": rfc3339(self.created),
            "updated": rfc3339(self.updated),
            "timeStorageClassUpdated": rfc3339(self.created),
            "timeFinalized": rfc3339(self.created),
        }
        if self.has_md5:
            found["md5Hash"] = self.md5
        optional: dict[str, Any] = {
            "metadata": dict(self.metadata),
            "componentCount": self.components,
            "eventBasedHold": self.event_based_hold,
            "temporaryHold": self.temporary_hold,
            "timeDeleted": self.deleted and rfc3339(self.deleted),
            "softDeleteTime": self.soft_deleted and rfc3339(self.soft_deleted),
            "acl": full and [self.access_control(one) for one in self.acl],
        }
        return found | {name: value for name, value in optional.items() if value}

    def access_control(self, entity: str) -> dict[str, Any]:
        """Describe what *entity* may."""
        return {
            "kind": "storage#objectAccessControl",
            "id": f"{self.path}/{self.generation}/{entity}",
            "bucket": self.bucket,
            "object": self.name,
            "generation": str(self.generation),
            "entity": entity,
            "role": self.acl[entity],
            "etag": self.etag,
        }


@dataclass(slots=True)
class Part:
    """One part of a multipart upload."""

    data: bytes = field(repr=False)
    at: float
    md5: str = field(init=False)
    """As Google writes it."""

    def __post_init__(self) -> None:
        self.md5 = md5(self.data)  # once: it takes longer than all the rest

    @property
    def etag(self) -> str:
        """Return its entity tag."""
        return f'"{base64.b64decode(self.md5).hex()}"'


@dataclass(slots=True)
class Multipart:
    """An upload in parts, by the XML API, that is neither completed nor aborted."""

    key: str
    started: float
    fields: dict[str, str]
    metadata: dict[str, str]
    acl: str
    """The predefined one, as JSON calls it."""
    parts: dict[int, Part] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """A resumable upload, by the JSON API."""

    bucket: str
    query: dict[str, str]
    """Of the request that began it: it has the conditions."""
    resource: dict[str, Any]
    started: float
    identity: Identity
    """Who began it; to go on, it is enough to know its address."""
    length: int | None = None
    """As promised when it began."""
    data: bytearray = field(default_factory=bytearray, repr=False)
    result: Blob | None = None
    cancelled: bool = False


@dataclass(slots=True)
class Rewrite:
    """A copy that is not finished."""

    source: Blob
    path: str
    """Of the request."""
    done: int = 0


@dataclass(slots=True)
class Bucket:
    """A bucket and all that is in it."""

    name: str
    created: float
    project: str = "test-project"
    location: str = "US"
    storage_class: str = "STANDARD"
    uniform: bool = False
    """Whether its policy alone rules, and access control lists are refused."""
    public: frozenset[str] = frozenset()
    """What everyone may; see :data:`READS`."""
    prevents_public_access: bool = False
    versioning: bool = False
    retention_seconds: int = 0
    requester_pays: bool = False
    soft_delete_seconds: int = 7 * 24 * 3600
    default_event_based_hold: bool = False
    moves: bool = True
    """Whether it can move objects."""
    hierarchical: bool = False
    metageneration: int = 1
    objects: dict[str, Blob] = field(default_factory=dict)
    noncurrent: list[Blob] = field(default_factory=list)
    soft_deleted: list[Blob] = field(default_factory=list)
    uploads: dict[str, Multipart] = field(default_factory=dict)
    ended: dict[str, Blob | None] = field(default_factory=dict)
    """What completed uploads have made; ``None`` for those that were aborted."""

    def find(self, name: str, generation: int | None = None) -> Blob | None:
        """Return the live object, or some generation of it."""
        live = self.objects.get(name)
        if generation is None or (live is not None and live.generation == generation):
            return live
        for blob in self.noncurrent:
            if blob.name == name and blob.generation == generation:
                return blob
        return None

    def versions(self) -> Iterator[Blob]:
        """Yield live and noncurrent objects."""
        yield from self.objects.values()
        yield from self.noncurrent

    def retained_until(self, blob: Blob) -> float:
        """Return until when the bucket's policy keeps an object."""
        return blob.created + self.retention_seconds if self.retention_seconds else 0.0

    def resource(self, endpoint: str, *, full: bool = False) -> dict[str, Any]:
        """Describe it as the JSON API does."""
        etag = base64.b64encode(b"\x08" + _varint(self.metageneration)).decode()
        since = rfc3339(self.created)
        prevention = "enforced" if self.prevents_public_access else "inherited"
        uniform: dict[str, Any] = {"enabled": self.uniform}
        if self.uniform:
            uniform["lockedTime"] = rfc3339(self.created + 90 * 24 * 3600)
        found: dict[str, Any] = {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{endpoint}/storage/v1/b/{self.name}",
            "name": self.name,
            "projectNumber": "123456789012",
            "metageneration": str(self.metageneration),
            "location": self.location,
            "locationType": "multi-region" if self.location in ("US", "EU", "ASIA") else "region",
            "storageClass": self.storage_class,
            "etag": etag,
            "timeCreated": since,
            "updated": since,
            "defaultEventBasedHold": self.default_event_based_hold,
            "iamConfiguration": {
                "bucketPolicyOnly": uniform,
                "uniformBucketLevelAccess": uniform,
                "publicAccessPrevention": prevention,
            },
            "softDeletePolicy": {
                "retentionDurationSeconds": str(self.soft_delete_seconds),
                "effectiveTime": since,
            },
        }
        optional: dict[str, Any] = {
            "versioning": self.versioning and {"enabled": True},
            "billing": self.requester_pays and {"requesterPays": True},
            "hierarchicalNamespace": self.hierarchical and {"enabled": True},
            "retentionPolicy": self.retention_seconds
            and {"retentionPeriod": str(self.retention_seconds), "effectiveTime": since},
            "acl": full and not self.uniform and [],
        }
        return found | {name: value for name, value in optional.items() if value}
