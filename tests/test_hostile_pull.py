"""Archives that nobody should trust, pulled like any other: by the API and by ``etc pull``."""

import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest

import etcetera as etc
from etcetera.errors import ArchiveError, InvalidDataset
from tests import trees
from tests.hostile import REFUSED
from tests.tars import dataset, directory, file, symlink, tgz

SECONDS = 20
"""More than any of them takes on a busy machine; reading what a header claims takes for ever."""
BYTES = 32 << 20
NAMED = re.compile(r"'.*'|at byte \d+|ends too early|several|single")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[etc.Config]:
    """An empty repository, and a home beside a canary, with a dataset that must stay."""
    (tmp_path / "bucket").mkdir()
    canary = trees.write(tmp_path / "canary", {"file": trees.file(b"precious")})
    (canary / "file").chmod(0o600)
    home = tmp_path / "home"
    trees.write(home / "before", {"data/train/f": trees.file(b"before")})
    seen = trees.everything(canary), trees.everything(home / "before")
    yield etc.Config(f"file://{tmp_path}/bucket", home)
    assert (trees.everything(canary), trees.everything(home / "before")) == seen
    assert {place.name for place in home.iterdir()} <= {"before", ".etcetera"}
    assert not list((home / ".etcetera" / "staging").iterdir())
    assert {place.name for place in tmp_path.iterdir()} == {"bucket", "canary", "home", "user"}


def offer(config: etc.Config, data: bytes, *names: str) -> None:
    """Put an archive into the repository."""
    assert config.url is not None
    for name in names or ("before", "new"):
        Path(config.url.removeprefix("file://"), f"{name}.tgz").write_bytes(data)


def canary(config: etc.Config) -> bytes:
    """The directory that must not change."""
    return bytes(config.home.parent / "canary")


@pytest.mark.parametrize("case", REFUSED)
async def test_refused(case: str, config: etc.Config) -> None:
    """The error says where, no dataset appears and none is replaced, nothing is left over."""
    error, pieces = REFUSED[case]
    offer(config, dataset(*pieces(canary(config))))
    began = perf_counter()
    with pytest.raises(error) as caught:
        await etc.apull("new", config=config)
    assert perf_counter() - began < SECONDS
    assert NAMED.search(str(caught.value).partition(".tgz: ")[2])
    assert str(caught.value).isprintable()
    with pytest.raises(error):
        await etc.apull("before", force=True, config=config)


BOUNDED = [case for case in REFUSED if case.startswith(("TF-14", "TF-15", "TF-18", "RX"))]


@pytest.mark.parametrize("case", BOUNDED)
async def test_memory(case: str, config: etc.Config) -> None:
    """TF-14, TF-15, TF-18, RX-04, RX-05: no claim of a header takes memory."""
    offer(config, dataset(*REFUSED[case][1](canary(config))))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            await etc.apull("new", config=config)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", ["TF-07-checksum-middle", "PL-04-through-absolute"])
def test_refused_by_command(case: str, config: etc.Config) -> None:
    """``etc pull`` exits with 7 and one readable line."""
    offer(config, dataset(*REFUSED[case][1](canary(config))))
    assert config.url is not None
    environment = os.environ | {"ETC_URL": config.url, "ETC_HOME": str(config.home)}
    for arguments in (("new",), ("before", "--force")):
        done = subprocess.run(
            [sys.executable, "-m", "etcetera", "pull", *arguments],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 7
        assert "Traceback" not in done.stderr
        assert "archive " in done.stderr


LAYOUTS = {
    "no-data": (file(b"meta.json", b"{}"),),
    "data-is-file": (file(b"data", b"x"),),
    "data-is-link": (directory(b"other"), symlink(b"data", b"other")),
    "no-partition": (directory(b"data"),),
    "file-in-data": (directory(b"data/train"), file(b"data/x", b"x")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_no_dataset(layout: str, config: etc.Config) -> None:
    """PL-29: an archive of something else than a dataset is not installed."""
    offer(config, tgz(*LAYOUTS[layout]))
    with pytest.raises(InvalidDataset):
        await etc.apull("new", config=config)
    with pytest.raises(InvalidDataset):
        await etc.apull("before", force=True, config=config)


async def test_second_line_of_defence(config: etc.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """PL-28: should the reader let a link through that leaves, the staged tree is still refused."""
    monkeypatch.setattr("etcetera.transfer.tar.check_link", lambda *_: None)
    offer(config, dataset(symlink(b"data/train/out", b"../../../../canary")))
    with pytest.raises((ArchiveError, InvalidDataset)):
        await etc.apull("new", config=config)
