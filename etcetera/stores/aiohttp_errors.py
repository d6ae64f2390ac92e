"""What goes wrong between here and a server that aiohttp talks to."""

import aiohttp

from etcetera.errors import NetworkError
from etcetera.stores.place import Place


def is_nonsense(error: object) -> bool:
    """Whether a server said what is no HTTP; aiohttp tells of it as of a status 400."""
    return isinstance(error, aiohttp.ClientResponseError) and not isinstance(
        error, aiohttp.ClientHttpProxyError
    )


def reason_of(error: object, place: Place) -> str:
    """Return what an error says, without secrets and what nobody said."""
    if isinstance(error, aiohttp.ClientPayloadError):  # of a status 400, too
        return "the answer is not whole, or damaged"
    if isinstance(error, aiohttp.ClientResponseError):  # it would show its URL
        return place.show(f"status {error.status}: {error.message}")
    return place.show(error)


def network_error(error: Exception, origin: str, place: Place) -> NetworkError:
    """Say what *error* means, and what to do; its cause is *error* unless that holds a secret.

    Args:
        error: Raised by aiohttp, a socket or a timeout.
        origin: Scheme, host and port of the server.
        place: Knows what must not be shown.
    """
    reason = reason_of(error, place)
    advice = "check the network and try again"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        message = f"the proxy for {origin} refuses: {reason}"
    elif isinstance(error, aiohttp.ClientProxyConnectionError):
        message = f"the proxy for {origin} cannot be reached"
    elif is_nonsense(error):
        message = f"what {origin} answers cannot be understood"
        advice = "check the URL, and what lies between here and the server"
    elif isinstance(error, TimeoutError):
        message = f"{origin} does not answer in time"
    elif isinstance(error, aiohttp.ClientSSLError):
        message = f"{origin} cannot be trusted: {reason}"
    elif isinstance(error, aiohttp.ClientConnectorError):
        message = f"{origin} cannot be reached: {reason}"
    else:
        message = f"the connection to {origin} broke off: {reason}"
    network = NetworkError(f"{message}; {advice}")
    network.__cause__ = place.cause(error)
    return network
