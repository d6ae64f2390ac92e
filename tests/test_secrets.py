"""Secrets stay secret: whatever is asked for, and whatever a server answers.

Every command and function talks to a server that knows the key, the token and every signature, and
that puts all it knows into its answers. Then everything that was printed, logged, raised or left
on the disk is searched.
"""

import logging
import re
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from anyio.from_thread import start_blocking_portal

import etcetera as etc
from etcetera.cli import main
from etcetera.errors import EtceteraError
from etcetera.filesystem import EtceteraFileSystem
from etcetera.links import parse_link
from etcetera.repository import open_repository
from etcetera.stores import open_url, patience
from etcetera.stores.memory import memory_store
from tests.datasets import make_dataset
from tests.stores.fake_s3 import Answer, FakeS3, Request, fake_s3

KEY = "AKIAPLANTEDKEY012345"
SECRET = "planted/SecretKey+0123=456789"
TOKEN = "planted//SessionToken+0123456789=="
SIGNED = "PlantedSignature0123456789"
LINK = f"/bucket/flower.tgz?X-Amz-Credential={KEY}%2Fx&X-Amz-Signature={SIGNED}"


@dataclass(slots=True)
class Parrot(FakeS3):
    """A server that says whatever it was told."""

    mood: str = "honest"

    def serve(self, request: Request) -> Answer:
        """Answer honestly, or with all that must not be shown."""
        headers = "; ".join(f"{name}: {value}" for name, value in request.headers.items())
        target = f"{self.endpoint}{request.path}?{request.query}&X-Amz-Signature={SIGNED}"
        echo = (
            f"\x1b[31mGET {target} {headers}; StringToSign: AWS4-HMAC-SHA256 {SECRET} "
            f"x-amz-security-token:{TOKEN} X-Amz-Security-Token={quote(TOKEN, safe='')} "
            f"as {quote(TOKEN, safe='')} with {quote(SECRET, safe='')}"
        )
        match self.mood:
            case "honest":
                return FakeS3.serve(self, request)
            case "wrong key":
                return self.refuse(403, "SignatureDoesNotMatch", echo)
            case "refused":
                return self.refuse(403, "AccessDenied", echo)
            case "expired":
                return self.refuse(400, "ExpiredToken", echo)
            case "missing":
                return self.refuse(404, "NoSuchBucket", echo)
            case "broken":
                return self.refuse(500, "InternalError", echo)
            case "strange":
                return self.refuse(418, echo, echo)
            case "talkative":
                return Answer(200, {"ETag": '"x"'}, f"<html>{echo}</html>".encode())
            case _:
                return Answer(301, {"Location": f"http://{KEY}:{SECRET}@127.0.0.1/?s={SIGNED}"})

    def refuse(self, status: int, code: str, echo: str) -> Answer:
        """An error answer that holds everything twice."""
        text = escape(echo.replace("\x1b", ""))
        body = f"<Error><Code>{escape(code)}</Code><Message>{text}</Message><More>{text}</More>"
        return Answer(status, {"x-amz-request-id": "planted"}, f"{body}</Error>".encode())

    def signatures(self) -> set[str]:
        """Those of the requests that came."""
        texts = [request.headers.get("authorization", "") for request in self.seen]
        texts += [f"Signature={one.query.get('X-Amz-Signature', [''])[0]}" for one in self.seen]
        return {found for text in texts for found in re.findall(r"Signature=(\w{20,})", text)}


MOODS = [
    "honest", "wrong key", "strange", "broken", "refused", "expired", "missing", "talkative",
    "redirecting",
]  # fmt: skip
"""The first few are enough for every day."""


def moods(everyday: int) -> list[object]:
    """Moods to be tested in: a few every day, the others in the long run."""
    long = [pytest.param(mood, marks=pytest.mark.long) for mood in MOODS[everyday:]]
    return [*MOODS[:everyday], *long]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parrot]:
    """Run the server, and wait milliseconds where users wait seconds."""
    monkeypatch.setattr(patience, "FIRST_DELAY_SECONDS", 0.001)
    monkeypatch.setattr(patience, "LONGEST_DELAY_SECONDS", 0.01)
    with start_blocking_portal() as portal:
        running = portal.wrap_async_context_manager(fake_s3(Parrot()))
        with running as parrot:
            assert isinstance(parrot, Parrot)
            yield parrot


@dataclass
class Search:
    """Everything that somebody could read."""

    server: Parrot
    texts: list[str] = field(default_factory=list)

    def add(self, thing: object) -> None:
        """Look at one thing as it would be shown, and at an error as deep as it goes."""
        self.texts += [repr(thing), str(thing)]
        if isinstance(thing, BaseException):
            self.texts += traceback.format_exception(thing)
            self.texts += [repr(vars(thing)), repr(thing.args), *getattr(thing, "__notes__", ())]

    def assert_nothing(self, where: Path) -> None:
        """Assert that neither what was shown nor any file below *where* holds a secret."""
        secrets = {KEY, SECRET, TOKEN, SIGNED, *self.server.signatures()}
        secrets |= {quote(text, safe="") for text in secrets}
        leaks = [text for text in self.texts if any(secret in text for secret in secrets)]
        assert not leaks, "\n".join(leaks)
        for path in where.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                assert not [secret for secret in secrets if secret.encode() in data], path


