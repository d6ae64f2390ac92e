"""etcetera.errors: what callers can rely on."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from etcetera import errors
from etcetera.errors import (
    EtceteraError,
    NoSpace,
    NotAllowed,
    StoreError,
    UsageError,
    os_errors,
)
from etcetera.stores.common import leave_note


@pytest.mark.parametrize(
    ("number", "expected", "hint"),
    [
        (errno.ENOSPC, NoSpace, "free some space"),
        (errno.EDQUOT, NoSpace, "free some space"),
        (errno.EROFS, NotAllowed, "only be read"),
        (errno.EACCES, NotAllowed, "permissions"),
        (errno.EPERM, NotAllowed, "permissions"),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_os_errors(number: int, expected: type[EtceteraError], hint: str) -> None:
    """An error of the system becomes ours: the action, the path, a hint, and the cause kept."""
    cause = OSError(number, os.strerror(number), "/data/x/file")
    with pytest.raises(expected, match=hint) as caught, os_errors("reading /data/x"):
        raise cause
    assert type(caught.value) is expected
    assert str(caught.value).startswith(f"Error reading /data/x: {os.strerror(number)} (/data/x/")
    assert caught.value.__cause__ is cause


def test_os_errors_say_the_path_once() -> None:
    """A path that the action names is not repeated."""
    with pytest.raises(StoreError) as caught, os_errors("reading /data/x"):
        Path("/data/x").read_bytes()
    assert str(caught.value) == "Error reading /data/x: No such file or directory"


@pytest.mark.parametrize("error", [NoSpace("full"), TimeoutError(), ValueError("x")])
def test_os_errors_leave_others_alone(error: Exception) -> None:
    """Errors of ours, and those that no system call raised, pass as they are."""
    with pytest.raises(type(error)) as caught, os_errors("reading"):
        raise error
    assert caught.value is error


def test_every_error_has_a_base_and_a_status() -> None:
    """AS-10: every error is one of ours, has a status of the table, and shows its message."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, EtceteraError)
    ]
    assert len(kinds) > 20
    for kind in kinds:
        assert kind.exit_code in range(1, 9)
        assert str(kind("what happened")) == "what happened"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://h/a?X-Amz-Signature=S now", "see https://h/a?*** now"),
        ("'https://h/a?b=S' and s3:/x?S", "'https://h/a?***' and s3:/x?***"),
        ("a&Policy=S&Key-Pair-Id=K b", "a&*** b"),
        ("h/a#X-Amz-Signature=S", "h/a#***"),
        ("really? yes", "really? yes"),
        (
            "no https%3A%2F%2Fhost%2Fx%3FX-Amz-Signature%3Dsesame%26a, sorry",
            "no https%3A%2F%2Fhost%2Fx%3F*** sorry",
        ),
        ("https%3a%2f%2fhost%2fx%3fkey%3dsesame", "https%3a%2f%2fhost%2fx%3f***"),
        ("https%253A%252F%252Fhost%253Fa%253Dsesame", "https%253A%252F%252Fhost%253F***"),
        ("host%2Fx%3Fsig%3Dsesame", "host%2Fx%3F***"),
        ("x%3Fa%26token%253Dsesame", "x%3Fa%26***"),
        ("file:///a%3Fb/50%25.tgz", "file:///a%3Fb/50%25.tgz"),
        ("no 'ftp://user:sesame@host/x' here", "no 'ftp://***@host/x' here"),
        ("//u:sesame@h/a https:/u:sesame@h/b", "//***@h/a https:/***@h/b"),
        ("https://h\\@user:sesame@h/x HTTPS:u:sesame@h", "https://***@h/x HTTPS:***@h"),
        ("mail a@b.c about s3://bucket/a@b", "mail a@b.c about s3://bucket/a@b"),
        ("https://h/x?a b=sesame c=sesame is", "https://h/x?*** is"),
        ("'https://h/x?a=\"y\"sesame', and", "'https://h/x?***', and"),
        (r"'https://h/x?a=\\sesame\nb=sesame' and", "'https://h/x?***' and"),
        ("https://h/x?a\u2028sesame", "https://h/x?***"),
        ("h/f.tgz?sas=sesame", "h/f.tgz?***"),
    ],
)
def test_queries_are_hidden(text: str, shown: str) -> None:
    """SE-02: what opens something is not repeated, wherever it stands."""
    assert str(UsageError(text)) == shown


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b", "'a b'"),
        ("a/b", "'a/b'"),
        ("https:/u:sesame@h/x", "'https:/***@h/x'"),
        ("/u:sesame@h/x", "'***@h/x'"),
        ("https:u:sesame@h", "'https:***@h'"),
        ("h/x?sas=sesame", "'h/x***'"),
        ("x?a\nb=sesame", "'x***'"),
        (3, "3"),
    ],
)
def test_quoted_names(name: object, shown: str) -> None:
    """SE-02: a URL in the place of a name keeps its secrets."""
    assert errors.quoted(name) == shown


@pytest.mark.parametrize("kind", [UsageError, errors.NotFound, errors.PartitionNotFound])
def test_nothing_secret_is_stored(kind: type[EtceteraError]) -> None:
    """SE-02: nor is it in what a program finds in an error: its arguments, notes and copies."""
    link = "https://host/x?X-Amz-Signature=sesame"
    error = kind(link, 7)
    error.add_note(link)
    leave_note(error, link)
    leave_note(foreign := ValueError(), link)
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for one in (error, copied):
        assert one.args == ("https://host/x?***", 7)
        assert one.__notes__ == ["https://host/x?***"] * 2
    assert foreign.__notes__ == ["https://host/x?***"]


def test_hiding_takes_no_time() -> None:
    """A name of a million characters, which an archive may have, is gone through once."""
    plain = (":/" * 500_000, "?" * 1_000_000, "&#" * 500_000, "?a:/" * 250_000)
    quoted = ("%" + "25" * 500_000, "%25" * 300_000, "%3F" * 300_000, "%3fse%" + "25" * 500_000)
    users = (
        "//" * 500_000,
        ":/" * 500_000,
        "//a" * 300_000,
        "https:" * 100_000,
        "//" + "@" * 10**6,
    )
    stops = (
        "'" * 1_000_000,
        "a'" * 500_000,
        "a " * 500_000,
        "a" + " " * 1_000_000 + "b",
        "a b" * 10**5,
    )
    for text in (*plain, *quoted, *users, *stops, "%3a%2f%" * 100_000):
        assert len(str(UsageError(text))) <= len(text) + 3  # or it never ends
