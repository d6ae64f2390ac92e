"""``etc doctor``: what is wrong with the settings, the home and a repository, and what to do."""

import logging
import stat
from dataclasses import replace

from etcetera.api import loaded
from etcetera.config import Config
from etcetera.config_file import exposures
from etcetera.errors import ConfigError, EtceteraError
from etcetera.findings import (
    Diagnosis,
    Finding,
    failure,
    fine,
    problem,
    reporting,
    unknown,
    warning,
)
from etcetera.stores import open_store
from etcetera.stores.file_doctor import is_writable, look_at, try_out, why_not_writable
from etcetera.transfer.flow import in_thread

_logger = logging.getLogger("etcetera")


async def adoctor(
    config: Config | None = None, *, repository: str | None = None, write: bool = False
) -> Diagnosis:
    """Say what is wrong with the settings, the home and a repository; never raise it.

    Args:
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.
        write: Try also what has to be written, at home and in the repository: some 6 MiB under a
            name that no dataset has, removed again however this ends. Else nothing is written.

    Returns:
        What was found, in the order in which it was looked at.
    """
    try:
        config = await loaded(config)
    except ConfigError as error:
        return without_settings(error)
    findings = await in_thread(_look_at_settings, config)
    findings += await in_thread(_look_at_home, config, write)
    if repository is None and config.url is None:
        findings.append(_no_repository(config))
        return Diagnosis(findings=tuple(findings))
    try:
        async with open_store(config.repository(repository)) as store:
            _logger.info("Examining the repository %s", store.url)
            findings += await store.examine(write=write)
    except EtceteraError as error:
        findings.append(failure("repository", error))
    return Diagnosis(findings=tuple(findings))


def without_settings(error: ConfigError) -> Diagnosis:
    """Say that the settings cannot be used, so that nothing else can be looked at."""
    found = failure("settings", error)
    return Diagnosis(
        findings=(replace(found, advice=f"{found.advice}; nothing else can be checked before"),)
    )


def _look_at_settings(config: Config) -> list[Finding]:
    if config.filename is None:
        return [fine("settings", "there is no ~/.etc.toml: defaults and the environment count")]
    findings: list[Finding] = []
    with reporting(findings, "settings"):
        findings += [
            warning("settings", what, advice) for what, advice in exposures(config.filename)
        ]
    return findings or [fine("settings", f"{config.filename} can be used")]


def _look_at_home(config: Config, write: bool) -> list[Finding]:
    home = config.home
    findings, there = look_at(home, "home")
    if there is None:
        return findings
    if not is_writable(there):
        what = f"{home} cannot be {'written' if there == home else 'made'}"
        what += f": {why_not_writable(there)}"
        advice = "check who owns it and its permissions, or set another home"
        return [problem("home", what, advice), *findings]
    exists = "is there" if there == home else "is made when something is to be written there"
    findings.insert(0, fine("home", f"{home} {exists}"))
    if there == home and stat.S_IMODE(home.stat().st_mode) & stat.S_IWOTH:
        what = f"everybody on this machine can replace or delete what is in {home}"
        findings.append(warning("home permissions", what, f"chmod o-w {home}"))
    if write:
        return findings + try_out(there, "home", links=False)
    advice = "etc doctor --write tries it"
    return [*findings, unknown("home writing", "locks, names and syncing were not tried", advice)]


def _no_repository(config: Config) -> Finding:
    others = ", ".join(config.repositories())
    file = config.filename or "~/.etc.toml"
    return warning(
        "repository",
        "none is configured as the default: local commands work, push and pull do not",
        f'write url = "s3://bucket/prefix" (or gs://, file://) to {file}'
        + (f", or choose one with --repository: {others}" if others else ""),
    )
