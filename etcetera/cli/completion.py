"""Names that the shell offers when Tab is pressed; whatever goes wrong, it offers none."""

import re
from typing import TYPE_CHECKING

import typer

from etcetera.cli.options import Options

if TYPE_CHECKING:
    from etcetera.config import Config

_REMOTE_SECONDS = 3.0
"""How long to wait for a repository."""
# Shells insert a name as it is: whatever one of them understands would be obeyed.
_PLAIN = re.compile(r"[\w.,+@%][\w.,+@%=-]*")


def local_names(context: typer.Context) -> list[str]:
    """Offer the local datasets."""
    try:
        return _shown(_local_names(context))
    except Exception:  # noqa: BLE001 - the user is typing: nothing may disturb
        return []


def remote_names(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the datasets of the repository."""
    try:
        repository, colon, _ = incomplete.rpartition(":")
        repository = repository or context.params.get("repository") or ""
        prefix = f"{repository}:" if colon else ""
        return [prefix + name for name in _shown(_remote_names(context, repository or None))]
    except Exception:  # noqa: BLE001
        return []


def described_names(context: typer.Context, incomplete: str) -> list[str]:
    """Offer the datasets that ``info`` would look for."""
    if context.params.get("remote") or context.params.get("repository") or ":" in incomplete:
        return remote_names(context, incomplete)
    return local_names(context)


def _local_names(context: typer.Context) -> list[str]:
    from etcetera.home import Home

    return Home(_config(context).home).names()


def _remote_names(context: typer.Context, repository: str | None) -> list[str]:
    config = _config(context)
    import anyio

    from etcetera.api import als

    async def names() -> list[str]:
        with anyio.fail_after(_REMOTE_SECONDS):
            return await als(remote=True, config=config, repository=repository)

    return anyio.run(names)


def _config(context: typer.Context) -> "Config":
    import logging

    # A warning would appear in the middle of the line that is being typed.
    logging.getLogger("etcetera").disabled = True
    return Options.of(context).read()


def _shown(names: list[str]) -> list[str]:
    """Leave out what a shell, a terminal or we ourselves would take for more than a name."""
    return [name for name in names if _PLAIN.fullmatch(name)]
