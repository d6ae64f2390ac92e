"""What transfers left that did not come to their end: finding it, and removing it."""

import os
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from etcetera.api import loaded
from etcetera.config import Config
from etcetera.errors import EtceteraError, UsageError
from etcetera.home import Home
from etcetera.repository import SUFFIX, Repository, open_repository
from etcetera.results import Leftover
from etcetera.settings import place
from etcetera.staging import Private, abandoned, can_be_resumed, discard
from etcetera.times import time_from
from etcetera.transfer.flow import in_thread
from etcetera.transfer.journal import DamagedJournal, Journal, Saved
from etcetera.transfer.resume import lasting_facts, why_not
from etcetera.transfer.scan import scan

_LONGEST_DAYS = 36500


async def aclean(
    remote: bool = False,
    config: Config | None = None,
    *,
    repository: str | None = None,
    older_than: float = 7,
    force: bool = False,
    dry_run: bool = False,
) -> list[Leftover]:
    """Remove what transfers left that nobody will go on with; never what one still uses.

    Args:
        remote: Unfinished uploads in the repository instead of what is at home.
        config: Settings, by default from ``~/.etc.toml`` and the environment.
        repository: Which one, by default the one at the top of the configuration.
        older_than: Days, at least 1, after which a push that broke off is not gone on with.
        force: Remove also what could be gone on with, at home.
        dry_run: Only tell what would be removed.

    Returns:
        What was found, and whether it was removed.

    Raises:
        UsageError: *older_than* is below 1: somebody may still be sending; or *force* is given for
            a repository.
    """
    check_age(older_than, "older_than")
    if force and (remote or repository):
        raise UsageError("force is for what is at home; in a repository older_than alone decides")
    age = timedelta(days=older_than)
    config = await loaded(config)
    home = Home(config.home)
    if not (remote or repository):
        return await _clean_home(home, config, age, force=force, dry_run=dry_run)
    async with open_repository(config, repository) as remotes:
        return await _clean_repository(remotes, home, age, dry_run=dry_run)


def check_age(days: float, name: str) -> None:
    """Raise UsageError if *days* cannot be what is called *name*."""
    if not 1 <= days <= _LONGEST_DAYS:
        raise UsageError(f"{name} must be from 1 to {_LONGEST_DAYS} days, not {days:g}")


async def _clean_home(
    home: Home, config: Config, age: timedelta, *, force: bool, dry_run: bool
) -> list[Leftover]:
    """Remove from a home what nobody will go on with; never what a living process owns.

    Args:
        home: Where to look.
        config: Its repositories are asked to drop the uploads of journals.
        age: A push that was begun before is not gone on with.
        force: Whether to remove also what could be gone on with.
        dry_run: Only tell.
    """
    found = await in_thread(_clean_directories, home, force, dry_run)
    for journal in await in_thread(lambda: list(home.journals.all())):
        found += await _clean_journal(journal, home, config, age, force, dry_run)
    return found


async def _clean_repository(
    remotes: Repository, home: Home, age: timedelta, *, dry_run: bool
) -> list[Leftover]:
    """Remove the unfinished uploads of archives to which nothing has come for *age*."""
    found = []
    live = await in_thread(_live_uploads, home)
    async for upload in remotes.store.unfinished(datetime.now(UTC) - age):
        if upload.key.endswith(SUFFIX) and upload.id not in live:
            if not dry_run:
                await remotes.store.abandon(upload.key, upload.id)
            found.append(
                Leftover(
                    kind="upload",
                    name=upload.key.removesuffix(SUFFIX),
                    place=f"{remotes.store.url.rstrip('/')}/{upload.key}",
                    bytes=upload.size,
                    modified=upload.modified,
                    reason=f"nothing has come for {age.days} days",
                    removed=True,
                )
            )
    return found


def _clean_directories(home: Home, force: bool, dry_run: bool) -> list[Leftover]:
    private = Private(home.path)
    found: list[Leftover] = []
    for kind in _KINDS:
        for path in abandoned(private.path(kind)):
            removed, reason = True, "its process is gone"
            if can_be_resumed(path):
                removed = force
                reason = "asked for" if force else "the next pull of it goes on from there"
            found.append(_leftover(kind, path, reason, removed=removed))
            if removed and not dry_run:
                discard(path)
    kept = private.path("kept")
    return found + [
        _leftover("kept", path, "no repository has a copy", removed=False)
        for path in (sorted(kept.iterdir()) if kept.is_dir() else ())
    ]


