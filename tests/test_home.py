"""etcetera.home: local datasets, whole at every moment."""

import errno
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from etcetera import atomic
from etcetera.dataset import Dataset
from etcetera.errors import (
    AlreadyExists,
    ConfigError,
    DatasetNotFound,
    InvalidDataset,
    InvalidName,
    NoSpace,
    NotAllowed,
    StoreError,
    UsageError,
)
from etcetera.home import Home
from etcetera.receipts import Receipt
from etcetera.transfer.scan import scan

NOBODY = 65534


class Killed(BaseException):
    """Stands for kill -9: nothing cleans up after it where the test takes care of that."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset outside the home."""
    return build(tmp_path / "source", "outside")


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A tree outside the home that nothing may change."""
    root = build(tmp_path / "canary", "sing")
    before = snapshot(root)
    yield root
    assert snapshot(root) == before


def build(root: Path, text: str) -> Path:
    """Lay out a small dataset."""
    (root / "data" / "train").mkdir(parents=True)
    (root / "data" / "train" / "file").write_text(text)
    return root


def snapshot(root: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """All that can be seen of a tree."""
    result = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        result[str(path)] = status.st_mode, status.st_ino, status.st_mtime_ns, content
    return result


def receipt_for(tree: Path, name: str) -> Receipt:
    """What a pull would write down."""
    scanned = scan(tree)
    return Receipt(
        operation="pull",
        name=name,
        repository="s3://bucket",
        etag="etag",
        digest="digest",
        files=1,
        bytes=7,
        fingerprint=scanned.fingerprint,
        newest=scanned.newest,
        inode=tree.stat().st_ino,
    )


def pull(home: Home, name: str, text: str = "content", force: bool = False) -> Path | None:
    """Install a dataset as a pull does."""
    with home.stage(name) as tree:
        build(tree, text)
        return home.install(tree, name, receipt_for(tree, name), force)


def content(home: Home, name: str) -> str:
    """What the dataset's file holds."""
    return (home.path / name / "data" / "train" / "file").read_text()


def private(home: Home, kind: str) -> list[str]:
    """What is in a private directory."""
    directory = home.path / ".etcetera" / kind
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def run(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=60,
        check=False,
    )


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Run code with a variable ``base``, an empty directory, as a user who is not root."""
    base = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(base, NOBODY, NOBODY)

    def run_as_nobody(code: str) -> str:
        prelude = f"""
            import os, sys
            from pathlib import Path
            from etcetera.home import Home
            from etcetera.errors import *
            import etcetera.transfer.scan, filelock
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid({NOBODY})
                os.setuid({NOBODY})
            base = Path({str(base)!r})
        """
        result = run(textwrap.dedent(prelude) + textwrap.dedent(code))
        assert result.returncode == 0, result.stderr
        return result.stdout

    yield run_as_nobody
    for directory, _, _ in os.walk(base):
        Path(directory).chmod(0o700)
    shutil.rmtree(base)


# Listing


def test_no_home(home: Home) -> None:
    """A home that does not exist is empty, and looking does not make it."""
    assert home.names() == []
    assert home.entries() == []
    assert home.find("x") is None
    assert home.receipt("x") is None
    assert not home.path.exists()


def test_names(home: Home, source: Path) -> None:
    """CR-29: only datasets are listed, sorted: no file, nothing hidden, no impossible name."""
    home.create("b")
    pull(home, "a")
    home.register(source, "link")
    (home.path / "broken").symlink_to("nowhere")
    (home.path / "file").write_text("")
    (home.path / ".hidden").mkdir()
    (home.path / "a\nb").mkdir()
    (home.path / "-f").mkdir()
    assert home.names() == ["a", "b", "broken", "link"]


def test_entries(home: Home, source: Path) -> None:
    """RG-04: a listing tells pulled, registered and created apart, and which links are broken."""
    home.create("created")
    pull(home, "pulled")
    home.register(source, "registered")
    (home.path / "broken").symlink_to(source / "gone")
    entries = {entry.name: entry for entry in home.entries()}
    assert {name: entry.kind for name, entry in entries.items()} == {
        "broken": "registered",
        "created": "created",
        "pulled": "pulled",
        "registered": "registered",
    }
    assert [name for name, entry in entries.items() if entry.broken] == ["broken"]
    assert entries["registered"].path == source
    assert entries["registered"].modified.timestamp() == pytest.approx(source.stat().st_mtime)
    assert entries["broken"].path == source / "gone"
    assert home.entry("pulled") == entries["pulled"]
    with pytest.raises(DatasetNotFound):
        home.entry("missing")


@pytest.mark.parametrize("when", [10**15, -(10**14)])
def test_times_of_no_year(home: Home, when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory's time that no calendar has breaks no listing."""
    home.create("x")
    monkeypatch.setattr(Path, "lstat", lambda path: at(when, os.lstat(path)))
    assert home.entries()[0].modified.astimezone().year in (1, 9999)


