"""etcetera.errors: what callers can rely on."""

import errno
import os
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
    ],
)
def test_queries_are_hidden(text: str, shown: str) -> None:
    """SE-02: what opens something is not repeated, wherever it stands."""
    assert str(UsageError(text)) == shown


def test_hiding_takes_no_time() -> None:
    """A name of a million characters, which an archive may have, is gone through once."""
    for text in (":/" * 500_000, "?" * 1_000_000, "&#" * 500_000, "?a:/" * 250_000):
        assert len(str(UsageError(text))) <= len(text) + 3  # or it never ends
