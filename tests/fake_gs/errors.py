"""How Google refuses: one refusal, told in JSON or in XML."""

import json
from collections.abc import Mapping
from xml.sax.saxutils import escape

from aiohttp import web

UNIFORM = "https://cloud.google.com/storage/docs/uniform-bucket-level-access"


class Refusal(Exception):
    """Ends a call with an error."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        code: str = "InvalidArgument",
        text: str = "Invalid argument.",
        *,
        location: str = "",
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
    ):
        """Make one.

        Args:
            status: Of the answer.
            reason: What JSON calls it.
            message: For people; XML has it as details.
            code: What XML calls it.
            text: The message in XML.
            location: Which header of the request is to blame.
            headers: More head lines of the answer.
            more: More elements in XML.
        """
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.code = code
        self.text = text
        self.location = location
        self.headers = dict(headers or {})
        self.more = dict(more or {})

    def as_json(self) -> web.Response:
        """Return the answer of the JSON API."""
        if self.status == 304:
            return web.Response(status=304, headers=self.headers)
        error = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.location:
            error |= {"locationType": "header", "location": self.location}
        body = {"error": {"code": self.status, "message": self.message, "errors": [error]}}
        return web.Response(
            status=self.status,
            headers=self.headers,
            body=json.dumps(body).encode(),
            content_type="application/json",
            charset="UTF-8",
        )

    def as_text(self) -> web.Response:
        """Return what the JSON API answers to who asked for data."""
        if self.status == 304:
            return self.as_json()
        return web.Response(
            status=self.status,
            headers=self.headers,
            body=self.message.encode(),
            content_type="text/html",
            charset="UTF-8",
        )

    def as_xml(self) -> web.Response:
        """Return the answer of the XML API."""
        if self.status == 304:
            return self.as_json()
        elements = {"Code": self.code, "Message": self.text, **self.more}
        if self.code != "AuthenticationRequired":
            elements["Details"] = self.message
        inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
        return web.Response(
            status=self.status,
            headers=self.headers,
            body=f"<?xml version='1.0' encoding='UTF-8'?><Error>{inner}</Error>".encode(),
            content_type="application/xml",
            charset="UTF-8",
        )


def invalid(message: str, reason: str = "invalid") -> Refusal:
    """Return the refusal of a senseless request."""
    return Refusal(400, reason, message)


def no_bucket() -> Refusal:
    """Return the refusal of a bucket that is not there."""
    text = "The specified bucket does not exist."
    return Refusal(404, "notFound", text, "NoSuchBucket", text)


def no_object(bucket: str, name: str) -> Refusal:
    """Return the refusal of an object that is not there."""
    text = "The specified key does not exist."
    return Refusal(404, "notFound", f"No such object: {bucket}/{name}", "NoSuchKey", text)


def no_upload() -> Refusal:
    """Return the refusal of a multipart upload that is not there."""
    text = "The specified upload does not exist."
    more = "The upload ID may be invalid, or the upload may have been aborted or completed."
    return Refusal(404, "notFound", more, "NoSuchUpload", text)


def condition_not_met(header: str = "If-Match") -> Refusal:
    """Return the refusal because of a condition."""
    text = "At least one of the pre-conditions you specified did not hold."
    return Refusal(412, "conditionNotMet", text, "PreconditionFailed", text, location=header)


def not_modified() -> Refusal:
    """Return the answer to who has it already."""
    return Refusal(304, "notModified", "Not Modified")


def uniform_access(doing: str = "insert legacy ACL for an object") -> Refusal:
    """Return the refusal of access control lists where the bucket's policy rules."""
    return invalid(
        f"Cannot {doing} when uniform bucket-level access is enabled. Read more at {UNIFORM}"
    )


def public_access_prevented() -> Refusal:
    """Return the refusal of giving to everyone where that is forbidden."""
    text = "The member bindings allUsers and allAuthenticatedUsers are not allowed since "
    text += "public access prevention is enforced."
    return Refusal(412, "conditionNotMet", text, "PreconditionFailed", text, location="If-Match")


def retained(path: str, until: str) -> Refusal:
    """Return the refusal of removing what is to be kept."""
    text = f"Object '{path}' is subject to bucket's retention policy or object retention and "
    text += f"cannot be deleted or overwritten until {until}"
    return Refusal(403, "retentionPolicyNotMet", text, "RetentionPolicyNotMet", text)


def held(path: str, kind: str) -> Refusal:
    """Return the refusal of removing what is held."""
    text = f"Object '{path}' is under active {kind} hold and cannot be deleted, overwritten or "
    text += "archived until hold is removed."
    return Refusal(403, "objectUnderActiveHold", text, "ObjectUnderActiveHold", text)


def user_project_missing() -> Refusal:
    """Return the refusal of a request nobody pays for."""
    text = "Bucket is a requester pays bucket but no user project provided."
    return Refusal(400, "required", text, "UserProjectMissing", text)


def wrong_digest(kind: str, told: str, found: str) -> Refusal:
    """Return the refusal of data that are not what they should be."""
    text = f'Provided {kind} "{told}" doesn\'t match calculated {kind} "{found}".'
    general = "The Content-MD5 or x-goog-hash you specified did not match what we received."
    return Refusal(400, "invalid", text, "BadDigest", general)


def not_implemented(what: str) -> Refusal:
    """Return the refusal of what the XML API cannot do: with status 400, as Google says."""
    text = "A header or query you provided requested a function that is not implemented."
    return Refusal(400, "notImplemented", what, "NotImplemented", text)


def invalid_credentials() -> Refusal:
    """Return the refusal of a token that is unknown or expired."""
    challenge = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'
    return Refusal(
        401,
        "authError",
        "Invalid Credentials",
        "AuthenticationRequired",
        "Authentication required.",
        location="Authorization",
        headers={"WWW-Authenticate": challenge},
    )


def access_denied(who: str, permission: str, *, xml: bool) -> Refusal:
    """Return the refusal of what someone may not do, or nobody in particular."""
    kind = "object" if permission.startswith("storage.objects.") else "bucket"
    kind = "bucket" if permission == "storage.objects.list" else kind
    text = f"{who or 'Anonymous caller'} does not have {permission} access to the Google Cloud "
    text += f"Storage {kind}. Permission '{permission}' denied on resource (or it may not exist)."
    if who or xml:
        return Refusal(403, "forbidden", text, "AccessDenied", "Access denied.")
    challenge = 'Bearer realm="https://accounts.google.com/"'
    return Refusal(
        401,
        "required",
        text,
        location="Authorization",
        headers={"WWW-Authenticate": challenge},
    )