def at(when: int, status: os.stat_result) -> os.stat_result:
    """The status of a file whose time is another."""
    return os.stat_result((*status[:8], when, status[9]))


def test_home_is_a_file(home: Home) -> None:
    """CR-08: a file in the place of the home is an error that says so."""
    home.path.write_text("")
    with pytest.raises(ConfigError, match="not a directory"):
        home.names()
    with pytest.raises(ConfigError, match="not a directory"):
        home.create("x")
    assert home.find("x") is None


def test_private_directory_is_a_link(home: Home, canary: Path) -> None:
    """What is private is not put where a link leads."""
    home.path.mkdir()
    (home.path / ".etcetera").symlink_to(canary)
    with pytest.raises(ConfigError, match="remove it"):
        home.create("x")


def test_unreadable_homes(nobody: Callable[[str], str]) -> None:
    """CR-08: a home that others own can be listed and read, and any change is NotAllowed."""
    output = nobody("""
        home = Home(base / "home")
        home.create("x")
        os.chmod(home.path / ".etcetera", 0)
        os.chmod(home.path, 0o555)
        print(home.names(), [entry.kind for entry in home.entries()], home.find("x") is not None)
        for change in (lambda: home.create("y"), lambda: home.purge("x", force=True)):
            try:
                change()
            except NotAllowed as error:
                print(str(base) in str(error))
        os.chmod(home.path, 0)
        for look in (home.names, lambda: home.find("x")):
            try:
                look()
            except NotAllowed as error:
                print(str(base) in str(error))
    """)
    assert output.splitlines() == ["['x'] ['created'] True", "True", "True", "True", "True"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".etcetera", "-f", "a\0b", "/etc"])
def test_bad_names(home: Home, source: Path, name: str) -> None:
    """A name that cannot be one is refused before anything is touched."""
    calls: list[Callable[[], object]] = [
        lambda: home.find(name),
        lambda: home.receipt(name),
        lambda: home.create(name),
        lambda: home.register(source, name),
        lambda: home.purge(name, force=True),
        lambda: home.install(source, name, None, force=True),
    ]
    for call in calls:
        with pytest.raises(InvalidName):
            call()
    assert not home.path.exists()


# Create and register


def test_create(home: Home) -> None:
    """A created dataset is valid, with the partitions asked for, and leaves nothing staged."""
    assert Dataset(home.create("x")).keys() == {"train", "test"}
    assert Dataset(home.create("y", ["all", "-odd name"])).keys() == {"all", "-odd name"}
    assert private(home, "staging") == []


@pytest.mark.parametrize("partitions", [[], "train"])
def test_create_needs_partitions(home: Home, partitions: list[str]) -> None:
    """No partitions, or a string that would be taken for letters, is a mistake."""
    with pytest.raises(UsageError):
        home.create("x", partitions)


def test_create_checks_partitions(home: Home) -> None:
    """A partition cannot lead out of the dataset."""
    with pytest.raises(InvalidName):
        home.create("x", ["../../y"])
    assert home.names() == []


