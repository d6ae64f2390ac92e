"""A line of an index, before it is believed: how much may be in it, and of which kind."""

import json
from typing import Any, NamedTuple

from etcetera.errors import CorruptArchive


class Form(NamedTuple):
    """How much a line of the index may hold."""

    lists: int
    objects: int
    keys: int
    strings: int
    """At most, keys not counted."""
    values: int
    """In all lists and objects, at most."""


def check_simple(line: bytes, what: str, form: Form) -> None:
    """Refuse a line with more in it than its form has, before it is parsed.

    Millions of values fit into a few bytes, and parsing them would stall every thread. In strings
    brackets and braces are written as escapes, so all of them count; commas and colons only count
    outside of strings.

    Raises:
        CorruptArchive: There is more.
    """
    if line.count(b"[") != form.lists or line.count(b"{") != form.objects:
        raise wrong_line(what)
    if b"\\" in line:
        line = line.replace(rb"\\", b"").replace(rb"\"", b"")
    # First, since it bounds the pieces.
    if line.count(b'"') > 2 * (form.keys + form.strings):
        raise wrong_line(what)
    structure = b"".join(line.split(b'"')[::2])
    if structure.count(b":") > form.keys or structure.count(b",") > form.keys + form.values:
        raise wrong_line(what)


def parse_line(line: bytes, what: str) -> dict[str, Any]:
    """Return the object that a line holds.

    Raises:
        CorruptArchive: It is none.
    """
    try:
        return dictionary(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise wrong_line(what) from error


def dictionary(value: object) -> dict[str, Any]:
    """Return *value* if it is an object.

    Raises:
        CorruptArchive: It is none.
    """
    if not isinstance(value, dict):
        raise wrong_line("a line is not as specified")
    return value


def list_of(value: object) -> list[Any]:
    """Return *value* if it is a list.

    Raises:
        CorruptArchive: It is none.
    """
    if not isinstance(value, list):
        raise wrong_line("a line is not as specified")
    return value


def numbers(value: object, count: int, what: str) -> list[int]:
    """Return *value* if it is a list of *count* numbers from 0 to 2**63 - 1.

    Raises:
        CorruptArchive: It is none.
    """
    if not integers(value, count):
        raise wrong_line(what)
    return list_of(value)


def integers(value: object, count: int) -> bool:
    """Whether *value* is a list of *count* numbers from 0 to 2**63 - 1."""
    return (
        isinstance(value, list)
        and len(value) == count
        and (not value or set(map(type, value)) == {int})
        and (not value or (min(value) >= 0 and max(value) < 1 << 63))
    )


def strings(value: object, count: int) -> bool:
    """Whether *value* holds so many strings."""
    return (
        isinstance(value, list)
        and len(value) == count
        and (not value or set(map(type, value)) == {str})
    )


def is_sha256(value: object) -> bool:
    """Whether *value* is written as a SHA-256 is."""
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def wrong_line(what: str) -> CorruptArchive:
    """Return the error for a line that is not as specified."""
    return CorruptArchive(f"archive is corrupt: its index does not fit it ({what})")
