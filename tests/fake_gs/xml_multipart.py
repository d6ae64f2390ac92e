"""Uploads in parts, by the XML API."""

import secrets
import xml.etree.ElementTree as ET
from itertools import pairwise
from xml.sax.saxutils import escape

from aiohttp import web
from multidict import CIMultiDict

from tests.fake_gs.calls import Call
from tests.fake_gs.conditions import refuse_xml_conditions
from tests.fake_gs.errors import Refusal, invalid, no_upload, wrong_digest
from tests.fake_gs.model import Blob, Bucket, Multipart, Part, crc32c, rfc3339
from tests.fake_gs.uploads import read_hash_header
from tests.fake_gs.xml_api import check_digests, may_write, read_acl, read_fields

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
MOST_PARTS = 10_000
LONGEST_PAGE = 1000


def xml(root: str, inner: str, headers: CIMultiDict[str] | None = None) -> web.Response:
    """Answer with XML."""
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root} xmlns='{NAMESPACE}'>{inner}</{root}>"
    return web.Response(
        body=text.encode(), content_type="application/xml", charset="UTF-8", headers=headers
    )


def element(name: str, text: object) -> str:
    """Return an element with text in it."""
    return f"<{name}>{escape(str(text))}</{name}>"


def _upload(call: Call, bucket: Bucket) -> Multipart:
    found = bucket.uploads.get(call.query["uploadId"])
    if found is None or found.key != call.name:
        raise no_upload()
    return found


async def initiate(call: Call) -> web.Response:
    """Begin an upload."""
    body = await call.body()
    server, bucket = call.server, call.bucket()
    call.need("storage.multipartUploads.create", bucket)
    call.need("storage.objects.create", bucket)
    refuse_xml_conditions(call)
    if body:
        raise invalid("A multipart upload begins without a body.")
    fields, metadata = read_fields(call)
    acl = read_acl(call)
    trial = server.new_blob(bucket.name, call.name, b"", {}, {})
    server.apply_acl(bucket, trial, acl)
    key = secrets.token_urlsafe(48)
    bucket.uploads[key] = Multipart(call.name, server.clock(), fields, metadata, acl)
    inner = element("Bucket", bucket.name) + element("Key", call.name) + element("UploadId", key)
    return xml("InitiateMultipartUploadResult", inner)


async def put_part(call: Call) -> web.Response:
    """Take a part."""
    data = await call.body()
    bucket = call.bucket()
    call.need("storage.multipartUploads.create", bucket)
    call.need("storage.objects.create", bucket)
    refuse_xml_conditions(call)
    number = call.integer("partNumber")
    if number is None or not 1 <= number <= MOST_PARTS:
        text = f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive."
        raise invalid(text)
    upload = _upload(call, bucket)
    check_digests(call, data)
    part = upload.parts[number] = Part(data, call.server.clock())
    headers = CIMultiDict({"ETag": part.etag})
    headers.add("x-goog-hash", f"crc32c={crc32c(data)}")
    headers.add("x-goog-hash", f"md5={part.md5}")
    return web.Response(headers=headers, content_type="text/html")


def _page(call: Call, parameter: str) -> int:
    most = call.integer(parameter)
    if most is not None and most < 0:
        raise invalid(f"{parameter} must not be negative.")
    return LONGEST_PAGE if most is None else min(most, LONGEST_PAGE)


async def list_parts(call: Call) -> web.Response:
    """List the parts of an upload, page by page."""
    bucket = call.bucket()
    call.need("storage.multipartUploads.listParts", bucket)
    upload, most = _upload(call, bucket), _page(call, "max-parts")
    after = call.integer("part-number-marker") or 0
    numbers = sorted(number for number in upload.parts if number > after)
    shown, truncated = numbers[:most], len(numbers) > most
    inner = element("Bucket", bucket.name) + element("Key", call.name)
    inner += element("UploadId", call.query["uploadId"])
    inner += element("StorageClass", upload.fields.get("storageClass", bucket.storage_class))
    inner += element("PartNumberMarker", after)
    inner += element("NextPartNumberMarker", shown[-1]) if shown else ""
    inner += element("MaxParts", most) + element("IsTruncated", str(truncated).lower())
    for number in shown:
        part = upload.parts[number]
        one = element("PartNumber", number) + element("LastModified", rfc3339(part.at))
        inner += f"<Part>{one}{element('ETag', part.etag)}{element('Size', len(part.data))}</Part>"
    return xml("ListPartsResult", inner)


