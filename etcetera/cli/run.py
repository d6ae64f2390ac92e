"""Run a command line, and say how it ended."""

import atexit
import gc
import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import typer

from etcetera.cli.interruption import INTERRUPTED
from etcetera.cli.options import Options, complete_commands
from etcetera.cli.output import tell, to_json

OTHER_FAILURE = 1

_SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter while others want it."""


def run(arguments: Sequence[str]) -> int:
    """Run ``etc`` with *arguments* and return its exit status."""
    # These register their commands.
    from etcetera.cli import checks, cleaning, doctor, inside, sharing  # noqa: F401
    from etcetera.cli.app import app

    began = perf_counter()
    _escape_what_cannot_be_encoded()
    options = Options()
    try:
        status = complete_commands(app).main(
            args=list(arguments), prog_name="etc", standalone_mode=False, obj=options
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
        _say(options, "Interrupted", "Interrupted", INTERRUPTED)
    logging.getLogger("etcetera").info("All that took %.2f s", perf_counter() - began)
    return status or 0


def _failed(error: Exception, options: Options) -> int:
    """Say what went wrong, on one line and perhaps some more, and return the exit status."""
    from etcetera.errors import EtceteraError

    name = type(error).__name__
    if isinstance(error, EtceteraError):
        return _say(options, name, str(error), error.exit_code, error)
    if isinstance(error, typer.TyperException):
        message = error.format_message()
        if name == "NoArgsIsHelpError":
            typer.echo(message, err=True)
            return error.exit_code
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "etc"
        hint = f"{message.rstrip('.')} ({command} --help tells more)"
        return _say(options, "UsageError", hint, error.exit_code)
    message = f"Unexpected {name}: {error}"
    if not options.verbose:
        message += " (run it again with -v to see where it comes from)"
    return _say(options, name, message, OTHER_FAILURE, error)


def _say(
    options: Options, name: str, message: str, status: int, error: Exception | None = None
) -> int:
    """Print a message, the notes of *error*, and where it was raised if that is asked for."""
    notes = list(getattr(error, "__notes__", ()))
    trace = _trace(error) if error is not None and options.verbose else []
    if options.json:
        report: dict[str, Any] = {"error": name, "message": message, "exit_code": status}
        more = {"notes": notes, "traceback": trace}
        tell(to_json(report | {key: value for key, value in more.items() if value}))
        return status
    tell(f"etc: {message}")
    for note in notes:
        tell(f"etc: note: {note}")
    for line in trace:
        tell(line)
    return status


def _trace(error: Exception) -> list[str]:
    """Return the lines of a traceback; of an error raised on purpose only those of our own code."""
    from etcetera.errors import EtceteraError

    whole = traceback.TracebackException.from_exception(error)
    if isinstance(error, EtceteraError):
        _keep_own_frames(whole)
    return "".join(whole.format()).splitlines()


def _keep_own_frames(trace: traceback.TracebackException | None) -> None:
    package = f"{Path(__file__).parent.parent}/"
    while trace is not None:
        own = [frame for frame in trace.stack if frame.filename.startswith(package)]
        trace.stack = traceback.StackSummary.from_list(own or trace.stack[-1:])
        trace = trace.__cause__ or (None if trace.__suppress_context__ else trace.__context__)


def _escape_what_cannot_be_encoded() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def use_whole_process() -> None:
    """Tune the interpreter for a process that does one thing and ends."""
    # Importing, and lists of a million files, make much that is no garbage.
    gc.set_threshold(100_000, 20, 100)
    # Threads that pack need the interpreter often and briefly, also while another imports.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What is left at the end goes with the process: looking through it takes longer than it gives.
    atexit.register(gc.freeze)
