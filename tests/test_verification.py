"""Verify: whatever differs is found, here and in the repository."""

import asyncio
import inspect
import os
import random
import subprocess
import tarfile
from functools import partial
from pathlib import Path

import pytest

import etcetera as etc
from etcetera import blocking, verification, versions
from etcetera.cli import main
from etcetera.errors import (
    DatasetNotFound,
    DirectoryNotFound,
    InvalidDataset,
    NoIndex,
    UsageError,
)
from etcetera.home import Home
from etcetera.transfer.archive import open_archive
from etcetera.transfer.checking import check
from etcetera.transfer.comparing import Comparison
from etcetera.transfer.index import TAIL, parse_footer
from etcetera.transfer.options import MiB
from tests import trees
from tests.archives import KEY, holding, ignore, packed, small
from tests.datasets import make_dataset, settle

SLICED: trees.Tree = trees.SMALL | {
    "data/train/large": trees.file(random.Random(1).randbytes(700_000) * 4, executable=True),
    "data/train/zeros": trees.file(bytes(2 * MiB)),
}


@pytest.fixture
def config(tmp_path: Path) -> etc.Config:
    """A home and a repository, both empty."""
    (tmp_path / "bucket").mkdir()
    return etc.Config(f"file://{tmp_path}/bucket", tmp_path / "home")


@pytest.fixture
def pushed(config: etc.Config, tmp_path: Path) -> Path:
    """The directory of a dataset that is registered as ``flower``, and pushed."""
    root = make_dataset(tmp_path / "flower")
    etc.register(root, config=config)
    etc.push("flower", config=config)
    return root


@pytest.fixture
def pulled(config: etc.Config, pushed: Path, tmp_path: Path) -> etc.Config:
    """Another machine's settings, where it was pulled."""
    other = etc.Config(config.url, tmp_path / "other")
    etc.pull("flower", config=other)
    return other


def without_index(root: Path, archive: Path) -> None:
    """Pack *root* as others do, with a hard link in it."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, ".")
        if (root / "data/train/rose.txt").exists():
            again = tarfile.TarInfo("./data/train/again.txt")
            again.type, again.linkname = tarfile.LNKTYPE, "./data/train/rose.txt"
            tar.addfile(again)


@pytest.mark.parametrize("name", ["verify", "status", "lock", "checksums"])
def test_twins_have_one_signature(name: str) -> None:
    """A function and its async twin take the same arguments and give the same result."""
    module = verification if hasattr(verification, f"a{name}") else versions
    twin = getattr(module, f"a{name}")
    assert inspect.signature(getattr(blocking, name)) == inspect.signature(twin)
    assert name == "checksums" or getattr(etc, f"a{name}") is twin


def test_sound(pushed: Path, config: etc.Config, pulled: etc.Config) -> None:
    """What was just pushed or pulled is as it should be, here and there, in every way."""
    for settings in (config, pulled):
        for quick in (False, True):
            result = etc.verify("flower", config=settings, quick=quick)
            assert result.ok
            assert (result.kind, result.files, result.bytes) == ("local", 7, 8040)
    result = etc.verify("flower", True, config)
    assert result.ok
    assert (result.kind, result.files, result.bytes) == ("remote", 7, 8040)


def test_every_local_file(pulled: etc.Config) -> None:
    """One flipped bit is found in whichever file it is, even if its time stays."""
    root = pulled.home / "flower"
    files = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in files:
        content, status = path.read_bytes(), path.stat()
        if not content:
            continue
        place = len(content) // 2
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        result = etc.verify("flower", config=pulled)
        assert result.changed == (str(path.relative_to(root)),)
        assert not result.ok
        path.write_bytes(content)
    assert etc.verify("flower", config=pulled).ok


def test_what_is_listed(pulled: etc.Config) -> None:
    """SY-07: missing, changed (also kind, mode and target) and extra, in the archive's order."""
    root = pulled.home / "flower"
    (root / "meta.json").unlink()
    (root / "data/train/deep/er/x.bin").unlink()
    (root / "data/train/deep/er").rmdir()
    (root / "assets/run.sh").chmod(0o644)
    (root / "data/test/link").unlink()
    (root / "data/test/link").symlink_to("nothing")
    (root / "data/test/nothing").unlink()
    (root / "data/test/nothing").mkdir()
    (root / "data/train/rose.txt").write_text("short")
    (root / "more").mkdir()
    (root / "more/\x1b[31m").touch()
    result = etc.verify("flower", config=pulled)
    assert result.missing == ("meta.json", "data/train/deep/er", "data/train/deep/er/x.bin")
    assert result.changed == (
        "assets/run.sh",
        "data/test/link",
        "data/test/nothing",
        "data/train/rose.txt",
    )
    assert result.extra == ("more", "more/\x1b[31m")


