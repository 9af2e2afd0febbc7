"""`convertd status --watch`: what goes on, until Ctrl-C.

On a terminal a picture that is drawn anew when something in it has changed, elsewhere a line for each change, with
--json an object a line. One connection to the job table is kept open; what is read from it does not grow with history.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import click

from daemon import queries
from daemon.cli import notes
from daemon.cli.common import Place, clock_time, print_json
from daemon.cli.status import assemble
from daemon.db import Connection

DRAWN_SECONDS = 0.5
LINE_SECONDS = 1.0
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


def follow(place: Place, *, as_json: bool) -> None:
    """Show the status until Ctrl-C."""
    try:
        if as_json:
            _repeat(place, LINE_SECONDS, lambda snapshot: print_json(snapshot.status))
        elif sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            from daemon.cli.screen import Screen

            with Screen() as screen:
                _repeat(place, DRAWN_SECONDS, screen.show)
        else:
            _repeat(place, LINE_SECONDS, Lines().show)
    except KeyboardInterrupt:
        pass


def _repeat(place: Place, seconds: float, show: Callable[[Snapshot], None]) -> None:
    with place.table() as db:
        while True:
            show(take(place, db))
            sys.stdout.flush()
            time.sleep(seconds)


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


class Lines:
    """For who keeps a log, or reads through a pipe: a line when the counts have changed, one for each watch whose state
    has, and one for each target of notifications that begins to fail, fails otherwise, or takes events again."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, snapshot: Snapshot) -> None:
        status = snapshot.status
        counts = "  ".join(f"{state} {number}" for state, number in status["jobs"].items())
        if self._is_news("", f"{status['daemon']['state']}  {counts}"):
            left = snapshot.seconds_left
            more = f"  {status['documents_per_second']:.1f}/s" if status["daemon"]["running"] else ""
            self._say(f"{self._said['']}{more}{f', {duration(left)} left' if left is not None else ''}")
        for watch in status["watches"]:
            if self._is_news(watch["name"], f"{watch['state']}{': ' + watch['error'] if watch['error'] else ''}"):
                self._say(f"watch {watch['name']} is {self._said[watch['name']]}")
        for target, trouble in notes.news(status):
            if self._is_news(f"notify {target}", trouble, before=""):
                self._say(f"notify {target}: {trouble or 'events are delivered again'}")

    def _is_news(self, about: str, text: str, before: str | None = None) -> bool:
        """Whether it is not what was said of that last, `before` if nothing was."""
        before = self._said.get(about, before)
        self._said[about] = text
        return before != text

    def _say(self, text: str) -> None:
        click.echo(f"{clock_time(time.time())}  {text}")


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
