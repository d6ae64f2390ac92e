"""The proxies that the environment names; their passwords are secrets."""

import re
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from etcetera.errors import ConfigError
from etcetera.stores.place import Place

_SHORT = 4
"""Characters: shorter pieces stand in any text."""


def keep_proxies_secret(place: Place) -> None:
    """Let no message show the passwords of the proxies of the environment, nor pieces of them."""
    for proxy in getproxies().values():
        user, at, _ = proxy.partition("://")[2].rpartition("@")
        if not at:
            user = proxy.rpartition("@")[0]
        password = user.partition(":")[2]
        # Whoever reads a malformed one may take any piece for something else.
        for piece in (user, password, *re.split(r"[:/?#@\\\s]", password)):
            if len(piece) >= _SHORT:
                place.keep_secret(piece, unquote(piece))


def find_proxy(url: str, place: Place) -> str | None:
    """Return the proxy that the environment wants for *url*, if any.

    Raises:
        ConfigError: It cannot be one.
    """
    keep_proxies_secret(place)
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxy = getproxies().get(parts.scheme)
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy.removeprefix('//')}"
    if not _is_proxy(proxy):
        raise ConfigError(
            f"the proxy that the environment names is no URL: correct {parts.scheme.upper()}_PROXY "
            "to the like of http://user:password@host:port, special characters in it as %XX"
        )
    return proxy


def _is_proxy(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    rest = parts.path.strip("/") + parts.query + parts.fragment
    return good and not rest and proxy.isascii() and proxy.isprintable() and " " not in proxy