def test_quick(pulled: etc.Config) -> None:
    """Quick looks at sizes and times, and reads nothing."""
    path = pulled.home / "flower/data/train/rose.txt"
    content = path.read_bytes()
    path.write_bytes(content[:-2] + b"?\n")
    assert etc.verify("flower", config=pulled, quick=True).changed == ("data/train/rose.txt",)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert etc.verify("flower", config=pulled, quick=True).ok
    assert not etc.verify("flower", config=pulled).ok


def test_large_files(config: etc.Config, tmp_path: Path) -> None:
    """Files of several frames and pieces are read whole, here and there."""
    root = trees.write(tmp_path / "large", SLICED)
    etc.register(root, config=config)
    etc.push("large", config=config)
    assert etc.verify("large", config=config).ok
    assert etc.verify("large", True, config=config).ok
    with (root / "data/train/zeros").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert etc.verify("large", config=config).changed == ("data/train/zeros",)


def test_part(config: etc.Config, pushed: Path, tmp_path: Path) -> None:
    """Of a part, only what was taken has to be there."""
    other = etc.Config(config.url, tmp_path / "other")
    etc.pull("flower", config=other, partitions=["train"])
    result = etc.verify("flower", config=other)
    assert result.ok
    assert result.files == 5
    (other.home / "flower/data/train/rose.txt").unlink()
    assert etc.verify("flower", config=other).missing == ("data/train/rose.txt",)


def test_archive_without_index(config: etc.Config, pushed: Path, tmp_path: Path) -> None:
    """An index is made for what has none; the archive itself is read from front to back."""
    archive = tmp_path / "bucket" / "plain.tgz"
    without_index(pushed, archive)
    assert etc.verify("plain", True, config=config).files == 8
    etc.pull("plain", config=config)
    assert etc.verify("plain", config=config).files == 8
    assert etc.verify("plain", config=config, quick=True).ok
    (config.home / "plain/data/train/rose.txt").write_text("thorn")
    assert set(etc.verify("plain", config=config).changed) == {
        "data/train/rose.txt",
        "data/train/again.txt",  # the same file
    }
    data = archive.read_bytes()
    archive.write_bytes(data[:-5] + b"?" + data[-4:])
    assert "corrupt" in str(etc.verify("plain", True, config=config).problem)


def test_large_archive_without_index(config: etc.Config, tmp_path: Path) -> None:
    """The index that is made has large files in it, too."""
    root = trees.write(tmp_path / "large", SLICED)
    without = tmp_path / "bucket" / "large.tgz"
    with tarfile.open(without, "w:gz", compresslevel=1) as tar:
        tar.add(root, ".")
    etc.pull("large", config=config)
    assert etc.verify("large", config=config).ok
    assert blocking.checksums("large", config=config).keys() == {
        path for path, node in SLICED.items() if node.kind == "f"
    }


async def problem(data: bytes) -> str | None:
    """What the check of an archive says."""
    async with holding(data).open(KEY) as remote:
        assert remote is not None
        try:
            archive, index = await open_archive(remote)
        except etc.EtceteraError as error:
            return str(error)
        return (await check(archive, index, small(), ignore)).problem


async def test_every_byte_of_an_archive(tmp_path: Path) -> None:
    """UP-28, DN-07: one changed bit is found wherever it is: in headers, frames, index, trailer."""
    data = await packed(trees.write(tmp_path / "source", trees.SMALL))
    assert await problem(data) is None
    footer = parse_footer(data[-TAIL:], len(data))
    assert footer is not None
    begin = footer.root_offset
    structural = {*range(12), *range(begin - 12, begin + 12), *range(len(data) - 12, len(data))}
    structural |= {*range(len(data) - TAIL - 12, len(data) - TAIL + 140)}
    chosen = random.Random(5)
    places = structural | {*chosen.sample(range(len(data)), 250)}
    for place in sorted(places):
        damaged = bytearray(data)
        damaged[place] ^= 1 << chosen.randrange(8)
        assert await problem(bytes(damaged)) is not None, place


