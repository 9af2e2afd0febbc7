"""What commands read from the job table, through one short read-only connection. Every query is bounded."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from daemon.db import Connection, Row
from daemon.words import State, display

MOST_BINDINGS = 900
FINAL_AND_OPEN = (State.PENDING, State.PROCESSING, State.COMPLETED, State.FAILED)

_COLUMNS = """jobs.id, watches.name, jobs.source, jobs.version, jobs.state, jobs.stage, jobs.priority, jobs.attempts,
    jobs.error, jobs.output, jobs.engine, jobs.pages, jobs.size_bytes, jobs.discovered_at, jobs.started_at,
    jobs.finished_at, jobs.error_kind, jobs.hint, jobs.location, jobs.not_before, jobs.interruptions, jobs.disposal,
    jobs.engine_version, jobs.submitted"""
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
    sql = """SELECT discovered_at FROM jobs WHERE state = 'pending' AND watch = ? ORDER BY id LIMIT 1"""
    found = [row[0] for (watch_id,) in _watch_ids(db, None) for row in db.execute(sql, (watch_id,))]
    return min(found, default=None)


def oldest_by_watch(db: Connection) -> dict[str, float]:
    """The same of each watch that has any."""
    sql = """SELECT name, (SELECT discovered_at FROM jobs WHERE state = 'pending' AND watch = watches.id
             ORDER BY jobs.id LIMIT 1) FROM watches"""
    return {name: since for name, since in db.execute(sql) if since is not None}


def outbox(db: Connection) -> dict[str, dict[str, Any]]:
    """Of each target of notifications: how many events wait for it, since when the first, how many were dropped."""
    found = {}
    sql = """SELECT name, dropped, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) - delivered,
             (SELECT created_at FROM events WHERE id > delivered ORDER BY id LIMIT 1) FROM targets ORDER BY name"""
    for name, dropped, waiting, since in db.execute(sql):
        found[name] = {"waiting": max(0, waiting), "waiting_since": since, "dropped": dropped}
    return found


def newest_by_watch(db: Connection) -> dict[str, float]:
    """When the newest job of each watch that has any was discovered."""
    sql = """SELECT name, (SELECT discovered_at FROM jobs WHERE watch = watches.id ORDER BY id DESC LIMIT 1)
             FROM watches"""
    return {name: since for name, since in db.execute(sql) if since is not None}


def watches(db: Connection) -> list[tuple[str, str, str]]:
    """Name, source and sink of every watch ever seen, in the order of their first appearance."""
    rows = db.execute("SELECT name, source, sink FROM watches")
    return [(str(name), os.fsdecode(source), os.fsdecode(sink)) for name, source, sink in rows]


def listing(db: Connection, *, state: str | None, watch: str | None, limit: int) -> list[dict[str, Any]]:
    """Jobs, newest first. Asks an index for the newest of each watch: no history is too long for it."""
    conditions = ["jobs.watch = ?"]
    if state is not None:
        conditions.append(f"jobs.state = '{State(state).value}'")
    sql = f"SELECT {_COLUMNS} {_FROM} WHERE {' AND '.join(conditions)} ORDER BY jobs.id DESC LIMIT ?"
    rows = [row for (watch_id,) in _watch_ids(db, watch) for row in db.execute(sql, (watch_id, limit))]
    rows.sort(key=lambda row: int(row[0]), reverse=True)
    return [_record(row) for row in rows[:limit]]


def job(db: Connection, job_id: int) -> dict[str, Any] | None:
    """One job, or None."""
    row = next(iter(db.execute(f"SELECT {_COLUMNS} {_FROM} WHERE jobs.id = ?", (job_id,))), None)
    return _record(row) if row else None


def ends(db: Connection, ids: Sequence[int]) -> list[Row]:
    """Id, state, output, kind of error and error of those of these jobs that have ended; all None behind the id for
    one that was dropped since."""
    found: dict[int, Row] = {}
    for start in range(0, len(ids), MOST_BINDINGS):
        chunk = ids[start : start + MOST_BINDINGS]
        marks = ", ".join("?" * len(chunk))
        rows = db.execute(f"SELECT id, state, output, error_kind, error FROM jobs WHERE id IN ({marks})", tuple(chunk))
        found.update((row[0], row) for row in rows)
    rows_or_none = [found.get(job_id, (job_id, None, None, None, None)) for job_id in ids]
    return [row for row in rows_or_none if row[1] not in (State.PENDING, State.PROCESSING)]


def history(db: Connection, watch: str, source: bytes, limit: int = 20) -> list[dict[str, Any]]:
    """The jobs of one document, newest first."""
    sql = f"""SELECT {_COLUMNS} {_FROM} WHERE jobs.watch = (SELECT id FROM watches WHERE name = ?) AND jobs.source = ?
              ORDER BY jobs.id DESC LIMIT ?"""
    return [_record(row) for row in db.execute(sql, (watch, source, limit))]


def known(db: Connection, watch: str, source: bytes) -> bool:
    """Whether a version of the document is remembered, though its jobs may have been pruned."""
    sql = "SELECT 1 FROM documents WHERE watch = (SELECT id FROM watches WHERE name = ?) AND source = ?"
    return next(iter(db.execute(sql, (watch, source))), None) is not None


def versions(db: Connection, watch: str, sources: Sequence[bytes]) -> dict[bytes, str]:
    """The last seen versions of those of these documents that are known."""
    found: dict[bytes, str] = {}
    for start in range(0, len(sources), MOST_BINDINGS):
        chunk = sources[start : start + MOST_BINDINGS]
        marks = ", ".join("?" * len(chunk))
        sql = f"""SELECT source, version FROM documents WHERE watch = (SELECT id FROM watches WHERE name = ?)
                  AND source IN ({marks})"""
        found.update(db.execute(sql, (watch, *chunk)))
    return found


def failed_ids(db: Connection, watch: str | None) -> list[int]:
    """The failed jobs whose document has not come in a newer version since."""
    sql = """SELECT id FROM jobs WHERE state = 'failed' AND watch = ? AND NOT EXISTS (
             SELECT 1 FROM jobs AS newer
             WHERE newer.watch = jobs.watch AND newer.source = jobs.source AND newer.id > jobs.id)"""
    return [row[0] for (watch_id,) in _watch_ids(db, watch) for row in db.execute(sql, (watch_id,))]


def ids_by_engine(db: Connection, engine: str, below: str | None, watch: str | None) -> list[int]:
    """The newest jobs of documents that this engine has made, of a version lower than `below` if one is given.

    Without those whose document was handed in and is kept by nobody.
    """
    sql = """SELECT id, engine_version FROM jobs WHERE state = 'completed' AND watch = ? AND engine = ?
             AND NOT (submitted AND location IS NULL) AND NOT EXISTS (
             SELECT 1 FROM jobs AS newer
             WHERE newer.watch = jobs.watch AND newer.source = jobs.source AND newer.id > jobs.id)"""
    found = [row for (watch_id,) in _watch_ids(db, watch) for row in db.execute(sql, (watch_id, engine))]
    return [job_id for job_id, version in found if below is None or _order(version) < _order(below)]


def _order(version: str | None) -> list[tuple[int, str]]:
    """Versions in the order in which they follow one another: 1.9 before 1.10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|[a-z]+", version or "")]


def _watch_ids(db: Connection, watch: str | None) -> list[Row]:
    if watch is None:
        return list(db.execute("SELECT id FROM watches"))
    return list(db.execute("SELECT id FROM watches WHERE name = ?", (watch,)))


def _record(row: Row) -> dict[str, Any]:
    record = dict(zip(_KEYS, row, strict=True))
    record["watch"] = record.pop("name")
    record["source_bytes"] = record["source"]
    record["source"] = display(record["source"])
    return record
