"""etcetera.config: where settings come from, and what they may be."""

import logging
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from etcetera.config import Config
from etcetera.errors import ConfigError
from etcetera.settings import RepositorySettings, redact_url
from etcetera.transfer.options import MiB, TransferOptions

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@pytest.fixture
def user() -> Path:
    """The user's directory, with nothing in it."""
    return Path.home()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    """Write a file, private unless *mode* says something else."""
    path.write_text(text)
    path.chmod(mode)
    return path


def test_no_file(user: Path) -> None:
    """Without any file there are defaults, and local commands have a home."""
    config = Config.load()
    assert config.home == user / ".etc"
    assert config.url is None
    assert config.transfer == TransferOptions()
    assert config.filename is None


def test_default_file(user: Path) -> None:
    """The file in the user's directory is read, and its home expanded."""
    path = write(
        user / ".etc.toml",
        'url = "s3://bucket/prefix"\nhome = "~/data"\npublic = true\nregion = "eu-west-1"\n'
        'part_size = "16MiB"\nworkers = 3\nlevel = 0\nthreads = 2\n',
    )
    config = Config.load()
    assert config.filename == path
    assert config.home == user / "data"
    assert config.repository() == RepositorySettings(
        url="s3://bucket/prefix", public=True, region="eu-west-1"
    )
    assert config.transfer == TransferOptions(part_size=16 * MiB, workers=3, level=0, threads=2)


def test_constructor_checks_as_the_file_does() -> None:
    """Options given in Python are the same, and checked the same."""
    config = Config("s3://bucket", "/data/home", public=True, workers=4, part_size="8MB")
    assert config.repository().public
    assert config.home == Path("/data/home")
    assert (config.transfer.workers, config.transfer.part_size) == (4, 8_000_000)
    with pytest.raises(ConfigError, match=r"Unknown setting 'worker'.*'workers'"):
        Config("s3://bucket", worker=4)
    with pytest.raises(ConfigError, match="workers must be"):
        Config("s3://bucket", workers=0)


def test_constructor_ignores_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is constructed has exactly the settings it was given."""
    monkeypatch.setenv("ETC_URL", "s3://elsewhere")
    assert Config().url is None


def test_environment_overrides_file(
    user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ETC_CONFIG, ETC_HOME and ETC_URL win over the file, and arguments win over them."""
    path = write(tmp_path / "other.toml", 'url = "s3://file"\nhome = "/file"\n')
    monkeypatch.setenv("ETC_CONFIG", str(path))
    monkeypatch.setenv("ETC_HOME", "~/environment")
    monkeypatch.setenv("ETC_URL", "s3://environment")
    config = Config.load()
    assert (config.url, config.home) == ("s3://environment", user / "environment")
    config = Config.load(home=tmp_path / "argument", url="s3://argument")
    assert (config.url, config.home) == ("s3://argument", tmp_path / "argument")


