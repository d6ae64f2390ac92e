"""Requests for google-auth, which makes tokens of them; they block."""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from google.auth.exceptions import TransportError

TOKEN_SECONDS = 20.0
"""How long a server may take to make a token."""
_ACTING = ":generateAccessToken"
"""What the IAM API is asked for a token of another account by."""
LARGEST_KEY = 1 << 20
"""Bytes of a key, or of an answer."""


class Unreachable(TransportError):
    """There was no answer, or none that says anything."""


@dataclass(frozen=True, slots=True)
class Response:
    """What google-auth wants of an answer."""

    status: int
    headers: Any
    data: bytes


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **_: object,
) -> Response:
    """Send a request for google-auth; knows the proxies of the environment, follows nothing.

    Raises:
        Unreachable: There was no answer, or it is worth asking again.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https"):
        raise Unreachable("the address of the token server is no URL")
    own = host in ("metadata.google.internal", "169.254.169.254")
    proxies = {} if own else urllib.request.getproxies()  # nobody is between here and this machine
    request = urllib.request.Request(  # noqa: S310 - the scheme was looked at
        url, data=body, headers=dict(headers or {}), method=method
    )
    seconds = min(timeout or TOKEN_SECONDS, TOKEN_SECONDS)
    deadline = time.monotonic() + seconds
    try:
        opener = _opener(tuple(sorted(proxies.items())))
        with opener.open(request, timeout=seconds) as answer:
            return Response(answer.status, answer.headers, _read(answer, deadline))
    except urllib.error.HTTPError as error:
        with error:
            if url.endswith(_ACTING) and (error.code == 429 or error.code >= 500):
                # google-auth takes any refusal here for one that is for good.
                raise Unreachable(f"{host}: {error.code}") from None
            return Response(error.code, error.headers, _read(error, deadline))
    except (OSError, ValueError, HTTPException) as error:
        raise Unreachable(f"{host}: {getattr(error, 'reason', error)}") from error


def _read(answer: Any, deadline: float) -> bytes:
    """Return a body that is not too long, in size or in time."""
    body = b""
    while piece := answer.read1(LARGEST_KEY):
        body += piece
        if len(body) > LARGEST_KEY or time.monotonic() > deadline:
            raise TimeoutError("the answer does not end")
    return body


@lru_cache(maxsize=4)
def _opener(proxies: tuple[tuple[str, str], ...]) -> urllib.request.OpenerDirector:
    """Reading the certificates of this machine takes longer than most requests."""
    return urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler(dict(proxies)))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """What goes to a token server is a secret."""

    def redirect_request(self, *_: object) -> None:
        return None
