"""What tests of ``etc doctor`` have in common."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from etcetera.cli import main

SECRET = "sesame/open+never=shown"


class Usage(NamedTuple):
    """Of a disk."""

    total: int
    used: int
    free: int


def configure(user: Path, **settings: object) -> Path:
    """Write a configuration file that nobody else may read."""
    file = user / ".etc.toml"
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    file.write_text("".join(lines))
    file.chmod(0o600)
    return file


def everything(directory: Path) -> set[Path]:
    """All that lies in a directory."""
    return set(directory.rglob("*"))


Said = Callable[..., list[tuple[str, ...]]]


def doctor(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Said:
    """Run the doctor, and return what it says; with and without ``-v`` it never shows a secret."""

    def run(*arguments: str, status: int) -> list[tuple[str, ...]]:
        before = everything(tmp_path)
        capsys.readouterr()
        assert main(["doctor", *arguments]) == status
        plain = capsys.readouterr()
        assert main(["doctor", "-v", "--json", *arguments]) == status
        verbose = capsys.readouterr()
        for secret in (SECRET, "testing-secret", "AKIASESAME"):
            assert secret not in "".join((*plain, *verbose))
        rows = [tuple(line.split("\t")) for line in plain.out.splitlines()]
        for kind, _, message, advice in rows:
            assert advice or kind in ("ok", "unknown"), f"no advice: {message}"
        report = json.loads(verbose.out)
        assert report["ok"] == (status == 0)
        assert [
            (one["status"], one["check"], one["message"], one["advice"])
            for one in report["findings"]
        ] == rows
        assert everything(tmp_path) == before
        return rows

    return run
