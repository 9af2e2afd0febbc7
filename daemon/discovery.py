"""source.run → jobs.enqueue → dispatcher: what a watch discovers becomes a job."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.naming import batch_of, no_batch
from daemon.pipeline import Route

RECORD_AGAIN_SECONDS = 1.0

T = TypeVar("T")


class Discovery:
    """Runs the source of one watch in the calling thread and stands between it and the job table.

    It is the `Ledger` and the `Watcher` of its source. `left` says how many files were not ready when everything
    that was there had been looked at, None before that. `slots` is how many documents of a source that is shared with
    other daemons are taken up at once.
    """

    def __init__(
        self,
        route: Route,
        jobs: JobTable,
        dispatcher: Dispatcher,
        health: Health,
        stop: threading.Event,
        slots: int,
    ) -> None:
        self._route = route
        self._name = route.watch.name
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._health = health
        self._stop = stop
        self._slots = slots
        self._batch_of = batch_of if route.watch.batch == "subfolder" else no_batch
        self.left: int | None = None

    def run(self) -> None:
        """Discover until the stop event is set."""
        self._route.source.run(self, self, self._stop.is_set)

    def has_seen_all(self) -> bool:
        """Whether everything that was there at the start has been looked at, or cannot be for now."""
        return self.left is not None or self._health.sick

    # Ledger

    def unknown(self, candidates: list[Candidate]) -> list[Candidate]:
        return self._insist(lambda: self._jobs.known.unknown(self._name, candidates)) or []

    def enqueue(self, candidates: list[Candidate]) -> int:
        priority = self._route.watch.priority
        result = self._insist(lambda: self._jobs.enqueue(self._name, candidates, priority, self._batch_of))
        if result is None:
            return 0
        jobs, superseded = result
        self._dispatcher.drop(superseded)
        self._dispatcher.add(jobs)
        return len(jobs)

    def unfinished(self, sources: list[bytes]) -> set[bytes]:
        found = self._insist(lambda: self._jobs.known.unfinished(self._name, sources))
        return set(sources) if found is None else found

    def _insist(self, query: Callable[[], T]) -> T | None:
        """Ask the job table, however long its disk is sick; None only at a stop."""
        while True:
            try:
                return query()
            except EnvironmentProblem as problem:
                self._health.fell_ill(problem)
                if self._stop.wait(RECORD_AGAIN_SECONDS):
                    return None

    # Watcher

    def beat(self) -> None:
        self._health.beat()

    def sick(self, error: Exception) -> None:
        self._health.sick_source(error)

    def well(self) -> None:
        self._health.check_recovery()

    def note(self, text: str | None) -> None:
        self._health.note(text)

    def drained(self, left: int) -> None:
        self.left = left

    def room(self) -> int:
        return self._dispatcher.room(self._name, self._slots)

    def paused(self) -> bool:
        return self._dispatcher.paused(self._name)

    def running(self) -> set[bytes]:
        return {job.source for job in self._dispatcher.running() if job.watch == self._name}
