"""Enqueue, claim and complete, every completion durable, beside other queues on SQLite."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from tests.bench.job_table_run import OURS, WAITING, Took, took
from tests.bench.queues import PEERS
from tests.bench.rows import EXACTLY, Row, ratios
from tests.bench.suite import Bench, Setting

JOBS, QUICK_JOBS = 4096, 1024
THREADS = (4, 8)
PER_THREAD = "a sqlite3 connection per thread"
TARGETS = dict.fromkeys(PEERS, 6.0) | {PER_THREAD: 5.0}


class Pair(NamedTuple):
    """Ours and another, one right after the other."""

    ours: Took
    theirs: Took


def job_table(setting: Setting) -> Iterator[Row]:
    """Each queue in a process of its own. Ours takes a fraction of a second and is measured anew beside each of the
    others, as what else the machine does lasts longer; and once with workers that wait for each commit, to show what
    waiting would cost."""
    jobs = setting.sized(JOBS, QUICK_JOBS)
    for threads in THREADS:
        pairs: dict[str, list[Pair]] = {name: [] for name in PEERS}
        waiting = []
        for number in range(setting.rounds):
            for name in PEERS:
                pairs[name].append(_pair(OURS, name, threads, jobs, setting.folder, ours_first=number % 2 == 0))
            waiting.append(_pair(WAITING, PER_THREAD, threads, jobs, setting.folder, ours_first=number % 2 == 0))
        yield from _rows(pairs, threads, jobs)
        yield Row(
            f"job-table: {threads} threads that wait for each completion: ours / {PER_THREAD}",
            _rate([pair.ours for pair in waiting], jobs),
            _rate([pair.theirs for pair in waiting], jobs),
            _ratios(waiting),
        )


def _pair(ours: str, name: str, threads: int, jobs: int, place: str, *, ours_first: bool) -> Pair:
    found = {}
    for one in (ours, name) if ours_first else (name, ours):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            found[one] = took(one, threads, jobs, folder)
    return Pair(found[ours], found[name])


def _rows(pairs: dict[str, list[Pair]], threads: int, jobs: int) -> Iterator[Row]:
    for name, found in pairs.items():
        yield Row(
            f"job-table: enqueue, claim, complete, {threads} threads: ours / {name}",
            _rate([pair.ours for pair in found], jobs),
            _rate([pair.theirs for pair in found], jobs),
            _ratios(found),
            target=TARGETS[name],
        )
    found = pairs[PER_THREAD]
    yield Row(
        f"job-table: {threads} threads, claim and complete alone: ours / {PER_THREAD}",
        "",
        "",
        ratios((pair.theirs.work_seconds for pair in found), (pair.ours.work_seconds for pair in found)),
    )
    ours = [pair.ours for found in pairs.values() for pair in found]
    yield Row(
        f"job-table: {threads} threads and a status loop: BUSY answers",
        f"{sum(one.looked for one in ours)} looks",
        "",
        [float(one.busy) for one in ours],
        EXACTLY,
        target=0,
        digits=0,
    )


def _ratios(pairs: list[Pair]) -> list[float]:
    return ratios((pair.theirs.seconds for pair in pairs), (pair.ours.seconds for pair in pairs))


def _rate(results: list[Took], jobs: int) -> str:
    return f"{jobs / statistics.median(one.seconds for one in results):,.0f}/s"


BENCH = Bench(
    name="job-table",
    work="enqueue, claim and complete jobs in 4 and 8 threads, every completion durable (synchronous=FULL)",
    against="a sqlite3 connection per thread; huey, persist-queue, litequeue",
    to_reach="≥ 5 times as many a second as the first, ≥ 6 times each of the others; 0 BUSY with a status loop beside",
    feels="Book-keeping never holds up conversion, and a status is answered at any time.",
    run=job_table,
    needs=("huey", "persistqueue", "litequeue"),
)
