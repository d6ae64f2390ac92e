"""Uploads by the JSON API: data alone, with a description, or resumable."""

import base64
import json
import re
import secrets
from typing import Any

from aiohttp import web

from tests.fake_gs.calls import Call
from tests.fake_gs.conditions import check_query
from tests.fake_gs.errors import Refusal, invalid, wrong_digest
from tests.fake_gs.json_api import full, reply
from tests.fake_gs.json_objects import apply
from tests.fake_gs.model import PREDEFINED_ACLS, Blob, Bucket, Session, crc32c, md5

CHUNK = 256 * 1024
"""Bytes that all pieces of a resumable upload but the last are a multiple of."""

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+|\*)|\*)/(\d+|\*)")


def check_hashes(data: bytes, told: dict[str, str]) -> None:
    """Compare data with ``crc32c`` and ``md5Hash``, if they were told.

    Raises:
        Refusal: They differ.
    """
    crc, digest = told.get("crc32c"), told.get("md5Hash")
    for text in filter(None, (crc, digest)):
        try:
            base64.b64decode(text, validate=True)
        except ValueError:
            raise invalid(f"Invalid checksum: {text}") from None
    if crc and crc != crc32c(data):
        raise wrong_digest("CRC32C", crc, crc32c(data))
    if digest and digest != md5(data):
        raise wrong_digest("MD5 hash", digest, md5(data))


def read_hash_header(call: Call) -> dict[str, str]:
    """Return what ``x-goog-hash`` and ``Content-MD5`` say, by the names in JSON."""
    found: dict[str, str] = {}
    for line in call.request.headers.getall("x-goog-hash", []):
        for one in line.split(","):
            kind, _, value = one.strip().partition("=")
            found["md5Hash" if kind == "md5" else kind] = value
    if "content-md5" in call.headers:
        found["md5Hash"] = call.headers["content-md5"]
    return found


def _object_name(call: Call, resource: dict[str, Any]) -> str:
    name = call.query.get("name") or resource.get("name")
    if not name:
        raise invalid("Required", "required")
    return str(name)


def _may_write(call: Call, bucket: Bucket, name: str) -> Blob | None:
    call.need("storage.objects.create", bucket)
    old = bucket.find(name)
    if old is not None:
        call.need("storage.objects.delete", bucket)
    return old


def finish(
    call: Call, bucket: Bucket, resource: dict[str, Any], query: dict[str, str], data: bytes
) -> Blob:
    """Store what was uploaded, if all that was asked holds."""
    server, name = call.server, str(query.get("name") or resource.get("name"))
    old = _may_write(call, bucket, name)
    check_query(query, old)
    check_hashes(data, resource | read_hash_header(call))
    blob = server.new_blob(bucket.name, name, data, {}, {})
    apply(blob, resource)
    if "contentEncoding" in query:
        blob.fields["contentEncoding"] = query["contentEncoding"]
    for entry in resource.get("acl") or ():
        server.apply_acl(bucket, blob, "private")
        server.grant_access(bucket, blob, entry["entity"], entry["role"])
    server.apply_acl(bucket, blob, query.get("predefinedAcl"))
    server.store(bucket, blob)
    return blob


