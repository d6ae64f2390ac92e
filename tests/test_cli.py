"""The command line: every command, every exit status, and what is printed where."""

import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import etcetera
from etcetera import blocking
from etcetera.cli import interruption, main
from etcetera.errors import NoSpace, StoreError
from etcetera.results import PushResult
from tests.signals import inherited
from tests.slow_server import slow_server


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, the default one."""
    directory = tmp_path / "repository"
    directory.mkdir()
    monkeypatch.setenv("ETC_URL", directory.as_uri())
    return directory


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that is laid out as a dataset."""
    root = tmp_path / "flowers"
    for partition in ("test", "train"):
        (root / "data" / partition).mkdir(parents=True)
        (root / "data" / partition / "a.txt").write_text(partition * 1000)
    (root / "meta.json").write_text('{"title": "Flowers", "evil": "\\u001b[2J"}')
    return root


def process(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """Start ``etc`` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(etcetera.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "etcetera", *arguments],
        env=environment | options.pop("environment", {}),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


def finished(*arguments: str, **options: Any) -> tuple[int, str, str]:
    """Run ``etc`` in a process of its own; return its status, output and errors."""
    with process(*arguments, **options) as running:
        output, errors = running.communicate()
        return running.returncode, output, errors


class TestCommands:
    """What each command does and prints."""

    def test_register_ls_purge(
        self, directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """A registered dataset is listed until it is purged; its directory stays."""
        assert main(["register", str(directory)]) == 0
        assert capsys.readouterr().out == f"Registered flowers: {directory}\n"
        assert main(["register", str(directory), "as", "SuperMNIST"]) == 0
        assert main(["register", str(directory), "Other"]) == 0
        capsys.readouterr()
        assert main(["ls"]) == 0
        assert capsys.readouterr().out == "Other\nSuperMNIST\nflowers\n"
        assert main(["purge", "Other"]) == 0
        assert capsys.readouterr().out == f"Removed the link; {directory} is untouched\n"
        assert main(["ls"]) == 0
        assert capsys.readouterr().out == "SuperMNIST\nflowers\n"
        assert (directory / "meta.json").exists()

    def test_force_registers_anew(
        self, directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A name is taken once, unless forced."""
        assert main(["register", str(directory)]) == 0
        assert main(["register", str(directory)]) == 4
        assert "already" in capsys.readouterr().err
        assert main(["register", str(directory), "-f"]) == 0

    @pytest.mark.parametrize("words", [["as"], ["as", "x", "y"], ["x", "y"], ["x", "as"]])
    def test_register_refuses_other_words(
        self, words: list[str], directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Between directory and name only *as* may stand."""
        assert main(["register", str(directory), *words]) == 2
        assert capsys.readouterr().err.startswith("etc: ")

    def test_create(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        """A new dataset has the partitions that were asked for."""
        home = tmp_path / "home"
        assert main(["create", "one", "--home", str(home)]) == 0
        assert main(["create", "two", "-p", "a", "-p", "b", "--home", str(home)]) == 0
        assert sorted(path.name for path in (home / "one" / "data").iterdir()) == ["test", "train"]
        assert sorted(path.name for path in (home / "two" / "data").iterdir()) == ["a", "b"]
        assert main(["create", "two", "--home", str(home)]) == 4
        assert main(["create", "two", "--home", str(home), "--force"]) == 0
        first, second = capsys.readouterr().err.splitlines()
        assert "already" in first
        assert second.startswith("etc: warning: ")
        assert str(home / ".etcetera" / "kept") in second

    def test_round(
        self, directory: Path, repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """What was pushed is listed, described and pulled."""
        assert main(["register", str(directory)]) == 0
        assert main(["push", "flowers", "--dry-run"]) == 0
        assert "Would push flowers" in capsys.readouterr().out
        assert list(repository.iterdir()) == []
        assert main(["push", "flowers"]) == 0
        pushed = capsys.readouterr().out
        url = (repository / "flowers.tgz").as_uri()
        assert pushed.startswith(f"Pushed flowers: {url}\n  3 files, 8.8 KiB, as an archive of ")
        (digest,) = re.findall(r"digest (\S+)", pushed)
        assert main(["ls", "-r"]) == 0
        assert capsys.readouterr().out == "flowers\n"
        assert main(["info", "-r", "flowers"]) == 0
        remote = capsys.readouterr().out
        assert digest in remote
        assert "  train  1 file  4.9 KiB" in remote
        assert "  evil: \\x1b[2J" in remote
        assert main(["pull", "flowers"]) == 4
        other = ["--home", str(tmp_path / "other")]
        assert main(["pull", "flowers", "--dry-run", *other]) == 0
        assert "Would pull flowers" in capsys.readouterr().out
        assert main(["pull", "flowers", *other]) == 0
        pulled = capsys.readouterr().out
        assert pulled.startswith(f"Pulled flowers: {tmp_path / 'other' / 'flowers'}\n  3 files")
        assert digest in pulled
        assert main(["info", "flowers", *other]) == 0
        assert digest in capsys.readouterr().out
        (other_train,) = (tmp_path / "other" / "flowers" / "data" / "train").iterdir()
        other_train.write_text("")
        assert main(["info", "flowers", *other]) == 0
        changed = capsys.readouterr().out
        assert "digest      unknown: it has changed since it was pulled\n" in changed
        assert "size        3.9 KiB (4,041 bytes)\n" in changed
        assert main(["push", "flowers", "-f", *other]) == 0
        assert main(["ls", "-l", *other]) == 0
        assert "\tpulled\t" in capsys.readouterr().out
        assert main(["purge", "flowers", *other]) == 0
        assert "Purged flowers\n" in capsys.readouterr().out

    def test_info_of_what_was_never_pushed(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Why there is no digest yet, and small sizes once."""
        assert main(["create", "empty"]) == 0
        assert main(["info", "empty"]) == 0
        shown = capsys.readouterr().out
        assert "digest    known once it is pushed\n" in shown
        assert "size      0 B\n" in shown

    def test_purge_is_local(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Nobody deletes an archive by mistake, or wonders why nothing happened."""
        assert main(["purge", "lab:flowers"]) == 2
        assert capsys.readouterr().err.endswith(": etc purge flowers\n")

    def test_pull_says_where_unpublished_data_went(
        self, directory: Path, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What is in no repository is kept, and the user told where."""
        assert main(["register", str(directory)]) == 0
        assert main(["push", "flowers"]) == 0
        assert main(["create", "flowers", "-f"]) == 0
        capsys.readouterr()
        assert main(["pull", "flowers", "-f"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("Replaced flowers: ")
        (kept,) = re.findall(r"in no repository, and kept: (.+)", printed)
        assert (Path(kept) / "data" / "train").is_dir()

    def test_long_listing_for_tools(
        self, directory: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without a terminal: tabs, exact bytes, ISO times."""
        assert main(["register", str(directory)]) == 0
        assert main(["create", "empty"]) == 0
        capsys.readouterr()
        assert main(["ls", "--long"]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert [(row[0], row[1], row[3]) for row in rows] == [
            ("empty", "0", "created"),
            ("flowers", "9041", "registered"),
        ]
        assert rows[1][4] == str(directory)

    def test_repositories(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Another repository is named by an option or before a colon."""
        lab = tmp_path / "lab"
        lab.mkdir()
        settings = tmp_path / "etc.toml"
        settings.write_text(f'[repositories.lab]\nurl = "{lab.as_uri()}"\n')
        with_file = ["--config", str(settings)]
        assert main([*with_file, "register", str(directory)]) == 0
        assert main([*with_file, "push", "lab:flowers"]) == 0
        assert main([*with_file, "push", "flowers", "--repository", "lab"]) == 4
        capsys.readouterr()
        assert main([*with_file, "ls", "--repository", "lab"]) == 0
        assert capsys.readouterr().out == "flowers\n"
        assert main([*with_file, "info", "lab:flowers"]) == 0
        assert main([*with_file, "info", "flowers", "--repository", "lab"]) == 0
        assert main([*with_file, "pull", "lab:flowers", "-f"]) == 0
        assert main([*with_file, "pull", "flowers"]) == 2
        assert main([*with_file, "push", "flowers", "--repository", "nowhere"]) == 2
        assert "known: lab" in capsys.readouterr().err

    def test_config_masks_secrets(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Settings come with their origin and without secrets."""
        settings = tmp_path / "etc.toml"
        settings.write_text(
            'url = "s3://bucket"\naws_access_key_id = "AKIAEXAMPLE1234"\n'
            'aws_secret_access_key = "very-secret"\n'
        )
        settings.chmod(0o600)
        assert main(["--config", str(settings), "config"]) == 0
        text = capsys.readouterr().out
        assert re.search(rf"^url +s3://bucket +{settings}$", text, re.MULTILINE)
        assert re.search(r"^region +- +default$", text, re.MULTILINE)
        assert re.search(r"^part_size +8 MiB +default$", text, re.MULTILINE)
        assert re.search(r"^threads +\d+ \(processors\) +default$", text, re.MULTILINE)
        assert "very-secret" not in text
        assert main(["--config", str(settings), "config", "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)
        assert {"key": "public", "value": False, "origin": "default"} in listed
        assert {"key": "url", "value": "s3://bucket", "origin": str(settings)} in listed

    @pytest.mark.parametrize("quiet", [[], ["-q"]])
    def test_public_is_announced(
        self,
        quiet: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """SE-04: who publishes for everybody is told before and after."""

        def push(*_arguments: object, **_options: object) -> PushResult:
            assert ("Everybody will be able to read x" in capsys.readouterr().err) == (not quiet)
            return PushResult(
                name="x",
                url="s3://bucket/x.tgz",
                files=1,
                bytes=1,
                archive_bytes=1,
                part_size=1,
                memory=1,
                replaces=False,
                public=True,
                digest="sha256:0",
            )

        monkeypatch.setattr(blocking, "push", push)
        settings = tmp_path / "etc.toml"
        settings.write_text('url = "s3://bucket"\npublic = true\n')
        assert main(["--config", str(settings), "push", "x", *quiet]) == 0
        assert ("everybody can read it" in capsys.readouterr().out) == (not quiet)

    def test_original_command_lines(
        self, directory: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the first etcetera's users type still works."""
        monkeypatch.chdir(tmp_path)
        for line in (
            "-h",
            "ls -h",
            "register flowers as MNIST",
            "ls",
            "push MNIST",
            "ls -r",
            "purge MNIST",
            "pull MNIST",
            "register flowers as SuperMNIST",
            "register flowers",
        ):
            assert main(line.split()) == 0, line

    @pytest.mark.parametrize(
        "command",
        [
            "ls",
            "register",
            "create",
            "push",
            "pull",
            "purge",
            "info",
            "clean",
            "config",
            "demo",
            "doctor",
        ],
    )
    def test_help(self, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Each command explains itself, also its options that all share."""
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"Usage: etc {command}" in text
        assert "--json" in text
        assert main(["--help"]) == 0
        assert re.search(rf"^  {command} +\w", capsys.readouterr().out, re.MULTILINE)

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The version is the package's."""
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"etcetera {etcetera.__version__}\n"
        for line in (["--json", "--version"], ["--version", "--json"]):
            assert main(line) == 0
            assert json.loads(capsys.readouterr().out) == {"version": etcetera.__version__}

    def test_nothing_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a command there is help, and a failure."""
        assert main([]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Usage: etc" in printed.err


class TestJson:
    """What programs read."""

    def test_results(
        self, directory: Path, repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Each command's result is one JSON value on the standard output, bytes exact."""

        def run(*arguments: str) -> Any:
            assert main([*arguments, "--json"]) == 0
            printed = capsys.readouterr()
            assert printed.err == ""
            return json.loads(printed.out)

        assert run("ls") == []
        registered = run("register", str(directory))
        assert registered == {
            "name": "flowers",
            "location": str(directory),
            "partitions": ["test", "train"],
        }
        assert run("push", "flowers", "--dry-run")["dry_run"] is True
        pushed = run("push", "flowers")
        assert (pushed["files"], pushed["bytes"]) == (3, 9041)
        assert pushed["archive_bytes"] == (repository / "flowers.tgz").stat().st_size
        assert run("ls", "-r") == ["flowers"]
        (listed,) = run("ls", "-r", "--long")
        assert listed["bytes"] == pushed["archive_bytes"]
        described = run("info", "flowers", "-r")
        assert described["digest"] == pushed["digest"]
        assert described["partitions"]["train"] == {"files": 1, "bytes": 5000}
        assert described["meta"]["evil"] == "\x1b[2J"
        pulled = run("pull", "flowers", "--home", str(tmp_path / "other"))
        assert pulled["path"] == str(tmp_path / "other" / "flowers")
        assert run("purge", "flowers") == {"name": "flowers", "purged": True}

    @pytest.mark.parametrize(
        ("arguments", "error", "status"),
        [
            (["push", "nothing"], "DatasetNotFound", 3),
            (["ls", "--bogus"], "UsageError", 2),
            (["purge", ".."], "InvalidName", 2),
        ],
    )
    @pytest.mark.parametrize("before", [True, False])
    def test_errors(
        self,
        arguments: list[str],
        error: str,
        status: int,
        before: bool,
        repository: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """An error is one JSON line, and nothing is on the standard output."""
        line = ["--json", *arguments] if before else [*arguments, "--json"]
        assert main(line) == status
        printed = capsys.readouterr()
        assert printed.out == ""
        (only,) = printed.err.splitlines()
        told = json.loads(only)
        assert (told["error"], told["exit_code"]) == (error, status)
        assert told["message"]


class TestFailures:
    """Exit statuses and messages; interruptions are below."""

    def test_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        """2: what was typed makes no sense."""
        assert main(["pul"]) == 2
        assert capsys.readouterr().err == (
            "etc: No such command 'pul'. Did you mean 'pull'? (etc --help tells more)\n"
        )
        assert main(["push"]) == 2
        assert "NAME" in capsys.readouterr().err
        assert main(["create", "a/b"]) == 2
        assert main(["push", ""]) == 2
        assert main(["ls", "--config", "nowhere.toml"]) == 2
        for option in ("--config", "--home", "--url"):
            assert main(["ls", option, ""]) == 2, option

    def test_remote_without_url(self, capsys: pytest.CaptureFixture[str]) -> None:
        """2: no repository is configured, and the message says how to."""
        assert main(["ls", "-r"]) == 2
        assert 'url = "s3://' in capsys.readouterr().err

    def test_not_found(self, repository: Path, tmp_path: Path) -> None:
        """3: no such dataset, here or there, no directory or no repository."""
        assert main(["register", str(tmp_path / "nothere"), "as", "x"]) == 3
        assert main(["push", "nothing"]) == 3
        assert main(["pull", "nothing"]) == 3
        assert main(["info", "nothing"]) == 3
        assert main(["purge", "nothing"]) == 3
        repository.rmdir()
        assert main(["ls", "-r"]) == 3

    def test_not_allowed(self, capsys: pytest.CaptureFixture[str]) -> None:
        """5: data that is nowhere else is not deleted just so."""
        assert main(["create", "mine"]) == 0
        assert main(["purge", "mine"]) == 5
        assert "--force" in capsys.readouterr().err
        assert main(["purge", "mine", "-f"]) == 0

    def test_network(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """6: nobody answers."""
        with closing(socket.socket()) as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
        settings = tmp_path / "etc.toml"
        settings.write_text(f'url = "s3://bucket"\nendpoint_url = "http://127.0.0.1:{port}"\n')
        assert main(["ls", "-r", "--config", str(settings)]) == 6
        assert str(port) in capsys.readouterr().err

    def test_not_valid(
        self, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """7: a directory that is no dataset, an object that is no archive."""
        assert main(["register", str(tmp_path)]) == 7
        assert '"data/"' in capsys.readouterr().err
        (repository / "junk.tgz").write_bytes(b"this is no archive" * 100)
        assert main(["pull", "junk"]) == 7
        assert main(["ls"]) == 0
        assert capsys.readouterr().out == ""

    def test_no_space(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """8: the disk is full."""

        def full(*_arguments: object, **_options: object) -> None:
            raise NoSpace("Error writing x: No space left on device")

        monkeypatch.setattr(blocking, "pull", full)
        assert main(["pull", "x"]) == 8
        assert capsys.readouterr().err == "etc: Error writing x: No space left on device\n"

    def test_other_failures(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """1: anything else; a traceback only if asked for, notes in any case."""

        def refuse(*_arguments: object, **_options: object) -> None:
            error = StoreError("the store said \x1b[31mno")
            error.add_note("an upload\nis left")
            raise error

        monkeypatch.setattr(blocking, "purge", refuse)
        assert main(["purge", "x"]) == 1
        assert capsys.readouterr().err == (
            "etc: the store said \\x1b[31mno\netc: note: an upload\\nis left\n"
        )
        assert main(["purge", "x", "-v"]) == 1
        logged, message, note, trace, *_ = capsys.readouterr().err.splitlines()
        assert logged.startswith("etc: info: Settings: ")
        assert message.startswith("etc: the store said")
        assert note.startswith("etc: note: ")
        assert trace == "Traceback (most recent call last):"
        assert main(["purge", "x", "--json"]) == 1
        assert json.loads(capsys.readouterr().err)["notes"] == ["an upload\nis left"]

    def test_tracebacks_of_expected_errors_are_short(
        self, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Only our own code is in them; for programs they are in the one line."""
        assert main(["pull", "nothing", "-v"]) == 3
        errors = capsys.readouterr().err
        files = re.findall(r'^  File "(.+?)"', errors, re.MULTILINE)
        package = str(Path(etcetera.__file__).parent)
        assert files
        assert all(name.startswith(package) for name in files)
        assert main(["pull", "nothing", "-v", "--json"]) == 3
        report = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert report["traceback"][0] == "Traceback (most recent call last):"

    def test_details(
        self, directory: Path, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """-v tells which settings, which repository, which parts, and how long it took."""
        assert main(["register", str(directory)]) == 0
        capsys.readouterr()
        assert main(["push", "flowers", "-v"]) == 0
        told = capsys.readouterr().err
        assert "etc: info: Settings: the defaults, there is no configuration file\n" in told
        assert f"etc: info: Repository default: {repository.as_uri()}\n" in told
        plan = "etc: info: Plan: 3 files, at most 0.1 MiB to send, in parts of 8.0 MiB, "
        assert plan in told
        assert re.search(r"etc: info: All that took \d+\.\d\d s\n$", told)
        assert main(["pull", "flowers", "-f", "-v"]) == 0
        assert "etc: info: Archive: 0.0 MiB, with an index\n" in capsys.readouterr().err

    @pytest.mark.parametrize("arguments", [["config"], ["config", "--json"], ["--help"]])
    def test_results_cannot_be_written(self, arguments: list[str]) -> None:
        """8: a full disk is named as one, once."""
        with Path("/dev/full").open("w") as full:
            status, _, errors = finished(*arguments, stdout=full)
        assert status == 8
        (line,) = errors.splitlines()
        assert "Error writing the results: No space left on device" in line

    def test_unexpected_errors(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """1: a bug is named, and how to see more."""

        def fail(*_arguments: object, **_options: object) -> None:
            raise ZeroDivisionError("oops")

        monkeypatch.setattr(blocking, "purge", fail)
        assert main(["purge", "x"]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("etc: Unexpected ZeroDivisionError: oops (run it again with -v")
        assert main(["-v", "purge", "x"]) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_warnings_are_shown(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """What the package logs reaches the user, details with -v."""
        settings = tmp_path / "etc.toml"
        settings.write_text('aws_access_key_id = "k"\naws_secret_access_key = "s"\n')
        settings.chmod(0o644)
        assert main(["ls", "--config", str(settings)]) == 0
        assert capsys.readouterr().err.startswith("etc: warning: ")
        assert main(["ls", "--config", str(settings), "--json"]) == 0
        assert "warning" in json.loads(capsys.readouterr().err)
        assert main(["ls", "-v"]) == 0
        logging.getLogger("etcetera").debug("a detail")
        assert capsys.readouterr().err.endswith("etc: debug: a detail\n")

    def test_broken_pipe(self, directory: Path) -> None:
        """Whoever reads may stop reading; that is no reason to complain."""
        reading, writing = os.pipe()
        os.close(reading)
        status, _, errors = finished("--help", stdout=writing)
        os.close(writing)
        assert (status, errors) == (1, "")


class TestTerminal:
    """What is drawn, and where not."""

    @pytest.mark.parametrize("extra", [[], ["-q"], ["--json"]])
    def test_no_progress_without_a_terminal(
        self, extra: list[str], directory: Path, repository: Path
    ) -> None:
        """Neither a pipe nor a log file gets a progress bar."""
        assert finished("register", str(directory))[0] == 0
        status, output, errors = finished("push", "flowers", *extra)
        assert (status, errors) == (0, "")
        assert (output == "") == (extra == ["-q"])
        assert "\x1b" not in output

    @pytest.mark.parametrize(
        ("extra", "environment", "drawn"),
        [
            ([], {}, True),
            ([], {"NO_COLOR": "1"}, True),
            ([], {"TERM": "dumb"}, False),
            (["-q"], {}, False),
            (["--json"], {}, False),
        ],
    )
    def test_progress_is_truthful(
        self,
        extra: list[str],
        environment: dict[str, str],
        drawn: bool,
        directory: Path,
        repository: Path,
    ) -> None:
        """100 % appears only once the dataset is published; colours only if wanted."""
        (directory / "data" / "train" / "noise").write_bytes(os.urandom(24 << 20))
        assert finished("register", str(directory))[0] == 0
        terminal, stderr = pty.openpty()
        environment = {"TERM": "xterm-256color", "COLUMNS": "100", **environment}
        with process("push", "flowers", *extra, stderr=stderr, environment=environment) as running:
            os.close(stderr)
            errors = _read_all(terminal)
            output = running.communicate()[0]
        assert running.returncode == 0
        assert "\x1b" not in output
        assert (errors != "") == drawn
        if drawn:
            frames = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", errors))
            assert any("published flowers" in frame and "100 %" in frame for frame in frames)
            assert all("published" in frame for frame in frames if "100 %" in frame)
            coloured = re.search(r"\x1b\[[0-9;]*3[0-9]", errors) is not None
            assert coloured == ("NO_COLOR" not in environment)

    def test_a_dead_bar_goes(self, repository: Path) -> None:
        """An error takes the place of the bar, and the cursor is there again."""
        terminal, stderr = pty.openpty()
        environment = {"TERM": "xterm", "COLUMNS": "80"}
        with process("pull", "nope", stderr=stderr, environment=environment) as running:
            os.close(stderr)
            errors = _read_all(terminal)
        assert running.returncode == 3
        assert "\x1b[?25l" in errors
        assert re.search(r"\x1b\[\?25h\r\x1b\[1A\x1b\[2Ketc: There is no dataset nope", errors)
        assert " B" not in errors

    def test_warnings_stand_beside_the_progress(self) -> None:
        """What is said while a bar is drawn gets a line of its own."""
        script = (
            "import logging\n"
            "from etcetera.cli.options import Options\n"
            "from etcetera.cli.logs import show_logs\n"
            "from etcetera.cli.progress import shown\n"
            "show_logs(Options())\n"
            "with shown(Options(), 'x'):\n"
            "    logging.getLogger('etcetera').warning('careful \\x1b[31m')\n"
        )
        terminal, stderr = pty.openpty()
        checkout = str(Path(etcetera.__file__).parent.parent)
        environment = {"PYTHONPATH": checkout, "TERM": "xterm", "COLUMNS": "80"}
        with subprocess.Popen(
            [sys.executable, "-c", script], env=os.environ | environment, stderr=stderr
        ):
            os.close(stderr)
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", _read_all(terminal))
        assert "etc: warning: careful \\x1b[31m" in [
            line.rstrip() for line in re.split("[\r\n]", text)
        ]

    def test_long_listing_for_people(self, directory: Path) -> None:
        """On a terminal: aligned, sizes rounded."""
        assert finished("register", str(directory))[0] == 0
        terminal, stdout = pty.openpty()
        with process("ls", "--long", stdout=stdout):
            os.close(stdout)
            text = _read_all(terminal)
        assert re.fullmatch(
            rf"flowers  8\.8 KiB  \d{{4}}-\d\d-\d\d \d\d:\d\d  registered  {directory}\r\n", text
        )


def _read_all(terminal: int) -> str:
    """Read a terminal until nobody writes to it any more."""
    content = bytearray()
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says so
            piece = b""
        if not piece:
            os.close(terminal)
            return content.decode()
        content += piece


class TestInterruption:
    """Ctrl-C in the middle of an upload."""

    @pytest.fixture(autouse=True)
    def listening(self) -> Iterator[None]:
        """Start processes that can be interrupted."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with inherited(dict.fromkeys(numbers, signal.SIG_DFL)):
            yield

    @pytest.fixture
    def settings(self, directory: Path, tmp_path: Path) -> Path:
        """A configuration to be completed with an endpoint, and a dataset of several parts."""
        (directory / "data" / "train" / "noise").write_bytes(os.urandom(12 << 20))
        assert finished("register", str(directory))[0] == 0
        return tmp_path / "etc.toml"

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    @pytest.mark.parametrize("extra", [[], ["--json"]])
    def test_upload_is_dropped(
        self, number: signal.Signals, extra: list[str], settings: Path
    ) -> None:
        """The first one cancels, cleans up and says so."""
        with slow_server() as server:
            _configure(settings, server.endpoint)
            server.doings.may_abort.set()
            with process("push", "flowers", "--config", str(settings), *extra) as running:
                assert server.doings.sending.wait(30)
                running.send_signal(number)
                output, errors = running.communicate()
            assert running.returncode == 130
            assert output == ""
            assert server.doings.aborting.is_set()
            assert not server.doings.open_uploads
        if extra:
            assert json.loads(errors)["exit_code"] == 130
        else:
            assert errors.splitlines() == [
                "etc: Cleaning up; interrupt once more to stop at once",
                "etc: Interrupted",
            ]

    def test_ignored_signals_stay_ignored(self, settings: Path) -> None:
        """What nohup asks for is respected."""
        with slow_server() as server:
            _configure(settings, server.endpoint)
            server.doings.may_abort.set()
            with inherited({signal.SIGHUP: signal.SIG_IGN}):
                running = process("push", "flowers", "--config", str(settings))
            with running:
                assert server.doings.sending.wait(30)
                running.send_signal(signal.SIGHUP)
                time.sleep(0.3)
                assert running.poll() is None
                running.send_signal(signal.SIGINT)
                running.communicate()
            assert running.returncode == 130

    def test_a_second_one_stops_at_once(self, settings: Path) -> None:
        """AS-03: who insists does not wait for the network, and is told what that may mean."""
        with slow_server() as server:
            _configure(settings, server.endpoint)
            with process("push", "flowers", "--config", str(settings)) as running:
                assert server.doings.sending.wait(30)
                running.send_signal(signal.SIGINT)
                assert server.doings.aborting.wait(30)
                began = time.monotonic()
                running.send_signal(signal.SIGINT)
                errors = running.communicate()[1]
                assert time.monotonic() - began < 5
            assert running.returncode == 130
        assert "may be left open" in errors

    def test_on_a_terminal(self, settings: Path) -> None:
        """The bar goes before anything is said, nothing is drawn again, the cursor comes back."""
        terminal, stderr = pty.openpty()
        environment = {"TERM": "xterm", "COLUMNS": "80"}
        command = ["push", "flowers", "--config", str(settings)]
        with slow_server() as server:
            _configure(settings, server.endpoint)
            with process(*command, stderr=stderr, environment=environment) as running:
                os.close(stderr)
                assert server.doings.sending.wait(30)
                running.send_signal(signal.SIGINT)
                assert server.doings.aborting.wait(30)
                running.send_signal(signal.SIGINT)
                errors = _read_all(terminal)
        drawn, said = errors.split("etc: Cleaning up; interrupt once more to stop at once\r\n")
        assert "pushing flowers" in drawn
        assert drawn.endswith("\x1b[?25h\r\x1b[1A\x1b[2K\x1b[?25h")
        end = "etc: Stopped at once; an upload may be left open in the repository\r\n"
        assert said == f"\x1b[?25h\r\n{end}"

    def test_what_is_left_of_a_pull(
        self, repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Who stops a pull at once is told where the rest is and what becomes of it."""
        said = []

        def fail(*_arguments: object, **_options: object) -> None:
            said.append(interruption.current.second)
            raise StoreError("broken")

        monkeypatch.setattr(blocking, "pull", fail)
        home = tmp_path / "home"
        assert main(["pull", "x", "--home", str(home)]) == 1
        assert said == [
            "etc: Stopped at once; what was fetched is left below "
            f"{home}, and the next pull removes it"
        ]
        assert main(["pull", "x", "--home", str(home), "--json"]) == 1
        assert json.loads(said[1])["exit_code"] == 130
        assert interruption.current.second == "etc: Stopped at once"

    @pytest.mark.parametrize("extra", [[], ["--json"]])
    def test_at_once(self, extra: list[str]) -> None:
        """Even while Python is still importing there is no traceback."""
        script = (
            "import os, signal, sys\n"
            "class Finder:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'typer':\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Finder())\n"
            "from etcetera.cli import main\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script, "ls", *extra],
            env=os.environ | {"PYTHONPATH": str(Path(etcetera.__file__).parent.parent)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (130, "")
        if extra:
            assert json.loads(ended.stderr)["error"] == "Interrupted"
        else:
            assert ended.stderr == "etc: Interrupted\n"


def _configure(settings: Path, endpoint: str) -> None:
    settings.write_text(
        f'url = "s3://bucket"\nendpoint_url = "{endpoint}"\nregion = "us-east-1"\n'
        'part_size = "5MiB"\n'
    )


class TestCompletion:
    """What Tab offers."""

    def complete(self, line: str, **environment: str) -> list[str]:
        """Ask as bash does; the last word is the one being typed."""
        words = f"etc {line}"
        status, output, errors = finished(
            environment={
                "_ETC_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(words.count(" ")),
                **environment,
            }
        )
        assert (status, errors) == (0, "")
        return output.split()

    def test_commands_and_options(self) -> None:
        """Commands, their options and those that all share."""
        assert self.complete("pu") == ["push", "pull", "purge"]
        assert {"--force", "--dry-run", "--json"} <= set(self.complete("push --"))

    def test_names(self, directory: Path, repository: Path, tmp_path: Path) -> None:
        """Local names for what works locally, remote ones for pull."""
        for name in ("flowers", "fruits"):
            assert finished("register", str(directory), name)[0] == 0
        assert finished("push", "fruits")[0] == 0
        for command in ("push", "purge", "info"):
            assert self.complete(f"{command} f") == ["flowers", "fruits"]
        assert self.complete("pull f") == ["fruits"]
        assert self.complete("info -r f") == ["fruits"]
        assert self.complete(f"--home {tmp_path}/nothing push f") == []

    def test_errors_are_silent(self, tmp_path: Path) -> None:
        """Whoever is typing is not disturbed."""
        assert self.complete("pull f") == []
        settings = tmp_path / "etc.toml"
        settings.write_text("nonsense = 1\n")
        assert self.complete("push f", ETC_CONFIG=str(settings)) == []
        settings.write_text('aws_access_key_id = "k"\naws_secret_access_key = "s"\n')
        settings.chmod(0o644)
        assert self.complete("push f", ETC_CONFIG=str(settings)) == []


@pytest.mark.parametrize("arguments", [["--help"], ["ls"], ["ls", "--json"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    """What is answered at once imports neither network nor drawing."""
    script = (
        "import sys; from etcetera.cli import main; status = main(sys.argv[1:])\n"
        "heavy = {'aiobotocore', 'aiofiles', 'asyncio', 'etcetera.api', 'filelock', 'isal', "
        "'pydantic', 'rich'}\n"
        "sys.exit(status or ', '.join(heavy & set(sys.modules)) or 0)"
    )
    finished_process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(Path(etcetera.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished_process.returncode, finished_process.stderr) == (0, "")


def test_nobody_else_knows_how_to_print() -> None:
    """Typer and rich stay within the command line: the rest is a library."""
    package = Path(etcetera.__file__).parent
    importing = re.compile(r"^\s*(?:from|import) (?:typer|rich)\b", re.MULTILINE)
    found = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if importing.search(path.read_text())
    }
    assert found == {"cli"}
