"""What `convertd status --watch` shows at one moment."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from daemon import queries
from daemon.cli.common import Place
from daemon.cli.gathering import assemble
from daemon.db import Connection

FAILURES = 3
AT_WORK = 16
SLOWEST_RATE = 0.01


class Work(NamedTuple):
    """A document that a worker has: `stage` is what it does, `seconds` since when."""

    job: int
    source: str
    stage: str
    seconds: float


class Snapshot(NamedTuple):
    """What there is to be shown. `status` is that of `convertd status --json`, `failures` are the newest jobs that
    failed."""

    status: dict[str, Any]
    work: list[Work]
    failures: list[dict[str, Any]]

    @property
    def open_jobs(self) -> int:
        """Those that have not ended."""
        jobs: dict[str, int] = self.status["jobs"]
        return jobs["pending"] + jobs["processing"]

    @property
    def ended_jobs(self) -> int:
        """Those that have ended with a result, or with a reason."""
        jobs: dict[str, int] = self.status["jobs"]
        return jobs["completed"] + jobs["failed"]

    @property
    def seconds_left(self) -> float | None:
        """Until all that is known is done, at the rate of the last minute; None where nothing moves."""
        rate = self.status["documents_per_second"]
        return self.open_jobs / rate if self.open_jobs and rate > SLOWEST_RATE else None


def take(place: Place, db: Connection) -> Snapshot:
    """What goes on now."""
    live = place.live()
    failures = queries.listing(db, state="failed", watch=None, limit=FAILURES)
    return Snapshot(assemble(place, db, live), _work(db, live), failures)


def _work(db: Connection, live: dict[str, Any] | None) -> list[Work]:
    """By the daemon's own word what is converted now, by the job table what is fetched or delivered."""
    if live is None or live["version"] is None:
        return []
    children = live["converters"]["children"]
    converted = {
        child["job"]: Work(child["job"], child["name"], "convert", child["busy_seconds"])
        for child in children
        if child["job"]
    }
    # What is fetched counts as being fetched until a converter is free, which the job table does not tell.
    stages = {} if any(child["state"] == "idle" for child in children) else {"fetch": "fetch/wait"}
    now = time.time()
    rest = [
        Work(job["id"], job["source"], stages.get(job["stage"], job["stage"]), max(0.0, now - job["started_at"]))
        for job in queries.listing(db, state="processing", watch=None, limit=AT_WORK)
        if job["id"] not in converted and job["started_at"] is not None
    ]
    return sorted([*converted.values(), *rest], key=lambda work: work.job)[:AT_WORK]


def duration(seconds: float) -> str:
    """As people say it, with the two largest units at most: 40 s, 3 min, 1 h 20 min, 2 d 3 h."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
