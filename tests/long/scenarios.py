"""Commands to be broken off, and what must hold whenever that happens."""

import filecmp
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import etcetera as etc
from tests.datasets import settle, snapshot
from tests.long.sweep import Command, Ending

NAME = "flower"
ABSENT, OLD, NEW, PART, EMPTY = "absent", "old", "new", "part", "empty"
ARCHIVE = f"{NAME}.tgz"
_ALREADY, _NOT_FOUND = 4, 3
_TEMPORARY = ("staging", "trash", "journals")


class Versions:
    """Two versions of a dataset and their archives, made once for all sites."""

    def __init__(self, directory: Path) -> None:
        """Make them below *directory*."""
        self.directory = directory
        for version, colour in ((OLD, b"red"), (NEW, b"blue")):
            root = self.source(version)
            for below in ("data/train/deep", "data/test", "assets"):
                (root / below).mkdir(parents=True)
            (root / "meta.json").write_bytes(b'{"colour": "%s"}' % colour)
            (root / "assets/run.sh").write_bytes(b"#!/bin/sh\n")
            (root / "assets/run.sh").chmod(0o755)
            (root / f"data/train/{version}.txt").write_bytes(b"in one only")
            (root / "data/train/deep/same.bin").write_bytes(bytes(range(256)) * 12)
            (root / "data/train/large.bin").write_bytes(colour * 400_000)
            (root / "data/test/b").write_bytes(colour)
            (root / "data/test/link").symlink_to("../train/large.bin")
            settle(root)
            site = Site(self, directory / f"{version}-site")
            site.publish(version)
            shutil.copy(site.repository / ARCHIVE, directory / f"{version}.tgz")

    def source(self, version: str) -> Path:
        """Where a version is."""
        return self.directory / version / NAME

    @cached_property
    def trees(self) -> dict[str, dict[str, tuple[object, ...]]]:
        """What each version holds."""
        trees = {version: tree(self.source(version)) for version in (OLD, NEW)}
        trees[PART] = {
            path: node
            for path, node in trees[NEW].items()
            if path in ("meta.json", "data") or path.startswith("data/test")
        }
        trees[EMPTY] = dict.fromkeys(("data", "data/train", "data/test"), ("directory",))
        return trees