async def insert_object(call: Call) -> web.Response:
    """Upload in one request."""
    bucket = call.bucket()
    kind = call.query.get("uploadType")
    if kind == "media":
        data = await call.body()
        resource: dict[str, Any] = {}
        if content_type := call.headers.get("content-type"):
            resource["contentType"] = content_type
    elif kind == "multipart":
        resource, data = _parts(call.headers.get("content-type", ""), await call.body())
    else:
        raise invalid(f"Invalid value '{kind or ''}' for uploadType.", "wrongUrlForUpload")
    resource["name"] = _object_name(call, resource)
    blob = finish(call, bucket, resource, call.query, data)
    return reply(call, blob.resource(call.server.endpoint, full=full(call)))


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Take ``multipart/related`` apart: a description in JSON, and data."""
    found = re.search(r'boundary="?([^";]+)"?', content_type)
    if not content_type.startswith("multipart/related") or found is None:
        raise invalid("Failed to parse Content-Type header.")
    mark = b"--" + found[1].strip().encode()
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) != 4 or not pieces[3].startswith(b"--"):
        raise invalid("Multipart must contain exactly two non-empty blocks.", "badRequest")
    try:
        described = json.loads(pieces[1].partition(b"\r\n\r\n")[2] or b"{}")
    except ValueError:
        raise invalid("Metadata part is not valid JSON.", "parseError") from None
    head, _, data = pieces[2].partition(b"\r\n\r\n")
    if kind := re.search(rb"(?im)^content-type:\s*(.+?)\r?$", head):
        described.setdefault("contentType", kind[1].decode())
    return described, data


async def start_session(call: Call) -> web.Response:
    """Begin a resumable upload."""
    resource = await call.json()
    server, bucket = call.server, call.bucket()
    name = _object_name(call, resource)
    old = _may_write(call, bucket, name)
    predefined = call.query.get("predefinedAcl")
    if predefined:  # asks whether it can be given
        trial = Blob(bucket.name, name, b"", 0, 0, 0)
        server.apply_acl(bucket, trial, predefined)
        assert predefined in PREDEFINED_ACLS
    if server.early_conditions:
        check_query(call.query, old)
    if content_type := call.headers.get("x-upload-content-type"):
        resource.setdefault("contentType", content_type)
    resource["name"] = name
    length = call.headers.get("x-upload-content-length")
    key = secrets.token_urlsafe(24)
    query = call.query | {"name": name}
    session = Session(bucket.name, query, resource, server.clock(), call.identity)
    session.length = int(length) if length else None
    server.sessions[key] = session
    address = f"http://{call.request.host}{call.path}"
    location = f"{address}?uploadType=resumable&upload_id={key}"
    return web.Response(headers={"Location": location, "X-GUploader-UploadID": key})


def _session(call: Call) -> Session:
    """Return the session, which may be cancelled or too old."""
    session = call.server.sessions.get(call.query["upload_id"])
    if session is None or session.bucket != call.bucket_name:
        raise Refusal(404, "notFound", "Not Found")
    if session.cancelled:
        raise Refusal(499, "clientClosedRequest", "Client Closed Request")
    if call.server.clock() > session.started + call.server.session_seconds:
        raise Refusal(404, "uploadSessionExpired", "The upload session has expired.")
    call.identity = session.identity
    return session


def _incomplete(call: Call, session: Session) -> web.Response:
    """Tell how much has come."""
    headers = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
    if call.headers.get("x-guploader-no-308") == "yes":
        return web.Response(headers=headers | {"X-HTTP-Status-Code-Override": "308"})
    return web.Response(status=308, reason="Resume Incomplete", headers=headers)


def _take(session: Session, data: bytes, start: int) -> None:
    """Keep what is new of a piece."""
    known = len(session.data)
    if start > known:
        text = f"The piece begins at byte {start}, and {known} bytes are there."
        raise Refusal(503, "backendError", text)
    session.data += data[known - start :]


async def put_piece(call: Call) -> web.Response:
    """Take a piece of a resumable upload, or tell how much is there."""
    data = await call.body()
    session = _session(call)
    bucket = call.bucket()
    if session.result is not None:
        return reply(call, session.result.resource(call.server.endpoint))
    text = call.headers.get("content-range")
    found = _CONTENT_RANGE.fullmatch(text) if text is not None else None
    if text is not None and found is None:
        raise invalid(f"Failed to parse Content-Range header: {text}", "badRequest")
    first, last, whole = found.groups() if found else ("0", "*", "*")
    total = int(whole) if whole != "*" else session.length
    if found is None:
        total = len(data)
        session.data.clear()
    if session.length is not None and total != session.length:
        raise invalid("The length differs from X-Upload-Content-Length.", "badRequest")
    if first is not None:
        start = int(first)
        if last != "*" and int(last) - start + 1 != len(data):
            wanted = int(last) - start + 1
            text = f"Invalid request.  There were {len(data)} byte(s) in the request body.  There "
            text += f"should have been {wanted} byte(s) (starting at offset {start} and ending at "
            raise invalid(f"{text}offset {last}) according to the Content-Range header.")
        ends = total is not None and start + len(data) >= total
        if not ends:  # the rest is not kept
            data = data[: max(0, (start + len(data)) // CHUNK * CHUNK - start)]
        _take(session, data, start)
    if total is None or len(session.data) < total:
        return _incomplete(call, session)
    if len(session.data) > total:
        raise invalid("More bytes were sent than there should be.")
    blob = finish(call, bucket, session.resource, session.query, bytes(session.data))
    session.result = blob
    session.data.clear()
    return reply(call, blob.resource(call.server.endpoint))


async def cancel_session(call: Call) -> web.Response:
    """Give a resumable upload up."""
    session = _session(call)
    session.cancelled = True
    session.data.clear()
    return web.Response(status=499, reason="Client Closed Request")


HANDLERS = {
    "objects.insert": insert_object,
    "resumable.start": start_session,
    "resumable.put": put_piece,
    "resumable.query": put_piece,
    "resumable.cancel": cancel_session,
}
