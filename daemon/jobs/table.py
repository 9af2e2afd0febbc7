"""The job table: every change of a job's state is one method here, and one transaction.

Methods that change something return after the change is durable, except `start` and `stage`, which are written with
the next batch. Each write names the state it expects the row to be in and reports whether it found it so. All methods
may be called from any thread. EnvironmentProblem means that nothing was changed because the disk is sick.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

from daemon import batches, events
from daemon.db import Connection, Readers, Writer
from daemon.errors import DocumentError, TransientError
from daemon.jobs import enqueue
from daemon.jobs.enqueue import Handed, Receipt
from daemon.jobs.history import History
from daemon.jobs.known import Known
from daemon.jobs.rows import JOB, first, job_of, one, watch_id_of
from daemon.meters import UNMETERED, Meter
from daemon.model import Candidate, Conversion, Job, Stage, State
from daemon.naming import no_batch
from daemon.outbox import Outbox

Clock = Callable[[], float]

UNCHANGED = "unchanged"
"""What is counted for a job that is forgotten because its document holds what was converted before."""


class JobTable:
    """The daemon's side of the job table. Commands that only look use `daemon.queries`.

    `known` is what discovery asks, `history` drops what is over.
    """

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        clock: Clock = time.time,
        outbox: Outbox | None = None,
        meter: Meter = UNMETERED,
    ) -> None:
        self._outbox = Outbox(writer, readers, clock) if outbox is None else outbox
        self._meter = meter
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self.known = Known(readers)
        self.history = History(writer, readers)

    # -- discovery ---------------------------------------------------------------------------------------------

    def register(self, watch: str, source: str, sink: str) -> None:
        """Make a watch known, or its source and sink as they are now. Must precede everything else about it."""
        self._writer.call(
            lambda db: db.execute(
                """INSERT INTO watches (name, source, sink) VALUES (?, ?, ?)
                   ON CONFLICT DO UPDATE SET source = excluded.source, sink = excluded.sink""",
                (watch, os.fsencode(source), os.fsencode(sink)),
            )
        )

    def enqueue(
        self,
        watch: str,
        candidates: Sequence[Candidate],
        priority: int,
        batch_of: Callable[[bytes], str | None] = no_batch,
    ) -> tuple[list[Job], list[int]]:
        """Record new versions as pending jobs; returns them and the ids of pending jobs that they supersede.

        `batch_of` tells from its path which batch a document belongs to.
        """
        now = self._clock()

        def operation(db: Connection) -> tuple[list[Job], list[int]]:
            new: list[Job] = []
            superseded: list[int] = []
            watch_id = watch_id_of(db, watch)
            join = cache(partial(batches.add, db, watch_id, now=now))
            for candidate in candidates:
                batch = batch_of(candidate.source)
                job, older = enqueue.discovered(db, watch_id, watch, candidate, priority, batch, join, now)
                superseded += older
                if job is not None:
                    new.append(job)
            return new, superseded

        new, superseded = self._writer.call(operation)
        for _ in superseded:
            self._meter.ended(watch, State.SUPERSEDED)
        return new, superseded

    def submit(self, watch: str, batch: str, handed: Sequence[Handed], priority: int) -> list[Receipt]:
        """Record documents that were handed in as pending jobs of a batch; a receipt for each, in the same order.

        What has a job already, from the same bytes, gets no second one. A document never takes the place of another
        that is about to have a result, or has one.
        """
        now = self._clock()

        def operation(db: Connection) -> list[Receipt]:
            watch_id = watch_id_of(db, watch)
            join = cache(partial(batches.add, db, watch_id, now=now))
            return [enqueue.handed_in(db, watch_id, watch, batch, join, document, priority, now) for document in handed]

        return self._writer.call(operation)

    # -- one job's way -----------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """A worker has taken the job. Not durable on return."""
        now = self._clock()
        self._writer.post(
            lambda db: db.execute(
                """UPDATE jobs SET state = 'processing', stage = 'fetch', started_at = ?, finished_at = NULL
                   WHERE id = ? AND state = 'pending'""",
                (now, job.id),
            )
        )

    def stage(self, job: Job, stage: Stage) -> None:
        """What the job does now. Not durable on return."""
        self._writer.post(
            lambda db: db.execute(
                "UPDATE jobs SET stage = ? WHERE id = ? AND state = 'processing'", (stage.value, job.id)
            )
        )

    def is_current(self, job: Job) -> bool:
        """Whether no newer version of the job's document has been recorded."""
        sql = """SELECT 1 FROM jobs WHERE watch = (SELECT id FROM watches WHERE name = ?)
                 AND source = ? AND id > ? LIMIT 1"""
        return not self._readers.rows(sql, (job.watch, job.source, job.id))

    def has_output(self, job: Job) -> bool:
        """Whether the job's document has been converted before, so that there is an older output."""
        sql = """SELECT 1 FROM jobs WHERE watch = (SELECT id FROM watches WHERE name = ?1)
                 AND source = ?2 AND id <= ?3 AND output IS NOT NULL
                 UNION SELECT 1 FROM documents WHERE watch = (SELECT id FROM watches WHERE name = ?1)
                 AND source = ?2 AND converted_sha256 IS NOT NULL LIMIT 1"""
        return bool(self._readers.rows(sql, (job.watch, job.source, job.id)))

    def complete(self, job: Job, conversion: Conversion, output: str, *, dispose: bool) -> bool:
        """The outputs are durable: so is now the job. False where the row was no longer processing."""
        now = self._clock()
        event = events.completed(job, output, now) if self._outbox.wanted else None
        digests: dict[str, Any] = {}
        if job.batch is not None:
            markdown_sha256 = hashlib.sha256(conversion.markdown).hexdigest()
            digests = {"sha256": conversion.sha256, "markdown_sha256": markdown_sha256}

        def operation(db: Connection) -> bool:
            changed = _finish(
                db,
                job,
                State.COMPLETED,
                {
                    **digests,
                    "attempts": job.attempts + 1,
                    "finished_at": now,
                    "error_kind": None,
                    "error": None,
                    "hint": None,
                    "output": output,
                    "engine": conversion.engine,
                    "engine_version": conversion.engine_version,
                    "pages": conversion.pages,
                    "disposal": "success" if dispose else None,
                },
            )
            if changed:
                db.execute(
                    """UPDATE documents SET converted_version = version, converted_sha256 = ?
                       WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
                    (conversion.sha256, job.id, job.source, job.version),
                )
                self._outbox.record(db, event)
            return changed

        ended = self._told(job, State.COMPLETED, self._writer.call(operation), event)
        if ended:
            self._meter.converted(conversion.engine, conversion.first_engine)
        return ended

    def fail(self, job: Job, error: DocumentError | TransientError, *, attempts: int, dispose: bool) -> bool:
        """The job has failed for good and its error file is durable."""
        now = self._clock()
        event = events.failed(job, error, now) if self._outbox.wanted else None

        def operation(db: Connection) -> bool:
            changed = _finish(
                db,
                job,
                State.FAILED,
                {
                    "attempts": attempts,
                    "finished_at": now,
                    "error_kind": error.kind.value,
                    "error": error.message,
                    "hint": error.hint,
                    "disposal": "failure" if dispose else None,
                },
            )
            if changed:
                db.execute(
                    """UPDATE documents SET converted_version = NULL, converted_sha256 = NULL
                       WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ?""",
                    (job.id, job.source),
                )
                self._outbox.record(db, event)
            return changed

        return self._told(job, State.FAILED, self._writer.call(operation), event)

    def end(self, job: Job, state: State) -> bool:
        """The job ends without a result: vanished, superseded or cancelled."""
        now = self._clock()

        def operation(db: Connection) -> bool:
            changed = _finish(db, job, state, {"finished_at": now})
            if changed and state is State.VANISHED:
                _forget(db, job)
            elif changed and state is State.SUPERSEDED:
                # Should this very version be seen again it is converted; a newer one that is known stays so.
                db.execute(
                    """UPDATE documents SET version = '' WHERE watch = (SELECT watch FROM jobs WHERE id = ?)
                       AND source = ? AND version = ?""",
                    (job.id, job.source, job.version),
                )
            return changed

        return self._told(job, state, self._writer.call(operation))

    def fold(self, job: Job) -> bool:
        """The job's version holds the very bytes that were converted before: forget the job, keep the version."""

        def operation(db: Connection) -> bool:
            db.execute(
                """UPDATE documents SET converted_version = version
                   WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
                (job.id, job.source, job.version),
            )
            db.execute("DELETE FROM jobs WHERE id = ? AND state IN ('pending', 'processing')", (job.id,))
            return db.changes() == 1

        return self._told(job, UNCHANGED, self._writer.call(operation))

    def release(self, job: Job) -> bool:
        """The job goes back to pending as if it had never been taken: no attempt, no interruption counted."""
        return self._writer.call(lambda db: _finish(db, job, State.PENDING, {"started_at": None, "not_before": 0}))

    def back_off(self, job: Job, error: TransientError, not_before: float) -> bool:
        """An attempt has failed; the next one starts at `not_before` at the earliest."""
        return self._writer.call(
            lambda db: _finish(
                db,
                job,
                State.PENDING,
                {
                    "attempts": job.attempts + 1,
                    "not_before": not_before,
                    "error_kind": error.kind.value,
                    "error": error.message,
                    "hint": error.hint,
                },
            )
        )

    def _told(self, job: Job, outcome: str, ended: bool, event: str | None = None) -> bool:
        """Whoever counts or waits for news hears of it, now that it is durable."""
        if ended:
            self._meter.ended(job.watch, outcome)
            if event is not None:
                self._outbox.announce()
        return ended

    # -- disposals ---------------------------------------------------------------------------------------------

    def due_disposals(self) -> list[tuple[Job, str]]:
        """Jobs whose source is still to be disposed of, each with 'success' or 'failure'."""
        rows = self._readers.rows(JOB + "WHERE jobs.disposal IS NOT NULL ORDER BY jobs.id")
        return [(job_of(row), row[15]) for row in rows]

    def disposal_is_due(self, job: Job) -> bool:
        """Whether the disposal still stands."""
        return bool(self._readers.rows("SELECT 1 FROM jobs WHERE id = ? AND disposal IS NOT NULL", (job.id,)))

    def disposed(self, job: Job, location: bytes | None) -> None:
        """The source is gone from its place (to `location`, if moved): its version is forgotten."""

        def operation(db: Connection) -> None:
            db.execute(
                "UPDATE jobs SET disposal = NULL, location = ? WHERE id = ? AND disposal IS NOT NULL",
                (location, job.id),
            )
            _forget(db, job)

        self._writer.call(operation)

    def keep_source(self, job: Job) -> None:
        """The disposal is called off: a newer version has taken the source's place."""
        self._writer.call(lambda db: db.execute("UPDATE jobs SET disposal = NULL WHERE id = ?", (job.id,)))

    # -- start and control -------------------------------------------------------------------------------------

    def recover(self) -> int:
        """At start: what is processing was interrupted. Counts it against a job only if it was past being fetched.

        One that was being delivered may have replaced the output of an earlier version: that one's digest no longer
        tells what the sink holds.
        """

        def operation(db: Connection) -> int:
            db.execute(
                """UPDATE documents SET converted_version = NULL, converted_sha256 = NULL WHERE (watch, source) IN
                   (SELECT watch, source FROM jobs WHERE state = 'processing' AND stage = 'deliver')"""
            )
            db.execute(
                """UPDATE jobs SET state = 'pending', interruptions = interruptions + (stage <> 'fetch'), stage = NULL
                   WHERE state = 'processing'"""
            )
            return int(db.changes())

        return self._writer.call(operation)

    def release_all(self) -> None:
        """At a stop by signal: what is still processing goes back to pending and is not counted as interrupted.

        Not waited for, since the disk may hang: closing the writer does that, within bounds.
        """
        self._writer.post(
            lambda db: db.execute("UPDATE jobs SET state = 'pending', stage = NULL WHERE state = 'processing'")
        )

    def pending(self, watch: str, limit: int) -> list[tuple[Job, float]]:
        """The first pending jobs of a watch in the order of dispatch, each with its not-before time."""
        rows = self._readers.rows(
            JOB
            + """WHERE jobs.state = 'pending' AND jobs.watch = (SELECT id FROM watches WHERE name = ?)
                 ORDER BY jobs.discovered_at - 600.0 * jobs.priority, jobs.id LIMIT ?""",
            (watch, limit),
        )
        return [(job_of(row), row[14]) for row in rows]

    def retry(self, ids: Iterable[int]) -> tuple[list[Job], list[str]]:
        """Make finished jobs pending again; returns them, and a sentence for each that cannot be retried."""

        def operation(db: Connection) -> tuple[list[Job], list[str]]:
            retried: list[Job] = []
            refused: list[str] = []
            for job_id in ids:
                reason = _retry(db, job_id)
                if reason:
                    refused.append(reason)
                else:
                    retried.append(job_of(one(db, JOB + "WHERE jobs.id = ?", (job_id,))))
            return retried, refused

        return self._writer.call(operation)

    def cancel(self, ids: Iterable[int]) -> list[Job]:
        """End those of the jobs that are pending; returns them. What a worker has is the worker's."""
        now = self._clock()

        def operation(db: Connection) -> list[Job]:
            cancelled = []
            for job_id in ids:
                row = first(db, JOB + "WHERE jobs.id = ? AND jobs.state = 'pending'", (job_id,))
                if row is not None:
                    db.execute(
                        "UPDATE jobs SET state = 'cancelled', stage = NULL, finished_at = ? WHERE id = ?", (now, job_id)
                    )
                    assert db.changes() == 1
                    cancelled.append(job_of(row))
            return cancelled

        ended = self._writer.call(operation)
        for job in ended:
            self._meter.ended(job.watch, State.CANCELLED)
        return ended


def _finish(db: Connection, job: Job, state: State, values: dict[str, Any]) -> bool:
    """Take a job that a worker holds to another state, unless somebody else has ended it meanwhile.

    Its row may still say pending: `start` is written without anybody waiting, and a full disk may have refused it.
    """
    columns = "".join(f", {column} = ?" for column in values)
    db.execute(
        f"UPDATE jobs SET state = ?, stage = NULL{columns} WHERE id = ? AND state IN ('pending', 'processing')",
        (state.value, *values.values(), job.id),
    )
    return db.changes() == 1


def _forget(db: Connection, job: Job) -> None:
    db.execute(
        """DELETE FROM documents WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
        (job.id, job.source, job.version),
    )


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
    db.execute(
        "UPDATE documents SET converted_version = NULL, converted_sha256 = NULL WHERE watch = ? AND source = ?",
        (watch, source),
    )
    return None
