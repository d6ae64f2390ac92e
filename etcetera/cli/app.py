"""The commands."""

import logging
from typing import TYPE_CHECKING, Annotated

import typer

from etcetera.cli import render
from etcetera.cli.completion import described_names, local_names, remote_names
from etcetera.cli.interruption import cleaning_up
from etcetera.cli.options import Options, shared
from etcetera.cli.output import tell

if TYPE_CHECKING:
    from pathlib import Path

    from etcetera.config import Config

_logger = logging.getLogger("etcetera")

# The plain help is there in half the time of the one with frames.
app = typer.Typer(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.callback(
    epilog="""
\b
Examples:
  etc register ./images as flowers   make a directory a dataset
  etc push flowers                   publish it
  etc pull flowers                   install it, on another machine
  etc --json ls -r | jq              what the repository has, for programs

\b
Exit status:
  0  done                      5  not allowed
  1  another failure           6  network
  2  wrong usage or settings   7  no valid dataset or archive
  3  not found                 8  no space
  4  exists already          130  interrupted (Ctrl-C, or asked to terminate)
"""
)(shared)

Remote = Annotated[
    bool, typer.Option("-r", "--remote", help="Look into the repository, not at home.")
]
Repository = Annotated[
    str | None,
    typer.Option(
        "--repository",
        metavar="REPOSITORY",
        help="Another one than the default, as [repositories.REPOSITORY] describes it.",
    ),
]
RemoteRepository = Annotated[
    str | None,
    typer.Option(
        "--repository",
        metavar="REPOSITORY",
        help="Look into this one, as [repositories.REPOSITORY] describes it; -r is implied.",
    ),
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace what has the name already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


@app.command(
    epilog="""
\b
Examples:
  etc ls               local datasets
  etc ls -r --long     those in the repository, with size and date
  etc ls --repository lab    those in the repository lab
  etc ls -r flowers data/train    what is inside one of them
"""
)
def ls(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Look into this one.", autocompletion=described_names
        ),
    ] = None,
    path: Annotated[
        str,
        typer.Argument(
            metavar="[PATH]", help="Of a directory in it; by default all its partitions."
        ),
    ] = "",
    remote: Remote = False,
    long: Annotated[
        bool, typer.Option("-l", "--long", help="Size, date, kind and place as well.")
    ] = False,
    repository: RemoteRepository = None,
) -> None:
    """List local or remote datasets, or what is inside one."""
    options = Options.of(context)
    config = options.load()
    if name is not None:
        from etcetera.cli.inside import list_entries

        list_entries(options, config, name, path, remote=remote, long=long, repository=repository)
        return
    if not (long or remote or repository):
        # Straight from the home: starting an event loop takes longer than the answer.
        from etcetera.home import Home

        render.names(options, Home(config.home).names())
        return
    from etcetera import blocking

    if remote or repository:
        log_repository(config, repository)
    if long:
        render.listing(options, blocking.listing(remote, config, repository=repository))
    else:
        render.names(options, blocking.ls(remote, config, repository=repository))


@app.command(
    epilog="""
\b
Examples:
  etc register ./x                  called x
  etc register ./x as SuperMNIST    called SuperMNIST
  etc register ./x SuperMNIST       the same
"""
)
def register(
    context: typer.Context,
    directory: Annotated[
        str, typer.Argument(metavar="DIR", help="With data/PARTITION directories in it.")
    ],
    name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[as] [NAME]", help="By default that of the directory."),
    ] = None,
    force: Force = False,
) -> None:
    """Make a directory a dataset, by a link: nothing is copied."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    with cleaning_up(_later(config), json=options.json):
        dataset = blocking.register(directory, _name_after_as(name or []), force, config)
    render.local(options, "Registered", dataset)


def _name_after_as(words: list[str]) -> str | None:
    match words:
        case []:
            return None
        case ["as"]:
            message = "After 'as' comes the name of the dataset"
        case [name] | ["as", name]:
            return name
        case _:
            message = "One name is enough: as NAME"
    from etcetera.errors import UsageError

    raise UsageError(message)


@app.command(
    epilog="""
\b
Examples:
  etc create flowers                    with the partitions train and test
  etc create flowers -p train -p val    with these
"""
)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the dataset.")],
    partition: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--partition",
            metavar="PARTITION",
            help="Repeat it for more; by default train and test.",
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Create an empty local dataset."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    with cleaning_up(_later(config), json=options.json):
        dataset = blocking.create(name, partition or ("train", "test"), force, config)
    render.local(options, "Created", dataset)


@app.command(
    epilog="""
\b
Examples:
  etc push flowers
  etc push flowers --dry-run    check everything, send nothing
  etc push flowers -f           replace it: only what changed is sent, if the store can copy
  etc push roses --base flowers    a new name: what flowers has already is copied there
  etc push lab:flowers          to the repository lab
"""
)
def push(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A local dataset.", autocompletion=local_names)
    ],
    force: Force = False,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="OLDNAME",
            help="A dataset in the repository that has most of the files already; by default "
            "the one that is replaced. An empty one: send everything.",
            autocompletion=remote_names,
        ),
    ] = None,
    dry_run: DryRun = False,
    repository: Repository = None,
) -> None:
    """Publish a local dataset."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.cli.progress import shown

    _announce_public(options, config, name, repository)
    left = "an upload may be left open in the repository"
    with cleaning_up(left, json=options.json), shown(options, name) as progress:
        result = blocking.push(
            name,
            force,
            config,
            repository=repository,
            base=base,
            dry_run=dry_run,
            progress=progress,
        )
    render.pushed(options, result)


