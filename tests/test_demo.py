"""The demo, and the pictures it shares."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from importlib import util
from pathlib import Path

import pytest

import etcetera
from etcetera.cli import demo, main
from etcetera.cli.pictures import bmp, make_dataset, png
from etcetera.dataset import Dataset
from tests.signals import inherited

ROWS = [bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]), bytes(range(9))]


def _start(temporary: Path) -> "subprocess.Popen[str]":
    temporary.mkdir()
    checkout = str(Path(etcetera.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-m", "etcetera", "demo"],
        env=os.environ | {"PYTHONPATH": checkout, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def test_demo(tmp_path: Path) -> None:
    """The whole round works, says so, and leaves nothing behind."""
    temporary = tmp_path / "temporary"
    with _start(temporary) as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    commands = re.findall(r"^\$ (\w+ .*)$", output, re.MULTILINE)
    assert commands == [
        "etc --home alice register ./flowers",
        "etc --home alice ls --long",
        "etc --home alice push flowers",
        "etc ls -r",
        "etc info flowers -r",
        "etc --home bob pull flowers",
        "etc --home bob info flowers",
        "tar tzf flowers.tgz",
        "etc --home bob purge flowers",
    ]
    assert "flowers and bob/flowers are identical: 310 files, byte for byte" in output
    assert ">>> import etcetera as etc\n" in output
    assert "40 lilies in train" in output
    assert "\n.etcetera-index.jsonl\n" in output
    # A summary tells its own pace as well, if that took more than a second.
    assert len(re.findall(r"^  \(.* MiB/s\)$", output, re.MULTILINE)) == 2
    assert '    url = "s3://your-bucket/datasets"\n' in output
    assert list(temporary.iterdir()) == []
    # Nothing of the user's was touched.
    assert list(Path(os.environ["HOME"]).iterdir()) == []


def test_demo_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C ends its commands and its server, and removes its files."""
    temporary = tmp_path / "temporary"
    with inherited({signal.SIGINT: signal.SIG_DFL}):
        process = _start(temporary)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ etc --home alice push"):
                break
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert list(temporary.iterdir()) == []


def test_demo_needs_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is said with the way to get it."""

    def find_spec(name: str) -> object:
        return None if name == "moto" else util.find_spec(name)

    monkeypatch.setattr(demo, "find_spec", find_spec)
    assert main(["demo"]) == 2
    assert "pip install 'etcetera[demo]'" in capsys.readouterr().err


def test_demo_fails_as_its_commands_do(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A command that fails ends it, with its status."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(
        demo, "make_dataset", lambda directory: (directory / "data").mkdir(parents=True)
    )
    assert main(["demo"]) == 7
    assert "at least one partition" in capfd.readouterr().err


def test_demo_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A story is told in words."""
    assert main(["demo", "--json"]) == 2
    assert capsys.readouterr().out == ""


def test_png_can_be_read() -> None:
    """Signature, checksums and pixels are as the format wants them."""
    data = png(ROWS)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks = {}
    position = 8
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        chunks[kind] = content
        position += 12 + length
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[b"IHDR"] == struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    assert zlib.decompress(chunks[b"IDAT"]) == b"\0" + ROWS[0] + b"\0" + ROWS[1]


def test_bmp_can_be_read() -> None:
    """Sizes are right, rows come from below, blue first, padded to four bytes."""
    data = bmp(ROWS)
    assert data[:2] == b"BM"
    assert struct.unpack_from("<I", data, 2) == (len(data),)
    (start,) = struct.unpack_from("<I", data, 10)
    assert struct.unpack_from("<ii", data, 18) == (3, 2)
    assert data[start:] == bytes([2, 1, 0, 5, 4, 3, 8, 7, 6, 0, 0, 0]) + bytes(
        [0, 0, 255, 0, 255, 0, 255, 0, 0, 0, 0, 0]
    )


def test_the_dataset_is_one(tmp_path: Path) -> None:
    """The generated directory is a dataset, the same every time."""
    for name in ("one", "two"):
        make_dataset(tmp_path / name)
    dataset = Dataset(tmp_path / "one")
    assert dataset.partitions() == ["test", "train"]
    assert dataset.meta["title"] == "Generated flowers"
    files = [path for path in dataset.root.rglob("*") if path.is_file()]
    for path in files:
        other = tmp_path / "two" / path.relative_to(dataset.root)
        assert path.read_bytes() == other.read_bytes()