async def list_uploads(call: Call) -> web.Response:
    """List the uploads in a bucket, page by page."""
    bucket, query = call.bucket(), call.query
    call.need("storage.multipartUploads.list", bucket)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker, id_marker = query.get("key-marker", ""), query.get("upload-id-marker", "")
    most = _page(call, "max-uploads")
    marker = (key_marker.encode(), id_marker)
    found: dict[tuple[bytes, str], str] = {}
    for upload_id, upload in bucket.uploads.items():
        name = upload.key
        stop = name.find(delimiter, len(prefix)) if delimiter else -1
        if not name.startswith(prefix):
            continue
        if stop >= 0:
            folder = name[: stop + len(delimiter)]
            found[folder.encode(), ""] = f"<CommonPrefixes>{element('Prefix', folder)}"
            found[folder.encode(), ""] += "</CommonPrefixes>"
            continue
        one = element("Key", name) + element("UploadId", upload_id)
        one += element("StorageClass", upload.fields.get("storageClass", bucket.storage_class))
        found[name.encode(), upload_id] = (
            f"<Upload>{one}{element('Initiated', rfc3339(upload.started))}</Upload>"
        )
    places = sorted(found)
    if key_marker and id_marker:
        places = [place for place in places if place > marker]
    elif key_marker:
        places = [place for place in places if place[0] > marker[0]]
    shown, truncated = places[:most], len(places) > most
    inner = element("Bucket", bucket.name) + element("KeyMarker", key_marker)
    inner += element("UploadIdMarker", id_marker)
    if truncated and shown:
        inner += element("NextKeyMarker", shown[-1][0].decode())
        inner += element("NextUploadIdMarker", shown[-1][1])
    inner += element("Prefix", prefix) + element("Delimiter", delimiter)
    inner += element("MaxUploads", most) + element("IsTruncated", str(truncated).lower())
    inner += "".join(found[place] for place in shown)
    return xml("ListMultipartUploadsResult", inner)


def _wanted(body: bytes) -> list[tuple[int, str]]:
    """Return the numbers and entity tags that a request to complete has."""
    malformed = Refusal(
        400,
        "invalid",
        "The XML you provided was not well-formed or did not validate against our schema.",
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our schema.",
    )
    try:
        root = ET.fromstring(body)  # noqa: S314 -- from a test
        found = [
            (
                int(part.findtext("{*}PartNumber") or part.findtext("PartNumber") or ""),
                (part.findtext("{*}ETag") or part.findtext("ETag") or "").strip('"'),
            )
            for part in root
        ]
    except (ET.ParseError, ValueError):
        raise malformed from None
    if not found or not root.tag.endswith("CompleteMultipartUpload"):
        raise malformed
    return found


def _assemble(call: Call, upload: Multipart, wanted: list[tuple[int, str]]) -> bytes:
    numbers = [number for number, _ in wanted]
    if any(first >= second for first, second in pairwise(numbers)):
        text = "The list of parts was not in ascending order. The parts list must be specified "
        raise _wrong("InvalidPartOrder", f"{text}in order by part number.")
    for number, etag in wanted:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag:
            text = "One or more of the specified parts could not be found. The part might not "
            text += "have been uploaded, or the specified entity tag might not have matched the "
            raise _wrong("InvalidPart", f"{text}part's entity tag.")
    if any(len(upload.parts[number].data) < call.server.least_part for number in numbers[:-1]):
        text = "Your proposed upload is smaller than the minimum object size specified in your "
        raise _wrong("EntityTooSmall", f"{text}request.")
    return b"".join(upload.parts[number].data for number in numbers)


def _wrong(code: str, text: str) -> Refusal:
    return Refusal(400, "invalid", text, code, text)


async def complete(call: Call) -> web.Response:
    """Make an object of the parts; who asks again is told again."""
    body = await call.body()
    server, bucket = call.server, call.bucket()
    call.need("storage.multipartUploads.create", bucket)
    may_write(call, bucket)
    refuse_xml_conditions(call)
    key = call.query["uploadId"]
    if server.remembers_uploads and (made := bucket.ended.get(key)) is not None:
        return _completed(call, made)
    upload = _upload(call, bucket)
    data = _assemble(call, upload, _wanted(body))
    told = read_hash_header(call).get("crc32c")
    if told is not None and told not in (crc32c(data), crc32c(body)):
        raise wrong_digest("CRC32C", told, crc32c(data))
    blob = server.new_blob(bucket.name, call.name, data, upload.fields, upload.metadata)
    blob.has_md5 = False
    server.apply_acl(bucket, blob, upload.acl)
    server.store(bucket, blob)
    del bucket.uploads[key]
    bucket.ended[key] = blob
    return _completed(call, blob)


def _completed(call: Call, blob: Blob) -> web.Response:
    headers = CIMultiDict({"ETag": blob.xml_etag})
    headers.add("x-goog-hash", f"crc32c={blob.crc32c}")
    if call.server.complete_tells_generation:
        headers["x-goog-generation"] = str(blob.generation)
        headers["x-goog-metageneration"] = "1"
    inner = element("Location", f"http://{call.request.host}{call.path}")
    inner += element("Bucket", blob.bucket) + element("Key", blob.name)
    return xml("CompleteMultipartUploadResult", inner + element("ETag", blob.xml_etag), headers)


async def abort(call: Call) -> web.Response:
    """Forget an upload and its parts; that may be asked for twice."""
    server, bucket = call.server, call.bucket()
    call.need("storage.multipartUploads.abort", bucket)
    key = call.query["uploadId"]
    if server.remembers_uploads and bucket.ended.get(key, bucket) is None:
        return web.Response(status=204)
    _upload(call, bucket)
    del bucket.uploads[key]
    bucket.ended[key] = None
    return web.Response(status=204)


HANDLERS = {
    "xml.initiate": initiate,
    "xml.part": put_part,
    "xml.parts": list_parts,
    "xml.uploads": list_uploads,
    "xml.complete": complete,
    "xml.abort": abort,
}
