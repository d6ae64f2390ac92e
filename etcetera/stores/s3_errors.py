"""What goes wrong between here and an S3 server, in the words of :mod:`etcetera.errors`.

Of an error answer only its code and message are shown: the rest may echo keys and signatures.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from etcetera.errors import (
    ConfigError,
    EtceteraError,
    ExpiredCredentials,
    NetworkError,
    NoCredentials,
    NotAllowed,
    RepositoryNotFound,
    StoreError,
)
from etcetera.stores.aiohttp_errors import is_nonsense, reason_of
from etcetera.stores.common import Refused
from etcetera.stores.place import Place

_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidToken",
    "RequestExpired",
    "TokenRefreshRequired",
}
ELSEWHERE = {
    "301",  # of a HEAD request, whose answer has no code
    "307",
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
"""What is answered for a bucket of another region, or at another server."""
_NO_LISTS = {"AccessControlListNotSupported", "InvalidBucketAclWithObjectOwnership"}
_REFUSED_LISTS = {*_NO_LISTS, "AccessDenied", "NotImplemented", "InvalidArgument"}
_PASSING = {
    "BadDigest",  # damaged on the way
    "BandwidthLimitExceeded",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
}


# What comes of answers that lack something or hold nonsense, in botocore and here.
_SENSELESS = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError)


@contextmanager
def answering(
    place: Place, *, expected: Collection[str | int] = (), public: bool = False
) -> Iterator[None]:
    """Translate whatever goes wrong while an answer is received or interpreted.

    The arguments are those of :func:`translate`.
    """
    try:
        yield
    except EtceteraError:
        raise
    except Exception as error:
        meaning = translate(error, place, expected=expected, public=public)
        if meaning is None and isinstance(error, _SENSELESS):
            reason = place.show(f"{type(error).__name__}: {error}")
            meaning = NetworkError(
                f"{place.endpoint} did not answer sensibly ({reason}); is it an S3 server?"
            )
        if meaning is None:
            raise
        # A message that had to be masked must not come back through the cause.
        raise meaning from place.cause(error)


def translate(
    error: Exception, place: Place, *, expected: Collection[str | int] = (), public: bool = False
) -> EtceteraError | None:
    """Say what *error* means; ``None`` if it does not come from talking to a server.

    Args:
        error: Raised by botocore, aiohttp or a timeout; one of ours stays what it is.
        place: What the message speaks of.
        expected: Error codes and statuses to be raised as :class:`Refused`.
        public: Whether the request asked to make an object public.
    """
    import aiohttp
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, EtceteraError):
        return error
    if isinstance(error, exceptions.ClientError):
        return _translate_answer(error.response, place, expected, public)
    if isinstance(error, exceptions.NoCredentialsError):
        return no_credentials(place)
    if isinstance(error, exceptions.CredentialRetrievalError):
        # Some of these quote whatever a program of the user's has written.
        return ExpiredCredentials(
            f"{place.url}: no credentials can be had: what the AWS profile names "
            f"({place.show(error.kwargs.get('provider', 'a program'))}) fails; try it alone, with: "
            "aws sts get-caller-identity"
        )
    if isinstance(
        error,
        (
            exceptions.TokenRetrievalError,
            exceptions.SSOError,
            exceptions.RefreshWithMFAUnsupportedError,
        ),
    ):
        return ExpiredCredentials(
            f"{place.url}: no credentials can be had ({place.show(error)}); log in again, for "
            "instance with: aws sso login"
        )
    if isinstance(
        error,
        (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.IncompleteReadError,
            aiohttp.ClientError,
            ConnectionError,
            TimeoutError,
        ),
    ):
        return NetworkError(f"{_describe_failure(error, place)}; check the network and try again")
    if isinstance(error, ResponseParserError):
        return NetworkError(
            f"{place.endpoint} does not answer like an S3 server; check endpoint_url, and "
            "what lies between here and the server"
        )
    if isinstance(error, RuntimeError) and "credentials are still expired" in str(error):
        return ExpiredCredentials(f"{place.url}: the credentials are expired; renew them")
    if isinstance(error, exceptions.BotoCoreError):
        return ConfigError(f"{place.url}: {place.show(error)}; check the settings")
    return None


def no_credentials(place: Place) -> NoCredentials:
    """Return the error for a request that has to be signed."""
    return NoCredentials(
        f"{place.url} needs credentials and none were found; set aws_access_key_id and "
        "aws_secret_access_key, or a profile, in ~/.etc.toml or the usual AWS way"
    )


def region_name(told: object) -> str:
    """Return what a server says its region is; nothing if that cannot be the name of one."""
    return str(told) if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", str(told or "")) else ""


def _describe_failure(error: Exception, place: Place) -> str:
    from botocore import exceptions

    # Not botocore's own text: it holds the whole URL of the request.
    inner = error.kwargs.get("error") if isinstance(error, exceptions.BotoCoreError) else error
    reason = reason_of(inner or type(error).__name__, place)
    if is_nonsense(inner):
        return f"what {place.endpoint} answers cannot be understood"
    if isinstance(error, (exceptions.ReadTimeoutError, TimeoutError)):
        return f"{place.endpoint} does not answer in time"
    if isinstance(error, exceptions.ConnectTimeoutError):
        return f"{place.endpoint} cannot be reached in time"
    if isinstance(error, exceptions.ProxyConnectionError):
        return f"the proxy for {place.endpoint} cannot be reached"
    if isinstance(error, exceptions.SSLError):
        return f"{place.endpoint} cannot be trusted: {reason}"
    if isinstance(error, exceptions.EndpointConnectionError):
        return f"{place.endpoint} cannot be reached: {reason}"
    return f"the connection to {place.endpoint} broke off: {reason}"


def _translate_answer(
    response: dict[str, Any], place: Place, expected: Collection[str | int], public: bool
) -> EtceteraError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = response.get("Error", {}).get("Message") or ""
    said = place.show(f"{code}: {message}" if message else code)
    if code == "NoSuchBucket":
        return RepositoryNotFound(
            f"the bucket {place.bucket} does not exist; create it or correct the URL"
        )
    if code in expected or status in expected:
        return Refused(f"{place.url}: {said}", code, status)
    if code in _NO_LISTS or (public and code in _REFUSED_LISTS):
        return NotAllowed(
            f"{place.url} refuses to make an object public ({said}); remove public = true and "
            "let a bucket policy allow reading"
        )
    if code in _EXPIRED:
        return ExpiredCredentials(f"{place.url}: the credentials are expired ({said}); renew them")
    if code == "RequestTimeTooSkewed":
        there = place.show(response["Error"].get("ServerTime") or "another time")
        here = datetime.now(UTC).isoformat(timespec="seconds")
        return NotAllowed(
            f"{place.url}: the clock of this machine is wrong ({code}): it says {here}, the server "
            f"says {there}; set it"
        )
    if code in ELSEWHERE:
        headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = region_name(
            response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
        )
        what = f'region = "{region}"' if region else "region, or correct endpoint_url"
        return ConfigError(
            f"{place.url}: the bucket is in another region, or at another server ({said}); set "
            f"{what} in ~/.etc.toml"
        )
    if status in (401, 403) or code in ("AccessDenied", "InvalidAccessKeyId"):
        return NotAllowed(f"{place.url} refuses ({said}); check the credentials and their rights")
    if code in _PASSING or status in (408, 429) or (status >= 500 and status not in (501, 505)):
        return NetworkError(f"{place.endpoint} is in trouble ({said}); try again later")
    return StoreError(f"{place.url} refuses ({said})")
