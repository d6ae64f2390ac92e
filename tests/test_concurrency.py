"""Many processes, tasks and homes at once, with locks and without: nothing is ever mixed."""

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

import etcetera as etc
from etcetera.errors import AlreadyExists, DatasetNotFound, NotAllowed, StoreError
from etcetera.home import Home
from etcetera.locks import locked
from etcetera.stores.memory import memory_store
from tests import rivals
from tests.datasets import snapshot

ROOT = Path(__file__).parents[1]


def contend(
    directory: Path, processes: int, commands: int, locks: str, seed: int, kills: int = 0
) -> Counter[str]:
    """Have processes of two tasks do what they want with the same names; return what they did.

    Args:
        directory: For all of it.
        processes: How many.
        commands: How many each task gives.
        locks: Whether there are any.
        seed: Of what they want.
        kills: How many of the processes are killed meanwhile.
    """
    for version in range(3):
        rivals.make_version(directory / f"version{version}", version)
    (directory / "bucket").mkdir()
    (directory / "home").mkdir()
    (directory / "link").symlink_to("home")
    config = rivals.configured(directory)
    etc.register(directory / "version0", "rose", config=config)
    etc.push("rose", config=config)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rivals", directory, str(seed + 10 * number),
             str(commands), locks],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for number in range(processes)
    ]  # fmt: skip
    for process in running[:kills]:
        time.sleep(random.Random(seed).random() + 0.5)
        process.kill()
    done, wrong = Counter[str](), []
    for process in running:
        out, errors = process.communicate()
        done["killed"] += process.returncode == -signal.SIGKILL
        if process.returncode == -signal.SIGKILL:
            continue
        result = json.loads(out or f'{{"wrong": [{json.dumps(errors)}], "done": {{}}}}')
        wrong += result["wrong"]
        done.update(result["done"])
    assert not wrong, wrong
    # Whatever is left is whole, here and there, and the next command works.
    for name in etc.ls(config=config):
        assert len(rivals.look(config.home / name)) == 1
    for name in etc.ls(True, config):
        assert etc.verify(name, True, config).ok
        assert len(rivals.look(etc.pull(name, True, config).path)) == 1
    etc.clean(config=config)
    for kind in ("staging", "trash"):
        assert not list((config.home / ".etcetera" / kind).iterdir())
    if not done["killed"]:
        assert not [path for path in (directory / "bucket").iterdir() if path.name[0] == "."]
    return done


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_processes(tmp_path: Path, locks: str) -> None:
    """CR-20, CR-22, CR-26, CR-30: whoever comes between, a dataset is old, new or gone.

    Readers look at every file; half of the tasks know the home by another path.
    """
    contend(tmp_path, 3, 12, locks, 1)


async def interleave(directory: Path, rounds: int, seed: int) -> Counter[str]:
    """Have a pull and a purge of one name meet at all moments; return how that ended."""
    choice = random.Random(seed)
    config = rivals.configured(directory, url=f"memory://{directory.name}")
    store, ends = memory_store(f"memory://{directory.name}"), Counter[str]()
    other = rivals.configured(directory, "other", config.url)
    for version in range(2):
        root = rivals.make_version(directory / f"version{version}", version)
        await etc.aregister(root, "rose", True, other)
        if not version:
            await etc.apush("rose", config=other)
            await etc.apull("rose", config=config)

    async def pull(force: bool) -> None:
        await asyncio.sleep(choice.random() * 0.01)
        await etc.apull("rose", force, config)

    async def purge() -> None:
        await asyncio.sleep(choice.random() * 0.02)
        await etc.apurge("rose", config)

    store.latency = 0.001
    for _ in range(rounds):
        force, before = choice.random() < 0.7, "rose" in etc.ls(config=config)
        pulled, purged = await asyncio.gather(pull(force), purge(), return_exceptions=True)
        assert pulled is None or (isinstance(pulled, AlreadyExists) and before and not force)
        # Whoever comes first finds nothing to purge, if there was nothing.
        if isinstance(purged, NotAllowed):
            ends["wanted force"] += 1
        else:
            assert purged is None or (isinstance(purged, DatasetNotFound) and not before)
        there = etc.ls(config=config)
        # In some order, one after the other, they would have ended like this as well.
        assert there == (["rose"] if there else [])
        if pulled is not None:
            assert not there
        if purged is not None:
            assert there
        if there:
            assert rivals.look(config.home / "rose") == {"version 0"}
            # Where no lock works it may be forgotten, and then a purge wants force.
            if Home(config.home).receipt("rose") is None:
                ends["without receipt"] += 1
                await etc.apurge("rose", config, force=True)
        ends["there" if there else "gone"] += 1
    assert not list((config.home / ".etcetera" / "staging").iterdir())
    assert not list((config.home / ".etcetera" / "trash").iterdir())
    return ends


