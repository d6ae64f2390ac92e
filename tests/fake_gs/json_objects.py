"""Objects, by the JSON API: all but the uploads."""

import base64
import dataclasses
import secrets
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from tests.fake_gs.calls import Call
from tests.fake_gs.conditions import check_json, check_query
from tests.fake_gs.errors import Refusal, invalid, no_object
from tests.fake_gs.json_api import full, nothing, reply
from tests.fake_gs.media import send
from tests.fake_gs.model import MIB, PLAIN_FIELDS, Blob, Bucket, Rewrite

MOST_COMPONENTS = 32
LONGEST_PAGE = 1000


async def get_object(call: Call) -> web.Response:
    """Describe an object."""
    bucket = call.bucket()
    blob = call.blob(bucket, "storage.objects.get", generation=call.integer("generation"))
    check_json(call, blob)
    return reply(call, blob.resource(call.server.endpoint, full=full(call)))


async def get_media(call: Call) -> web.Response:
    """Send what an object has in it."""
    bucket = call.bucket()
    blob = call.blob(bucket, "storage.objects.get", generation=call.integer("generation"))
    check_json(call, blob)
    return send(call, blob)


async def delete_object(call: Call) -> web.Response:
    """Delete an object, or one generation of it."""
    bucket = call.bucket()
    generation = call.integer("generation")
    blob = call.blob(bucket, "storage.objects.delete", generation=generation)
    check_json(call, blob)
    call.server.remove(bucket, blob, outright=generation is not None and bucket.versioning)
    return nothing()


def apply(blob: Blob, given: dict[str, Any]) -> None:
    """Change what a request says of an object; ``None`` takes away."""
    for name in PLAIN_FIELDS:
        if name in given and given[name] is None:
            blob.fields.pop(name, None)
        elif name in given:
            blob.fields[name] = str(given[name])
    if "metadata" in given and given["metadata"] is None:
        blob.metadata = {}
    for key, value in (given.get("metadata") or {}).items():
        if value is None:
            blob.metadata.pop(key, None)
        else:
            blob.metadata[key] = str(value)
    blob.event_based_hold = bool(given.get("eventBasedHold", blob.event_based_hold))
    blob.temporary_hold = bool(given.get("temporaryHold", blob.temporary_hold))


async def patch_object(call: Call) -> web.Response:
    """Change what is said of an object."""
    given = await call.json()
    bucket = call.bucket()
    blob = call.blob(bucket, "storage.objects.update", generation=call.integer("generation"))
    check_json(call, blob)
    for entry in given.get("acl") or ():
        call.server.apply_acl(bucket, blob, "private")
        call.server.grant_access(bucket, blob, entry["entity"], entry["role"])
    call.server.apply_acl(bucket, blob, call.query.get("predefinedAcl"))
    apply(blob, given)
    blob.metageneration += 1
    blob.updated = call.server.clock()
    return reply(call, blob.resource(call.server.endpoint, full=full(call)))


def _listed(call: Call, bucket: Bucket) -> Iterable[Blob]:
    if call.flag("softDeleted"):
        return bucket.soft_deleted
    return bucket.versions() if call.flag("versions") else bucket.objects.values()


def _key(name: str, generation: int = 0) -> tuple[bytes, int]:
    return name.encode(), generation