class Site:
    """A home and a repository in a directory that is made anew each time."""

    def __init__(self, versions: Versions, directory: Path) -> None:
        """Make *directory*."""
        self.versions = versions
        self.directory = directory
        self.home = directory / "home"
        self.repository = directory / "repository"
        self.renew()

    def renew(self) -> None:
        """Forget all that was here."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.repository.mkdir(parents=True)
        (self.directory / "etc.toml").write_text("workers = 1\nthreads = 1\nlevel = 1\n")

    @property
    def config(self) -> etc.Config:
        """What the environment tells the command line."""
        url = f"file://{self.repository}"
        return etc.Config(url, self.home, workers=1, threads=1, level=1)

    @property
    def environment(self) -> dict[str, str]:
        """What the command line needs to know."""
        return {
            "ETC_HOME": str(self.home),
            "ETC_URL": f"file://{self.repository}",
            "ETC_CONFIG": str(self.directory / "etc.toml"),
        }

    def publish(self, version: str) -> None:
        """Put a version into the repository, from elsewhere."""
        elsewhere = etc.Config(
            f"file://{self.repository}", self.directory / "elsewhere", threads=1, level=1
        )
        etc.register(self.versions.source(version), NAME, config=elsewhere)
        etc.push(NAME, force=True, config=elsewhere)
        shutil.rmtree(self.directory / "elsewhere")

    def command(self, scenario: "Scenario") -> Command:
        """A command to be run here."""
        arguments = [one.format(versions=self.versions.directory) for one in scenario.arguments]
        return Command(
            arguments, self.directory, self.environment, plain_rename=scenario.plain_rename
        )

    def local(self) -> str:
        """Which version is at home."""
        place = self.home / NAME
        if not place.is_symlink() and not place.exists():
            return ABSENT
        found = tree(place)
        names = [name for name, known in self.versions.trees.items() if found == known]
        return names[0] if names else f"broken: {sorted(found)}"

    def remote(self) -> str:
        """Which version is in the repository."""
        place = self.repository / ARCHIVE
        if not place.exists():
            return ABSENT
        for version in (OLD, NEW):
            if filecmp.cmp(place, self.versions.directory / f"{version}.tgz", shallow=False):
                return version
        return f"broken: {place.stat().st_size} bytes"

    def leftovers(self) -> list[str]:
        """What is neither a dataset, nor an archive, nor what goes with one."""
        private = self.home / ".etcetera"
        return [
            *map(str, self.repository.glob(".*")),
            *(str(path) for kind in _TEMPORARY for path in private.glob(f"{kind}/*")),
        ]

    def clean(self) -> None:
        """Do what the manual tells to do, once nobody can still be writing who owns something."""
        for path in (*self.home.glob(".etcetera/*/*"), *self.repository.glob(".*")):
            os.utime(path, (0, 0), follow_symlinks=False)
        etc.clean(config=self.config)
        etc.clean(remote=True, config=self.config)

    def receipts(self) -> list[str]:
        """All that is kept of the datasets that have been here."""
        return [str(path) for path in self.home.glob(".etcetera/receipts/*")]

    def kept(self) -> bool:
        """Whether the old version is still somewhere."""
        old = self.versions.trees[OLD]
        places = [self.home / NAME, *(self.home / ".etcetera/kept").glob("*")]
        return any(tree(place) == old for place in places)


@dataclass(frozen=True)
class Scenario:
    """A command, what it finds and what it makes of it."""

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Site], None]
    local: tuple[str, str]
    """At home, before and after."""
    remote: tuple[str, str]
    plain_rename: bool = False
    between: tuple[str, ...] = ()
    """What else may be at home for an instant."""
    done_early: bool = False
    """Whether it may still fail when its main work is done."""
    keeps: bool = False
    """Whether the old version is nowhere else, and must outlast it all."""

    def check(self, site: Site, ending: Ending) -> None:
        """Look at what a fault has left, then run the command again."""
        self._check_states(site, ending)
        if not ending.killed and ending.status:
            _check_message(ending)
            left = [path for path in site.leftovers() if path not in ending.error]
            assert not left, f"left: {left}; {ending.error}"
        again = site.command(self).run()
        done = (site.local(), site.remote()) == (self.local[1], self.remote[1])
        assert done, f"the second time: {site.local()}, {site.remote()}, {again}"
        finished = {0, _ALREADY, _NOT_FOUND} if ending.killed or ending.status else {0, 3, 4, 5}
        assert again.status in finished, f"the second time: {again}"
        assert "Traceback" not in again.error
        if site.leftovers():
            site.clean()
        assert not site.leftovers(), f"left after cleaning: {site.leftovers()}"
        assert not self.keeps or site.kept(), "the only copy is gone"
        for path in site.home.glob(".etcetera/receipts/*/.*"):
            os.utime(path, (0, 0))  # while it is young, somebody may still be writing it
        if site.local() != ABSENT:
            etc.purge(NAME, site.config, force=True)
        assert not site.receipts(), f"left after purging: {site.receipts()}"

    def _check_states(self, site: Site, ending: Ending) -> None:
        local, remote = site.local(), site.remote()
        assert local in (*self.local, *self.between), f"at home: {local}"
        assert remote in self.remote, f"in the repository: {remote}"
        listed = etc.ls(config=site.config)
        assert listed == ([NAME] if local != ABSENT else []), f"listed: {listed}"
        assert not self.keeps or site.kept(), "the only copy is gone"
        if ending.status == 0:
            assert (local, remote) == (self.local[1], self.remote[1]), "it said that all is well"
        elif not ending.killed:
            assert local == self.local[0] or self.done_early, (
                f"it failed, and at home is {local}: {ending.error}"
            )


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """What is below *root*, but for the times of directories."""
    return {
        path: node[:1] if node[0] == "directory" else node for path, node in snapshot(root).items()
    }


def _check_message(ending: Ending) -> None:
    lines = [line for line in ending.error.splitlines() if line.startswith("etc: ")]
    assert lines, f"no message: {ending}"
    told = "\n".join(lines)
    assert "Traceback" not in ending.error, ending.error
    assert "Unexpected" not in told, told
    assert NAME in told or "data/" in told or "/" in told, f"it names no place: {told}"


def _new_in_repository(site: Site) -> None:
    site.publish(NEW)


def _old_at_home(site: Site) -> None:
    site.publish(OLD)
    etc.pull(NAME, config=site.config)
    site.publish(NEW)


def _unsaved_at_home(site: Site) -> None:
    shutil.copytree(site.versions.source(OLD), site.home / NAME, symlinks=True)
    site.publish(NEW)


def _part_at_home(site: Site) -> None:
    site.publish(NEW)
    etc.pull(NAME, config=site.config, partitions=["test"])


def _new_at_home(site: Site) -> None:
    site.publish(NEW)
    etc.pull(NAME, config=site.config)


def _registered(site: Site) -> None:
    etc.register(site.versions.source(NEW), NAME, config=site.config)


def _registered_over_old(site: Site) -> None:
    site.publish(OLD)
    _registered(site)


def _nothing(site: Site) -> None:
    pass


def _old_pulled(site: Site) -> None:
    site.publish(OLD)
    etc.pull(NAME, config=site.config)


_SOURCE = "{versions}/new/flower"
SCENARIOS = (
    Scenario("pull", ("pull", NAME), _new_in_repository, (ABSENT, NEW), (NEW, NEW)),
    Scenario("pull-force", ("pull", "-f", NAME), _old_at_home, (OLD, NEW), (NEW, NEW)),
    Scenario(
        "pull-force-unsaved", ("pull", "-f", NAME), _unsaved_at_home, (OLD, NEW), (NEW, NEW),
        keeps=True,
    ),
    Scenario(
        "pull-force-plain-rename", ("pull", "-f", NAME), _unsaved_at_home, (OLD, NEW), (NEW, NEW),
        plain_rename=True, between=(ABSENT,), keeps=True,
    ),
    Scenario("pull-rest", ("pull", NAME), _part_at_home, (PART, NEW), (NEW, NEW)),
    Scenario("push", ("push", NAME), _registered, (NEW, NEW), (ABSENT, NEW)),
    Scenario("push-force", ("push", "-f", NAME), _registered_over_old, (NEW, NEW), (OLD, NEW)),
    Scenario(
        "purge", ("purge", NAME), _new_at_home, (NEW, ABSENT), (NEW, NEW),
        done_early=True,
    ),
    Scenario("register", ("register", _SOURCE), _nothing, (ABSENT, NEW), (ABSENT, ABSENT)),
    Scenario(
        "register-force", ("register", "-f", _SOURCE), _old_pulled, (OLD, NEW), (OLD, OLD)
    ),
    Scenario(
        "create", ("create", NAME), _nothing, (ABSENT, EMPTY), (ABSENT, ABSENT), done_early=True
    ),
)  # fmt: skip
