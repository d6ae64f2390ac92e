"""What a bucket of Google Storage allows whom, and what it does by itself, as far as it tells."""

from collections.abc import Mapping
from typing import Any

from etcetera.findings import Finding, fine, problem, unknown, warning
from etcetera.stores.common import Refused
from etcetera.stores.gs_client import Connection
from etcetera.stores.gs_errors import answering
from etcetera.stores.gs_questions import ask
from etcetera.stores.reach import span

Rights = frozenset[str]
GET = "storage.objects.get"
LIST = "storage.objects.list"
CREATE = "storage.objects.create"
DELETE = "storage.objects.delete"
MOVE = "storage.objects.move"
ACCESS = "storage.objects.setIamPolicy"
_UPLOAD = "storage.multipartUploads.create"
_ABORT = "storage.multipartUploads.abort"
_UPLOADS = "storage.multipartUploads.list"
_MUST = {
    GET: "etc pull and etc cat cannot work",
    LIST: "etc ls -r cannot work",
}
_MAY = {
    CREATE: "etc push cannot work",
    DELETE: "etc push --force cannot replace anything",
    _UPLOAD: "etc push of more than one part cannot work",
    _ABORT: "what a push that breaks off has sent stays there",
    _UPLOADS: "etc clean -r does not see all that is left",
}
_READER = "Storage Object Viewer (roles/storage.objectViewer)"
_WRITER = "Storage Object User (roles/storage.objectUser)"
_FIELDS = (
    "location,storageClass,iamConfiguration,retentionPolicy,defaultEventBasedHold,billing,"
    "versioning,softDeletePolicy"
)
_REFUSALS = frozenset[str | int]({400, 401, 403, 404, 405, 501})


async def find_rights(connection: Connection, *, public: bool) -> Rights | None:
    """Return what whoever asks may do in the bucket; ``None`` if the server does not tell.

    Raises:
        EtceteraError: No answer, or no sensible one.
    """
    few = [GET, LIST, CREATE, DELETE]
    many = [*few, MOVE, _UPLOAD, _ABORT, _UPLOADS, *([ACCESS] if public else [])]
    path = f"/storage/v1/b/{connection.place.bucket}/iam/testPermissions"
    for asked in (many, few):  # a server may not know all of them
        try:
            answer = await ask(connection, path, {"permissions": asked}, _REFUSALS)
        except Refused:
            continue
        with answering(connection.place):
            found = {str(one) for one in answer.get("permissions", ())}
        return frozenset(found | (set(many) - set(asked) if found else set()))
    return None


def judge_rights(rights: Rights | None, *, anonymous: bool, public: bool) -> Finding:
    """Say which commands cannot work for lack of which right."""
    check = "rights"
    if rights is None:
        return unknown(check, "the server does not tell what the credentials may do")
    if missing := [right for right in _MUST if right not in rights]:
        text = "; ".join(f"without {right} {_MUST[right]}" for right in missing)
        return problem(check, text, f"ask the bucket's owner for the role {_READER}")
    if anonymous and CREATE not in rights:
        return fine(check, "everybody may read, and nobody write without credentials")
    missing = [right for right in _MAY if right not in rights]
    text = "; ".join(f"without {right} {_MAY[right]}" for right in missing)
    if DELETE in missing and CREATE not in missing and MOVE not in rights:
        text += ", and etc push of more than one part leaves what is temporary"
    advice = f"ask the bucket's owner for the role {_WRITER}, if you want to push"
    if CREATE in missing:
        only = f"the credentials may only read: without {CREATE} {_MAY[CREATE]}"
        return warning(check, only, advice)
    if missing:
        return warning(check, text, advice)
    if public and ACCESS not in rights:
        return problem(
            check,
            f"without {ACCESS} etc push cannot make an archive public, as public = true wants",
            "remove public = true, or ask the bucket's owner for the role Storage Object Admin "
            "(roles/storage.objectAdmin)",
        )
    return fine(check, "the credentials may read, write and remove")


