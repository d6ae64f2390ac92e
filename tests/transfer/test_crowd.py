"""Small files of archives without an index, written by worker processes."""

import asyncio
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from etcetera.errors import CorruptArchive, StoreError, UnsafeArchive
from etcetera.transfer import crowd, flow
from etcetera.transfer.archive import Archive
from etcetera.transfer.crowd import Crowd
from etcetera.transfer.extract import Extractor, Writer
from etcetera.transfer.in_order import read_in_order
from etcetera.transfer.options import TransferOptions
from etcetera.transfer.streamed import unpack_stream
from etcetera.transfer.worker import Unpack, receive, send
from etcetera.transfer.workers import Workers, workers_beside
from tests import trees
from tests.archives import ignore, pull_from, small, unpack
from tests.hostile import REFUSED
from tests.tars import dataset, directory, file, hard_link, symlink
from tests.transfer.test_hostile import outside as outside  # a fixture
from tests.transfer.test_workers import children
from tests.unusual import ACCEPTED

FIRST = file(b"data/train/0", b"the first")
"""What makes the processes start, and is not given to one of them."""
MANY = [file(b"data/train/%04d" % number, b"%d\n" % number * number) for number in range(900)]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes are started for the first file, and waited for; all have ended afterwards."""

    @contextmanager
    def waited_for(count: int, *opening: Any) -> Iterator[Future[Workers | None]]:
        with workers_beside(count, *opening) as starting:
            starting.result()
            yield starting

    monkeypatch.setattr(flow, "_ENOUGH_FILES", 1)
    monkeypatch.setattr(crowd, "workers_beside", waited_for)
    yield
    assert not children()
    assert not [one for one in threading.enumerate() if one.name.startswith("etcetera")]


class _Here:
    """What a worker process does, done by this one."""

    def __init__(self, tree: Path) -> None:
        self.unpack = Unpack(os.fsencode(tree))

    def ask(self, *request: Any, data: bytes = b"") -> tuple[Any, ...]:
        pipe = io.BytesIO()
        send(pipe, request, data)
        pipe.seek(0)
        received = receive(pipe)
        assert received is not None
        name, *arguments = received
        result: tuple[Any, ...] = getattr(self.unpack, name)(*arguments)
        return result


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is started: one thread of this one does what each would do."""

    @contextmanager
    def started(_count: int, _name: str, tree: bytes) -> Iterator[Future[Workers | None]]:
        one = _Here(Path(os.fsdecode(tree)))
        starting: Future[Workers | None] = Future()
        starting.set_result(Workers([cast("Any", one)]))
        yield starting
        one.unpack._extractor.close()

    monkeypatch.setattr(crowd, "workers_beside", started)
    monkeypatch.setattr(crowd, "_BATCH", 1)


def made(tree: Path) -> Crowd:
    """For *tree*."""
    return Crowd(tree, TransferOptions(threads=2))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, outside: Path) -> None:
    """What is refused without processes is refused with them, and harms nothing."""
    error, pieces = REFUSED[case]
    tree = outside.parent / "target"
    with pytest.raises(error):
        unpack([dataset(FIRST, *pieces(bytes(outside)))], tree, made(tree))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str, outside: Path) -> None:
    """What is unusual but clear gives the same tree and the same sums with and without them."""
    pieces, _ = ACCEPTED[case]
    with_them, alone = outside.parent / "target", outside.parent.parent / "alone"
    tally = unpack([dataset(FIRST, *pieces)], with_them, made(with_them))
    expected = unpack([dataset(FIRST, *pieces)], alone)
    assert trees.contents(trees.read(with_them)) == trees.contents(trees.read(alone))
    assert tally.fingerprint.value() == expected.fingerprint.value()
    sums = [{name: (one.files, one.bytes) for name, one in of.partitions.items()}
            for of in (tally, expected)]  # fmt: skip
    assert sums[0] == sums[1]


