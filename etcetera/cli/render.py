"""Results, as text for people or as JSON for programs."""

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from etcetera.cli.output import (
    columns,
    exact_size,
    human_count,
    human_size,
    human_time,
    is_terminal,
    show,
    show_cells,
    show_for_tools,
    show_json,
    to_json,
)

if TYPE_CHECKING:
    from pathlib import Path

    from etcetera.cli.options import Options
    from etcetera.config import Setting
    from etcetera.dataset import Dataset
    from etcetera.results import DatasetInfo, Listing, PartitionInfo, PullResult, PushResult


def names(options: "Options", found: list[str]) -> None:
    """Show the names of datasets."""
    if options.json:
        show_json(found)
        return
    for name in found:
        show(name)


def listing(options: "Options", found: list["Listing"]) -> None:
    """Show datasets, one a line."""
    if options.json:
        show_json([asdict(item) for item in found])
    elif is_terminal():
        rows = [
            (
                item.name,
                "?" if item.bytes is None else human_size(item.bytes),
                human_time(item.modified),
                f"{item.kind}, partial" if item.partial else item.kind,
                f"{item.location} (does not exist)" if item.broken else item.location,
            )
            for item in found
        ]
        for line in columns(rows, right=frozenset({1})):
            show(line)
    else:
        for item in found:
            size = "" if item.bytes is None else str(item.bytes)
            kind = f"{item.kind}, partial" if item.partial else item.kind
            show_cells(item.name, size, item.modified.isoformat(), kind, item.location)


def local(options: "Options", verb: str, dataset: "Dataset") -> None:
    """Show a dataset that was registered or created."""
    if options.json:
        show_json(
            {
                "name": dataset.name,
                "location": dataset.location,
                "partitions": dataset.partitions(),
            }
        )
    elif not options.quiet:
        show(f"{verb} {dataset.name}: {dataset.location}")


def purged(options: "Options", name: str, linked: "Path | None" = None) -> None:
    """Show that a dataset is gone, or no more than the link to *linked*."""
    if options.json:
        show_json({"name": name, "purged": True})
    elif not options.quiet:
        show(f"Removed the link; {linked} is untouched" if linked else f"Purged {name}")


def pushed(options: "Options", result: "PushResult") -> None:
    """Show what was published, or would be."""
    if options.json:
        show_json(asdict(result))
        return
    if options.quiet:
        return
    content = f"{human_count(result.files, 'file')}, {human_size(result.bytes)}"
    if result.dry_run:
        replacing = ", replacing the archive there" if result.replaces else ""
        show(f"Would push {result.name} to {result.url}{replacing}")
        show(
            f"  {content}, as an archive of at most {human_size(result.archive_bytes)} "
            f"in parts of {human_size(result.part_size)}"
        )
        _show_saved(result)
        return
    show(f"{'Replaced' if result.replaces else 'Pushed'} {result.name}: {result.url}")
    show(f"  {content}, as an archive of {_pace(result.archive_bytes, result)}")
    if result.resumed:
        show(f"  gone on after {human_size(result.resumed)} of an earlier push")
    _show_saved(result)
    if result.levels:
        show(f"  {_compression(result.levels)}")
    show(f"  digest {result.digest}")
    if result.public:
        show("  everybody can read it (public = true)")


def _show_saved(result: "PushResult") -> None:
    """Say how much of the archive was not sent, or why all of it."""
    if result.copied:
        sent = f"{'at most ' if result.dry_run else ''}{human_size(result.sent)}"
        show(f"  {human_size(result.copied)} of it copied inside the repository, {sent} sent")
    elif result.why_whole:
        show(f"  all of it sent: {result.why_whole}")


def _compression(levels: dict[int, int]) -> str:
    """How much was compressed how well."""
    total = sum(levels.values())
    words = [
        f"{'stored' if level == 0 else f'level {level}'} {size / total:.0%}"
        for level, size in sorted(levels.items())
        if size >= total / 200
    ]
    return f"compression: {', '.join(words)}"