_KINDS: tuple[Literal["staging", "trash"], ...] = ("staging", "trash")


def _leftover(
    kind: Literal["staging", "trash", "kept"], path: Path, reason: str, *, removed: bool
) -> Leftover:
    size, modified = 0, 0.0
    with suppress(OSError):  # another process is removing it
        modified = path.lstat().st_mtime
    for directory, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                size += (Path(directory) / name).lstat().st_size
    return Leftover(
        kind=kind,
        # The time that is behind what was kept has a dot in it, and a name may have any.
        name=path.name.rsplit(".", 2 if kind == "kept" else 1)[0],
        place=str(path),
        bytes=size,
        modified=time_from(modified),
        reason=reason,
        removed=removed,
    )


async def _clean_journal(
    journal: Journal, home: Home, config: Config, age: timedelta, force: bool, dry_run: bool
) -> list[Leftover]:
    """Look at a journal, and remove it if it is of no use; nothing if a push has it."""
    try:
        saved = await in_thread(_load, journal, dry_run)
    except DamagedJournal:
        saved, reason = None, "it is damaged"
    else:
        if saved is None:
            return []
        # Without the lock, since that takes a while: a push that comes meanwhile is to have it.
        reason = await in_thread(_why_useless, saved, home, age) or ("asked for" if force else "")
    removed = bool(reason)
    if removed and not dry_run:
        try:
            if not await in_thread(journal.lock) or await in_thread(_is_other, journal, saved):
                return []
            reason += await _drop_upload(saved, config) if saved else ""
            await in_thread(journal.discard)
        except EtceteraError as error:
            removed, reason = False, f"its upload cannot be removed ({error})"
        finally:
            journal.close()
    return [
        Leftover(
            kind="journal",
            name=str(saved.facts.get("name", "?")) if saved else journal.directory.name,
            place=f"{saved.facts.get('repository')}/{saved.facts.get('key')}"
            if saved
            else str(journal.directory),
            bytes=saved.sent if saved else 0,
            modified=saved.written if saved else datetime.now(UTC),
            reason=reason or "the same push goes on from there",
            removed=removed,
        )
    ]


def _load(journal: Journal, dry_run: bool) -> Saved | None:
    """What a journal holds; ``None`` if a push has it, or nothing was ever saved: that is removed.

    Raises:
        DamagedJournal: It is of no use.
    """
    try:
        if not journal.lock():
            return None
        saved = journal.load()
        if saved is None and not dry_run:
            journal.discard()
        return saved
    finally:
        journal.close()


def _is_other(journal: Journal, saved: Saved | None) -> bool:
    """Whether a push has changed a journal since *saved* was read; ``None`` is a damaged one."""
    try:
        now = journal.load()
    except DamagedJournal:
        return saved is not None
    return (
        now is None or saved is None or (now.upload.id, now.sent) != (saved.upload.id, saved.sent)
    )


def _why_useless(saved: Saved, home: Home, age: timedelta) -> str:
    if datetime.now(UTC) - saved.written > age:
        return f"older than {age.days} days"
    try:
        found = home.find(str(saved.facts.get("name")))
        scanned = scan(found) if found is not None else None
    except EtceteraError as error:
        return f"the dataset cannot be read ({error})"
    if scanned is None:
        return "the dataset is gone"
    return why_not(saved, lasting_facts(scanned))


async def _drop_upload(saved: Saved, config: Config) -> str:
    """Abort the upload; return what to say if it is left."""
    wanted = saved.facts.get("repository"), saved.facts.get("endpoint")
    for name in config.repositories():
        if place(config.repository(name)) == wanted:
            async with open_repository(config, name) as remotes:
                key = remotes.key(str(saved.facts.get("name")))
                await remotes.store.abandon(key, saved.upload.id)
            return ""
    return f"; its upload {saved.upload.id} is left: no repository in the settings is this one"


def _live_uploads(home: Home) -> set[str]:
    """Ids of the uploads that processes of this home are sending."""
    live = set()
    for journal in home.journals.all():
        try:
            saved = None if journal.lock() else journal.load()
        except DamagedJournal:
            continue
        finally:
            journal.close()
        if saved is not None:
            live.add(saved.upload.id)
    return live
