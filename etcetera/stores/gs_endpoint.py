"""Which server is asked about a bucket of Google Storage."""

import os
import re
from urllib.parse import urlsplit

from etcetera.errors import ConfigError
from etcetera.settings import RepositorySettings, redact_url

GOOGLE = "https://storage.googleapis.com"
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")
EMULATOR = "STORAGE_EMULATOR_HOST"
"""The environment variable by which Google's own clients find a test server."""


def find_endpoint(settings: RepositorySettings) -> tuple[str, str]:
    """Return scheme, host and port of the server, and what names it; nothing, if nothing does.

    Raises:
        ConfigError: That what is set is none.
    """
    variable = os.environ.get(EMULATOR)
    endpoint = settings.endpoint_url or variable or GOOGLE
    if "://" not in endpoint:
        endpoint = f"http://{endpoint}"
    try:
        parts = urlsplit(endpoint)
        good = (
            parts.scheme in ("http", "https") and _HOST.fullmatch(parts.hostname or "") is not None
        )
        good = good and parts.port != 0
        good = good and "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"{redact_url(endpoint)!r} is no address of a server: correct endpoint_url, or the "
            f"environment variable {EMULATOR}"
        )
    named_by = "endpoint_url" if settings.endpoint_url else EMULATOR if variable else ""
    return endpoint.rstrip("/"), named_by


def is_google(endpoint: str) -> bool:
    """Whether a server is Google's own, by its name."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return parts.scheme == "https" and host.endswith(".googleapis.com")