async def test_bits_that_only_fill_up(tmp_path: Path) -> None:
    """Bits of the index that mean nothing to whoever inflates it are looked at, too."""
    data = await packed(trees.write(tmp_path / "source", trees.SMALL))
    footer = parse_footer(data[-TAIL:], len(data))
    assert footer is not None
    head = data.rindex(b".etcetera-index.jsonl", 0, footer.root_offset) - 5
    for place in (head, len(data) - TAIL):
        damaged = bytearray(data)
        damaged[place] ^= 0x80
        assert await problem(bytes(damaged)) is not None, place


async def test_all_damage_is_listed(tmp_path: Path) -> None:
    """Damage in one frame does not hide that in another; the rest is checked all the same."""
    data = bytearray(await packed(trees.write(tmp_path / "source", SLICED), small(level=0)))
    for text in (b"#!/bin/sh", b"d" * 5_000):
        data[data.index(text)] ^= 1
    data[data.index(bytes(60_000))] ^= 1
    async with holding(bytes(data)).open(KEY) as remote:
        assert remote is not None
        checked = await check(*await open_archive(remote), small(), ignore)
    assert {"assets/run.sh", "data/train/deep/er/d", "data/train/zeros"} <= set(checked.damaged)
    assert "data/train/large" not in checked.damaged
    assert "checksum" in str(checked.problem)


async def test_truncated(tmp_path: Path) -> None:
    """A cut archive is damaged, wherever it was cut."""
    data = await packed(trees.write(tmp_path / "source", trees.SMALL))
    for length in (1, 2, 9, 200, len(data) - TAIL, len(data) - 1):
        assert await problem(data[:length]) is not None


def test_unknown(config: etc.Config, pushed: Path, tmp_path: Path) -> None:
    """What cannot be checked is an error that says what to do."""
    with pytest.raises(DatasetNotFound):
        etc.verify("none", config=config)
    with pytest.raises(DatasetNotFound):
        etc.verify("none", True, config=config)
    with pytest.raises(UsageError, match="quick"):
        etc.verify("flower", True, config, quick=True)
    etc.create("new", config=config)
    with pytest.raises(NoIndex, match="etc push new"):
        etc.verify("new", config=config)
    os.mkfifo(pushed / "data/train/pipe")
    with pytest.raises(InvalidDataset, match="pipe"):
        etc.verify("flower", config=config)
    pushed.rename(tmp_path / "elsewhere")
    with pytest.raises(DirectoryNotFound, match="does not exist"):
        etc.verify("flower", config=config)


@pytest.mark.parametrize("damage", ["absent", "empty", "short", "flipped", "other"])
def test_kept_index_is_damaged(damage: str, pulled: etc.Config) -> None:
    """Without the index verify says what to do; nothing else minds."""
    (index,) = (pulled.home / ".etcetera/receipts/flower").glob("*.index")
    data = bytearray(index.read_bytes())
    if damage == "absent":
        index.unlink()
    elif damage == "other":
        etc.create("flower2", config=pulled)
        root = pulled.home / "flower2"
        settle(root)
        etc.push("flower2", config=pulled)
        (other,) = (pulled.home / ".etcetera/receipts/flower2").glob("*.index")
        index.write_bytes(other.read_bytes())
    else:
        data[600] ^= 1
        index.write_bytes(
            {"empty": b"", "short": bytes(data[:300]), "flipped": bytes(data)}[damage]
        )
    with pytest.raises(NoIndex, match="etc pull flower --force"):
        etc.verify("flower", config=pulled)
    assert etc.info("flower", config=pulled).digest is not None
    etc.pull("flower", force=True, config=pulled)
    assert etc.verify("flower", config=pulled).ok


def test_index_goes_with_its_receipt(pulled: etc.Config) -> None:
    """It is private, replaced with the receipt, and gone with the dataset."""
    receipts = pulled.home / ".etcetera/receipts"
    (before,) = (receipts / "flower").glob("*.index")
    assert before.stat().st_mode & 0o777 == 0o600
    etc.pull("flower", force=True, config=pulled)
    assert sorted(path.suffix for path in (receipts / "flower").iterdir()) == [".index", ".json"]
    etc.purge("flower", config=pulled)
    assert list(receipts.iterdir()) == []


