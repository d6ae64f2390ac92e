"""Conditions on requests, in query parameters and in head lines."""

from email.utils import parsedate_to_datetime

from tests.fake_gs.calls import Call
from tests.fake_gs.errors import condition_not_met, not_implemented, not_modified
from tests.fake_gs.model import Blob

_XML_CONDITIONS = (
    "x-goog-if-generation-match",
    "x-goog-if-metageneration-match",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
)


def check_json(call: Call, blob: Blob | None, prefix: str = "if") -> None:
    """Check the conditions of the JSON API.

    Args:
        call: Has them.
        blob: Which they are on; ``None`` if there is none, which is generation 0.
        prefix: ``ifSource`` for those on a source.
    """
    check_query(call.query, blob, prefix)
    if prefix == "if" and blob is not None:
        _check_etags(call, blob.etag, blob)


def check_query(query: dict[str, str], blob: Blob | None, prefix: str = "if") -> None:
    """Check those that are parameters."""
    numbers = {
        "Generation": blob.generation if blob else 0,
        "Metageneration": blob.metageneration if blob else 0,
    }
    for what, number in numbers.items():
        wanted = query.get(f"{prefix}{what}Match")
        if wanted is not None and wanted != str(number):
            raise condition_not_met()
        unwanted = query.get(f"{prefix}{what}NotMatch")
        if unwanted is not None and unwanted == str(number):
            raise not_modified()


def check_xml(call: Call, blob: Blob | None) -> None:
    """Check the conditions of the XML API."""
    headers = call.headers
    for name, number in (
        ("x-goog-if-generation-match", blob.generation if blob else 0),
        ("x-goog-if-metageneration-match", blob.metageneration if blob else 0),
    ):
        wanted = headers.get(name)
        if wanted is not None and wanted != str(number):
            raise condition_not_met(name)
    if blob is not None:
        _check_etags(call, blob.xml_etag, blob)


def refuse_xml_conditions(call: Call) -> None:
    """Refuse all conditions: uploads in parts cannot have any."""
    for name in _XML_CONDITIONS:
        if name in call.headers:
            raise not_implemented(f"The header {name} is not supported in multipart uploads.")


def _check_etags(call: Call, etag: str, blob: Blob) -> None:
    headers = call.headers
    etag = etag.strip('"')
    if (wanted := headers.get("if-match")) is not None and not _among(etag, wanted):
        raise condition_not_met()
    if (unwanted := headers.get("if-none-match")) is not None and _among(etag, unwanted):
        raise not_modified()
    since = headers.get("if-modified-since")
    if since and int(blob.updated) <= parsedate_to_datetime(since).timestamp():
        raise not_modified()
    since = headers.get("if-unmodified-since")
    if since and int(blob.updated) > parsedate_to_datetime(since).timestamp():
        raise condition_not_met("If-Unmodified-Since")


def _among(etag: str, listed: str) -> bool:
    """Whether an entity tag, without quotes, is in a list of some."""
    return any(one.strip().strip('"') in (etag, "*") for one in listed.split(","))
