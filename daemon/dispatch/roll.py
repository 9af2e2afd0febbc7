"""Which jobs are in memory, and for which lane each counts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from daemon.model import Job


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs that wait and jobs that run. `more` says that the job table holds further ones that wait."""

    pending: int
    running: int
    more: bool


@dataclass
class Lane:
    """The jobs of one watch. `overflow` says that the job table holds more pending ones than memory does, `missed`
    that one was left to the job table since the last refill began. `held` counts those in memory, in whatever queue,
    and those that run, but not what has been dropped and only waits to be come across."""

    ready: list[tuple[float, int, Job]] = field(default_factory=list)
    held: int = 0
    running: int = 0
    overflow: bool = False
    missed: bool = False
    paused: set[str] = field(default_factory=set)

    def may_come_first(self, job: Job) -> bool:
        """Whether nothing that only the job table holds can come before this one."""
        return bool(self.ready) and job.rank < self.ready[0][:2]


class Roll:
    """The jobs in memory, in whatever queue, and those that run.

    What is dropped is in its queue until somebody comes across it there: it is known until then, and counts nowhere.
    What ends while a lane is read from the job table may be among what was read, and must not come back by that, known
    before or not.
    """

    def __init__(self) -> None:
        self.known: dict[int, Lane | None] = {}  # the lane that holds the job; None once it was dropped
        self.dropped: set[int] = set()
        self.refilling: set[str] = set()  # the watches whose lanes are being read
        self._ended_meanwhile: set[int] = set()

    def hold(self, lane: Lane, job_id: int) -> None:
        """From now on it is in memory."""
        self.known[job_id] = lane
        lane.held += 1

    def drop(self, job_id: int, *, runs: bool) -> None:
        """It is no longer pending in the job table. One that runs counts until it is done."""
        if job_id in self.known:
            self.dropped.add(job_id)
            if not runs:
                self._let_go(job_id)
        elif self.refilling:
            self._ended_meanwhile.add(job_id)

    def forget(self, job_id: int) -> None:
        """It is in no queue any more, and does not run."""
        self._let_go(job_id)
        self.known.pop(job_id, None)
        self.dropped.discard(job_id)
        if self.refilling:
            self._ended_meanwhile.add(job_id)

    def are_pending(self, job_ids: set[int]) -> None:
        """These are, whatever they were before."""
        self._ended_meanwhile -= job_ids

    def new_of(self, found: Collection[tuple[Job, float]]) -> list[tuple[Job, float]]:
        """What was read from the job table, without what is in memory and what has ended since."""
        return [entry for entry in found if entry[0].id not in self._ended_meanwhile and entry[0].id not in self.known]

    def refilled(self, watch: str) -> None:
        """A lane has been read."""
        self.refilling.discard(watch)
        if not self.refilling:
            self._ended_meanwhile.clear()

    def _let_go(self, job_id: int) -> None:
        lane = self.known.get(job_id)
        if lane is not None:
            self.known[job_id] = None
            lane.held -= 1
