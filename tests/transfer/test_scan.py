"""A directory → checked entries."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given

from etcetera.errors import InvalidDataset, SourceChanged
from etcetera.transfer.paths import order_key
from etcetera.transfer.scan import scan
from etcetera.transfer.tar import header, padded
from tests import trees


def base(tmp_path: Path) -> Path:
    """A good dataset."""
    return trees.write(tmp_path / "set", trees.SMALL)


@trees.few
@given(trees.random_trees())
def test_everything_in_order(tree: trees.Tree) -> None:
    """All entries come, parents first, in the order of the archive, and their sums are right."""
    with TemporaryDirectory() as directory:
        root = trees.write(Path(directory) / "set", tree)
        scanned = scan(root)
        entries = list(scanned.entries())
        expected = trees.complete(tree)
    paths = [entry.path for entry in entries]
    assert paths == sorted(expected, key=order_key)
    for entry in entries:
        node = expected[entry.path]
        assert (entry.kind, entry.size, entry.target) == (node.kind, len(node.content), node.target)
        assert entry.mtime == node.mtime
        assert entry.kind != "f" or entry.mode == (0o755 if node.executable else 0o644)
    assert scanned.entries_count == len(entries)
    size = sum(len(header(entry)) + padded(entry.size) for entry in entries)
    # Some names of exactly the longest length are taken for those of directories.
    assert size <= scanned.tar_size <= size + 1024 * len(entries)
    files = [entry for entry in entries if entry.kind == "f"]
    assert (scanned.total.files, scanned.total.bytes) == (
        len(files), sum(entry.size for entry in files)
    )  # fmt: skip
    inside = sum(totals.files for totals in scanned.partitions.values())
    assert inside == sum(entry.path.startswith("data/") for entry in files)


def test_parents_come_first(tmp_path: Path) -> None:
    """Directories come before what they hold, ``data`` last."""
    paths = [entry.path for entry in scan(base(tmp_path)).entries()]
    assert paths[:2] == ["meta.json", "README.md"]
    assert paths[-1].startswith("data/")
    for path in paths:
        parent = path.rpartition("/")[0]
        assert not parent or paths.index(parent) < paths.index(path)


def add_socket(place: Path) -> None:
    """A socket, bound by a short name."""
    before = Path.cwd()
    os.chdir(place.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(place.name)
    finally:
        os.chdir(before)


def linking(target: str) -> Callable[[Path], None]:
    """A link."""
    return lambda place: place.symlink_to(target)


REFUSED: dict[str, Callable[[Path], None]] = {
    "PK-06-fifo": os.mkfifo,
    "PK-06-socket": add_socket,
    "PK-09-absolute": linking("/etc/passwd"),
    "PK-09-up": linking("../../../etc"),
    "PK-09-up-and-back": linking("../../../set/README.md"),
    "PK-09-name-then-up": linking("deep/../../../.."),
    "PK-09-drive": linking("C:x"),
}
if os.geteuid() == 0:
    REFUSED["PK-06-device"] = lambda place: os.mknod(place, 0o020644, os.makedev(1, 3))


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    """PK-06, PK-09: what cannot be packed is named, before anything is."""
    root = base(tmp_path)
    REFUSED[case](root / "data/train/odd one")
    with pytest.raises(InvalidDataset, match="data/train/odd one"):
        scan(root)


@pytest.mark.parametrize(
    "name",
    [b"back\\slash", b"latin-1-\xe9", b"surrogate-\xed\xa0\x80"],
)
def test_names_that_cannot_be_restored(name: bytes, tmp_path: Path) -> None:
    """PK-14: the rule for names is the one for unpacking."""
    root = base(tmp_path)
    os.close(os.open(os.fsencode(root / "data/train") + b"/" + name, os.O_CREAT))
    with pytest.raises(InvalidDataset, match="data/train"):
        scan(root)
    (root / "data").rename(root / "other")
    with pytest.raises(InvalidDataset, match="other/train"):
        scan(root)


def test_drive_at_the_top(tmp_path: Path) -> None:
    """PL-03: a name that is a drive elsewhere is refused at the top."""
    root = base(tmp_path)
    (root / "C:notes").touch()
    with pytest.raises(InvalidDataset, match="drive"):
        scan(root)


def test_many_problems(tmp_path: Path) -> None:
    """The first few problems are listed, the others counted."""
    root = base(tmp_path)
    for number in range(8):
        (root / f"bad-{number}").symlink_to("/")
    with pytest.raises(InvalidDataset, match="and 3 more") as caught:
        scan(root)
    assert str(caught.value).count("bad-") == 5


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    """PK-13: a registered dataset is what its link leads to."""
    root = base(tmp_path)
    (tmp_path / "registered").symlink_to(root)
    direct, through = scan(root), scan(tmp_path / "registered")
    assert list(direct.entries()) == list(through.entries())


def test_index_is_left_out(tmp_path: Path) -> None:
    """An index that another tool unpacked is not packed; such a name below the top is a file."""
    root = base(tmp_path)
    before = list(scan(root).entries())
    (root / ".etcetera-index.jsonl").touch()
    os.utime(root / "data/train", (5, 5))
    assert [entry.path for entry in scan(root).entries()] == [entry.path for entry in before]
    (root / "data/train/.etcetera-index.jsonl").touch()
    assert len(list(scan(root).entries())) == len(before) + 1


@pytest.mark.parametrize(
    ("time", "kept"),
    [(-5, 0), (0, 0), (1_000_000_000, 1_000_000_000), (8**11 - 1, 8**11 - 1), (8**11, 8**11 - 1)],
)
def test_times(time: int, kept: int, tmp_path: Path) -> None:
    """PL-26: times outside what a header holds are brought inside."""
    root = base(tmp_path)
    os.utime(root / "README.md", (time, time))
    if int((root / "README.md").stat().st_mtime) != time:
        kept = int((root / "README.md").stat().st_mtime)  # the file system knows no such time
    (entry,) = [entry for entry in scan(root).entries() if entry.path == "README.md"]
    assert entry.mtime == kept


UNREADABLE = """
import os, sys
from pathlib import Path
root = Path(sys.argv[1])
from etcetera.errors import InvalidDataset, NotAllowed
from etcetera.transfer.scan import scan
os.setgid(65534), os.setuid(65534)
try:
    scan(root)