async def find_features(connection: Connection) -> dict[str, Any] | None:
    """Return how the bucket is set up; ``None`` if that is not told to everybody.

    Raises:
        EtceteraError: No answer, or no sensible one.
    """
    path = f"/storage/v1/b/{connection.place.bucket}"
    try:
        return await ask(connection, path, {"fields": _FIELDS}, _REFUSALS)
    except Refused:
        return None


def is_uniform(bucket: Mapping[str, Any]) -> bool:
    """Whether the bucket's policy alone rules who may read, and no object has its own list."""
    access = bucket.get("iamConfiguration") or {}
    return bool((access.get("uniformBucketLevelAccess") or {}).get("enabled"))


def keeps(bucket: Mapping[str, Any] | None) -> bool:
    """Whether what is written can be neither replaced nor removed for a while."""
    return bool(bucket and (bucket.get("retentionPolicy") or bucket.get("defaultEventBasedHold")))


def judge_features(
    connection: Connection, bucket: Mapping[str, Any] | None, *, public: bool, reads_only: bool
) -> list[Finding]:
    """Say what follows from how the bucket is set up.

    Args:
        connection: To the bucket.
        bucket: As the JSON API describes it, if it does.
        public: Whether what is pushed should be readable by everybody.
        reads_only: Whether nothing can be pushed anyway.

    Raises:
        NetworkError: The description makes no sense.
    """
    if bucket is None:
        text = "where it is and how it is set up is not known: that takes storage.buckets.get"
        return [unknown("bucket", text)]
    place = connection.place
    with answering(place):
        where = place.show(bucket.get("location") or "an unknown place")
        kind = place.show(bucket.get("storageClass") or "unknown")
        found = [fine("bucket", f"{place.bucket} is in {where}, storage class {kind}")]
        if public:
            found.append(_judge_public(bucket))
        if keeps(bucket):
            found.append(_judge_retention(bucket, reads_only=reads_only))
        found += _judge_history(bucket)
        if (bucket.get("billing") or {}).get("requesterPays"):
            text = f"requests are billed to the project {place.show(connection.project or '')}"
            found.append(fine("billing", text))
    return found


def _judge_public(bucket: Mapping[str, Any]) -> Finding:
    access = bucket.get("iamConfiguration") or {}
    if access.get("publicAccessPrevention") == "enforced":
        return problem(
            "public",
            "public = true cannot work: the bucket prevents public access",
            "remove public = true; or, if everybody is to read, end the prevention and let a "
            "policy of the bucket allow it (allUsers, Storage Object Viewer)",
        )
    if is_uniform(bucket):
        return problem(
            "public",
            "public = true cannot work: the bucket has uniform access, so no object can be made "
            "public by itself",
            "remove public = true, and let a policy of the bucket allow everybody to read "
            "(allUsers, Storage Object Viewer)",
        )
    return fine("public", "the bucket lets single objects be public")


def _judge_retention(bucket: Mapping[str, Any], *, reads_only: bool) -> Finding:
    policy = bucket.get("retentionPolicy")
    if policy:
        why = f"its retention policy keeps what is written for {span(_seconds(policy))}"
    else:
        why = "it holds whatever is new until somebody ends that"
    if reads_only:
        return fine("retention", f"{why}; that does not matter to whoever only reads")
    return problem(
        "retention",
        f"{why}: an archive of more than one part cannot be put together there, because what is "
        "temporary could not be removed; etc push --force cannot replace anything",
        'let archives fit into one part (part_size = "5GiB" at most), or use a bucket without',
    )


def _seconds(policy: Mapping[str, Any]) -> float:
    seconds = policy.get("retentionPeriod") or policy.get("retentionDurationSeconds") or 0
    return float(seconds)


def _judge_history(bucket: Mapping[str, Any]) -> list[Finding]:
    """Say what becomes of what is replaced or removed."""
    kept = []
    if (bucket.get("versioning") or {}).get("enabled"):
        kept.append("as old versions until a lifecycle rule removes them")
    if seconds := _seconds(bucket.get("softDeletePolicy") or {}):
        kept.append(f"for {span(seconds)} (soft delete)")
    if not kept:
        return []
    text = "what is replaced or removed is kept, and paid for: " + "; ".join(kept)
    return [fine("old archives", text)]
