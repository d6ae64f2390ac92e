"""etcetera.receipts: what vouches for which directory."""

import dataclasses
import errno
import json
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest

from etcetera import atomic
from etcetera.receipts import Receipt, Receipts

RECEIPT = Receipt(
    operation="push",
    name="MNIST",
    repository="s3://bucket/prefix",
    etag='"abc"',
    digest="sha256:00",
    files=3,
    bytes=1 << 40,
    fingerprint="00ff",
    newest=7,
    inode=42,
)


@pytest.fixture
def receipts(tmp_path: Path) -> Receipts:
    """No receipts yet."""
    return Receipts(tmp_path / "receipts")


def test_round_trip(receipts: Receipts) -> None:
    """What is written is read again, for the same name and directory only."""
    receipts.write(RECEIPT)
    assert receipts.read("MNIST", 42) == RECEIPT
    assert receipts.read("MNIST", 43) is None
    assert receipts.read("other", 42) is None
    newer = dataclasses.replace(RECEIPT, operation="pull")
    receipts.write(newer)
    assert receipts.read("MNIST", 42) == newer


@pytest.mark.parametrize("what", ["fifo", "link", "large", "directory"])
def test_what_lies_in_the_place_of_a_receipt(what: str, receipts: Receipts, tmp_path: Path) -> None:
    """What is no file of ours is not waited for, not followed and not read whole."""
    receipts.write(RECEIPT)
    path = receipts._path("MNIST", 42)
    content = path.read_text()
    path.unlink()
    if what == "fifo":
        os.mkfifo(path)
    elif what == "link":
        (tmp_path / "other").write_text(content)
        path.symlink_to(tmp_path / "other")
    elif what == "large":
        path.write_text(content + " " * (4 << 20))
    else:
        path.mkdir()
    assert receipts.read("MNIST", 42) is None


def test_pulled_stays(receipts: Receipts) -> None:
    """A directory that came by a pull is still one that did when it is pushed."""
    receipts.write(RECEIPT)
    assert receipts.read("MNIST", 42) == RECEIPT
    assert not RECEIPT.pulled
    receipts.write(dataclasses.replace(RECEIPT, operation="pull"))
    receipts.write(RECEIPT)
    assert receipts.read("MNIST", 42) == dataclasses.replace(RECEIPT, pulled=True)


@pytest.mark.parametrize("operation", ["push", "pull"])
def test_older_receipt(operation: Literal["push", "pull"], receipts: Receipts) -> None:
    """What an older version wrote still vouches."""
    receipts.write(dataclasses.replace(RECEIPT, operation=operation))
    path = receipts.directory / "MNIST" / "42.json"
    fields = json.loads(path.read_text())
    del fields["pulled"]
    path.write_text(json.dumps(fields))
    read = receipts.read("MNIST", 42)
    assert read is not None
    assert read.pulled == (operation == "pull")


def test_time() -> None:
    """A receipt is dated, in UTC."""
    assert datetime.fromisoformat(RECEIPT.time).tzinfo == UTC


def test_private(receipts: Receipts) -> None:
    """SE-08: nobody else reads receipts, whatever the umask, and no temporary file remains."""
    old = os.umask(0)
    try:
        receipts.write(RECEIPT)
    finally:
        os.umask(old)
    (path,) = (receipts.directory / "MNIST").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_no_secrets(receipts: Receipts) -> None:
    """SE-02: credentials and signatures in a URL are not kept."""
    url = "https://user:password@host/bucket?X-Amz-Signature=secret"
    receipts.write(dataclasses.replace(RECEIPT, repository=url))
    text = next((receipts.directory / "MNIST").iterdir()).read_text()
    assert "password" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"inode": 43},
        {"name": "other"},
        {"files": "3"},
        {"operation": "steal"},
        {"extra": 1},
        {"etag": None},
        {"pulled": 1},
    ],
)
def test_garbage_fields(receipts: Receipts, change: dict[str, object]) -> None:
    """A receipt that does not say what it should vouches for nothing."""
    receipts.write(RECEIPT)
    path = receipts.directory / "MNIST" / "42.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert receipts.read("MNIST", 42) is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_garbage(receipts: Receipts, text: bytes) -> None:
    """A file that was cut off or overwritten vouches for nothing."""
    receipts.write(RECEIPT)
    (receipts.directory / "MNIST" / "42.json").write_bytes(text)
    assert receipts.read("MNIST", 42) is None


def test_failed_write(receipts: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt that cannot be written leaves the older one."""
    receipts.write(RECEIPT)

    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(atomic, "sync", fail)
    with pytest.raises(OSError, match="space"):
        receipts.write(dataclasses.replace(RECEIPT, operation="pull"))
    assert receipts.read("MNIST", 42) == RECEIPT
    assert len(list((receipts.directory / "MNIST").iterdir())) == 1


def test_forget(receipts: Receipts) -> None:
    """All go, or all but one, and forgetting what is not there is fine."""
    other = dataclasses.replace(RECEIPT, inode=43)
    receipts.write(RECEIPT)
    receipts.write(other)
    receipts.forget("MNIST", keep=43)
    assert receipts.read("MNIST", 42) is None
    assert receipts.read("MNIST", 43) == other
    receipts.forget_one("MNIST", 43)
    receipts.forget_one("MNIST", 43)
    assert receipts.read("MNIST", 43) is None
    receipts.forget("MNIST")
    receipts.forget("MNIST")
    assert list(receipts.directory.iterdir()) == []


def test_swept_away(receipts: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    """CR-26: a receipt whose directory is deleted while it is written is written again."""
    sync, calls = atomic.sync, []

    def sweep(path: Path) -> None:
        calls.append(path)
        if len(calls) == 1:
            shutil.rmtree(path.parent)
        sync(path)

    monkeypatch.setattr(atomic, "sync", sweep)
    receipts.write(RECEIPT)
    assert receipts.read("MNIST", 42) == RECEIPT
    assert len(calls) == 2


def test_forget_what_is_being_written(receipts: Receipts) -> None:
    """CR-26: who forgets leaves alone what somebody is writing, but not what a dead one left."""
    receipts.write(RECEIPT)
    young, old = (receipts.directory / "MNIST" / name for name in (".young", ".old"))
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    receipts.forget("MNIST")
    assert list(young.parent.iterdir()) == [young]
