"""Real tools unpack what we push, and we pull what they pack."""

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest

from tests import trees
from tests.archives import packed, pull_from, run, small

PLAIN: trees.Tree = {
    path: trees.Node(node.kind, node.content, node.target, node.executable, max(1, node.mtime))
    for path, node in trees.SMALL.items()
} | {
    "data/train/" + "d" * 90 + "/" + "n" * 90: trees.file(b"a prefix is needed"),
    "data/train/text": trees.file(b"some words " * 300_000),
}
"""What even the simplest tool restores."""
FULL: trees.Tree = PLAIN | {
    "data/train/naïve ☃.txt": trees.file(b"snow"),
    "data/train/new\nline": trees.file(b"odd"),
    "data/train/" + "n" * 200: trees.file(b"too long for ustar"),
    "data/test/long": trees.link("../train/" + "n" * 200),
    "été/" + "é" * 100: trees.file(b"bytes, not characters"),
}
"""What needs pax headers."""
INDEX = ".etcetera-index.jsonl"

Mode = Literal["r:gz", "r|gz", "r|*"]


def same(target: Path, tree: trees.Tree, *, times: bool = True) -> None:
    """What a tool unpacked is the tree, and the index, which tools see as a file."""
    (target / INDEX).unlink()
    seen = trees.read(target)
    assert trees.contents(seen) == trees.contents(trees.complete(tree))
    for path, node in tree.items():
        assert seen[path].executable == node.executable or node.kind == "l"
        if times and node.kind == "f":
            assert seen[path].mtime == node.mtime


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory."""
    place = tmp_path / "target"
    place.mkdir()
    return place


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
async def test_tar_unpacks(tool: str, level: int, tmp_path: Path, target: Path) -> None:
    """TF-33: GNU tar and bsdtar list and unpack ours without a word."""
    archive = tmp_path / "a.tgz"
    archive.write_bytes(await packed(trees.write(tmp_path / "source", FULL), small(level=level)))
    listed = run(tool, "-tzf", archive).splitlines()
    assert len(listed) == len(trees.complete(FULL)) + 1
    assert listed[0] == b"README.md" or listed[0] == b"meta.json"
    assert listed[-1] == INDEX.encode()
    run(tool, "-xpzf", archive, "-C", target)
    same(target, FULL)


async def test_busybox_unpacks(tmp_path: Path, target: Path) -> None:
    """TF-33: busybox, which knows no pax header, unpacks what needs none."""
    archive = tmp_path / "a.tgz"
    archive.write_bytes(await packed(trees.write(tmp_path / "source", PLAIN)))
    assert len(run("busybox", "tar", "-tzf", archive).splitlines()) > len(PLAIN)
    run("busybox", "tar", "-xpzf", archive, "-C", target)
    same(target, PLAIN)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("mode", ["r:gz", "r|gz", "r|*"])
async def test_python_unpacks(mode: Mode, level: int, tmp_path: Path, target: Path) -> None:
    """TF-33: ``tarfile`` unpacks ours, also from a stream."""
    data = await packed(trees.write(tmp_path / "source", FULL), small(level=level))
    with tarfile.open(fileobj=io.BytesIO(data), mode=mode) as tar:
        tar.extractall(target, filter="tar")
    same(target, FULL)


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize(
    "command", ["gzip -t", "pigz -t", "busybox gunzip -t", "7z t -tgzip -si -bso0 -bsp0"]
)
async def test_gzip_is_whole(command: str, level: int, tmp_path: Path) -> None:
    """GZ-10: one gzip member, whole, without a word of warning."""
    data = await packed(trees.write(tmp_path / "source", FULL), small(level=level))
    run(*command.split(), data=data)


def _rapidgzip(data: bytes) -> bytes:
    with import_module("rapidgzip").open(io.BytesIO(data), parallelization=2) as file:
        return bytes(file.read())


UNZIP: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: run("gzip", "-dc", data=data),
    "pigz": lambda data: run("pigz", "-dc", data=data),
    "busybox": lambda data: run("busybox", "gunzip", "-c", data=data),
    "7z": lambda data: run("7z", "x", "-tgzip", "-si", "-so", "-bsp0", data=data),
    "python": gzip.decompress,
}
if find_spec("rapidgzip"):
    UNZIP["rapidgzip"] = _rapidgzip


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("tool", UNZIP)
async def test_same_tar(tool: str, level: int, tmp_path: Path) -> None:
    """GZ-10: every decompressor gives the same tar stream, which is whole."""
    data = await packed(trees.write(tmp_path / "source", FULL), small(level=level))
    tar = UNZIP[tool](data)
    assert tar == UNZIP["python"](data)
    assert tar.endswith(bytes(1024))
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as opened:
        assert opened.getnames()[-1] == INDEX


async def test_7z_lists(tmp_path: Path) -> None:
    """7z finds the tar inside sound."""
    data = await packed(trees.write(tmp_path / "source", PLAIN))
    (tmp_path / "a.tar").write_bytes(gzip.decompress(data))
    assert b"Everything is Ok" in run("7z", "t", tmp_path / "a.tar", "-bsp0")


# --- Archives from elsewhere


def _linked(root: Path) -> None:
    """Give one file a second name; archives may keep that as a hard link."""
    (root / "data/train/twin").hardlink_to(root / "data/train/a")


FULL_AND_TWIN = FULL | {"data/train/twin": FULL["data/train/a"]}
NO_LONG_NAMES = {path: node for path, node in FULL.items() if "n" * 200 not in path + node.target}
NO_LONG_NAMES |= {"data/train/twin": FULL["data/train/a"]}
NO_LONG_NAMES.pop("été/" + "é" * 100)

GNU_TAR = "tar --numeric-owner -C {root}"
PACKERS: dict[str, str] = {
    **{
        f"tar-{form}-{name}": f"{GNU_TAR} --format={form} -cf - {members}"
        for form in ("gnu", "posix", "oldgnu")
        for name, members in (("dot", "."), ("names", "README.md assets data meta.json été"))
    },
    "tar-posix-xattrs": f"{GNU_TAR} --format=posix --xattrs --acls -cf - .",
    "tar-gnu-blocking": f"{GNU_TAR} --format=gnu -b 1 -cf - .",
    "tar-gnu-incremental": f"{GNU_TAR} --format=gnu --hard-dereference -cf - .",
    "bsdtar-pax-dot": "bsdtar -C {root} --format=pax -cf - .",
    "bsdtar-gnutar": "bsdtar -C {root} --format=gnutar -cf - .",
    "bsdtar-names": "bsdtar -C {root} -cf - README.md assets data meta.json été",
    "busybox": "busybox tar -C {root} -cf - .",
}
USTAR: dict[str, str] = {
    "tar-ustar": f"{GNU_TAR} --format=ustar -cf - .",
    "bsdtar-ustar": "bsdtar -C {root} --format=ustar -cf - README.md assets data meta.json",
}
COMPRESSORS = {
    "gzip": "gzip -c", "pigz": "pigz -c -b 128 -p 3", "pigz-independent": "pigz -c -i -b 128",
    "gzip-named": "gzip -9 -N -c",
}  # fmt: skip


def pack(command: str, root: Path, compressor: str = "gzip -c") -> bytes:
    """Pack with a tool, which may warn."""
    tar = subprocess.run(command.format(root=root).split(), capture_output=True, check=True).stdout
    return run(*compressor.split(), data=tar)


@pytest.mark.parametrize("packer", PACKERS)
async def test_pull_what_tools_pack(packer: str, tmp_path: Path) -> None:
    """TF-05, TF-06, PL-10: archives of the usual tools are pulled, hard links and all."""
    root = trees.write(tmp_path / "source", FULL)
    _linked(root)
    await pull_from(pack(PACKERS[packer], root), tmp_path / "target", small(part_size=50_000))
    seen, expected = trees.read(tmp_path / "target"), trees.read(root)
    assert trees.contents(seen) == trees.contents(expected)
    if packer != "bsdtar-gnutar":
        assert {path: node.executable for path, node in seen.items() if node.kind == "f"} == {
            path: node.executable for path, node in expected.items() if node.kind == "f"
        }
    assert {path: node.mtime for path, node in seen.items() if node.kind == "f"} == {
        path: node.mtime for path, node in expected.items() if node.kind == "f"
    }


@pytest.mark.parametrize("packer", USTAR)
async def test_pull_ustar(packer: str, tmp_path: Path) -> None:
    """TF-06: so is plain ustar, which cannot hold every name."""
    root = trees.write(tmp_path / "source", PLAIN)
    await pull_from(pack(USTAR[packer], root), tmp_path / "target")
    assert trees.contents(trees.read(tmp_path / "target")) == trees.contents(trees.read(root))


@pytest.mark.parametrize("compressor", COMPRESSORS)
async def test_pull_what_compressors_make(compressor: str, tmp_path: Path) -> None:
    """GZ-04: whatever made the gzip stream, it is read."""
    root = trees.write(tmp_path / "source", PLAIN)
    data = pack(PACKERS["tar-gnu-dot"], root, COMPRESSORS[compressor])
    await pull_from(data, tmp_path / "target", small(part_size=50_000))
    assert trees.contents(trees.read(tmp_path / "target")) == trees.contents(trees.read(root))


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", [".", ""])
async def test_pull_what_python_packs(form: int, name: str, tmp_path: Path) -> None:
    """TF-05, TF-06: ``tarfile``, which etcetera 0.0.12 used, in the formats it has had."""
    root = trees.write(tmp_path / "source", FULL)
    _linked(root)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=form) as tar:
        if name:
            tar.add(root, name)
        else:
            for child in sorted(root.iterdir()):
                tar.add(child, child.name)
    await pull_from(buffer.getvalue(), tmp_path / "target", small(part_size=50_000))
    assert trees.contents(trees.read(tmp_path / "target")) == trees.contents(trees.read(root))


async def test_repacked(tmp_path: Path, target: Path) -> None:
    """What another tool unpacked and packed again comes without the stale index."""
    archive = tmp_path / "a.tgz"
    archive.write_bytes(await packed(trees.write(tmp_path / "source", FULL)))
    run("tar", "-xzf", archive, "-C", target)
    assert (target / INDEX).exists()
    await pull_from(pack(PACKERS["tar-gnu-dot"], target), tmp_path / "again")
    assert trees.contents(trees.read(tmp_path / "again")) == trees.contents(trees.complete(FULL))
    await pull_from(await packed(target), tmp_path / "more", indexed=True)
    assert trees.contents(trees.read(tmp_path / "more")) == trees.contents(trees.complete(FULL))
