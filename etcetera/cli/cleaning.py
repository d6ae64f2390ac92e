"""``etc clean``."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from etcetera.cli.app import DryRun, Remote, RemoteRepository, app
from etcetera.cli.interruption import cleaning_up
from etcetera.cli.options import Options
from etcetera.cli.output import columns, human_size, human_time, show, show_json

if TYPE_CHECKING:
    from etcetera.results import Leftover


@app.command(
    epilog="""
\b
Examples:
  etc clean --dry-run          only list what would be removed
  etc clean                    what nobody will go on with, at home
  etc clean --force            also what could be gone on with
  etc clean -r                 uploads in the repository that came to a stop 7 days ago
"""
)
def clean(
    context: typer.Context,
    remote: Remote = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="DAYS", help="By default 7; at least 1.")
    ] = "7",
    force: Annotated[
        bool,
        typer.Option("-f", "--force", help="Also what could be gone on with; only at home."),
    ] = False,
    dry_run: DryRun = False,
    repository: RemoteRepository = None,
) -> None:
    """Remove what interrupted transfers left."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.errors import UsageError

    if force and (remote or repository):
        raise UsageError("--force is for what is at home; in a repository --older-than decides")
    with cleaning_up("some of it may be left", json=options.json):
        found = blocking.clean(
            remote,
            config,
            repository=repository,
            older_than=_days(older_than),
            force=force,
            dry_run=dry_run,
        )
    _show(options, found, dry_run)


def _days(text: str) -> float:
    from etcetera.cleaning import check_age
    from etcetera.errors import UsageError

    try:
        days = float(text.removesuffix("d"))
    except ValueError as error:
        raise UsageError(f"--older-than takes a number of days, not {text!r}") from error
    check_age(days, "--older-than")
    return days


def _show(options: Options, found: "list[Leftover]", dry_run: bool) -> None:
    if options.json:
        show_json([asdict(one) for one in found])
    elif not options.quiet:
        verb = "would remove" if dry_run else "removed"
        rows = [
            (
                verb if one.removed else "left",
                one.kind,
                one.name,
                human_size(one.bytes),
                human_time(one.modified),
                one.reason,
                one.place,
            )
            for one in found
        ]
        for line in columns(rows, right=frozenset({3})) if rows else ["Nothing to remove"]:
            show(line)
