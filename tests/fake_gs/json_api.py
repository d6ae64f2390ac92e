"""Buckets and access control lists, by the JSON API."""

import json
from typing import Any

from aiohttp import web

from tests.fake_gs.calls import Call
from tests.fake_gs.conditions import check_json, check_query
from tests.fake_gs.errors import Refusal, invalid, public_access_prevented, uniform_access
from tests.fake_gs.fields import select
from tests.fake_gs.model import READS, Blob, Bucket


def reply(call: Call, found: dict[str, Any]) -> web.Response:
    """Answer with JSON, with those fields of it that are wanted."""
    if wanted := call.query.get("fields"):
        found = select(found, wanted)
    headers = {"ETag": found["etag"]} if "etag" in found else {}
    return web.Response(
        body=json.dumps(found).encode(),
        headers=headers | {"Cache-Control": "no-cache, no-store, max-age=0, must-revalidate"},
        content_type="application/json",
        charset="UTF-8",
    )


def nothing() -> web.Response:
    """Answer that it is done."""
    return web.Response(status=204)


def full(call: Call) -> bool:
    """Whether access control lists are wanted, too."""
    projection = call.query.get("projection", "noAcl")
    if projection not in ("full", "noAcl"):
        raise invalid(f"Invalid value '{projection}' for projection.", "invalidParameter")
    return projection == "full"


async def list_buckets(call: Call) -> web.Response:
    """List the buckets of a project."""
    project = call.query.get("project")
    if not project:
        raise invalid("Required parameter: project", "required")
    call.need("storage.buckets.list", None)
    prefix = call.query.get("prefix", "")
    names = sorted(
        name
        for name, bucket in call.server.buckets.items()
        if name.startswith(prefix) and bucket.project == project
    )
    names = [name for name in names if name > call.query.get("pageToken", "")]
    most = call.integer("maxResults") or 1000
    found: dict[str, Any] = {"kind": "storage#buckets"}
    if names:
        buckets = (call.server.buckets[name] for name in names[:most])
        found["items"] = [one.resource(call.server.endpoint, full=full(call)) for one in buckets]
    if len(names) > most:
        found["nextPageToken"] = names[most - 1]
    return reply(call, found)


def configure(bucket: Bucket, given: dict[str, Any]) -> None:
    """Apply what a request says of a bucket."""
    iam = given.get("iamConfiguration") or {}
    if (uniform := iam.get("uniformBucketLevelAccess", iam.get("bucketPolicyOnly"))) is not None:
        bucket.uniform = bool(uniform.get("enabled"))
    if (prevention := iam.get("publicAccessPrevention")) is not None:
        bucket.prevents_public_access = prevention == "enforced"
    bucket.location = given.get("location", bucket.location).upper()
    bucket.storage_class = given.get("storageClass", bucket.storage_class)
    if "versioning" in given:
        bucket.versioning = bool((given["versioning"] or {}).get("enabled"))
    if "billing" in given:
        bucket.requester_pays = bool((given["billing"] or {}).get("requesterPays"))
    if "retentionPolicy" in given:
        policy = given["retentionPolicy"] or {}
        bucket.retention_seconds = int(policy.get("retentionPeriod", 0))
    if "softDeletePolicy" in given:
        policy = given["softDeletePolicy"] or {}
        bucket.soft_delete_seconds = int(policy.get("retentionDurationSeconds", 0))
    if "defaultEventBasedHold" in given:
        bucket.default_event_based_hold = bool(given["defaultEventBasedHold"])
    if "hierarchicalNamespace" in given:
        bucket.hierarchical = bool((given["hierarchicalNamespace"] or {}).get("enabled"))


async def insert_bucket(call: Call) -> web.Response:
    """Create a bucket."""
    given = await call.json()
    project = call.query.get("project")
    if not project:
        raise invalid("Required parameter: project", "required")
    call.need("storage.buckets.create", None)
    name = given.get("name")
    if not isinstance(name, str) or not 3 <= len(name) <= 222 or name != name.lower():
        raise invalid(f"Invalid bucket name: '{name}'")
    if name in call.server.buckets:
        text = "Your previous request to create the named bucket succeeded and you already own it."
        raise Refusal(409, "conflict", text)
    bucket = call.server.make_bucket(name, project=project)
    configure(bucket, given)
    return reply(call, bucket.resource(call.server.endpoint, full=full(call)))


async def get_bucket(call: Call) -> web.Response:
    """Describe a bucket."""
    bucket = call.bucket()
    call.need("storage.buckets.get", bucket)
    _check_bucket(call, bucket)
    return reply(call, bucket.resource(call.server.endpoint, full=full(call)))


async def patch_bucket(call: Call) -> web.Response:
    """Change a bucket."""
    given = await call.json()
    bucket = call.bucket()
    call.need("storage.buckets.update", bucket)
    _check_bucket(call, bucket)
    configure(bucket, given)
    bucket.metageneration += 1
    return reply(call, bucket.resource(call.server.endpoint, full=full(call)))


