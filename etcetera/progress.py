"""What a transfer tells its caller while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Phase = Literal["scan", "transfer", "publish", "install", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of a transfer."""

    operation: Literal["push", "pull"]
    name: str
    """The dataset."""
    phase: Phase
    """``done`` comes once, and only after the dataset is published or installed."""
    done: int
    """Bytes of the dataset that are safely on the other side."""
    total: int | None
    """Bytes of the dataset, ``None`` while unknown (an archive without an index)."""
    transferred: int
    """Bytes of the archive sent or received."""


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called on the event loop, at most once per part or range: keep it short."""
