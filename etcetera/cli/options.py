"""Options that every command accepts, before or after its name."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

from etcetera.cli.output import show, show_json

if TYPE_CHECKING:
    from etcetera.config import Config


@dataclass(slots=True)
class Options:
    """What was asked for, whatever the command."""

    verbose: bool = False
    quiet: bool = False
    json: bool = False
    config: str | None = None
    home: str | None = None
    url: str | None = None

    @classmethod
    def of(cls, context: typer.Context) -> "Options":
        """Return the options of the command line that is being run."""
        return context.find_root().ensure_object(cls)

    def load(self) -> "Config":
        """Return the settings in force, and have whatever is logged from now on shown."""
        from etcetera.cli.logs import show_logs

        show_logs(self)
        return self.read()

    def read(self) -> "Config":
        """Return the settings in force."""
        from etcetera.config import Config

        return Config.load(self.config, home=self.home, url=self.url)


def _remember(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    # An empty text was given, too: what it means is not what leaving it out means.
    if value is not None and value is not False:
        setattr(Options.of(context), str(parameter.name), value)
    return value


def _version(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        from etcetera import __version__

        if Options.of(context).json:
            show_json({"version": __version__})
        else:
            show(f"etcetera {__version__}")
        raise typer.Exit


def _help(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        for line in context.get_help().splitlines():
            show(line)
        raise typer.Exit


def _option(*names: str, metavar: str | None = None, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's word
    return typer.Option(
        *names, metavar=metavar, help=help, callback=_remember, expose_value=False, **more
    )


def shared(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_version),
    ] = False,
    verbose: Annotated[
        bool, _option("--verbose", "-v", help="Show what is going on, and tracebacks of errors.")
    ] = False,
    quiet: Annotated[
        bool,
        _option("--quiet", "-q", help="No progress and no summaries, only results and errors."),
    ] = False,
    json: Annotated[
        bool,
        _option(
            "--json",
            help="Results as JSON; errors too, on the standard error.",
            is_eager=True,  # the version is a result, too
        ),
    ] = False,
    config: Annotated[
        str | None,
        _option(
            "--config", metavar="FILE", help="Settings, instead of $ETC_CONFIG or ~/.etc.toml."
        ),
    ] = None,
    home: Annotated[
        str | None,
        _option("--home", metavar="DIR", help="Local datasets, instead of $ETC_HOME or ~/.etc."),
    ] = None,
    url: Annotated[
        str | None,
        _option("--url", metavar="URL", help="The default repository, instead of $ETC_URL."),
    ] = None,
    show_help: Annotated[
        bool,
        typer.Option(
            "-h",
            "--help",
            help="Show this message and exit.",
            callback=_help,
            expose_value=False,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Share datasets through a bucket: pack, upload, fetch and unpack in one go."""


def complete_commands(app: typer.Typer) -> TyperGroup:
    """Return the commands of *app*, each accepting what comes before its name after it as well."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)  # noqa: S101 - it has a callback and several commands
    names = (*Options.__dataclass_fields__, "show_help")
    everywhere = [parameter for parameter in group.params if parameter.name in names]
    for command in group.commands.values():
        command.params.extend(everywhere)
    for command in (group, *group.commands.values()):
        command.add_help_option = False  # one of Typer's own would be no light one, see below
        for parameter in command.params:
            if not isinstance(parameter.process_value, partial):
                _take_as_it_is(parameter)
    return group


def _take_as_it_is(parameter: Any) -> None:
    """Have the value of a parameter, a flag or a text, reach the command as it is.

    Typer has pydantic validate it, even if it was not given: importing that takes longer than all
    the rest of ``etc ls``.
    """
    parameter.process_value = partial(_process, parameter, parameter.process_value)


def _process(
    parameter: TyperArgument | TyperOption, original: Any, context: typer.Context, value: Any
) -> Any:
    if parameter.required and not value and not context.resilient_parsing:
        return original(context, value)  # which says what is missing
    return value if parameter.callback is None else parameter.callback(context, parameter, value)