async def list_objects(call: Call) -> web.Response:
    """List what is in a bucket: by prefix, up to a delimiter, page by page."""
    bucket = call.bucket()
    call.need("storage.objects.list", bucket)
    query = call.query
    if "matchGlob" in query:
        raise Refusal(501, "notImplemented", "The fake server has no matchGlob.")
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    start, end = query.get("startOffset", "").encode(), query.get("endOffset", "").encode()
    most = min(call.integer("maxResults") or LONGEST_PAGE, LONGEST_PAGE)
    try:
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
    except ValueError:
        raise invalid("Invalid value for: pageToken") from None
    found: dict[tuple[bytes, int], Blob | str] = {}
    for blob in _listed(call, bucket):
        name = blob.name
        if not name.startswith(prefix) or (end and name.encode() >= end):
            continue
        stop = name.find(delimiter, len(prefix)) if delimiter else -1
        folder = name[: stop + len(delimiter)] if stop >= 0 else ""
        if name.encode() < start:
            continue
        if folder:
            found[_key(folder)] = folder
        if not folder or (folder == name and call.flag("includeTrailingDelimiter")):
            found[_key(name, blob.generation)] = blob
    places = sorted(place for place in found if f"{place[0].decode()}#{place[1]:020}" > after)
    page = [found[place] for place in places[:most]]
    answer: dict[str, Any] = {"kind": "storage#objects"}
    if len(places) > most:
        last = places[most - 1]
        token = f"{last[0].decode()}#{last[1]:020}"
        answer["nextPageToken"] = base64.urlsafe_b64encode(token.encode()).decode()
    if folders := [one for one in page if isinstance(one, str)]:
        answer["prefixes"] = folders
    blobs = [one for one in page if isinstance(one, Blob)]
    if blobs:
        with_acl, endpoint = full(call), call.server.endpoint
        answer["items"] = [one.resource(endpoint, full=with_acl) for one in blobs]
    return reply(call, answer)


def _need_to_write(call: Call, bucket: Bucket, name: str) -> Blob | None:
    """Return what is to be overwritten, if it may be."""
    call.need("storage.objects.create", bucket)
    old = bucket.find(name)
    if old is not None:
        call.need("storage.objects.delete", bucket)
    return old


async def move_object(call: Call) -> web.Response:
    """Rename an object within its bucket."""
    await call.body()
    server, bucket = call.server, call.bucket()
    if not bucket.moves:
        raise invalid("The move operation is not supported for this bucket.")
    if call.name == call.other_name:
        raise invalid("The source and destination object names must differ.")
    if not call.allows("storage.objects.move", bucket):
        call.need("storage.objects.delete", bucket)
        call.need("storage.objects.get", bucket, bucket.find(call.name))
    old = _need_to_write(call, bucket, call.other_name)
    source = bucket.find(call.name)
    if source is None:
        raise no_object(bucket.name, call.name)
    check_query(call.query, source, "ifSource")
    check_json(call, old)
    server.check_removable(bucket, source)
    server.check_removable(bucket, old)
    moved = _copy_of(server.next_generation(), server.clock(), source, bucket, call.other_name)
    moved.acl = dict(source.acl)
    server.store(bucket, moved)
    del bucket.objects[source.name]
    if bucket.versioning:
        source.deleted = server.clock()
        bucket.noncurrent.append(source)
    return reply(call, moved.resource(server.endpoint, full=full(call)))


def _copy_of(generation: int, now: float, source: Blob, bucket: Bucket, name: str) -> Blob:
    return dataclasses.replace(
        source,
        bucket=bucket.name,
        name=name,
        generation=generation,
        metageneration=1,
        created=now,
        updated=now,
        fields=dict(source.fields),
        metadata=dict(source.metadata),
        acl={},
        event_based_hold=bucket.default_event_based_hold,
        temporary_hold=False,
        deleted=None,
        soft_deleted=None,
    )


async def rewrite_object(call: Call) -> web.Response:
    """Copy an object, or so much of it as one call can."""
    given = await call.json()
    server = call.server
    bucket, target = call.bucket(), call.bucket(call.other_bucket)
    source = call.blob(bucket, "storage.objects.get", generation=call.integer("sourceGeneration"))
    old = _need_to_write(call, target, call.other_name)
    check_query(call.query, source, "ifSource")
    check_json(call, old)
    token = call.query.get("rewriteToken", "")
    if token and (token not in server.rewrites or server.rewrites[token].path != call.path):
        raise invalid("Invalid value for: rewriteToken")
    rewrite = server.rewrites.get(token) or Rewrite(source, call.path)
    if rewrite.source is not source:
        raise invalid("The source object has changed since the rewrite began.")
    step = call.integer("maxBytesRewrittenPerCall")
    if step is not None and (step < MIB or step % MIB):
        raise invalid("maxBytesRewrittenPerCall must be an integral multiple of 1 MiB.")
    size = len(source.data)
    limits = [one for one in (step, server.rewrite_step) if one is not None]
    rewrite.done = min(size, rewrite.done + min(limits, default=size))
    answer: dict[str, Any] = {
        "kind": "storage#rewriteResponse",
        "totalBytesRewritten": str(rewrite.done),
        "objectSize": str(size),
        "done": rewrite.done == size,
    }
    if rewrite.done < size:
        token = token or secrets.token_urlsafe(24)
        server.rewrites[token] = rewrite
        return reply(call, answer | {"rewriteToken": token})
    server.rewrites.pop(token, None)
    made = _copy(call, source, target, given)
    answer["resource"] = made.resource(server.endpoint, full=full(call))
    return reply(call, answer)


