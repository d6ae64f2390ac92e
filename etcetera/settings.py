"""What settings may be, and how they are shown."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

from etcetera.errors import ConfigError
from etcetera.transfer.options import GiB, KiB, MiB, TransferOptions

DEFAULT_REPOSITORY = "default"
"""What the repository at the top level of the file is called."""

SECRETS = ("aws_secret_access_key", "aws_session_token")
OLD_SECRET = "aws_access_key_secret"  # noqa: S105 - the name of a key, as etcetera 0.0.12 had it
KEY_PAIR = ("aws_access_key_id", "aws_secret_access_key")
REPOSITORY_KEYS = (
    "url",
    "public",
    "aws_access_key_id",
    *SECRETS,
    "profile",
    "region",
    "endpoint_url",
    "google_credentials",
    "google_impersonate",
    "google_project",
)

_RANGES = {
    # S3 User Guide, "Multipart upload limits": parts of 5 MiB to 5 GiB.
    "part_size": (5 * MiB, 5 * GiB),
    "workers": (1, 256),
    "level": (0, 9),
    "threads": (1, 1024),
}
AUTOMATIC = "auto"
"""The ``level`` that stands for whatever is best."""

_UNITS = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": KiB,
    "MiB": MiB,
    "GiB": GiB,
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REPOSITORY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """How to reach one repository."""

    name: str = DEFAULT_REPOSITORY
    """What the configuration calls it."""
    url: str
    """``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///directory``."""
    public: bool = False
    """Whether everybody may read what is pushed."""
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    """A profile of the AWS configuration files."""
    region: str | None = None
    endpoint_url: str | None = None
    """Of a server that speaks the S3 protocol, when it is not Amazon's; or Google's."""
    google_credentials: str | None = None
    """A file: the key of a service account, or what gcloud has made."""
    google_impersonate: str | None = None
    """The e-mail address of a service account to act for."""
    google_project: str | None = None
    """Billed for requests to buckets whose owners do not pay for them."""

    def __repr__(self) -> str:
        return (
            f"RepositorySettings(name={self.name!r}, url={redact_url(self.url)!r}, "
            f"public={self.public}, profile={self.profile!r}, region={self.region!r}, "
            f"endpoint_url={self.endpoint_url and redact_url(self.endpoint_url)!r}, "
            f"google_credentials={self.google_credentials!r}, "
            f"google_impersonate={self.google_impersonate!r}, "
            f"google_project={self.google_project!r})"
        )


_USER_WITH_SLASH = re.compile(r"[^/:]*/[^/]*:[^@]*@")


def redact_url(url: str) -> str:
    """Return *url* without user, password, query and fragment, fit to be shown or kept."""
    scheme, separator, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    if not separator:
        return scheme.rpartition("@")[2]
    is_web = scheme.lower() in ("http", "https")
    if (is_web and _USER_WITH_SLASH.match(rest)) or (
        "@" not in rest.partition("/")[0] and _has_credentials(url)
    ):
        rest = rest.rpartition("@")[2]  # the secret has a slash in it
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def place(settings: RepositorySettings) -> tuple[str, str]:
    """URL and endpoint of a repository, as what is kept in the home names them."""
    return redact_url(settings.url), redact_url(settings.endpoint_url or "")


def prefixes_of(origins: Mapping[str, str]) -> dict[str, str]:
    """What the message about each key begins with."""
    return {key: "" if origin == "argument" else f"{origin}: " for key, origin in origins.items()}


def canonical(key: str) -> str:
    """The present name of a key."""
    return "aws_secret_access_key" if key == OLD_SECRET else key


def with_known_keys(
    values: Mapping[str, object], known: tuple[str, ...], prefixes: Mapping[str, str]
) -> dict[str, object]:
    """Return *values* under their present names; refuse those that mean nothing."""
    result: dict[str, object] = {}
    for key, value in values.items():
        if key not in (*known, OLD_SECRET):
            unknown = "unknown" if prefixes[key] else "Unknown"
            raise ConfigError(f"{prefixes[key]}{unknown} setting {key!r}{_hint(key, known)}")
        if value is None:  # an argument that was not given; TOML has no such value
            continue
        if canonical(key) in result:
            raise ConfigError(
                f"{prefixes[key]}aws_secret_access_key and its old spelling {OLD_SECRET} are both "
                "given: keep the first"
            )
        result[canonical(key)] = value
    return result


def _hint(key: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    if key == "home" or key in {option.name for option in fields(TransferOptions)}:
        return ": it belongs at the top level"
    near = get_close_matches(key, (*known, OLD_SECRET), n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}"


def expand(path: str, prefix: str, base: Path | None = None) -> Path:
    """Make *path* absolute, relative to *base* or the working directory."""
    if not path or _CONTROL.search(path):
        raise ConfigError(f"{prefix}{path!r} is no path; name a directory or a file")
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{prefix}{path!r}: the home directory of the user is unknown; set HOME"
        ) from error
    return Path(os.path.abspath((base or Path()) / expanded))  # noqa: PTH100 - also drops ".."


def check_home(value: object, prefix: str, file: Path | None) -> Path:
    """Where local datasets are, absolute.

    Args:
        value: As it was given; ``None`` for the default.
        prefix: What a message begins with.
        file: That holds it, if one does.

    Raises:
        ConfigError: It is no path, or leads to the root of the file system.
    """
    if value is None:
        value = "~/.etc"
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{prefix}home must be a path, not {value!r}")
    # A path in a file must not change its meaning with the working directory.
    base = file.parent if file is not None and prefix == f"{file}: " else None
    text = os.fspath(value)
    if not text:
        raise ConfigError(f"{prefix}home is empty; name a directory, for instance ~/.etc")
    home = expand(text, prefix, base)
    if home.parent == home or Path(os.path.realpath(home)) == Path(home.anchor):
        raise ConfigError(
            f"{prefix}home must not be {text!r}, the root of the file system; name a directory of "
            "its own, for instance ~/.etc"
        )
    return home