def test_create_existing(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """An existing dataset stays unless forced, and then what no repository has is kept."""
    pull(home, "pulled")
    (home.create("x") / "data" / "train" / "precious").write_text("mine")
    for name in ("x", "pulled"):
        with pytest.raises(AlreadyExists, match="--force"):
            home.create(name)
        home.create(name, force=True)
    (kept,) = private(home, "kept")
    path = home.path / ".etcetera" / "kept" / kept
    assert (path / "data" / "train" / "precious").read_text() == "mine"
    assert str(path) in caplog.text
    assert home.receipt("pulled") is None


def test_register(home: Home, source: Path) -> None:
    """Registering makes a link, named like the directory unless told otherwise."""
    assert home.register(source) == "source"
    assert (home.path / "source").is_symlink()
    assert home.register(str(source), "other") == "other"
    assert (home.path / "other").resolve() == source
    assert home.names() == ["other", "source"]
    assert private(home, "staging") == []


def test_register_resolves_links(home: Home, source: Path, tmp_path: Path) -> None:
    """RG-05: a link to a link is registered as what it leads to in the end."""
    (tmp_path / "one").symlink_to(source)
    (tmp_path / "two").symlink_to("one")
    assert home.register(tmp_path / "two") == "source"
    assert (home.path / "source").readlink() == source


def test_register_refuses(home: Home, tmp_path: Path) -> None:
    """RG-05: neither the home, nor what holds it or is in it, is registered."""
    pull(home, "x")
    (home.path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train").mkdir(parents=True)
    build(home.path / ".etcetera" / "kept" / "y", "")
    (tmp_path / "link").symlink_to(home.path / "x")
    for directory in (
        home.path,
        tmp_path,
        home.path / "x",
        tmp_path / "link",
        home.path / ".etcetera" / "kept" / "y",
    ):
        with pytest.raises(InvalidDataset, match="home"):
            home.register(directory, "x", force=True)
    assert content(home, "x") == "content"


def test_register_no_dataset(home: Home, tmp_path: Path) -> None:
    """What is not laid out as a dataset is not registered."""
    with pytest.raises(InvalidDataset, match="does not exist"):
        home.register(tmp_path / "nowhere")
    assert not home.path.exists()


def test_register_existing(home: Home, source: Path) -> None:
    """RG-08: a pulled dataset gives way only to force, and its files go after the link is there."""
    pull(home, "x")
    with pytest.raises(AlreadyExists):
        home.register(source, "x")
    assert content(home, "x") == "content"
    home.register(source, "x", force=True)
    assert content(home, "x") == "outside"
    assert private(home, "trash") == private(home, "kept") == []


def test_register_again(home: Home, source: Path, canary: Path) -> None:
    """RG-04: a link, broken or not, is replaced without looking at what it led to."""
    home.register(canary, "x")
    home.register(source, "x", force=True)
    assert content(home, "x") == "outside"
    (home.path / "broken").symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        home.register(source, "broken")
    home.register(source, "broken", force=True)
    assert content(home, "broken") == "outside"


# Purge


def test_purge_pulled(home: Home) -> None:
    """A pulled dataset goes without force: it can be pulled again."""
    pull(home, "x")
    home.purge("x")
    assert home.names() == private(home, "trash") == private(home, "receipts") == []


def test_purge_registered(home: Home, canary: Path) -> None:
    """Purging a registered dataset loses the link, and touches nothing behind it."""
    home.register(canary, "x")
    home.purge("x")
    assert home.names() == []


def test_purge_broken(home: Home) -> None:
    """RG-04: a broken link can be purged."""
    home.path.mkdir()
    (home.path / "x").symlink_to("nowhere")
    home.purge("x")
    assert home.names() == []


def test_purge_missing(home: Home) -> None:
    """What is not there cannot be purged, and a file is no dataset."""
    with pytest.raises(DatasetNotFound):
        home.purge("x")
    home.path.mkdir()
    (home.path / "x").write_text("")
    with pytest.raises(DatasetNotFound):
        home.purge("x", force=True)
    assert (home.path / "x").exists()


def test_purge_unsaved(home: Home) -> None:
    """Data that was never pushed or pulled needs force."""
    home.create("x")
    with pytest.raises(NotAllowed, match=r"never pushed or pulled.*--force"):
        home.purge("x")
    assert home.names() == ["x"]
    home.purge("x", force=True)
    assert home.names() == []


@pytest.mark.parametrize("change", ["content", "added", "deleted", "socket"])
def test_purge_changed(home: Home, change: str) -> None:
    """RG-10: data that changed since it was pulled needs force."""
    pull(home, "x")
    partition = home.path / "x" / "data" / "train"
    if change == "content":
        (partition / "file").write_text("edited")
    elif change == "added":
        (partition / "more").write_text("")
    elif change == "deleted":
        (partition / "file").unlink()
    else:
        os.mkfifo(partition / "fifo")
    with pytest.raises(NotAllowed, match="changed since it was pulled"):
        home.purge("x")
    home.purge("x", force=True)
    assert home.names() == []


def test_purge_pushed(home: Home) -> None:
    """A dataset that was created and then pushed goes without force."""
    path = home.create("x")
    home.write_receipt(receipt_for(path, "x"))
    home.purge("x")
    assert home.names() == []


def test_purge_follows_no_link(home: Home, canary: Path) -> None:
    """Links in a dataset are deleted, not what they lead to."""
    path = home.create("x")
    (path / "directory").symlink_to(canary)
    (path / "data" / "train" / "file").symlink_to(canary / "data" / "train" / "file")
    os.link(canary / "data" / "train" / "file", path / "hard")
    (path / "up").symlink_to("..")
    home.purge("x", force=True)
    assert home.names() == []


def test_purge_read_only_tree(nobody: Callable[[str], str]) -> None:
    """RG-09: read-only directories, the dataset's own among them, are purged by their owner."""
    output = nobody("""
        home = Home(base / "home")
        home.create("x")
        for path in ("x/data/train/a", "x/data/train/b"):
            (home.path / path).mkdir()
            (home.path / path / "file").touch()
        for path in ("x/data/train/a", "x/data/train", "x/data", "x"):
            os.chmod(home.path / path, 0o555)
        os.chmod(home.path / "x" / "data" / "test", 0)
        home.purge("x", force=True)
        print(home.names(), os.listdir(home.path / ".etcetera" / "trash"))
    """)
    assert output.strip() == "[] []"


def test_purge_undeletable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """RG-09: what cannot be deleted is named, and the dataset is not half there."""
    pull(home, "x")
    unlink = os.unlink

    def refuse(path: str, **options: int) -> None:
        if path == "file":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", refuse)
        with pytest.raises(NotAllowed, match=r"trash.*file"):
            home.purge("x")
    assert home.names() == []


def test_killed_purge(home: Home) -> None:
    """A purge that is killed leaves nothing under the name, and the next one deletes the rest."""
    pull(home, "x")
    pull(home, "y")
    result = run(
        """
        import os, signal, sys
        import etcetera.home
        etcetera.home.remove_tree = lambda path: os.kill(os.getpid(), signal.SIGKILL)
        etcetera.home.Home(etcetera.home.Path(sys.argv[1])).purge("x")
        """,
        home.path,
    )
    assert result.returncode == -9
    assert home.names() == ["y"]
    assert len(private(home, "trash")) == 1
    home.purge("y")
    assert private(home, "trash") == []


# Stage and install


def test_stage_is_private(home: Home) -> None:
    """SE-08: what is staged is private from the start, whatever the umask, and then gone."""
    old = os.umask(0)
    try:
        with home.stage("x") as tree:
            for directory in (tree.parent, tree.parents[1], home.path / ".etcetera"):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            owner = tree.parent / "owner.json"
            assert stat.S_IMODE(owner.stat().st_mode) == 0o600
            assert list(tree.iterdir()) == []
    finally:
        os.umask(old)
    assert private(home, "staging") == []


def test_stage_is_removed_after_an_error(home: Home) -> None:
    """A failed or cancelled transfer leaves no staging tree."""
    with pytest.raises(Killed), home.stage("x") as tree:
        build(tree, "half")
        raise Killed
    assert private(home, "staging") == []


def test_install(home: Home) -> None:
    """An installed dataset is under its name, with its receipt, and nothing else remains."""
    assert pull(home, "x") is None
    assert content(home, "x") == "content"
    receipt = home.receipt("x")
    assert receipt is not None
    assert receipt.inode == (home.path / "x").stat().st_ino
    assert private(home, "staging") == private(home, "trash") == private(home, "kept") == []


def test_install_existing(home: Home) -> None:
    """An existing dataset stays unless forced, and so does what vouches for it."""
    pull(home, "x", "old")
    before = home.receipt("x")
    with pytest.raises(AlreadyExists):
        pull(home, "x", "new")
    assert content(home, "x") == "old"
    assert home.receipt("x") == before
    assert pull(home, "x", "new", force=True) is None
    assert content(home, "x") == "new"
    assert len(private(home, "receipts/x")) == 1
    home.purge("x")


def test_install_lost_race(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-26: a dataset that appears at the last moment, lock or not, is not replaced."""
    other = Home(home.path)
    monkeypatch.setattr(home, "_refuse_taken", lambda *_: pull(other, "x", "first"))
    monkeypatch.setattr(other, "_refuse_taken", lambda *_: None)
    with pytest.raises(AlreadyExists):
        pull(home, "x", "second")
    assert content(home, "x") == "first"
    assert home.receipt("x") is not None


def test_forced_install_keeps_unsaved(home: Home) -> None:
    """RG-10: what was edited is kept where install says, not deleted."""
    pull(home, "x", "old")
    (home.path / "x" / "data" / "train" / "notes").write_text("mine")
    kept = pull(home, "x", "new", force=True)
    assert kept is not None
    assert kept.parent == home.path / ".etcetera" / "kept"
    assert (kept / "data" / "train" / "notes").read_text() == "mine"
    assert content(home, "x") == "new"


def test_forced_install_replaces_link(home: Home, canary: Path) -> None:
    """A registered dataset that is replaced loses the link only."""
    home.register(canary, "x")
    assert pull(home, "x", "new", force=True) is None
    assert content(home, "x") == "new"


def test_forced_install_over_nothing(home: Home) -> None:
    """Force needs nothing to replace."""
    assert pull(home, "x", force=True) is None
    assert content(home, "x") == "content"


def test_purged_while_replacing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-23: the old dataset may vanish at any moment; then the name is free."""
    pull(home, "x", "old")
    replace = atomic.replace

    def purge_first(source: Path, target: Path, aside: Path) -> None:
        shutil.rmtree(target)
        replace(source, target, aside)

    monkeypatch.setattr(atomic, "replace", purge_first)
    assert pull(home, "x", "new", force=True) is None
    assert content(home, "x") == "new"


@pytest.mark.parametrize("times", [1, 100])
def test_purged_and_taken_while_replacing(
    home: Home, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """CR-23, CR-26: the old dataset may also give way to another one at any moment."""
    pull(home, "x", "old")
    replace, calls = atomic.replace, []

    def purge_first(source: Path, target: Path, aside: Path) -> None:
        calls.append(target)
        if len(calls) <= times:
            shutil.rmtree(target)
            (target / "data" / "train").mkdir(parents=True)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target))
        replace(source, target, aside)

    monkeypatch.setattr(atomic, "replace", purge_first)
    if times == 1:
        assert pull(home, "x", "new", force=True) is not None
        assert content(home, "x") == "new"
    else:
        with pytest.raises(StoreError, match="x"):
            pull(home, "x", "new", force=True)
    assert private(home, "staging") == []


STEPS = [
    ("sync", 1),  # the receipt
    ("sync_filesystem", 1),
    ("_renameat2", 1),  # tries the name, which is taken
    ("_renameat2", 2),  # staged → aside
    ("_renameat2", 3),  # aside ⇄ name
    ("sync", 2),  # the home
]


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize(("step", "call"), STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_install(home: Home, step: str, call: int, edited: bool, after: bool) -> None:
    """Killed before or after any step, a forced install leaves the old or the new dataset."""
    pull(home, "x", "old")
    pull(home, "other")
    if edited:
        (home.path / "x" / "data" / "train" / "notes").write_text("mine")
    result = run(
        """
        import os, signal, sys
        from pathlib import Path
        from tests import test_home
        from etcetera import atomic
        step, call, after = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
        original = getattr(atomic, step)

        def die(*arguments):
            global call
            call -= 1
            try:
                if call or after:
                    return original(*arguments)
            finally:
                if not call:
                    os.kill(os.getpid(), signal.SIGKILL)

        home = test_home.Home(Path(sys.argv[1]))
        with home.stage("x") as tree:
            test_home.build(tree, "new")
            receipt = test_home.receipt_for(tree, "x")
            setattr(atomic, step, die)
            home.install(tree, "x", receipt, True)
        """,
        home.path,
        step,
        call,
        after,
    )
    assert result.returncode == -9, result.stderr
    exchanged = STEPS.index((step, call)) + after > STEPS.index(("_renameat2", 3))
    assert content(home, "x") == ("new" if exchanged else "old")
    Dataset(home.path / "x")
    # Nothing that was not in a repository is lost, also not after the next call has tidied up.
    home.purge("other")
    assert private(home, "staging") == private(home, "trash") == []
    notes = list(home.path.rglob("notes"))
    assert [path.read_text() for path in notes] == (["mine"] if edited else [])
    if not edited:
        home.purge("x")


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("edited", [False, True])
def test_install_rolls_back(
    home: Home, monkeypatch: pytest.MonkeyPatch, existing: bool, edited: bool
) -> None:
    """CR-06: where the change cannot be made durable, the install fails and nothing changed."""
    if existing:
        pull(home, "x", "old")
        if edited:
            (home.path / "x" / "data" / "train" / "notes").write_text("mine")
    before = snapshot(home.path / "x") if existing else None
    sync = atomic.sync

    def fail(path: Path) -> None:
        if path == home.path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        sync(path)

    monkeypatch.setattr(atomic, "sync", fail)
    with pytest.raises(StoreError, match="Input/output"):
        pull(home, "x", "new", force=True)
    if before is None:
        assert home.names() == []
    else:
        assert snapshot(home.path / "x") == before
        assert home.receipt("x") is not None
    assert private(home, "staging") == private(home, "trash") == private(home, "kept") == []
    if existing and not edited:
        with pytest.raises(StoreError):
            home.purge("x")
        assert snapshot(home.path / "x") == before


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EROFS, NotAllowed),
        (errno.EACCES, NotAllowed),
        (errno.EIO, StoreError),
    ],
)
def test_errors_of_the_system(
    home: Home, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    """CR-04: what the system refuses is an error of ours that names the path; nothing remains."""

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(atomic, "sync_filesystem", fail)
    with pytest.raises(error, match=str(home.path / "x")):
        pull(home, "x")
    assert home.names() == private(home, "staging") == private(home, "receipts/x") == []


def test_without_exchange(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system cannot exchange names, replacing works, and rolls back when it fails."""
    monkeypatch.setattr(atomic, "_renameat2", lambda *_: False)
    pull(home, "x", "old")
    assert pull(home, "x", "new", force=True) is None
    (home.path / "x" / "data" / "train" / "notes").write_text("mine")
    assert pull(home, "x", "newer", force=True) is not None
    assert content(home, "x") == "newer"
    with pytest.raises(AlreadyExists):
        pull(home, "x", "newest")
    home.purge("x")
    assert home.names() == []


# Receipts


def test_receipt_of_another_directory(home: Home) -> None:
    """A receipt vouches for the directory it was written for, not for its successor."""
    pull(home, "x")
    moved = home.path / "y"
    (home.path / "x").rename(moved)
    build(home.path / "x", "content")
    assert home.receipt("x") is None
    assert home.receipt("y") is None


def test_receipt_of_a_registered_dataset(home: Home, source: Path) -> None:
    """What was pushed from a registered directory is remembered as long as the link leads there."""
    home.register(source, "x")
    receipt = receipt_for(source, "x")
    home.write_receipt(receipt)
    assert home.receipt("x") == receipt
    home.register(source, "x", force=True)
    assert home.receipt("x") == receipt


def test_created_after_deleting_by_hand(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new directory that gets the inode of a deleted one has no receipt."""
    pull(home, "x")
    receipt = home.receipt("x")
    assert receipt is not None
    shutil.rmtree(home.path / "x")
    with home.stage("x") as tree:
        build(tree, "content")
        home.write_receipt(receipt_for(tree, "x"))  # as if the inode had been used before
        home.install(tree, "x", None, force=False)
    assert home.receipt("x") is None


# Locks


async def test_lock_excludes_tasks(home: Home) -> None:
    """One task holds a name at a time; other names are free."""
    inside = 0

    async def work() -> None:
        nonlocal inside
        async with home.lock("x"):
            inside += 1
            assert inside == 1
            async with home.lock("y" * 200):
                await anyio.sleep(0.01)
            inside -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(work)


async def test_lock_needs_a_writable_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-08: where nothing can be written, nothing can be locked."""

    def fail(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(NotAllowed):
        async with home.lock("x"):
            pass


def test_leftovers_are_a_warning(
    home: Home, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be tidied up afterwards is a warning that names it, not a failure."""
    pull(home, "x", "old")

    def refuse(path: str, **_: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "etcetera"):
        patched.setattr(os, "rmdir", refuse)
        pull(home, "x", "new", force=True)
    assert content(home, "x") == "new"
    assert "Could not delete" in caplog.text
    assert str(home.path / ".etcetera" / "trash") in caplog.text
