"""Imports point one way: cli → blocking → api → home, repository → transfer → stores."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import etcetera

ROOT = Path(etcetera.__file__).parent
MODULES = {
    ".".join(("etcetera", *path.relative_to(ROOT).with_suffix("").parts)): path
    for path in sorted(ROOT.rglob("*.py"))
}

LAYERS = ("stores", "transfer", "home", "api", "blocking", "cli")
KNOWN_TO_ALL = {
    "errors", "settings", "config_file", "config", "dataset", "findings", "progress", "atomic",
    "space", "crc", "unseen", "times", "transfer.options", "transfer.paths", "transfer.descend",
}  # fmt: skip
"""What every layer may import; these import nothing but each other."""
API = {"cleaning", "diagnosis", "inside", "sharing", "verification", "versions"}
"""What belongs to the layer of ``api``."""
TOP = {"__init__", "__main__"}
OUTSIDE = {
    "aiobotocore": ("stores.s3", "cli.demo"),
    "botocore": ("stores.s3", "cli.demo"),
    "aiohttp": ("stores",),
    "yarl": ("stores",),
    "typer": ("cli",),
    "rich": ("cli",),
    "tomli": ("config_file",),
    "google": ("stores.gs_credentials", "stores.gs_transport"),
    "crc32c": ("stores.gs_checksum",),
    "moto": ("cli.demo",),
    "fsspec": ("filesystem",),
}
"""Who may import what others wrote."""


def imported(path: Path, *, loading: bool = False) -> Iterator[str]:
    """Every module that a file imports (or only when it is loaded); names that may be one, too."""
    tree = ast.parse(path.read_text())
    for node in tree.body if loading else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in {path}"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    """The number of a module's layer, from the bottom; ``None`` for what all may know."""
    name = module.removeprefix("etcetera.").removesuffix(".__init__")
    if name in KNOWN_TO_ALL:
        return None
    top = name.split(".")[0]
    if top in API:
        return LAYERS.index("api")
    if top == "filesystem":
        return LAYERS.index("cli")  # it faces users, too
    # What else lies at the top serves local and remote datasets.
    return LAYERS.index(top) if top in LAYERS else LAYERS.index("home")


@pytest.mark.parametrize("module", MODULES)
def test_one_way(module: str) -> None:
    """No module imports from a layer above its own."""
    if module.rpartition(".")[2] in TOP and module.count(".") == 1:
        return
    mine = layer(module)
    for name in imported(MODULES[module]):
        known = name in MODULES or f"{name}.__init__" in MODULES
        if not known or name == "etcetera":
            continue
        theirs = layer(name)
        if theirs is None or name == "etcetera.transfer":
            continue
        assert mine is not None, f"{module} is known to all, but imports {name}"
        assert theirs <= mine, f"{module} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_who_knows_what(module: str) -> None:
    """Each foreign library is known in one place."""
    name = module.removeprefix("etcetera.")
    for foreign in imported(MODULES[module]):
        allowed = OUTSIDE.get(foreign.split(".")[0])
        assert allowed is None or name.startswith(allowed), f"{module} imports {foreign}"


def test_no_circles_between_modules() -> None:
    """No module imports itself by way of others, when it is loaded."""
    graph = {
        module: {name for name in imported(path, loading=True) if name in MODULES}
        for module, path in MODULES.items()
        if not module.endswith(("__init__", "__main__"))
    }
    done: set[str] = set()
    while ready := {
        name for name in graph if name not in done and graph[name] & set(graph) <= done
    }:
        done |= ready
    assert set(graph) - done == set()
