"""Bodies of requests."""

from io import SEEK_CUR, SEEK_END, SEEK_SET, BytesIO

import anyio

from etcetera.stores import Data, Sent, patience


class OutgoingBody(BytesIO):
    """A request body that lies elsewhere and puts off the deadline as it leaves.

    aiohttp reads a BytesIO by 256 KiB on the event loop; any other file costs it a hop to a thread
    for each chunk. One with contents of its own would copy whatever is not bytes as a whole. The
    chunks are copies: those that wait in a transport must not change when the part has failed and
    its memory is used again.

    Parts of 16 MiB, four at once, cost 0.68 s of CPU per GiB and no memory beside the parts this
    way; made bytes and wrapped in a BytesIO 1.07 s and each of them twice more.
    """

    def __init__(self, data: Data, scope: anyio.CancelScope, sent: Sent | None) -> None:
        super().__init__()
        self._view = memoryview(data)
        self._position = 0
        self._scope = scope
        self._sent = sent

    def read(self, size: int | None = -1, /) -> bytes:
        """Return a copy of what comes next."""
        self._scope.deadline = anyio.current_time() + patience.STALL_SECONDS
        rest = len(self._view) - self._position
        start = self._position
        self._position += rest if size is None or size < 0 else min(size, rest)
        if self._sent is not None:
            self._sent(self._position - start)
        return bytes(self._view[start : self._position])

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Go to another place."""
        start = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: len(self._view)}[whence]
        self._position = min(max(0, start + offset), len(self._view))
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def getbuffer(self) -> memoryview:
        """Return the whole, wherever the position is."""
        return self._view[:]

    def release(self) -> None:
        """Let go of the data; whoever reads on gets an error."""
        self._view.release()
