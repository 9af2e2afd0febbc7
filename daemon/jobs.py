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
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

from daemon import batches, events
from daemon.db import Connection, Readers, Row, Writer
from daemon.errors import DocumentError, TransientError
from daemon.meters import UNMETERED, Meter
from daemon.model import Candidate, Conversion, Job, Stage, State
from daemon.naming import no_batch
from daemon.outbox import Outbox

Clock = Callable[[], float]

FEW = 16
"""Up to so many paths are looked up as they are: what lies between them costs more than each of them."""
UNCHANGED = "unchanged"
"""What is counted for a job that is forgotten because its document holds what was converted before."""
MOST_BINDINGS = 900
"""SQLite allows 999 in its oldest builds."""

_JOB = """SELECT jobs.id, watches.name, jobs.source, jobs.version, jobs.size_bytes, jobs.priority, jobs.attempts,
    jobs.interruptions, jobs.discovered_at, jobs.location, documents.converted_version, documents.converted_sha256,
    batches.name, jobs.submitted, jobs.not_before, jobs.disposal
FROM jobs JOIN watches ON watches.id = jobs.watch
LEFT JOIN batches ON batches.id = jobs.batch
LEFT JOIN documents ON documents.watch = jobs.watch AND documents.source = jobs.source
"""


def _job(row: Row) -> Job:
    return Job(*row[:14])


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


class Pruned(NamedTuple):
    """How far `prune` has come (0: to the end), how many jobs it has dropped, and which copies of documents that were
    handed in these had."""

    after: int
    jobs: int
    spooled: list[bytes]


