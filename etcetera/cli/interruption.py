"""What Ctrl-C, a request to terminate and the end of the terminal do.

They are listened to before anything is imported that takes time: nobody who changes his mind at
once shall see a traceback.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""Exit status."""

_SHOW_CURSOR = "\x1b[?25h"


class Interruption:
    """What is going on, as far as a signal has to know."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The one that came first."""
        self.first = ""
        """Line to be printed when it comes."""
        self.second = "etc: Stopped at once"
        """Line to be printed for who does not want to wait."""
        self.clear: Callable[[], None] | None = None
        """Takes a progress bar away."""

    def handle(self, number: int, _frame: FrameType | None) -> NoReturn:
        """Turn the first signal into KeyboardInterrupt, and obey the second at once.

        Cleaning up waits for the network; who asks twice does not want to.
        """
        terminal = os.isatty(2)
        cursor = _SHOW_CURSOR if terminal and self.clear else ""
        line_ended = False
        if self.signal is not None:
            _write_error(f"{cursor}{_after_echo(number, terminal)}{self.second}\n")
            os._exit(INTERRUPTED)
        self.signal = number
        if self.clear is not None:
            with suppress(Exception):  # whatever the signal has come in the middle of
                self.clear()
                line_ended = True
        start = "" if line_ended else _after_echo(number, terminal)
        _write_error(f"{cursor}{start}{self.first and self.first + chr(10)}")
        raise KeyboardInterrupt


current = Interruption()
"""Of the command that is running."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``etc`` and return its exit status.

    Args:
        arguments: By default those of the process.
    """
    own = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with _listening():
            from etcetera.cli.run import run, use_whole_process

            if own:
                use_whole_process()
            return run(arguments)
    except KeyboardInterrupt:
        # Too early, or too late, for anything that would know more.
        report = '{"error": "Interrupted", "message": "Interrupted", "exit_code": 130}'
        _write_error(f"{report if '--json' in arguments else 'etc: Interrupted'}\n")
        return INTERRUPTED


@contextmanager
def _listening() -> Iterator[None]:
    global current
    current = Interruption()
    previous = {
        number: signal.signal(number, current.handle)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # Whoever started us may want us not to listen: nohup, a shell's background jobs.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def cleaning_up(left: str, *, json: bool) -> Iterator[None]:
    """Say when a signal comes that there is something to be cleaned up.

    Args:
        left: What stopping at once leaves behind.
        json: Whether a program reads it.
    """
    second = f"Stopped at once; {left}"
    if json:
        from etcetera.cli.output import to_json

        report = {"error": "Interrupted", "message": second, "exit_code": INTERRUPTED}
        current.first, current.second = "", to_json(report)
    else:
        from etcetera.cli.output import clean

        current.first = "etc: Cleaning up; interrupt once more to stop at once"
        current.second = f"etc: {clean(second)}"
    try:
        yield
    finally:
        current.first, current.second = "", "etc: Stopped at once"


def _after_echo(number: int, terminal: bool) -> str:
    """End the line on which a terminal has shown ``^C``."""
    return "\n" if terminal and number == signal.SIGINT else ""


def _write_error(text: str) -> None:
    # Not through a stream: the signal may have come while that was writing.
    with suppress(OSError):
        os.write(2, text.encode(errors="backslashreplace"))
