"""How documents become pending jobs: those that were discovered, and those that were handed in.

`discovered` and `handed_in` are called within a transaction. `join` opens a batch for a job that comes to it, and tells
its id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from daemon import batches
from daemon.db import Connection
from daemon.jobs import documents
from daemon.jobs.rows import first, watch_id_of
from daemon.model import Candidate, Job, State


@dataclass(frozen=True, slots=True)
class Handed:
    """A document that was handed in and lies, durable, under the name `location` in the folder of those.

    A name and no path: a state_dir may be moved.
    """

    source: bytes
    version: str
    size_bytes: int
    location: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a document that was handed in: the number and state of its job, and the job itself if it is new;
    else why it is refused."""

    job_id: int = 0
    state: str = ""
    new: Job | None = None
    refused: str = ""


def discovered(
    db: Connection,
    watch: str,
    candidates: Sequence[Candidate],
    priority: int,
    batch_of: Callable[[bytes], str | None],
    now: float,
) -> tuple[list[Job], list[int]]:
    """Record those versions that are not the last ones seen: their jobs, and the ids of pending ones that these
    supersede."""
    new: list[Job] = []
    superseded: list[int] = []
    watch_id = watch_id_of(db, watch)
    join = cache(partial(batches.add, db, watch_id, now=now))
    for candidate in candidates:
        batch = batch_of(candidate.source)
        job, older = _discovered(db, watch_id, watch, candidate, priority, batch, join, now)
        superseded += older
        if job is not None:
            new.append(job)
    return new, superseded


def handed_in(
    db: Connection, watch: str, batch: str, handed: Sequence[Handed], priority: int, now: float
) -> list[Receipt]:
    """Record documents of a batch; a receipt for each, in the same order."""
    watch_id = watch_id_of(db, watch)
    join = cache(partial(batches.add, db, watch_id, now=now))
    return [_handed_in(db, watch_id, watch, batch, join, document, priority, now) for document in handed]


def _discovered(
    db: Connection,
    watch_id: int,
    watch: str,
    candidate: Candidate,
    priority: int,
    batch: str | None,
    join: Callable[[str], int],
    now: float,
) -> tuple[Job | None, list[int]]:
    """Record a version unless it is the last one seen: its job, and the ids of pending ones that it supersedes."""
    known = first(
        db,
        "SELECT version, converted_version FROM documents WHERE watch = ? AND source = ?",
        (watch_id, candidate.source),
    )
    if known is not None and known[0] == candidate.version:
        return None, []
    superseded: list[int] = []
    if known is not None:
        rows = db.execute(
            """UPDATE jobs SET state = 'superseded', stage = NULL, finished_at = ?
               WHERE watch = ? AND source = ? AND state = 'pending' AND location IS NULL RETURNING id""",
            (now, watch_id, candidate.source),
        )
        superseded = [row[0] for row in rows]
    batch_id = None if batch is None else join(batch)
    db.execute(
        """INSERT INTO jobs (watch, source, version, size_bytes, priority, discovered_at, batch)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (watch_id, candidate.source, candidate.version, candidate.size_bytes, priority, now, batch_id),
    )
    previous = known[1] if known else None
    job = _pending(db, watch, candidate, priority, now, batch=batch, previous_version=previous)
    documents.seen(db, watch_id, candidate)
    return job, superseded


def _handed_in(
    db: Connection,
    watch_id: int,
    watch: str,
    batch: str,
    join: Callable[[str], int],
    document: Handed,
    priority: int,
    now: float,
) -> Receipt:
    """Record a document unless it has a job already, or would take the place of another one."""
    sql = "SELECT id, version, state, submitted FROM jobs WHERE watch = ? AND source = ? ORDER BY id DESC LIMIT 1"
    last = first(db, sql, (watch_id, document.source))
    known = first(db, "SELECT 1 FROM documents WHERE watch = ? AND source = ?", (watch_id, document.source))
    if known is not None or (last is not None and not last[3]):
        return Receipt(refused="the watch has a document of that name in its own source; take another --batch")
    if last is not None and last[2] not in (State.VANISHED, State.SUPERSEDED):
        if last[1] == document.version:
            return Receipt(last[0], last[2])
        if last[2] not in (State.FAILED, State.CANCELLED):
            return Receipt(
                refused=f"batch {batch} has another document of that name (job {last[0]}); "
                "take another --batch, or another name"
            )
    db.execute(
        """INSERT INTO jobs (watch, source, version, size_bytes, priority, discovered_at, batch, submitted, location)
           VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)""",
        (
            watch_id,
            document.source,
            document.version,
            document.size_bytes,
            priority,
            now,
            join(batch),
            document.location,
        ),
    )
    job = _pending(db, watch, document, priority, now, batch=batch, location=document.location, submitted=True)
    return Receipt(job.id, State.PENDING, job)


def _pending(db: Connection, watch: str, document: Candidate | Handed, priority: int, now: float, **more: Any) -> Job:
    """The job whose row was inserted just now."""
    return Job(
        id=db.last_insert_rowid(),
        watch=watch,
        source=document.source,
        version=document.version,
        size_bytes=document.size_bytes,
        priority=priority,
        attempts=0,
        interruptions=0,
        discovered_at=now,
        **more,
    )
