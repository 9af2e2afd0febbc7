"""Bringing an older job table up to date, with a backup beside it, and refusing a newer one.

A kill or a power cut at any step leaves the old table, with or without its backup, or the new one with it: the next
start does again what is not done. Nothing but SQL, so that `db.py` stays the only one that knows APSW, whose errors
pass through.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from daemon.errors import UsageError
from daemon.faults import Fault
from daemon.schema import AMENDMENTS, APPLICATION_ID, Amendment


class Database(Protocol):
    """As much of a connection as a migration needs."""

    def execute(self, statements: str, bindings: tuple[Any, ...] = ..., /) -> Iterable[tuple[Any, ...]]: ...


def version_of(database: Database) -> int:
    """The number of the table's layout; 0 where there is none yet."""
    return int(next(iter(database.execute("PRAGMA user_version")))[0])


def refuse_newer(database: Database, path: str, newest: int) -> None:
    """Raise UsageError where the table has a layout that is not known yet. Writes nothing."""
    version = version_of(database)
    if version > newest:
        raise UsageError(
            f"the job table {path} was made by a newer convertd (its layout is {version}; this one knows {newest})",
            "Install that newer convertd again, or give this one another state_dir.",
        )


def refuse_older(database: Database, path: str, newest: int) -> None:
    """Raise UsageError where the table has to be brought up to date first, which only looking at it does not do.

    Raises FileNotFoundError where it is only about to be made.
    """
    version = version_of(database)
    if version == 0:
        raise FileNotFoundError(path)
    if version < newest or _amendments(database, version):
        raise UsageError(
            f"the job table {path} was made by an older convertd",
            "Start convertd, or restart the one that runs: it brings the table up to date, with a backup beside it.",
        )


def migrate(database: Database, path: str, migrations: Sequence[str], fault: Fault) -> None:
    """Bring a table that is not newer up to date. One that held something is copied to PATH.vN.bak first."""
    version, newest = version_of(database), len(migrations)
    amendments = _amendments(database, version)
    if version == newest and not amendments:
        return
    if version > 0:
        _back_up(database, f"{path}.v{version}.bak", fault)
    database.execute("BEGIN IMMEDIATE")
    try:
        for statements in (*(amendment.statements for amendment in amendments), *migrations[version:]):
            database.execute(statements)
            fault("migrating")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {newest}")
        fault("migrated")
        database.execute("COMMIT")
    except BaseException:
        with suppress(Exception):  # a full disk may have rolled it back already
            database.execute("ROLLBACK")
        raise
    fault("migration committed")


def _amendments(database: Database, version: int) -> list[Amendment]:
    names = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
    return [found for found in AMENDMENTS if found.version == version and found.brings not in names]


def _back_up(database: Database, target: str, fault: Fault) -> None:
    """A copy appears at its name when it is whole and durable, and not before."""
    from daemon.files import fsync_directory  # not for commands that only look

    unfinished = f"{target}.tmp"
    _remove(unfinished)
    _remove(f"{unfinished}-journal")
    try:
        fault("backup")
        database.execute("VACUUM INTO ?", (unfinished,))
        fault("backup written")
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.rename(unfinished, target)
    except BaseException:
        _remove(unfinished)
        raise
    fsync_directory(os.fsencode(os.path.dirname(target)))
    fault("backed up")


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