except (InvalidDataset, NotAllowed) as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("path", "mode", "error"),
    [
        ("data/train/a", 0o000, "InvalidDataset"),
        ("data/train/deep", 0o000, "NotAllowed"),
        ("data/train/deep", 0o400, "NotAllowed"),
    ],
)
def test_unreadable(path: str, mode: int, error: str, tmp_path: Path) -> None:
    """PK-07: what a user cannot read is told before anything is sent."""
    with TemporaryDirectory() as directory:  # that a user other than root can enter
        Path(directory).chmod(0o755)
        root = trees.write(Path(directory) / "set", trees.SMALL)
        (root / path).chmod(mode)
        if os.geteuid() != 0:
            with pytest.raises((InvalidDataset, PermissionError), match=path):
                scan(root)
            (root / path).chmod(0o755)
            return
        done = subprocess.run(
            [sys.executable, "-c", UNREADABLE, root], capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        assert done.stdout.startswith(error)
        assert path in done.stdout


def test_fingerprint(tmp_path: Path) -> None:
    """A fingerprint changes with a size, a time or a name; not with directories' times."""
    root = base(tmp_path)
    first = scan(root).fingerprint
    os.utime(root / "data", (9, 9))
    assert scan(root).fingerprint == first
    seen = {first}
    os.utime(root / "README.md", (9, 9))
    seen.add(scan(root).fingerprint)
    (root / "README.md").rename(root / "readme")
    seen.add(scan(root).fingerprint)
    with (root / "readme").open("ab") as file:
        file.write(b"x")
    os.utime(root / "readme", (9, 9))
    seen.add(scan(root).fingerprint)
    assert len(seen) == 4


def test_newest(tmp_path: Path) -> None:
    """Whatever changes, even with the times put back or by names alone, is newer than before."""
    root = base(tmp_path)
    before = scan(root).newest
    file = root / "README.md"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert scan(root).newest > before


def test_swapped_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PK-09: a directory that becomes a link while it is looked at is not followed."""
    root = base(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    inside = root / "data" / "train"
    real = os.scandir

    def swap(descriptor: int) -> object:
        if inside.is_dir() and not inside.is_symlink():
            inside.rename(tmp_path / "moved")
            inside.symlink_to(outside)
        return real(descriptor)

    monkeypatch.setattr(os, "scandir", swap)
    with pytest.raises((SourceChanged, InvalidDataset)):
        scan(root)


def test_find(tmp_path: Path) -> None:
    """Every entry is found by its path, under the number it has; nothing else is."""
    tree = trees.SMALL | {"data/train/é☃": trees.file(b"x"), "data.txt": trees.file(b"y")}
    scanned = scan(trees.write(tmp_path / "source", tree))
    numbered = list(scanned.numbered())
    assert sorted(number for number, _ in numbered) == list(range(scanned.entries_count))
    assert [entry for _, entry in numbered] == list(scanned.entries())
    for number, entry in numbered:
        assert scanned.find(entry.path) == (number, entry)
    for path in ("", "x", "data/", "data/train/a/b", "data/train/aa", "/data", "zzz"):
        assert scanned.find(path) is None