class JobTable:
    """The daemon's side of the job table. Commands that only look use `daemon.queries`."""

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
        self._watch_ids: dict[str, int] = {}

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

    def unknown(self, watch: str, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those whose version is not the last one seen for their path, in the order in which they were given.

        Quick for pages whose paths are neighbours in byte order, in whatever order the page has them.
        """
        watch_id = self._id_of(watch)
        if watch_id is None:
            return list(candidates)
        paths = [candidate.source for candidate in candidates]
        seen = self._neighbours(watch_id, paths) if len(paths) > FEW else None
        if seen is None:
            seen = self._singly(watch_id, paths)
        return [c for c in candidates if seen.get(c.source) != c.version]

    def _id_of(self, watch: str) -> int | None:
        """A row of `watches` is never removed, so an id that was seen once holds; one not there yet may come."""
        watch_id = self._watch_ids.get(watch)
        if watch_id is None:
            rows = self._readers.rows("SELECT id FROM watches WHERE name = ?", (watch,))
            if not rows:
                return None
            watch_id = self._watch_ids[watch] = int(rows[0][0])
        return watch_id

    def _neighbours(self, watch_id: int, paths: list[bytes]) -> dict[bytes, str] | None:
        """The versions of these paths and of those between them; None where there are too many of the latter."""
        limit = 2 * len(paths) + FEW
        rows = self._readers.rows(
            "SELECT source, version FROM documents WHERE watch = ? AND source BETWEEN ? AND ? LIMIT ?",
            (watch_id, min(paths), max(paths), limit),
        )
        return dict(rows) if len(rows) < limit else None

    def _singly(self, watch_id: int, paths: list[bytes]) -> dict[bytes, str]:
        seen: dict[bytes, str] = {}
        for start in range(0, len(paths), MOST_BINDINGS):
            chunk = paths[start : start + MOST_BINDINGS]
            marks = ", ".join("?" * len(chunk))
            sql = f"SELECT source, version FROM documents WHERE watch = ? AND source IN ({marks})"
            seen.update(self._readers.rows(sql, (watch_id, *chunk)))
        return seen

    def unfinished(self, watch: str, sources: Sequence[bytes]) -> set[bytes]:
        """Those of these documents that have a job which is pending or processing."""
        found: set[bytes] = set()
        for start in range(0, len(sources), MOST_BINDINGS):
            chunk = sources[start : start + MOST_BINDINGS]
            marks = ", ".join("?" * len(chunk))
            # By "+" the index on sources is taken: that on states would go through all that is pending.
            sql = f"""SELECT source FROM jobs WHERE watch = (SELECT id FROM watches WHERE name = ?)
                      AND source IN ({marks}) AND +state IN ('pending', 'processing')"""
            found.update(row[0] for row in self._readers.rows(sql, (watch, *chunk)))
        return found

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
            watch_id = _watch_id(db, watch)
            join = cache(partial(batches.add, db, watch_id, now=now))
            for candidate in candidates:
                batch = batch_of(candidate.source)
                job, older = _enqueue(db, watch_id, watch, candidate, priority, batch, join, now)
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
            watch_id = _watch_id(db, watch)
            join = cache(partial(batches.add, db, watch_id, now=now))
            return [_submit(db, watch_id, watch, batch, join, document, priority, now) for document in handed]

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
        rows = self._readers.rows(_JOB + "WHERE jobs.disposal IS NOT NULL ORDER BY jobs.id")
        return [(_job(row), row[15]) for row in rows]

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
            _JOB
            + """WHERE jobs.state = 'pending' AND jobs.watch = (SELECT id FROM watches WHERE name = ?)
                 ORDER BY jobs.discovered_at - 600.0 * jobs.priority, jobs.id LIMIT ?""",
            (watch, limit),
        )
        return [(_job(row), row[14]) for row in rows]

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
                    retried.append(_job(_one(db, _JOB + "WHERE jobs.id = ?", (job_id,))))
            return retried, refused

        return self._writer.call(operation)

    def cancel(self, ids: Iterable[int]) -> list[Job]:
        """End those of the jobs that are pending; returns them. What a worker has is the worker's."""
        now = self._clock()

        def operation(db: Connection) -> list[Job]:
            cancelled = []
            for job_id in ids:
                row = _first(db, _JOB + "WHERE jobs.id = ? AND jobs.state = 'pending'", (job_id,))
                if row is not None:
                    db.execute(
                        "UPDATE jobs SET state = 'cancelled', stage = NULL, finished_at = ? WHERE id = ?", (now, job_id)
                    )
                    assert db.changes() == 1
                    cancelled.append(_job(row))
            return cancelled

        ended = self._writer.call(operation)
        for job in ended:
            self._meter.ended(job.watch, State.CANCELLED)
        return ended

    def spooled(self, locations: Sequence[bytes]) -> set[bytes]:
        """Those of these copies of documents that were handed in which belong to a job."""
        found: set[bytes] = set()
        for start in range(0, len(locations), MOST_BINDINGS):
            chunk = locations[start : start + MOST_BINDINGS]
            marks = ", ".join("?" * len(chunk))
            sql = f"SELECT location FROM jobs WHERE submitted = 1 AND location IN ({marks})"
            found.update(row[0] for row in self._readers.rows(sql, tuple(chunk)))
        return found

    def prune(self, older_than: float, *, keep_failed: bool, after: int = 0, limit: int = 500) -> Pruned:
        """Drop finished jobs that ended before `older_than`, of the next `limit` behind job `after` that may go.

        The search is done by a reader, so that no other work waits for it. The copies of the dropped jobs are the
        caller's to remove.
        """
        final = [State.COMPLETED, State.CANCELLED, State.VANISHED, State.SUPERSEDED]
        if not keep_failed:
            final.append(State.FAILED)
        states = ", ".join(f"'{state.value}'" for state in final)
        # A document's newest job stays as long as an older one does: else that one would pass for the newest.
        may_go = f"""state IN ({states}) AND finished_at < ? AND disposal IS NULL AND NOT EXISTS (
                     SELECT 1 FROM jobs AS older
                     WHERE older.watch = jobs.watch AND older.source = jobs.source AND older.id < jobs.id
                     AND NOT (older.state IN ({states}) AND older.finished_at < ? AND older.disposal IS NULL))"""
        found = self._readers.rows(
            f"SELECT id FROM jobs NOT INDEXED WHERE id > ? AND {may_go} ORDER BY id LIMIT ?",
            (after, older_than, older_than, limit),
        )
        if not found:
            return Pruned(0, 0, [])
        sql = f"DELETE FROM jobs WHERE id = ? AND {may_go} RETURNING batch, CASE WHEN submitted THEN location END"

        def operation(db: Connection) -> list[Row]:
            dropped = [row for (job_id,) in found for row in db.execute(sql, (job_id, older_than, older_than))]
            batches.drop_empty(db, {row[0] for row in dropped if row[0] is not None})
            return dropped

        dropped = self._writer.call(operation)
        return Pruned(int(found[-1][0]), len(dropped), [row[1] for row in dropped if row[1] is not None])

    def orphans(self, watch: str, after: bytes, limit: int = 1000) -> list[bytes]:
        """Documents without a job, in the order of their paths: what `forget` may drop if the source is gone."""
        rows = self._readers.rows(
            """SELECT source FROM documents AS d WHERE watch = (SELECT id FROM watches WHERE name = ?) AND source > ?
               AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.watch = d.watch AND jobs.source = d.source)
               ORDER BY source LIMIT ?""",
            (watch, after, limit),
        )
        return [row[0] for row in rows]

    def forget(self, watch: str, sources: Sequence[bytes]) -> None:
        """Drop what is known of documents that no longer exist."""

        def operation(db: Connection) -> None:
            watch_id = _watch_id(db, watch)
            db.executemany(
                """DELETE FROM documents WHERE watch = ? AND source = ? AND NOT EXISTS (SELECT 1 FROM jobs
                   WHERE jobs.watch = documents.watch AND jobs.source = documents.source)""",
                [(watch_id, source) for source in sources],
            )

        self._writer.call(operation)


def _first(db: Connection, sql: str, bindings: tuple[Any, ...]) -> Row | None:
    return next(iter(db.execute(sql, bindings)), None)


def _watch_id(db: Connection, watch: str) -> int:
    return int(_one(db, "SELECT id FROM watches WHERE name = ?", (watch,))[0])


def _one(db: Connection, sql: str, bindings: tuple[Any, ...]) -> Row:
    row: Row = next(iter(db.execute(sql, bindings)))
    return row


def _enqueue(
    db: Connection,
    watch_id: int,
    watch: str,
    candidate: Candidate,
    priority: int,
    batch: str | None,
    join: Callable[[str], int],
    now: float,
) -> tuple[Job | None, list[int]]:
    """`join` opens a batch for a job that comes to it, and tells its id."""
    known = _first(
        db,
        "SELECT version, converted_version, converted_sha256 FROM documents WHERE watch = ? AND source = ?",
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
    job_id = db.last_insert_rowid()
    db.execute(
        """INSERT INTO documents (watch, source, version) VALUES (?, ?, ?)
           ON CONFLICT DO UPDATE SET version = excluded.version""",
        (watch_id, candidate.source, candidate.version),
    )
    job = Job(
        id=job_id,
        watch=watch,
        source=candidate.source,
        version=candidate.version,
        size_bytes=candidate.size_bytes,
        priority=priority,
        attempts=0,
        interruptions=0,
        discovered_at=now,
        previous_version=known[1] if known else None,
        previous_sha256=known[2] if known else None,
        batch=batch,
    )
    return job, superseded


def _submit(
    db: Connection,
    watch_id: int,
    watch: str,
    batch: str,
    join: Callable[[str], int],
    document: Handed,
    priority: int,
    now: float,
) -> Receipt:
    sql = "SELECT id, version, state, submitted FROM jobs WHERE watch = ? AND source = ? ORDER BY id DESC LIMIT 1"
    last = _first(db, sql, (watch_id, document.source))
    known = _first(db, "SELECT 1 FROM documents WHERE watch = ? AND source = ?", (watch_id, document.source))
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
    job = Job(
        id=db.last_insert_rowid(),
        watch=watch,
        source=document.source,
        version=document.version,
        size_bytes=document.size_bytes,
        priority=priority,
        attempts=0,
        interruptions=0,
        discovered_at=now,
        location=document.location,
        batch=batch,
        submitted=True,
    )
    return Receipt(job.id, State.PENDING, job)


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
    row = _first(db, "SELECT state, watch, source, batch, submitted, location FROM jobs WHERE id = ?", (job_id,))
    if row is None:
        return f"job {job_id} does not exist (see: convertd jobs)"
    state, watch, source, batch, submitted, location = row
    if state in (State.PENDING, State.PROCESSING):
        return f"job {job_id} is {state}: nothing to retry"
    if submitted and location is None:
        return f"job {job_id} was submitted; its document is no longer kept: submit it to another batch"
    newer = _one(db, "SELECT max(id) FROM jobs WHERE watch = ? AND source = ? AND id > ?", (watch, source, job_id))
    if newer[0] is not None:
        return f"job {job_id} is about an older version of its document; the newest is job {newer[0]}"
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
