"""Jobs in memory that are not in a lane: those whose time has not come, those that must run alone, and those that
somebody holds back."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable

from daemon.model import Job

SUSPECT_AFTER_INTERRUPTIONS = 2
SUSPECT_PATIENCE_SECONDS = 600.0


class Delayed:
    """Jobs that wait for a time, which is measured by `monotonic`. `heap` is empty where there are none."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.heap: list[tuple[float, int, Job]] = []

    def add(self, job: Job, seconds: float) -> None:
        """It is due after so long."""
        heapq.heappush(self.heap, (self._monotonic() + seconds, job.id, job))

    def take_due(self) -> Job | None:
        """Remove and return the first that is due."""
        if self.heap and self.heap[0][0] <= self._monotonic():
            return heapq.heappop(self.heap)[2]
        return None

    def remove(self, job_ids: Container[int]) -> None:
        """Forget these."""
        self.heap = [entry for entry in self.heap if entry[1] not in job_ids]
        heapq.heapify(self.heap)

    def due_in_seconds(self) -> float:
        """When the next one is due; infinite if there is none."""
        return self.heap[0][0] - self._monotonic() if self.heap else float("inf")


class Suspects:
    """Jobs whose conversion was interrupted repeatedly by the death of the daemon, in the order in which they came.

    None of them is to be run while they are `held`. Each question is about those that `may_run` lets pass.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.waiting: list[tuple[float, Job]] = []
        self.held = True

    def add(self, job: Job) -> None:
        """It waits from now on."""
        self.waiting.append((self._monotonic(), job))

    def remove(self, job_ids: Container[int]) -> list[Job]:
        """Forget these; returns those of them that there were."""
        removed = [job for _, job in self.waiting if job.id in job_ids]
        self.waiting = [entry for entry in self.waiting if entry[1].id not in job_ids]
        return removed

    def first(self, may_run: Callable[[Job], bool]) -> Job | None:
        """The one that came first."""
        return next((job for _, job in self.waiting if may_run(job)), None)

    def patience_is_over(self, may_run: Callable[[Job], bool]) -> bool:
        """Whether one has waited so long that everything else must wait for it."""
        since = min((since for since, job in self.waiting if may_run(job)), default=None)
        return since is not None and self._monotonic() - since > SUSPECT_PATIENCE_SECONDS


class Withheld:
    """Jobs that are not to be next, by their `ids`; `aside` are those of them whose turn came meanwhile."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.aside: list[Job] = []

    def add(self, job_ids: Iterable[int]) -> set[int]:
        """Withhold these; returns those that were not withheld before."""
        new = set(job_ids) - self.ids
        self.ids |= new
        return new

    def let_out(self, job_ids: set[int]) -> list[Job]:
        """Withhold these no longer; returns those whose turn came."""
        self.ids -= job_ids
        back = [job for job in self.aside if job.id in job_ids]
        self.remove(job_ids)
        return back

    def remove(self, job_ids: Container[int]) -> None:
        """Forget those of these whose turn came."""
        self.aside = [job for job in self.aside if job.id not in job_ids]
