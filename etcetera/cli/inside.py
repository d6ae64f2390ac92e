"""Commands that look inside a dataset."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from etcetera.cli.app import Remote, RemoteRepository, app, log_repository
from etcetera.cli.completion import described_names
from etcetera.cli.options import Options
from etcetera.cli.output import (
    columns,
    human_count,
    human_size,
    human_time,
    is_terminal,
    show,
    show_bytes,
    show_cells,
    show_json,
)

if TYPE_CHECKING:
    from etcetera.config import Config
    from etcetera.results import DatasetSizes, EntryInfo, PartitionSizes

_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 16
"""Bytes of a line that are shown as one: some files have no lines."""
_LARGEST_PAGE = 1 << 16
"""Bytes of Markdown that are rendered; what is behind them is shown as it is."""

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Of a dataset.", autocompletion=described_names)
]


@app.command(
    epilog="""
\b
Examples:
  etc cat flowers README.md
  etc cat -r flowers data/train/labels.csv | head    fetches no more than it needs
"""
)
def cat(
    context: typer.Context,
    name: Name,
    path: Annotated[str, typer.Argument(metavar="PATH", help="As etc ls NAME shows it.")],
    remote: Remote = False,
    repository: RemoteRepository = None,
) -> None:
    """Write one file of a dataset to the standard output, as it is also with --json.

    On a terminal, Markdown is rendered, the first 64 KiB of it.
    """
    config = Options.of(context).load()
    from etcetera import blocking, inside
    from etcetera.repository import split_name

    if not (remote or repository or ":" in name):
        with inside.open_local(name, path, config) as file:
            _write(file, path)
        return
    log_repository(config, split_name(name, repository)[0])
    with (
        blocking.remote(name, config, repository=repository) as dataset,
        dataset.open(path) as file,
    ):
        _write(file, path)


def _write(file: BinaryIO, path: str) -> None:
    if not is_terminal():
        while chunk := file.read(_CHUNK):
            show_bytes(chunk)
        return
    start = file.read(_LARGEST_PAGE)
    if b"\0" in start:
        from etcetera.errors import UsageError

        raise UsageError(f"{path} is no text: write it to a file (etc cat ... > FILE)")
    shown = 0
    if path.lower().endswith(".md"):
        from etcetera.cli.page import show_markdown

        page = start
        if len(start) == _LARGEST_PAGE:  # up to the end of a paragraph, or else of a line
            page = start[: max(start.rfind(b"\n\n"), start.rfind(b"\n", len(start) // 2)) + 1]
        if show_markdown(page.decode(errors="replace")):
            shown = len(page)
    file.seek(shown)
    while line := file.readline(_LONGEST_LINE):
        show(line.decode(errors="surrogateescape").rstrip("\r\n"))


@app.command(
    epilog="""
\b
Examples:
  etc du flowers
  etc du -r flowers    what each partition takes in the archive as well
"""
)
def du(
    context: typer.Context,
    name: Name,
    remote: Remote = False,
    repository: RemoteRepository = None,
) -> None:
    """Show what each partition takes."""
    options = Options.of(context)
    config = options.load()
    from etcetera import blocking

    _log_looking(config, name, remote=remote, repository=repository)
    _show_sizes(options, blocking.sizes(name, remote, config, repository=repository))


def _show_sizes(options: Options, found: "DatasetSizes") -> None:
    if options.json:
        show_json(asdict(found))
        return
    from etcetera.results import PartitionSizes

    rows = [*found.partitions.items()]
    if found.other.files:
        rows.append(("(elsewhere)", found.other))
    rows.append(("(all)", PartitionSizes(found.files, found.bytes, found.archive_bytes)))
    if is_terminal():
        for line in columns([_size_cells(*row) for row in rows], right=frozenset({1, 2, 3, 4})):
            show(line)
        return
    for name, size in rows:
        archive = "" if size.archive_bytes is None else str(size.archive_bytes)
        show_cells(name, str(size.files), str(size.bytes), archive)


def _size_cells(name: str, size: "PartitionSizes") -> tuple[str, ...]:
    archive, share = "", ""
    if size.archive_bytes is not None:
        archive = f"{human_size(size.archive_bytes)} in the archive"
        share = f"{size.archive_bytes / size.bytes:.0%}" if size.bytes else ""
    return name, human_count(size.files, "file"), human_size(size.bytes), archive, share


def list_entries(
    options: Options,
    config: "Config",
    name: str,
    path: str,
    *,
    remote: bool,
    long: bool,
    repository: str | None,
) -> None:
    """Show what lies directly in a directory of a dataset."""
    from etcetera import blocking

    _log_looking(config, name, remote=remote, repository=repository)
    found = blocking.entries(name, path, remote, config, repository=repository)
    if options.json:
        show_json([asdict(entry) for entry in found])
    elif is_terminal():
        for line in columns([_entry_cells(entry, long=long) for entry in found], frozenset({1})):
            show(line)
    else:
        for entry in found:
            more = (_time(entry), entry.kind, entry.target or "") if long else ()
            show_cells(_shown_path(entry), str(entry.bytes), *more)


def _entry_cells(entry: "EntryInfo", *, long: bool) -> tuple[str, ...]:
    cells = (_shown_path(entry), human_size(entry.bytes) if entry.kind != "link" else "")
    if not long:
        return cells
    if entry.kind == "directory":
        return (*cells, "", human_count(entry.files, "file"))
    modified = human_time(entry.modified) if entry.modified is not None else ""
    return (*cells, modified, f"link to {entry.target}" if entry.target else "")


def _shown_path(entry: "EntryInfo") -> str:
    return f"{entry.path}/" if entry.kind == "directory" else entry.path


def _time(entry: "EntryInfo") -> str:
    return "" if entry.modified is None else entry.modified.isoformat()


def _log_looking(config: "Config", name: str, *, remote: bool, repository: str | None) -> None:
    if remote or repository or ":" in name:
        from etcetera.repository import split_name

        log_repository(config, split_name(name, repository)[0])