@pytest.mark.parametrize("locks", [True, False])
async def test_pull_and_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    """CR-23, CR-26: a pull and a purge at once end as one after the other would."""
    if not locks:
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
    ends = await interleave(tmp_path, 20, 3)
    assert ends["there"] + ends["gone"] == 20
    assert not (locks and (ends["without receipt"] or ends["wanted force"]))


async def test_home_by_two_paths(tmp_path: Path) -> None:
    """CR-20, CR-30: two paths of one home have one lock, so that one download serves both."""
    config = rivals.configured(tmp_path, url=f"memory://{tmp_path.name}")
    config.home.mkdir()
    (tmp_path / "link").symlink_to("home")
    other = rivals.configured(tmp_path, "link", config.url)
    pusher = rivals.configured(tmp_path, "pusher", config.url)
    await etc.aregister(rivals.make_version(tmp_path / "version", 1), "rose", config=pusher)
    await etc.apush("rose", config=pusher)
    store = memory_store(f"memory://{tmp_path.name}")
    store.calls.clear()
    store.latency = 0.02
    asked = [etc.adataset("rose", True, config=one) for one in (config, other, config, other)]
    found = await asyncio.gather(*asked)
    assert store.calls["open"] == 1
    assert {len(snapshot(dataset.root)) for dataset in found} == {rivals.FILES + 3}


async def test_lock_file_is_deleted(tmp_path: Path) -> None:
    """CR-24: if somebody deletes a lock that is held, nobody is kept out, and nothing breaks."""
    path = tmp_path / "x.lock"
    with anyio.fail_after(5):
        async with locked(path):
            path.unlink()
            async with locked(path):
                # The one that is there now is held: nobody comes in by it.
                with anyio.move_on_after(0.3) as scope:
                    async with locked(path):
                        pytest.fail("two hold the lock")
                assert scope.cancelled_caught
        async with locked(path):
            pass


FORKS = """
import anyio, gc, os, sys, time
from pathlib import Path
from etcetera.locks import locked

async def entered(path):
    with anyio.move_on_after(0.5):
        async with locked(path):
            return True
    return False

async def main(path):
    async with locked(path):
        child = os.fork()
        if not child:
            gc.collect()
            sys.exit()
        os.waitpid(child, 0)
        print("after a child has ended:", await entered(path))
        child = os.fork()
        if not child:
            time.sleep(60)
    print("while a child lives:", await entered(path))
    os.kill(child, 9)
    os.waitpid(child, 0)

anyio.run(main, Path(sys.argv[1]))
"""


def test_forked(tmp_path: Path) -> None:
    """CR-27: a forked child neither lets go of its parent's lock nor keeps it."""
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(tmp_path / "x.lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "after a child has ended: False\nwhile a child lives: True\n"


def test_home_on_two_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-31: where what is staged cannot be renamed into place, nothing changes and it is told."""
    from etcetera import atomic

    config = rivals.configured(tmp_path)
    root = rivals.make_version(tmp_path / "version", 1)
    etc.register(root, "rose", config=config)

    def fail(source: Path, target: Path, flag: int) -> bool:
        raise OSError(18, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(atomic, "_renameat2", fail)
    for force in (False, True):
        with pytest.raises(StoreError if force else AlreadyExists, match="rose"):
            etc.create("rose", force=force, config=config)
        with pytest.raises(StoreError, match="cross-device"):
            etc.create("tulip", force=force, config=config)
    assert etc.ls(config=config) == ["rose"]
    assert rivals.look(config.home / "rose") == {"version 1"}
    assert not list((config.home / ".etcetera" / "staging").iterdir())
