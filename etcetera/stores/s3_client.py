"""One connection to an S3 server: made when first needed, off the event loop; every retry.

Importing botocore, parsing its models and making a client take half a second of CPU, so all of
that happens in a worker thread, in small pieces that let the event loop go on.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Any

import anyio
import anyio.to_thread

from etcetera.errors import ConfigError, NetworkError, NotAllowed
from etcetera.findings import IS_FOUND
from etcetera.settings import RepositorySettings, redact_url
from etcetera.stores import Data, Sent, patience
from etcetera.stores.common import GRACE_SECONDS, clean_up, uninterrupted
from etcetera.stores.place import Place
from etcetera.stores.proxies import find_proxy, keep_proxies_secret
from etcetera.stores.s3_errors import answering, no_credentials, translate
from etcetera.stores.s3_logs import quiet, quieten
from etcetera.stores.s3_models import model_loader
from etcetera.stores.sending import OutgoingBody

_logger = logging.getLogger("etcetera")


class Connection:
    """Requests about one bucket."""

    def __init__(self, settings: RepositorySettings, place: Place) -> None:
        self.place = place
        # What the answers so far have taught about the server.
        self.bucket_seen = False
        self.conditions = True
        self.checksums = True
        self._settings = settings
        self._client: Any = None
        self._anonymous = False
        self._answered = False
        self._making = anyio.Lock()

    async def close(self, error: BaseException | None) -> None:
        """Close every connection, whatever *error* is in flight."""
        if self._client is not None:
            await clean_up(self._close(), error, left="")

    async def _close(self) -> str:
        with anyio.move_on_after(GRACE_SECONDS):
            await self._client.close()
        return ""

    @property
    def profile(self) -> str | None:
        """Whose credentials are used, if it has a name."""
        return self._settings.profile

    @property
    def anonymous(self) -> bool:
        """Whether nothing is signed, once a client has been made."""
        return self._anonymous

    @property
    def attempts(self) -> int:
        """How often a request is tried."""
        return patience.ATTEMPTS if self._answered else patience.FIRST_ATTEMPTS

    async def call(
        self,
        operation: str,
        *,
        writes: bool = False,
        expected: Collection[str | int] = (),
        attempts: int | None = None,
        body: Data | None = None,
        sent: Sent | None = None,
        lost: Callable[[], object] = lambda: None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Send one request about the bucket, again if that may help, and return the answer.

        Args:
            operation: As botocore calls its method.
            writes: Whether it has to be signed.
            expected: Error codes and statuses that are raised as ``Refused``.
            attempts: At most so many; by default as many as usual.
            body: Of the request.
            sent: Told of its bytes as they leave.
            lost: Called for each attempt without any answer: the server may have done it.
            **arguments: Of the operation, except for the bucket.

        Raises:
            Refused: The answer was an expected error.
            NoCredentials: It has to be signed, or was refused, and nothing is there to sign with.
            NetworkError: After the last attempt.
            EtceteraError: Any other, at once.
        """
        client = await self.get_client()
        if writes and self._anonymous:
            raise no_credentials(self.place)
        pauses = patience.delays(attempts or self.attempts)
        while True:
            try:
                return await self._send(client, operation, expected, body, sent, arguments)
            except NotAllowed as error:
                if self._anonymous:
                    raise no_credentials(self.place) from error
                raise
            except NetworkError as error:
                if not hasattr(error.__cause__, "response"):
                    lost()
                pause = next(pauses, None)
                if pause is None:
                    raise
                await anyio.sleep(pause)

    async def _send(
        self,
        client: Any,
        operation: str,
        expected: Collection[str | int],
        body: Data | None,
        sent: Sent | None,
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        public = "ACL" in arguments
        with answering(self.place, expected=expected, public=public), quiet():
            try:
                with anyio.fail_after(patience.REQUEST_SECONDS) as scope, ExitStack() as stack:
                    if body is not None:
                        stream = OutgoingBody(body, scope, sent)
                        stack.callback(stream.release)
                        arguments = arguments | {"Body": stream}
                    method = getattr(client, operation)
                    answer: dict[str, Any] = await method(Bucket=self.place.bucket, **arguments)
            except Exception as error:
                self._answered |= hasattr(error, "response")
                raise
        self._answered = True
        return answer

    async def get_client(self) -> Any:
        """Return botocore's client, made when first needed.

        Raises:
            ConfigError: The settings cannot work.
        """
        async with self._making:
            if self._client is None:
                await uninterrupted(self._make_client())
        return self._client

    async def _make_client(self) -> None:
        self._client, self._anonymous = await anyio.to_thread.run_sync(
            _make_client, self._settings, self.place
        )


def _make_client(settings: RepositorySettings, place: Place) -> tuple[Any, bool]:
    """Return a client, and whether it signs nothing; blocks, so it needs a thread of its own."""
    try:
        # Looking for credentials may take requests, and those an event loop.
        with quiet():
            return asyncio.run(_make_client_here(settings, place))
    except Exception as error:
        meaning = translate(error, place)
        if meaning is None and isinstance(error, ValueError):
            meaning = ConfigError(f"{place.url}: {place.show(error)}; check the settings")
        if meaning is None:
            raise
        raise meaning from place.cause(error)


async def _make_client_here(settings: RepositorySettings, place: Place) -> tuple[Any, bool]:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from botocore import UNSIGNED

    from etcetera.stores.s3_session import LimitedSession, ParserFactory

    quieten()
    session = AioSession(profile=settings.profile)
    session.register_component(
        "data_loader", model_loader(session.get_config_variable("data_path"))
    )
    session.register_component("response_parser_factory", ParserFactory())
    keys = {
        "aws_access_key_id": settings.aws_access_key_id,
        "aws_secret_access_key": settings.aws_secret_access_key,
        "aws_session_token": settings.aws_session_token,
    }
    place.keep_secret(*keys.values())
    keep_proxies_secret(place)
    own = settings.aws_access_key_id is not None or settings.aws_secret_access_key is not None
    credentials = None if own else await session.get_credentials()
    anonymous = credentials is None and not own
    if credentials is not None:
        await _keep_secret(credentials, place)
    config = AioConfig(
        signature_version=UNSIGNED if anonymous else "s3v4",
        connect_timeout=patience.CONNECT_SECONDS,
        read_timeout=patience.STALL_SECONDS,
        max_pool_connections=patience.CONNECTIONS,
        http_session_cls=LimitedSession,
        # Checksums are ours: botocore would compute them, and sign bodies, on the event loop.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"payload_signing_enabled": False},
        # Retries are ours, too: botocore cannot tell what a repeated Complete means.
        retries={"mode": "standard", "total_max_attempts": 1},
    )
    client = await session.create_client(
        "s3",
        # Some region has to be signed; a bucket elsewhere answers with its own.
        region_name=settings.region or session.get_config_variable("region") or "us-east-1",
        endpoint_url=settings.endpoint_url,
        config=config,
        **({} if anonymous else keys),
    ).__aenter__()
    quieten()  # modules that were imported for it have loggers of their own
    client.meta.events.register("before-send.s3", _drop_expect)
    client.meta.events.register("before-parameter-build.s3", _use_regional_endpoint)
    place.endpoint = redact_url(client.meta.endpoint_url)
    if "@" in client.meta.endpoint_url:
        raise ConfigError(f"the endpoint URL of {place.endpoint} must hold no user or secret")
    find_proxy(client.meta.endpoint_url, place)
    if not anonymous and patience.travels_in_the_clear(client.meta.endpoint_url):
        _logger.warning(
            "%s is not encrypted: everybody on the way can read", place.endpoint, extra=IS_FOUND
        )
    return client, anonymous


async def _keep_secret(credentials: Any, place: Place) -> None:
    """Let no message show these credentials, nor those they are renewed to."""
    renew = credentials.get_frozen_credentials

    async def renew_and_keep() -> Any:
        frozen = await renew()
        place.keep_secret(frozen.access_key, frozen.secret_key, frozen.token)
        return frozen

    credentials.get_frozen_credentials = renew_and_keep
    await renew_and_keep()


def _drop_expect(request: Any, **_: object) -> None:
    # aiohttp would wait for the server's "100 Continue" without any timeout.
    request.headers.pop("Expect", None)


def _use_regional_endpoint(context: dict[str, Any], **_: object) -> None:
    # Botocore would sign links for s3.amazonaws.com, which knows neither new buckets nor regions
    # that have to be opted into: it redirects to another host, where the signature is wrong.
    context.pop("use_global_endpoint", None)
