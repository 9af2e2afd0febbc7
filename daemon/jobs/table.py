"""The job table: every change of a job's state is one method here, and one transaction.

Methods that change something return after the change is durable, except `start` and `stage`, which are written with
the next batch, and `completion`, which says so itself. Each write names the state it expects the row to be in and
reports whether it found it so. All methods may be called from any thread. EnvironmentProblem means that nothing was
changed because the disk is sick.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence

from daemon import events
from daemon.db import Connection, Readers, Writer
from daemon.errors import DocumentError, TransientError
from daemon.jobs import documents, ending, enqueue, orders
from daemon.jobs.completion import Completion, tell
from daemon.jobs.disposals import Disposals
from daemon.jobs.enqueue import Handed, Receipt
from daemon.jobs.history import History
from daemon.jobs.known import Known
from daemon.jobs.rows import JOB, job_of
from daemon.meters import UNMETERED, Meter
from daemon.model import Candidate, Conversion, Job, Stage, State
from daemon.naming import no_batch
from daemon.outbox import Outbox

Clock = Callable[[], float]

UNCHANGED = "unchanged"
"""What is counted for a job that is forgotten because its document holds what was converted before."""


class JobTable:
    """The daemon's side of the job table. Commands that only look use `daemon.queries`.

    `known` is what discovery asks, `disposals` what is left to be done about sources, `history` drops what is over.

    The methods say what is one transaction, when, and who hears of it; what it does to the rows is in the modules
    beside this one: `enqueue`, `ending` and `orders` for jobs, `documents` for what is remembered of their documents.
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
        self.disposals = Disposals(writer, readers)
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

    def sources(self) -> dict[str, str]:
        """The source of each watch that was ever made known, as it was then."""
        rows = self._readers.rows("SELECT name, source FROM watches")
        return {name: os.fsdecode(source) for name, source in rows}

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
        new, superseded = self._writer.call(
            lambda db: enqueue.discovered(db, watch, candidates, priority, batch_of, now)
        )
        for _ in superseded:
            self._meter.ended(watch, State.SUPERSEDED)
        return new, superseded

    def submit(self, watch: str, batch: str, handed: Sequence[Handed], priority: int) -> list[Receipt]:
        """Record documents that were handed in as pending jobs of a batch; a receipt for each, in the same order.

        What has a job already, from the same bytes, gets no second one. A document never takes the place of another
        that is about to have a result, or has one.
        """
        now = self._clock()
        return self._writer.call(lambda db: enqueue.handed_in(db, watch, batch, handed, priority, now))

    # -- one job's way -----------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """A worker has taken the job. Not durable on return."""
        now = self._clock()
        self._writer.post(
            lambda db: db.execute(
                """UPDATE jobs SET state = 'processing', stage = 'fetch', started_at = ?, finished_at = NULL
                   WHERE id = ? AND state = 'pending'""",
                (now, job.id),
            ),
            patient=True,
        )

    def stage(self, job: Job, stage: Stage) -> None:
        """What the job does now. Not durable on return, but soon where it is to be converted: should the daemon die
        of it, that is counted against the document. From its delivery on nobody knows what the sink holds of it, until
        it is completed."""

        def operation(db: Connection) -> None:
            db.execute("UPDATE jobs SET stage = ? WHERE id = ? AND state = 'processing'", (stage.value, job.id))
            if stage is Stage.DELIVER:
                documents.distrust(db, job.id, job.source)

        self._writer.post(operation, patient=stage is not Stage.CONVERT)

    def converted_before(self, job: Job) -> str | None:
        """The digest of what the sink holds of the job's document; None where that is not known for certain. Not that
        of when the job was queued: an older version may have been delivered since."""
        sql = """SELECT converted_sha256 FROM documents
                 WHERE watch = (SELECT id FROM watches WHERE name = ?) AND source = ?"""
        rows = self._readers.rows(sql, (job.watch, job.source))
        return rows[0][0] if rows else None

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
        return self.completion(job, conversion, output, dispose=dispose).record()

    def completion(self, job: Job, conversion: Conversion, output: str, *, dispose: bool) -> Completion:
        """The same, to be recorded by the caller, who need not wait for it."""
        now = self._clock()
        event = events.completed(job, output, now) if self._outbox.wanted else None
        values = ending.completed(job, conversion, output, now, dispose=dispose)
        return Completion(self._writer, self._outbox, self._meter, job, conversion, values, event)

    def fail(self, job: Job, error: DocumentError | TransientError, *, attempts: int, dispose: bool) -> bool:
        """The job has failed for good and its error file is durable."""
        now = self._clock()
        event = events.failed(job, error, now) if self._outbox.wanted else None
        columns = ending.failed(error, attempts, now, dispose=dispose)

        def operation(db: Connection) -> bool:
            changed = ending.finish(db, job, State.FAILED, columns)
            if changed:
                documents.distrust(db, job.id, job.source)
                self._outbox.record(db, event)
            return changed

        return self._told(job, State.FAILED, self._writer.call(operation), event)

    def end(self, job: Job, state: State) -> bool:
        """The job ends without a result: vanished, superseded or cancelled."""
        now = self._clock()

        def operation(db: Connection) -> bool:
            changed = ending.finish(db, job, state, {"finished_at": now})
            if changed and state is State.VANISHED:
                documents.forget(db, job)
            elif changed and state is State.SUPERSEDED:
                documents.unsee(db, job)
            return changed

        return self._told(job, state, self._writer.call(operation))

    def fold(self, job: Job) -> bool:
        """The job's version holds the very bytes that were converted before: forget the job, keep the version."""

        def operation(db: Connection) -> bool:
            documents.same_as_converted(db, job)
            db.execute("DELETE FROM jobs WHERE id = ? AND state IN ('pending', 'processing')", (job.id,))
            return db.changes() == 1

        return self._told(job, UNCHANGED, self._writer.call(operation))

    def release(self, job: Job) -> bool:
        """The job goes back to pending as if it had never been taken: no attempt, no interruption counted."""
        return self._writer.call(
            lambda db: ending.finish(db, job, State.PENDING, {"started_at": None, "not_before": 0})
        )

    def back_off(self, job: Job, error: TransientError, not_before: float) -> bool:
        """An attempt has failed; the next one starts at `not_before` at the earliest."""
        columns = ending.backed_off(job, error, not_before)
        return self._writer.call(lambda db: ending.finish(db, job, State.PENDING, columns))

    def _told(self, job: Job, outcome: str, ended: bool, event: str | None = None) -> bool:
        if ended:
            tell(self._meter, self._outbox, job, outcome, event)
        return ended

    # -- start and stop ----------------------------------------------------------------------------------------

    def recover(self) -> int:
        """At start: what is processing was interrupted. Counts it against a job only if it was past being fetched.

        One that was being delivered may have replaced the output of an earlier version: that one's digest no longer
        tells what the sink holds.
        """
        return self._writer.call(ending.interrupted)

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
        return [(job_of(row), row[13]) for row in rows]

    # -- what operators ask for --------------------------------------------------------------------------------

    def retry(self, ids: Collection[int]) -> tuple[list[Job], list[str]]:
        """Make finished jobs pending again; returns them, and a sentence for each that cannot be retried."""
        return self._writer.call(lambda db: orders.retry(db, ids))

    def cancel(self, ids: Collection[int]) -> list[Job]:
        """End those of the jobs that are pending; returns them. What a worker has is the worker's."""
        now = self._clock()
        ended = self._writer.call(lambda db: orders.cancel(db, ids, now))
        for job in ended:
            self._meter.ended(job.watch, State.CANCELLED)
        return ended