def _copy(call: Call, source: Blob, target: Bucket, given: dict[str, Any]) -> Blob:
    """Store a copy, which is described as the source or as was given."""
    server = call.server
    made = _copy_of(server.next_generation(), server.clock(), source, target, call.other_name)
    if given:
        made.fields = {"storageClass": target.storage_class}
        made.metadata = {}
        apply(made, given)
    if not target.uniform:
        made.acl = {"project-owners-123456789012": "OWNER"}
    server.apply_acl(target, made, call.query.get("destinationPredefinedAcl"))
    server.store(target, made)
    return made


async def copy_object(call: Call) -> web.Response:
    """Copy an object in one call."""
    given = await call.json()
    bucket, target = call.bucket(), call.bucket(call.other_bucket)
    source = call.blob(bucket, "storage.objects.get", generation=call.integer("sourceGeneration"))
    old = _need_to_write(call, target, call.other_name)
    check_query(call.query, source, "ifSource")
    check_json(call, old)
    made = _copy(call, source, target, given)
    return reply(call, made.resource(call.server.endpoint, full=full(call)))


async def compose_objects(call: Call) -> web.Response:
    """Make one object of several."""
    given = await call.json()
    server, bucket = call.server, call.bucket()
    sources = given.get("sourceObjects") or []
    if not sources:
        raise invalid("You must provide at least one source component.", "required")
    if len(sources) > MOST_COMPONENTS:
        text = f"The number of source components provided ({len(sources)}) exceeds the maximum "
        raise invalid(f"{text}({MOST_COMPONENTS})")
    old = _need_to_write(call, bucket, call.name)
    blobs = []
    for one in sources:
        generation = int(one["generation"]) if one.get("generation") else None
        blob = call.blob(bucket, "storage.objects.get", one.get("name", ""), generation)
        wanted = one.get("objectPreconditions") or {}
        check_query({key: str(value) for key, value in wanted.items()}, blob)
        blobs.append(blob)
    check_json(call, old)
    data = b"".join(blob.data for blob in blobs)
    made = server.new_blob(bucket.name, call.name, data, {}, {})
    apply(made, given.get("destination") or {})
    made.components = sum(blob.components or 1 for blob in blobs)
    made.has_md5 = False
    server.apply_acl(bucket, made, call.query.get("destinationPredefinedAcl"))
    server.store(bucket, made)
    if call.flag("deleteSourceObjects"):
        for blob in blobs:
            if bucket.objects.get(blob.name) is blob:
                server.remove(bucket, blob)
    return reply(call, made.resource(server.endpoint, full=full(call)))


async def restore_object(call: Call) -> web.Response:
    """Bring an object back that was deleted not long ago."""
    await call.body()
    server, bucket = call.server, call.bucket()
    call.need("storage.objects.restore", bucket)
    generation = call.integer("generation")
    if generation is None:
        raise invalid("Required parameter: generation", "required")
    old = _need_to_write(call, bucket, call.name)
    check_json(call, old)
    for blob in bucket.soft_deleted:
        if blob.name == call.name and blob.generation == generation:
            now = server.clock()
            made = _copy_of(server.next_generation(), now, blob, bucket, blob.name)
            server.store(bucket, made)
            return reply(call, made.resource(server.endpoint, full=full(call)))
    raise no_object(bucket.name, call.name)


HANDLERS = {
    "objects.get": get_object,
    "objects.media": get_media,
    "objects.delete": delete_object,
    "objects.patch": patch_object,
    "objects.list": list_objects,
    "objects.move": move_object,
    "objects.rewrite": rewrite_object,
    "objects.copy": copy_object,
    "objects.compose": compose_objects,
    "objects.restore": restore_object,
}
