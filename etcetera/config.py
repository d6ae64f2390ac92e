"""Settings: where they come from, and what they may be."""

import errno
import logging
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple, Self, cast

from etcetera.errors import ConfigError
from etcetera.transfer.options import GiB, KiB, MiB, TransferOptions

DEFAULT_REPOSITORY = "default"
"""What the repository at the top level of the file is called."""

_SECRETS = ("aws_secret_access_key", "aws_session_token")
_OLD_SECRET = "aws_access_key_secret"  # noqa: S105 - the name of a key, as etcetera 0.0.12 had it
_KEY_PAIR = ("aws_access_key_id", "aws_secret_access_key")
_REPOSITORY_KEYS = (
    "url",
    "public",
    "aws_access_key_id",
    *_SECRETS,
    "profile",
    "region",
    "endpoint_url",
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
_logger = logging.getLogger("etcetera")

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
_LARGEST_FILE = 8 * MiB
"""Bytes of a configuration or lock file that are read."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_REPOSITORY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositorySettings:
    """How to reach one repository."""

    name: str = DEFAULT_REPOSITORY
    """What the configuration calls it."""
    url: str
    """``s3://bucket/prefix`` or ``file:///directory``."""
    public: bool = False
    """Whether everybody may read what is pushed."""
    aws_access_key_id: str | None = field(default=None, repr=False)
    aws_secret_access_key: str | None = field(default=None, repr=False)
    aws_session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    """A profile of the AWS configuration files."""
    region: str | None = None
    endpoint_url: str | None = None
    """Of a server that speaks the S3 protocol, when it is not Amazon's."""

    def __repr__(self) -> str:
        return (
            f"RepositorySettings(name={self.name!r}, url={redact_url(self.url)!r}, "
            f"public={self.public}, profile={self.profile!r}, region={self.region!r}, "
            f"endpoint_url={self.endpoint_url and redact_url(self.endpoint_url)!r})"
        )


class Setting(NamedTuple):
    """One setting in force, fit to be shown."""

    key: str
    """As in the file; one of another repository reads ``repositories.lab.url``."""
    value: str | int | bool | None
    """Secrets are masked; ``None`` where nothing is set."""
    origin: str
    """``default``, ``argument``, ``--url``, ``environment ETC_URL`` or the path of the file."""


class Config:
    """Where datasets live, here and remotely, and how they are transferred.

    Attributes:
        url: The default repository, ``None`` if there is none.
        home: The directory of the local datasets, absolute.
        transfer: Settings of transfers.
        filename: The file that was loaded, ``None`` without one.
    """

    url: str | None
    home: Path
    transfer: TransferOptions
    filename: Path | None

    def __init__(
        self,
        url: str | None = None,
        home: str | os.PathLike[str] | None = None,
        **options: object,
    ) -> None:
        """Use exactly these settings; neither a file nor the environment is looked at.

        Args:
            url: The default repository, for instance ``s3://bucket/prefix``.
            home: The directory of the local datasets, by default ``~/.etc``.
            **options: What else the file may hold, under the same names.

        Raises:
            ConfigError: A setting is unknown, of the wrong type or out of range.
        """
        values = {"url": url, "home": home, **options}
        self._fill(values, dict.fromkeys(values, "argument"), None)

    @classmethod
    def load(
        cls,
        filename: str | os.PathLike[str] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        url: str | None = None,
    ) -> Self:
        """Read the configuration file, then let the environment and the arguments override.

        Args:
            filename: A TOML file; by default ``$ETC_CONFIG``, else ``~/.etc.toml``, which alone
                may be missing. A variable that is empty counts as not set.
            home: Overrides ``home`` and ``$ETC_HOME``.
            url: Overrides the default repository's ``url`` and ``$ETC_URL``.

        Raises:
            ConfigError: The file is missing, unreadable, not TOML, or a setting is wrong.
        """
        path = _find_file(filename)
        values = {} if path is None else _read_file(path)
        _logger.info("Settings: %s", path or "the defaults, there is no configuration file")
        origins = dict.fromkeys(values, str(path))
        for key, argument in (("home", home), ("url", url)):
            variable = f"ETC_{key.upper()}"
            if argument is not None:
                values[key], origins[key] = argument, f"--{key}"
            elif set_to := os.environ.get(variable):
                values[key], origins[key] = set_to, f"environment {variable}"
        config = cls.__new__(cls)
        config._fill(values, origins, path)
        return config

    def repository(self, name: str | None = None) -> RepositorySettings:
        """Return the settings of one repository.

        Args:
            name: As in ``[repositories.NAME]``; by default the one at the top level.

        Raises:
            ConfigError: There is no such repository; the message says how to write it down.
        """
        wanted = DEFAULT_REPOSITORY if name is None else name
        if wanted in self._repositories:
            return self._repositories[wanted]
        file = self.filename or "~/.etc.toml"
        known = ", ".join(sorted(self._repositories))
        if wanted != DEFAULT_REPOSITORY:
            raise ConfigError(
                f"There is no repository {redact_url(wanted)!r} (known: {known or 'none'}): choose "
                f"another, or describe it in {file} with a table [repositories.NAME] that has a url"
            )
        others = f", or choose another repository: {known}" if known else ""
        raise ConfigError(
            f'No repository is configured: write url = "s3://bucket/prefix" (or "file:///directory")'
            f" to {file}, or set ETC_URL{others}"
        )

    def repositories(self) -> list[str]:
        """Return the names of all repositories, as :meth:`repository` takes them."""
        return sorted(self._repositories)

    def called(self, name: str, url: str) -> str:
        """What a dataset in the repository with this URL is called on the command line.

        Args:
            name: Of the dataset.
            url: As :func:`redact_url` leaves it; it need not be configured.

        Returns:
            ``NAME``, ``lab:NAME``; or ``…:NAME`` if the repository has no name.
        """
        settings = self.repository_at(url)
        if settings is not None and settings.name == DEFAULT_REPOSITORY:
            return name
        return f"{settings.name if settings is not None else '…'}:{name}"

    def repository_at(self, url: str) -> RepositorySettings | None:
        """Return the settings of the repository that has *url*; ``None`` if none has.

        Args:
            url: As :func:`redact_url` leaves it.
        """
        known = (self._repositories[name] for name in sorted(self._repositories))
        return next((one for one in known if redact_url(one.url) == url), None)

    def settings(self) -> list[Setting]:
        """List every setting in force with its origin, secrets masked."""
        values: dict[str, object] = {"url": self.url, "home": str(self.home)}
        for key in _REPOSITORY_KEYS[1:]:
            values[key] = self._top_level.get(key, False if key == "public" else None)
        for option in fields(TransferOptions):
            values[option.name] = getattr(self.transfer, option.name)
        listed = [
            Setting(key, _masked(key, value), self._origins.get(key, "default"))
            for key, value in values.items()
        ]
        for name, repository in sorted(self._repositories.items()):
            if name == DEFAULT_REPOSITORY:
                continue
            origin = self._origins["repositories"]
            for key in _REPOSITORY_KEYS:
                value = getattr(repository, key)
                if value not in (None, False):
                    listed.append(
                        Setting(f"repositories.{name}.{key}", _masked(key, value), origin)
                    )
        return listed

    def __repr__(self) -> str:
        url = self.url and redact_url(self.url)
        return f"Config(url={url!r}, home={str(self.home)!r})"

    def _fill(
        self, values: Mapping[str, object], origins: Mapping[str, str], path: Path | None
    ) -> None:
        """Check *values* and keep them; *origins* tells where each came from."""
        options = tuple(option.name for option in fields(TransferOptions))
        known = ("url", "home", *_REPOSITORY_KEYS[1:], *options, "repositories")
        values = _with_known_keys(values, known, _prefixes(origins))
        origins = {_canonical(key): origin for key, origin in origins.items()}
        prefixes = _prefixes(origins)

        self.filename = path
        self.home = _check_home(values.get("home"), prefixes.get("home", ""), path)
        self._origins = origins
        self._top_level = {
            key: _check_repository_value(key, values[key], prefixes[key])
            for key in _REPOSITORY_KEYS
            if key in values
        }
        given = (prefixes[key] for key in _KEY_PAIR if key in self._top_level)
        _check_key_pair(self._top_level, next(given, ""))
        self.url = cast("str | None", self._top_level.get("url"))
        self.transfer = TransferOptions(
            **{  # type: ignore[arg-type]  # only level may be None
                key: _check_number(key, values[key], prefixes[key])
                for key in options
                if key in values
            }
        )
        self._repositories = _check_repositories(
            values.get("repositories", {}), prefixes.get("repositories", "")
        )
        if self.url is not None:
            self._repositories[DEFAULT_REPOSITORY] = _settings(DEFAULT_REPOSITORY, self._top_level)


def redact_url(url: str) -> str:
    """Return *url* without user, password, query and fragment, fit to be shown or kept."""
    scheme, separator, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    if not separator:
        return scheme
    if "@" not in rest.partition("/")[0] and _has_credentials(url):
        rest = rest.rpartition("@")[2]  # the secret has a slash in it
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def _prefixes(origins: Mapping[str, str]) -> dict[str, str]:
    """What the message about each key begins with."""
    return {key: "" if origin == "argument" else f"{origin}: " for key, origin in origins.items()}


def _canonical(key: str) -> str:
    return "aws_secret_access_key" if key == _OLD_SECRET else key


def _with_known_keys(
    values: Mapping[str, object], known: tuple[str, ...], prefixes: Mapping[str, str]
) -> dict[str, object]:
    """Return *values* under their present names; refuse those that mean nothing."""
    result: dict[str, object] = {}
    for key, value in values.items():
        if key not in (*known, _OLD_SECRET):
            unknown = "unknown" if prefixes[key] else "Unknown"
            raise ConfigError(f"{prefixes[key]}{unknown} setting {key!r}{_hint(key, known)}")
        if value is None:  # an argument that was not given; TOML has no such value
            continue
        if _canonical(key) in result:
            raise ConfigError(
                f"{prefixes[key]}aws_secret_access_key and its old spelling {_OLD_SECRET} are both "
                "given: keep the first"
            )
        result[_canonical(key)] = value
    return result


def _hint(key: str, known: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    if key == "home" or key in {option.name for option in fields(TransferOptions)}:
        return ": it belongs at the top level"
    near = get_close_matches(key, (*known, _OLD_SECRET), n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    return f"; known are {', '.join(known)}"


def _find_file(filename: str | os.PathLike[str] | None) -> Path | None:
    """Return the file to read, ``None`` if it is the default one and missing."""
    if filename is not None:
        return _expand(os.fspath(filename), "")
    if filename := os.environ.get("ETC_CONFIG"):
        return _expand(filename, "environment ETC_CONFIG: ")
    try:
        path = Path.home() / ".etc.toml"
    except RuntimeError:  # no HOME and no entry in the user database
        return None
    return path if path.exists() else None


def _expand(path: str, prefix: str, base: Path | None = None) -> Path:
    """Make *path* absolute, relative to *base* or the working directory."""
    if not path or _CONTROL.search(path):
        raise ConfigError(f"{prefix}{path!r} is no path")
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{prefix}{path!r}: the home directory of the user is unknown; set HOME"
        ) from error
    return Path(os.path.abspath((base or Path()) / expanded))  # noqa: PTH100 - also drops ".."


def _read_file(path: Path) -> dict[str, object]:
    table, status = read_toml(path, "configuration file")
    for what, advice in _exposures(path, table, status):
        _logger.warning("%s: %s", what, advice)
    return table


def read_toml(path: Path, what: str) -> tuple[dict[str, object], os.stat_result]:
    """Read a TOML file.

    Args:
        path: Where it is.
        what: What it is called in errors.

    Returns:
        Its top level, and the status of the file.

    Raises:
        ConfigError: It is missing, unreadable or not TOML.
    """
    import tomli

    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_LARGEST_FILE).decode("utf-8-sig")
            if file.read(1):
                raise OSError(errno.EFBIG, f"it has more than {_LARGEST_FILE:,} bytes")
        return tomli.loads(text), status
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {what} {path}") from error
    except OSError as error:
        raise ConfigError(f"The {what} {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text, as TOML has to be") from error
    except tomli.TOMLDecodeError as error:
        hint = _toml_hint(text.splitlines()[error.lineno - 1 : error.lineno])
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: a number in it is too long, or a list too deep; no setting needs such a thing"
        ) from error


