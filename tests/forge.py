"""Indexed archives taken apart, and put together again with a lie in them.

Whatever a test does not lie about is made consistent: checksums, SHA-256 of segments and root,
lengths, footer, gzip trailer. It follows the format's specification rather than the product's
code, of which it uses only constants, the digest, and the header of the index's own member.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etcetera.transfer.digest import DatasetDigest, digest_row
from etcetera.transfer.paths import order_key
from etcetera.transfer.tar import Entry, header, padded

GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
FINAL = b"\x03\x00"
BLOCK = 512
TAIL = 5 + BLOCK + 1024 + len(FINAL) + 8


def deflate(data: bytes, level: int = 6) -> bytes:
    """A frame that stands alone."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


def stored(data: bytes, claimed: int | None = None) -> bytes:
    """One stored block, which may claim another length than it has."""
    length = len(data) if claimed is None else claimed
    return struct.pack("<BHH", 0, length, length ^ 0xFFFF) + data


def inflate(frame: bytes) -> bytes:
    """What a frame holds."""
    return zlib.decompressobj(-15).decompress(frame)


def line(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


Change = Callable[[dict[str, Any]], object]


def nothing(value: dict[str, Any]) -> None:
    """The change that changes nothing."""


def as_is(data: bytes) -> bytes:
    """The change that changes nothing."""
    return data


@dataclass
class Forgery:
    """An archive in pieces, all of which may be changed before :meth:`build`."""

    frames: list[bytes]
    """The data frames, compressed."""
    tars: list[bytes]
    """What they hold."""
    segments: list[dict[str, Any]]
    partitions: dict[str, list[int]]
    digest: str = ""
    """Computed from the entries if empty."""
    files: int | None = None
    total: int | None = None
    root: Change = nothing
    """Last change of the root line's value."""
    footer: Change = nothing
    """Last change of the footer's value."""
    segment_line: Callable[[bytes], bytes] = as_is
    """Last change of each segment's line."""
    root_line: Callable[[bytes], bytes] = as_is
    """Last change of the root line; its length has to stay."""
    footer_line: Callable[[bytes], bytes] = as_is
    """Last change of the footer; its length has to stay."""
    gzip_header: bytes = GZIP_HEADER
    index_header: Callable[[bytes], bytes] = as_is
    """Last change of the tar header of the index."""
    trailer: Callable[[bytes], bytes] = as_is
    """Last change of the gzip trailer."""

    @classmethod
    def of(cls, archive: bytes) -> "Forgery":
        """Take a good archive apart."""
        footer = json.loads(archive[-TAIL + 5 :][:BLOCK])
        offset, length, _ = footer["root"]
        root = json.loads(inflate(archive[offset : offset + length]))
        place = root["data"]["length"] + root["header"]["length"]
        segments = []
        for size in root["segments"]["length"]:
            segments.append(json.loads(inflate(archive[place : place + size])))
            place += size
        frames, place = [], len(GZIP_HEADER)
        for segment in segments:
            for size in segment["frames"]["length"]:
                frames.append(archive[place : place + size])
                place += size
        columns = root["partitions"]
        partitions = {
            name: list(sums)
            for name, *sums in zip(columns["name"], columns["files"], columns["bytes"], strict=True)
        }
        return cls(frames, [inflate(frame) for frame in frames], segments, partitions)

    # --- What tests change

    @property
    def entries(self) -> dict[str, Any]:
        """The entries' columns of the first segment."""
        columns: dict[str, Any] = self.segments[0]["entries"]
        return columns

    @property
    def places(self) -> dict[str, Any]:
        """The frames' columns of the first segment."""
        columns: dict[str, Any] = self.segments[0]["frames"]
        return columns

    def row(self, path: str) -> int:
        """The row of *path* in the first segment."""
        return int(self.entries["path"].index(path))

    def rename(self, path: str, new: str) -> None:
        """Call an entry something else in the index."""
        self.entries["path"][self.row(path)] = new

    def set(self, column: str, path: str, value: object) -> None:
        """Say something else of an entry in the index."""
        self.entries[column][self.row(path)] = value

    def set_kind(self, path: str, kind: str) -> None:
        """Say that an entry is of another kind."""
        row = self.row(path)
        kinds = self.entries["kind"]
        self.entries["kind"] = kinds[:row] + kind + kinds[row + 1 :]

    def set_digest(self, path: str, sha256: object) -> None:
        """Say that a file has another SHA-256."""
        row = self.row(path)
        files = [kind in "fx" for kind in self.entries["kind"][:row]]
        self.entries["sha256"][sum(files)] = sha256

    def set_target(self, path: str, target: str) -> None:
        """Say that a link leads elsewhere."""
        row = self.row(path)
        self.entries["target"][self.entries["kind"][:row].count("l")] = target

    def set_frame(self, number: int, tar: bytes, frame: bytes | None = None) -> None:
        """Give one frame another content, and everything the index says of it with that."""
        self.tars[number] = tar
        self.frames[number] = deflate(tar) if frame is None else frame
        self.refresh(number)

    def refresh(self, number: int) -> None:
        """Make the index say of a frame what it is."""
        for segment in self.segments:
            columns = segment["frames"]
            if number < len(columns["length"]):
                columns["length"][number] = len(self.frames[number])
                columns["size"][number] = len(self.tars[number])
                columns["crc32"][number] = zlib.crc32(self.tars[number])
                columns["compressed_crc32"][number] = zlib.crc32(self.frames[number])
                return
            number -= len(columns["length"])

    def replace_in_tar(self, old: bytes, new: bytes) -> None:
        """Change the tar stream itself, where *old* is, consistently."""
        assert len(old) == len(new)
        (number,) = [i for i, tar in enumerate(self.tars) if old in tar]
        self.set_frame(number, self.tars[number].replace(old, new))

    def replace_header(self, old: Entry, new: Entry) -> None:
        """Change one header in the tar stream itself."""
        self.replace_in_tar(header(old), header(new))

    # --- Putting it together

    def _rows(self) -> list[tuple[Entry, str]]:
        rows = []
        for segment in self.segments:
            entries = segment["entries"]
            digests, targets = iter(entries["sha256"]), iter(entries["target"])
            for path, kind, size in zip(
                entries["path"], entries["kind"], entries["size"], strict=False
            ):
                file = kind in "fx"
                mode = 0o755 if kind == "x" else 0o644
                target = next(targets, "") if kind == "l" else ""
                entry = Entry(path, "f" if file else kind, size, mode, 0, target)
                rows.append((entry, next(digests, "") if file else ""))
        return rows

    def _claims(self) -> tuple[str, int, int]:
        """The digest, the number and the bytes of the files, as the entries have them."""
        digest = DatasetDigest()
        try:
            rows = sorted(self._rows(), key=lambda row: order_key(row[0].path))
            for entry, sha256 in rows:
                digest.add(entry.path, digest_row(entry, sha256))
            sizes = [int(entry.size) for entry, _ in rows if entry.kind == "f"]
            return digest.value(), len(sizes), sum(sizes)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return "sha256:" + "0" * 64, 0, 0  # nobody should get as far as comparing it

    def _segments(self, root: dict[str, Any]) -> bytes:
        columns = root["segments"]
        written = []
        for segment in self.segments:
            text = self.segment_line(line(segment))
            frame = deflate(text)
            written.append(frame)
            lengths, sizes = segment["frames"]["length"], segment["frames"]["size"]
            paths = [path for path in segment["entries"]["path"] if isinstance(path, str)]
            paths.sort(key=order_key)
            row = {
                "frames": len(lengths),
                "entries": len(segment["entries"]["path"]),
                "data_length": _sum(lengths),
                "data_size": _sum(sizes),
                "length": len(frame),
                "size": len(text),
                "crc32": zlib.crc32(text),
                "sha256": hashlib.sha256(text).hexdigest(),
                "first": paths[0] if paths else "",
                "last": paths[-1] if paths else "",
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
        return b"".join(written)

    def build(self) -> bytes:
        """The archive."""
        digest, files, size = self._claims()
        data = b"".join(self.frames)
        root: dict[str, Any] = {
            "data": {
                "length": len(GZIP_HEADER) + len(data),
                "size": sum(len(tar) for tar in self.tars),
            },
            "header": {"length": 5 + BLOCK, "size": BLOCK},
            "segments": {},
            "partitions": {
                "name": list(self.partitions),
                "files": [sums[0] for sums in self.partitions.values()],
                "bytes": [sums[1] for sums in self.partitions.values()],
            },
        }
        segments = self._segments(root)
        self.root(root)
        text = self.root_line(line(root))
        index_size = _index_size(root)
        text = text[:-1] + b" " * (-(index_size + len(text)) % BLOCK) + b"\n"
        root_frame = deflate(text)
        index_size += len(text) + BLOCK
        head = self.index_header(header(Entry(".etcetera-index.jsonl", "f", index_size, 0o644, 0)))
        before = self.gzip_header + data + stored(head) + segments
        footer = {
            "etcetera-index": 1,
            "root": [len(before), len(root_frame), len(text)],
            "sha256": hashlib.sha256(text).hexdigest(),
            "digest": self.digest or digest,
            "files": files if self.files is None else self.files,
            "bytes": size if self.total is None else self.total,
        }
        self.footer(footer)
        tail = self.footer_line(line(footer)[:-1].ljust(BLOCK - 1) + b"\n") + bytes(1024)
        tar = b"".join(self.tars) + head + inflate(segments) + text + tail
        trailer = struct.pack("<II", zlib.crc32(tar), len(tar) & 0xFFFFFFFF)
        return before + root_frame + stored(tail) + FINAL + self.trailer(trailer)


def _sum(values: object) -> int:
    """A sum, where there are numbers to add."""
    if isinstance(values, list) and all(isinstance(value, int) for value in values):
        return sum(values)
    return 0


def _index_size(root: dict[str, Any]) -> int:
    """Bytes of the segments, where the root says such a thing."""
    segments = root.get("segments")
    return int(_sum(segments.get("size"))) if isinstance(segments, dict) else 0


def member(entry: Entry, content: bytes = b"") -> bytes:
    """A member of the tar stream."""
    return header(entry) + content.ljust(padded(len(content)), b"\0")


def huffman(data: bytes) -> bytes:
    """A final block whose end-of-block code is what the usual empty block begins with.

    NUL takes one bit, a blank two, end-of-block nine (110000000), everything else ten. So a
    decoder in the middle of it takes the two bytes of the final empty block for the end. The
    bits have to fill whole bytes; that depends on how many NULs and blanks there are.
    """
    bits = [
        1,
        0,
        1,
        *_bits(0, 5),
        *_bits(0, 5),
        *_bits(14, 4),
    ]  # final, dynamic, HLIT, HDIST, HCLEN
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1)
    for symbol in order:
        bits += _bits({10: 1, 0: 3, 1: 3, 2: 3, 9: 3}.get(symbol, 0), 3)
    lengths = {10: "0", 0: "100", 1: "101", 2: "110", 9: "111"}
    for symbol in range(256):
        bits += map(int, lengths[{0: 1, 32: 2}.get(symbol, 10)])
    bits += map(int, lengths[9] + lengths[0])  # end of block; the one distance, never used
    others = [symbol for symbol in range(256) if symbol not in (0, 32)]
    codes = {symbol: f"{0b1100000010 + place:010b}" for place, symbol in enumerate(others)}
    codes |= {0: "0", 32: "10"}
    for byte in data:
        bits += map(int, codes[byte])
    if len(bits) % 8:
        raise ValueError("not whole bytes")
    return bytes(
        sum(bit << place for place, bit in enumerate(bits[start : start + 8]))
        for start in range(0, len(bits), 8)
    )


def _bits(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in range(count)]
