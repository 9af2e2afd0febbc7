"""What discovery asks the job table: which of the documents that it sees are known already."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.db import Readers
from daemon.jobs.rows import in_chunks
from daemon.model import Candidate

FEW = 16
"""Up to so many paths are looked up as they are: what lies between them costs more than each of them."""


class Known:
    """The versions last seen of documents. May be asked from any thread."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._watch_ids: dict[str, int] = {}

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
        for marks, chunk in in_chunks(paths):
            sql = f"SELECT source, version FROM documents WHERE watch = ? AND source IN ({marks})"
            seen.update(self._readers.rows(sql, (watch_id, *chunk)))
        return seen

    def unfinished(self, watch: str, sources: Sequence[bytes]) -> set[bytes]:
        """Those of these documents that have a job which is pending or processing."""
        found: set[bytes] = set()
        for marks, chunk in in_chunks(sources):
            # By "+" the index on sources is taken: that on states would go through all that is pending.
            sql = f"""SELECT source FROM jobs WHERE watch = (SELECT id FROM watches WHERE name = ?)
                      AND source IN ({marks}) AND +state IN ('pending', 'processing')"""
            found.update(row[0] for row in self._readers.rows(sql, (watch, *chunk)))
        return found
