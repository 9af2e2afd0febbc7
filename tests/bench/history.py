"""A job table that remembers a million jobs, beside one that remembers none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from daemon import queries
from daemon.cli.common import Place
from daemon.cli.gathering import gather
from daemon.db import Connection
from daemon.statedir import StateDir
from tests.bench.job_table_ours import Ours
from tests.bench.rows import AT_MOST, Row, milliseconds, ratios
from tests.bench.suite import Bench, Setting

HISTORY, QUICK_HISTORY = 1_000_000, 100_000
CLAIMS = 200
LOOKS = 20
LISTED = 50
"""As many as `convertd jobs` prints."""
MORE_ROUNDS = 3

_FINISHED = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?)
INSERT INTO jobs (watch, source, version, size_bytes, state, priority, attempts, discovered_at, started_at,
                  finished_at, output, engine, engine_version, pages)
SELECT 1, CAST(printf('year-%03d/document-%07d.pdf', n / 1000, n) AS BLOB), '1-2-3-4', 1000,
       CASE WHEN n % 50 THEN 'completed' ELSE 'failed' END, 5, 1, 1.7e9 + n, 1.7e9 + n, 1.7e9 + n,
       printf('/out/document-%07d.pdf.md', n), 'liteparse', '2.18', 3 FROM numbers
"""
_DOCUMENTS = """INSERT INTO documents (watch, source, version, converted_version, converted_sha256)
SELECT watch, source, version, version, hex(zeroblob(32)) FROM jobs"""


class Remembering:
    """A job table with a history of so many jobs. One of none is empty at the beginning of each round: what a round has
    put into it is deleted."""

    def __init__(self, folder: str, history: int) -> None:
        os.mkdir(folder)
        self._table = Ours(folder)
        self._place = Place(None, StateDir(folder))
        self._history = history
        self._table.writer.call(lambda db: _fill(db, history))
        self._rounds = 0
        self.took: dict[str, list[float]] = {name: [] for name in _LABELS}

    def round(self) -> None:
        """Measure everything once, with as many jobs pending as are claimed then."""
        self._rounds += 1
        self._table.put(CLAIMS, f"round-{self._rounds}/")
        self.took["status"].append(_seconds(lambda: gather(self._place), LOOKS))
        self.took["jobs"].append(_seconds(self._list, LOOKS))
        self.took["refill"].append(_seconds(lambda: self._table.jobs.pending("bench", CLAIMS), LOOKS))
        self.took["claim"].append(_seconds(self._claim, CLAIMS))
        if not self._history:
            self._table.writer.call(_empty)

    def close(self) -> None:
        """End the writer."""
        self._table.settle()
        self._table.close()

    def _claim(self) -> None:
        self._table.finish_now(self._table.take())

    def _list(self) -> Any:
        with self._place.table() as db:
            return queries.listing(db, state=None, watch=None, limit=LISTED)


_LABELS = {
    "claim": "claim and complete a job",
    "refill": "read 200 pending jobs from the table",
    "status": "what `status` asks",
    "jobs": "what `jobs` asks",
}


def history(setting: Setting) -> Iterator[Row]:
    """Two tables in turn, so that what else the machine does falls on both."""
    many = setting.sized(HISTORY, QUICK_HISTORY)
    large = Remembering(os.path.join(setting.folder, "large"), many)
    small = Remembering(os.path.join(setting.folder, "small"), 0)
    try:
        for number in range(1 + setting.rounds * MORE_ROUNDS):
            for table in (large, small) if number % 2 else (small, large):
                table.round()
    finally:
        large.close()
        small.close()
    for name, label in _LABELS.items():
        ours, theirs = large.took[name][1:], small.took[name][1:]  # the first has read the table from the disk
        yield Row(
            f"history: {many:,} jobs: {label} / when empty",
            milliseconds(ours),
            milliseconds(theirs),
            ratios(ours, theirs),
            AT_MOST,
            target=1.5,
        )


def _fill(db: Connection, history: int) -> None:
    if not history:
        return  # the recursion would make one
    db.execute(_FINISHED, (history,))
    db.execute(_DOCUMENTS)


def _empty(db: Connection) -> None:
    db.execute("DELETE FROM jobs")
    db.execute("DELETE FROM documents")


def _seconds(call: Callable[[], Any], times: int) -> float:
    """Of one call."""
    begun = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begun) / times


BENCH = Bench(
    name="history",
    work="claim, `status` and `jobs` on a job table that remembers 1,000,000 jobs",
    against="the same when empty",
    to_reach="≤ 1.5 times as long",
    feels="After years of work the daemon and its commands are as quick as on the first day.",
    run=history,
)