def test_url_override_reaches_only_the_default(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ETC_URL replaces the url of the default repository, of no other."""
    write(user / ".etc.toml", '[repositories.lab]\nurl = "s3://lab"\n')
    monkeypatch.setenv("ETC_URL", "s3://environment")
    config = Config.load()
    assert config.repository().url == "s3://environment"
    assert config.repository("lab").url == "s3://lab"


def test_repositories_inherit_nothing(user: Path) -> None:
    """Another repository gets no key, endpoint or publicity from the top level."""
    write(
        user / ".etc.toml",
        f'url = "s3://top"\npublic = true\naws_access_key_id = "AKIAIOSFODNN7EXAMPLE"\n'
        f'aws_secret_access_key = "{SECRET}"\nendpoint_url = "http://127.0.0.1:9000"\n'
        'profile = "work"\n[repositories.lab]\nurl = "s3://lab"\n',
    )
    config = Config.load()
    assert config.repository("lab") == RepositorySettings(name="lab", url="s3://lab")
    assert config.repository().aws_secret_access_key == SECRET


def test_repositories_have_their_own_settings() -> None:
    """A repository's table takes all that describes a repository."""
    config = Config(repositories={"lab": {"url": "file:///lab", "public": True, "profile": "p"}})
    assert config.repository("lab") == RepositorySettings(
        name="lab", url="file:///lab", public=True, profile="p"
    )


def test_missing_url_says_how_to_write_it(user: Path) -> None:
    """Without a url the error shows the line to write, and where, and knows other repositories."""
    with pytest.raises(ConfigError, match=r'url = "s3://bucket/prefix".*\.etc\.toml'):
        Config.load().repository()
    write(user / ".etc.toml", '[repositories.lab]\nurl = "s3://lab"\n')
    with pytest.raises(ConfigError, match="another repository: lab"):
        Config.load().repository()


def test_unknown_repository_names_the_known() -> None:
    """An unknown repository is an error that lists those there are."""
    config = Config("s3://top", repositories={"lab": {"url": "s3://lab"}})
    with pytest.raises(ConfigError, match=r"no repository 'labb' \(known: default, lab\)"):
        config.repository("labb")


def test_old_spelling_of_the_secret(user: Path) -> None:
    """AU-13: the spelling of etcetera 0.0.12 still works, but not beside the new one."""
    write(
        user / ".etc.toml",
        f'url = "s3://b"\naws_access_key_id = "AKIA"\naws_access_key_secret = "{SECRET}"\n',
    )
    assert Config.load().repository().aws_secret_access_key == SECRET
    with pytest.raises(ConfigError, match="old spelling"):
        Config("s3://b", aws_access_key_secret="x", aws_secret_access_key="x")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("worker = 3", "unknown setting 'worker': did you mean 'workers'"),
        ("zzz = 3", "unknown setting 'zzz'; known are url, home"),
        ('[repositories.lab]\nurl = "s3://x"\nregio = "x"', r"lab\] unknown setting 'regio'"),
        ('[repositories.lab]\nurl = "s3://x"\nworkers = 3', "belongs at the top level"),
        ("[repositories.lab]\npublic = true", "has no url"),
        ('[repositories.default]\nurl = "s3://x"', "top level"),
        ('[repositories."a b"]\nurl = "s3://x"', "cannot name a repository"),
        ("repositories = 3", "tables"),
        ("repositories.lab = 3", "table with url"),
        ("url = 3", "url must be a string, not int"),
        ('url = ""', "url is empty"),
        ('url = "s3://x "', "spaces around"),
        ('profile = "a\\u0000b"', "control characters"),
        ('public = "yes"', "public must be true or false"),
        ("home = 3", "home must be a path"),
        ('home = ""', "home is empty"),
        ('home = "/"', "root of the file system"),
        ('home = "/usr/.."', "root of the file system"),
        ("workers = true", "workers must be a whole number"),
        ("workers = 1.5", "workers must be a whole number"),
        ("workers = 100000", "workers must be a whole number from 1 to"),
        ("level = 10", 'level must be a whole number from 0 to 9 or "auto", not 10'),
        ('level = "best"', "level must be a whole number"),
        ('workers = "auto"', "workers must be a whole number"),
        ("threads = 0", "threads must be"),
        ('workers = "3"', "workers must be"),
        ("part_size = 5242879", "part_size must be from 5 MiB to 5 GiB, not 5242879"),
        ('part_size = "4 MiB"', "part_size must be from 5 MiB to 5 GiB, not '4 MiB'"),
        ('endpoint_url = "localhost:9000"', 'must begin with https:// or http://, as in "http'),
        ('endpoint_url = "ftp://localhost"', "must begin with https://"),
        ("url = s3://b\nregion = 3", r'line 1.*; text stands in quotes: url = "\.\.\."'),
        ("part_size = 8MiB", r'text stands in quotes: part_size = "\.\.\."'),
        ('part_size = "16 bananas"', "part_size must be bytes or a size"),
        ('part_size = "many"', "part_size must be bytes or a size"),
        ('aws_access_key_id = "AKIA"', "go together"),
        ('[repositories.lab]\nurl = "s3://x"\naws_secret_access_key = "x"', "go together"),
        ("url = 's3://b'\nurl = 's3://c'\n", "line 2"),
        ("url = s3://b", "not valid TOML: .*line 1"),
    ],
)
def test_wrong_settings(user: Path, text: str, complaint: str) -> None:
    """What is wrong in the file is one error that names the file and the setting."""
    path = write(user / ".etc.toml", text)
    with pytest.raises(ConfigError, match=complaint) as caught:
        Config.load()
    assert str(path) in str(caught.value)