async def test_same_as_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes give the same tree, digest and sums as one thread, whatever lies between."""
    written: list[int] = []
    real = Workers.write

    def write(self: Workers, entries: Any, contents: Any) -> Any:
        written.append(len(entries))
        return real(self, entries, contents)

    monkeypatch.setattr(Workers, "write", write)
    data = dataset(
        FIRST, *MANY[:300], file(b"data/train/large", b"large" * (1 << 19)),
        hard_link(b"data/train/same", b"data/train/0299"), symlink(b"data/train/link", b"0001"),
        directory(b"data/test/empty/"), file(b"data/test/more/below", b""), *MANY[300:],
    )  # fmt: skip
    pulled = await pull_from(data, tmp_path / "processes", TransferOptions(threads=2))
    assert len(written) > 1
    assert sum(written) == len(MANY) + 1
    alone = await pull_from(data, tmp_path / "alone", small(threads=1))
    assert pulled == alone
    processes, thread = (trees.read(tmp_path / name) for name in ("processes", "alone"))
    assert trees.contents(processes) == trees.contents(thread)


class TestHardLinks:
    """Links to what processes write wait for their own target, and for nothing else."""

    async def check(self, members: list[bytes], tmp_path: Path) -> None:
        """Pull *members* with processes and without; both give the same."""
        options = TransferOptions(threads=2)
        pulled = await pull_from(dataset(FIRST, *members), tmp_path / "tree", options)
        alone = await pull_from(dataset(FIRST, *members), tmp_path / "alone", small(threads=1))
        assert pulled == alone
        seen, expected = (trees.read(tmp_path / name) for name in ("tree", "alone"))
        assert trees.contents(seen) == trees.contents(expected)

    async def test_finished(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A link to a file that is there is made while others are on their way."""
        linked = threading.Event()
        write, hard_link_now = Workers.write, Writer.hard_link

        def write_later(self: Workers, entries: Any, contents: Any) -> Any:
            assert linked.wait(20), "the link waits for what it does not need"
            return write(self, entries, contents)

        def tell(self: Writer, entry: Any) -> Any:
            linked.set()
            return hard_link_now(self, entry)

        monkeypatch.setattr(Workers, "write", write_later)
        monkeypatch.setattr(Writer, "hard_link", tell)
        link = hard_link(b"data/train/same", b"data/train/0")
        await self.check([*MANY[:20], link, *MANY[20:]], tmp_path)

    async def test_pending(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A link to a file on its way, and a link to that link, do not hold up what follows."""
        monkeypatch.setattr(crowd, "_BATCH", 1024)
        second = threading.Event()
        write = Workers.write

        def write_later(self: Workers, entries: Any, contents: Any) -> Any:
            if any(entry.path == "data/train/0020" for entry in entries):
                second.set()
            assert second.wait(20), "what follows the link waits for it"
            return write(self, entries, contents)

        monkeypatch.setattr(Workers, "write", write_later)
        links = [
            hard_link(b"data/train/same", b"data/train/0000"),
            hard_link(b"data/train/too", b"data/train/same"),
        ]
        await self.check([MANY[0], *links, MANY[20], *MANY[1:20]], tmp_path)

    @pytest.mark.parametrize("batch", [2048, 512 << 10])
    async def test_many(self, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many links there are, and to whatever, each gets its file."""
        monkeypatch.setattr(crowd, "_BATCH", batch)
        one = [hard_link(b"data/train/one%d" % number, b"data/train/0000") for number in range(99)]
        each = [
            hard_link(b"data/train/each%d" % number, b"data/train/%04d" % (number // 2))
            for number in range(300)
        ]
        pairs = [piece for pair in zip(MANY[1:301], each, strict=True) for piece in pair]
        await self.check([MANY[0], *one, *pairs], tmp_path)


@pytest.mark.parametrize(
    "last",
    [
        (file(b"data/train/0007", b"again"),),
        (file(b"data/train/0007/below", b"x"),),
        (file(b"data/train/0007"), directory(b"data/train/0007/")),
        (hard_link(b"data/train/0007", b"data/train/0008"),),
        (hard_link(b"data/train/new", b"data/train/later"), file(b"data/train/later", b"x")),
        (hard_link(b"data/train/new", b"data/train/0007"), file(b"data/train/new", b"x")),
        (hard_link(b"data/train/new", b"data/train/0007"), file(b"data/train/new/below", b"x")),
    ],
    ids=[
        "twice",
        "below a file",
        "a directory",
        "a hard link",
        "a link to what comes later",
        "a link and a file",
        "below a link",
    ],
)
async def test_taken_paths(last: tuple[bytes, ...], tmp_path: Path) -> None:
    """PL-15: a path that another process has written, or may write later, is refused."""
    with pytest.raises(UnsafeArchive):
        await pull_from(dataset(FIRST, *MANY[:20], *last), tmp_path / "tree")


async def test_error_of_the_reader(tmp_path: Path) -> None:
    """What the reading thread refuses ends the processes, too."""
    damaged = bytearray(MANY[800])
    damaged[0] ^= 1
    with pytest.raises(CorruptArchive, match="checksum"):
        await pull_from(dataset(FIRST, *MANY[:800], bytes(damaged)), tmp_path / "tree")


async def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed is an error that says so."""
    real = Workers.write

    def write(self: Workers, entries: Any, contents: Any) -> Any:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        return real(self, entries, contents)

    monkeypatch.setattr(Workers, "write", write)
    with pytest.raises(StoreError, match="-9"):
        await pull_from(dataset(FIRST, *MANY), tmp_path / "tree")


async def test_nothing_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started, the thread that reads goes on alone."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    await pull_from(dataset(FIRST, *MANY), tmp_path / "tree")
    assert len(list((tmp_path / "tree/data/train").iterdir())) == len(MANY) + 1


@pytest.mark.parametrize("steps", [1, 30, 60, 90, 120, 200])
async def test_cancelled(steps: int, tmp_path: Path) -> None:
    """Wherever a pull is cancelled, no process and no thread is left."""
    options = small(threads=2)
    pulling = asyncio.ensure_future(pull_from(dataset(FIRST, *MANY), tmp_path / "tree", options))
    for _ in range(steps):
        await asyncio.sleep(0.005)
    pulling.cancel()
    await asyncio.wait([pulling])
    assert pulling.cancelled() or pulling.result().files == len(MANY) + 1


async def test_refused_while_nothing_comes(tmp_path: Path) -> None:
    """An archive that is refused for its beginning is refused before the rest has arrived."""
    data = dataset(FIRST, b"no header".ljust(512), *MANY)
    tree = tmp_path / "tree"
    tree.mkdir()
    extractor = Extractor(tree)

    async def read(start: int, stop: int) -> bytes:
        if start:
            await anyio.sleep_forever()
        return data[start:stop]

    archive = cast("Archive", SimpleNamespace(info=SimpleNamespace(size=1 << 30), read=read))
    options = TransferOptions()
    data = data.ljust(options.part_size)
    began = time.monotonic()
    with pytest.raises(CorruptArchive, match="magic"):
        await read_in_order(
            archive, lambda chunks: unpack_stream(chunks, extractor), options, ignore
        )
    extractor.close()
    assert time.monotonic() - began < 30