def pulled(options: "Options", result: "PullResult", whole: str | None) -> None:
    """Show what was installed, or would be.

    Args:
        options: Of the command.
        result: What was done.
        whole: What the whole of it is called; ``None`` if it came by a link, of which the
            repositories know nothing.
    """
    if options.json:
        show_json(asdict(result))
        return
    if options.quiet:
        return
    archive = f"an archive of {human_size(result.archive_bytes)}"
    content = "an unknown number of files"
    if result.files is not None and result.bytes is not None:
        content = f"{human_count(result.files, 'file')}, {human_size(result.bytes)}"
    if result.dry_run:
        replacing = ", replacing the one there" if result.replaces else ""
        show(f"Would pull {result.name} from {result.url} to {result.path}{replacing}")
        if result.received is not None:
            archive = f"{human_size(result.received)} of {archive}, without what is here already"
        show(f"  {content}, from {archive}")
        return
    show(f"{'Replaced' if result.replaces else 'Pulled'} {result.name}: {result.path}")
    show(f"  {content}, from an archive of {_pace(result.archive_bytes, result)}")
    if result.received is not None and result.received < result.archive_bytes * _NEARLY_ALL:
        show(f"  {human_size(result.received)} of it were fetched")
    show(f"  {result.url}")
    show(f"  digest {result.digest}")
    if result.partial:
        show(f"  this is a part of it{f': etc pull {whole} fetches the rest' if whole else ''}")
    if result.kept is not None:
        show(f"  the dataset it replaced is in no repository, and kept: {result.kept}")


_NEARLY_ALL = 0.95
"""The rest of an archive is its index."""


def _pace(size: int, result: "PushResult | PullResult") -> str:
    pace = f"{human_size(size)}, in {result.seconds:.1f} s"
    if result.seconds < 1:  # it took a while to begin, that is all that this would tell
        return pace
    return f"{pace} ({human_size((result.bytes or 0) / result.seconds)}/s)"


def info(options: "Options", result: "DatasetInfo") -> None:
    """Show what a dataset holds."""
    if options.json:
        show_json(asdict(result))
        return
    rows = [
        ("name", result.name),
        ("kind", result.kind),
        ("location", result.location),
        ("repository", result.repository),
        ("modified", human_time(result.modified)),
        ("files", "only unpacking would tell" if result.files is None else f"{result.files:,}"),
        ("size", _size(result.bytes)),
        ("archive", _size(result.archive_bytes)),
        ("digest", result.digest or _why_no_digest(result)),
        ("partial", _partial(result)),
    ]
    for line in columns([(key, value) for key, value in rows if value is not None]):
        show(line)
    if result.partitions:
        show("partitions")
        _show_partitions(result.partitions)
    if result.meta:
        show("meta")
        for key, value in result.meta.items():
            show(f"  {key}: {value if isinstance(value, str) else to_json(value)}")


def checksums(options: "Options", found: dict[str, str]) -> None:
    """Show the SHA-256 of files, for ``sha256sum -c``."""
    if options.json:
        show_json(found)
        return
    for path, sha256 in found.items():
        # As sha256sum does it itself. No path holds a backslash.
        name = path.replace("\n", "\\n").replace("\r", "\\r")
        mark = "" if name == path else "\\"
        show_for_tools(f"{mark}{sha256}  {name}")


def _size(size: int | None) -> str | None:
    if size is None or size < 1024:
        return None if size is None else human_size(size)
    return f"{human_size(size)} ({size:,} bytes)"


def _partial(result: "DatasetInfo") -> str | None:
    from etcetera.links import is_link

    if not result.partial:
        return None
    if is_link(result.repository):
        return "this is a part of a dataset, and the digest is that of the part"
    return "only a part of the dataset with this digest is here"


def _why_no_digest(result: "DatasetInfo") -> str:
    if result.kind == "remote":
        return "only unpacking would tell"
    if result.repository is None:
        return "known once it is pushed"
    if result.kind == "pulled":
        return "unknown: it has changed since it was pulled"
    return "unknown: it has changed since it was pushed"


def _show_partitions(partitions: dict[str, "PartitionInfo"]) -> None:
    rows = [
        (name, human_count(partition.files, "file"), human_size(partition.bytes))
        for name, partition in partitions.items()
    ]
    for line in columns(rows, right=frozenset({1, 2})):
        show(f"  {line}")


def settings(options: "Options", found: list["Setting"]) -> None:
    """Show settings and where each came from."""
    if options.json:
        show_json([setting._asdict() for setting in found])
        return
    rows = [(setting.key, _value(setting), setting.origin) for setting in found]
    for line in columns([("setting", "value", "from"), *rows]):
        show(line)


def _value(setting: "Setting") -> str:
    value = setting.value
    if value is None:
        defaults = {"threads": f"{_processors()} (processors)", "level": "auto"}
        return defaults.get(setting.key, "-")
    if isinstance(value, bool):
        return str(value).lower()
    if setting.key == "part_size" and isinstance(value, int):
        return exact_size(value)
    return str(value)


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
