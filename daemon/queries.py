"""What commands read from the job table, through one short read-only connection. Every query is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from daemon.db import Connection, Row
from daemon.model import State, display

FINAL_AND_OPEN = (State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED)

_COLUMNS = """jobs.id, watches.name, jobs.source, jobs.version, jobs.state, jobs.stage, jobs.priority, jobs.attempts,
    jobs.error, jobs.output, jobs.engine, jobs.pages, jobs.size_bytes, jobs.discovered_at, jobs.started_at,
    jobs.finished_at, jobs.error_kind, jobs.hint, jobs.location, jobs.not_before, jobs.interruptions, jobs.disposal,
    jobs.engine_version"""
_FROM = "FROM jobs JOIN watches ON watches.id = jobs.watch"
_KEYS = tuple(column.strip().split(".")[1] for column in _COLUMNS.split(","))


def counts(db: Connection) -> dict[str, dict[str, int]]:
    """Jobs by watch and state, from the counters."""
    result: dict[str, dict[str, int]] = {}
    sql = "SELECT name, state, jobs FROM watches LEFT JOIN counts ON counts.watch = watches.id ORDER BY watches.id"
    for name, state, number in db.execute(sql):
        watch = result.setdefault(name, {key.value: 0 for key in FINAL_AND_OPEN})
        if state is not None:
            watch[state] = number
    return result


def oldest_pending(db: Connection) -> float | None:
    """When the pending job that waits longest was discovered."""
    row: Row = next(iter(db.execute("SELECT min(id), discovered_at FROM jobs WHERE state = 'pending'")))
    return None if row[1] is None else float(row[1])


def watches(db: Connection) -> list[tuple[str, str, str]]:
    """Name, source and sink of every watch ever seen, in the order of their first appearance."""
    return [(str(row[0]), str(row[1]), str(row[2])) for row in db.execute("SELECT name, source, sink FROM watches")]


def listing(db: Connection, *, state: str | None, watch: str | None, limit: int) -> Iterator[dict[str, Any]]:
    """Jobs, newest first."""
    conditions, bindings = [], []
    if state is not None:
        # A literal, so that SQLite can use the partial index of that state; State() admits nothing else.
        conditions.append(f"jobs.state = '{State(state).value}'")
    if watch is not None:
        conditions.append("watches.name = ?")
        bindings.append(watch)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    for row in db.execute(f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY jobs.id DESC LIMIT ?", (*bindings, limit)):
        yield _record(row)


def job(db: Connection, job_id: int) -> dict[str, Any] | None:
    """One job, or None."""
    row = next(iter(db.execute(f"SELECT {_COLUMNS} {_FROM} WHERE jobs.id = ?", (job_id,))), None)
    return _record(row) if row else None


def history(db: Connection, watch: str, source: bytes, limit: int = 20) -> list[dict[str, Any]]:
    """The jobs of one document, newest first."""
    sql = f"""SELECT {_COLUMNS} {_FROM} WHERE jobs.watch = (SELECT id FROM watches WHERE name = ?) AND jobs.source = ?
              ORDER BY jobs.id DESC LIMIT ?"""
    return [_record(row) for row in db.execute(sql, (watch, source, limit))]


def known(db: Connection, watch: str, source: bytes) -> bool:
    """Whether a version of the document is remembered, though its jobs may have been pruned."""
    sql = "SELECT 1 FROM documents WHERE watch = (SELECT id FROM watches WHERE name = ?) AND source = ?"
    return next(iter(db.execute(sql, (watch, source))), None) is not None


def failed_ids(db: Connection, watch: str | None) -> list[int]:
    """The ids of all failed jobs."""
    if watch is None:
        return [row[0] for row in db.execute("SELECT id FROM jobs WHERE state = 'failed'")]
    sql = f"SELECT jobs.id {_FROM} WHERE jobs.state = 'failed' AND watches.name = ?"
    return [row[0] for row in db.execute(sql, (watch,))]


def _record(row: Row) -> dict[str, Any]:
    record = dict(zip(_KEYS, row, strict=True))
    record["watch"] = record.pop("name")
    record["source_bytes"] = record["source"]
    record["source"] = display(record["source"])
    return record
