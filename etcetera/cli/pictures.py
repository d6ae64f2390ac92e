"""A dataset of generated pictures of flowers, and what is written about them."""

import colorsys
import json
import math
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_SIDE = 48
_SPECIES = {"daisy": 13, "trillium": 3, "dogwood": 4, "buttercup": 5, "lily": 6, "cosmos": 8}
"""Petals of each."""
_PER_PARTITION = {"train": 40, "test": 10}
"""Pictures of each species."""
_POSTER_SCALE = 16
"""How much larger the few large pictures are."""


def make_dataset(directory: Path) -> None:
    """Write a dataset of flowers; every time the same bytes."""
    chance = random.Random(1735)  # noqa: S311 - nothing secret about flowers
    (directory / "assets" / "posters").mkdir(parents=True)
    for partition, count in _PER_PARTITION.items():
        captions = []
        for species, petals in _SPECIES.items():
            folder = directory / "data" / partition / species
            folder.mkdir(parents=True)
            for number in range(count):
                hue = chance.random()
                rows = list(_flower(petals, hue, chance))
                name = f"{species}-{number:03d}.png"
                (folder / name).write_bytes(png(rows))
                captions.append(f"{species}/{name}\ta {species}, {petals} petals, hue {hue:.2f}\n")
                if partition == "train" and number == 0:
                    poster = directory / "assets" / "posters" / f"{species}.bmp"
                    poster.write_bytes(bmp(_enlarge(rows, _POSTER_SCALE)))
        (directory / "data" / partition / "captions.tsv").write_text("".join(captions))
    meta = {"title": "Generated flowers", "species": sorted(_SPECIES), "side": _SIDE}
    (directory / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    (directory / "README.md").write_text(
        "# Flowers\n\nDrawn by a formula: the radius of a petal is the cosine of its angle.\n"
    )


def png(rows: list[bytes]) -> bytes:
    """Return a PNG of rows of pixels, three bytes each."""
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in rows)  # each row begins with its filter: none
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def bmp(rows: list[bytes]) -> bytes:
    """Return a BMP of rows of pixels, three bytes each."""
    width = len(rows[0]) // 3
    pixels = b"".join(_bgr(row) + b"\0" * (-len(row) % 4) for row in reversed(rows))
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    # Pixels per metre: as printed at 72 per inch.
    shape = struct.pack(
        "<IiiHHIIiiII", 40, width, len(rows), 1, 24, 0, len(pixels), 2835, 2835, 0, 0
    )
    return header + shape + pixels


def _bgr(row: bytes) -> bytes:
    swapped = bytearray(row)
    swapped[0::3], swapped[2::3] = row[2::3], row[0::3]
    return bytes(swapped)


def _enlarge(rows: list[bytes], scale: int) -> list[bytes]:
    """Repeat every pixel *scale* times in both directions."""
    enlarged = []
    for row in rows:
        wide = b"".join(row[start : start + 3] * scale for start in range(0, len(row), 3))
        enlarged.extend([wide] * scale)
    return enlarged


def _flower(petals: int, hue: float, chance: random.Random) -> Iterator[bytes]:
    """Yield the rows of one flower in front of a meadow."""
    turn, size = chance.random() * math.tau, 0.7 + 0.25 * chance.random()
    heart = _colour(hue + 0.45, 0.8, 0.95)
    # Colours of a petal from the inside out.
    petal = [_colour(hue, 0.9 - 0.6 * step / 31, 0.6 + 0.4 * step / 31) for step in range(32)]
    grain = iter(chance.randbytes(_SIDE * _SIDE))
    for y in range(_SIDE):
        row = bytearray()
        for x in range(_SIDE):
            across, down = 2 * x / _SIDE - 1, 2 * y / _SIDE - 1
            radius, angle = math.hypot(across, down), math.atan2(down, across) + turn
            edge = size * (0.35 + 0.65 * abs(math.cos(angle * petals / 2)))
            shade = next(grain)
            if radius < 0.2 * size:
                row += heart
            elif radius < edge:
                row += petal[int(31 * radius / edge)]
            else:
                row += bytes((30 + shade // 8, 90 + shade // 4, 30 + shade // 8))
        yield bytes(row)


def _colour(hue: float, saturation: float, value: float) -> bytes:
    return bytes(int(255 * part) for part in colorsys.hsv_to_rgb(hue % 1, saturation, value))
