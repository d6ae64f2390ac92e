"""A blocking stream of bytes over an iterator of pieces."""

from collections.abc import Iterable, Iterator

from etcetera.errors import TruncatedArchive


class ByteStream:
    """Reads exact amounts out of pieces of any length; knows where it stands."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._piece = memoryview(b"")
        self.offset = 0
        """Bytes read so far."""
        self.mark = 0
        """For the caller's use: an offset to remember."""

    def _fill(self) -> bool:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece = memoryview(piece)
        return True

    def take(self, limit: int) -> memoryview:
        """Return 1 to *limit* bytes without copying; none at the end of the stream."""
        self._fill()
        taken, self._piece = self._piece[:limit], self._piece[limit:]
        self.offset += len(taken)
        return taken

    def read(self, size: int) -> bytes:
        """Return exactly *size* bytes.

        Raises:
            TruncatedArchive: The stream ends before.
        """
        piece = self._piece
        if size <= len(piece):  # As nearly always.
            self._piece = piece[size:]
            self.offset += size
            return bytes(piece[:size])
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield exactly *size* bytes, in pieces as they come."""
        while size:
            piece = self.take(size)
            if not piece:
                raise TruncatedArchive(
                    f"archive is truncated: it ends at byte {self.offset} of the tar stream"
                )
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Read *size* bytes and forget them."""
        if size <= len(self._piece):
            self._piece = self._piece[size:]
            self.offset += size
            return
        for _ in self.pieces(size):
            pass

    def rest(self) -> Iterator[bytes]:
        """Yield everything up to the end."""
        while piece := self.take(1 << 20):
            yield bytes(piece)