def test_not_text(user: Path) -> None:
    """A file that is not UTF-8 is an error of ours, and a byte order mark is none."""
    path = user / ".etc.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Config.load()
    path.write_bytes(b'\xef\xbb\xbfurl = "s3://b"')
    assert Config.load().url == "s3://b"


def test_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the default file may be missing."""
    with pytest.raises(ConfigError, match=r"no configuration file .*missing\.toml"):
        Config.load(tmp_path / "missing.toml")
    monkeypatch.setenv("ETC_CONFIG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match="no configuration file"):
        Config.load()
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path)


@pytest.mark.parametrize("variable", ["ETC_CONFIG", "ETC_HOME", "ETC_URL"])
def test_empty_variable(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set but empty is as good as none."""
    before = Config.load()
    monkeypatch.setenv(variable, "")
    assert Config.load().settings() == before.settings()


@pytest.mark.parametrize("home", ["/", "//", "/..", "/usr/../.."])
def test_home_is_no_root(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-09: neither argument nor environment makes the root the home."""
    with pytest.raises(ConfigError, match="home"):
        Config(home=home)
    monkeypatch.setenv("ETC_HOME", home)
    with pytest.raises(ConfigError, match="environment ETC_HOME"):
        Config.load()


def test_home_is_no_link_to_the_root(tmp_path: Path) -> None:
    """SE-09: a link does not make the root the home either."""
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(ConfigError, match="root of the file system"):
        Config(home=tmp_path / "link")


def test_relative_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative home is relative to its file, or to the working directory without one."""
    path = write(tmp_path / "etc.toml", 'home = "data"')
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert Config.load(path).home == tmp_path / "data"
    assert Config(home="data").home == tmp_path / "work" / "data"


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA:secret@bucket/prefix",
        "s3://AKIA@bucket",
        f"s3://AKIA:{SECRET}@bucket",
        "https://user:password@[::1]:9000/",
    ],
)
@pytest.mark.parametrize("key", ["url", "endpoint_url"])
def test_credentials_in_urls(key: str, url: str) -> None:
    """A URL with credentials is refused, and the message does not repeat them."""
    with pytest.raises(ConfigError, match="must not hold a user name") as caught:
        Config(**{key: url})
    assert "secret" not in str(caught.value).replace("aws_secret_access_key", "")
    assert SECRET[:8] not in str(caught.value)


def test_ports_are_no_credentials() -> None:
    """A port, also after an IPv6 address, is not taken for a password."""
    for endpoint in ("http://127.0.0.1:9000", "http://[::1]:9000/x", "http://[::1]"):
        assert Config("s3://b", endpoint_url=endpoint).repository().endpoint_url == endpoint
    assert Config("file:///a:b@c").url == "file:///a:b@c"


def test_nothing_shows_secrets(user: Path) -> None:
    """SE-02: neither repr nor the listed settings hold a secret, of any repository."""
    keys = f'aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"\naws_secret_access_key = "{SECRET}"\n'
    keys += f'aws_session_token = "{SECRET}"\n'
    write(
        user / ".etc.toml",
        f'url = "s3://b?token={SECRET}"\n{keys}[repositories.lab]\nurl = "s3://lab"\n{keys}',
    )
    config = Config.load()
    shown = repr((config, config.repository(), config.repository("lab"), config.settings()))
    assert SECRET not in shown
    assert "AKIAIOSFODNN7" not in shown
    settings = {setting.key: setting.value for setting in config.settings()}
    assert settings["aws_secret_access_key"] == "********"
    assert settings["aws_access_key_id"] == "********MPLE"
    assert settings["repositories.lab.aws_session_token"] == "********"


