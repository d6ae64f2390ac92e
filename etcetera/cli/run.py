"""Run a command line, and say how it ended."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer

from etcetera.cli.options import Options, complete_commands
from etcetera.cli.output import is_terminal, tell, to_json

OTHER_FAILURE = 1
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``etc`` and return its exit status.

    Args:
        arguments: By default those of the process.
    """
    from etcetera.cli.app import app

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _escape_what_cannot_be_encoded()
    options = Options()
    try:
        with _interruptible(options):
            status = complete_commands(app).main(
                args=arguments, prog_name="etc", standalone_mode=False, obj=options
            )
    except KeyboardInterrupt:
        status = INTERRUPTED
    except SystemExit as ending:  # completion has answered, or nobody reads what we print
        return ending.code if isinstance(ending.code, int) else OTHER_FAILURE
    except Exception as error:  # noqa: BLE001 - the last place where one can be told
        # A usage error leaves no options behind.
        options.json = options.json or "--json" in arguments
        return _failed(error, options)
    if status == INTERRUPTED:
        _say(options, "Interrupted", "interrupted", INTERRUPTED, ())
    return status or 0


def _failed(error: Exception, options: Options) -> int:
    """Say what went wrong, on one line and perhaps some notes, and return the exit status."""
    if options.verbose:
        for line in "".join(traceback.format_exception(error)).splitlines():
            tell(line)
    from etcetera.errors import EtceteraError

    name, notes = type(error).__name__, getattr(error, "__notes__", ())
    if isinstance(error, EtceteraError):
        return _say(options, name, str(error), error.exit_code, notes)
    if isinstance(error, typer.TyperException):
        message = error.format_message()
        if name == "NoArgsIsHelpError":
            typer.echo(message, err=True)
            return error.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "etc"
        hint = f"{message.rstrip('.')} ({command} --help tells more)"
        return _say(options, "UsageError", hint, error.exit_code, notes)
    message = f"unexpected {name}: {error}"
    if not options.verbose:
        message += " (run it again with -v to see where it comes from)"
    return _say(options, name, message, OTHER_FAILURE, notes)


def _say(options: Options, name: str, message: str, status: int, notes: Sequence[str]) -> int:
    if options.json:
        report: dict[str, Any] = {"error": name, "message": message, "exit_code": status}
        tell(to_json({**report, "notes": list(notes)} if notes else report))
    else:
        tell(f"etc: {message}")
        for note in notes:
            tell(f"etc: note: {note}")
    return status


@contextmanager
def _interruptible(options: Options) -> Iterator[None]:
    """Turn Ctrl-C, a request to terminate and the end of the terminal into KeyboardInterrupt.

    Cleaning up waits for the network; who asks twice does not want to, and is obeyed at once.
    """
    interrupted = False

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        nonlocal interrupted
        # Not through a stream: the signal may have come while that was writing.
        if interrupted:
            _write_error("etc: stopped at once; an upload may be left open in the repository")
            os._exit(INTERRUPTED)
        interrupted = True
        if not options.json:
            _write_error("etc: cleaning up; interrupt once more to stop at once")
        raise KeyboardInterrupt

    previous = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        # Whoever started us may want us not to listen: nohup, a shell's background jobs.
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _write_error(line: str) -> None:
    # After the ^C and the progress bar that stand on the terminal's line.
    start = "\n" if is_terminal(sys.stderr) else ""
    try:
        os.write(2, f"{start}{line}\n".encode())
    except OSError:
        return


def _escape_what_cannot_be_encoded() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