def _toml_hint(lines: list[str]) -> str:
    """Say what is probably wrong with the line at which reading ended; it is not shown itself."""
    match = re.match(r"\s*([A-Za-z0-9_-]+)\s*=\s*[^\s\"'\[{]", lines[0]) if lines else None
    return f'; text stands in quotes: {match[1]} = "..."' if match else ""


def _holds_secret(table: Mapping[str, object]) -> bool:
    return any(
        key in (*_SECRETS, _OLD_SECRET) or (isinstance(value, dict) and _holds_secret(value))
        for key, value in table.items()
    )


def exposures(path: Path) -> list[tuple[str, str]]:
    """Say what is wrong with the permissions of a configuration file, and what to do.

    Raises:
        ConfigError: It cannot be read any more.
    """
    return _exposures(path, *read_toml(path, "configuration file"))


def _exposures(
    path: Path, table: Mapping[str, object], status: os.stat_result
) -> list[tuple[str, str]]:
    found = []
    if _holds_secret(table) and stat.S_IMODE(status.st_mode) & 0o077:
        found.append((f"{path} holds a secret key and others may open it", f"chmod 600 {path}"))
    if _holds_secret(table) and hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        found.append(
            (
                f"{path} holds a secret key and belongs to another user",
                f"chown it, then chmod 600 {path}",
            )
        )
    return found


