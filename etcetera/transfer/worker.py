"""What a worker process runs: ``python -P -m etcetera.transfer.worker DESCRIPTOR``.

It reads requests from its standard input and writes one reply each to the descriptor that its
argument names, until the input ends: so it never outlives its parent, however that one ends. (Its
standard output is for whatever a Python prints when it starts.) Both are marshalled tuples, perhaps
with data that become the last element, behind the lengths of both. A request is a method of
:class:`Pack` or :class:`Unpack` and its arguments; a reply begins with whether it worked, and goes
on with the result or with the error's name and text.

Only plain values cross the border; :mod:`etcetera.transfer.workers` is the other side.
"""

import gc
import marshal
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from etcetera.errors import EtceteraError
from etcetera.transfer.codec import Buffer
from etcetera.transfer.extract import Extractor
from etcetera.transfer.index import FramePlace, MemberPlace
from etcetera.transfer.pack import Group, have_contents, open_root
from etcetera.transfer.tally import Tally
from etcetera.transfer.tar import Entry
from etcetera.transfer.unpack import FrameJob, unpack_frames, write_file

_LENGTHS = struct.Struct("<QQ")


def send(stream: IO[bytes], message: tuple[Any, ...], data: Buffer = b"") -> None:
    """Write one message; *data*, unless empty, become its last element without being copied."""
    plain = marshal.dumps(message)
    stream.write(_LENGTHS.pack(len(plain), len(data)) + plain)
    stream.write(data)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Any, ...] | None:
    """Read one message; ``None`` at the end of the stream, also in the middle of one."""
    head = stream.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    size, more = _LENGTHS.unpack(head)
    plain, data = stream.read(size), stream.read(more)
    if len(plain) + len(data) < size + more:
        return None
    # From our own process: nobody else holds the other end.
    message: tuple[Any, ...] = marshal.loads(plain)  # noqa: S302
    return (*message, data) if data else message


class Pack:
    """Makes frames of a dataset's small files."""

    def __init__(self, root: bytes) -> None:
        self._root = open_root(Path(os.fsdecode(root)))

    def frame(self, entries: list[tuple[Any, ...]], level: int) -> tuple[Any, ...]:
        """Pack whole members, see :meth:`etcetera.transfer.pack.Group.pack`."""
        frame, members = Group([Entry(*entry) for entry in entries]).pack(self._root, level)
        return (tuple(frame), [(member.header_size, member.sha256) for member in members])

    def have(self, files: list[tuple[tuple[Any, ...], str]]) -> tuple[Any, ...]:
        """Compare contents, see :func:`etcetera.transfer.pack.have_contents`."""
        return (have_contents(self._root, ((Entry(*entry), sha256) for entry, sha256 in files)),)


class Unpack:
    """Writes small files into a staging tree."""

    def __init__(self, tree: bytes) -> None:
        self._extractor = Extractor(Path(os.fsdecode(tree)))

    def frames(self, offset: int, jobs: list[Any], data: bytes = b"") -> tuple[Any, ...]:
        """Unpack frames of whole members, see :func:`etcetera.transfer.unpack.unpack_frames`.

        Returns:
            Tar bytes written, and the links and directories that are left for the end.
        """
        size = unpack_frames(
            data,
            offset,
            [
                FrameJob(
                    FramePlace(*place),
                    [
                        MemberPlace(Entry(*entry), start, header_size, sha256)
                        for entry, start, header_size, sha256 in members
                    ],
                    None,
                )
                for place, members in jobs
            ],
            self._extractor,
        )
        links, directories = self._extractor.take_deferred()
        return size, [tuple(entry) for entry in links], [tuple(entry) for entry in directories]

    def files(self, entries: list[tuple[Any, ...]], contents: bytes = b"") -> tuple[Any, ...]:
        """Write whole files, see :func:`etcetera.transfer.unpack.write_file`.

        Returns:
            What they add up to, as :meth:`etcetera.transfer.tally.Tally.plain` gives it.
        """
        tally = Tally(ordered=False)
        view = memoryview(contents)
        start = 0
        with self._extractor.writer() as writer:
            for fields in entries:
                entry = Entry(*fields)
                stop = start + entry.size
                write_file(entry, view[start:stop], writer, tally)
                start = stop
        return (tally.plain(),)


def main() -> None:
    """Answer requests until there are no more."""
    gc.disable()  # Nothing here makes cycles, and the many tuples of a request take long to visit.
    requests = sys.stdin.buffer
    replies = os.fdopen(int(sys.argv[1]), "wb")
    methods: dict[str, Callable[..., tuple[Any, ...]]] = {}
    while (request := receive(requests)) is not None:
        name, *arguments = request
        try:
            if name == "pack":
                packing = Pack(*arguments)
                methods |= {"frame": packing.frame, "have": packing.have}
                result: tuple[Any, ...] = ()
            elif name == "unpack":
                unpacking = Unpack(*arguments)
                methods |= {"frames": unpacking.frames, "files": unpacking.files}
                result = ()
            else:
                result = methods[name](*arguments)
        except EtceteraError as error:
            send(replies, (False, type(error).__name__, str(error)))
        else:
            send(replies, (True, *result))


if __name__ == "__main__":
    main()
