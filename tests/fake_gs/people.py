"""Who may ask the fake server: tokens, service accounts, and users who have logged in."""

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ALL = None
"""All permissions."""
TOKEN_SECONDS = 3599

_keys: list[rsa.RSAPrivateKey] = []


def _key() -> rsa.RSAPrivateKey:
    """Return a key for tests; making one takes a while, so that all share one.

    It is short, since clients check a longer one for a tenth of a second whenever they read it.
    """
    if not _keys:
        _keys.append(rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505
    return _keys[0]


@dataclass(slots=True)
class Token:
    """What a bearer token is good for."""

    name: str
    permissions: frozenset[str] | None
    expires: float


@dataclass(slots=True)
class User:
    """Someone who has logged in: what their refresh token is worth."""

    name: str
    client_id: str
    client_secret: str
    permissions: frozenset[str] | None


@dataclass(slots=True)
class Account:
    """A service account."""

    email: str
    permissions: frozenset[str] | None = ALL
    key: rsa.RSAPrivateKey = field(default_factory=_key)
    key_id: str = field(default_factory=lambda: secrets.token_hex(20))

    def sign(self, data: bytes) -> bytes:
        """Sign as Google would for the account."""
        return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether *signature* is the account's."""
        try:
            self.key.public_key().verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def info(self, endpoint: str) -> dict[str, str]:
        """Return what is in a key file of the account."""
        private = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": self.key_id,
            "private_key": private.decode(),
            "client_email": self.email,
            "client_id": "123456789012345678901",
            "token_uri": f"{endpoint}/token",
            "universe_domain": "googleapis.com",
        }


def decode(text: str) -> bytes:
    """Read base64 as tokens have it, without its end."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class People:
    """Everyone the server knows."""

    secured: bool = False
    """Whether it looks at all who asks; else everyone may do everything."""
    tokens: dict[str, Token] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    """By refresh token."""
    instance: str = "instance@test-project.iam.gserviceaccount.com"
    """The account of the machine, for its metadata server."""
    token_seconds: float = TOKEN_SECONDS
    """How long tokens that are asked for are good."""
    clock: Callable[[], float] = time.time

    def allow(
        self,
        token: str = "",
        permissions: Iterable[str] | None = ALL,
        *,
        name: str = "user@example.com",
        seconds: float = 3600,
    ) -> str:
        """Make a bearer token good, and look at tokens from now on.

        Args:
            token: Made up if empty.
            permissions: Such as ``storage.objects.get``; all, if it is ``None``.
            name: Who has it.
            seconds: How long it is good.
        """
        self.secured = True
        token = token or f"ya29.{secrets.token_urlsafe(32)}"
        kept = None if permissions is None else frozenset(permissions)
        self.tokens[token] = Token(name, kept, self.clock() + seconds)
        return token

    def add_account(self, name: str = "robot", permissions: Iterable[str] | None = ALL) -> Account:
        """Make a service account; its key file is :meth:`Account.info`."""
        email = name if "@" in name else f"{name}@test-project.iam.gserviceaccount.com"
        kept = None if permissions is None else frozenset(permissions)
        account = self.accounts[email] = Account(email, kept)
        return account

    def add_user(
        self, permissions: Iterable[str] | None = ALL, *, name: str = "user@example.com"
    ) -> dict[str, str]:
        """Make a user, and return what is in the file after ``gcloud auth ... login``."""
        refresh = f"1//{secrets.token_urlsafe(24)}"
        kept = None if permissions is None else frozenset(permissions)
        user = self.users[refresh] = User(name, "client.example", secrets.token_hex(8), kept)
        return {
            "type": "authorized_user",
            "client_id": user.client_id,
            "client_secret": user.client_secret,
            "refresh_token": refresh,
            "universe_domain": "googleapis.com",
        }

    def expire_tokens(self) -> None:
        """Make all tokens too old."""
        for token in self.tokens.values():
            token.expires = self.clock() - 1

    def issue(
        self, name: str, permissions: frozenset[str] | None, seconds: float | None = None
    ) -> str:
        """Make a token for someone who has proved who they are."""
        token = f"ya29.{secrets.token_urlsafe(32)}"
        expires = self.clock() + (self.token_seconds if seconds is None else seconds)
        self.tokens[token] = Token(name, permissions, expires)
        return token

    def read_assertion(self, text: str) -> tuple[Account, dict[str, Any]] | None:
        """Return who signed a JWT, and what it says, if that is true and in time."""
        head, _, signature = text.rpartition(".")
        try:
            claims: dict[str, Any] = json.loads(decode(head.split(".")[1]))
            account = self.accounts[claims["iss"]]
            good = account.verify(decode(signature), head.encode())
        except (ValueError, KeyError, IndexError):
            return None
        now = self.clock()
        in_time = claims.get("iat", now) - 60 <= now < claims.get("exp", 0)
        return (account, claims) if good and in_time else None
