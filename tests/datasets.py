"""Small datasets to transfer, and what a tree holds."""

import hashlib
import os
import random
from pathlib import Path


def make_dataset(root: Path) -> Path:
    """A small dataset with every kind of entry."""
    random.seed(7)
    for directory in ("data/train/deep/er", "data/test", "data/train/empty", "assets"):
        (root / directory).mkdir(parents=True)
    (root / "meta.json").write_text('{"colour": "red"}')
    (root / "README.md").write_text("# Flower\n")
    (root / "assets" / "run.sh").write_text("#!/bin/sh\n")
    (root / "assets" / "run.sh").chmod(0o755)
    (root / "data" / "train" / "rose.txt").write_text("rose\n" * 1000)
    (root / "data" / "train" / "naïve ☃.txt").write_text("snow")
    (root / "data" / "train" / "deep" / "er" / "x.bin").write_bytes(random.randbytes(3000))
    (root / "data" / "test" / "nothing").touch()
    (root / "data" / "test" / "link").symlink_to("../train/rose.txt")
    settle(root)
    return root


def make_large_dataset(root: Path, size: int, files: int = 4) -> Path:
    """A dataset of *files* files, *size* bytes together, that do not compress."""
    (root / "data" / "train").mkdir(parents=True)
    source = random.Random(size)
    for number in range(files):
        (root / "data" / "train" / f"{number:06}.bin").write_bytes(source.randbytes(size // files))
    settle(root)
    return root


def settle(root: Path) -> None:
    """Give everything a time in whole seconds, as archives keep it."""
    for path in sorted(root.rglob("*"), reverse=True):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """What every path below *root* is: kind, executable bit, time, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()))
        elif path.is_dir():
            found[name] = ("directory", int(status.st_mtime))
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[name] = ("file", bool(status.st_mode & 0o100), int(status.st_mtime), digest)
    return found
