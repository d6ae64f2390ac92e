"""The command that shares."""

from typing import TYPE_CHECKING, Annotated

import typer

from etcetera.cli.app import Repository, app
from etcetera.cli.completion import remote_names
from etcetera.cli.options import Options
from etcetera.cli.output import human_size, human_time, show, show_json, tell

if TYPE_CHECKING:
    from etcetera.results import ShareResult


@app.command(
    epilog="""
\b
Examples:
  etc share flowers                    a link that works for seven days
  etc share flowers --expires 12h
  etc share flowers --partition val    a link that opens this partition alone
"""
)
def share(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A remote dataset.", autocompletion=remote_names)
    ],
    expires: Annotated[
        str,
        typer.Option(
            "--expires", metavar="TIME", help="How long: 90s, 15m, 12h, or 7d, which is the most."
        ),
    ] = "7d",
    partition: Annotated[
        str | None,
        typer.Option("--partition", metavar="PARTITION", help="Open this one alone."),
    ] = None,
    repository: Repository = None,
) -> None:
    """Print a link to a remote dataset, for people without credentials.

    The first line is for etc pull, the second for a shell with curl and tar.
    """
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    result = blocking.share(name, expires, partition, config, repository=repository)
    if options.json:
        from dataclasses import asdict

        show_json(asdict(result))
        return
    show(result.url)
    show(result.command)
    if not options.quiet:
        _explain(result)


def _explain(result: "ShareResult") -> None:
    """Say who can do what with the link, and until when."""
    part = f"the partition {result.partition} of {result.name}" if result.partition else result.name
    what = f"{part} ({human_size(result.bytes)} to fetch)"
    if result.expires is None:
        tell(f"etc: Everybody can read {what}; the link does not expire")
        return
    tell(f"etc: Whoever has the link can read {what} until {human_time(result.expires)}")
    if result.temporary:
        tell(
            "etc: The credentials are temporary: the link ends with their session, if not before; "
            "one that lives longer needs a permanent key"
        )
    if result.partition:
        tell("etc: It also ends when the archive is replaced")
