"""The configuration file: finding, reading, and who else may read it."""

import errno
import logging
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from etcetera.errors import ConfigError
from etcetera.findings import IS_FOUND
from etcetera.settings import OLD_SECRET, SECRETS, expand
from etcetera.transfer.options import KiB

_LARGEST_FILE = 64 * KiB
"""Bytes of a configuration file that are read."""

_logger = logging.getLogger("etcetera")


def find_file(filename: str | os.PathLike[str] | None) -> Path | None:
    """Return the file to read, ``None`` if it is the default one and missing."""
    if filename is not None:
        return expand(os.fspath(filename), "")
    if filename := os.environ.get("ETC_CONFIG"):
        return expand(filename, "environment ETC_CONFIG: ")
    try:
        path = Path.home() / ".etc.toml"
    except RuntimeError:  # no HOME and no entry in the user database
        return None
    return path if path.exists() else None


def read_file(path: Path) -> dict[str, object]:
    """Read the configuration file; warn if others may open what is secret in it.

    Raises:
        ConfigError: It is missing, unreadable or not TOML.
    """
    table, status = read_toml(path, "configuration file")
    for what, advice in _exposures(path, table, status):
        _logger.warning("%s: %s", what, advice, extra=IS_FOUND)
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

    text, status = read_text(path, what, _LARGEST_FILE)
    try:
        return tomli.loads(text), status
    except tomli.TOMLDecodeError as error:
        hint = _toml_hint(text.splitlines()[error.lineno - 1 : error.lineno])
        raise ConfigError(f"{path}: not valid TOML: {error}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: a number in it is too long, or a list too deep; no setting needs such a thing"
        ) from error


def read_text(path: Path, what: str, largest: int) -> tuple[str, os.stat_result]:
    """Read a file that is TOML.

    Args:
        path: Where it is.
        what: What it is called in errors.
        largest: Bytes that it may have.

    Returns:
        Its text, and the status of the file.

    Raises:
        ConfigError: It is missing, unreadable, too large or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(largest + 1)
            if len(content) > largest:
                raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes")
        return content.decode("utf-8-sig"), status
    except FileNotFoundError as error:
        raise ConfigError(f"There is no {what} {path}; correct its name, or write it") from error
    except OSError as error:
        denied = error.errno == errno.EACCES
        advice = "check who owns it and its permissions" if denied else "name a file that can be"
        raise ConfigError(
            f"The {what} {path} cannot be read: {error.strerror}; {advice}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text, as TOML has to be; save it as UTF-8") from error


def _toml_hint(lines: list[str]) -> str:
    """Say what is probably wrong with the line at which reading ended; it is not shown itself."""
    match = re.match(r"\s*([A-Za-z0-9_-]+)\s*=\s*[^\s\"'\[{]", lines[0]) if lines else None
    return f'; text stands in quotes: {match[1]} = "..."' if match else ""


def _holds_secret(table: Mapping[str, object]) -> bool:
    return any(
        key in (*SECRETS, OLD_SECRET) or (isinstance(value, dict) and _holds_secret(value))
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
    elif stat.S_IMODE(status.st_mode) & stat.S_IWOTH:
        what = f"everybody on this machine can change {path}, and so where data goes"
        found.append((what, f"chmod 600 {path}"))
    if _holds_secret(table) and hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        found.append(
            (
                f"{path} holds a secret key and belongs to another user",
                f"chown it, then chmod 600 {path}",
            )
        )
    return found
