"""Objects, by the XML API: all but uploads in parts."""

import base64
import re

from aiohttp import web
from multidict import CIMultiDict

from tests.fake_gs.calls import Call
from tests.fake_gs.conditions import check_xml
from tests.fake_gs.errors import Refusal, invalid
from tests.fake_gs.media import describe, send
from tests.fake_gs.model import Bucket
from tests.fake_gs.uploads import check_hashes, read_hash_header

_HEADERS = {
    "content-type": "contentType",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-disposition": "contentDisposition",
    "cache-control": "cacheControl",
    "x-goog-storage-class": "storageClass",
    "x-goog-custom-time": "customTime",
}


def read_fields(call: Call) -> tuple[dict[str, str], dict[str, str]]:
    """Return what the head lines say of an object: fixed and free fields."""
    fields = {name: call.headers[line] for line, name in _HEADERS.items() if line in call.headers}
    start = "x-goog-meta-"
    metadata = {
        name.removeprefix(start): value
        for name, value in call.headers.items()
        if name.startswith(start)
    }
    return fields, metadata


def read_acl(call: Call) -> str:
    """Return the predefined access control list, as JSON calls it."""
    words = call.headers.get("x-goog-acl", "")
    return re.sub(r"-(\w)", lambda found: found[1].upper(), words)


def check_digests(call: Call, data: bytes) -> None:
    """Compare data with what the head lines say of them."""
    told = read_hash_header(call)
    try:
        if len(base64.b64decode(told.get("md5Hash", "A" * 22 + "=="), validate=True)) != 16:
            raise ValueError
    except ValueError:
        text = "The Content-MD5 you specified was invalid."
        raise Refusal(400, "invalid", text, "InvalidDigest", text) from None
    check_hashes(data, told)


def may_write(call: Call, bucket: Bucket) -> None:
    """Refuse who may not make or overwrite an object."""
    call.need("storage.objects.create", bucket)
    if bucket.find(call.name) is not None:
        call.need("storage.objects.delete", bucket)


async def get_object(call: Call) -> web.Response:
    """Send what an object has in it, or only what is said of it."""
    bucket = call.bucket()
    blob = call.blob(bucket, "storage.objects.get", generation=call.integer("generation"))
    check_xml(call, blob)
    return send(call, blob)


async def put_object(call: Call) -> web.Response:
    """Store an object."""
    data = await call.body()
    server, bucket = call.server, call.bucket()
    if "x-goog-copy-source" in call.headers or "acl" in call.query:
        raise invalid("The fake server cannot do that.")
    may_write(call, bucket)
    check_xml(call, bucket.find(call.name))
    check_digests(call, data)
    blob = server.new_blob(bucket.name, call.name, data, *read_fields(call))
    server.apply_acl(bucket, blob, read_acl(call))
    server.store(bucket, blob)
    told = describe(blob, xml=True)
    wanted = ("x-goog-generation", "x-goog-metageneration", "etag", "x-goog-hash")
    stored = ("x-goog-stored-content-encoding", "x-goog-stored-content-length")
    headers = CIMultiDict(
        (name, value) for name, value in told.items() if name.lower() in wanted + stored
    )
    return web.Response(headers=headers, content_type="text/html")


async def delete_object(call: Call) -> web.Response:
    """Delete an object, or one generation of it."""
    bucket = call.bucket()
    generation = call.integer("generation")
    blob = call.blob(bucket, "storage.objects.delete", generation=generation)
    check_xml(call, blob)
    call.server.remove(bucket, blob, outright=generation is not None and bucket.versioning)
    return web.Response(status=204)


HANDLERS = {
    "xml.get": get_object,
    "xml.head": get_object,
    "xml.put": put_object,
    "xml.delete": delete_object,
}
