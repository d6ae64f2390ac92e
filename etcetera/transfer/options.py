"""Settings of a transfer, and the limits that others set."""

from dataclasses import dataclass

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How a transfer uses memory, processors and connections.

    A push holds ``(workers + 1) * part_size`` bytes of parts, and a pull as much in ranges; where
    parts are large, fewer of them are under way (see :mod:`etcetera.transfer.parts`).
    """

    part_size: int = 8 * MiB
    """Bytes per part of an upload and per range of a download; at least 5 MiB."""
    workers: int = 8
    """Requests in flight at once."""
    level: int | None = None
    """Compression: 0 stores, 1 (fast) to 9 (small), with the same bytes each time that the same
    codec packs everything; by default the best that does not slow the transfer, whichever that is
    just then, see :class:`etcetera.transfer.pace.Pace`."""
    threads: int | None = None
    """Threads that pack or unpack; chosen by default, see :func:`etcetera.transfer.flow.crew`."""
