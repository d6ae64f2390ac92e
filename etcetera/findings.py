"""What ``etc doctor`` finds, in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import anyio

from etcetera.errors import ConfigError, EtceteraError, NotAllowed

RESERVED = ".etcetera-doctor-"
"""What everything is called, with a random end, that a check makes and removes again."""
IS_FOUND = {"is_found": True}
"""Marks what is logged and is among what is found as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check has found."""

    check: str
    """What was looked at, in a word or two."""
    status: Literal["ok", "warning", "problem", "unknown"]
    """``warning``: it works, but something is missing; ``unknown``: nobody could tell."""
    message: str
    """What is so, and what that means."""
    advice: str = ""
    """What to do; empty if there is nothing to be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that was found."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem; there may be warnings."""
        return all(finding.status != "problem" for finding in self.findings)


def fine(check: str, message: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """Say that something works, but not as well as it could."""
    return Finding(check=check, status="warning", message=message, advice=advice)


def problem(check: str, message: str, advice: str) -> Finding:
    """Say that something does not work."""
    return Finding(check=check, status="problem", message=message, advice=advice)


def unknown(check: str, message: str, advice: str = "") -> Finding:
    """Say that nothing could be found out."""
    return Finding(check=check, status="unknown", message=message, advice=advice)


def failure(check: str, error: EtceteraError) -> Finding:
    """Say that a check failed; most errors of etcetera end with what to do."""
    message, _, advice = str(error).rpartition("; ")
    if not message:
        message, advice = advice, _otherwise(error)
    return problem(check, message, "; ".join((advice, *getattr(error, "__notes__", ()))))


def _otherwise(error: EtceteraError) -> str:
    if isinstance(error, ConfigError):
        return "correct it, in the settings or on the command line"
    if isinstance(error, NotAllowed):
        return "check who owns it and its permissions"
    return "try again; if it stays so, ask whoever runs the server or the machine"


@contextmanager
def reporting(findings: list[Finding], check: str) -> Iterator[None]:
    """Add to *findings* what goes wrong, instead of raising it."""
    try:
        yield
    except EtceteraError as error:
        findings.append(failure(check, error))


@contextmanager
def within(seconds: float, findings: list[Finding]) -> Iterator[None]:
    """Give up after so many seconds, and add that to *findings*."""
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        findings.append(
            problem(
                "speed",
                "the server is so slow that not everything could be tried",
                "try again; if it stays so, ask whoever runs the server",
            )
        )
