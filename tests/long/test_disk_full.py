"""Disks of every size from too small to large enough; needs root, for it mounts some."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.long.scenarios import ABSENT, ARCHIVE, NAME, NEW, Site, Versions
from tests.long.sweep import Ending

_NO_SPACE = 8
KiB = 1 << 10


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    """What is pulled and pushed."""
    return Versions(tmp_path_factory.mktemp("versions"))


def _done(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def site(versions: Versions, tmp_path: Path) -> Site:
    """A place with the new version in the repository."""
    site = Site(versions, tmp_path / "site")
    site.publish(NEW)
    return site


@pytest.fixture
def disk(site: Site) -> Iterator[Callable[[Path, str], None]]:
    """Mount a small file system in memory; it is gone in the end."""
    mounted: list[Path] = []

    def mount(place: Path, options: str) -> None:
        while mounted:
            _done("umount", "--lazy", str(mounted.pop()))
        place.mkdir(parents=True, exist_ok=True)
        _done("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place))
        mounted.append(place)

    yield mount
    while mounted:
        _done("umount", "--lazy", str(mounted.pop()))


def _run(site: Site, *arguments: str) -> Ending:
    done = subprocess.run(
        [sys.executable, "-m", "etcetera", *arguments],
        env={**os.environ, **site.environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return Ending(done.returncode, done.stdout, done.stderr)


def _check_full(site: Site, ending: Ending) -> None:
    assert ending.status == _NO_SPACE, ending
    assert all(line.startswith("etc: ") for line in ending.error.splitlines()), ending
    assert not site.leftovers()


def test_home_of_every_size(
    site: Site, disk: Callable[[Path, str], None], record_property: Callable[[str, object], None]
) -> None:
    """CR-04, CR-05: with too little room a pull changes nothing and says what it needs."""
    needed = site.versions.source(NEW).joinpath("data/train/large.bin").stat().st_size // KiB
    full, sizes = 0, [*range(8, 64, 8), *range(64, needed + 192, 128)]
    for size in sizes:
        disk(site.home, f"size={size}k")
        ending = _run(site, "pull", NAME)
        if ending.status == 0:
            assert site.local() == NEW
            continue
        full += 1
        _check_full(site, ending)
        assert site.local() == ABSENT
        assert "needs" in ending.error, ending
        assert "free at" in ending.error, ending
        _done("mount", "-o", "remount,size=16m", str(site.home))
        assert _run(site, "pull", NAME).status == 0
        assert site.local() == NEW
    record_property("sizes", f"{len(sizes)} sizes, {full} too small")
    print(f"home: {len(sizes)} sizes, {full} too small")  # noqa: T201
    assert 0 < full < len(sizes)


def test_repository_of_every_size(
    site: Site, disk: Callable[[Path, str], None], record_property: Callable[[str, object], None]
) -> None:
    """CR-05, FR-05: with too little room for an archive nothing of it is left."""
    noise = site.directory / "noise" / NAME
    (noise / "data/train").mkdir(parents=True)
    (noise / "data/train/noise").write_bytes(os.urandom(600 * KiB))
    assert _run(site, "register", str(noise)).status == 0
    full, sizes = 0, range(8, 800, 64)
    for size in sizes:
        disk(site.repository, f"size={size}k")
        ending = _run(site, "push", NAME)
        if ending.status == 0:
            continue
        full += 1
        _check_full(site, ending)
        assert not (site.repository / ARCHIVE).exists()
        assert "free at" in ending.error, ending
        assert "needs at most" in ending.error, ending
        _done("mount", "-o", "remount,size=16m", str(site.repository))
        assert _run(site, "push", NAME).status == 0
    record_property("sizes", f"{len(sizes)} sizes, {full} too small")
    print(f"repository: {len(sizes)} sizes, {full} too small")  # noqa: T201
    assert 0 < full < len(sizes)


def test_no_inodes(
    site: Site, disk: Callable[[Path, str], None], record_property: Callable[[str, object], None]
) -> None:
    """CR-07: when the disk can hold no more files a pull changes nothing, and says that."""
    full, counts = 0, range(2, 48, 3)
    for count in counts:
        disk(site.home, f"size=16m,nr_inodes={count}")
        ending = _run(site, "pull", NAME)
        if ending.status == 0:
            assert site.local() == NEW
            continue
        full += 1
        _check_full(site, ending)
        assert site.local() == ABSENT
        assert "inodes are free" in ending.error, ending
        _done("mount", "-o", "remount,nr_inodes=1000", str(site.home))
        assert _run(site, "pull", NAME).status == 0
        assert site.local() == NEW
    record_property("inodes", f"{len(counts)} counts, {full} too small")
    print(f"inodes: {len(counts)} counts, {full} too small")  # noqa: T201
    assert 0 < full < len(counts)
