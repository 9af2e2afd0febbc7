"""From the moment that a document is found to be ready until a worker has it, by the daemon's own records."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from daemon import queries
from daemon.db import reader
from tests.bench.measure import percentile
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, running, until

DOCUMENTS, QUICK_DOCUMENTS = 200, 40


def dispatching(setting: Setting) -> Iterator[Row]:
    """One document at a time, in an idle daemon; each round a fresh one."""
    documents = setting.sized(DOCUMENTS, QUICK_DOCUMENTS)
    ready, dropped = [], []
    for number in range(setting.rounds):
        folder = Path(setting.folder) / str(number)
        folder.mkdir()
        waits = _waits(folder, documents)
        ready.append([1000 * since_ready for since_ready, _ in waits])
        dropped.append([1000 * since_drop for _, since_drop in waits])
    for share, target in ((0.5, None), (0.99, 20.0)):
        values = [percentile(of_round, share) for of_round in ready]
        label = f"dispatch: document found ready → a worker has it, p{100 * share:.0f}, ms"
        yield Row(label, "", "", values, AT_MOST, target=target, digits=1)
    values = [percentile(of_round, 0.5) for of_round in dropped]
    yield Row(
        "dispatch: rename into the folder → a worker has it (settle 20 ms), p50, ms", "", "", values, AT_MOST, digits=1
    )


def _waits(folder: Path, documents: int) -> list[tuple[float, float]]:
    """Seconds from found ready, and from the rename, to a worker's having it."""
    renamed: dict[str, float] = {}
    with running(folder) as daemon:
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        pause = threading.Event()
        for number in range(documents):
            name = f"{number:05}.html"
            hidden = daemon.inbox / ".next.tmp"
            hidden.write_text(f"<h1>{number}</h1><p>some words")
            pause.wait(0.05 + (number * 37 % 50) / 1000)  # idle, and out of step with any polling
            renamed[name] = time.time()
            os.rename(hidden, daemon.inbox / name)
            until(daemon.markdown(name).exists, f"{name} is converted")
        until(lambda: daemon.status()["jobs"]["completed"] == documents + 1, "all are recorded")
        found = _records(daemon, documents + 1)
        daemon.stop()
    return [
        (job["started_at"] - job["discovered_at"], job["started_at"] - renamed[job["source"]])
        for job in found
        if job["source"] in renamed
    ]


def _records(daemon: Daemon, limit: int) -> list[dict[str, Any]]:
    with reader(str(daemon.state / "convertd.db")) as db:
        return queries.listing(db, state=None, watch=None, limit=limit)


BENCH = Bench(
    name="dispatch",
    work="a document that is ready until a worker has it, in a daemon with nothing else to do",
    against="nothing: an absolute figure",
    to_reach="p99 ≤ 20 ms",
    feels="There is no polling between finding a document and working on it.",
    run=dispatching,
)
