"""Settings of a transfer, and the limits that others set."""

from dataclasses import dataclass

KiB = 1 << 10
MiB = 1 << 20
GiB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOptions:
    """How a transfer uses memory, processors and connections.

    Peak memory of a push is about ``(workers + 1) * part_size``; where the size of a dataset
    forces larger parts, fewer of them are in flight (see :func:`etcetera.transfer.parts.plan`).
    A pull holds ``(workers + 1) * part_size`` as well, its ranges being no larger.
    """

    part_size: int = 8 * MiB
    """Bytes per part of an upload and per range of a download; at least 5 MiB."""
    workers: int = 8
    """Requests in flight at once."""
    level: int = 1
    """Compression: 0 stores, 1 (fast) to 3 (small)."""
    threads: int | None = None
    """Threads that pack or unpack; by default one per processor that may be used."""
