"""What the job table must say of documents, whatever befell the daemon: the same version is converted once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.chaos.places import Folder
from tests.chaos.waiting import within
from tests.chaos.world import World

PUT_BACK = 3


class Row(NamedTuple):
    """Of a job."""

    id: int
    watch: int
    source: bytes
    version: str
    state: str


ROWS = "SELECT id, watch, source, version, state FROM jobs ORDER BY id"
MISCOUNTED = """WITH real AS (SELECT watch, state, count(*) AS jobs FROM jobs GROUP BY watch, state)
                SELECT w.name, state, ifnull(c.jobs, 0), ifnull(r.jobs, 0)
                FROM counts c FULL JOIN real r USING (watch, state) JOIN watches w ON w.id = watch
                WHERE ifnull(c.jobs, 0) <> ifnull(r.jobs, 0)"""
"""Counters that are not what they count: one statement, which sees one moment."""
MISCOUNTED_IN_BATCHES = """
    WITH real AS (SELECT batch, state, count(*) AS jobs FROM jobs WHERE batch IS NOT NULL GROUP BY batch, state),
    wrong AS (
        SELECT batch, state, ifnull(c.jobs, 0) AS said, ifnull(r.jobs, 0) AS jobs
        FROM batch_counts c FULL JOIN real r USING (batch, state) WHERE ifnull(c.jobs, 0) <> ifnull(r.jobs, 0)
        UNION ALL
        SELECT b.id, 'unfinished', b.unfinished, count(j.id) FROM batches b
        LEFT JOIN jobs j ON j.batch = b.id AND j.state IN ('pending', 'processing')
        GROUP BY b.id HAVING b.unfinished <> count(j.id)
    )
    SELECT 'batch ' || ifnull(w.name || '/' || b.name, batch), state, said, jobs
    FROM wrong LEFT JOIN batches b ON b.id = batch LEFT JOIN watches w ON w.id = b.watch"""
"""The same of batches, which may have none that they say are left while there are some."""


def miscounted(world: World) -> Iterator[str]:
    """What is wrong with the counters of the job table, at any moment."""
    for sql in (MISCOUNTED, MISCOUNTED_IN_BATCHES):
        for wrong in world.rows(sql):
            yield "the counter of {}, {} says {}, there are {}".format(*wrong)


def converted_twice(rows: Iterable[Row]) -> Iterator[str]:
    """Versions that two jobs have converted, one after the other. A job that is tried again stays the same one; a
    version that comes back, with another one between, is news (an object is known by its bytes)."""
    last: dict[tuple[int, bytes], tuple[str, int]] = {}
    for row in rows:
        document = row.watch, row.source
        version, completed = last.get(document, ("", 0))
        if row.version != version:
            completed = 0
        if row.state == "completed":
            if completed:
                yield f"jobs {completed} and {row.id} have both converted {os.fsdecode(row.source)} as {row.version}"
            completed = row.id
        last[document] = row.version, completed


def put_back(world: World, seconds: float) -> Iterator[str]:
    """Put some files that are converted back from copies, of the same time and of another mode, and see that nothing is
    converted for it. For a world in which nothing else is going on."""
    for name, watch in world.watches.items():
        if watch.action != "keep" or not isinstance(watch.source, Folder):
            continue
        for source, jobs in world.rows(_CONVERTED, name, PUT_BACK):
            if watch.source.has(os.fsdecode(source)):
                yield from _put_back(world, name, watch.source.path, source, jobs, seconds)


def _put_back(world: World, watch: str, folder: Path, source: bytes, jobs: int, seconds: float) -> Iterator[str]:
    path = folder / os.fsdecode(source)
    before = world.rows(_VERSION, watch, source)
    copy = path.with_name(f".{path.name}.tmp")
    shutil.copy2(path, copy)
    copy.chmod(path.stat().st_mode ^ 0o040)
    copy.rename(path)
    about = f"{watch}/{os.fsdecode(source)} was put back from a copy"
    if not within(seconds, lambda: bool(after := world.rows(_VERSION, watch, source)) and after != before):
        yield f"{about}, and nobody has seen that"
    elif not within(seconds, lambda: not world.rows(_UNFINISHED, watch, source)):
        yield f"{about}, and its job does not end"
    elif (now := world.rows(_COMPLETED, watch, source)[0][0]) != jobs:
        yield f"{about} and converted again: {jobs} jobs are {now}"


_DOCUMENT = "j.watch = (SELECT id FROM watches WHERE name = ?) AND j.source = ?"
_VERSION = f"SELECT version FROM documents j WHERE {_DOCUMENT}"
_UNFINISHED = f"SELECT id FROM jobs j WHERE {_DOCUMENT} AND state IN ('pending', 'processing')"
_COMPLETED = f"SELECT count(*) FROM jobs j WHERE {_DOCUMENT} AND state = 'completed'"
_CONVERTED = """SELECT d.source, (SELECT count(*) FROM jobs j
                                  WHERE j.watch = d.watch AND j.source = d.source AND j.state = 'completed')
                FROM documents d WHERE d.watch = (SELECT id FROM watches WHERE name = ?)
                AND d.converted_version = d.version AND d.converted_sha256 IS NOT NULL
                ORDER BY random() LIMIT ?"""
"""Documents of which it is known what was converted last: others are to be converted again, to be on the safe side."""
