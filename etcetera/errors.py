"""Every exception of etcetera.

    EtceteraError                          exit code 1
    ├── UsageError (ValueError)                      2
    │   ├── ConfigError
    │   └── InvalidName
    ├── NotFound (FileNotFoundError)                 3
    │   ├── DatasetNotFound
    │   ├── NoIndex
    │   ├── PathNotFound
    │   └── RepositoryNotFound
    ├── AlreadyExists (FileExistsError)              4
    ├── NotAllowed (PermissionError)                 5
    │   ├── NoCredentials
    │   └── ExpiredCredentials
    ├── NetworkError (ConnectionError)               6
    ├── InvalidDataset (ValueError)                  7
    │   ├── DirectoryNotFound (also NotFound)        3
    │   └── PartitionNotFound (KeyError)
    ├── ArchiveError (ValueError)                    7
    │   ├── NotAnArchive
    │   ├── TruncatedArchive
    │   ├── CorruptArchive
    │   └── UnsafeArchive
    ├── DigestMismatch (ValueError)                  7
    ├── NoSpace (OSError)                            8
    ├── SourceChanged                                1
    ├── RemoteChanged                                1
    └── StoreError                                   1

The base is a ``RuntimeError`` because etcetera 0.0.12 raised that; the builtin in parentheses
is what people already catch. Every message says what happened and what to do next.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from etcetera.space import free_at

_TOKEN = re.compile(
    r"[^ \t-\r'\"\\]+(?:(?:['\"\\]+(?=[\w=&%+/-])|\s+(?=[\w.%-]{1,64}=))[^ \t-\r'\"\\]+)*"
)
"""What stands together: quotes or a blank do not end a query that goes on behind them."""
_USER = re.compile(
    r"(https?:/{0,3})(?:\S{0,200}?:)?[^/\s:]{0,200}@|((?<=:)/|//)[^/\s]*@", re.IGNORECASE
)
"""User and password, also of a URL that lost a slash because it was taken for a path."""
_SIGNED = re.compile(
    r"(?:[?&#]|%(?:25)*(?:3f|26|23))"
    r"(?=x-amz-|x-goog-"
    r"|(?:awsaccesskeyid|signature|sig|se|token|policy|key-pair-id|sas|key|secret|password"
    r"|access[-_]token|api[-_]?key)(?:=|%(?:25)*3d))",
    re.IGNORECASE,
)
"""Begins what opens something to whoever reads it, also of what was a URL once, or is quoted."""
_QUOTED_LINK = re.compile(r"%(?:25)*3a%(?:25)*2f", re.IGNORECASE)
"""``:/`` as it stands in the query of another URL; ``%`` may be quoted again."""
_QUOTED_QUERY = re.compile(r"\?|%(?:25)*3f", re.IGNORECASE)


def without_queries(text: str) -> str:
    """Return *text* without what opens something: links may stand where something else belongs.

    The queries of URLs go, and user and password.
    """
    return _TOKEN.sub(_hide_query, _USER.sub(lambda user: f"{user[1] or user[2]}***@", text))


def quoted(name: object) -> str:
    """What was given as a name, fit to be shown: it may be a URL, whole or mistyped."""
    if isinstance(name, str) and re.search("[/:?#]", name):
        # Whatever looks as if it could be a secret of one.
        head = re.split("[?#;]", name, maxsplit=1)[0]
        user, at, rest = head.rpartition("@")
        colon = re.match(r"[\w.+-]*:/*", user)
        shown = f"{colon[0] if colon else ''}***@{rest}" if at else head
        name = f"{shown}***" if len(head) < len(name) else shown
    return repr(name)


def _hide_query(token: re.Match[str]) -> str:
    # By searching from left to right once: names from archives may have a million characters.
    text = token[0]
    scheme = text.find(":/")
    query = text.find("?", scheme) + 1 if scheme >= 0 else 0
    quoted = _QUOTED_LINK.search(text)
    found = (_SIGNED.search(text), quoted and _QUOTED_QUERY.search(text, quoted.end()))
    starts = [one.end() for one in found if one] + ([query] if query else [])
    return f"{text[: min(starts)]}***" if starts and min(starts) < len(text) else text


def _harmless(argument: object) -> object:
    return without_queries(argument) if isinstance(argument, str) else argument


class EtceteraError(RuntimeError):
    """Base of all errors that etcetera raises on purpose; never raised itself."""

    exit_code: ClassVar[int] = 1
    """What the command line exits with."""

    def __init__(self, *arguments: object) -> None:
        # Here and not only when they are shown: whoever catches an error may log all it has.
        super().__init__(*(_harmless(one) for one in arguments))

    def add_note(self, note: str, /) -> None:
        """Add *note*, without the queries of links."""
        super().add_note(without_queries(note))

    def __str__(self) -> str:
        # KeyError, a base of one of ours, would show the repr instead.
        return str(self.args[0]) if self.args else type(self).__name__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class UsageError(EtceteraError, ValueError):
    """The call itself is wrong: arguments, settings or names."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or setting cannot be used."""


