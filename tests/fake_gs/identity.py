"""Finds out who asks: by tokens, and by signatures of URLs."""

import binascii
import hashlib
from datetime import UTC, datetime
from urllib.parse import quote

from tests.fake_gs.calls import Call
from tests.fake_gs.errors import Refusal, invalid_credentials
from tests.fake_gs.model import Identity

LONGEST = 7 * 24 * 3600
"""Seconds that a signed URL may be good at most."""


def identify(call: Call) -> Identity:
    """Return who asks.

    Raises:
        Refusal: The token or the signature is not good.
    """
    server = call.server
    if call.xml and "x-goog-signature" in {key.lower() for key, _ in call.pairs}:
        return _signer(call)
    if not server.secured:
        return Identity("anyone", None)
    kind, _, text = call.headers.get("authorization", "").partition(" ")
    if not kind:
        return Identity()
    token = server.tokens.get(text)
    if kind.lower() == "bearer" and token is not None and token.expires > server.clock():
        return Identity(token.name, token.permissions)
    if kind.lower() == "bearer" and (found := server.read_assertion(text)) is not None:
        return Identity(found[0].email, found[0].permissions)
    raise invalid_credentials()


def _signer(call: Call) -> Identity:
    """Return whose signature is on a URL (V4)."""
    values = {key.lower(): value for key, value in call.pairs}
    if values.get("x-goog-algorithm") != "GOOG4-RSA-SHA256":
        raise _malformed("X-Goog-Algorithm")
    email, _, scope = values.get("x-goog-credential", "").partition("/")
    if len(scope.split("/")) != 4 or not scope.endswith("/storage/goog4_request"):
        raise _malformed("X-Goog-Credential")
    _check_time(call, values.get("x-goog-date", ""), values.get("x-goog-expires", ""))
    canonical = _canonical_request(call, values.get("x-goog-signedheaders", ""))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"GOOG4-RSA-SHA256\n{values['x-goog-date']}\n{scope}\n{digest}"
    account = call.server.accounts.get(email)
    try:
        signature = binascii.unhexlify(values["x-goog-signature"])
    except ValueError:
        raise _malformed("X-Goog-Signature") from None
    if account is None or not account.verify(signature, text.encode()):
        general = "The request signature we calculated does not match the signature you provided. "
        general += "Check your Google secret key and signing method."
        more = {"StringToSign": text, "CanonicalRequest": canonical}
        raise Refusal(
            403, "forbidden", general, "SignatureDoesNotMatch", "Access denied.", more=more
        )
    return Identity(email, account.permissions)


def _check_time(call: Call, date: str, expires: str) -> None:
    try:
        start = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise _malformed("X-Goog-Date") from None
    if not expires.isdecimal() or not 0 < int(expires) <= LONGEST:
        raise _malformed("X-Goog-Expires")
    now = call.server.clock()
    if now > start + int(expires):
        text = f"Request signature expired at: {datetime.fromtimestamp(start + int(expires), UTC)}"
        raise Refusal(400, "invalid", text, "ExpiredToken", "The provided token has expired.")
    if now < start - 15 * 60:
        raise Refusal(403, "forbidden", "The date is in the future.", "AccessDenied")


def _canonical_request(call: Call, signed: str) -> str:
    """Write the request down as who signed it did."""
    pairs = sorted(
        (quote(key, safe="-_.~"), quote(value, safe="-_.~"))
        for key, value in call.pairs
        if key.lower() != "x-goog-signature"
    )
    lines = []
    for name in signed.split(";"):
        values = [" ".join(one.split()) for one in call.request.headers.getall(name, [])]
        lines.append(f"{name}:{','.join(values)}")
    missing = [
        name
        for name in call.headers
        if name.startswith("x-goog-") and name not in signed.split(";")
    ]
    if "host" not in signed.split(";") or missing:
        text = f"Signed headers lack: {', '.join(missing) or 'host'}"
        raise Refusal(400, "invalid", text, "MalformedSecurityHeader", "Invalid header.")
    payload = call.headers.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD")
    query = "&".join(f"{key}={value}" for key, value in pairs)
    return "\n".join([call.request.method, call.path, query, *lines, "", signed, payload])


def _malformed(name: str) -> Refusal:
    text = "Your request has a malformed header."
    more = {"ParameterName": name}
    return Refusal(400, "invalid", f"{name} is wrong.", "MalformedSecurityHeader", text, more=more)
