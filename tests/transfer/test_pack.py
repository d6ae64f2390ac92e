"""Checked entries → frames."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcetera.transfer.pack import FRAME_MAX, FRAME_MIN, FRAME_TARGET, Group, Slice, group
from etcetera.transfer.paths import order_key, partition_of
from etcetera.transfer.tar import BLOCK, Entry, header, padded


def file(path: str, size: int) -> Entry:
    """A file."""
    return Entry(path, "f", size, 0o644, 1)


def directory(path: str) -> Entry:
    """A directory."""
    return Entry(path, "d", 0, 0o755, 1)


def dataset(seed: int, files: int, largest: int) -> list[Entry]:
    """Many files in a few partitions, in archive order."""
    noise = random.Random(seed)
    paths = {"README.md", "assets/a", "data"}
    for number in range(files):
        parts = ["data", f"p{noise.randrange(3)}", *[f"d{noise.randrange(4)}"] * noise.randrange(3)]
        paths.add("/".join([*parts, f"file-{number}"]))
        paths.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return [
        file(path, noise.randrange(largest))
        if "file" in path or path[0] != "d"
        else directory(path)
        for path in sorted(paths, key=order_key)
    ]


def member_size(entry: Entry) -> int:
    """Its tar bytes."""
    return len(header(entry)) + padded(entry.size)


def frames(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The members of each frame, a large file standing for its slices."""
    held: list[list[Entry]] = []
    for job in group(entries):
        if isinstance(job, Group):
            held.append(job.entries)
        elif job.number == 0:
            held.append([job.file.entry])
    return held


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([100, 3_000, 100_000, 3 * FRAME_MAX]))
def test_frames(seed: int, largest: int) -> None:
    """Every entry comes once, in order; frames are bounded and never span two partitions."""
    entries = dataset(seed, 200, largest)
    held = frames(entries)
    assert [entry for frame in held for entry in frame] == entries
    for frame in held:
        size = sum(map(member_size, frame))
        assert size <= FRAME_MAX or len(frame) == 1
        assert len({partition_of(entry.path) for entry in frame if entry.path != "data"}) <= 1


@pytest.mark.parametrize("largest", [500, 5_000, 60_000])
def test_mean_size(largest: int) -> None:
    """Frames of whole members have about the size aimed at, none below the least but at borders."""
    entries = [file(f"data/p/file-{number}", largest) for number in range(20_000)]
    sizes = [sum(map(member_size, frame)) for frame in frames(entries)]
    mean = sum(sizes) / len(sizes)
    assert FRAME_TARGET * 0.7 < mean < FRAME_TARGET * 1.3
    assert min(sizes[:-1]) >= FRAME_MIN


@pytest.mark.parametrize("seed", range(5))
def test_borders_are_stable(seed: int) -> None:
    """One file more changes few frames: most can be copied into the next version."""
    entries = [file(f"data/p/file-{number:06}", 3_000) for number in range(5_000)]
    before = frames(entries)
    place = random.Random(seed).randrange(len(entries))
    entries.insert(place, file(f"{entries[place - 1].path}-new", 3_000))
    after = frames(sorted(entries, key=lambda entry: order_key(entry.path)))
    kept = {tuple(frame) for frame in before} & {tuple(frame) for frame in after}
    assert len(before) > 20
    assert len(kept) >= len(before) - 8


@pytest.mark.parametrize(
    "size",
    [
        FRAME_MAX - BLOCK - 1, FRAME_MAX - BLOCK, FRAME_MAX - BLOCK + 1, FRAME_MAX, 2 * FRAME_MAX,
        2 * FRAME_MAX - BLOCK, 3 * FRAME_MAX + 7, 10 << 30,
    ],
)  # fmt: skip
def test_slices(size: int) -> None:
    """What is longer than a frame is cut into slices of the longest frame, without neighbours."""
    entries = [file("data/p/a", 10), file("data/p/b", size), file("data/p/c", 10)]
    jobs = list(group(entries))
    slices = [job for job in jobs if isinstance(job, Slice)]
    total = member_size(entries[1])
    if total <= FRAME_MAX:
        assert not slices
        return
    assert len(slices) == -(-total // FRAME_MAX)
    assert [job.number for job in slices] == list(range(len(slices)))
    assert [isinstance(job, Group) for job in jobs] == [True] + [False] * len(slices) + [True]


def test_nothing() -> None:
    """No entries, no frames."""
    assert not list(group([]))
