"""What goes wrong between here and Google Storage, in the words of :mod:`etcetera.errors`.

Of an error answer only its code and message are shown: the rest may echo what is secret.
Source: Cloud Storage JSON API, "HTTP status and error codes"; XML API, the same.
"""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import aiohttp

from etcetera.errors import (
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NoCredentials,
    NotAllowed,
    RepositoryNotFound,
    StoreError,
)
from etcetera.stores.aiohttp_errors import network_error
from etcetera.stores.common import Refused
from etcetera.stores.gs_endpoint import is_google
from etcetera.stores.place import Place

# What comes of answers that lack something or hold nonsense.
_SENSELESS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
_XML_FIELD = re.compile(r"<(Code|Message|Details)>([^<]*)</\1>")
_NO_BUCKET = re.compile(r"(?i)bucket does not exist")
_REQUESTER_PAYS = re.compile(r"(?i)is a requester pays bucket")
_UNIFORM = re.compile(r"(?i)uniform.bucket.level access|bucket.?policy.?only")
_PREVENTED = re.compile(r"(?i)public.?access.?prevention")
_RETAINED = re.compile(r"(?i)retention policy|under active .*hold")
_HELD = {"retentionPolicyNotMet", "objectUnderActiveHold", "ObjectUnderActiveHold"}
_DAMAGED = re.compile(r"(?i)(?:doesn't|does not) match calculated")
_PASSING = {
    "backendError",
    "internalError",
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "SlowDown",
}


@contextmanager
def answering(place: Place) -> Iterator[None]:
    """Translate whatever goes wrong while an answer is received or interpreted."""
    try:
        yield
    except EtceteraError:
        raise
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        meaning = network_error(error, place.endpoint, place)
        raise meaning from meaning.__cause__
    except _SENSELESS as error:
        reason = place.show(f"{type(error).__name__}: {error}")
        raise NetworkError(
            f"{place.endpoint} did not answer sensibly ({reason}); is it Google Storage?"
        ) from None


def no_bucket(place: Place, *, told: bool = False) -> RepositoryNotFound:
    """Return the error for a bucket that does not exist.

    Args:
        place: Of the bucket.
        told: Whether the server has said so, in Google's words; any server has a 404.
    """
    if not told and not is_google(place.endpoint):
        return RepositoryNotFound(
            f"the bucket {place.bucket} does not exist, or {place.endpoint} is not Google Storage; "
            "create it, or correct url and endpoint_url"
        )
    return RepositoryNotFound(
        f"the bucket {place.bucket} does not exist; create it or correct the URL"
    )


def no_credentials(place: Place) -> NoCredentials:
    """Return the error for a request that has to be signed."""
    usual = (
        "log in with: gcloud auth application-default login; or set google_credentials in "
        "~/.etc.toml to the file of a service account's key"
    )
    return NoCredentials(
        f"{place.url} needs credentials and none were found; {place.login or usual}"
    )


def refusal(
    place: Place,
    status: int,
    body: bytes,
    date: str,
    *,
    expected: Collection[str | int] = (),
    anonymous: bool = False,
) -> EtceteraError:
    """Return the error that an answer means.

    Args:
        place: What the message speaks of.
        status: Of HTTP.
        body: The beginning of it, JSON or XML.
        date: The answer's ``Date``.
        expected: Reasons, codes and statuses to be returned as :class:`Refused`.
        anonymous: Whether the request was made without credentials.
    """
    code, message = _read(body, status)
    text = message.partition("\n")[0]
    said = place.show(f"{code}: {text}" if text else code)
    # A message may hold the name of an object, so that it tells something of its status alone.
    if status == 404 and (_NO_BUCKET.search(message) or code == "NoSuchBucket"):
        return no_bucket(place, told=body.lstrip()[:1] == b"{")
    if status == 400 and (code == "UserProjectMissing" or _REQUESTER_PAYS.search(message)):
        return NotAllowed(
            f"{place.url}: whoever asks has to pay for it ({said}); set google_project to the "
            "project that is to be billed"
        )
    if (status == 400 and _UNIFORM.search(message)) or (
        status in (400, 403, 412) and _PREVENTED.search(message)
    ):
        return NotAllowed(
            f"{place.url} refuses to make an object public ({said}); remove public = true, and let "
            "a policy of the bucket allow everybody to read (allUsers, Storage Object Viewer) if "
            "that is wanted"
        )
    if status == 403 and (code in _HELD or _RETAINED.search(message)):
        return NotAllowed(
            f"{place.url}: what is there must not be replaced or removed yet ({said})"
        )
    if code in expected or status in expected:
        return Refused(f"{place.url}: {said}", code, status)
    if status in (400, 412) and _DAMAGED.search(message):
        return NetworkError(f"{place.url}: what was sent did not arrive as it was ({said})")
    if code in _PASSING or status in (408, 429) or (status >= 500 and status not in (501, 505)):
        return NetworkError(f"{place.endpoint} is in trouble ({said}); try again later")
    if status in (401, 403) and anonymous:
        return no_credentials(place)
    if status == 401:
        return ExpiredCredentials(
            f"{place.url}: the credentials are expired or unknown ({said}); log in again, for "
            f"instance with: gcloud auth application-default login{_clock(date)}"
        )
    if status == 403:
        return NotAllowed(f"{place.url} refuses ({said}); check the credentials and their rights")
    return StoreError(f"{place.url} refuses ({said})")


def _clock(date: str) -> str:
    """What to add where a wrong clock may be the reason: tokens are asked for with a time."""
    from email.utils import parsedate_to_datetime

    try:
        there = parsedate_to_datetime(date).astimezone(UTC)
    except (ValueError, OverflowError):
        return ""
    here = datetime.now(UTC)
    if abs((there - here).total_seconds()) < 300:
        return ""
    return f"; the clock of this machine is wrong: it says {here:%H:%M}, the server {there:%H:%M}"


def _read(body: bytes, status: int) -> tuple[str, str]:
    """Return code and message of an error answer; where there is no code, the status."""
    text = body.decode(errors="replace")
    if text.lstrip()[:1] == "{":
        try:
            error = json.loads(text)["error"]
            reasons = [str(one.get("reason", "")) for one in error.get("errors", ())]
            return next(filter(None, reasons), str(status)), str(error.get("message", ""))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return str(status), ""
    found: dict[str, str] = {}
    for name, value in _XML_FIELD.findall(text[: 1 << 16]):
        found.setdefault(name, value)
    message = " ".join(filter(None, (found.get("Message"), found.get("Details"))))
    return found.get("Code") or str(status), message
