"""``etc doctor``: wrong set-ups, and exactly what is said about each."""

import inspect
import re
import shutil
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.cli import main
from etcetera.stores.memory import MemoryStore, memory_store
from tests.doctoring import SECRET, Said, Usage, configure, doctor
from tests.servers import RCLONE_BUCKET, S3Server, make_moto_bucket
from tests.stores.fake_s3 import fake_s3
from tests.test_cli_inside import on_terminal


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


def s3(server: S3Server, bucket: str, **more: object) -> dict[str, object]:
    """Return settings of a repository."""
    return {
        "url": f"s3://{bucket}/some",
        "endpoint_url": server.endpoint,
        "aws_access_key_id": server.key,
        "aws_secret_access_key": server.secret,
        **more,
    }


def test_twins_have_one_signature() -> None:
    """The function and its async twin take the same arguments and give the same result."""
    assert inspect.signature(etc.doctor) == inspect.signature(etc.adoctor)


class TestSettings:
    """What is said about the configuration file."""

    def test_nothing(self, said: Said, user: Path) -> None:
        """Without any settings everything local works."""
        assert said(status=0) == [
            ("ok", "settings", "there is no ~/.etc.toml: defaults and the environment count", ""),
            ("ok", "home", f"{user}/.etc is made when something is to be written there", ""),
            ("ok", "home space", f"50.0 GiB are free at {user}", ""),
            (
                "unknown", "home writing", "locks, names and syncing were not tried",
                "etc doctor --write tries it",
            ),
            (
                "warning", "repository",
                "none is configured as the default: local commands work, push and pull do not",
                'write url = "s3://bucket/prefix" (or gs://, file://) to ~/.etc.toml',
            ),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("text", "message", "advice"),
        [
            (
                f"url = s3://bucket\naws_secret_access_key = '{SECRET}'\n",
                "{file}: not valid TOML: Invalid value (at line 1, column 7)",
                'text stands in quotes: url = "..."',
            ),
            (
                f"aws_secret_acces_key = '{SECRET}'\n",
                "{file}: unknown setting 'aws_secret_acces_key': did you mean "
                "'aws_secret_access_key'?",
                "correct it, in the settings or on the command line",
            ),
            (
                f"aws_secret_access_key = '{SECRET}'\n",
                "{file}: aws_access_key_id and aws_secret_access_key go together: give both or "
                "neither",
                "correct it, in the settings or on the command line",
            ),
        ],
    )
    def test_broken(self, text: str, message: str, advice: str, said: Said, user: Path) -> None:
        """A file that cannot be used is all that is spoken of."""
        file = configure(user)
        file.write_text(text)
        assert said("--write", status=7) == [
            (
                "problem", "settings", message.format(file=file),
                f"{advice}; nothing else can be checked before",
            )
        ]  # fmt: skip
        assert not etc.doctor().ok

    def test_missing(self, said: Said, tmp_path: Path) -> None:
        """So is one that was named and is not there."""
        file = tmp_path / "nothing.toml"
        assert said("--config", str(file), status=7) == [
            (
                "problem", "settings", f"There is no configuration file {file}",
                "correct its name, or write it; nothing else can be checked before",
            )
        ]  # fmt: skip

    def test_readable_by_others(self, said: Said, user: Path, tmp_path: Path) -> None:
        """A file with keys in it that others may read is warned of."""
        (tmp_path / "there").mkdir()
        file = configure(
            user, url=(tmp_path / "there").as_uri(), aws_access_key_id="AKIASESAME",
            aws_secret_access_key=SECRET,
        )  # fmt: skip
        assert said(status=0)[0] == ("ok", "settings", f"{file} can be used", "")
        file.chmod(0o644)
        assert said(status=0)[0] == (
            "warning", "settings", f"{file} holds a secret key and others may open it",
            f"chmod 600 {file}",
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("mode", "key", "what", "advice"),
        [
            (0o644, True, "{file} holds a secret key and others may open it", "chmod 600 {file}"),
            (
                0o666, False, "everybody on this machine can change {file}, and so where data goes",
                "chmod 600 {file}",
            ),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("more", [(), ("-q",), ("-v",)])
    def test_said_once(
        self, mode: int, key: bool, what: str, advice: str, more: tuple[str, ...], user: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        """What is wrong with the modes of the file is among the findings, and nowhere else."""
        keys = {"aws_access_key_id": "AKIASESAME", "aws_secret_access_key": SECRET} if key else {}
        file = configure(user, url="memory://doctor", **keys)
        file.chmod(mode)
        assert main(["doctor", *more]) == 0
        out, errors = capsys.readouterr()
        row = ("warning", "settings", what.format(file=file), advice.format(file=file))
        assert "\t".join(row) in out.splitlines()
        assert "warning" not in errors
        main(["ls", *more])
        assert what.format(file=file) in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("url", "arguments"),
        [
            ("file://repo", ()),
            ("file:///a?b", ()),
            ("nonsense", ()),
            ("s3://-", ()),
            ("s3://bucket/x#y", ()),
            ("memory://", ()),
            ("memory://doctor", ("--repository", "lab")),
            ("memory://doctor", ("--home", "/")),
            ("memory://doctor", ("--home", "")),
            ("memory://doctor", ("--config", "/")),
        ],
    )
    def test_advice(self, url: str, arguments: tuple[str, ...], said: Said, user: Path) -> None:
        """Whatever is wrong, what to do is said."""
        configure(user, url=url)
        last = said(*arguments, status=7)[-1]
        assert last[0] == "problem"
        assert last[3] not in ("", "correct it"), last

    def test_gone(self, user: Path) -> None:
        """A file that vanishes after it was read is missed."""
        configure(user, url="memory://doctor")
        config = etc.Config.load()
        (user / ".etc.toml").unlink()
        first = etc.doctor(config).findings[0]
        assert (first.check, first.status) == ("settings", "problem")

    def test_unknown_repository(self, said: Said, user: Path) -> None:
        """A repository of a name that nobody has described is a problem."""
        file = configure(user, url="memory://doctor")
        last = said("--repository", "lab", status=7)[-1]
        assert last == (
            "problem", "repository",
            "There is no repository 'lab' (known: default)",
            f"choose another, or describe it in {file} with a table [repositories.NAME] that has a "
            "url",
        )  # fmt: skip

    def test_other_repository(self, said: Said, user: Path, tmp_path: Path) -> None:
        """Another repository than the default is examined if asked for, or else offered."""
        (tmp_path / "lab").mkdir()
        file = configure(user)
        file.write_text(f'[repositories.lab]\nurl = "{(tmp_path / "lab").as_uri()}"\n')
        assert said(status=0)[-1][3] == (
            'write url = "s3://bucket/prefix" (or gs://, file://) to '
            f"{file}, or choose one with --repository: lab"
        )
        last = said("--repository", "lab", "--write", status=0)
        assert ("ok", "repository", f"{tmp_path}/lab can be read", "") in last


class TestServers:
    """What is said about S3 servers."""

    def test_wrong_secret(self, said: Said, user: Path, rclone: S3Server) -> None:
        """A secret key that is not the one of the access key."""
        configure(user, **s3(rclone, RCLONE_BUCKET, aws_secret_access_key=SECRET))
        assert said("--write", status=7)[-4:] == [
            ("ok", "credentials", "a key in the settings", ""),
            ("ok", "endpoint", f"{rclone.endpoint} can be reached", ""),
            ("ok", "clock", "it goes as the server's does", ""),
            (
                "problem", "access",
                f"the secret key is not the one of the access key (s3://{RCLONE_BUCKET}/some: "
                "SignatureDoesNotMatch: The request signature we calculated does not match the "
                "signature you provided. Check your key and signing method.)",
                "copy both of them again",
            ),
        ]  # fmt: skip

    def test_no_bucket(self, said: Said, user: Path, moto: S3Server) -> None:
        """A bucket that is not there."""
        configure(user, **s3(moto, "no-such-bucket"))
        assert said(status=7)[-1] == (
            "problem", "bucket", "the bucket no-such-bucket does not exist",
            "create it or correct the URL",
        )  # fmt: skip

    def test_no_server(self, said: Said, user: Path, unused_tcp_port: int) -> None:
        """A port at which nobody listens."""
        server = S3Server(endpoint=f"http://127.0.0.1:{unused_tcp_port}")
        configure(user, **s3(server, "bucket"))
        assert said(status=7)[-2:] == [
            ("ok", "credentials", "a key in the settings", ""),
            (
                "problem", "endpoint", f"127.0.0.1 refuses to connect, at port {unused_tcp_port}",
                "check endpoint_url, whether the server runs, the network and its firewalls",
            ),
        ]  # fmt: skip

    def test_no_extra(self, said: Said, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without the extra that S3 needs, how to install it is said."""
        monkeypatch.setattr("etcetera.stores.find_spec", lambda name: None)
        configure(user, url="s3://bucket")
        assert said(status=7)[-1] == (
            "problem", "repository",
            "s3://bucket needs the extra 's3'", "install it: pip install 'etcetera[s3]'",
        )  # fmt: skip

    def test_moto(self, said: Said, user: Path, moto: S3Server) -> None:
        """What was tried on a server is said in as many words; no dataset comes to be."""
        configure(user, **s3(moto, make_moto_bucket(moto)))
        rows = said("--write", status=0)
        assert rows[-1] == (
            "ok", "removing", "what was written for these checks is gone again", "",
        )  # fmt: skip
        assert etc.ls(remote=True) == []

    async def test_wrong_clock(self, user: Path) -> None:
        """AU-06: a clock that is wrong."""
        async with fake_s3() as fake:
            there = datetime.now(UTC) + timedelta(hours=3)
            fake.always["Date"] = format_datetime(there, usegmt=True)
            configure(user, **s3(S3Server(endpoint=fake.endpoint), "bucket"))
            found = {one.check: one for one in (await etc.adoctor()).findings}
        clock = found["clock"]
        assert clock.status == "problem"
        pattern = (
            r"the clock of this machine is 3 hours behind: it is \d{4}-\d\d-\d\d \d\d:\d\d UTC "
            r"here, \d{4}-\d\d-\d\d \d\d:\d\d UTC there; servers refuse what is signed with such "
            "a time"
        )
        assert re.fullmatch(pattern, clock.message)
        assert clock.advice == "set the clock, or let it be set (timedatectl set-ntp true)"


def test_memory(user: Path) -> None:
    """A store in memory has nothing to be examined; one that breaks is reported."""
    config = etc.Config("memory://examined", user / "home")
    assert etc.doctor(config, write=True).ok
    store: MemoryStore = memory_store("memory://examined")
    store.faults["examine", 2] = etc.EtceteraError("it is broken; mend it")
    last = etc.doctor(config).findings[-1]
    assert (last.status, last.message, last.advice) == ("problem", "it is broken", "mend it")


def test_never_a_dataset(tmp_path: Path) -> None:
    """What a check leaves when it is killed is never listed as a dataset."""
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / ".etcetera-doctor-1234").mkdir()
    (tmp_path / "archives" / ".etcetera-doctor-5678.tgz").touch()
    config = etc.Config((tmp_path / "archives").as_uri(), tmp_path / "archives")
    assert etc.ls(config=config) == etc.ls(True, config) == []


def test_verbose(
    user: Path, tmp_path: Path, moto: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """With -v it is said what is examined, and where that is."""
    bucket = make_moto_bucket(moto)
    configure(user, **s3(moto, bucket))
    assert main(["doctor", "-v"]) == 0
    told = capsys.readouterr().err
    assert f"Examining the repository s3://{bucket}/some\n" in told
    assert f"It is at {moto.endpoint}\n" in told


def test_quiet(user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --quiet only what is not as it should be is said."""
    assert main(["doctor", "-q"]) == 0
    rows = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["unknown", "warning"]


def test_terminal(user: Path) -> None:
    """On a terminal there are columns, and advice below what it is about."""
    status, seen = on_terminal("doctor", "--home", str(user / ".etc.toml" / "below"))
    lines = seen.splitlines()
    assert status == 0
    assert lines[0].startswith("ok       settings      there is no ~/.etc.toml")
    assert lines[-2].startswith("warning  repository    none is configured as the default")
    assert lines[-1].startswith("                       → write url = ")
