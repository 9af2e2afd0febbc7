"""What operators ask of jobs: that they be tried again, or called off. Both are called within a transaction."""

from __future__ import annotations

from collections.abc import Collection

from daemon import batches
from daemon.db import Connection
from daemon.jobs import documents
from daemon.jobs.rows import JOB, first, job_of, one
from daemon.model import Job, State


def retry(db: Connection, ids: Collection[int]) -> tuple[list[Job], list[str]]:
    """Make finished jobs pending again; returns them, and a sentence for each that cannot be retried."""
    retried: list[Job] = []
    refused: list[str] = []
    for job_id in ids:
        reason = _retry(db, job_id)
        if reason:
            refused.append(reason)
        else:
            retried.append(job_of(one(db, JOB + "WHERE jobs.id = ?", (job_id,))))
    return retried, refused


def cancel(db: Connection, ids: Collection[int], now: float) -> list[Job]:
    """End those of the jobs that are pending; returns them."""
    cancelled = []
    for job_id in ids:
        row = first(db, JOB + "WHERE jobs.id = ? AND jobs.state = 'pending'", (job_id,))
        if row is not None:
            db.execute("UPDATE jobs SET state = 'cancelled', stage = NULL, finished_at = ? WHERE id = ?", (now, job_id))
            assert db.changes() == 1
            cancelled.append(job_of(row))
    return cancelled


def _retry(db: Connection, job_id: int) -> str | None:
    row = first(db, "SELECT state, watch, source, batch, submitted, location FROM jobs WHERE id = ?", (job_id,))
    if row is None:
        return f"job {job_id} does not exist (see: convertd jobs)"
    state, watch, source, batch, submitted, location = row
    if state in (State.PENDING, State.PROCESSING):
        return f"job {job_id} is {state}: nothing to retry"
    if submitted and location is None:
        return f"job {job_id} was submitted; its document is no longer kept: submit it to another batch"
    newer = one(db, "SELECT max(id) FROM jobs WHERE watch = ? AND source = ? AND id > ?", (watch, source, job_id))
    if newer[0] is not None:
        return f"job {job_id} is about an older version of its document; the newest is job {newer[0]}"
    known = first(db, "SELECT 1 FROM documents WHERE watch = ? AND source = ?", (watch, source))
    if state == State.COMPLETED and location is None and known is None:
        return f"job {job_id} is converted and its source was deleted: drop it into the source again"
    db.execute(
        """UPDATE jobs SET state = 'pending', stage = NULL, attempts = 0, interruptions = 0, not_before = 0,
           started_at = NULL, finished_at = NULL, error_kind = NULL, error = NULL, hint = NULL, disposal = NULL
           WHERE id = ? AND state = ?""",
        (job_id, state),
    )
    assert db.changes() == 1
    if batch is not None:
        batches.reopen(db, batch)
    documents.distrust(db, job_id, source)
    return None
