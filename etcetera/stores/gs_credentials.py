"""Who asks Google Storage: tokens from google-auth, renewed in time and off the event loop."""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread

from etcetera.errors import ConfigError, EtceteraError, ExpiredCredentials, NetworkError, UsageError
from etcetera.settings import RepositorySettings
from etcetera.stores.gs_transport import LARGEST_KEY, Unreachable, fetch
from etcetera.stores.place import Place

SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"
"""Also to make an object public; full control of the storage, and of nothing else."""
_CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""What acting for a service account takes."""
EARLY = timedelta(minutes=5)
"""How long before its end a token is renewed: longer than any request may take to begin."""
RENEWAL_SECONDS = 60.0
"""How long it may take to have a token, or a signature, made."""
_SIGNATURE_BYTES = 128
"""Of the shortest RSA signature that is of use."""
_PAUSE_SECONDS = 60.0
"""How long a token that ends soon is used all the same: some servers make none that last."""

_KINDS = (
    ("google.oauth2.service_account", "the key of a service account"),
    ("google.oauth2.credentials", "the login of a person"),
    ("google.auth.compute_engine", "the service account of this machine"),
    ("google.auth.impersonated_credentials", "a login that acts for a service account"),
    ("google.auth", "an identity of another provider"),
)

_KINDS_OF_FILES = ("service_account", "authorized_user", "impersonated_service_account")
_T = TypeVar("_T")
_logger = logging.getLogger("etcetera")


@dataclass(slots=True)
class Credentials:
    """Of one repository; without any, everything is asked for anonymously."""

    place: Place
    origin: str = ""
    """Where they come from, in words."""
    file: str = ""
    """In which they are, if they are in one."""
    _google: Any = field(default=None, repr=False)
    _source: Any = field(default=None, repr=False)
    """Those that act for the service account that is impersonated."""
    _renewed: float = field(default=-_PAUSE_SECONDS, repr=False)
    """When that was tried last, by the monotonic clock."""
    _renewing: anyio.Lock = field(default_factory=anyio.Lock, repr=False)

    @property
    def anonymous(self) -> bool:
        """Whether there are none."""
        return self._google is None

    @property
    def kind(self) -> str:
        """What they are, in words; of one who acts for another, what the former has."""
        name = type(self._source or self._google).__module__
        return next((kind for start, kind in _KINDS if name.startswith(start)), "an identity")

    @property
    def acting(self) -> bool:
        """Whether they act for another service account, as the settings want."""
        return self._source is not None

    @property
    def account(self) -> str:
        """The e-mail address of the service account; empty if it is a person, or unknown."""
        email = getattr(self._google, "service_account_email", None) or ""
        return "" if email == "default" else str(email)

    @property
    def has_key(self) -> bool:
        """Whether a key is here that signs; what others sign for them ends with their keys."""
        from google.oauth2 import service_account

        return isinstance(self._google, service_account.Credentials)

    @property
    def expires(self) -> datetime | None:
        """When the token ends that is used now."""
        expiry = self._google.expiry if self._google is not None else None
        return expiry.replace(tzinfo=UTC) if expiry else None

    async def token(self, *, instead_of: str | None = None) -> str | None:
        """Return a token that works for a while; ``None`` without credentials.

        Args:
            instead_of: One that a server has refused.

        Raises:
            ExpiredCredentials: None can be had any more.
            NetworkError: None can be had just now.
        """
        if self._google is None:
            return None
        if self._due(instead_of):
            async with self._renewing:
                if self._due(instead_of):
                    await self._renew(refused=instead_of is not None)
        return str(self._google.token)

    def _due(self, instead_of: str | None) -> bool:
        token, expires = self._google.token, self.expires
        if not token or token == instead_of:
            return True
        if expires is None:
            return False
        left = expires - datetime.now(UTC)
        return left <= timedelta() or (
            left < EARLY and time.monotonic() - self._renewed >= _PAUSE_SECONDS
        )

    async def _renew(self, *, refused: bool) -> None:
        self._renewed = time.monotonic()
        try:
            await self._in_thread(self._refresh)
        except (NetworkError, ExpiredCredentials):
            expires = self.expires
            if refused or not self._google.token or not expires or expires <= datetime.now(UTC):
                raise
            _logger.debug("A token could not be renewed, and goes on until %s", expires)

    async def signer(self) -> str:
        """Return the service account that :meth:`sign` signs for.

        Raises:
            UsageError: These credentials have no key, and no right to use one.
        """
        await self.token()  # the account of an instance is not known before
        if not self.account:
            raise UsageError(
                f"{self.place.url}: a link has to be signed by a service account, and these are "
                "the credentials of a person; set google_impersonate to an account that you may "
                "act for, or google_credentials to the file of its key"
            )
        return self.account

    async def sign(self, data: bytes) -> bytes:
        """Return the RSA-SHA256 signature of *data*, by the key of the service account."""
        return await self._in_thread(partial(self._sign, data))

    def _refresh(self, request: Any) -> None:
        self._google.refresh(request)
        token = self._google.token
        if not (isinstance(token, str) and token.isascii() and token.isprintable() and token):
            self._google.token = None
            raise ValueError("a token that is none")

    def _sign(self, data: bytes, request: Any) -> bytes:
        from google.auth import exceptions, iam

        if self.has_key:
            return bytes(self._google.sign_bytes(data))
        try:
            signature = iam.Signer(request, self._source or self._google, self.account).sign(data)
        except Unreachable:
            raise
        except exceptions.TransportError:
            raise exceptions.RefreshError("the signature was refused") from None
        if len(signature) < _SIGNATURE_BYTES:
            raise ValueError("a signature that is none")
        return bytes(signature)

    async def _in_thread(self, use: Callable[[Any], _T]) -> _T:
        """Let google-auth ask for something, beside the event loop.

        The thread is given up where a server never ends its answer: nothing here waits for it.
        """
        try:
            with anyio.fail_after(RENEWAL_SECONDS):
                return await anyio.to_thread.run_sync(self._ask, use, abandon_on_cancel=True)
        except TimeoutError:
            raise NetworkError(
                f"{self.place.url}: the server of tokens does not answer in time; try again later"
            ) from None

    def _ask(self, use: Callable[[Any], _T]) -> _T:
        self.keep_secret()
        try:
            return use(fetch)
        except Exception as error:  # noqa: BLE001 - google-auth raises anything where an answer is odd
            meaning = self._meaning(error)
        finally:
            self.keep_secret()
        raise meaning  # not in the block above: what it came from may hold what is secret

    def keep_secret(self) -> None:
        """Let no message show what is secret of these credentials."""
        for google in (self._google, self._source):
            for name in ("token", "refresh_token", "client_secret"):
                secret = getattr(google, name, None)
                if isinstance(secret, str):
                    self.place.keep_secret(secret)

    def _meaning(self, error: Exception) -> EtceteraError:
        """What an error of google-auth means; its text may be what a server has made up."""
        from google.auth import exceptions

        url = self.place.url
        shown = self.place.show(error.args[0] if error.args else error)
        if isinstance(error, Unreachable):
            return NetworkError(
                f"{url}: no token can be had ({shown}); check the network and try again"
            )
        if not isinstance(error, exceptions.GoogleAuthError):
            kind = type(error).__name__
            return NetworkError(
                f"{url}: what the server of tokens answers makes no sense ({kind}); check whether "
                "a proxy or a login page lies between here and it"
            )
        if isinstance(error, exceptions.TransportError) or getattr(error, "retryable", False):
            return NetworkError(f"{url}: no token can be had just now ({shown}); try again later")
        advice = "log in again, for instance with: gcloud auth application-default login"
        if self.has_key:
            advice = f"see whether {self.account} still has this key, make a new one if not"
        role = "; acting for an account takes the role Service Account Token Creator"
        return ExpiredCredentials(
            f"{url}: no token can be had ({shown}); {advice}, and check the clock of this machine"
            f"{role if self.acting else ''}"
        )


async def find_credentials(
    settings: RepositorySettings, place: Place, *, trusted: bool
) -> Credentials:
    """Find the credentials of a repository; none at all is no error.

    Args:
        settings: May name a file, and an account to act for.
        place: Of the repository.
        trusted: Whether the server is Google's. Any other gets only those that the settings name:
            a token opens everything that its owner may open.

    Raises:
        ConfigError: What the settings name is not there, or is nothing that can be used.
    """
    credentials = await anyio.to_thread.run_sync(_find, settings, place, trusted)
    credentials.keep_secret()
    return credentials


def _find(settings: RepositorySettings, place: Place, trusted: bool) -> Credentials:
    target = settings.google_impersonate
    scope = _CLOUD_SCOPE if target else SCOPE
    if settings.google_credentials is not None:
        google = _from_file(settings.google_credentials, scope)
        file = settings.google_credentials
        origin = f"the file {file}"
    elif trusted or target:
        google = _default(place, scope)
        origin, file = _default_origin()
    else:
        google, origin, file = None, "", ""
    if google is None:
        if target:
            raise ConfigError(
                f"{place.url}: to act for {target} takes credentials of one's own, and there are "
                "none; log in with: gcloud auth application-default login"
            )
        return Credentials(place)
    if not target:
        return Credentials(place, origin, file, google)
    from google.auth import impersonated_credentials

    acting = impersonated_credentials.Credentials(google, target, [SCOPE], lifetime=3600)
    return Credentials(place, origin, file, acting, google)


def _default_origin() -> tuple[str, str]:
    """Where google-auth finds its default credentials, in words, and the file, if it is one."""
    from google.auth import _cloud_sdk

    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named:
        return f"the file {named} that GOOGLE_APPLICATION_CREDENTIALS names", named
    file = str(_cloud_sdk.get_application_default_credentials_path())
    if Path(file).exists():
        return f"the file {file} of gcloud", file
    return "the metadata server of this machine", ""


def _default(place: Place, scope: str) -> Any:
    import google.auth
    from google.auth import exceptions

    class NoProject(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            return "No project ID" not in record.getMessage()  # nobody needs one here

    logger, quiet = logging.getLogger("google.auth._default"), NoProject()
    logger.addFilter(quiet)
    try:
        return google.auth.default(scopes=[scope], request=cast("Any", fetch))[0]
    except exceptions.DefaultCredentialsError as error:
        named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            raise ConfigError(
                f"{place.url}: GOOGLE_APPLICATION_CREDENTIALS names {named}, which cannot be used "
                f"({place.show(error.args[0])}); correct or remove it"
            ) from None
        if "were not found" not in str(error):
            raise ConfigError(
                f"{place.url}: Google's default credentials cannot be used "
                f"({place.show(error.args[0])}); log in again, for instance with: gcloud auth "
                "application-default login"
            ) from None
        return None
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a file; it would show it
        raise ConfigError(
            f"{place.url}: Google's default credentials are damaged ({type(error).__name__}); log "
            "in again, or correct GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    finally:
        logger.removeFilter(quiet)


def _from_file(path: str, scope: str) -> Any:
    """The credentials that a file holds.

    Raises:
        ConfigError: It is not there, or holds none.
    """
    try:
        with Path(path).open("rb") as file:
            info = json.loads(file.read(LARGEST_KEY))
        kind = info["type"]
    except OSError as error:
        raise ConfigError(
            f"google_credentials: {path} cannot be read ({error.strerror}); correct the path"
        ) from error
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ConfigError(
            f"google_credentials: {path} is no file of Google credentials; name the key of a "
            "service account, or the file that gcloud has written"
        ) from None
    if kind not in _KINDS_OF_FILES:
        raise ConfigError(
            f"google_credentials: {path} holds no key of a service account; name such a file, or "
            "set the environment variable GOOGLE_APPLICATION_CREDENTIALS to this one"
        )
    try:
        return _from_info(kind, info, scope)
    except Exception:  # noqa: BLE001 - whatever is wrong with it; it would show the key
        raise ConfigError(f"google_credentials: {path} is damaged; download it again") from None


def _from_info(kind: str, info: Any, scope: str) -> Any:
    """Make credentials; each module of google-auth takes a while to import."""
    if kind == "service_account":
        from google.oauth2 import service_account

        return service_account.Credentials.from_service_account_info(info, scopes=[scope])
    if kind == "authorized_user":
        from google.oauth2 import credentials

        return credentials.Credentials.from_authorized_user_info(info)
    from google.auth import impersonated_credentials

    make = impersonated_credentials.Credentials.from_impersonated_service_account_info
    return make(info, scopes=[scope])