def _check_home(value: object, prefix: str, file: Path | None) -> Path:
    if value is None:
        value = "~/.etc"
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"{prefix}home must be a path, not {value!r}")
    # A path in a file must not change its meaning with the working directory.
    base = file.parent if file is not None and prefix == f"{file}: " else None
    text = os.fspath(value)
    if not text:
        raise ConfigError(f"{prefix}home is empty: name a directory, for instance ~/.etc")
    home = _expand(text, prefix, base)
    if home.parent == home or Path(os.path.realpath(home)) == Path(home.anchor):
        raise ConfigError(
            f"{prefix}home must not be {text!r}, the root of the file system: name a directory of "
            "its own, for instance ~/.etc"
        )
    return home


def _check_repository_value(key: str, value: object, prefix: str) -> str | bool:
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
    if key in ("url", "endpoint_url") and _has_credentials(value):
        raise ConfigError(
            f"{prefix}{key} must not hold a user name or password: use aws_access_key_id and "
            "aws_secret_access_key"
        )
    if key == "endpoint_url" and not re.match("https?://[^/]", value, re.IGNORECASE):
        raise ConfigError(
            f"{prefix}endpoint_url must begin with https:// or http://, as in "
            '"http://localhost:9000"'
        )
    return value


def _has_credentials(url: str) -> bool:
    authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    # A secret key may itself hold a slash, which leaves "user:begin" as the authority.
    port = re.sub(r"^\[.*\]", "", authority).partition(":")[2]
    return "@" in authority or bool(port and not port.isdigit())


