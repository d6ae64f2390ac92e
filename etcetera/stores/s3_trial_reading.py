"""Whether single pieces of one version of an object can be had; nothing is written."""

from etcetera.findings import Finding, fine, problem, warning
from etcetera.stores import ObjectInfo
from etcetera.stores.common import Refused
from etcetera.stores.ranges import parse_content_range
from etcetera.stores.s3_client import Connection
from etcetera.stores.s3_publish import plain_etag

ATTEMPTS = 2
"""How often a question is asked."""
CONDITION_HEEDED = frozenset[str | int]({"PreconditionFailed", 412})
OTHER_ETAG = f'"{"0" * 32}"'
"""Of no version of anything."""


async def check_reading(connection: Connection, found: ObjectInfo) -> list[Finding]:
    """Ask for a piece of an object; and for one of a version that is not there.

    Args:
        connection: To the bucket.
        found: The object, of 16 bytes at least; its key as the bucket calls it.
    """
    try:
        answer = await connection.call(
            "get_object",
            expected={403, 404, 416},
            attempts=ATTEMPTS,
            Key=found.key,
            Range="bytes=2-9",
        )
    except Refused as refusal:
        return [
            problem(
                "read",
                f"{found.key} cannot be read ({refusal}): etc pull cannot work",
                "ask the bucket's owner for the right s3:GetObject",
            )
        ]
    answer["Body"].close()
    if parse_content_range(answer.get("ContentRange", "")) != (2, 10, found.size):
        findings = [
            problem(
                "ranges",
                "the server, or a proxy before it, ignores byte ranges: etcetera cannot read",
                "check endpoint_url, and what lies between here and the server",
            )
        ]
    else:
        findings = [fine("ranges", "single pieces of an archive can be fetched")]
    try:
        answer = await connection.call(
            "get_object",
            expected=CONDITION_HEEDED,
            attempts=ATTEMPTS,
            Key=found.key,
            Range="bytes=2-9",
            IfMatch=OTHER_ETAG,
        )
    except Refused:
        return [*findings, fine("one version", "an archive replaced while it is read is noticed")]
    answer["Body"].close()
    if plain_etag(answer):
        text = "the server ignores If-Match: that an archive was replaced is seen by its ETag alone"
        return [
            *findings,
            warning("one version", text, "do not replace what others may be pulling"),
        ]
    return [
        *findings,
        problem(
            "one version",
            "the server ignores If-Match and sends no ETag: reading may mix two versions",
            "never replace an archive there: push every version under a name of its own",
        ),
    ]
