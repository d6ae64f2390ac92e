"""Questions to Google Storage that are bounded in time; nothing is written."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import anyio

from etcetera.errors import NetworkError
from etcetera.findings import Finding, fine, problem, warning
from etcetera.stores import ObjectInfo
from etcetera.stores.common import Refused
from etcetera.stores.gs_client import Connection, Query, as_json
from etcetera.stores.gs_errors import answering
from etcetera.stores.ranges import parse_content_range

ANSWER_SECONDS = 20.0
"""How long to wait for the answer to one question."""
ATTEMPTS = 2
"""How often a question is asked."""
_NO_GENERATION = "1"
"""Of no version of anything: they are times, in microseconds."""
_FIRST, _STOP = 2, 10


async def ask(
    connection: Connection, path: str, query: Query, expected: Collection[str | int]
) -> dict[str, Any]:
    """Ask the JSON API for something.

    Raises:
        Refused: The answer was an expected error.
        NetworkError: There was none in time, or no sensible one.
        EtceteraError: Any other.
    """
    with answering(connection.place), anyio.fail_after(ANSWER_SECONDS):
        return await connection.call(
            "GET", path, as_json, query=query, expected=expected, attempts=ATTEMPTS
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """What came of a question for a piece of an object."""

    content_range: str
    generation: str


async def check_reading(connection: Connection, found: ObjectInfo) -> list[Finding]:
    """Ask for a piece of an object; and for one of a version that is not there.

    Args:
        connection: To the bucket.
        found: The object, of 16 bytes at least; its key as the bucket calls it.

    Raises:
        EtceteraError: No answer, or another than was thought of.
    """
    try:
        piece = await _read(connection, found.key, found.etag, {401, 403, 404, 412, 416})
    except Refused as refusal:
        return [
            problem(
                "read",
                f"{found.key} cannot be read ({refusal}): etc pull cannot work",
                "ask the bucket's owner for the right storage.objects.get",
            )
        ]
    if parse_content_range(piece.content_range) == (_FIRST, _STOP, found.size):
        findings = [fine("ranges", "single pieces of an archive can be fetched")]
    else:
        findings = [
            problem(
                "ranges",
                "the server, or a proxy before it, ignores byte ranges: etcetera cannot read",
                "check endpoint_url, and what lies between here and the server",
            )
        ]
    try:
        piece = await _read(connection, found.key, _NO_GENERATION, {404, 412})
    except Refused:
        return [*findings, fine("one version", "an archive replaced while it is read is noticed")]
    if piece.generation:
        text = "the server gives another generation than was asked for, and says which"
        advice = "do not replace what others may be pulling"
        return [*findings, warning("one version", text, advice)]
    return [
        *findings,
        problem(
            "one version",
            "the server ignores generations and tells none: reading may mix two versions",
            "never replace an archive there: push every version under a name of its own",
        ),
    ]


async def _read(
    connection: Connection, key: str, generation: str, expected: Collection[str | int]
) -> _Piece:
    """Ask for eight bytes of one version, once more if there is no answer."""
    query = {"alt": "media", "generation": generation}
    headers = {
        "Range": f"bytes={_FIRST}-{_STOP - 1}",
        "Accept-Encoding": "gzip",  # as it is, not unpacked
        "Cache-Control": "no-transform",
    }
    path = connection.object_path(key)
    for attempt in range(ATTEMPTS):
        try:
            with answering(connection.place), anyio.fail_after(ANSWER_SECONDS):
                async with connection.stream(path, query, headers, expected) as answer:
                    told = answer.headers
                    return _Piece(told.get("Content-Range", ""), told.get("x-goog-generation", ""))
        except NetworkError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")
