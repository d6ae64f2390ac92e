"""Settings: where they come from."""

import logging
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, Self, cast

from etcetera.config_file import find_file, read_file
from etcetera.errors import ConfigError
from etcetera.settings import (
    DEFAULT_REPOSITORY,
    KEY_PAIR,
    REPOSITORY_KEYS,
    RepositorySettings,
    canonical,
    check_home,
    check_key_pair,
    check_number,
    check_repositories,
    check_repository_value,
    masked,
    named_settings,
    prefixes_of,
    redact_url,
    with_known_keys,
)
from etcetera.transfer.options import TransferOptions

_logger = logging.getLogger("etcetera")


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
        path = find_file(filename)
        values = {} if path is None else read_file(path)
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
                f"There is no repository {redact_url(wanted)!r} (known: {known or 'none'}); choose "
                f"another, or describe it in {file} with a table [repositories.NAME] that has a url"
            )
        others = f", or choose another repository: {known}" if known else ""
        raise ConfigError(
            'No repository is configured: write url = "s3://bucket/prefix" (or gs://bucket/prefix, '
            f"file:///directory) to {file}, or set ETC_URL{others}"
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
        for key in REPOSITORY_KEYS[1:]:
            values[key] = self._top_level.get(key, False if key == "public" else None)
        for option in fields(TransferOptions):
            values[option.name] = getattr(self.transfer, option.name)
        listed = [
            Setting(key, masked(key, value), self._origins.get(key, "default"))
            for key, value in values.items()
        ]
        for name, repository in sorted(self._repositories.items()):
            if name == DEFAULT_REPOSITORY:
                continue
            origin = self._origins["repositories"]
            for key in REPOSITORY_KEYS:
                value = getattr(repository, key)
                if value not in (None, False):
                    listed.append(Setting(f"repositories.{name}.{key}", masked(key, value), origin))
        return listed

    def __repr__(self) -> str:
        url = self.url and redact_url(self.url)
        return f"Config(url={url!r}, home={str(self.home)!r})"

    def _fill(
        self, values: Mapping[str, object], origins: Mapping[str, str], path: Path | None
    ) -> None:
        """Check *values* and keep them; *origins* tells where each came from."""
        options = tuple(option.name for option in fields(TransferOptions))
        known = ("url", "home", *REPOSITORY_KEYS[1:], *options, "repositories")
        values = with_known_keys(values, known, prefixes_of(origins))
        origins = {canonical(key): origin for key, origin in origins.items()}
        prefixes = prefixes_of(origins)

        self.filename = path
        self.home = check_home(values.get("home"), prefixes.get("home", ""), path)
        self._origins = origins
        self._top_level = {
            key: check_repository_value(key, values[key], prefixes[key])
            for key in REPOSITORY_KEYS
            if key in values
        }
        given = (prefixes[key] for key in KEY_PAIR if key in self._top_level)
        check_key_pair(self._top_level, next(given, ""))
        self.url = cast("str | None", self._top_level.get("url"))
        self.transfer = TransferOptions(
            **{  # type: ignore[arg-type]  # only level may be None
                key: check_number(key, values[key], prefixes[key])
                for key in options
                if key in values
            }
        )
        self._repositories = check_repositories(
            values.get("repositories", {}), prefixes.get("repositories", "")
        )
        if self.url is not None:
            self._repositories[DEFAULT_REPOSITORY] = named_settings(
                DEFAULT_REPOSITORY, self._top_level
            )
