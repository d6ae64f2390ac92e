"""SY-09: each guard of the reader is taken out, and a test must notice.

A guard is a piece of source text and what stands in its place without it; the tests named with it
are run with a copy of the package that has been changed so.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import etcetera

PACKAGE = Path(etcetera.__file__).parent
TESTS = Path(__file__).parents[1]
READERS = ("transfer/test_hostile.py", "transfer/test_tar.py", "transfer/test_gunzip.py")
INDEXED = ("transfer/test_hostile_indexed.py",)


class Guard(NamedTuple):
    """One guard."""

    file: str
    guard: str
    """Its text; taken out wherever it stands."""
    without: str
    tests: tuple[str, ...] = READERS
    chosen: str = ""
    """Which tests of these, as for ``pytest -k``."""


def _condition(file: str, text: str, tests: tuple[str, ...] = READERS, chosen: str = "") -> Guard:
    """A condition that no longer holds."""
    start = "elif " if text.startswith("elif ") else "if "
    assert text.startswith(start)
    return Guard(file, f"{text}:", f"{start}False and ({text.removeprefix(start)}):", tests, chosen)


TAR, PATHS, GUNZIP = "transfer/tar.py", "transfer/paths.py", "transfer/gunzip.py"
EXTRACT, UNPACK, STREAMED = "transfer/extract.py", "transfer/unpack.py", "transfer/streamed.py"
DESCEND, INDICES, ARCHIVE = "transfer/descend.py", "transfer/index.py", "transfer/archive.py"
STORED = ("transfer/test_forged_index.py",)

GUARDS = (
    # --- Tar framing
    _condition(TAR, "if piece.count(0) != len(piece)", chosen="TF-11"),
    Guard(TAR, "            if extended or longs:\n                raise _corrupt(offset, \"an ext",
          "            if False:\n                raise _corrupt(offset, \"an ext", chosen="TF-22"),
    Guard(TAR, 'if extended or longs:\n                raise _corrupt(offset, "several',
          'if False:\n                raise _corrupt(offset, "several',
          chosen="TF-22 or TF-04"),
    Guard(TAR, "if stream.read(BLOCK).count(0) != BLOCK:", 'if stream.read(BLOCK) == b"":',
          chosen="TF-12"),
    _condition(TAR, "if raw.typeflag in longs or extended", chosen="TF-22 or TF-04"),
    _condition(TAR, "if not longs[raw.typeflag]", chosen="TF-13"),
    _condition(TAR, "if len(dialects) > 1", chosen="TF-04"),
    _condition(TAR, "if raw.size > MAX_EXTENSION", chosen="RX-04"),
    _condition(TAR, "if magic not in (_POSIX, _GNU)", chosen="TF-30"),
    Guard(TAR, 'offset, "checksum") != expected', 'offset, "checksum") < 0', chosen="TF-07"),
    _condition(TAR, "elif padding != _PADDING", chosen="TF-30"),
    _condition(TAR, "if not _OWNERS.match(owners)", chosen="TF-16"),
    _condition(TAR, "elif devices not in _NO_DEVICES", chosen="TF-16"),
    _condition(TAR, 'elif magic == _GNU and prefix.strip(b"\\0")', chosen="TF-25"),
    Guard(TAR, "elif field[0] != 0x80:", "elif False:", chosen="TF-14"),
    _condition(TAR, "if not (-(1 << 63) if signed else 0) <= value < 1 << 63", chosen="TF-14"),
    _condition(TAR, "if match is None or (match[1] is None and not blank)", chosen="TF-16"),
    Guard(TAR, "(match[1] is None and not blank)", "False", chosen="TF-16"),
    Guard(TAR, ' or digits.startswith(b"0"):', ":", chosen="TF-17"),
    Guard(TAR, "if end > len(data) or not", "if not", chosen="TF-17"),
    Guard(TAR, 'or not body.endswith(b"\\n") or', "or", chosen="TF-17"),
    Guard(TAR, 'if not name or "\\0" in name or', 'if "\\0" in name or', chosen="TF-17"),
    Guard(TAR, 'if not name or "\\0" in name or', "if not name or", chosen="TF-17"),
    Guard(TAR, " or name != name.strip():", ":", chosen="TF-17"),
    _condition(TAR, "if name in records", chosen="TF-20"),
    _condition(TAR, "if name in _PAX_USED and not value", chosen="TF-21"),
    _condition(TAR, 'if name.startswith("GNU.")', chosen="TF-25"),
    _condition(TAR, "if any(name.startswith(_SIZE_RECORDS) for name in records)",
               chosen="other_sizes"),
    Guard(TAR, "for name in _PAX_NUMBERS:", "for name in ():", chosen="TF-17"),
    Guard(TAR, "for name in _PAX_TIMES:", "for name in ():", chosen="TF-17"),
    _condition(TAR, 'if records.get("hdrcharset", _UTF8) != _UTF8', chosen="TF-27"),
    Guard(TAR, "if used := _PAX_USED.intersection(records):", "if used := set():",
          chosen="TF-23"),
    Guard(TAR, 'if link and typeflag in b"0\\0005":', "if False:", chosen="TF-28"),
    _condition(TAR, 'if not path or name.endswith(("/", "/."))', chosen="TF-13 or PL-18 or PL-12"),
    _condition(TAR, 'if typeflag not in b"125"', chosen="TF-29"),
    Guard(TAR, "    if size:\n        raise", "    if False:\n        raise", chosen="TF-28"),
    _condition(TAR, "if not target or target == path", chosen="PL-09"),
    Guard(TAR, "    check_link(path, link, offset)\n", "", chosen="PL-04"),
    Guard(TAR, "or int(value) >= 1 << 63:", "or False:", chosen="TF-14"),
    Guard(TAR, "if match is None:\n        raise _corrupt(offset, f\"{what} is not",
          "if match is None:\n        return 0\n    if False:\n        raise _corrupt(offset, "
          "f\"{what} is not", chosen="PL-26"),
    # --- Paths
    _condition(PATHS, "if len(encoded) > MAX_PATH", chosen="PL-30"),
    _condition(PATHS, "if any(len(component) > MAX_COMPONENT for component in "
               'encoded.split(b"/"))', chosen="PL-30"),
    _condition(PATHS, 'if "\\\\" in path or "\\0" in path', chosen="PL-03 or PL-31"),
    _condition(PATHS, "if _DRIVE.match(path)", chosen="PL-03"),
    Guard(PATHS, "if problem := path_problem(target):", "if problem := None:", chosen="PL-0"),
    _condition(PATHS, "if not target", chosen="PL-04"),
    _condition(PATHS, 'if target.startswith("/")', chosen="PL-04"),
    Guard(PATHS, "            if named:\n", "            if False:\n", chosen="PL-05"),
    _condition(PATHS, "if depth < 0", chosen="PL-04"),
    _condition(PATHS, 'if name.startswith("/") or not name', chosen="PL-02 or PL-12"),
    _condition(PATHS, 'elif ".." in path and ".." in path.split("/")', chosen="PL-01"),
    # --- Gzip
    Guard(GUNZIP, "_OUTPUT = MiB", "_OUTPUT = 1 << 40", chosen="pieces_are_bounded"),
    Guard(GUNZIP, "    if first:\n        raise NotAnArchive(\"the", "    if False:\n        raise "
          "NotAnArchive(\"the", chosen="GZ-07"),
    _condition(GUNZIP, "if source.buffer.count(0) != len(source.buffer)", chosen="GZ-03"),
    _condition(GUNZIP, "if len(text) > _MAX_FIELD", chosen="endless_field"),
    _condition(GUNZIP, 'if start != b"\\x1f\\x8b"', chosen="GZ-03 or GZ-06"),
    Guard(GUNZIP, "if method != 8 or", "if", chosen="GZ-05"),
    Guard(GUNZIP, " or flags & _FLAGS_RESERVED:", ":", chosen="GZ-05"),
    _condition(GUNZIP, "if check != codec.crc32(head) & 0xFFFF", chosen="GZ-05"),
    Guard(GUNZIP, "codec.TRAILER.size) != expected:", 'codec.TRAILER.size) == b"":',
          chosen="flipped_bits"),
    # --- Files
    Guard(EXTRACT, " | os.O_EXCL", " | os.O_TRUNC", chosen="PL-15"),
    Guard(EXTRACT, "        if problem := link_problem(entry.path, entry.target):", "        if "
          "problem := None:", ("test_hostile_pull.py",), "second_line"),
    _condition(EXTRACT, "if not stat.S_ISREG(status.st_mode)", chosen="PL-09"),
    Guard(DESCEND, "os.O_DIRECTORY | os.O_NOFOLLOW", "os.O_DIRECTORY",
          ("transfer/test_extract.py",)),
    Guard(STREAMED, "if len(self._directories) > MAX_IMPLIED + 16 * self._named:", "if False:",
          chosen="implied"),
    Guard(STREAMED, "if entry.path != INDEX_NAME or entry.kind", "if entry.kind",
          chosen="index-below"),
    # --- Frames and index
    _condition(INDICES, "if tail[0] != footer[0]", INDEXED, "first_byte"),
    _condition(INDICES, 'if not _are_sha256(columns["sha256"])', INDEXED, "capitals"),
    _condition(INDICES, "if not 0 < size <= MAX_FRAME or not 0 < length <= codec.stored_size(size)",
               INDEXED, "largest_frame"),
    _condition(UNPACK, "if codec.crc32(content) != place.crc32", ("transfer/test_unpack.py",)),
    *(
        _condition(UNPACK, text, STORED)
        for text in (
            "if len(data) != place.length or codec.crc32(data) != place.compressed_crc32",
            "if len(expected) != member.header_size or not content.startswith(expected, first)",
            "if hashlib.sha256(body).hexdigest() != member.sha256",
        )
    ),
    *(
        _condition(INDICES, text, STORED)
        for text in (
            "if hashlib.sha256(line).hexdigest() != footer.root_sha256",
            "if header_bytes != BLOCK or header_length > codec.stored_size(BLOCK)",
            "if count > MAX_PARTITIONS or not strings(names, count) "
            "or len(set(list_of(names))) != count",
            "if not all(integers(columns.get(name), place.frames) for name in names)",
            "if not integers([rows.get(\"start\")], 1)",
        )
    ),
    _condition(
        "transfer/index_line.py",
        'if line.count(b"[") != form.lists or line.count(b"{") != form.objects',
        ("transfer/test_index.py",),
    ),
    Guard(INDICES, "wrong = size != 0 or link_problem(path, target) is not None", "wrong = False",
          INDEXED, "link_in"),
    Guard(INDICES, "            wrong = size != 0\n", "            wrong = False\n",
          INDEXED, "index_alone"),
    Guard(INDICES, "            or mtime > MAX_MTIME\n", "",
          INDEXED, "index_alone"),
    Guard(INDICES, "            or not (plain or _is_normal(path))\n", "",
          INDEXED, "index_alone"),
    Guard(INDICES, "        path_problem(path) is None\n        and ", "        ",
          INDEXED, "index_alone"),
    Guard(INDICES, "        and path.partition(\"/\")[0] != INDEX_NAME\n", "",
          INDEXED, "index_alone"),
    _condition(ARCHIVE, "if place.offset == self._stop and segment.start != self._position",
               INDEXED, "index_alone"),
    _condition(ARCHIVE, "if self._stop == self._end and self._position != self._size", INDEXED,
               "index_alone"),
    Guard(ARCHIVE, "            or gzip_header != codec.GZIP_HEADER\n", "", STORED),
    Guard(ARCHIVE, "codec.inflate(frame, len(head)) != head\n            or ", "",
          INDEXED, "header_of"),
)  # fmt: skip


def run_tests(package: Path, tests: tuple[str, ...], chosen: str) -> int:
    """Run tests with another copy of the package; pytest's exit status."""
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-k", chosen]
    # "path" wins over the editable installation.
    environment = os.environ | {"PYTHONPATH": str(package), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *(str(package / "tests" / test) for test in tests)],
        cwd=package,
        env=environment,
        capture_output=True,
        check=False,
    )
    return done.returncode


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, place / "etcetera")
    shutil.copytree(TESTS, place / "tests", ignore=shutil.ignore_patterns("long"))
    shutil.copy(PACKAGE.parent / "pyproject.toml", place)
    return place


@pytest.mark.timeout(3600)
def test_guards(copied: Path, record_property: Callable[[str, object], None]) -> None:
    """SY-09: no guard can be taken out without a test that fails."""
    survivors = []
    for number, guard in enumerate(GUARDS):
        source = copied / "etcetera" / guard.file
        text = source.read_text()
        assert guard.guard in text, guard
        source.write_text(text.replace(guard.guard, guard.without))
        if run_tests(copied, guard.tests, guard.chosen) != 1:
            survivors.append(guard)
        source.write_text(text)
        print(number, guard.file, guard.guard.strip(), guard in survivors, flush=True)  # noqa: T201
    record_property("guards", len(GUARDS))
    print(f"{len(GUARDS)} guards, survived: {survivors}")  # noqa: T201
    assert not survivors