def test_redact_url() -> None:
    """User, password, query and fragment go; the rest stays."""
    assert redact_url("https://u:p@host:1/a@b?q=1#f") == "https://host:1/a@b"
    assert redact_url("http://u:pa/SECRET@host/x") == "http://host/x"
    assert redact_url("http://[::1]:8/a@b") == "http://[::1]:8/a@b"
    assert redact_url("mailto:x?SECRET") == "mailto:x"
    assert redact_url("s3://AKIA:a/b+c@host/d") == "s3://host/d"
    assert redact_url("https://host:80/a@b") == "https://host:80/a@b"
    assert redact_url("file:///a b") == "file:///a b"
    assert redact_url("bucket") == "bucket"


def test_origins(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting tells where it came from."""
    path = write(user / ".etc.toml", 'url = "s3://b"\nworkers = 2\n[repositories.lab]\nurl = "x"\n')
    monkeypatch.setenv("ETC_HOME", "/environment")
    origins = {
        setting.key: setting.origin for setting in Config.load(url="s3://argument").settings()
    }
    assert origins["url"] == "--url"
    assert origins["home"] == "environment ETC_HOME"
    assert origins["workers"] == origins["repositories.lab.url"] == str(path)
    assert origins["level"] == origins["region"] == "default"
    assert {setting.origin for setting in Config("s3://b").settings()} == {"argument", "default"}


def test_every_option_is_a_setting() -> None:
    """Each transfer option can be set, and has its range checked."""
    for option in fields(TransferOptions):
        with pytest.raises(ConfigError, match=f"{option.name} must be"):
            Config(**{option.name: -1})  # type: ignore[arg-type]
        assert option.name in {setting.key for setting in Config().settings()}


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What the user is shown without asking for more."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_exposed_secret(user: Path, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    """SE-03: a secret in a file that others may open is worth a warning with the way out."""
    text = '[repositories.lab]\nurl = "s3://b"\naws_access_key_id = "AKIA"\n'
    text += f'aws_access_key_secret = "{SECRET}"\n'
    path = write(user / ".etc.toml", text, mode)
    Config.load()
    assert [record.name for record in warnings(caplog)] == ["etcetera"]
    assert f"chmod 600 {path}" in caplog.text
    assert SECRET not in caplog.text


def test_private_or_harmless_file(user: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SE-03: no warning where the file is private, or holds no secret."""
    write(user / ".etc.toml", 'url = "s3://b"', 0o644)
    Config.load()
    write(user / ".etc.toml", f'aws_access_key_id = "x"\naws_secret_access_key = "{SECRET}"')
    Config.load()
    assert not warnings(caplog)


def test_file_of_another_user(
    user: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-03: a secret in a file of another user is worth a warning."""
    write(user / ".etc.toml", f'aws_access_key_id = "x"\naws_secret_access_key = "{SECRET}"')
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with caplog.at_level(logging.WARNING, "etcetera"):
        Config.load()
    assert "another user" in caplog.text


def test_unknown_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-08: without HOME and without a user, a home that is given is enough."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    monkeypatch.setattr(Path, "expanduser", lambda path: unknown() if "~" in str(path) else path)
    with pytest.raises(ConfigError, match="HOME"):
        Config.load()
    assert Config.load(home="/data").home == Path("/data")


def test_import_is_light() -> None:
    """Settings are read on every start: neither tomli nor difflib is loaded before its time."""
    code = "import etcetera.config, sys; print({'tomli', 'difflib', 'asyncio'} & set(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    ).stdout
    assert output.strip() == "set()"


def test_large_file(user: Path) -> None:
    """No configuration needs that much, and reading it would take as long as it likes."""
    path = write(user / ".etc.toml", 'url = "s3://b"\n' + "#" * (64 << 10))
    with pytest.raises(ConfigError, match=r"\.etc\.toml cannot be read: it has more than 65,536"):
        Config.load(path)
