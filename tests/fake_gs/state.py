"""What the fake server knows and what it is told to do; plain attributes, for tests to look at."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fake_gs.calls import Call, Seen
from tests.fake_gs.errors import (
    held,
    invalid,
    public_access_prevented,
    retained,
    uniform_access,
)
from tests.fake_gs.faults import Fault, Rule
from tests.fake_gs.model import (
    MIB,
    PREDEFINED_ACLS,
    READS,
    Blob,
    Bucket,
    Rewrite,
    Session,
    rfc3339,
)
from tests.fake_gs.people import People

Hook = Callable[[Call], Awaitable[web.StreamResponse | None]]
"""Answers a request itself, or returns ``None``: then the honest server does."""


@dataclass
class FakeGS(People):
    """An honest server, but for the faults it is told to have."""

    endpoint: str = ""
    """``http://127.0.0.1:port``."""
    buckets: dict[str, Bucket] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    fault: Hook | None = None
    rules: list[Rule] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    """Resumable uploads."""
    rewrites: dict[str, Rewrite] = field(default_factory=dict)
    """Copies that are not finished, by token."""
    clock: Callable[[], float] = time.time
    least_part: int = 5 * MIB
    """Bytes of the smallest part but the last of a multipart upload."""
    session_seconds: float = 7 * 24 * 3600
    """How long a resumable upload may take."""
    rewrite_step: int | None = None
    """How many bytes a call copies at most; with ``None``, all."""
    early_conditions: bool = False
    """Whether a resumable upload is refused when it begins, if its conditions do not hold."""
    json_range_hashes: bool = False
    """Whether the JSON API tells the checksums of the whole with a range of it."""
    remembers_uploads: bool = True
    """Whether to complete or abort a multipart upload twice is no error, as at Google's."""
    complete_tells_generation: bool = True
    """Whether the end of a multipart upload says which generation it made."""
    _generation: int = 0

    def make_bucket(self, name: str = "bucket", **options: Any) -> Bucket:
        """Create a bucket; see :class:`Bucket` for the options.

        ``public=True`` lets everyone read and list.
        """
        if options.get("public") is True:
            options["public"] = READS
        bucket = self.buckets[name] = Bucket(name, self.clock(), **options)
        return bucket

    def put(
        self,
        bucket: str,
        name: str,
        data: bytes,
        *,
        acl: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        **fields: str,
    ) -> Blob:
        """Store an object, with *fields* by their names in JSON."""
        blob = self.new_blob(bucket, name, data, fields, metadata or {})
        blob.acl |= acl or {}
        self.store(self.buckets[bucket], blob)
        return blob

    def data(self, bucket: str, name: str) -> bytes:
        """Return what an object has in it."""
        return self.buckets[bucket].objects[name].data

    def plan(
        self, operation: str, fault: Fault, *, skip: int = 0, times: int = 1, where: str = ""
    ) -> Rule:
        """Have some requests befallen by a fault; see :class:`Rule`."""
        rule = Rule(operation, fault, skip, times, where)
        self.rules.append(rule)
        return rule

    @property
    def operations(self) -> list[str]:
        """What was asked for, in order."""
        return [seen.operation for seen in self.requests]

    def count(self, operation: str) -> int:
        """Return how often something was asked for."""
        return self.operations.count(operation)

    def next_generation(self) -> int:
        """Return a number that is greater than all before: microseconds, as Google's are."""
        self._generation = max(self._generation + 1, int(self.clock() * 1_000_000))
        return self._generation

    def new_blob(
        self,
        bucket: str,
        name: str,
        data: bytes,
        fields: dict[str, str],
        metadata: dict[str, str],
    ) -> Blob:
        """Make an object that is not stored yet."""
        if not name or len(name.encode()) > 1024 or "\r" in name or "\n" in name:
            raise invalid(f"The object name '{name[:50]}' is not valid.", "invalid")
        now = self.clock()
        kept = {"storageClass": self.buckets[bucket].storage_class} | fields
        blob = Blob(bucket, name, data, self.next_generation(), now, now)
        blob.fields, blob.metadata = kept, dict(metadata)
        blob.event_based_hold = self.buckets[bucket].default_event_based_hold
        if not self.buckets[bucket].uniform:
            blob.acl = {"project-owners-123456789012": "OWNER"}
        return blob

    def apply_acl(self, bucket: Bucket, blob: Blob, predefined: str | None) -> None:
        """Give an object a predefined access control list."""
        if not predefined:
            return
        if bucket.uniform:
            raise uniform_access()
        if predefined not in PREDEFINED_ACLS:
            raise invalid(f"Invalid value '{predefined}' for predefinedAcl.", "invalidParameter")
        blob.acl = {"project-owners-123456789012": "OWNER"}
        if reader := PREDEFINED_ACLS[predefined]:
            self.grant_access(bucket, blob, reader, "READER")

    def grant_access(self, bucket: Bucket, blob: Blob, entity: str, role: str) -> None:
        """Add to an access control list."""
        everyone = entity in ("allUsers", "allAuthenticatedUsers")
        if everyone and bucket.prevents_public_access:
            raise public_access_prevented()
        if role not in ("OWNER", "READER"):
            raise invalid(f"Invalid value '{role}' for role.", "invalidParameter")
        blob.acl[entity] = role

    def check_removable(self, bucket: Bucket, blob: Blob | None) -> None:
        """Refuse to delete or overwrite what is to be kept."""
        if blob is None:
            return
        for holds, kind in (
            (blob.event_based_hold, "Event-Based"),
            (blob.temporary_hold, "Temporary"),
        ):
            if holds:
                raise held(blob.path, kind)
        until = bucket.retained_until(blob)
        if until > self.clock():
            raise retained(blob.path, rfc3339(until))

    def store(self, bucket: Bucket, blob: Blob) -> None:
        """Make an object the live one."""
        old = bucket.objects.get(blob.name)
        self.check_removable(bucket, old)
        if old is not None:
            self._retire(bucket, old)
        bucket.objects[blob.name] = blob

    def remove(self, bucket: Bucket, blob: Blob, *, outright: bool = False) -> None:
        """Delete an object, or one generation of it.

        Args:
            bucket: Where it is.
            blob: What it is.
            outright: Whether even a bucket with versions shall forget it.
        """
        self.check_removable(bucket, blob)
        if bucket.objects.get(blob.name) is blob:
            del bucket.objects[blob.name]
        else:
            bucket.noncurrent.remove(blob)
            outright = True
        self._retire(bucket, blob, outright=outright)

    def _retire(self, bucket: Bucket, blob: Blob, *, outright: bool = False) -> None:
        now = self.clock()
        if bucket.versioning and not outright:
            blob.deleted = now
            bucket.noncurrent.append(blob)
        elif bucket.soft_delete_seconds:
            blob.soft_deleted = now
            bucket.soft_deleted.append(blob)
