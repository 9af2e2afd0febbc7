"""How a job that a worker has leaves it: what its row says then."""

from __future__ import annotations

import hashlib
from typing import Any

from daemon.db import Connection
from daemon.errors import DocumentError, TransientError
from daemon.jobs import documents
from daemon.model import Conversion, Job, State

Columns = dict[str, Any]
Values = tuple[Any, ...]


def finish(db: Connection, job: Job, state: State, columns: Columns) -> bool:
    """Within a transaction: take a job that a worker holds to another state, unless somebody else has ended it
    meanwhile.

    Its row may still say pending: `start` is written without anybody waiting, and a full disk may have refused it.
    """
    assignments = "".join(f", {column} = ?" for column in columns)
    db.execute(
        f"UPDATE jobs SET state = ?, stage = NULL{assignments} WHERE id = ? AND state IN ('pending', 'processing')",
        (state.value, *columns.values(), job.id),
    )
    return db.changes() == 1


def complete(db: Connection, job: Job, values: Values) -> bool:
    """The same of a job whose outputs are durable; `values` are what `completed` says. It is what happens to most jobs:
    a statement that is the same for all need not be put together, nor looked for."""
    db.execute(
        """UPDATE jobs SET state = 'completed', stage = NULL, attempts = ?, finished_at = ?, error_kind = NULL,
           error = NULL, hint = NULL, output = ?, engine = ?, engine_version = ?, pages = ?, disposal = ?,
           sha256 = ?, markdown_sha256 = ? WHERE id = ? AND state IN ('pending', 'processing')""",
        (*values, job.id),
    )
    return db.changes() == 1


def completed(job: Job, conversion: Conversion, output: str, now: float, *, dispose: bool) -> Values:
    """Of a job whose outputs are durable. Digests are kept for who asks about a batch."""
    batched = job.batch is not None
    return (
        job.attempts + 1,
        now,
        output,
        conversion.engine,
        conversion.engine_version,
        conversion.pages,
        "success" if dispose else None,
        conversion.sha256 if batched else None,
        hashlib.sha256(conversion.markdown).hexdigest() if batched else None,
    )


def failed(error: DocumentError | TransientError, attempts: int, now: float, *, dispose: bool) -> Columns:
    """Of a job that has failed for good."""
    return {
        "attempts": attempts,
        "finished_at": now,
        **_reason(error),
        "disposal": "failure" if dispose else None,
    }


def backed_off(job: Job, error: TransientError, not_before: float) -> Columns:
    """Of a job that waits for its next attempt."""
    return {"attempts": job.attempts + 1, "not_before": not_before, **_reason(error)}


def interrupted(db: Connection) -> int:
    """Within a transaction: no worker has a job any more. Makes those pending that one had, and counts them."""
    documents.distrust_interrupted(db)
    db.execute(
        """UPDATE jobs SET state = 'pending', interruptions = interruptions + (stage <> 'fetch'), stage = NULL
           WHERE state = 'processing'"""
    )
    return int(db.changes())


def _reason(error: DocumentError | TransientError) -> Columns:
    return {"error_kind": error.kind.value, "error": error.message, "hint": error.hint}
