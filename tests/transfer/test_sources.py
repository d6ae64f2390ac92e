"""Directories that are odd but good, or that fail while they are packed."""

import errno
import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.errors import EtceteraError, InvalidDataset, StoreError
from etcetera.stores.memory import memory_store
from tests.datasets import make_dataset, snapshot


@pytest.fixture
def config(tmp_path: Path) -> etc.Config:
    """A home and a repository without datasets."""
    return etc.Config(f"memory://{tmp_path.name}", tmp_path / "home")


def round_trip(config: etc.Config, root: Path, tmp_path: Path) -> Path:
    """Push a directory and pull it elsewhere; return where it is then."""
    etc.register(root, "x", config=config)
    etc.push("x", config=config)
    return etc.pull("x", config=etc.Config(config.url, tmp_path / "other")).path


def test_hard_links(config: etc.Config, tmp_path: Path) -> None:
    """PK-11: of a file with several names each arrives, with all of its content."""
    root = make_dataset(tmp_path / "source")
    first = root / "data" / "train" / "rose.txt"
    (root / "data" / "test" / "again.txt").hardlink_to(first)
    (root / "assets" / "again.txt").hardlink_to(first)
    os.utime(root / "data" / "test", (1_700_000_000, 1_700_000_000))
    os.utime(root / "assets", (1_700_000_000, 1_700_000_000))
    assert snapshot(round_trip(config, root, tmp_path)) == snapshot(root)


def test_holes(config: etc.Config, tmp_path: Path) -> None:
    """PK-12: holes are packed as the zeros they are read as, in next to no bytes."""
    root = tmp_path / "source"
    (root / "data" / "train").mkdir(parents=True)
    with (root / "data" / "train" / "hole").open("wb") as file:
        file.truncate(32 << 20)
        file.write(b"begin")
        file.seek((32 << 20) - 3)
        file.write(b"end")
    os.utime(root / "data" / "train" / "hole", (1_700_000_000, 1_700_000_000))
    arrived = round_trip(config, root, tmp_path)
    assert snapshot(arrived) == snapshot(root)
    assert len(memory_store(config.url or "").objects["x.tgz"][1]) < 1 << 20


def test_read_only_source(config: etc.Config, tmp_path: Path) -> None:
    """PK-17: a source that nobody may write is packed, and left as it is."""
    root = make_dataset(tmp_path / "source")
    before = snapshot(root)
    directories = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for path in directories:
        path.chmod(0o555)
    try:
        assert snapshot(round_trip(config, root, tmp_path)) == before == snapshot(root)
    finally:
        for path in directories:
            path.chmod(0o755)


@pytest.mark.parametrize("wrong", ["no data", "file in data", "nothing in data", "socket"])
def test_no_dataset(config: etc.Config, tmp_path: Path, wrong: str) -> None:
    """PK-06, PK-18: what cannot be packed is refused before anything was sent."""
    root = make_dataset(tmp_path / "source")
    etc.register(root, "x", config=config)
    match wrong:
        case "no data":
            (root / "data").rename(root / "other")
        case "file in data":
            (root / "data" / "file").touch()
        case "nothing in data":
            (root / "data").rename(root / "other")
            (root / "data").mkdir()
        case _:
            os.mkfifo(root / "data" / "train" / "pipe")
    with pytest.raises(InvalidDataset):
        etc.push("x", config=config)
    store = memory_store(config.url or "")
    assert not store.objects
    # At most it was looked whether the name is free.
    assert not store.calls.keys() - {"head"}


def test_bad_sector(config: etc.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PK-08: a file that cannot be read to its end fails the push, which leaves nothing."""
    root = make_dataset(tmp_path / "source")
    etc.register(root, "x", config=config)
    bad = (root / "data" / "train" / "deep" / "er" / "x.bin").stat().st_ino
    names = [name for name in ("read", "pread", "readv", "preadv") if hasattr(os, name)]
    hit = []
    for name in names:
        original = getattr(os, name)

        def fail(descriptor: int, *rest: object, original: object = original) -> object:
            if os.fstat(descriptor).st_ino == bad:
                hit.append(descriptor)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(descriptor, *rest)  # type: ignore[operator]

        monkeypatch.setattr(os, name, fail)
    with pytest.raises(EtceteraError) as caught:
        etc.push("x", config=config)
    assert hit
    assert isinstance(caught.value, StoreError)
    assert "x.bin" in str(caught.value)
    store = memory_store(config.url or "")
    assert not store.objects
    assert not store.uploads


def test_nothing_of_who_packed(config: etc.Config, tmp_path: Path) -> None:
    """SE-10: an archive names neither an owner nor where the files lay."""
    root = make_dataset(tmp_path / "source")
    etc.register(root, "x", config=config)
    etc.push("x", config=config)
    packed = memory_store(config.url or "").objects["x.tgz"][1]
    assert str(tmp_path).encode() not in gzip.decompress(packed) + packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        owners = {(member.uid, member.gid, member.uname, member.gname) for member in tar}
    assert owners == {(0, 0, "", "")}