def _announce_public(options: Options, config: "Config", name: str, repository: str | None) -> None:
    from etcetera.repository import split_name

    repository = split_name(name, repository)[0]
    log_repository(config, repository)
    settings = config.repository(repository)
    if settings.public and not (options.quiet or options.json):
        tell(f"etc: Everybody will be able to read {name} (public = true)")


@app.command(
    epilog="""
\b
Examples:
  etc pull flowers
  etc pull flowers -f          replace the local one
  etc pull lab:flowers         from the repository lab
  etc pull flowers --partition val                   that part of it
  etc pull flowers --include 'data/train/*.json'     these files of it
  etc pull flowers --digest sha256:...               that version, or nothing
  etc pull 'https://host/flowers.tgz?...'        what somebody shared
  etc pull https://host/download/1 as flowers    if its URL gives it no name
"""
)
def pull(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME|LINK", help="A remote dataset.", autocompletion=remote_names),
    ],
    new_name: Annotated[
        list[str] | None,
        typer.Argument(metavar="[as NAME]", help="How to call what a link leads to."),
    ] = None,
    force: Force = False,
    partition: Annotated[
        list[str] | None,
        typer.Option("-p", "--partition", metavar="PARTITION", help="Only this; repeatable."),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            "--include", metavar="PATTERN", help="Only files whose path fits this; repeatable."
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude", metavar="PATTERN", help="No files whose path fits this; repeatable."
        ),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="DIGEST", help="Refuse any other version of the data."),
    ] = None,
    dry_run: DryRun = False,
    repository: Repository = None,
) -> None:
    """Install a remote dataset, or a part of it; a later pull adds to the part."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.cli.progress import shown
    from etcetera.links import called, is_link
    from etcetera.repository import split_name

    if (given := _name_after_as(new_name or [])) is not None:
        name = called(name, given)
    source, local_name = split_name(name, repository, links=True)
    log_repository(config, source)
    left = f"what was fetched is left below {config.home}, and the next pull removes it"
    with cleaning_up(left, json=options.json), shown(options, local_name) as progress:
        result = blocking.pull(
            name,
            force,
            config,
            repository=repository,
            partitions=partition or (),
            include=include or (),
            exclude=exclude or (),
            digest=digest,
            dry_run=dry_run,
            progress=progress,
        )
    whole = None if is_link(source) else f"{source}:{local_name}" if source else local_name
    render.pulled(options, result, whole)


@app.command(
    epilog="""
\b
Examples:
  etc purge flowers
  etc purge flowers -f    even if no repository has a copy
"""
)
def purge(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A local dataset.", autocompletion=local_names)
    ],
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Even if it was never pushed or pulled.")
    ] = False,
) -> None:
    """Delete a local dataset; a registered one only loses its link."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    _refuse_remote(name)
    linked = _registered(config, name)
    with cleaning_up(_later(config), json=options.json):
        blocking.purge(name, config, force=force)
    render.purged(options, name, linked)


def _refuse_remote(name: str) -> None:
    repository, colon, local = name.rpartition(":")
    if colon and local:
        from etcetera.dataset import check_name
        from etcetera.errors import InvalidName

        check_name(local)
        check_name(repository)
        raise InvalidName(
            f"Purge is local, and leaves the repository {repository} alone: etc purge {local}"
        )


def _registered(config: "Config", name: str) -> "Path | None":
    """Return what a registered dataset links to, ``None`` for all others and for nothing."""
    from etcetera.errors import DatasetNotFound
    from etcetera.home import Home

    try:
        entry = Home(config.home).entry(name)
    except DatasetNotFound:  # purging it will say so
        return None
    return entry.path if entry.kind == "registered" and not entry.broken else None


@app.command(
    epilog="""
\b
Examples:
  etc info flowers
  etc info flowers -r --json    of the archive, reading no more than its index
  etc info flowers --checksums > SHA256SUMS    for sha256sum -c, in its directory
"""
)
def info(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Of a dataset.", autocompletion=described_names)
    ],
    remote: Remote = False,
    checksums: Annotated[
        bool,
        typer.Option(
            "--checksums", help="The SHA-256 of each file instead, as it was pushed or pulled."
        ),
    ] = False,
    repository: RemoteRepository = None,
) -> None:
    """Show partitions, files, sizes, meta and digest."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking
    from etcetera.repository import split_name

    if remote or repository or ":" in name:
        log_repository(config, split_name(name, repository, links=True)[0])
    if checksums:
        found = blocking.checksums(name, remote, config, repository=repository)
        render.checksums(options, found)
        return
    render.info(options, blocking.info(name, remote, config, repository=repository))


@app.command(
    epilog="""
\b
Examples:
  etc config
  etc --config team.toml config    what that file would mean
"""
)
def config(context: typer.Context) -> None:
    """Show the settings in force and where each came from."""
    options = Options.of(context)
    render.settings(options, options.load().settings())


@app.command()
def demo(context: typer.Context) -> None:
    """Try a whole round on an S3 server of its own.

    It happens in a temporary directory: your datasets, settings and keys are left alone.
    """
    options = Options.of(context)
    from etcetera.cli.demo import run

    run(options)


def log_repository(config: "Config", repository: str | None) -> None:
    """Tell where the archives are; the configuration and its errors are looked at in any case."""
    from etcetera.links import is_link
    from etcetera.settings import redact_url

    if repository is not None and is_link(repository):
        _logger.info("Link: %s", redact_url(repository))
        return
    settings = config.repository(repository)
    endpoint = settings.endpoint_url and redact_url(settings.endpoint_url)
    _logger.info(
        "Repository %s: %s%s",
        settings.name,
        redact_url(settings.url),
        f", at {endpoint}" if endpoint else "",
    )


def _later(config: "Config") -> str:
    return (
        f"what is left of it below {config.home} is removed by the next command that writes there"
    )
