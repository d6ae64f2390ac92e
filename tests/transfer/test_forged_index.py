"""Issue 2, shown by 6: good archives whose index lies are refused, and never give a wrong tree.

Every lie is consistent otherwise: checksums, SHA-256 of root and segments, footer and trailer are
those of what is there.
"""

import asyncio
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etcetera.errors import ArchiveError, CorruptArchive, NoSpace, UnsafeArchive
from etcetera.transfer import codec
from etcetera.transfer.pack import FRAME_MAX
from etcetera.transfer.tar import Entry
from tests import trees
from tests.archives import packed, pull_from
from tests.forge import BLOCK, Forgery, deflate, huffman, member, stored

KNOB = b"knob:"
TREE: trees.Tree = trees.SMALL | {
    "assets/knob": trees.file(KNOB + bytes(8)),
    "data/train/large": trees.file(bytes(range(256)) * (9 * FRAME_MAX // 1024)),
}
"""Everything once, and a file in three slices."""

A, B, C = "data/train/a", "data/train/b", "data/train/c"
LINK, VOID, LARGE = "data/test/link", "data/train/void", "data/train/large"
TIME = 1_000_000_000

Lie = Callable[[Forgery], object]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A good archive."""
    root = trees.write(tmp_path_factory.mktemp("source"), TREE)
    return asyncio.run(packed(root))


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where to pull to, beside what must stay as it is."""
    canary = trees.write(tmp_path / "canary", {"file": trees.file(b"precious")})
    before = trees.everything(canary)
    yield tmp_path / "target"
    assert trees.everything(canary) == before
    assert {place.name for place in tmp_path.iterdir()} <= {"canary", "target", "user"}


def entry(path: str, kind: str = "f", target: str = "") -> Entry:
    """An entry of the good archive."""
    node = trees.complete(TREE)[path]
    mode = {"f": 0o755 if node.executable else 0o644, "d": 0o755, "l": 0o777}[kind]
    return Entry(path, kind, len(node.content), mode, node.mtime, target or node.target)


def both(path: str, new: Entry) -> Lie:
    """Index and tar stream agree on something that must not be."""
    old = entry(path, trees.complete(TREE)[path].kind)

    def lie(forgery: Forgery) -> None:
        forgery.replace_header(old, new)
        if new.target != old.target:
            forgery.set_target(path, new.target)
        forgery.rename(path, new.path)

    return lie


def renamed(path: str, new: str) -> Lie:
    """Only the index calls an entry *new*."""
    return lambda forgery: forgery.rename(path, new)


def said(column: str, path: str, value: object) -> Lie:
    """Only the index says *value* of an entry."""
    return lambda forgery: forgery.set(column, path, value)


def kind(path: str, value: str) -> Lie:
    """Only the index calls an entry a *value*, with the digest or target that this needs."""

    def lie(forgery: Forgery) -> None:
        row = forgery.row(path)
        before = forgery.entries["kind"][:row]
        files, links = sum(one in "fx" for one in before), before.count("l")
        if forgery.entries["kind"][row] in "fx":
            del forgery.entries["sha256"][files]
        if forgery.entries["kind"][row] == "l":
            del forgery.entries["target"][links]
        if value in "fx":
            forgery.entries["sha256"].insert(files, "e3b0c442" * 8)
        if value == "l":
            forgery.entries["target"].insert(links, "b")
            forgery.set("size", path, 0)
        forgery.set_kind(path, value)

    return lie


def frames(column: str, number: int, change: Callable[[int], object]) -> Lie:
    """The index says something else of a frame."""

    def lie(forgery: Forgery) -> None:
        forgery.places[column][number] = change(forgery.places[column][number])

    return lie


def shifted(column: str, by: int) -> Lie:
    """Frames overlap on one side and leave a gap on the other."""

    def lie(forgery: Forgery) -> None:
        forgery.places[column][0] += by
        forgery.places[column][1] -= by

    return lie


def root(change: Callable[[dict[str, Any]], object]) -> Lie:
    """The root line says something else."""

    def lie(forgery: Forgery) -> None:
        forgery.root = change

    return lie


def column(name: str, change: Callable[[Any], object]) -> Lie:
    """The root says something else of the only segment."""
    return root(
        lambda value: value["segments"].update({name: [change(value["segments"][name][0])]})
    )


def footer(change: Callable[[dict[str, Any]], object]) -> Lie:
    """The footer says something else."""

    def lie(forgery: Forgery) -> None:
        forgery.footer = change

    return lie


def attribute(name: str, value: object) -> Lie:
    """One of the forgery's own knobs."""
    return lambda forgery: setattr(forgery, name, value)


def border_in_stored_block(forgery: Forgery) -> None:
    """Seen from the front, the first frame's stored block swallows the second frame."""
    second = stored(forgery.tars[1])
    first = stored(forgery.tars[0], len(forgery.tars[0]) + len(second))
    forgery.set_frame(1, forgery.tars[1], second)
    forgery.set_frame(0, forgery.tars[0], first)


def border_in_header_of_stored_block(forgery: Forgery) -> None:
    """A frame ends with the first byte of a stored block's header."""
    forgery.set_frame(0, forgery.tars[0], deflate(forgery.tars[0]) + b"\0")


def border_in_huffman_block(forgery: Forgery) -> None:
    """A frame ends inside a block for which the usual empty block looks like its end."""
    (number,) = [i for i, tar in enumerate(forgery.tars) if KNOB in tar]
    for blanks in range(9):
        content = KNOB + b" " * blanks + bytes(8 - blanks)
        tar = forgery.tars[number].replace(KNOB + bytes(8), content)
        try:
            frame = huffman(tar)
        except ValueError:
            continue
        forgery.set_frame(number, tar, frame)
        forgery.set_digest("assets/knob", sha256_of(content))
        return
    raise AssertionError("no frame of whole bytes")


def sha256_of(content: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def refers_to_frame_before(forgery: Forgery) -> None:
    """The second frame is compressed with the first as its past."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    for number, tar in enumerate(forgery.tars):
        frame = compressor.compress(tar) + compressor.flush(zlib.Z_SYNC_FLUSH)
        forgery.set_frame(number, tar, frame)


def with_final_block(forgery: Forgery) -> None:
    """A frame that ends the deflate stream."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    frame = compressor.compress(forgery.tars[0]) + compressor.flush()
    forgery.set_frame(0, forgery.tars[0], frame)


def final_block_behind(forgery: Forgery) -> None:
    """A frame with the final empty block behind it."""
    forgery.set_frame(0, forgery.tars[0], deflate(forgery.tars[0]) + b"\3\0")


def gives_more(forgery: Forgery) -> None:
    """A frame that gives a block more than the index says."""
    forgery.set_frame(0, forgery.tars[0], deflate(forgery.tars[0] + bytes(BLOCK)))


def gives_less(forgery: Forgery) -> None:
    """A frame that gives a block less than the index says."""
    forgery.set_frame(0, forgery.tars[0], deflate(forgery.tars[0][:-BLOCK]))


def border_inside_member(forgery: Forgery) -> None:
    """Frames that hold neither whole members nor slices of one."""
    first, second = forgery.tars[0], forgery.tars[1]
    forgery.set_frame(0, first[:-BLOCK])
    forgery.set_frame(1, first[-BLOCK:] + second)


def swapped_slices(forgery: Forgery) -> None:
    """Two slices of the large file in each other's place."""
    one, two = (i for i, tar in enumerate(forgery.tars) if len(tar) == FRAME_MAX)
    forgery.tars[one], forgery.tars[two] = forgery.tars[two], forgery.tars[one]
    forgery.set_frame(one, forgery.tars[one])
    forgery.set_frame(two, forgery.tars[two])


def other_content(forgery: Forgery) -> None:
    """The tar stream has another content than the index's SHA-256."""
    forgery.replace_in_tar(b"b" * 512, b"B" * 512)


def hidden_member(forgery: Forgery) -> None:
    """The tar stream has a member that the index leaves out."""
    hidden = member(Entry("hidden", "f", 3, 0o644, TIME), b"xyz")
    forgery.set_frame(0, hidden + forgery.tars[0])


def hidden_frame(forgery: Forgery) -> None:
    """The object has a frame between the data and the index that nothing speaks of."""
    forgery.frames.append(deflate(member(Entry("hidden", "f", 0, 0o644, TIME))))


def unlisted_entry(forgery: Forgery) -> None:
    """The index has a member that the tar stream has not."""
    row = forgery.row(VOID)
    for name in ("path", "size", "mtime", "header"):
        forgery.entries[name].insert(row, forgery.entries[name][row])
    forgery.entries["path"][row] = "data/train/ghost"
    kinds = forgery.entries["kind"]
    forgery.entries["kind"] = kinds[:row] + "d" + kinds[row:]


def dropped_entry(forgery: Forgery) -> None:
    """The index leaves the last entry out, without a gap that its own numbers would show."""
    for name in ("path", "size", "mtime", "header"):
        forgery.entries[name].pop()
    assert forgery.entries["kind"][-1] == "d"
    forgery.entries["kind"] = forgery.entries["kind"][:-1]


def leads(goal: str) -> Lie:
    """Only the index says that the link leads to *goal*."""
    return lambda forgery: forgery.set_target(LINK, goal)


def first(name: str, value: object) -> Lie:
    """The first row of a column is something else."""
    return lambda forgery: forgery.entries[name].__setitem__(0, value)


def longer(name: str) -> Lie:
    """A column has a row too many."""
    return lambda forgery: forgery.entries[name].append(forgery.entries[name][-1])


def shorter(name: str) -> Lie:
    """A column has a row too few."""
    return lambda forgery: forgery.entries[name].pop()


def without(name: str) -> Lie:
    """A column is missing."""
    return lambda forgery: forgery.entries.pop(name)


def columns(**changes: object) -> Lie:
    """Columns are something else."""
    return lambda forgery: forgery.entries.update(changes)


def always(value: object) -> Callable[[object], object]:
    """Whatever was there becomes *value*."""
    return lambda old: value


def putting(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    """A key gets another value."""
    return lambda line: line.update({name: value})


def dropping(name: str) -> Callable[[dict[str, Any]], object]:
    """A key is dropped."""
    return lambda line: line.pop(name)


def length(value: object) -> Callable[[dict[str, Any]], object]:
    """The root says that the data has another length."""
    return lambda line: line["data"].update(length=value)


def line(change: Callable[[bytes], bytes], which: str = "segment_line") -> Lie:
    """A line that is not the JSON it should be."""
    return lambda forgery: setattr(forgery, which, change)


def same(data: bytes) -> Callable[[bytes], bytes]:
    """Whatever was there becomes *data*."""
    return lambda old: data


DEEP = b'{"a":' * 100_000
NUMBERS: dict[str, object] = {
    "float": 1.0,
    "true": True,
    "string": "512",
    "null": None,
    "list": [512],
    "object": {},
    "negative": -1,
    "2^63": 1 << 63,
    "10^400": 10**400,
    "nan": float("nan"),
    "infinite": float("inf"),
}
TEXTS: dict[str, object] = {"number": 1, "null": None, "list": ["x"], "true": True}

LIES: dict[str, Lie] = {
    # Names
    "name-of-file": renamed(A, "data/train/aa"),
    "name-of-directory": renamed(VOID, "data/train/vold"),
    "name-of-link": renamed(LINK, "data/test/lank"),
    "name-of-large": renamed(LARGE, "data/train/l"),
    **{
        f"escapes-{new}": renamed(A, new)
        for new in (
            "../canary/file", "/tmp/x", "data/../../x", "..", ".", "", "a//b", "a/./b", "a/", "/",
            "a\\b", "C:x", "nul\0", "n" * 256, "d/" * 2_050 + "f",
        )
    },
    **{
        f"escapes-in-tar-too-{new}": both(A, entry(A)._replace(path=new))
        for new in ("../canary/f", "/tmp/etcetera-forged", "x/../../f", "a\\b", "C:x")
    },
    **{
        f"link-escapes-{goal}": leads(goal)
        for goal in ("../../../canary", "/etc", "", "x/../..", "../train/b")
    },
    **{
        f"link-escapes-in-tar-too-{goal}": both(LINK, entry(LINK, "l", goal))
        for goal in ("../../../canary", "/etc", "x/../../../..", "a\\b")
    },
    "through-link-in-tar-too": both(A, entry(A)._replace(path=f"{LINK}/a")),
    "below-file-in-tar-too": both(A, entry(A)._replace(path=f"{B}/a")),
    "file-twice-in-tar-too": both(A, entry(A)._replace(path=B)),
    "file-as-directory-in-tar-too": both(A, entry(A)._replace(path=VOID)),
    "link-as-file-in-tar-too": both(LINK, entry(LINK, "l")._replace(path=A)),
    "directory-twice-in-tar-too": both(VOID, entry(VOID, "d")._replace(path="data/train")),
    "index-name": renamed(A, ".etcetera-index.jsonl"),
    "index-name-in-tar-too": both(A, entry(A)._replace(path=".etcetera-index.jsonl")),
    "below-index-in-tar-too": both(A, entry(A)._replace(path=".etcetera-index.jsonl/a")),
    # Properties
    "size-smaller": said("size", A, 510),
    "size-larger": said("size", A, 512),
    "size-another-block": said("size", A, 513),
    "size-of-directory": said("size", VOID, 512),
    "size-of-link": said("size", LINK, 1),
    "size-of-large": said("size", LARGE, len(TREE[LARGE].content) - 1),
    "size-huge": said("size", A, (1 << 63) - 1),
    "mtime-of-file": said("mtime", A, TIME + 1),
    "mtime-of-directory": said("mtime", VOID, TIME + 1),
    "mtime-of-link": said("mtime", LINK, TIME + 1),
    "mtime-of-large": said("mtime", LARGE, TIME + 1),
    "executable": kind(A, "x"),
    "not-executable": kind("assets/run.sh", "f"),
    "file-is-directory": kind("data/test/empty", "d"),
    "file-is-link": kind("data/test/empty", "l"),
    "directory-is-file": kind(VOID, "f"),
    "directory-is-link": kind(VOID, "l"),
    "link-is-file": kind(LINK, "f"),
    "link-is-directory": kind(LINK, "d"),
    "unknown-kind": kind(VOID, "h"),
    "header-0": said("header", A, 0),
    "header-511": said("header", A, 511),
    "header-1024": said("header", A, 1024),
    "sha256-of-file": lambda forgery: forgery.set_digest(A, "0" * 64),
    "sha256-of-large": lambda forgery: forgery.set_digest(LARGE, "0" * 64),
    "sha256-upper-case": lambda forgery: forgery.set_digest(A, "A" * 64),
    "sha256-short": lambda forgery: forgery.set_digest(A, "0" * 63),
    "sha256-empty": lambda forgery: forgery.set_digest(A, ""),
    "sha256-null": lambda forgery: forgery.set_digest(A, None),
    "content": other_content,
    "hidden-member": hidden_member,
    "hidden-frame": hidden_frame,
    "unlisted-entry": unlisted_entry,
    "dropped-entry": dropped_entry,
    # Places
    "frames-overlap": shifted("length", 1),
    "frames-gap": shifted("length", -1),
    "tar-overlap": shifted("size", BLOCK),
    "tar-gap": shifted("size", -BLOCK),
    "frame-crc32": frames("crc32", 0, lambda crc: crc ^ 1),
    "frame-compressed-crc32": frames("compressed_crc32", 0, lambda crc: crc ^ 1),
    "frame-empty": frames("length", 0, lambda length: 0),
    "frame-without-tar": frames("size", 0, lambda size: 0),
    "frame-outside": frames("length", 0, lambda length: 1 << 40),
    "frame-tar-outside": frames("size", 0, lambda size: 1 << 40),
    "segment-start": columns(start=BLOCK),
    "border-in-stored-block": border_in_stored_block,
    "border-in-header-of-stored-block": border_in_header_of_stored_block,
    "border-in-huffman-block": border_in_huffman_block,
    "border-inside-member": border_inside_member,
    "refers-to-frame-before": refers_to_frame_before,
    "final-block": with_final_block,
    "final-block-behind": final_block_behind,
    "gives-more": gives_more,
    "gives-less": gives_less,
    "swapped-slices": swapped_slices,
    "data-length": root(lambda value: value["data"].update(length=value["data"]["length"] + 1)),
    "data-size": root(lambda value: value["data"].update(size=value["data"]["size"] + BLOCK)),
    "header-length": root(lambda value: value["header"].update(length=518)),
    "header-length-outside": root(lambda value: value["header"].update(length=1 << 40)),
    "header-length-0": root(lambda value: value["header"].update(length=0)),
    "header-size": root(lambda value: value["header"].update(size=1024)),
    "header-swallows-segment": root(
        lambda value: (
            value["header"].update(length=517 + value["segments"]["length"][0]),
            value.update(segments={name: [] for name in value["segments"]}),
        )
    ),
    "no-segments": root(
        lambda value: value.update(segments={name: [] for name in value["segments"]})
    ),
    **{
        f"segment-{name}": column(name, lambda number: number + 1)
        for name in ("frames", "entries", "data_length", "data_size", "length", "size")
    },
    "segment-crc32": column("crc32", lambda number: number ^ 1),
    "segment-sha256": column("sha256", lambda text: "0" * 64),
    "segment-first": column("first", lambda text: "README.md"),
    "segment-last": column("last", lambda text: "data/train/zzz"),
    "segment-outside": column("length", lambda number: 1 << 40),
    "segment-huge": column("size", lambda number: 1 << 40),
    # Sums
    "digest": attribute("digest", "sha256:" + "0" * 64),
    "files-more": attribute("files", 99),
    "files-less": attribute("files", 0),
    "bytes-more": attribute("total", 4_000_000),
    "bytes-less": attribute("total", 0),
    "partition-files": lambda forgery: forgery.partitions["train"].__setitem__(0, 99),
    "partition-bytes": lambda forgery: forgery.partitions["train"].__setitem__(1, 0),
    "partition-missing": lambda forgery: forgery.partitions.pop("test"),
    "partition-more": lambda forgery: forgery.partitions.update(more=[0, 0]),
    "partition-other": lambda forgery: forgery.partitions.update(
        tset=forgery.partitions.pop("test")
    ),
    "partitions-longer": root(lambda value: value["partitions"]["bytes"].append(3)),
    "partitions-twice": root(
        lambda value: [column.append(column[0]) for column in value["partitions"].values()]
    ),
    "root-more-lists": root(lambda value: value.update(more=[[]] * 1000)),
    # What is no such line at all
    **{
        f"{name}-{text}": first(name, value)
        for name in ("size", "mtime", "header")
        for text, value in NUMBERS.items()
    },
    **{
        f"frame-{name}-{text}": frames(name, 0, always(value))
        for name in ("length", "size", "crc32", "compressed_crc32")
        for text, value in NUMBERS.items()
    },
    **{
        f"segment-{name}-{text}": column(name, always(value))
        for name in ("frames", "entries", "data_length", "data_size", "crc32")
        for text, value in NUMBERS.items()
    },
    **{
        f"data-length-{text}": root(length(value))
        for text, value in NUMBERS.items()
    },
    **{
        f"start-{text}": columns(start=value)
        for text, value in NUMBERS.items()
    },
    **{
        f"{name}-{text}": footer(putting(name, value))
        for name in ("files", "bytes")
        for text, value in NUMBERS.items()
        if text != "10^400"
    },
    **{
        f"{name}-{text}": first(name, value)
        for name in ("path", "sha256", "target")
        for text, value in TEXTS.items()
    },
    **{
        f"segment-{name}-{text}": column(name, always(value))
        for name in ("first", "last", "sha256")
        for text, value in TEXTS.items()
    },
    **{
        f"longer-{name}": longer(name)
        for name in ("size", "mtime", "header", "sha256", "target")
    },
    **{
        f"shorter-{name}": shorter(name)
        for name in ("size", "mtime", "header", "sha256", "target")
    },
    **{
        f"without-{name}": without(name)
        for name in ("size", "mtime", "header", "sha256", "target", "start", "kind")
    },
    **{
        f"object-{name}": columns(**{name: {}})
        for name in ("size", "mtime", "header", "sha256", "target", "start", "kind")
    },
    "kinds-as-list": lambda forgery: forgery.entries.update(kind=list(forgery.entries["kind"])),
    "frames-longer": lambda forgery: forgery.places["crc32"].append(0),
    "frames-shorter": lambda forgery: forgery.places["crc32"].pop(),
    "frames-without": lambda forgery: forgery.places.pop("crc32"),
    "root-columns-longer": root(lambda value: value["segments"]["crc32"].append(0)),
    "root-columns-without": root(lambda value: value["segments"].pop("crc32")),
    **{
        f"root-without-{name}": root(dropping(name))
        for name in ("data", "header", "segments", "partitions")
    },
    **{
        f"root-{name}-is-list": root(putting(name, []))
        for name in ("data", "header", "segments", "partitions")
    },
    **{
        f"segment-line-{text}": line(same(data))
        for text, data in {
            "deep": DEEP, "deep-list": b"[" * 100_000, "no-json": b"hello\n", "list": b"[]\n",
            "null": b"null\n", "empty-object": b"{}\n", "two": b"{}\n{}\n",
            "nested-wrong": b'{"frames":[],"entries":[]}\n', "not-utf-8": b'{"\xff":1}\n',
        }.items()
    },
    "segment-line-cut": line(lambda old: old[:-9]),
    "segment-line-more": line(lambda old: old + old),
    "segment-line-surrogate": line(lambda old: old.replace(b'"data/train/a"', b'"\\ud800"')),
    **{
        f"root-line-{text}": line(same(data), "root_line")
        for text, data in {
            "deep": DEEP, "no-json": b"hello\n", "list": b"[]\n", "empty-object": b"{}\n",
            "null": b"null\n", "number": b"1\n",
        }.items()
    },
    "root-line-huge-number": line(
        lambda old: old.replace(b'"data":{"length":', b'"data":{"length":' + b"9" * 5_000),
        "root_line",
    ),
    "footer-root-missing": footer(lambda value: value.pop("root")),
    "footer-root-null": footer(lambda value: value.update(root=None)),
    "footer-root-short": footer(lambda value: value["root"].pop()),
    "footer-root-long": footer(lambda value: value["root"].append(1)),
    "footer-root-floats": footer(
        lambda value: value.update(root=[float(number) for number in value["root"]])
    ),
    "footer-root-negative": footer(lambda value: value["root"].__setitem__(0, -1)),
    "footer-root-outside": footer(lambda value: value["root"].__setitem__(0, 1 << 50)),
    "footer-root-before": footer(
        lambda value: value.update(root=[0, sum(value["root"][:2]), value["root"][2]])
    ),
    "footer-root-off-by-one": footer(
        lambda value: value.update(root=[value["root"][0] + 1, *value["root"][1:]])
    ),
    "footer-root-size": footer(lambda value: value["root"].__setitem__(2, value["root"][2] + 1)),
    "footer-root-huge": footer(lambda value: value["root"].__setitem__(2, 1 << 50)),
    "footer-sha256": footer(lambda value: value.update(sha256="0" * 64)),
    "footer-sha256-null": footer(lambda value: value.update(sha256=None)),
    "footer-digest-null": footer(lambda value: value.update(digest=None)),
    "footer-digest-other": footer(lambda value: value.update(digest="md5:0")),
    "footer-no-json": line(lambda old: old[:60].ljust(511) + b"\n", "footer_line"),
    # The frame around it all
    "trailer-crc32": line(lambda old: bytes([old[0] ^ 1]) + old[1:], "trailer"),
    "trailer-size": line(lambda old: old[:-1] + bytes([old[-1] ^ 1]), "trailer"),
    "gzip-header-time": attribute("gzip_header", b"\x1f\x8b\x08\0\x01\0\0\0\0\xff"),
    "gzip-header-system": attribute("gzip_header", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"),
    "gzip-header-method": attribute("gzip_header", b"\x1f\x8b\x07\0\0\0\0\0\0\xff"),
    "gzip-header-name": attribute("gzip_header", b"\x1f\x8b\x08\x08\0\0\0\0\0\xff"),
    "index-header-name": line(lambda old: old.replace(b"index", b"xedni"), "index_header"),
    "index-header-size": line(lambda old: old[:124] + b"00000000000\0" + old[136:], "index_header"),
    "index-header-padding": line(lambda old: old[:-1] + b"x", "index_header"),
}  # fmt: skip


@pytest.mark.parametrize("indexed", [True, False])
async def test_forgery_without_a_lie(indexed: bool, archive: bytes, target: Path) -> None:
    """What these tests build is accepted, both ways, as long as it does not lie."""
    forged = Forgery.of(archive).build()
    await pull_from(forged, target, indexed=indexed)
    assert trees.read(target) == trees.complete(TREE)


@pytest.mark.parametrize("lie", LIES)
async def test_refused(lie: str, archive: bytes, target: Path) -> None:
    """Where index and archive disagree, the archive is refused, and nothing outside is touched."""
    forgery = Forgery.of(archive)
    LIES[lie](forgery)
    with pytest.raises((CorruptArchive, UnsafeArchive)):
        await pull_from(forgery.build(), target)


async def test_more_bytes_than_fit(archive: bytes, target: Path) -> None:
    """RX-01: an index that says the disk is too small is believed before anything is written."""
    forgery = Forgery.of(archive)
    forgery.total = 1 << 60
    with pytest.raises(NoSpace):
        await pull_from(forgery.build(), target)
    assert trees.read(target) == {}


@pytest.mark.parametrize("version", [0, 2, "1", None, [1], 10**400])
async def test_unknown_version(version: object, archive: bytes, target: Path) -> None:
    """An index of an unknown version is not used: the archive is read from front to back."""
    forgery = Forgery.of(archive)

    def change(value: dict[str, Any]) -> None:
        value.clear()
        value["etcetera-index"] = version

    forgery.footer = change
    await pull_from(forgery.build(), target)
    assert trees.read(target) == trees.complete(TREE)


@pytest.mark.parametrize("text", [b'{"other":1}', b"", b"{}", b'{"etcetera-index" :1}'])
async def test_no_footer(text: bytes, archive: bytes, target: Path) -> None:
    """Without the footer's mark the archive is one like any other."""
    forgery = Forgery.of(archive)
    forgery.footer_line = lambda old: text.ljust(511) + b"\n"
    await pull_from(forgery.build(), target)
    assert trees.read(target) == trees.complete(TREE)


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small archive, to be damaged byte by byte."""
    tree = {"data/train/a": trees.file(b"abc"), "data/train/b": trees.file(b"x" * 600)}
    return asyncio.run(packed(trees.write(tmp_path_factory.mktemp("little"), tree)))


async def _survives(damaged: bytes, place: Path) -> None:
    """A damaged archive is refused, or gives the tree that it held."""
    try:
        await pull_from(damaged, place)
    except ArchiveError:
        return
    tree = trees.contents(trees.read(place))
    assert tree["data/train/a"] == ("f", b"abc", "")
    assert tree["data/train/b"] == ("f", b"x" * 600, "")
    assert len(tree) == 4


@pytest.mark.parametrize("bit", [0, 3])
async def test_every_flipped_bit(bit: int, little: bytes, tmp_path: Path) -> None:
    """GZ-01: one flipped bit anywhere in an indexed archive is noticed, or means nothing."""
    for position in range(bit % 2, len(little), 2):
        damaged = bytearray(little)
        damaged[position] ^= 1 << bit
        # A stored block has five bits that nobody reads.
        await _survives(bytes(damaged), tmp_path / str(position))


async def test_every_cut(little: bytes, tmp_path: Path) -> None:
    """TF-10: no proper prefix of an indexed archive is accepted, nor one with a byte more."""
    for length in range(0, len(little), 7):
        with pytest.raises(ArchiveError):
            await pull_from(little[:length], tmp_path / str(length))
    for more in (b"\0x", b"x", little):
        with pytest.raises(ArchiveError):
            await pull_from(little + more, tmp_path / f"more-{len(more)}")


def test_the_border_in_a_huffman_block_is_real() -> None:
    """What the forgery hides would be taken for a whole frame by who only adds the final block."""
    tar = next(
        KNOB + b" " * blanks + bytes(500 - blanks)
        for blanks in range(9)
        if _is_whole(KNOB + b" " * blanks + bytes(500 - blanks))
    )
    decompressor = zlib.decompressobj(-15)
    assert decompressor.decompress(huffman(tar)) == tar
    assert decompressor.decompress(b"\3\0") == b""
    assert decompressor.eof
    assert not decompressor.unused_data
    with pytest.raises(CorruptArchive):
        codec.inflate(huffman(tar), len(tar))


def _is_whole(tar: bytes) -> bool:
    try:
        huffman(tar)
    except ValueError:
        return False
    return True


def test_the_footer_is_json(archive: bytes) -> None:
    """The footer is what it is documented to be."""
    assert json.loads(archive[-(BLOCK + 1024 + 10) :][:BLOCK])["etcetera-index"] == 1