class InvalidName(UsageError):
    """A dataset, partition or repository name that cannot be one."""


class NotFound(EtceteraError, FileNotFoundError):
    """What was asked for is not there."""

    exit_code = 3


class DatasetNotFound(NotFound):
    """No such dataset, locally or in the repository."""


class NothingSelected(NotFound):
    """A partition or pattern that fits nothing in the dataset."""


class NoIndex(NotFound):
    """Nothing says which files a dataset should hold."""


class PathNotFound(NotFound):
    """A dataset has no such file or directory."""


class RepositoryNotFound(NotFound):
    """The bucket or directory that should hold the archives does not exist."""


class AlreadyExists(EtceteraError, FileExistsError):
    """The name is taken and nobody said to replace it."""

    exit_code = 4


class NotAllowed(EtceteraError, PermissionError):
    """The store or the file system refuses."""

    exit_code = 5


class NoCredentials(NotAllowed):
    """Credentials are needed and none were found."""


class ExpiredCredentials(NotAllowed):
    """Credentials were valid once."""


class NetworkError(EtceteraError, ConnectionError):
    """The store cannot be reached, or does not answer sensibly, after all retries."""

    exit_code = 6


class InvalidDataset(EtceteraError, ValueError):
    """A directory that is not laid out as a dataset, or cannot be packed."""

    exit_code = 7


class DirectoryNotFound(InvalidDataset, NotFound):
    """There is no directory where a dataset should be."""

    exit_code = 3


class PartitionNotFound(InvalidDataset, KeyError):
    """The dataset has no such partition."""

    exit_code = NotFound.exit_code


class ArchiveError(EtceteraError, ValueError):
    """An archive that cannot be installed."""

    exit_code = 7


class NotAnArchive(ArchiveError):
    """The object is something else than a .tgz."""


class TruncatedArchive(ArchiveError):
    """The archive ends too early."""


class CorruptArchive(ArchiveError):
    """The archive contradicts itself: a checksum, a length, a header or its index."""


class UnsafeArchive(ArchiveError):
    """The archive would write outside its target, or holds what a dataset cannot."""


class DigestMismatch(EtceteraError, ValueError):
    """It is another version of the data than the one that was asked for."""

    exit_code = 7


class NoSpace(EtceteraError, OSError):
    """The disk, or the quota, is full."""

    exit_code = 8


class SourceChanged(EtceteraError):
    """A file changed while it was packed."""


class RemoteChanged(EtceteraError):
    """The remote archive was replaced while it was read."""


class StoreError(EtceteraError):
    """The store refused a request for a reason that has no error of its own."""


@contextmanager
def os_errors(action: str) -> Iterator[None]:
    """Raise the errors of the operating system as ours, with a hint.

    Args:
        action: What is being done, with the path in it, as in ``"reading /data/x"``.

    Raises:
        NoSpace: The disk or the quota is full.
        NotAllowed: Permissions, or a read-only file system, forbid it.
        StoreError: Any other error of the operating system.
    """
    try:
        yield
    except EtceteraError:  # some of ours are OSErrors too
        raise
    except OSError as error:
        if error.errno is None:  # no system call failed: a TimeoutError of asyncio, for instance
            raise
        # The path, unless the action names it already.
        file = f" ({error.filename})" if not action.endswith(str(error.filename or "")) else ""
        message = f"Error {action}: {error.strerror}{file}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, then try again"
            if error.filename and Path(os.fsdecode(error.filename)).is_absolute():
                hint += f" ({free_at(Path(os.fsdecode(error.filename)))})"
            raise NoSpace(f"{message}; {hint}") from error
        if error.errno == errno.EROFS:
            raise NotAllowed(f"{message}; it can only be read there") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotAllowed(f"{message}; check who owns it and its permissions") from error
        raise StoreError(message) from error


@contextmanager
def archive_errors(url: str) -> Iterator[None]:
    """Say in the errors of an archive which one it is."""
    try:
        yield
    except ArchiveError as error:
        named = type(error)(f"{url}: {error}")
        for note in getattr(error, "__notes__", ()):
            named.add_note(note)
        raise named from error
