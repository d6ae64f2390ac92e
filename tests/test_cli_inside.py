"""``etc ls NAME``, ``etc cat`` and ``etc du``: here and in a repository."""

import json
import os
import pty
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from markdown_it.token import Token

import etcetera
from etcetera.cli import main, page
from tests.datasets import make_dataset
from tests.test_cli import finished


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset that is registered, and pushed to the default repository."""
    (tmp_path / "repository").mkdir()
    monkeypatch.setenv("ETC_URL", (tmp_path / "repository").as_uri())
    root = make_dataset(tmp_path / "flower")
    (root / "README.md").write_text(
        "# Flower\n\nA *red* one. \x1b[2J[evil](http://evil)\n\n"
        "<https://x/%1b]0;PWNED%1b%5c> <mailto:a@%1bb> <https://x/%c2%9b> &#x202e; &rlm;\n\n"
        "| a |\n| --- |\n| <https://x/%1b]0;TABLE%1b%5c> |\n"
    )
    assert main(["-q", "register", str(root)]) == 0
    assert main(["-q", "push", "flower"]) == 0
    return root


@pytest.mark.parametrize("where", [[], ["-r"]])
class TestListing:
    """Names are followed by sizes."""

    def test_top(self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a path, the partitions and what lies beside them."""
        assert main(["ls", *where, "flower"]) == 0
        size = (root / "README.md").stat().st_size
        assert capsys.readouterr().out == (
            f"README.md\t{size}\nassets/\t10\nmeta.json\t17\ndata/test/\t0\ndata/train/\t8004\n"
        )

    def test_directory(
        self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With one, what lies directly in it."""
        assert main(["ls", *where, "flower", "data/train/"]) == 0
        assert capsys.readouterr().out == (
            "data/train/deep/\t3000\ndata/train/empty/\t0\n"
            "data/train/naïve ☃.txt\t4\ndata/train/rose.txt\t5000\n"
        )
        assert main(["ls", *where, "flower", "data/train/empty"]) == 0
        assert capsys.readouterr().out == ""

    def test_long(self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The long form has times, kinds, and where links lead."""
        assert main(["ls", *where, "-l", "flower", "data/test"]) == 0
        time = "2023-11-14T22:13:20+00:00"
        assert capsys.readouterr().out == (
            f"data/test/link\t0\t{time}\tlink\t../train/rose.txt\n"
            f"data/test/nothing\t0\t{time}\tfile\t\n"
        )
        assert main(["ls", *where, "-l", "flower", "data/train/rose.txt"]) == 0
        assert capsys.readouterr().out == f"data/train/rose.txt\t5000\t{time}\tfile\t\n"

    def test_json(self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Programs get everything."""
        assert main(["ls", *where, "--json", "flower", "data"]) == 0
        test, train = json.loads(capsys.readouterr().out)
        assert test == {
            "path": "data/test", "kind": "directory", "files": 1, "bytes": 0, "modified": None,
            "target": None,
        }  # fmt: skip
        assert (train["files"], train["bytes"]) == (3, 8004)

    def test_missing(
        self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is not there has its exit status, and so has a path that leads out."""
        assert main(["ls", *where, "flower", "nothing"]) == 3
        assert "no nothing in flower" in capsys.readouterr().err
        assert main(["ls", *where, "flower", "../x"]) == 2
        assert main(["ls", *where, "nothing"]) == 3

    def test_cat(
        self, where: list[str], root: Path, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        """A file comes as it is, where no terminal is."""
        for path in ("README.md", "data/train/deep/er/x.bin", "data/test/link"):
            assert main(["cat", *where, "flower", path]) == 0
            assert capsysbinary.readouterr().out == (root / path).read_bytes()
        assert main(["cat", *where, "flower", "data/train/nothing"]) == 3
        assert main(["cat", *where, "flower", "data/train"]) == 3
        assert main(["cat", *where, "flower", "../flower/README.md"]) == 2
        assert main(["cat", *where, "nothing", "README.md"]) == 3

    def test_du(
        self, where: list[str], root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Each partition has a line, and so has everything together."""
        assert main(["du", *where, "flower"]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        other = 17 + 10 + (root / "README.md").stat().st_size
        assert [row[:3] for row in rows] == [
            ["test", "1", "0"], ["train", "3", "8004"], ["(elsewhere)", "3", str(other)],
            ["(all)", "7", str(8004 + other)],
        ]  # fmt: skip
        archive = (tmp_path / "repository" / "flower.tgz").stat().st_size
        assert rows[-1][3] == (str(archive) if where else "")
        assert main(["du", *where, "--json", "flower"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["partitions"]["train"]["bytes"] == 8004
        assert (found["partitions"]["train"]["archive_bytes"] is None) == (not where)
        assert found["archive_bytes"] == (archive if where else None)


def test_cat_follows_no_link_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the file nor a directory on the way to it may be a link that leads out."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("SECRET")
    (root / "key").symlink_to(tmp_path / "secret" / "key")
    (root / "way").symlink_to("../secret")
    (root / "round").symlink_to("round")
    for path in ("key", "way/key"):
        assert main(["cat", "flower", path]) == 7
        printed = capsys.readouterr()
        assert "SECRET" not in printed.out
        assert "is a link" in printed.err
    assert main(["cat", "flower", "round"]) == 3


def test_names_with_a_repository(root: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """``default:NAME`` is a remote one."""
    assert main(["cat", "default:flower", "data/train/rose.txt"]) == 0
    assert capsysbinary.readouterr().out == b"rose\n" * 1000
    assert main(["purge", "flower"]) == 0
    assert main(["cat", "flower", "README.md"]) == 3
    assert main(["ls", "default:flower"]) == 0
    assert main(["du", "default:flower"]) == 0


def test_an_archive_without_an_index(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is read from front to back."""
    with tarfile.open(tmp_path / "repository" / "plain.tgz", "w:gz") as tar:
        tar.add(root, ".")
    assert main(["ls", "-r", "plain", "data/train/deep"]) == 0
    assert capsys.readouterr().out == "data/train/deep/er/\t3000\n"
    assert main(["du", "-r", "plain"]) == 0
    assert "train\t3\t8004\t\n" in capsys.readouterr().out
    assert main(["cat", "-r", "plain", "meta.json"]) == 0
    assert capsys.readouterr().out == '{"colour": "red"}'


def test_whoever_reads_may_stop(root: Path) -> None:
    """``etc cat | head`` ends without a word."""
    (root / "data" / "train" / "long.txt").write_text("x" * 5_000_000)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        status, _, errors = finished("cat", "flower", "data/train/long.txt", stdout=writing)
    finally:
        os.close(writing)
    assert (status, errors) == (1, "")


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Run ``etc`` on a terminal; return its status and what is seen there."""
    leader, follower = pty.openpty()
    environment = os.environ | {
        "PYTHONPATH": str(Path(etcetera.__file__).parent.parent), "TERM": "xterm", "COLUMNS": "80",
    }  # fmt: skip
    command = [sys.executable, "-m", "etcetera", *arguments]
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        seen = b""
        try:
            while piece := os.read(leader, 65536):
                seen += piece
        except OSError:  # the other end is closed
            pass
        os.close(leader)
    return process.returncode, seen.decode()


@pytest.mark.parametrize("where", [[], ["-r"]])
def test_terminal(where: list[str], root: Path) -> None:
    """Markdown is rendered, text is shown, and nothing that drives the terminal reaches it."""
    status, seen = on_terminal("cat", *where, "flower", "README.md")
    assert status == 0
    assert "Flower" in seen
    assert "# Flower" not in seen
    assert "\x1b[2J" not in seen
    for driving in ("\x1b]", "\x1b\\", "\x1bb", "\x9b", "\u202e", "\u200f"):
        assert driving not in seen
    status, seen = on_terminal("cat", *where, "flower", "data/train/naïve ☃.txt")
    assert (status, seen) == (0, "snow\r\n")
    status, seen = on_terminal("cat", *where, "flower", "data/train/deep/er/x.bin")
    assert status == 2
    assert "is no text" in seen
    status, seen = on_terminal("ls", *where, "-l", "flower", "data/test")
    assert status == 0
    assert "link to ../train/rose.txt" in seen
    status, seen = on_terminal("du", *where, "flower")
    assert "train" in seen
    assert ("in the archive" in seen) == bool(where)


@pytest.mark.parametrize(
    "text",
    [
        "|a" * 500 + "\n" + "|-" * 500 + "\n" + "|\n" * 4000,
        "> " + "|a" * 500 + "\n> " + "|-" * 500 + "\n" + "> |\n" * 100,
        "[" * 20_000,
    ],
)
def test_intricate_markdown(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would take minutes to render is not."""
    monkeypatch.setattr(page, "_Page", lambda *_, **__: pytest.fail("it was parsed"))
    assert not page.show_markdown(text)


def test_ordinary_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """Large tables are shown, and code is, in one colour."""
    row = "| a | b | c |\n"
    assert page.show_markdown(row + "| - | - | - |\n" + row * 1000 + "\n```python\nimport x\n```\n")
    assert "import x" in capsys.readouterr().out
    assert (
        page._Code.create(page._Page(""), Token("fence", "code", 0, info="python")).lexer_name
        == "text"
    )


def test_long_markdown(root: Path) -> None:
    """Only the beginning is rendered, and nothing is missing."""
    (root / "README.md").write_text("".join(f"## Line {i}\n\n" for i in range(8_000)))
    status, seen = on_terminal("cat", "flower", "README.md")
    assert status == 0
    assert "## Line 0\r" not in seen
    assert "## Line 7999" in seen
    numbers = re.findall(r"Line (\d+)", re.sub(r"\x1b\[[0-9;]*m", "", seen))
    assert [*map(int, numbers)] == [*range(8_000)]