def _check_key_pair(values: Mapping[str, object], prefix: str) -> None:
    if len([key for key in _KEY_PAIR if key in values]) == 1:
        raise ConfigError(
            f"{prefix}aws_access_key_id and aws_secret_access_key go together: give both or neither"
        )


def _check_number(key: str, value: object, prefix: str) -> int | None:
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


def _check_repositories(tables: object, prefix: str) -> dict[str, RepositorySettings]:
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
        values = _with_known_keys(table, _REPOSITORY_KEYS, dict.fromkeys(table, where))
        if "url" not in values:
            raise ConfigError(f'{where}has no url: add url = "s3://bucket/prefix"')
        checked = {key: _check_repository_value(key, value, where) for key, value in values.items()}
        _check_key_pair(checked, where)
        result[name] = _settings(name, checked)
    return result


def _settings(name: str, values: Mapping[str, str | bool]) -> RepositorySettings:
    # Each value was checked to have the type of its field.
    return RepositorySettings(name=name, **cast("dict[str, str]", values))  # type: ignore[arg-type]


def _masked(key: str, value: object) -> str | int | bool | None:
    if isinstance(value, str):
        if key in _SECRETS:
            return "********"
        if key == "aws_access_key_id":
            # Its end tells keys apart, and opens nothing.
            return f"********{value[-4:]}" if len(value) > 8 else "********"
        if key in ("url", "endpoint_url"):
            return redact_url(value)
    return cast("str | int | bool | None", value)
