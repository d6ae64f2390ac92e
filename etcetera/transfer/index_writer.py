"""The archive's table of contents, written."""

import hashlib
import json
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

from etcetera.errors import InvalidDataset
from etcetera.transfer import codec
from etcetera.transfer.codec import Frame, KnownFrame, make_frame
from etcetera.transfer.digest import DatasetDigest, kind_code
from etcetera.transfer.index import (
    FOOTER,
    MAX_LINE,
    MAX_PARTITIONS,
    MAX_SEGMENTS,
    NUMBER_COLUMNS,
    STRING_COLUMNS,
    VERSION,
    FramePlace,
    MemberPlace,
    index_entry,
)
from etcetera.transfer.options import KiB
from etcetera.transfer.paths import order_key, partition_of
from etcetera.transfer.scan import Totals
from etcetera.transfer.tar import BLOCK, END, Entry, header, padded

MAX_SEGMENT = 4096
"""Entries, or frames, after which a segment is closed: one small line to parse for one look-up."""
MAX_TEXT = 256 * KiB
"""Characters of paths after which a segment is closed, however few they are."""


class PackedMember(NamedTuple):
    """What the index says of a member once its content has been read."""

    entry: Entry
    header_size: int
    sha256: str
    """Hexadecimal; empty for what is no file."""


class EntryDigest(Protocol):
    """Makes the digest of a dataset from its entries."""

    def add_entry(self, entry: Entry, sha256: str) -> None:
        """Add one; *sha256* is that of a file, hexadecimal."""

    def value(self) -> str:
        """The digest, once all were added."""


class _OpenSegment:
    """The columns of a segment that is not encoded yet."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.lengths, self.sizes = array("Q"), array("Q")
        self.crcs, self.compressed_crcs = array("L"), array("L")
        self.paths: list[str] = []
        self.kinds: list[str] = []
        self.entry_sizes, self.mtimes, self.headers = array("Q"), array("Q"), array("L")
        self.digests: list[str] = []
        self.targets: list[str] = []
        self.characters = 0
        """Of paths and targets."""
        self.unknown = 0
        """Rows whose SHA-256 is still to come."""

    def is_full(self) -> bool:
        """Whether what comes next belongs to another segment."""
        return max(len(self.lengths), len(self.paths)) >= MAX_SEGMENT or self.characters >= MAX_TEXT

    def encode(self) -> bytes:
        """The segment's line."""
        return _line(
            frames=_object(
                length=_numbers(self.lengths),
                size=_numbers(self.sizes),
                crc32=_numbers(self.crcs),
                compressed_crc32=_numbers(self.compressed_crcs),
            ),
            entries=_object(
                start=str(self.start),
                path=_strings(self.paths),
                kind=f'"{"".join(self.kinds)}"',
                size=_numbers(self.entry_sizes),
                mtime=_numbers(self.mtimes),
                header=_numbers(self.headers),
                sha256=_strings(self.digests),
                target=_strings(self.targets),
            ),
        )


