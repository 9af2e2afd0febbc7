"""What is done with jobs and documents that are over: they are dropped when they are old, or gone from their source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from daemon import batches
from daemon.db import Connection, Readers, Row, Writer
from daemon.jobs.rows import among, watch_id_of
from daemon.model import State


class Pruned(NamedTuple):
    """How far `prune` has come (0: to the end), how many jobs it has dropped, and which copies of documents that were
    handed in these had."""

    after: int
    jobs: int
    spooled: list[bytes]


class History:
    """Methods that change something return after the change is durable. May be called from any thread."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def spooled(self, locations: Sequence[bytes]) -> set[bytes]:
        """Those of these copies of documents that were handed in which belong to a job."""
        return among(self._readers, "SELECT location FROM jobs WHERE submitted = 1 AND location", locations)

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
        may_go = f"""state IN ({states}) AND finished_at < ? AND disposal IS NULL AND (EXISTS (
                     SELECT 1 FROM jobs AS newer
                     WHERE newer.watch = jobs.watch AND newer.source = jobs.source AND newer.id > jobs.id)
                     OR NOT EXISTS (SELECT 1 FROM jobs AS older
                     WHERE older.watch = jobs.watch AND older.source = jobs.source AND older.id < jobs.id
                     AND NOT (older.state IN ({states}) AND older.finished_at < ? AND older.disposal IS NULL)))"""
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
            watch_id = watch_id_of(db, watch)
            db.executemany(
                """DELETE FROM documents WHERE watch = ? AND source = ? AND NOT EXISTS (SELECT 1 FROM jobs
                   WHERE jobs.watch = documents.watch AND jobs.source = documents.source)""",
                [(watch_id, source) for source in sources],
            )

        self._writer.call(operation)
