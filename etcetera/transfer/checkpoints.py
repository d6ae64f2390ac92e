"""Writing the journal of a push while it runs."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from anyio import CancelScope

from etcetera.stores import Upload
from etcetera.stores.common import is_curable, leave_note
from etcetera.transfer.codec import Frame
from etcetera.transfer.flow import in_thread
from etcetera.transfer.index_writer import PackedMember
from etcetera.transfer.journal import Done, Facts, Journal, Saved, encode_row
from etcetera.transfer.options import MiB

_logger = logging.getLogger("etcetera")


@dataclass(frozen=True, slots=True)
class _Cut:
    """What was packed since the part before, up to where a part was cut."""

    rows: bytes
    frames: int
    rest: memoryview


@dataclass(frozen=True, slots=True)
class _Sent:
    """One part that the store has."""

    line: bytes
    size: int
    tar: int


class Checkpoints:
    """Writes the journal of one push; a context manager around all of it.

    The thread that packs tells of frames and cuts, the event loop of parts that were sent, and the
    journal is written in a third thread. If that fails the push goes on without one. At the end
    the journal is deleted, unless the upload was kept for another process to go on with.
    """

    def __init__(
        self,
        journal: Journal,
        describe: Callable[[], Facts],
        saved: Saved | None,
    ) -> None:
        """Go on from *saved*, or from the beginning.

        Args:
            journal: To be written.
            describe: Gives what :func:`etcetera.transfer.resume.facts` does, in a thread.
            saved: What the journal holds.
        """
        self.saved = saved
        self._journal = journal
        self._describe = describe
        self._written = saved is not None
        self._writing = self._failed = False
        self._upload: Upload | None = None
        # Of the packing thread, since the last cut:
        self._rows = bytearray()
        self._frames = 0
        self._indexing = False
        # Cut, or sent, while a part before is not:
        self._cuts: dict[int, _Cut] = {}
        self._sent: dict[int, _Sent] = {}
        # Of the parts without a gap:
        self._lines = [_line(part) for part in saved.upload.parts] if saved else []
        self._bytes = saved.sent if saved else 0
        self._tar = saved.tar if saved else 0
        self._known = saved.frames if saved else 0
        self._rest = memoryview(saved.rest if saved else b"")
        self._fresh: list[bytes] = []
        self._saved_bytes = self._bytes

    def add_frame(self, frame: Frame, members: Iterable[PackedMember]) -> None:
        """Note the next frame, and the members that end in it; for the packing thread."""
        if not self._failed:
            self._rows += encode_row(frame, members)
            self._frames += 1

    def end_frames(self) -> None:
        """Note that what follows is the index, which is made anew each time."""
        self._indexing = True

    def cut(self, number: int, rest: memoryview) -> None:
        """Note the end of a part, and what of the last frame is in the next one."""
        if not self._failed:
            rest = memoryview(b"") if self._indexing else rest
            self._cuts[number] = _Cut(bytes(self._rows), self._frames, rest)
            self._rows.clear()
            self._frames = 0

    def begin(self, upload: Upload) -> None:
        """Note which upload the parts are sent to."""
        self._upload = upload

    def sent(self, number: int, size: int, tar: int) -> bool:
        """Note a part, not the last one, that the store has; tell whether it is time to save.

        Args:
            number: Of the part.
            size: Its bytes.
            tar: Tar bytes that are reported with it.
        """
        if self._failed or self._upload is None:
            return False
        self._sent[number] = _Sent(_line(self._upload.part(number)), size, tar)
        while (following := len(self._lines) + 1) in self._sent:
            part, cut = self._sent.pop(following), self._cuts.pop(following)
            self._lines.append(part.line)
            self._bytes += part.size
            self._tar += part.tar
            self._fresh.append(cut.rows)
            self._known += cut.frames
            self._rest = cut.rest
        due = not self._writing and self._bytes - self._saved_bytes >= self._journal.every
        self._writing |= due
        return due

    async def save(self) -> None:
        """Write down how far it has come, once :meth:`sent` has said so."""
        assert self._upload is not None, "no part is sent before an upload begins"  # noqa: S101
        rows, self._fresh = b"".join(self._fresh), []
        self._saved_bytes = self._bytes
        done = partial(
            Done,
            upload=self._upload.id,
            state=self._upload.state(),
            parts=tuple(self._lines),
            sent=self._bytes,
            tar=self._tar,
            frames=self._known,
            rows=rows,
            rest=self._rest,
        )
        try:
            await in_thread(self._save, done, self._upload)
        finally:
            self._writing = False

    def _save(self, done: Callable[..., Done], upload: Upload) -> None:
        try:
            if not self._journal.lock() or (self._journal.exists() and not self._written):
                self._failed = True
                _logger.info("Another etcetera pushes the same: this push cannot be gone on with")
                return
            self._journal.save(done(facts=dict(self._describe()) | dict(self._journal.about)))
        except OSError as error:
            self._failed = True
            _logger.warning(
                "If this push breaks off it has to begin anew: %s cannot be written (%s)",
                self._journal.directory, error.strerror,
            )  # fmt: skip
        else:
            upload.keep = self._written = True

    async def __aenter__(self) -> Self:
        """Nothing has to be prepared."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Delete the journal, or say how to go on."""
        if not self._written:
            return
        # An upload that could not even be looked at was left as it is.
        kept = is_curable(error) if self._upload is None else self._upload.kept
        if not kept:
            with CancelScope(shield=True):
                await in_thread(self._journal.discard)
        elif error is not None:
            leave_note(
                error,
                f"{self._saved_bytes / MiB:.0f} MiB are in the repository: give the same command "
                "again to go on from there, or drop them with: etc clean --force",
            )


def _line(part: Mapping[str, str]) -> bytes:
    return json.dumps(dict(part)).encode()
