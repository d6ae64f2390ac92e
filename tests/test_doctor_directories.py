"""What ``etc doctor`` says about the home and about ``file://`` repositories."""

import asyncio
import errno
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

import etcetera as etc
from etcetera import atomic
from tests.doctoring import Said, Usage, configure, doctor, everything


@pytest.fixture(autouse=True)
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every disk as much space."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 << 30, 50 << 30, 50 << 30))


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """Return the user's home directory."""
    return tmp_path / "user"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Said:
    """Run the doctor, and return what it says."""
    return doctor(capsys, tmp_path)


class TestDirectories:
    """What is said about the home and about file:// repositories."""

    @pytest.fixture
    def repository(self, tmp_path: Path, user: Path) -> Path:
        """Return the directory of the default repository, and have a home."""
        directory = tmp_path / "archives"
        directory.mkdir()
        configure(user, url=directory.as_uri())
        (user / ".etc").mkdir()
        return directory

    def test_all_is_well(self, said: Said, user: Path, repository: Path) -> None:
        """Everything is tried with --write, and nothing is left."""
        assert said("--write", status=0) == [
            ("ok", "settings", f"{user}/.etc.toml can be used", ""),
            ("ok", "home", f"{user}/.etc is there", ""),
            ("ok", "home space", f"50.0 GiB are free at {user}/.etc", ""),
            ("ok", "home writing", f"files can be made in {user}/.etc", ""),
            ("ok", "home locks", "one etcetera waits for another", ""),
            ("ok", "home names", "a directory takes the place of another", ""),
            ("ok", "home syncing", "what is written reaches the disk", ""),
            ("ok", "repository", f"{repository} can be read", ""),
            ("ok", "repository space", f"50.0 GiB are free at {repository}", ""),
            ("ok", "repository writing", f"files can be made in {repository}", ""),
            ("ok", "repository locks", "one etcetera waits for another", ""),
            ("ok", "repository names", "of two pushes of one name the second is refused", ""),
            ("ok", "repository syncing", "what is written reaches the disk", ""),
        ]  # fmt: skip
        assert ("unknown", "repository writing") in [row[:2] for row in said(status=0)]

    def test_no_home(self, said: Said, user: Path, repository: Path) -> None:
        """A home that is a file, or below one, or a link that leads nowhere, is of no use."""
        for home, culprit in (("file", "file"), ("file/below", "file"), ("link", "link")):
            (user / "file").touch()
            if not (user / "link").is_symlink():
                (user / "link").symlink_to("nowhere")
            assert said("--home", str(user / home), "--write", status=7)[1] == (
                "problem", "home", f"{user / culprit} is not a directory",
                "remove it, or name another directory",
            )  # fmt: skip

    def test_no_directory(self, said: Said, user: Path, tmp_path: Path) -> None:
        """A repository that is not there, perhaps not mounted, is not made."""
        configure(user, url=(tmp_path / "mnt/lab").as_uri())
        assert said("--write", status=7)[-1] == (
            "problem", "repository", f"the directory {tmp_path}/mnt/lab does not exist",
            "make it, mount it, or correct the url",
        )  # fmt: skip

    def test_forbidden(
        self, said: Said, user: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be written, or not even read, is told apart."""
        forbidden = os.W_OK

        def access(path: Any, mode: int) -> bool:
            return not mode & forbidden

        monkeypatch.setattr(os, "access", access)
        rows = said("--write", status=7)
        assert rows[1] == (
            "problem", "home", f"{user}/.etc cannot be written: permission denied",
            "check who owns it and its permissions, or set another home",
        )  # fmt: skip
        assert rows[-1] == (
            "warning", "repository writing",
            f"{repository} cannot be written: permission denied; datasets can be pulled, not "
            "pushed",
            "ask its owner, if you want to push",
        )  # fmt: skip
        forbidden = os.R_OK
        assert said("--write", status=7)[1:] == [
            (
                "problem", check, f"{directory} cannot be read: permission denied",
                "check who owns it and its permissions",
            )
            for check, directory in (("home", user / ".etc"), ("repository", repository))
        ]  # fmt: skip

    def test_open_home(self, said: Said, user: Path, repository: Path) -> None:
        """A home that everybody can write to is warned of."""
        for mode, warned in ((0o777, True), (0o755, False), (0o775, False)):
            (user / ".etc").chmod(mode)
            row = (
                "warning", "home permissions",
                f"everybody on this machine can replace or delete what is in {user}/.etc",
                f"chmod o-w {user}/.etc",
            )  # fmt: skip
            assert (row in said(status=0)) == warned

    @pytest.mark.parametrize("free", [1 << 20, None])
    def test_full(
        self, free: int | None, said: Said, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Little space is warned of; no room for another file is a problem."""
        if free is None:
            status = os.statvfs(repository)
            fields = list(status)
            fields[5:8] = [1000, 0, 0]
            monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(fields))
        else:
            monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(free, 0, free))
        spaces = [row for row in said(status=7 if free is None else 0) if "space" in row[1]]
        assert {row[0] for row in spaces} == {"problem" if free is None else "warning"}
        assert {row[1] for row in spaces} == {"home space", "repository space"}

    def test_poor_file_systems(
        self, said: Said, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file system without locks, links and syncing is described as such."""

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(fcntl, "flock", fail)
        monkeypatch.setattr(os, "link", fail)
        monkeypatch.setattr(atomic, "sync", fail)
        rows = {row[1]: row for row in said("--write", status=7)}
        assert rows["home locks"][2] == (
            "the file system has no locks (Function not implemented): two that pull one dataset at "
            "the same time do not wait for each other"
        )
        assert rows["repository names"][2] == (
            "the file system has no hard links (Function not implemented): two pushes of one name "
            "at the same moment may not be told apart"
        )
        assert rows["home syncing"][:3] == (
            "problem", "home syncing", "Error writing to the disk: Function not implemented",
        )  # fmt: skip
        monkeypatch.setattr(fcntl, "flock", lambda *args: None)
        monkeypatch.setattr(os, "link", lambda *args: None)
        monkeypatch.setattr(atomic, "replace", lambda *args: None)
        rows = {row[1]: row for row in said("--write", status=7)}
        assert rows["home locks"][2].startswith("the file system gives one lock to two")
        assert rows["repository names"][2].startswith("the file system gives one name twice")
        assert rows["home names"][0] == "problem"

    def test_full_disk(
        self, said: Said, user: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where nothing can be made, that is what is said."""

        def full(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(user / ".etc"))

        monkeypatch.setattr(tempfile, "mkdtemp", full)
        *found, advice = said("--write", status=7)[3]
        assert found == [
            "problem", "home writing", f"Error writing to {user}/.etc: No space left on device"
        ]  # fmt: skip
        assert re.fullmatch(r"free some space, then try again \(.* are free at .*\)", advice)

    async def test_cancellation(
        self, repository: Path, user: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Cancelled while it writes, it leaves nothing behind."""
        task: asyncio.Task[object]
        loop = asyncio.get_running_loop()

        def cancel(path: Path) -> None:
            loop.call_soon_threadsafe(task.cancel)

        for function in ("sync", "sync_filesystem"):
            with monkeypatch.context() as patched:
                patched.setattr(atomic, function, cancel)
                task = asyncio.create_task(etc.adoctor(write=True))
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert everything(user / ".etc") | everything(repository) == set()
