"""What is remembered of documents beyond their jobs: the version last seen, and what was converted last.

`converted_version` and `converted_sha256` are of the version whose result the sink holds. They are empty where that is
not known for certain: then a version that holds the same bytes is converted all the same. All functions are called
within a transaction, and change nothing of a document that has no row any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from daemon.db import Connection
from daemon.jobs.rows import in_groups, marks
from daemon.model import Candidate, Job


class Versions(NamedTuple):
    """Of a document: the last one seen, and the last one converted."""

    seen: str | None
    converted: str | None


NEVER_SEEN = Versions(None, None)


def known(db: Connection, watch_id: int, sources: Sequence[bytes]) -> dict[bytes, Versions]:
    """What is remembered of those documents that have a row."""
    found = {}
    for group in in_groups(sources):
        sql = f"""SELECT source, version, converted_version FROM documents
                  WHERE watch = ? AND source IN ({marks("?", group)})"""
        for source, *versions in db.execute(sql, (watch_id, *group)):
            found[source] = Versions(*versions)
    return found


def seen(db: Connection, watch_id: int, candidates: Sequence[Candidate]) -> None:
    """These versions are there now."""
    for group in in_groups(candidates):
        db.execute(
            f"""INSERT INTO documents (watch, source, version) VALUES {marks("(?1, ?, ?)", group)}
                ON CONFLICT DO UPDATE SET version = excluded.version""",
            (watch_id, *chain.from_iterable((candidate.source, candidate.version) for candidate in group)),
        )


def unsee(db: Connection, job: Job) -> None:
    """Should the job's version be seen again it is news; a newer one that is known stays so."""
    db.execute(
        """UPDATE documents SET version = '' WHERE watch = (SELECT watch FROM jobs WHERE id = ?)
           AND source = ? AND version = ?""",
        (job.id, job.source, job.version),
    )


def forget(db: Connection, job: Job) -> None:
    """The job's version is no longer in the source; a newer one that is known stays so."""
    db.execute(
        """DELETE FROM documents WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
        (job.id, job.source, job.version),
    )


def converted(db: Connection, job: Job, sha256: str) -> None:
    """The sink holds what was made of the job's version, unless a newer one is known."""
    db.execute(
        """UPDATE documents SET converted_version = version, converted_sha256 = ?
           WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
        (sha256, job.id, job.source, job.version),
    )


def same_as_converted(db: Connection, job: Job) -> None:
    """The job's version holds the bytes of the one that was converted, unless a newer one is known."""
    db.execute(
        """UPDATE documents SET converted_version = version
           WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ? AND version = ?""",
        (job.id, job.source, job.version),
    )


def distrust(db: Connection, job_id: int, source: bytes) -> None:
    """Whatever the sink holds of this job's document, it is to be converted when it comes again."""
    db.execute(
        """UPDATE documents SET converted_version = NULL, converted_sha256 = NULL
           WHERE watch = (SELECT watch FROM jobs WHERE id = ?) AND source = ?""",
        (job_id, source),
    )


def distrust_interrupted(db: Connection) -> None:
    """The same of all that a worker had: their outputs may be those of an earlier version, or no longer. Not only of
    those that are said to be delivered, which is written a moment after it has begun."""
    db.execute(
        """UPDATE documents SET converted_version = NULL, converted_sha256 = NULL WHERE (watch, source) IN
           (SELECT watch, source FROM jobs WHERE state = 'processing')"""
    )
