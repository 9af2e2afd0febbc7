"""What is left to be done about the sources of jobs that have ended: due from the commit that ended the job."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.db import Connection, Readers, Writer
from daemon.jobs import documents
from daemon.jobs.rows import JOB, among, job_of
from daemon.model import Job


class Disposals:
    """Methods that change something return after the change is durable. May be called from any thread."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def due(self) -> list[tuple[Job, str]]:
        """Jobs whose source is still to be disposed of, each with 'success' or 'failure'."""
        rows = self._readers.rows(JOB + "WHERE jobs.disposal IS NOT NULL ORDER BY jobs.id")
        return [(job_of(row), row[14]) for row in rows]

    def due_of(self, job_id: int) -> tuple[Job, str] | None:
        """This one of them, as its row is now; None where nothing is due."""
        rows = self._readers.rows(JOB + "WHERE jobs.id = ? AND jobs.disposal IS NOT NULL", (job_id,))
        return (job_of(rows[0]), rows[0][14]) if rows else None

    def due_among(self, job_ids: Sequence[int]) -> set[int]:
        """Those of these jobs whose source is still to be disposed of."""
        return among(self._readers, "SELECT id FROM jobs WHERE disposal IS NOT NULL AND id", job_ids)

    def done(self, job: Job, location: bytes | None) -> None:
        """The source is gone from its place (to `location`, if moved): its version is forgotten."""

        def operation(db: Connection) -> None:
            db.execute(
                "UPDATE jobs SET disposal = NULL, location = ? WHERE id = ? AND disposal IS NOT NULL",
                (location, job.id),
            )
            documents.forget(db, job)

        self._writer.call(operation)

    def keep_source(self, job: Job) -> None:
        """The disposal is called off: a newer version has taken the source's place, or it is to be kept now."""
        self._writer.call(lambda db: db.execute("UPDATE jobs SET disposal = NULL WHERE id = ?", (job.id,)))
