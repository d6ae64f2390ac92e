"""Partial answers: the parameter ``fields`` of the JSON API."""

from typing import Any

from tests.fake_gs.errors import invalid


def select(found: Any, wanted: str) -> Any:
    """Return only what is wanted: ``items(name,size),nextPageToken``, ``a/b``, ``*``."""
    return _pick(found, _parse(wanted))


Tree = dict[str, "Tree"]


def _parse(text: str) -> Tree:
    tree, rest = _list(text)
    if rest:
        raise invalid(f"Invalid field selection {text}", "invalidParameter")
    return tree


def _list(text: str) -> tuple[Tree, str]:
    """Read up to the end or a closing parenthesis, and return what comes after."""
    tree: Tree = {}
    while text and text[0] != ")":
        name = ""
        while text and text[0] not in ",()/":
            name, text = name + text[0], text[1:]
        inner: Tree = {}
        if text.startswith("("):
            inner, text = _list(text[1:])
            if not text:
                raise invalid("Invalid field selection", "invalidParameter")
            text = text[1:]
        elif text.startswith("/"):
            head, text = _single(text[1:])
            inner = head
        tree[name.strip()] = inner
        text = text.removeprefix(",")
    return tree, text


def _single(text: str) -> tuple[Tree, str]:
    """Read one name and what is under it."""
    depth = 0
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth < 0 or (letter == "," and not depth):
            return _list(text[:position])[0], text[position:]
    return _list(text)[0], ""


def _pick(found: Any, tree: Tree) -> Any:
    if not tree or "*" in tree:
        return found
    if isinstance(found, list):
        return [_pick(one, tree) for one in found]
    if not isinstance(found, dict):
        return found
    return {key: _pick(found[key], inner) for key, inner in tree.items() if key in found}
