"""SY-01: two homes and one repository, driven at random beside a model of two dictionaries.

What the model says of a dataset is its content; everything that etcetera answers, lists and leaves
on the disk is compared with it after each step. Some steps are killed half-way: then the content
has to be the one before or the one after, and the next command has to work.
"""

import asyncio
import gzip
import io
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import etcetera as etc
from etcetera import atomic
from etcetera.errors import (
    AlreadyExists,
    DatasetNotFound,
    EtceteraError,
    InvalidDataset,
    NetworkError,
    NotAllowed,
    NotFound,
)
from etcetera.home import Home
from etcetera.repository import open_repository
from etcetera.stores.memory import memory_store
from tests.archives import packed, small
from tests.datasets import settle, snapshot

Tree = dict[str, tuple[object, ...]]
"""What is below a directory, but for the times of directories, which archives may change."""
NAMES = ("rose", "x")
VERSIONS = range(4)
METHODS = {
    "pull": ["open", "read"],
    "push": ["head", "open", "read", "upload", "put_part", "copy_part", "complete"],
}
"""What a command calls of a store."""
counts: Counter[str] = Counter()
"""How often each thing was done, by all machines of this process."""


@dataclass(frozen=True)
class Archive:
    """What the repository has under a name."""

    tree: Tree
    etag: str
    indexed: bool = True
    intact: bool = True


@dataclass(frozen=True)
class Local:
    """What a home has under a name."""

    kind: str
    tree: Tree
    saved: bool | None
    """Whether a repository has a copy; ``None`` if a kill has left that open."""
    of: Archive | None = None
    """What it is a part of."""
    parts: frozenset[str] = frozenset()
    """Partitions, if it is a part."""


@dataclass
class Call:
    """One command, and what the model says it does."""

    function: str
    """Of the API, without the ``a``."""
    home: int
    name: str
    arguments: dict[str, Any]
    """Without the configuration; all of them fit for JSON."""
    error: type[EtceteraError] | None = None
    """How it has to fail."""
    may_fail: bool = False
    """Whether it may fail with any error of ours, and then changes nothing."""
    local: Local | None = None
    """What the home has of it afterwards."""
    pushed: Tree | None = None
    """What the repository has of it afterwards, if that is another archive."""


class Interrupted:
    """Awaits something and cancels the task when that waits for the n-th time."""

    def __init__(self, step: int, inner: Awaitable[object]) -> None:
        self._left, self._inner = step, inner

    def __await__(self) -> Generator[Any, Any, object]:
        """Hand on what is waited for, and count."""
        steps, caught = self._inner.__await__(), None
        while True:
            try:
                waited = steps.throw(caught) if caught else steps.send(None)
            except StopIteration as end:
                return end.value
            self._left -= 1
            task = asyncio.current_task()
            if not self._left and task is not None:
                asyncio.get_running_loop().call_soon(task.cancel)
            caught = None
            try:
                yield waited
            except BaseException as error:  # noqa: BLE001 - a cancellation, which goes on inside
                caught = error


def look(root: Path) -> Tree:
    """What is below *root*."""
    found = snapshot(root)
    return {path: value[:1] if value[0] == "directory" else value for path, value in found.items()}


def part_of(tree: Tree, partitions: frozenset[str]) -> Tree:
    """What a pull of some partitions takes of *tree*."""
    above = ("README.md", "meta.json", "data", *(f"data/{one}" for one in partitions))
    return {
        path: value
        for path, value in tree.items()
        if path in above or path.startswith(tuple(f"data/{one}/" for one in partitions))
    }


@cache
def source(version: int) -> Path:
    """A directory to be registered: of two versions one partition may be the same."""
    root = Path(tempfile.mkdtemp(prefix="etcetera-model-")) / "source"
    train, test = divmod(version, 2)
    for partition, files in (("train", {"a": train, "b": 7}), ("test", {"c": test})):
        directory = root / "data" / partition / "deep"
        directory.mkdir(parents=True)
        for name, number in files.items():
            content = b"".join(gzip.compress(bytes([number, i]), mtime=number) for i in range(99))
            (directory / name).write_bytes(content * 4)
    (root / "data" / "test" / "link").symlink_to("deep/c")
    (root / "meta.json").write_text('{"kind": "model"}')
    (root / "README.md").write_text(f"# Version {version}\n")
    settle(root)
    return root