class IndexWriter:
    """Collects frames and entries in archive order, then gives the index's own frames."""

    def __init__(self, digest: EntryDigest | None = None) -> None:
        """Begin.

        Args:
            digest: Takes entries in the order of the archive; by default one that wants the
                canonical order.
        """
        self._open = deque([_OpenSegment(0)])
        self._segments: list[bytes] = []
        self._columns: dict[str, list[Any]] = {
            name: [] for name in (*NUMBER_COLUMNS, *STRING_COLUMNS)
        }
        self._ordered = digest is None
        self._digest = digest or DatasetDigest()
        self._partitions: dict[str, Totals] = {}
        self._outside = Totals()
        self._crc32 = 0
        self._size = 0
        self.length = len(codec.GZIP_HEADER)
        """Bytes of the archive up to here."""
        self._position = 0  # where in the tar stream the next member begins
        self.within_file = False
        """Whether a file was begun whose last slice is still to come."""
        self.digest = ""
        """Of the dataset; known once finished."""

    def add_frame(self, frame: Frame | KnownFrame, members: Sequence[PackedMember]) -> None:
        """Add the next frame and the members that begin in it."""
        self._add_frame(frame.length, frame.size, frame.crc32, frame.compressed_crc32)
        self._add_members(members)

    def add_kept(self, place: FramePlace, members: Sequence[MemberPlace]) -> None:
        """Add the next frame, as it is in another archive, and the members that begin in it."""
        self._add_frame(place.length, place.size, place.crc32, place.compressed_crc32)
        self._add_members([PackedMember(entry, size, sha) for entry, _, size, sha in members])

    def _add_frame(self, length: int, size: int, crc32: int, compressed_crc32: int) -> None:
        segment = self._open[-1]
        if segment.is_full():
            self._open.append(segment := _OpenSegment(self._position))
            self._encode_known()
        segment.lengths.append(length)
        segment.sizes.append(size)
        segment.crcs.append(crc32)
        segment.compressed_crcs.append(compressed_crc32)
        self._count(length, size, crc32)

    def _add_members(self, members: Sequence[PackedMember]) -> None:
        segment = self._open[-1]
        self._add_rows(segment, members)
        segment.digests += [sha256 for entry, _, sha256 in members if entry.kind == "f"]
        for entry, _, sha256 in members:
            self._digest.add_entry(entry, sha256)

    def begin_large(self, entry: Entry, header_size: int) -> None:
        """Add a file whose first slice is the frame just added; its SHA-256 comes later."""
        segment = self._open[-1]
        self._add_rows(segment, [PackedMember(entry, header_size, "")])
        segment.digests.append("")
        segment.unknown += 1
        self.within_file = True

    def finish_large(self, member: PackedMember) -> None:
        """Fill in the SHA-256 of the last file begun."""
        segment = next(segment for segment in reversed(self._open) if segment.unknown)
        segment.digests[-1] = member.sha256
        segment.unknown -= 1
        self.within_file = False
        self._digest.add_entry(member.entry, member.sha256)

    def finish(self, level: int) -> Iterator[bytes]:
        """Yield the index's frames, the end of the tar stream and the gzip trailer."""
        self._open.append(_OpenSegment(self._position))
        self._encode_known()
        self.digest = self._digest.value()
        columns = self._columns
        data_length, data_size = self.length, self._size
        header_length = len(codec.store(bytes(BLOCK)))
        # In an older archive's order they may come in any.
        names = sorted(self._partitions)
        partitions = [self._partitions[name] for name in names]
        root = _line(
            data=_object(length=str(data_length), size=str(data_size)),
            header=_object(length=str(header_length), size=str(BLOCK)),
            segments=_object(
                **{name: _numbers(columns[name]) for name in NUMBER_COLUMNS},
                **{name: _strings(columns[name]) for name in STRING_COLUMNS},
            ),
            partitions=_object(
                name=_strings(names),
                files=_numbers([totals.files for totals in partitions]),
                bytes=_numbers([totals.bytes for totals in partitions]),
            ),
        )
        if (
            len(root) > MAX_LINE - BLOCK
            or len(names) > MAX_PARTITIONS
            or len(columns["frames"]) > MAX_SEGMENTS
        ):
            raise InvalidDataset("The dataset has more partitions or files than an index can name")
        # Blanks at the end of the line put the footer on a block of its own.
        total = sum(columns["size"]) + len(root)
        root = root[:-1] + b" " * (-total % BLOCK) + b"\n"
        size = sum(columns["size"]) + len(root) + FOOTER
        head = self._take(make_frame(header(index_entry(size)), 0))
        crc32 = codec.crc32(head)
        yield head
        for data in self._take_segments():
            crc32 = codec.crc32(data, crc32)
            yield data
        root_frame = make_frame(root, level)
        place = [self.length, len(root_frame.data), len(root)]
        crc32 = codec.crc32(root_frame.data, crc32)
        yield self._take(root_frame)
        footer = _line(
            **{"etcetera-index": str(VERSION)},
            root=_numbers(place),
            sha256=f'"{hashlib.sha256(root).hexdigest()}"',
            digest=f'"{self.digest}"',
            files=str(self._outside.files + sum(totals.files for totals in partitions)),
            bytes=str(self._outside.bytes + sum(totals.bytes for totals in partitions)),
            crc32=str(crc32),
        )
        line = footer[:-1].ljust(FOOTER - 1) + b"\n"
        yield self._take(make_frame(line + END, 0))
        yield codec.FINAL_BLOCK + codec.TRAILER.pack(self._crc32, self._size & 0xFFFFFFFF)

    def _take_segments(self) -> Iterator[bytes]:
        columns = self._columns
        for i, data in enumerate(self._segments):
            crc, size = columns["crc32"][i], columns["size"][i]
            yield self._take(Frame(data, size, crc, 0))
        self._segments.clear()

    def _totals(self, partition: str) -> Totals:
        """Where the files of a partition are counted, or those outside all."""
        if not partition:
            return self._outside
        totals = self._partitions.get(partition)
        if totals is None:
            totals = self._partitions[partition] = Totals()
        return totals

    def _add_rows(self, segment: _OpenSegment, members: Sequence[PackedMember]) -> None:
        # Column by column takes half the time.
        entries = [member.entry for member in members]
        paths = [entry.path for entry in entries]
        targets = [entry.target for entry in entries if entry.kind == "l"]
        sizes = [entry.size for entry in entries]
        headers = [member.header_size for member in members]
        segment.paths += paths
        segment.characters += sum(map(len, paths)) + sum(map(len, targets))
        segment.kinds += map(kind_code, entries)
        segment.entry_sizes.extend(sizes)
        segment.mtimes.extend([entry.mtime for entry in entries])
        segment.headers.extend(headers)
        segment.targets += targets
        self._position += sum(headers) + sum(map(padded, sizes))
        for partition, same in groupby(entries, _partition):
            files = [entry.size for entry in same if entry.kind == "f"]
            self._totals(partition).merge(len(files), sum(files))

    def _take(self, frame: Frame) -> bytes:
        self._count(frame.length, frame.size, frame.crc32)
        return frame.data

    def _count(self, length: int, size: int, crc32: int) -> None:
        self._crc32 = codec.crc32_combine(self._crc32, crc32, size)
        self._size += size
        self.length += length

    def _encode_known(self) -> None:
        """Encode every segment but the last, from the front, while all its rows are known."""
        while len(self._open) > 1 and not self._open[0].unknown:
            segment = self._open.popleft()
            if not segment.lengths:
                continue
            line = segment.encode()
            frame = make_frame(line, 1)
            self._segments.append(frame.data)
            first, last = self._ends(segment.paths)
            row = {
                "frames": len(segment.lengths),
                "entries": len(segment.paths),
                "data_length": sum(segment.lengths),
                "data_size": sum(segment.sizes),
                "length": len(frame.data),
                "size": len(line),
                "crc32": frame.crc32,
                "sha256": hashlib.sha256(line).hexdigest(),
                "first": first,
                "last": last,
            }
            for name, value in row.items():
                self._columns[name].append(value)

    def _ends(self, paths: list[str]) -> tuple[str, str]:
        """The least and the greatest."""
        if self._ordered and paths:  # the digest has seen to that
            return paths[0], paths[-1]
        return min(paths, key=order_key, default=""), max(paths, key=order_key, default="")


def _partition(entry: Entry) -> str:
    return partition_of(entry.path)


def _line(**members: str) -> bytes:
    return f"{_object(**members)}\n".encode()


def _object(**members: str) -> str:
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


def _numbers(values: Sequence[int]) -> str:
    return f"[{','.join(map(str, values))}]"


def _strings(values: Sequence[str]) -> str:
    """A list of strings in which no bracket or brace is written as itself.

    So a reader can count lists and objects before it parses a line, and need not trust it.
    """
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return "[" + text[1:].replace("[", "\\u005b").replace("{", "\\u007b")
