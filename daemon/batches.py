"""Batches in the job table: documents that are asked about together.

A batch is complete when all its jobs are final and nothing new has come for `QUIET_SECONDS`; what comes later opens it
again. Counters are kept by triggers, so that no question counts jobs.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from daemon.db import Connection, Readers, Row, Writer
from daemon.model import State

QUIET_SECONDS = 60.0
PAGE = 500

Rows = Callable[[str, tuple[Any, ...]], list[Row]]
"""Answers a query, as `Readers.rows` does."""

_BATCH = """SELECT batches.id, watches.name, batches.name, batches.created_at, batches.last_added_at,
    batches.completed_at, batches.unfinished, batches.changes FROM batches JOIN watches ON watches.id = batches.watch
"""
_DOCUMENT = """SELECT id, source, state, output, sha256, markdown_sha256, error_kind, error, hint FROM jobs"""
# The plus keeps SQLite from looking for it among all jobs of the batch.
_NEWEST = """NOT EXISTS (SELECT 1 FROM jobs AS newer WHERE newer.watch = jobs.watch AND newer.source = jobs.source
    AND newer.id > jobs.id AND +newer.batch = jobs.batch)"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A row of `batches`. `completed_at` is when its manifest was written, None while it is open."""

    id: int
    watch: str
    name: str
    created_at: float
    last_added_at: float
    completed_at: float | None
    unfinished: int
    changes: int

    def why_open(self, now: float) -> str | None:
        """Why it is not complete, as a sentence; None where it is."""
        if self.unfinished:
            return f"{self.unfinished:,} of its jobs {'is' if self.unfinished == 1 else 'are'} not final"
        quiet = now - self.last_added_at
        if self.completed_at is None and 0 <= quiet < QUIET_SECONDS:
            return f"the last document was added {quiet:.0f} s ago; it is complete after {QUIET_SECONDS:.0f} s of quiet"
        return None


@dataclass(frozen=True, slots=True)
class Document:
    """The newest job of a document in a batch."""

    job: int
    source: bytes
    state: str
    output: str | None
    sha256: str | None
    markdown_sha256: str | None
    error_kind: str | None
    error: str | None
    hint: str | None

    def facts(self) -> dict[str, Any]:
        """As a line of a manifest has it."""
        text = self.source.decode("utf-8", "replace")
        raw = {} if text.encode() == self.source else {"source_base64": base64.b64encode(self.source).decode()}
        return {
            "source": text,
            **raw,
            "job": self.job,
            "state": self.state,
            "output": self.output,
            "sha256": self.sha256,
            "markdown_sha256": self.markdown_sha256,
            "error_kind": self.error_kind,
            "error": self.error,
            "hint": self.hint,
        }


# -- parts of the job table's transactions ---------------------------------------------------------------------------


def add(db: Connection, watch_id: int, name: str, now: float) -> int:
    """New jobs come to this batch, which is made or opened again; returns its id."""
    row: Row = next(
        iter(
            db.execute(
                """INSERT INTO batches (watch, name, created_at, last_added_at, changes) VALUES (?1, ?2, ?3, ?3, 1)
                   ON CONFLICT DO UPDATE SET last_added_at = ?3, completed_at = NULL, changes = changes + 1
                   RETURNING id""",
                (watch_id, name, now),
            )
        )
    )
    return int(row[0])


def reopen(db: Connection, batch_id: int) -> None:
    """A job of this batch is to be done again."""
    db.execute("UPDATE batches SET completed_at = NULL, changes = changes + 1 WHERE id = ?", (batch_id,))


def drop_empty(db: Connection, batch_ids: Iterable[int]) -> None:
    """Forget those that have no jobs any more."""
    for batch_id in batch_ids:
        db.execute(
            "DELETE FROM batches WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE batch = ?1)", (batch_id,)
        )
        if db.changes():
            db.execute("DELETE FROM batch_counts WHERE batch = ?", (batch_id,))


# -- what is asked ---------------------------------------------------------------------------------------------------


def named(rows: Rows, name: str, watch: str | None) -> list[Batch]:
    """The batches of this name, of one watch or of all."""
    watches = rows("SELECT id FROM watches WHERE ?1 IS NULL OR name = ?1", (watch,))
    sql = _BATCH + "WHERE batches.watch = ? AND batches.name = ?"
    return [Batch(*row) for (watch_id,) in watches for row in rows(sql, (watch_id, name))]


def counts(rows: Rows, batch: Batch) -> dict[str, int]:
    """Its jobs by state."""
    found = rows("SELECT state, jobs FROM batch_counts WHERE batch = ? AND jobs > 0", (batch.id,))
    return {str(state): int(jobs) for state, jobs in found}


def documents(rows: Rows, batch: Batch) -> Iterator[Document]:
    """All documents of a batch in the order in which they came, read page by page: each comes once."""
    sql = f"{_DOCUMENT} WHERE batch = ? AND id > ? AND {_NEWEST} ORDER BY id LIMIT ?"
    after = 0
    while page := rows(sql, (batch.id, after, PAGE)):
        yield from (Document(*row) for row in page)
        after = page[-1][0]


def failures(rows: Rows, batch: Batch, limit: int) -> list[Document]:
    """The documents that failed, the first of them."""
    sql = f"{_DOCUMENT} WHERE batch = ? AND state = '{State.FAILED.value}' AND {_NEWEST} ORDER BY id LIMIT ?"
    return [Document(*row) for row in rows(sql, (batch.id, limit))]


# -- who completes them ----------------------------------------------------------------------------------------------


class Batches:
    """The side of the job table that completes batches. All methods may be called from any thread."""

    def __init__(self, writer: Writer, readers: Readers, clock: Callable[[], float] = time.time) -> None:
        self._writer = writer
        self._clock = clock
        self.rows: Rows = readers.rows

    def due(self, watch: str, limit: int | None) -> list[Batch]:
        """Batches of a watch that are complete and not recorded as such, those that wait longest first; at most
        `limit`, or all."""
        now = self._clock()
        sql = (
            _BATCH
            + """WHERE batches.watch = (SELECT id FROM watches WHERE name = ?) AND completed_at IS NULL
                 AND unfinished = 0 AND (last_added_at <= ? OR last_added_at > ?)
                 ORDER BY last_added_at, batches.id LIMIT ?"""
        )
        # What was added in the future was added under another clock: nobody waits for it.
        most = -1 if limit is None else limit
        return [Batch(*row) for row in self.rows(sql, (watch, now - QUIET_SECONDS, now + QUIET_SECONDS, most))]

    def complete(self, batch: Batch, within: Callable[[Connection], None] = lambda db: None) -> bool:
        """Record that the batch is complete, durably; False where it has changed since it was read.

        `within` is carried out in the same transaction, if it has not.
        """
        now = self._clock()

        def operation(db: Connection) -> bool:
            db.execute(
                """UPDATE batches SET completed_at = ? WHERE id = ? AND changes = ? AND unfinished = 0
                   AND completed_at IS NULL""",
                (now, batch.id, batch.changes),
            )
            if db.changes() != 1:
                return False
            within(db)
            return True

        return self._writer.call(operation)

    def drop(self, batch: Batch) -> None:
        """Forget a batch that has lost its jobs: what was added to it turned out to be known."""
        self._writer.call(lambda db: drop_empty(db, [batch.id]))
