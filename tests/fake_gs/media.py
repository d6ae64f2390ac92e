"""Sends what objects have in them: whole, in part, or decompressed."""

import re
import zlib
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal
from tests.fake_gs.model import Blob, http_date

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_HEADERS = {
    "contentLanguage": "Content-Language",
    "contentDisposition": "Content-Disposition",
    "cacheControl": "Cache-Control",
    "storageClass": "x-goog-storage-class",
    "customTime": "x-goog-custom-time",
}


def describe(blob: Blob, *, xml: bool) -> CIMultiDict[str]:
    """Return the head lines that tell of an object."""
    headers: CIMultiDict[str] = CIMultiDict()
    for value in blob.hashes:
        headers.add("x-goog-hash", value)
    headers["x-goog-generation"] = str(blob.generation)
    headers["x-goog-metageneration"] = str(blob.metageneration)
    encoding = blob.fields.get("contentEncoding") or "identity"
    headers["x-goog-stored-content-encoding"] = encoding
    headers["x-goog-stored-content-length"] = str(len(blob.data))
    headers["ETag"] = blob.xml_etag if xml else blob.etag
    headers["Last-Modified"] = http_date(blob.updated)
    headers["Content-Type"] = blob.fields.get("contentType") or "application/octet-stream"
    headers.update((line, blob.fields[key]) for key, line in _HEADERS.items() if key in blob.fields)
    for key, value in blob.metadata.items():
        if xml and value.isascii():
            headers[f"x-goog-meta-{key}"] = value
    if blob.components:
        headers["x-goog-component-count"] = str(blob.components)
    if encoding != "identity":
        headers["Vary"] = "Accept-Encoding"
    return headers


def find_range(text: str, size: int) -> tuple[int, int] | None:
    """Return from where to where a Range header wants; ``None`` if it is to be overlooked.

    Raises:
        Refusal: Nothing is there.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise Refusal(
            416,
            "requestedRangeNotSatisfiable",
            "Request range not satisfiable",
            "InvalidRange",
            "The requested range cannot be satisfied.",
            location="Range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


def send(call: Call, blob: Blob) -> web.Response:
    """Return an object's data, as wanted."""
    headers = describe(blob, xml=call.xml)
    data: Any = blob.data
    encoding = blob.fields.get("contentEncoding", "")
    accepted = "gzip" in call.headers.get("accept-encoding", "")
    frozen = "no-transform" in (
        blob.fields.get("cacheControl", "") + call.headers.get("cache-control", "")
    )
    if encoding == "gzip" and not accepted and not frozen:
        if (plain := _gunzip(blob.data)) is not None:
            headers["Warning"] = "214 UploadServer gunzipped"
            response = web.Response(body=plain, headers=headers)
            if call.request.method != "HEAD":
                response.enable_chunked_encoding()
            return response
    elif encoding:
        headers["Content-Encoding"] = encoding
    headers["Accept-Ranges"] = "bytes"
    wanted = call.headers.get("range")
    bounds = find_range(wanted, len(data)) if wanted else None
    if bounds is None:
        return web.Response(body=data, headers=headers)
    start, stop = bounds
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    if not call.xml and not call.server.json_range_hashes:
        headers.popall("x-goog-hash")
    return web.Response(status=206, body=data[start:stop], headers=headers)


def _gunzip(data: bytes) -> bytes | None:
    """Return what was compressed, or ``None`` if it is something else."""
    found = b""
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            found += stream.decompress(data) + stream.flush()
        except zlib.error:
            return None
        if not stream.eof:
            return None
        data = stream.unused_data
    return found