def check_repository_value(key: str, value: object, prefix: str) -> str | bool:
    """Return a setting of a repository.

    Raises:
        ConfigError: It is of the wrong type, or cannot be one.
    """
    if key == "public":
        if not isinstance(value, bool):
            raise ConfigError(f"{prefix}public must be true or false")
        return value
    # The value is not shown: it may be a secret, or one pasted into the wrong line.
    if not isinstance(value, str):
        raise ConfigError(f"{prefix}{key} must be a string, not {type(value).__name__}")
    if not value or value != value.strip() or _CONTROL.search(value):
        raise ConfigError(
            f"{prefix}{key} is empty, or has spaces around it or control characters in it"
        )
    if key in ("url", "endpoint_url") and (
        _has_credentials(value) or ("://" not in value and "@" in value)
    ):
        raise ConfigError(
            f"{prefix}{key} must not hold a user name or password: use aws_access_key_id and "
            "aws_secret_access_key"
        )
    if key == "endpoint_url" and not re.match("https?://[^/]", value, re.IGNORECASE):
        raise ConfigError(
            f"{prefix}endpoint_url must begin with https:// or http://, as in "
            '"http://localhost:9000"'
        )
    if key == "google_credentials":
        if not value.startswith(("/", "~")):
            raise ConfigError(f'{prefix}{key} must be a whole path, as in "~/key.json"')
        return str(expand(value, prefix))
    if key == "google_impersonate" and not re.fullmatch(r"[^\s@/]+@[^\s@/]+", value):
        raise ConfigError(f"{prefix}{key} must be the e-mail address of a service account")
    return value


def _has_credentials(url: str) -> bool:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    # A secret key may itself hold a slash, which leaves "user:begin" as the authority.
    port = re.sub(r"^\[.*\]", "", authority).partition(":")[2]
    return "@" in authority or bool(port and not port.isdigit())


def check_key_pair(values: Mapping[str, object], prefix: str) -> None:
    """Raise ConfigError if one half of a key is given."""
    if len([key for key in KEY_PAIR if key in values]) == 1:
        raise ConfigError(
            f"{prefix}aws_access_key_id and aws_secret_access_key go together: give both or neither"
        )


def check_number(key: str, value: object, prefix: str) -> int | None:
    """Return a setting of transfers; ``None`` stands for the automatic level.

    Raises:
        ConfigError: It is no number, or out of range.
    """
    given = value
    if key == "level" and value == AUTOMATIC:
        return None
    if key == "part_size" and isinstance(value, str):
        value = _parse_size(value, prefix)
    lowest, highest = _RANGES[key]
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        if key == "part_size":
            raise ConfigError(f"{prefix}part_size must be from 5 MiB to 5 GiB, not {given!r}")
        or_automatic = f' or "{AUTOMATIC}"' if key == "level" else ""
        raise ConfigError(
            f"{prefix}{key} must be a whole number from {lowest} to {highest}{or_automatic}, "
            f"not {given!r}"
        )
    return value


def _parse_size(text: str, prefix: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
    unit = _UNITS.get(match[2] or "B") if match else None
    if match is None or unit is None:
        raise ConfigError(f'{prefix}part_size must be bytes or a size like "16MiB", not {text!r}')
    return int(match[1]) * unit


def check_repositories(tables: object, prefix: str) -> dict[str, RepositorySettings]:
    """Return the repositories that have a table each.

    Raises:
        ConfigError: A table or a name cannot be one.
    """
    if not isinstance(tables, dict):
        raise ConfigError(f"{prefix}repositories must hold tables: [repositories.lab]")
    result = {}
    for name, table in tables.items():
        where = f"{prefix}[repositories.{name}] "
        if not isinstance(name, str) or not _REPOSITORY_NAME.fullmatch(name):
            raise ConfigError(
                f"{prefix}{name!r} cannot name a repository: use letters, digits, '_', '-' and '.'"
            )
        if name == DEFAULT_REPOSITORY:
            raise ConfigError(f"{where}is the one at the top level: write its settings there")
        if not isinstance(table, dict):
            raise ConfigError(f'{where}must be a table with url = "s3://bucket/prefix" in it')
        values = with_known_keys(table, REPOSITORY_KEYS, dict.fromkeys(table, where))
        if "url" not in values:
            raise ConfigError(f'{where}has no url: add url = "s3://bucket/prefix"')
        checked = {key: check_repository_value(key, value, where) for key, value in values.items()}
        check_key_pair(checked, where)
        result[name] = named_settings(name, checked)
    return result


def named_settings(name: str, values: Mapping[str, str | bool]) -> RepositorySettings:
    """Make settings of values that were checked to have the types of the fields."""
    return RepositorySettings(name=name, **cast("dict[str, str]", values))  # type: ignore[arg-type]


def masked(key: str, value: object) -> str | int | bool | None:
    """Return a setting as it may be shown."""
    if isinstance(value, str):
        if key in SECRETS:
            return "********"
        if key == "aws_access_key_id":
            # Its end tells keys apart, and opens nothing.
            return f"********{value[-4:]}" if len(value) > 8 else "********"
        if key in ("url", "endpoint_url"):
            return redact_url(value)
    return cast("str | int | bool | None", value)
