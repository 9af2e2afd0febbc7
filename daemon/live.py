"""What a running daemon does when a command has changed the job table."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager

from daemon.cancellations import Cancellations
from daemon.dispatch import Dispatcher
from daemon.disposal import Janitor
from daemon.model import Job
from daemon.roster import Roster


class Live:
    """The `Running` of a daemon (see `daemon.operations`)."""

    def __init__(self, dispatcher: Dispatcher, janitor: Janitor, roster: Roster, cancellations: Cancellations) -> None:
        self._dispatcher = dispatcher
        self._janitor = janitor
        self._roster = roster
        self._cancellations = cancellations

    def retried(self, jobs: list[Job]) -> None:
        self._dispatcher.add(jobs)

    def withheld(self, job_ids: Collection[int]) -> AbstractContextManager[None]:
        return self._dispatcher.withheld(job_ids)

    def cancelled(self, jobs: list[Job]) -> None:
        self._dispatcher.drop(job.id for job in jobs)

    def interrupt(self, job_id: int) -> bool:
        if not self._dispatcher.runs([job_id]) or not self._cancellations.add(job_id):
            return False
        # Its worker may have been done with it in the moment between.
        return bool(self._dispatcher.runs([job_id])) or not self._cancellations.withdraw(job_id)

    def still_running(self, job_ids: Collection[int], seconds: float) -> set[int]:
        return self._dispatcher.runs(job_ids, seconds)

    def switched(self) -> None:
        self._roster.heed_switches()

    def disposals_held(self, job_ids: list[int]) -> AbstractContextManager[set[int]]:
        return self._janitor.held(job_ids)
