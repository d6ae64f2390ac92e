"""A part of a dataset: pulled, added to, completed; and nothing fetched twice."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import etcetera as etc
from etcetera.errors import (
    AlreadyExists,
    InvalidDataset,
    NetworkError,
    NoSpace,
    NothingSelected,
    UsageError,
)
from etcetera.stores.memory import MemoryStore, memory_store
from etcetera.transfer.archive import open_archive
from etcetera.transfer.index import Segment
from etcetera.transfer.selection import Selection
from tests.archives import run
from tests.datasets import make_dataset, make_large_dataset, settle, snapshot

MiB = 1 << 20


class Site:
    """A home and a repository in memory that counts what is read."""

    def __init__(self, directory: Path) -> None:
        self.url = f"memory://{directory.name}"
        self.config = etc.Config(self.url, directory / "home", part_size="5MiB", workers=3)
        self.store: MemoryStore = memory_store(self.url)
        self.home = self.config.home

    def publish(self, source: Path, name: str = "set") -> None:
        """Make *source* the archive *name*; nothing of it stays at home."""
        etc.register(source, "published", force=True, config=self.config)
        etc.push("published", force=True, config=self.config)
        etc.purge("published", config=self.config)
        data = self.store.objects["published.tgz"][1]
        self.store.publish(f"{name}.tgz", data, overwrite=True)

    async def segments(self) -> list[Segment]:
        """The index of the archive."""
        async with self.store.open("set.tgz") as remote:
            assert remote is not None
            index = (await open_archive(remote))[1]
            assert index is not None
            return [segment async for segment in index.segments()]

    def strip_index(self) -> None:
        """Replace the archive by one that another tool made of the same tree."""
        tree = etc.pull("set", config=self.config).path
        packed = run("tar", "czf", "-", *(path.name for path in tree.iterdir()), cwd=tree)
        etc.purge("set", config=self.config)
        self.store.publish("set.tgz", packed, overwrite=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A small dataset, published."""
    site = Site(tmp_path)
    site.publish(make_dataset(tmp_path / "source"))
    return site


def files(root: Path) -> set[str]:
    """What lies below *root*, without directories."""
    return {name for name, what in snapshot(root).items() if what[0] != "directory"}


@pytest.mark.parametrize("indexed", [True, False])
class TestPart:
    """With and without an index."""

    @pytest.fixture(autouse=True)
    def strip(self, site: Site, indexed: bool) -> None:
        """Take the index away."""
        if not indexed:
            site.strip_index()

    def test_partition(self, site: Site, tmp_path: Path) -> None:
        """One partition and what describes the dataset, as it was."""
        result = etc.pull("set", partitions=["test"], config=site.config)
        assert files(result.path) == {"meta.json", "README.md", "data/test/nothing",
                                      "data/test/link"}  # fmt: skip
        whole = snapshot(tmp_path / "source")
        part = snapshot(result.path)
        assert {name: whole[name] for name in part} == part
        assert result.partial
        assert result.files == 3

    def test_patterns(self, site: Site) -> None:
        """Directories that nothing is taken of are not made."""
        result = etc.pull(
            "set",
            include=["data/**/*.txt", "assets"],
            exclude=["**/na*", "meta.json"],
            config=site.config,
        )
        assert files(result.path) == {"README.md", "assets/run.sh", "data/train/rose.txt"}
        assert not (result.path / "data" / "test").exists()
        assert not (result.path / "data" / "train" / "deep").exists()

    def test_knows_that_it_is_partial(self, site: Site) -> None:
        """Everything that describes it says so, and the digest is that of the whole."""
        part = etc.pull("set", partitions=["test"], config=site.config)
        assert etc.info("set", config=site.config).partial
        assert etc.dataset("set", config=site.config).partial
        with pytest.raises(InvalidDataset, match=r"part of set is here.*etc pull set"):
            etc.push("set", force=True, config=site.config)
        whole = etc.pull("set", config=site.config)
        assert not whole.partial
        assert not etc.info("set", config=site.config).partial
        assert part.digest == whole.digest == etc.info("set", config=site.config).digest

    def test_adding(self, site: Site, tmp_path: Path) -> None:
        """Each pull adds; the last one completes."""
        etc.pull("set", partitions=["test"], config=site.config)
        more = etc.pull("set", include=["data/train/rose.txt"], config=site.config)
        assert files(more.path) >= {"data/test/nothing", "data/train/rose.txt"}
        assert more.partial
        etc.pull("set", config=site.config)
        assert snapshot(more.path) == snapshot(tmp_path / "source")
        with pytest.raises(AlreadyExists):
            etc.pull("set", partitions=["test"], config=site.config)

    def test_another_version(self, site: Site) -> None:
        """A part is never completed with files of another version."""
        path = etc.pull("set", partitions=["test"], config=site.config).path
        before = snapshot(path)
        source = make_large_dataset(site.home.parent / "other", MiB)
        site.publish(source)
        with pytest.raises(AlreadyExists, match="another version"):
            etc.pull("set", config=site.config)
        assert snapshot(path) == before
        etc.pull("set", force=True, config=site.config)
        assert snapshot(path) == snapshot(source)

    @pytest.mark.parametrize(
        ("wanted", "told"),
        [
            ({"partitions": ["nope"]}, "no partition nope; there is test, train"),
            ({"include": ["data/train/*.jpg"]}, r"fits 'data/train/\*\.jpg'"),
            ({"partitions": ["test"], "exclude": ["*.jpg"]}, r"fits '\*\.jpg'"),
            ({"include": ["assets"]}, "at least one partition"),
            ({"exclude": ["data"]}, "at least one partition"),
        ],
    )
    def test_nothing(self, site: Site, wanted: dict[str, list[str]], told: str) -> None:
        """A pattern that matches nothing is an error, and installs nothing."""
        with pytest.raises(NothingSelected, match=told):
            etc.pull("set", config=site.config, **wanted)  # type: ignore[arg-type]
        assert etc.ls(config=site.config) == []