def test_index_that_cannot_be_kept(
    config: etc.Config, pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for the index stops no transfer."""

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    other = etc.Config(config.url, tmp_path / "other")
    with monkeypatch.context() as patched:
        patched.setattr("etcetera.transfer.index_copy.os.pwrite", full)
        etc.pull("flower", config=other, partitions=["test"])
    assert Home(other.home).receipt("flower") is not None
    with pytest.raises(NoIndex):
        etc.verify("flower", config=other)


def _set(event: asyncio.Event, progress: etc.Progress) -> None:
    event.set()


async def test_cancelled(
    config: etc.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that is cancelled ends, and leaves nothing running."""

    def wait(comparison: Comparison, *arguments: object) -> str:
        comparison._stop.wait()
        raise InterruptedError

    root = trees.write(tmp_path / "large", SLICED)
    await etc.aregister(root, config=config)
    await etc.apush("large", config=config)
    with monkeypatch.context() as patched:
        patched.setattr(Comparison, "_sha256", wait)
        for remote in (False, True):
            begun = asyncio.Event()
            tell = partial(_set, begun)
            task = asyncio.create_task(etc.averify("large", remote, config, progress=tell))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (await etc.averify("large", config=config)).ok


def test_progress(pushed: Path, config: etc.Config) -> None:
    """All of it is counted, and done comes last."""
    for remote in (False, True):
        seen: list[etc.Progress] = []
        etc.verify("flower", remote, config, progress=seen.append)
        assert {one.operation for one in seen} == {"verify"}
        assert seen[-1].phase == "done"
        assert seen[-1].done == seen[-1].total


def test_command(
    pulled: etc.Config, config: etc.Config, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It lists what differs, escaped, and exits with 7."""
    here = ["--home", str(pulled.home), "--url", str(config.url)]
    assert main([*here, "verify", "flower"]) == 0
    assert "7 files" in capsys.readouterr().out
    (pulled.home / "flower/data/train/evil\x1b[31m").touch()
    (pulled.home / "flower/README.md").unlink()
    assert main([*here, "verify", "flower"]) == 7
    output = capsys.readouterr()
    assert output.out == "missing\tREADME.md\nextra\tdata/train/evil\\x1b[31m\n"
    assert "not as it was pushed or pulled" in output.err
    assert main([*here, "--json", "verify", "flower", "--quick"]) == 7
    assert '"ok": false' in capsys.readouterr().out
    assert main([*here, "verify", "-r", "flower"]) == 0
    archive = tmp_path / "bucket/flower.tgz"
    data = bytearray(archive.read_bytes())
    data[len(data) // 3] ^= 1
    archive.write_bytes(data)
    assert main([*here, "verify", "-r", "flower"]) == 7
    output = capsys.readouterr()
    assert "problem\t" in output.out
    assert "damaged" in output.err


def test_checksums(
    config: etc.Config, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """``sha256sum -c`` understands them, whatever the names, and finds what changed."""
    root = tmp_path / "odd"
    names = ["plain", " lead", "*star", "new\nline", "ret\rurn", "naïve ☃", "esc\x1b[31m"]
    trees.write(root, {f"data/train/{name}": trees.file(name.encode()) for name in names})
    etc.register(root, config=config)
    etc.push("odd", config=config)
    here = ["--home", str(config.home), "--url", str(config.url)]
    for remote in ([], ["-r"]):
        assert main([*here, "info", "--checksums", *remote, "odd"]) == 0
        lines = capfdbinary.readouterr().out
        done = subprocess.run(["sha256sum", "-c", "--strict"], input=lines, cwd=root, check=False)
        assert done.returncode == 0
        assert capfdbinary.readouterr().out.count(b"OK") == len(names)
    (root / "data/train/plain").write_text("other")
    done = subprocess.run(["sha256sum", "-c", "--strict"], input=lines, cwd=root, check=False)
    assert done.returncode == 1
    without_index(root, tmp_path / "bucket/plain.tgz")
    with pytest.raises(NoIndex, match="no index"):
        blocking.checksums("plain", True, config=config)
    assert main([*here, "--json", "info", "--checksums", "odd"]) == 0
