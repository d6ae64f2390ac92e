"""From a temporary name to the one that everybody knows."""

import shlex
from urllib.parse import quote

from etcetera.errors import EtceteraError, NotAllowed, StoreError
from etcetera.stores import ObjectInfo
from etcetera.stores.common import Refused
from etcetera.stores.gs_client import Connection, as_json
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_publish import Resource, look

COMPLETE_SECONDS = 600.0
"""Source: XML API, "Complete a multipart upload": it may take several minutes."""
_NO_MOVE = frozenset[str | int]({400, 403, 404, 405, 412, 501})
_NO_REWRITE = frozenset[str | int]({404, 412})
_JSON = {"Content-Type": "application/json"}
"""Google refuses anything else, also where there is no body."""


async def check_retention(connection: Connection) -> None:
    """Refuse to begin in a bucket in which what is temporary could never be removed.

    Raises:
        NotAllowed: It has a retention policy, or holds whatever is new.
    """
    try:
        bucket = await connection.call(
            "GET",
            f"/storage/v1/b/{connection.place.bucket}",
            as_json,
            query={"fields": "retentionPolicy,defaultEventBasedHold"},
            expected={403, 404, 405, 501},
        )
    except Refused:  # not everybody may know; then the move will tell
        return
    if bucket.get("retentionPolicy") or bucket.get("defaultEventBasedHold"):
        raise NotAllowed(
            f"{connection.place.url}: the bucket keeps whatever is written (a retention policy, or "
            "holds), so an archive cannot be put together there; let it fit into one part "
            '(part_size = "5GiB" at most), or use a bucket without'
        )


async def publish_from(
    connection: Connection, key: str, source: str, target: str, condition: str
) -> Resource:
    """Move one version of an object to its name, if that has the generation *condition*.

    Where the bucket, or its rights, know no moves, the object is copied inside the store.

    Raises:
        Refused: The condition does not hold, or the object is gone.
    """
    query = {"ifGenerationMatch": condition, "ifSourceGenerationMatch": source}
    bucket = connection.place.bucket
    if connection.moves:
        try:
            return await connection.call(
                "POST",
                f"{connection.object_path(key)}/moveTo/o/{quote(target, safe='')}",
                as_json,
                query=query,
                headers=_JSON,
                writes=True,
                expected=_NO_MOVE,
                attempts=1,
            )
        except Refused as refusal:
            if refusal.status == 412 or await look(connection, key) is None:
                raise
            connection.moves = False
    path = f"{connection.object_path(key)}/rewriteTo/b/{bucket}/o/{quote(target, safe='')}"
    done = -1
    while True:
        rewritten = await connection.call(
            "POST",
            path,
            as_json,
            query=query,
            headers=_JSON,
            writes=True,
            expected=_NO_REWRITE,
            # With the token a copy goes on where it was; without one, another begins.
            attempts=None if "rewriteToken" in query else 1,
            seconds=COMPLETE_SECONDS,
        )
        with answering(connection.place):
            if rewritten["done"]:
                return dict(rewritten["resource"])
            before, done = done, int(rewritten["totalBytesRewritten"])
            if done <= before:
                raise ValueError("a copy that does not go on")
            query["rewriteToken"] = str(rewritten["rewriteToken"])


async def make_public(connection: Connection, key: str, info: ObjectInfo) -> None:
    """Let everybody read one version of an object; a move may have left that behind.

    Raises:
        StoreError: It is published, and perhaps not public.
    """
    try:
        await connection.call(
            "POST",
            f"{connection.object_path(key)}/acl",
            as_json,
            query={"generation": info.etag},
            headers=_JSON,
            body=(b'{"entity": "allUsers", "role": "READER"}',),
            writes=True,
        )
    except EtceteraError as error:
        command = [
            "gcloud",
            "storage",
            "objects",
            "update",
            f"gs://{connection.place.bucket}/{key}",
        ]
        command.append("--add-acl-grant=entity=AllUsers,role=READER")
        raise StoreError(
            f"{info.key} was published, but perhaps not for everybody ({error}); if so, let them "
            f"read it with: {shlex.join(command)}"
        ) from error
