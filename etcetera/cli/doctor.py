"""``etc doctor``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from etcetera.cli.app import Repository, app
from etcetera.cli.interruption import cleaning_up
from etcetera.cli.logs import not_twice
from etcetera.cli.options import Options
from etcetera.cli.output import columns, is_terminal, show, show_cells, show_json

if TYPE_CHECKING:
    from etcetera.findings import Diagnosis

_PROBLEM = 7
"""Exit status where a check has found something that does not work."""


@app.command(
    epilog="""
\b
Examples:
  etc doctor             settings, home, credentials, clock, endpoint, reading
  etc doctor --write     also what a push relies on
  etc doctor --repository lab

Without --write nothing is written. With it some 6 MiB are sent, under a name that no dataset has
and nobody else can read, and removed again.

\b
ok        as it should be
warning   it works, but something is missing
problem   it does not work; exits with 7 then
unknown   nobody could tell
"""
)
def doctor(
    context: typer.Context,
    write: Annotated[
        bool, typer.Option("--write", help="Try also what has to be written, and remove it again.")
    ] = False,
    repository: Repository = None,
) -> None:
    """Say what is wrong with settings, home and repository, and what to do."""
    options = Options.of(context)
    from etcetera.errors import ConfigError

    try:
        with not_twice():
            config = options.load()
    except ConfigError as error:
        from etcetera.diagnosis import without_settings

        found = without_settings(error)
    else:
        from etcetera import blocking
        from etcetera.findings import RESERVED

        left = f"{RESERVED}… may be left in the repository"
        with not_twice(), cleaning_up(left, json=options.json):
            found = blocking.doctor(config, repository=repository, write=write)
    _show(options, found)
    if not found.ok:
        raise typer.Exit(_PROBLEM)


def _show(options: Options, found: "Diagnosis") -> None:
    if options.json:
        show_json(asdict(found) | {"ok": found.ok})
        return
    shown = [one for one in found.findings if one.status != "ok" or not options.quiet]
    if is_terminal():
        rows: list[tuple[str, str, str]] = []
        for one in shown:
            rows.append((one.status, one.check, one.message))
            if one.advice:
                rows.append(("", "", f"→ {one.advice}"))
        for line in columns(rows) if rows else ():
            show(line)
        return
    for one in shown:
        show_cells(one.status, one.check, one.message, one.advice)
