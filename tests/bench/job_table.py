"""Enqueue, claim and complete, every completion durable, beside other queues on SQLite."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator

from tests.bench.job_table_run import OURS, Took, took
from tests.bench.queues import PEERS
from tests.bench.rows import EXACTLY, Row, ratios
from tests.bench.suite import Bench, Setting

JOBS, QUICK_JOBS = 4096, 1024
THREADS = (4, 8)
TARGETS = dict.fromkeys(PEERS, 6.0) | {"a sqlite3 connection per thread": 5.0}


def job_table(setting: Setting) -> Iterator[Row]:
    """Each queue in a process of its own, all in turn in each round."""
    jobs = setting.sized(JOBS, QUICK_JOBS)
    for threads in THREADS:
        results: dict[str, list[Took]] = {name: [] for name in (OURS, *PEERS)}
        for number in range(setting.rounds):
            names = list(results)[number % len(results) :] + list(results)[: number % len(results)]
            for name in names:
                with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
                    results[name].append(took(name, threads, jobs, folder))
        yield from _rows(results, threads, jobs)


def _rows(results: dict[str, list[Took]], threads: int, jobs: int) -> Iterator[Row]:
    ours = results[OURS]
    for name in PEERS:
        theirs = results[name]
        yield Row(
            f"job-table: enqueue, claim, complete, {threads} threads: ours / {name}",
            _rate(ours, jobs),
            _rate(theirs, jobs),
            ratios((one.seconds for one in theirs), (one.seconds for one in ours)),
            target=TARGETS[name],
        )
    yield Row(
        f"job-table: {threads} threads, claim and complete alone: ours / a sqlite3 connection per thread",
        "",
        "",
        ratios(
            (one.work_seconds for one in results["a sqlite3 connection per thread"]),
            (one.work_seconds for one in ours),
        ),
    )
    yield Row(
        f"job-table: {threads} threads and a status loop: BUSY answers",
        f"{statistics.median(one.looked for one in ours):.0f} looks",
        "",
        [float(one.busy) for one in ours],
        EXACTLY,
        target=0,
        digits=0,
    )


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