class _Logs(logging.Handler):
    """What an application that logs much has in its log."""

    def __init__(self, search: Search) -> None:
        super().__init__(logging.DEBUG)
        self._search = search
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._search.texts.append(self.format(record))


@pytest.fixture
def search(server: Parrot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    """Collect what is logged, too.

    Of botocore nothing below INFO: its debug log is full of signatures, and never turned on here.
    """
    search, root = Search(server), logging.getLogger()
    handler = _Logs(search)
    root.addHandler(handler)
    monkeypatch.setattr(root, "level", logging.INFO)
    for name in ("etcetera", "aiohttp", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    yield search
    root.removeHandler(handler)


@pytest.fixture
def settings(server: Parrot, tmp_path: Path) -> etc.Config:
    """Two repositories with the planted key, and a dataset of each kind."""
    file = tmp_path / "etc.toml"
    keys = f'aws_access_key_id = "{KEY}"\naws_secret_access_key = "{SECRET}"\n'
    keys += f'aws_session_token = "{TOKEN}"\nendpoint_url = "{server.endpoint}"\n'
    keys += 'region = "us-east-1"\n'
    text = f'url = "s3://bucket"\nhome = "{tmp_path}/home"\n{keys}'
    file.write_text(f'{text}[repositories.lab]\nurl = "s3://bucket/lab"\n{keys}')
    file.chmod(0o600)
    config = etc.Config.load(file)
    etc.register(make_dataset(tmp_path / "flower"), config=config)
    etc.push("flower", config=config)
    return config


COMMANDS = [
    "ls -r --long", "ls -r flower", "cat -r flower README.md", "du -r flower", "push flower",
    "push flower -f", "push flower --dry-run", "pull flower -f", "pull flower -p test -f",
    "pull {link} as other -f", "info {link}", "info -r flower", "verify flower", "verify -r flower",
    "status", "clean -r", "lock", "sync {file}", "config", "pull lab:flower -f",
    "ls -r --url {bad}", "info {typo}", "share flower --expires 8d",
    "push flower -f --repository {typo}",
]  # fmt: skip


@pytest.mark.parametrize("mood", moods(3))
def test_commands(
    mood: str,
    server: Parrot,
    settings: etc.Config,
    search: Search,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """SE-02, SE-06: no command shows a secret, as verbose as can be, or leaves it on the disk."""
    server.mood = mood
    (tmp_path / "etc.lock").write_text(str(etc.lock(config=settings)).replace("flower", "other"))
    places = {
        "link": f"{server.endpoint}{LINK}",
        "typo": f"htps://host{LINK}",
        "bad": f"s3://{KEY}:{SECRET}@bucket?X-Amz-Signature={SIGNED}",
        "file": tmp_path / "etc.lock",
    }
    for number, command in enumerate(COMMANDS):
        words = [word.format(**places) for word in command.split()]
        verbose = ["-v", "--json"] if (number + MOODS.index(mood)) % 2 else ["-v"]
        status = main([*words, *verbose, "--config", str(settings.filename)])
        search.texts += [f"{command}: {status}", *capfd.readouterr()]
        assert "\x1b" not in search.texts[-1] + search.texts[-2]
    assert logging.getLogger("botocore").level == logging.NOTSET
    search.assert_nothing(tmp_path / "home")


MISTAKES = [
    "register {link}", "register {typo} as x", "create {link}", "create x -p {typo}",
    "push {link}", "purge {link}", "purge {typo}", "share {link}",
    "share flower --partition {typo}", "ls {link}", "ls {typo}", "ls -r {link}",
    "cat {link} README.md", "cat flower {link}",
    "du {link}", "verify {link}", "status {link}", "status {typo}", "lock {link}", "sync {link}",
    "pull {link} {link}", "pull {link} as {link}", "pull flower as {typo}", "pull flower {typo}",
    "pull flower --include {link}", "pull flower --exclude {typo}", "pull flower --digest {link}",
    "push flower --base {link}", "push flower --repository {link}", "info {link}x -r",
    "ls --config {link}", "ls --home {link}", "ls -r --url {link}", "ls -r --url {typo}", "{link}",
    "pul {link}", "pull --quite={link}", "clean --older-than {link}",
    "share flower --expires {link}",
]  # fmt: skip


def test_mistakes(
    settings: etc.Config, search: Search, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SE-02: a link that was given where none belongs, or misspelt, is not repeated whole."""
    places = {"link": f"https://127.0.0.1:1{LINK}", "typo": f"htps://host{LINK}"}
    for command in MISTAKES:
        words = [word.format(**places) for word in command.split()]
        file = () if "--config" in words else ("--config", str(settings.filename))
        status = main([*words, "-v", *file])
        search.texts += [f"{command}: {status}", "".join(capfd.readouterr())]
        search.texts[-1] = f"{command}: {search.texts[-1]}"
    search.assert_nothing(tmp_path / "home")


CALLS: list[Callable[[etc.Config, str], object]] = [
    lambda config, _: etc.ls(True, config),
    lambda config, _: etc.push("flower", True, config),
    lambda config, _: etc.pull("flower", True, config),
    lambda config, link: etc.pull(f"{link}#name=other", True, config),
    lambda config, link: etc.info(link, True, config),
    lambda config, _: etc.info("flower", True, config),
    lambda config, _: etc.verify("flower", True, config),
    lambda config, _: etc.status(config=config),
    lambda config, _: etc.clean(True, config),
    lambda config, _: etc.share("flower", config=config),
    lambda config, _: etc.share("flower", "9d", config=config),
    lambda config, _: etc.remote("flower", config),
    lambda config, _: etc.remote("lab:flower", config),
    lambda config, _: etc.dataset("missing", True, config=config),
    lambda config, link: etc.dataset(link, True, config=config),
    lambda config, _: EtceteraFileSystem(config=config, skip_instance_cache=True).ls("flower"),
    lambda config, link: (config, config.repository(), config.settings(), parse_link(link)),
]


@pytest.mark.parametrize("mood", moods(4))
def test_functions(
    mood: str, server: Parrot, settings: etc.Config, search: Search, tmp_path: Path
) -> None:
    """SE-02: no result, error, cause of an error or log shows a secret."""
    server.mood = mood
    for call in CALLS:
        try:
            result = call(settings, f"{server.endpoint}{LINK}")
        except EtceteraError as error:
            search.add(error)
        else:
            search.add(result)
            if isinstance(result, etc.RemoteDataset):
                search.add(list(result.items()))
                result.close()
    search.assert_nothing(tmp_path / "home")


async def test_insides(
    server: Parrot, settings: etc.Config, search: Search, tmp_path: Path
) -> None:
    """What a debugger or an error report shows of the objects inside holds no secret either."""
    async with open_repository(settings, None) as remotes:
        await remotes.store.head("flower.tgz")
        async with remotes.store.open("flower.tgz") as remote:
            search.add((remotes, remotes.store, remote, vars(remotes)))
        search.add(await remotes.store.share("flower.tgz", 60, None))
    async with open_url(f"{server.endpoint}{LINK}") as remote:
        search.add((remote, remote.info))
    search.assert_nothing(tmp_path / "home")


def test_hostile_keys(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """RG-07, SE-11: objects whose keys are no names are not listed, however many there are."""
    config = etc.Config(f"file://{tmp_path}/bucket", tmp_path / "home")
    (tmp_path / "bucket").mkdir()
    etc.create("good", config=config)
    etc.push("good", config=config)
    for key in ("\x1b[31m", "a\nb", "-x", "a:b", ".hidden", "..", "\x9b2J", " x", "a\\b"):
        (tmp_path / "bucket" / f"{key}.tgz").write_bytes(b"x")
    (tmp_path / "bucket" / "\u202egnp").with_suffix(".tgz").write_bytes(b"x")
    for more in ([], ["--long"], ["--json"]):
        url = ["--url", str(config.url), "--home", str(config.home)]
        assert main(["ls", "-r", *more, *url]) == 0
    printed = "".join(capfd.readouterr())
    assert "good" in printed
    assert not re.search("[\x1b\x9b\u202e]|-x|hidden|a:b", printed)
    store = memory_store(f"memory://{tmp_path.name}")
    for number in range(100_000):
        store.publish(f"../{number}.tgz", b"", overwrite=False)
    assert etc.ls(True, etc.Config(store.url, tmp_path / "home")) == []


@pytest.mark.parametrize(
    "url",
    [
        "https://user:sesame@127.0.0.1:1/f.tgz",
        "http://us/er:sesame@127.0.0.1:1/f.tgz",
        "ftp://user:sesame@host/f.tgz",
        "s3://AKIA:sesame@bucket/x",
        "https:/user:sesame@127.0.0.1/f.tgz",
        "https:user:sesame@h/f.tgz",
        " https://127.0.0.1:1/f.tgz?x='sesame'",
        "127.0.0.1/f.tgz?sas=sesame",
        "https://127.0.0.1:1/f.tgz?a b=sesame",
    ],
)
def test_urls_given_to_the_wrong_command(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SE-02: what is no name, directory or file for a command is not repeated with its secrets."""
    (tmp_path / "bucket").mkdir()
    places = ["--url", f"file://{tmp_path}/bucket", "--home", f"{tmp_path}/home"]
    for command in (
        ["verify", url], ["ls", url], ["push", url], ["share", url], ["purge", url], ["du", url],
        ["status", url], ["lock", url], ["register", url], ["create", url], ["sync", url],
        ["cat", url, "x"], ["cat", "x", url], ["pull", "x", "--repository", url],
        ["pull", "x", "--digest", url], ["share", "x", "--expires", url],
    ):  # fmt: skip
        assert main([*places, *command]) != 0
        printed = "".join(capfd.readouterr())
        assert printed
        assert "sesame" not in printed, command
