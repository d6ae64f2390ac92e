"""What a transfer tells its caller while it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Operation = Literal["push", "pull", "verify"]
Phase = Literal["scan", "transfer", "publish", "install", "done"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of a transfer."""

    operation: Operation
    name: str
    """The dataset."""
    phase: Phase
    """``done`` comes once, and only after the dataset is published, installed or checked."""
    done: int
    """Bytes of the dataset that are safely on the other side, or checked."""
    total: int | None
    """Bytes of the dataset, ``None`` while unknown (an archive without an index)."""
    transferred: int
    """Bytes of the archive sent or received."""


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called on the event loop, at most once per part or range: keep it short."""


class Meter:
    """Adds up what a transfer has done, and tells."""

    def __init__(self, operation: Operation, name: str, callback: ProgressCallback | None) -> None:
        self.total: int | None = None
        self._operation: Operation = operation
        self._name = name
        self._callback = callback
        self._done = 0
        self.transferred = 0
        """Bytes of the archive sent or received."""

    def add(self, size: int, transferred: int) -> None:
        """Count one part or range."""
        self._done += size
        self.transferred += transferred
        self.tell("transfer")

    def restart(self) -> None:
        """Begin again, after a way that led nowhere."""
        self._done = 0
        self.tell("transfer")

    def finish(self) -> None:
        """Tell that everything is done."""
        self._done = self.total if self.total is not None else self._done
        self.tell("done")

    def tell(self, phase: Phase) -> None:
        """Call back."""
        if self._callback is not None:
            self._callback(
                Progress(
                    operation=self._operation,
                    name=self._name,
                    phase=phase,
                    done=self._done,
                    total=self.total,
                    transferred=self.transferred,
                )
            )