@pytest.mark.parametrize("pattern", ["", "/", "..", "data/../x", "a//b"])
def test_wrong_pattern(pattern: str) -> None:
    """What can fit no path is wrong usage."""
    with pytest.raises(UsageError):
        Selection.of(include=[pattern])
    with pytest.raises(UsageError):
        Selection.of(include=pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.json", "a.json", True), ("*.json", "a/b.json", False), ("**/*.json", "a/b.json", True),
        ("**/*.json", "b.json", True), ("data/train", "data/train/a/b", True),
        ("data/tra", "data/train", False), ("data/[ab]?", "data/a1", True),
        ("data/[!ab]1", "data/a1", False), ("data/[!ab]1", "data/c1", True),
        ("a[/]b", "a/b", False), ("a.b", "axb", False), ("/data/x/", "data/x", True),
        ("a**c", "a/b/c", False), ("a**c", "abc", True),
        ("a\n*", "a\nb", True), ("[]a]", "]", True), ("**", "a/b", True), ("a/**", "a/b/c", True),
        ("**/b/**/d", "a/b/c/d/e", True), ("**/b/**/d", "a/b/c", False), ("[z-a]", "z", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, path: str, fits: bool) -> None:
    """Wild cards stay within a component, but for ``**``."""
    assert Selection.of(include=[pattern]).wants(path) is fits


@pytest.mark.parametrize("pattern", ["**/a/**/a/**/*.jpg", "**/*a*a*a*a*a*.jpg"])
@pytest.mark.parametrize("path", ["a/" * 2000 + "x", "/".join(["a" * 250] * 16)])
def test_patterns_take_no_time(pattern: str, path: str) -> None:
    """However hostile the paths are, matching is no more than going through them."""
    selection = Selection.of(include=[pattern])
    assert not any(selection.wants(path) for _ in range(20))


async def test_only_the_frames_that_are_needed(tmp_path: Path) -> None:
    """Of the data, no more is fetched than the frames of what is wanted."""
    site = Site(tmp_path)
    source = make_large_dataset(tmp_path / "source", 12 * MiB, files=120)
    (source / "data" / "val").mkdir()
    for number in range(10):
        path = source / "data" / "train" / f"{number:06}.bin"
        path.rename(source / "data" / "val" / path.name)
    settle(source)
    await asyncio.to_thread(site.publish, source)
    needed = sum(
        frame.length
        for segment in await site.segments()
        for frame in segment.frames
        if any(
            member.entry.path.startswith("data/val/")
            and frame.start < member.stop
            and member.start < frame.start + frame.size
            for member in segment.members
        )
    )
    result = await etc.apull("set", partitions=["val"], config=site.config)
    assert result.received is not None
    assert needed == result.received
    assert needed < 1.1 * MiB
    dry = await etc.apull("set", partitions=["val"], force=True, dry_run=True, config=site.config)
    assert (dry.received, dry.files) == (needed, 10)


class TestNewVersion:
    """Over an old one only what changed is fetched."""

    def test_unchanged_files_are_not_fetched(self, tmp_path: Path) -> None:
        """A changed, a new and a touched small file, and one page of a large one."""
        site = Site(tmp_path)
        source = make_large_dataset(tmp_path / "source", 24 * MiB, files=3)
        for number in range(50):
            (source / "data" / "train" / f"small-{number}").write_bytes(os.urandom(100_000))
        settle(source)
        site.publish(source)
        etc.pull("set", config=site.config)
        with (source / "data" / "train" / "000001.bin").open("r+b") as file:
            file.seek(5_000_000)
            file.write(b"changed")
        (source / "data" / "train" / "small-7").write_bytes(os.urandom(100_000))
        (source / "data" / "train" / "new").write_bytes(b"new")
        (source / "data" / "train" / "small-9").unlink()
        settle(source)
        os.utime(source / "data" / "train" / "small-11", (1_600_000_000, 1_600_000_000))
        site.publish(source)
        result = etc.pull("set", force=True, config=site.config)
        assert snapshot(result.path) == snapshot(source)
        assert result.received is not None
        assert 0 < result.received < 4 * MiB
        assert result.kept is None

    def test_changed_here(self, site: Site, tmp_path: Path) -> None:
        """What somebody has changed locally is neither taken nor lost."""
        path = etc.pull("set", config=site.config).path
        rose = path / "data" / "train" / "rose.txt"
        status = rose.stat()
        rose.write_text("ruse\n" * 1000)
        os.utime(rose, ns=(status.st_atime_ns, status.st_mtime_ns))
        result = etc.pull("set", force=True, config=site.config)
        assert snapshot(path) == snapshot(tmp_path / "source")
        assert result.kept is not None
        assert (result.kept / "data" / "train" / "rose.txt").read_text().startswith("ruse")

    def test_registered(self, site: Site, tmp_path: Path) -> None:
        """Files of a registered directory are copied, and stay where they are."""
        source = tmp_path / "source"
        before = snapshot(source)
        etc.register(source, "set", config=site.config)
        result = etc.pull("set", force=True, config=site.config)
        assert result.received == 0
        assert snapshot(source) == before == snapshot(result.path)
        assert not result.path.is_symlink()
        (result.path / "data" / "train" / "rose.txt").write_text("other")
        assert snapshot(source) == before


_PULL = """
import sys, etcetera as etc
etc.pull("set", config=etc.Config(sys.argv[1], sys.argv[2], part_size="5MiB", workers=2))
"""


class TestResume:
    """A pull that was killed goes on where it stopped."""

    @pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
    def test_killed(self, tmp_path: Path, fraction: float) -> None:
        """What was fetched before ``kill -9`` is not fetched again, but for what was under way."""
        size = 40 * MiB
        site = Site(tmp_path)
        source = make_large_dataset(tmp_path / "source", size, files=10)
        with (source / "data" / "train" / "big").open("wb") as file:
            file.write(os.urandom(size))
        settle(source)
        site.publish(source)
        repository = tmp_path / "repository"
        repository.mkdir()
        (repository / "set.tgz").write_bytes(site.store.objects["set.tgz"][1])
        config = etc.Config(f"file://{repository}", site.home, part_size="5MiB", workers=2)
        staging = site.home / ".etcetera" / "staging"
        child = subprocess.Popen([sys.executable, "-c", _PULL, f"file://{repository}", site.home])
        while child.poll() is None and fetched(staging) < 2 * size * fraction:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it was done before it was killed"
        before = fetched(staging)
        assert etc.ls(config=config) == []
        result = etc.pull("set", config=config)
        assert snapshot(result.path) == snapshot(source)
        assert result.received is not None
        # Sparse files count less than they are long, and a few ranges were being written.
        assert result.received < 2 * size - before + 25 * MiB
        assert list(staging.iterdir()) == []

    @pytest.mark.parametrize("moment", [4, 6])
    async def test_failed(
        self, tmp_path: Path, moment: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the line dies, what is worth it is kept, and said; the next pull uses it up."""
        monkeypatch.setattr("etcetera.pulling._WORTH_KEEPING", MiB)
        site = Site(tmp_path)
        source = make_large_dataset(tmp_path / "source", 30 * MiB, files=10)
        await asyncio.to_thread(site.publish, source)
        site.store.calls.clear()
        site.store.faults["read", 1 + moment] = NetworkError("the line is dead")
        with pytest.raises(NetworkError) as caught:
            await etc.apull("set", config=site.config)
        assert "pull it again" in caught.value.__notes__[0]
        staging = site.home / ".etcetera" / "staging"
        assert len(list(staging.iterdir())) == 1
        result = await etc.apull("set", config=site.config)
        assert snapshot(result.path) == snapshot(source)
        assert result.received is not None
        assert result.received < 29 * MiB
        assert list(staging.iterdir()) == []

    @pytest.mark.parametrize("trouble", ["line", "space"])
    async def test_fails_again(
        self, tmp_path: Path, trouble: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What earlier pulls have fetched stays, however soon the next one breaks off."""
        monkeypatch.setattr("etcetera.pulling._WORTH_KEEPING", MiB)
        site = Site(tmp_path)
        source = make_large_dataset(tmp_path / "source", 30 * MiB, files=10)
        await asyncio.to_thread(site.publish, source)
        site.store.calls.clear()
        site.store.faults["read", 7] = NetworkError("the line is dead")
        with pytest.raises(NetworkError):
            await etc.apull("set", config=site.config)
        monkeypatch.setattr("etcetera.pulling._WORTH_KEEPING", 1 << 60)
        site.store.calls.clear()
        with monkeypatch.context() as patch:
            if trouble == "line":
                site.store.faults["read", 2] = NetworkError("the line is dead")
            else:

                def full(*_: object) -> None:
                    raise NoSpace("the disk is full")

                patch.setattr("etcetera.pulling.check_space", full)
            with pytest.raises((NetworkError, NoSpace)) as caught:
                await etc.apull("set", config=site.config)
        assert "etc clean --force" in caught.value.__notes__[0]
        site.store.faults.clear()
        result = await etc.apull("set", config=site.config)
        assert snapshot(result.path) == snapshot(source)
        assert result.received is not None
        assert result.received < 29 * MiB

    def test_what_is_left_is_not_believed(self, site: Site, tmp_path: Path) -> None:
        """Files with another content, links and directories in their place are fetched anew."""
        staging = site.home / ".etcetera" / "staging"
        left = staging / "set.0" / "tree"
        (left / "data" / "train" / "deep" / "er" / "x.bin").mkdir(parents=True)
        (left / "data" / "train" / "rose.txt").write_text("lies\n" * 1000)
        outside = tmp_path / "outside"
        outside.write_text("hi")
        (left / "README.md").symlink_to(outside)
        (staging / "set.0" / "resume.json").write_text('{"name": "set"}')
        (staging / "set.0" / "owner.json").write_text('{"released": true}')
        result = etc.pull("set", config=site.config)
        assert snapshot(result.path) == snapshot(tmp_path / "source")
        assert list(staging.iterdir()) == []
        assert outside.read_text() == "hi"

    @pytest.mark.parametrize("planted", ["directory", "link", "hard link"])
    def test_something_else_in_the_place_of_a_large_file(
        self, tmp_path: Path, planted: str
    ) -> None:
        """It is left alone, and the file is fetched."""
        site = Site(tmp_path)
        source = make_large_dataset(tmp_path / "source", 8 * MiB, files=2)
        site.publish(source)
        left = site.home / ".etcetera" / "staging" / "set.0" / "tree" / "data" / "train"
        left.mkdir(parents=True)
        (left.parents[2] / "resume.json").write_text('{"name": "set"}')
        (left.parents[2] / "owner.json").write_text('{"released": true}')
        outside = tmp_path / "outside"
        outside.write_bytes(b"x" * 4 * MiB)
        match planted:
            case "directory":
                (left / "000000.bin" / "f").mkdir(parents=True)
            case "link":
                (left / "000000.bin").symlink_to(outside)
            case _:
                (left / "000000.bin").hardlink_to(outside)
        result = etc.pull("set", config=site.config)
        assert snapshot(result.path) == snapshot(source)
        assert outside.read_bytes() == b"x" * 4 * MiB

    def test_of_another_dataset(self, site: Site) -> None:
        """It waits for the pull that it belongs to."""
        staging = site.home / ".etcetera" / "staging"
        (staging / "other.0" / "tree").mkdir(parents=True)
        (staging / "other.0" / "resume.json").write_text('{"name": "other"}')
        (staging / "other.0" / "owner.json").write_text('{"released": true}')
        etc.pull("set", config=site.config)
        assert [path.name for path in staging.iterdir()] == ["other.0"]


def fetched(staging: Path) -> int:
    """Bytes that a pull has written so far."""
    total = 0
    for path in staging.glob("*/tree/data/*/*") if staging.exists() else ():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total