async def delete_bucket(call: Call) -> web.Response:
    """Delete a bucket that is empty."""
    bucket = call.bucket()
    call.need("storage.buckets.delete", bucket)
    _check_bucket(call, bucket)
    if bucket.objects or bucket.noncurrent:
        raise Refusal(409, "conflict", "The bucket you tried to delete is not empty.")
    del call.server.buckets[bucket.name]
    return nothing()


def _check_bucket(call: Call, bucket: Bucket) -> None:
    """Check the conditions on a bucket, which has no generations that count."""
    numbered = Blob("", "", b"", 0, 0, 0, bucket.metageneration)
    query = {key: value for key, value in call.query.items() if "Metageneration" in key}
    check_query(query, numbered)


def _policy(bucket: Bucket) -> dict[str, Any]:
    roles = {
        "roles/storage.objectViewer": READS,
        "roles/storage.legacyObjectReader": frozenset({"storage.objects.get"}),
    }
    bindings = [
        {"role": role, "members": ["allUsers"]}
        for role, permissions in roles.items()
        if bucket.public == permissions
    ]
    owner = "projectOwner:test-project"
    bindings.insert(0, {"role": "roles/storage.legacyBucketOwner", "members": [owner]})
    return {
        "kind": "storage#policy",
        "resourceId": f"projects/_/buckets/{bucket.name}",
        "version": 1,
        "etag": "CAE=",
        "bindings": bindings,
    }


async def get_policy(call: Call) -> web.Response:
    """Tell who may do what in a bucket."""
    bucket = call.bucket()
    call.need("storage.buckets.getIamPolicy", bucket)
    return reply(call, _policy(bucket))


async def set_policy(call: Call) -> web.Response:
    """Change who may do what in a bucket; of all that, only everyone's right to read counts."""
    given = await call.json()
    bucket = call.bucket()
    call.need("storage.buckets.setIamPolicy", bucket)
    public: frozenset[str] = frozenset()
    for binding in given.get("bindings", ()):
        if "allUsers" in binding.get("members", ()):
            legacy = binding["role"].endswith("legacyObjectReader")
            public |= {"storage.objects.get"} if legacy else READS
    if public and bucket.prevents_public_access:
        raise public_access_prevented()
    bucket.public = public
    return reply(call, _policy(bucket))


async def test_permissions(call: Call) -> web.Response:
    """Tell which of some permissions who asks has."""
    bucket = call.bucket()
    wanted = [value for key, value in call.pairs if key == "permissions"]
    if not wanted:
        raise invalid("Required parameter: permissions", "required")
    found: dict[str, Any] = {"kind": "storage#testIamPermissionsResponse"}
    if having := [one for one in wanted if call.allows(one, bucket)]:
        found["permissions"] = having
    return reply(call, found)


def _controlled(call: Call, permission: str) -> tuple[Bucket, Blob]:
    """Return an object whose access control list is in use."""
    bucket = call.bucket()
    if bucket.uniform:
        doing = "get legacy ACL for an object"
        raise uniform_access() if call.operation == "acl.insert" else uniform_access(doing)
    blob = call.blob(bucket, permission, generation=call.integer("generation"))
    return bucket, blob


async def list_acl(call: Call) -> web.Response:
    """Tell who may do what with an object."""
    _, blob = _controlled(call, "storage.objects.getIamPolicy")
    entries = [blob.access_control(one) for one in blob.acl]
    return reply(call, {"kind": "storage#objectAccessControls", "items": entries})


async def change_acl(call: Call) -> web.Response:
    """Let someone do something with an object."""
    given = await call.json()
    bucket, blob = _controlled(call, "storage.objects.setIamPolicy")
    entity = call.other_name or given.get("entity")
    if not entity or not given.get("role"):
        raise invalid("Required", "required")
    call.server.grant_access(bucket, blob, entity, given["role"])
    blob.metageneration += 1
    return reply(call, blob.access_control(entity))


async def get_acl(call: Call) -> web.Response:
    """Tell what someone may do with an object."""
    _, blob = _controlled(call, "storage.objects.getIamPolicy")
    if call.other_name not in blob.acl:
        raise Refusal(404, "notFound", "The specified ACL entry does not exist.")
    return reply(call, blob.access_control(call.other_name))


async def delete_acl(call: Call) -> web.Response:
    """Take from someone what they may do with an object."""
    _, blob = _controlled(call, "storage.objects.setIamPolicy")
    check_json(call, blob)
    if blob.acl.pop(call.other_name, None) is None:
        raise Refusal(404, "notFound", "The specified ACL entry does not exist.")
    blob.metageneration += 1
    return nothing()


HANDLERS = {
    "buckets.list": list_buckets,
    "buckets.insert": insert_bucket,
    "buckets.get": get_bucket,
    "buckets.patch": patch_bucket,
    "buckets.delete": delete_bucket,
    "buckets.getIamPolicy": get_policy,
    "buckets.setIamPolicy": set_policy,
    "buckets.testIamPermissions": test_permissions,
    "acl.list": list_acl,
    "acl.insert": change_acl,
    "acl.patch": change_acl,
    "acl.get": get_acl,
    "acl.delete": delete_acl,
}
