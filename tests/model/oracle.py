"""What each command does, as the model says, and whether it did."""

import asyncio
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hypothesis.stateful import RuleBasedStateMachine, invariant

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
from tests.archives import small
from tests.model.things import Archive, Call, Local, Tree, counts, look, part_of, source


class Oracle(RuleBasedStateMachine):
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

    @abstractmethod
    def url(self) -> str:
        """Where the repository is."""

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
