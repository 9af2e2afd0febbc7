"""What the statements about jobs share: how a row becomes a job, and lookups of one row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from daemon.db import Connection, Readers, Row
from daemon.model import Job

MOST_BINDINGS = 900
"""SQLite allows 999 in its oldest builds."""

AT_ONCE = 64
"""A row of a statement about so many takes about half the time of a statement about one row."""

T = TypeVar("T")

JOB = """SELECT jobs.id, watches.name, jobs.source, jobs.version, jobs.size_bytes, jobs.priority, jobs.attempts,
    jobs.interruptions, jobs.discovered_at, jobs.location, documents.converted_version,
    batches.name, jobs.submitted, jobs.not_before, jobs.disposal
FROM jobs JOIN watches ON watches.id = jobs.watch
LEFT JOIN batches ON batches.id = jobs.batch
LEFT JOIN documents ON documents.watch = jobs.watch AND documents.source = jobs.source
"""


def job_of(row: Row) -> Job:
    """The job of a row that JOB has found."""
    return Job(*row[:13])


def first(db: Connection, sql: str, bindings: tuple[Any, ...]) -> Row | None:
    return next(iter(db.execute(sql, bindings)), None)


def watch_id_of(db: Connection, watch: str) -> int:
    return int(one(db, "SELECT id FROM watches WHERE name = ?", (watch,))[0])


def one(db: Connection, sql: str, bindings: tuple[Any, ...]) -> Row:
    row: Row = next(iter(db.execute(sql, bindings)))
    return row


def in_chunks(values: Sequence[T]) -> Iterator[tuple[str, Sequence[T]]]:
    """As many of the values as one statement can bind at a time, with the list of marks for them."""
    for start in range(0, len(values), MOST_BINDINGS):
        chunk = values[start : start + MOST_BINDINGS]
        yield ", ".join("?" * len(chunk)), chunk


def among(readers: Readers, sql: str, values: Sequence[T]) -> set[T]:
    """Those of the values that a query finds, which ends with what they are compared with."""
    found: set[T] = set()
    for marks, chunk in in_chunks(values):
        found.update(row[0] for row in readers.rows(f"{sql} IN ({marks})", tuple(chunk)))
    return found


def in_groups(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """`AT_ONCE` of the values at a time, and what is left one by one: statements of two lengths stay prepared."""
    whole = len(values) - len(values) % AT_ONCE
    for start in range(0, whole, AT_ONCE):
        yield values[start : start + AT_ONCE]
    for number in range(whole, len(values)):
        yield values[number : number + 1]


def marks(row: str, group: Sequence[Any]) -> str:
    """What a statement about a group has for each of its rows."""
    return ", ".join([row] * len(group))
