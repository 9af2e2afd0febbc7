"""How documents become pending jobs: those that were discovered, and those that were handed in.

`discovered` and `handed_in` are called within a transaction. `join` opens a batch for a job that comes to it, and tells
its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any

from daemon import batches
from daemon.db import Connection
from daemon.jobs import documents
from daemon.jobs.documents import NEVER_SEEN
from daemon.jobs.rows import first, in_groups, marks, watch_id_of
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
    for page in _pages(candidates):
        known = documents.known(db, watch_id, [candidate.source for candidate in page])
        fresh = [candidate for candidate in page if known.get(candidate.source, NEVER_SEEN).seen != candidate.version]
        for candidate in fresh:
            if candidate.source in known:
                superseded += _supersede(db, watch_id, candidate.source, now)
        named = [(candidate, batch_of(candidate.source)) for candidate in fresh]
        rows = [(c.source, c.version, c.size_bytes, None if batch is None else join(batch)) for c, batch in named]
        job_ids = _insert(db, watch_id, priority, now, rows)
        documents.seen(db, watch_id, fresh)
        for job_id, (candidate, batch) in zip(job_ids, named, strict=True):
            previous = known.get(candidate.source, NEVER_SEEN).converted
            new.append(_pending(job_id, watch, candidate, priority, now, None, previous, batch))
    return new, superseded


def handed_in(
    db: Connection, watch: str, batch: str, handed: Sequence[Handed], priority: int, now: float
) -> list[Receipt]:
    """Record documents of a batch; a receipt for each, in the same order."""
    watch_id = watch_id_of(db, watch)
    join = cache(partial(batches.add, db, watch_id, now=now))
    return [_handed_in(db, watch_id, watch, batch, join, document, priority, now) for document in handed]


def _pages(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """The same in their order, in pieces in which no document comes twice: of two versions one supersedes the other."""
    page: dict[bytes, Candidate] = {}
    for candidate in candidates:
        if candidate.source in page:
            yield list(page.values())
            page = {}
        page[candidate.source] = candidate
    yield list(page.values())


def _supersede(db: Connection, watch_id: int, source: bytes, now: float) -> list[int]:
    """End what is pending of a document; returns the ids."""
    rows = db.execute(
        """UPDATE jobs SET state = 'superseded', stage = NULL, finished_at = ?
           WHERE watch = ? AND source = ? AND state = 'pending' AND location IS NULL RETURNING id""",
        (now, watch_id, source),
    )
    return [row[0] for row in rows]


def _insert(
    db: Connection, watch_id: int, priority: int, now: float, rows: Sequence[tuple[bytes, str, int, int | None]]
) -> list[int]:
    """Insert pending jobs; returns their ids. AUTOINCREMENT numbers the rows of a statement one after the other."""
    ids: list[int] = []
    for group in in_groups(rows):
        db.execute(
            f"""INSERT INTO jobs (watch, priority, discovered_at, source, version, size_bytes, batch)
                VALUES {marks("(?1, ?2, ?3, ?, ?, ?, ?)", group)}""",
            (watch_id, priority, now, *chain.from_iterable(group)),
        )
        last = db.last_insert_rowid()
        ids += range(last - len(group) + 1, last + 1)
    return ids


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
    job = _pending(db.last_insert_rowid(), watch, document, priority, now, document.location, None, batch, True)
    return Receipt(job.id, State.PENDING, job)


def _pending(job_id: int, watch: str, document: Candidate | Handed, priority: int, now: float, *more: Any) -> Job:
    """The job of a row that is new."""
    return Job(job_id, watch, document.source, document.version, document.size_bytes, priority, 0, 0, now, *more)
