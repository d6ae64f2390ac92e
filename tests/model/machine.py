"""What happens: commands, other people, damage and kills, in any order."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

import etcetera as etc
from etcetera.errors import (
    NetworkError,
)
from etcetera.repository import open_repository
from etcetera.stores.memory import memory_store
from tests.model.oracle import Oracle
from tests.model.things import (
    NAMES,
    VERSIONS,
    Archive,
    Call,
    Interrupted,
    archive_of,
    counts,
    look,
    source,
)

METHODS = {
    "pull": ["open", "read"],
    "push": ["head", "open", "read", "upload", "put_part", "copy_part", "complete"],
}
"""What a command calls of a store."""

_homes = st.integers(0, 1)
_names = st.sampled_from(NAMES)
commands = st.sampled_from(["pull", "pull", "push", "push", "purge", "register", "create"])
_versions = st.sampled_from(VERSIONS)
_partitions = st.sampled_from(["", "train", "test", "none"])


class Machine(Oracle):
    """What is the same wherever the repository is."""

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

    @rule(home=_homes, name=_names, first=_partitions, second=_partitions)
    def pulls_more(self, home: int, name: str, first: str, second: str) -> None:
        """Somebody pulls a part, and then another one or the rest."""
        self.do(self.pull(home, name, True, first))
        self.agrees()
        self.do(self.pull(home, name, False, second))

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
