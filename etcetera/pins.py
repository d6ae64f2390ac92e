"""Datasets, pinned to one version: by a digest, or by a lock file that names several."""

import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from etcetera.config_file import read_text
from etcetera.dataset import check_name
from etcetera.errors import ConfigError, DigestMismatch, UsageError
from etcetera.home import Home
from etcetera.receipts import Receipt
from etcetera.settings import redact_url
from etcetera.transfer.options import MiB
from etcetera.transfer.scan import scan

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VERSION = 1
_LARGEST_FILE = MiB
"""Bytes of a lock file: some 6,000 datasets."""
_STRING = r'"(?:[^"\\]|\\.)*"|\'[^\']*\''
_END = r"[ \t]*(?:#.*)?"
_TABLE = re.compile(
    rf"[ \t]*\[[ \t]*datasets[ \t]*\.[ \t]*({_STRING}|[A-Za-z0-9_-]+)[ \t]*\]{_END}"
)
_SETTING = re.compile(rf"[ \t]*([a-z]+)[ \t]*=[ \t]*({_STRING}|[0-9][0-9_]{{0,30}}){_END}")
_NOTHING = re.compile(_END)
_KEYS = ("repository", "digest", "files", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One version of one dataset."""

    name: str
    repository: str
    """The URL of the repository that has it, without what could be a secret in it."""
    digest: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Which versions of which datasets are here; ``str`` gives the content of a lock file."""

    datasets: tuple[Pin, ...]
    left_out: dict[str, str]
    """Why others cannot be pinned, by name."""

    def __str__(self) -> str:
        text = "# Datasets, each in one version: etc sync installs exactly these.\n"
        text += f"version = {_VERSION}\n"
        for pin in self.datasets:
            # As far as a name or URL may go, strings of JSON are strings of TOML, too.
            text += (
                f"\n[datasets.{_quoted(pin.name)}]\n"
                f"repository = {_quoted(pin.repository)}\n"
                f"digest = {_quoted(pin.digest)}\n"
                f"files = {pin.files}\n"
                f"bytes = {pin.bytes}\n"
            )
        return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def read_lock(path: Path) -> tuple[Pin, ...]:
    """Read a lock file; nothing in it is trusted.

    Raises:
        ConfigError: It is missing, unreadable, or no lock file.
        InvalidName: No dataset can be called so.
    """
    text, _ = read_text(path, "lock file", _LARGEST_FILE)
    datasets = _parse(path, text)
    return tuple(_pin(path, check_name(name), value) for name, value in datasets.items())


def _parse(path: Path, text: str) -> dict[str, dict[str, object]]:
    """The tables of a lock file, by the few forms of TOML that one needs.

    All of TOML would let a stranger's file keep the interpreter busy for hours.
    """
    top: dict[str, object] = {}
    datasets: dict[str, dict[str, object]] = {}
    table = top
    keys: tuple[str, ...] = ("version",)
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        if _NOTHING.fullmatch(line):
            continue
        try:
            if found := _SETTING.fullmatch(line):
                key, value = found[1], _value(found[2])
                if key not in keys or key in table:
                    raise ValueError(key)
                table[key] = value
                if top.get("version") != _VERSION:
                    break
            elif (found := _TABLE.fullmatch(line)) and top:
                name = _value(found[1]) if found[1][0] in "\"'" else found[1]
                if name in datasets:
                    raise ValueError(name)
                table, keys = datasets.setdefault(str(name), {}), _KEYS
            else:
                raise ValueError(line)
        except ValueError as error:
            raise ConfigError(
                f"{path}: line {number} is not as etc lock writes it: version first, then for each "
                f'dataset [datasets."NAME"] and {", ".join(_KEYS)}, all of them once; what else is '
                "to be said stands behind a #"
            ) from error
    if top.get("version") != _VERSION:
        raise ConfigError(
            f"{path} is no lock file of this version of etcetera (version = {_VERSION})"
        )
    return datasets


def _value(text: str) -> str | int:
    """A string or number.

    Raises:
        ValueError: It is wrong.
    """
    if text[0] == "'":
        return text[1:-1]
    if text[0] != '"':
        return int(text)
    value = str(json.loads(text))
    value.encode()
    return value


def _pin(path: Path, name: str, value: dict[str, object]) -> Pin:
    where = f"{path}: [datasets.{name}]"
    repository, digest = value.get("repository"), value.get("digest")
    files, size = value.get("files"), value.get("bytes")
    if not isinstance(repository, str) or repository != redact_url(repository):
        raise ConfigError(f"{where} has no repository = URL, without keys in it")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ConfigError(f'{where} has no digest = "sha256:" and 64 hexadecimal digits')
    if not (type(files) is int and files >= 0 and type(size) is int and size >= 0):
        raise ConfigError(f"{where} has no files or no bytes")
    return Pin(name=name, repository=repository, digest=digest, files=files, bytes=size)


def check_digest(digest: str | None) -> None:
    """Raise UsageError if *digest* is given and can be none."""
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise UsageError(
            f"{digest!r} is no digest: 'sha256:' and 64 hexadecimal digits are, as etc info shows"
        )


def version_here(home: Home, name: str, stop: threading.Event) -> tuple[Receipt | None, str | None]:
    """Tell what is known of a local dataset; looks at every file, but reads none.

    Returns:
        Its receipt, and why that does not say which version is here; ``None`` if it does.
    """
    receipt = home.receipt(name)
    if receipt is None:
        return None, "was never pushed or pulled"
    if not receipt.vouches_for(scan(home.path / name, stop)):
        return receipt, f"has changed since it was {receipt.operation}ed"
    return receipt, None


def require_digest(home: Home, name: str, digest: str, stop: threading.Event) -> None:
    """Refuse a local dataset that is not known to have *digest*.

    Raises:
        DigestMismatch: It has another one, it has changed, only a part of it is here, or nobody
            knows.
    """
    receipt, reason = version_here(home, name, stop)
    if receipt is not None and receipt.digest != digest:
        reason = f"has the digest {receipt.digest}"
    elif receipt is not None and receipt.selections and reason is None:
        reason = "is here only in part"
    if reason is not None:
        raise DigestMismatch(
            f"The local dataset {name} {reason}, and {digest} is asked for: pull that version "
            f"(etc pull {name} --force --digest {digest}), or ask for it without a digest"
        )