@cache
def archive_of(version: int, indexed: bool) -> bytes:
    """The archive of a version, ours or another tool's."""
    if indexed:
        return asyncio.run(packed(source(version)))
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            for path in sorted(source(version).iterdir()):
                tar.add(path, path.name)
        return file.getvalue()


def forget_sources() -> None:
    """Delete what the machines of this process have made and share."""
    for version in VERSIONS if source.cache_info().currsize else ():
        shutil.rmtree(source(version).parent)
    source.cache_clear()


_homes = st.integers(0, 1)
_names = st.sampled_from(NAMES)
commands = st.sampled_from(["pull", "pull", "push", "push", "purge", "register", "create"])
_versions = st.sampled_from(VERSIONS)
_partitions = st.sampled_from(["", "", "train", "test", "none"])


class Machine(RuleBasedStateMachine):
    """What is the same wherever the repository is."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="etcetera-model-"))
        self.configs = [etc.Config(self.url(), self.directory / name) for name in ("one", "two")]
        for config in self.configs:
            config.transfer = small(threads=1)
        self.homes = [Home(config.home) for config in self.configs]
        self.local: list[dict[str, Local]] = [{}, {}]
        self.remote: dict[str, Archive] = {}
        self.kept: list[tuple[int, Tree]] = []
        self.maybe_kept: list[tuple[int, Tree]] = []
        self.edits = 0
        self.runner = asyncio.Runner()
        # What outlasts a power loss is tested elsewhere; a disk takes its time for it.
        self.patches = [patch.object(atomic, name) for name in ("sync", "sync_filesystem")]
        for one in self.patches:
            one.start()
        counts["examples"] += 1

    def url(self) -> str:
        """Where the repository is."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Leave nothing behind."""
        for one in self.patches:
            one.stop()
        self.runner.close()
        shutil.rmtree(self.directory)

    # What the model says a command does

    def register(self, home: int, name: str, version: int, force: bool) -> Call:
        """Register a version."""
        root = source(version)
        taken = name in self.local[home] and not force
        return Call(
            "register", home, name, {"dirname": str(root), "name": name, "force": force},
            error=AlreadyExists if taken else None,
            local=Local("registered", look(root), saved=True),
        )  # fmt: skip

    def create(self, home: int, name: str, force: bool) -> Call:
        """Create an empty dataset."""
        tree: Tree = dict.fromkeys(("data", "data/train", "data/test"), ("directory",))
        taken = name in self.local[home] and not force
        return Call(
            "create", home, name, {"name": name, "force": force},
            error=AlreadyExists if taken else None,
            local=Local("created", tree, saved=False),
        )  # fmt: skip

    def purge(self, home: int, name: str, force: bool) -> Call:
        """Delete a dataset."""
        here = self.local[home].get(name)
        error: type[EtceteraError] | None = None
        if here is None:
            error = DatasetNotFound
        elif here.saved is False and not force:
            error = NotAllowed
        return Call(
            "purge", home, name, {"name": name, "force": force},
            error=error, may_fail=here is not None and here.saved is None and not force,
        )  # fmt: skip

    def push(self, home: int, name: str, force: bool, base: str | None) -> Call:
        """Push, all of it or an update."""
        here = self.local[home].get(name)
        error: type[EtceteraError] | None = None
        if here is None:
            error = DatasetNotFound
        elif here.parts:
            error = InvalidDataset
        elif name in self.remote and not force:
            error = AlreadyExists
        elif base and base not in self.remote:
            error = DatasetNotFound
        return Call(
            "push", home, name, {"name": name, "force": force, "base": base},
            error=error,
            local=here and replace(here, saved=True),
            pushed=here.tree if here else None,
        )  # fmt: skip

    def pull(self, home: int, name: str, force: bool, partition: str) -> Call:
        """Pull all of an archive, or a part, or more of it."""
        here, there = self.local[home].get(name), self.remote.get(name)
        parts = frozenset([partition] if partition else [])
        given = {"name": name, "force": force, "partitions": list(parts)}
        call = Call("pull", home, name, given)
        adds = here is not None and not force
        if here is not None and adds and not here.parts:
            call.error = AlreadyExists
        elif there is None:
            call.error = DatasetNotFound
        else:
            call.may_fail = not there.intact
            if here is not None and here.of is not None and adds:
                same = there.indexed and there.tree == here.of.tree
                if not same and there.etag != here.of.etag and there.intact:
                    call.error = AlreadyExists
                parts = parts and parts | here.parts
            if partition == "none":
                call.error = call.error or (NotFound if there.intact else EtceteraError)
            elif parts:
                tree = part_of(there.tree, parts)
                call.local = Local("pulled", tree, saved=True, of=there, parts=parts)
            else:
                call.local = Local("pulled", there.tree, saved=True)
                # Nothing is here already, so that all of it was fetched.
                if here is None and not there.intact:
                    call.error = EtceteraError
        return call

    # Doing it

    def run(self, call: Call) -> Coroutine[Any, Any, object]:
        """Begin a command."""
        function = getattr(etc, f"a{call.function}")
        running: Coroutine[Any, Any, object]
        running = function(**call.arguments, config=self.configs[call.home])
        return running

    def do(self, call: Call) -> None:
        """Run a command to its end, and compare how that is."""
        counts["commands"] += 1
        here = self.local[call.home].get(call.name)
        try:
            self.runner.run(self.run(call))
        except EtceteraError as error:
            expected = call.error or (EtceteraError if call.may_fail else ())
            if not isinstance(error, expected):
                raise
            counts["refused"] += 1
        else:
            assert call.error is None, f"{call.error} was expected"
            self.changed(call, here)
            if call.pushed is not None:
                self.remote[call.name] = Archive(call.pushed, self.etag(call.name))

    def changed(self, call: Call, before: Local | None) -> None:
        """Note what a home has now, and what was kept of what it had."""
        if call.local is None:
            self.local[call.home].pop(call.name, None)
            return
        self.local[call.home][call.name] = call.local
        replaced = before is not None and call.pushed is None and before.kind != "registered"
        if before is not None and replaced and not before.saved:
            kept = self.kept if before.saved is False else self.maybe_kept
            kept.append((call.home, before.tree))

    def kill(self, call: Call, run: Callable[[], bool], again: Callable[[], Call] | None) -> None:
        """Have *run* kill a command, and see that everything is as before or as after it.

        Args:
            call: The command; one that is refused is only run.
            run: Returns whether it came to its end nevertheless.
            again: The same command, by force, if it is to follow.
        """
        if call.error is not None:
            self.do(call)
            return
        home, name = call.home, call.name
        here, there = self.local[home].get(name), self.remote.get(name)
        inode, etag = self.inode(home, name), there.etag if there else ""
        counts["survived" if run() else "killed"] += 1
        if self.inode(home, name) != inode:
            self.changed(call, here)
        if self.etag(name) != etag:
            assert call.pushed is not None
            self.remote[name] = Archive(call.pushed, self.etag(name))
        if call.pushed is not None and here is not None:
            # Whether it was noted here is not known.
            self.local[home][name] = replace(here, saved=here.saved or None)
        self.agrees()
        if again is not None:
            self.do(again())

    def etag(self, name: str) -> str:
        """Of what the repository has; empty if that is nothing."""

        async def ask() -> str:
            async with open_repository(self.configs[0], None) as remotes:
                info = await remotes.store.head(f"{name}.tgz")
                return info.etag if info else ""

        return self.runner.run(ask())

    def inode(self, home: int, name: str) -> int:
        """Of what a home has; 0 if that is nothing."""
        found = self.homes[home].find(name)
        return found.lstat().st_ino if found else 0

    def put(self, name: str, data: bytes, archive: Archive) -> None:
        """Have somebody else put an object into the repository."""

        async def send() -> None:
            async with open_repository(self.configs[0], None) as remotes:
                await remotes.store.put(f"{name}.tgz", data, overwrite=True)

        self.runner.run(send())
        self.remote[name] = replace(archive, etag=self.etag(name))

    # What happens

    @initialize(version=_versions)
    def begin(self, version: int) -> None:
        """One dataset is there to begin with."""
        self.do(self.register(0, "rose", version, force=False))
        self.do(self.push(0, "rose", force=False, base=None))

    @rule(home=_homes, name=_names, version=_versions, force=st.booleans())
    def registers(self, home: int, name: str, version: int, force: bool) -> None:
        """Somebody registers a directory."""
        self.do(self.register(home, name, version, force))

    @rule(home=_homes, name=_names, force=st.booleans())
    def creates(self, home: int, name: str, force: bool) -> None:
        """Somebody creates a dataset."""
        self.do(self.create(home, name, force))

    @rule(home=_homes, name=_names, force=st.booleans(), base=st.sampled_from([None, "", *NAMES]))
    def pushes(self, home: int, name: str, force: bool, base: str | None) -> None:
        """Somebody pushes."""
        self.do(self.push(home, name, force, base))

    @rule(home=_homes, name=_names, force=st.booleans(), partition=_partitions)
    def pulls(self, home: int, name: str, force: bool, partition: str) -> None:
        """Somebody pulls."""
        self.do(self.pull(home, name, force, partition))

    @rule(home=_homes, name=_names, force=st.booleans())
    def purges(self, home: int, name: str, force: bool) -> None:
        """Somebody purges."""
        self.do(self.purge(home, name, force))

    @rule(home=_homes, name=_names)
    def edits_it(self, home: int, name: str) -> None:
        """Somebody changes a dataset that lies in a home."""
        here = self.local[home].get(name)
        if here is None or here.kind == "registered":
            return
        root = self.configs[home].home / name
        self.edits += 1
        partition = min(path.name for path in (root / "data").iterdir())
        (root / "data" / partition / "note").write_text(f"edit {self.edits}")
        self.local[home][name] = replace(here, tree=look(root), saved=False)

    @rule(name=_names, version=_versions, indexed=st.booleans())
    def overwrites(self, name: str, version: int, indexed: bool) -> None:
        """Somebody else puts another archive there."""
        archive = Archive(look(source(version)), "", indexed)
        self.put(name, archive_of(version, indexed), archive)
        counts["overwritten"] += 1

    @rule(name=_names, where=st.floats(0, 0.99), cut=st.booleans())
    def corrupts(self, name: str, where: float, cut: bool) -> None:
        """The repository damages an archive."""
        archive = self.remote.get(name)
        if archive is None or not archive.intact:
            return
        data = bytearray(self.runner.run(self.read(name)))
        # Of a header, nobody checks the time; of the end, not every bit means something.
        place = 10 + int(where * (len(data) - 20))
        if cut:
            del data[place:]
        else:
            data[place] ^= 0x55
        self.put(name, bytes(data), replace(archive, intact=False))
        counts["corrupted"] += 1

    @rule(name=_names)
    def withdraws(self, name: str) -> None:
        """Somebody deletes an archive."""

        async def delete() -> None:
            async with open_repository(self.configs[0], None) as remotes:
                await remotes.store.delete(f"{name}.tgz")

        self.runner.run(delete())
        self.remote.pop(name, None)

    @rule(home=_homes, force=st.booleans())
    def cleans(self, home: int, force: bool) -> None:
        """Cleaning up removes no dataset, and leaves nothing of what was killed."""
        self.runner.run(etc.aclean(config=self.configs[home], force=force))
        for kind in ("staging", "trash"):
            left = self.configs[home].home / ".etcetera" / kind
            assert not left.exists() or not list(left.iterdir())

    @rule(home=_homes, name=_names)
    def verifies(self, home: int, name: str) -> None:
        """What is verified in the repository is found whole exactly if it is."""
        archive = self.remote.get(name)
        if archive is None:
            return
        result = self.runner.run(etc.averify(name, True, self.configs[home]))
        assert result.ok == archive.intact
        counts["verified"] += 1

    @rule(data=st.data(), what=commands, step=st.integers(1, 30), again=st.booleans())
    def is_cancelled(self, data: st.DataObject, what: str, step: int, again: bool) -> None:
        """A command is cancelled where it waits for the n-th time."""
        call, repeat = self.any_call(data, what)

        async def interrupted() -> None:
            await Interrupted(step, self.run(call))

        self.kill(call, lambda: self.ends(call, interrupted()), repeat if again else None)

    def ends(self, call: Call, running: Coroutine[Any, Any, object]) -> bool:
        """Run a command that something is done to; tell whether it came to its end."""
        try:
            self.runner.run(running)
        except (asyncio.CancelledError, NetworkError):
            return False
        except EtceteraError:
            if not call.may_fail:
                raise
            return False
        return True

    def any_call(self, data: st.DataObject, what: str) -> tuple[Call, Callable[[], Call]]:
        """Draw a command, mostly one that is not refused; return what repeats it, too."""
        home, name = data.draw(_homes), data.draw(_names)
        if what == "pull":
            partition = data.draw(st.sampled_from(["", "train", "test"]))
            call: Callable[[bool], Call] = lambda by: self.pull(home, name, by, partition)  # noqa: E731
        elif what == "push":
            call = lambda by: self.push(home, name, by, None)  # noqa: E731
        elif what == "purge":
            call = lambda by: self.purge(home, name, by)  # noqa: E731
        elif what == "register":
            version = data.draw(_versions)
            call = lambda by: self.register(home, name, version, by)  # noqa: E731
        else:
            call = lambda by: self.create(home, name, by)  # noqa: E731
        return call(data.draw(st.sampled_from([True, True, False]))), lambda: call(True)

    async def read(self, name: str) -> bytes:
        """All bytes of an archive."""
        async with (
            open_repository(self.configs[0], None) as remotes,
            remotes.store.open(f"{name}.tgz") as remote,
        ):
            assert remote is not None
            return bytes(await remote.read(0, remote.info.size))

    # What has to hold at any time

    @invariant()
    def agrees(self) -> None:
        """What is listed, and what is on the disk, is what the model says."""
        counts["steps"] += 1
        for home, config in enumerate(self.configs):
            local = self.local[home]
            assert self.runner.run(etc.als(config=config)) == sorted(local)
            for entry in self.homes[home].entries():
                here = local[entry.name]
                assert (entry.kind, entry.partial) == (here.kind, bool(here.parts)), entry
                assert look(entry.path) == here.tree, entry
            kept = config.home / ".etcetera" / "kept"
            found = [look(path) for path in kept.iterdir()] if kept.exists() else []
            must = [tree for number, tree in self.kept if number == home]
            may = must + [tree for number, tree in self.maybe_kept if number == home]
            assert all(tree in found for tree in must)
            assert all(tree in may for tree in found)
        assert self.runner.run(etc.als(True, self.configs[0])) == sorted(self.remote)


class MemoryMachine(Machine):
    """One with a repository that fails on command."""

    def url(self) -> str:
        """Where the repository is."""
        return f"memory://{self.directory.name}"

    @rule(
        data=st.data(), what=st.sampled_from(["pull", "push"]), number=st.integers(1, 3),
        again=st.booleans(),
    )  # fmt: skip
    def loses_its_line(self, data: st.DataObject, what: str, number: int, again: bool) -> None:
        """A command fails in the n-th call of one method of the store."""
        call, repeat = self.any_call(data, what)
        method = data.draw(st.sampled_from(METHODS[what]))
        store = memory_store(self.url())

        def broken() -> bool:
            store.calls.clear()
            store.faults[method, number] = NetworkError("the line is dead")
            try:
                return self.ends(call, self.run(call))
            finally:
                store.faults.clear()

        self.kill(call, broken, repeat if again else None)


def figures() -> str:
    """What was done, in one line."""
    return ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
