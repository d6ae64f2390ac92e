"""Names that Tab offers."""

import pytest
import typer
from typer.core import TyperCommand

from etcetera.cli import completion

PLAIN = ["flowers", "a.b,c+d@e%f=g-h_1", "über", "花"]
NAMES = [
    *PLAIN,
    "flowers;id>pwned;#",
    "$(id)",
    "`id`",
    "a b",
    "a\n",
    "a\x1b",
    "a\u202e",
    "a&",
    "~",
    "*",
    "{a,b}",
    "'",
    '"',
    "\\",
    "!!",
    "",
    "--force",
    "=ls",
]


@pytest.mark.parametrize("prefix", ["", "lab:"])
def test_only_plain_names_are_offered(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that a shell would obey is not offered, wherever it comes from."""
    monkeypatch.setattr(completion, "_local_names", lambda *_: NAMES)
    monkeypatch.setattr(completion, "_remote_names", lambda *_: NAMES)
    context = typer.Context(TyperCommand("pull"))
    assert completion.local_names(context) == PLAIN
    assert completion.remote_names(context, prefix) == [prefix + name for name in PLAIN]
