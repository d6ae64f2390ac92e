"""The commands that say whether datasets are what, and in which version, they should be."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from etcetera.cli.app import DryRun, Remote, RemoteRepository, app, log_repository
from etcetera.cli.completion import described_names, local_names
from etcetera.cli.interruption import cleaning_up
from etcetera.cli.options import Options
from etcetera.cli.output import (
    columns,
    human_count,
    human_size,
    is_terminal,
    show,
    show_cells,
    show_for_tools,
    show_json,
    tell,
)

if TYPE_CHECKING:
    from etcetera.results import VerifyResult

_DIFFERENT = 7
"""Exit status where a check has found something, or could not pin something."""


@app.command(
    epilog="""
\b
Examples:
  etc verify flowers            every file here, against what was pushed or pulled
  etc verify flowers --quick    by size and time alone
  etc verify -r flowers         every byte of the archive in the repository

Exits with 7 if anything differs.
"""
)
def verify(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of a dataset.", autocompletion=described_names)
    ],
    remote: Remote = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes and times, and read no file.")
    ] = False,
    repository: RemoteRepository = None,
) -> None:
    """Check every file of a dataset, and list what differs."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.cli.progress import shown
    from etcetera.repository import split_name

    if remote or repository or ":" in name:
        log_repository(config, split_name(name, repository)[0])
    with shown(options, name) as progress:
        result = blocking.verify(
            name, remote, config,
            repository=repository, quick=quick, progress=progress,
        )  # fmt: skip
    _show_verified(options, result)
    if not result.ok:
        raise typer.Exit(_DIFFERENT)


def _show_verified(options: Options, result: "VerifyResult") -> None:
    if options.json:
        show_json(asdict(result) | {"ok": result.ok})
        return
    for word in ("missing", "changed", "extra"):
        for path in getattr(result, word):
            show_cells(word, path)
    if result.problem is not None:
        show_cells("problem", result.problem)
    if options.quiet:
        return
    content = f"{human_count(result.files, 'file')}, {human_size(result.bytes)}"
    how = "compared by size and time" if result.quick else "checked"
    if result.ok:
        show(f"{result.name} is as it should be: {content} {how}")
    elif result.kind == "remote":
        tell(f"etc: {result.location} is damaged: push {result.name} again from a sound copy")
    else:
        tell(f"etc: {result.name} is not as it was pushed or pulled: {content} {how}")


@app.command(
    epilog="""
\b
Examples:
  etc status
  etc status flowers

\b
same       as it was pushed or pulled, here and there
older      the repository has another version by now
changed    the local one has changed since
different  both have
absent     the repository has none
unknown    nobody can tell, and why
"""
)
def status(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="By default every local dataset.", autocompletion=local_names
        ),
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(
            "--repository",
            metavar="REPOSITORY",
            help="Compare with this one, not the one each was pushed to or pulled from.",
        ),
    ] = None,
) -> None:
    """Compare local datasets with those in the repository."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    found = blocking.status(name, config, repository=repository)
    if options.json:
        show_json([asdict(one) for one in found])
        return
    rows = [(one.name, one.state, one.reason or one.repository or "") for one in found]
    if is_terminal():
        for line in columns(rows) if rows else ():
            show(line)
    else:
        for row in rows:
            show_cells(*row)


@app.command(
    epilog="""
\b
Examples:
  etc lock > etc.lock            every dataset that is here
  etc lock flowers > etc.lock    these

What was never pushed or pulled, has changed since, or is only a part is left out; the exit status
is 7 then.
"""
)
def lock(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="By default all local ones.", autocompletion=local_names
        ),
    ] = None,
) -> None:
    """Print names and digests of what is here, for etc sync."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    found = blocking.lock(names or (), config)
    if options.json:
        show_json(asdict(found))
    else:
        for line in str(found).splitlines():
            show_for_tools(line)
    for name, reason in found.left_out.items():
        tell(f"etc: Left out: {name} {reason}")
    if found.left_out:
        raise typer.Exit(_DIFFERENT)


@app.command(
    epilog="""
\b
Examples:
  etc sync etc.lock
  etc sync etc.lock --dry-run    only say what would be done

Datasets that the file does not name are left alone.
"""
)
def sync(
    context: typer.Context,
    filename: Annotated[str, typer.Argument(metavar="FILE", help="From etc lock.")],
    dry_run: DryRun = False,
) -> None:
    """Have exactly the versions that a lock file names."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.cli.progress import shown

    left = f"what was fetched is left below {config.home}, and the next pull removes it"
    with cleaning_up(left, json=options.json), shown(options, filename) as progress:
        found = blocking.sync(filename, config, dry_run=dry_run, progress=progress)
    if options.json:
        show_json([asdict(one) for one in found])
        return
    if options.quiet:
        return
    words = {"pull": "Pulled", "replace": "Replaced", "nothing": "Up to date:"}
    if dry_run:
        words |= {"pull": "Would pull", "replace": "Would replace"}
    for one in found:
        show(f"{words[one.action]} {one.name}")
        if one.kept is not None:
            show(f"  the dataset it replaced is in no repository, and kept: {one.kept}")
