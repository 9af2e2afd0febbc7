"""How jobs end: recorded in the job table, and only then told to whoever waits for it.

A worker does not wait for the commit of what it has converted: it hands the job over and takes the next one. So
commits are shared by several documents, and a slow disk of the state holds up none of them, up to `MOST_UNDER_WAY`.
What is under way when the daemon dies is done again, as if the worker had not yet come to its end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import NamedTuple

from daemon.dispatch import Dispatcher
from daemon.disposal import Janitor
from daemon.errors import EnvironmentProblem
from daemon.health import Health
from daemon.jobs import Completion, JobTable
from daemon.logs import Log
from daemon.model import Conversion, Job, State, display
from daemon.pipeline import Route

MOST_UNDER_WAY = 128
LOOK_SECONDS = 1.0
RECORD_AGAIN_SECONDS = 1.0


class _Completed(NamedTuple):
    """What is to be said and done of a converted document, once that is recorded."""

    route: Route
    job: Job
    dispose: bool
    engine: str
    convert_seconds: float
    output: str
    completion: Completion


class Endings:
    """Serves all workers; `run` is for a thread of its own, `halt` ends the waiting for a sick disk.

    `ended` hears of each end, `left` of each job that `completed` was called for and that runs no longer.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        health: Mapping[str, Health],
        jobs: JobTable,
        dispatcher: Dispatcher,
        janitor: Janitor,
        ended: Callable[[State], None],
        left: Callable[[Job], None],
        halt: threading.Event,
        log: Log,
    ) -> None:
        self._routes = routes
        self._health = health
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._janitor = janitor
        self._ended = ended
        self._left = left
        self._halt = halt
        self._log = log
        self._recorded: SimpleQueue[_Completed | None] = SimpleQueue()
        self._under_way = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)  # to be entered by the lock, which is quicker

    def completed(self, route: Route, job: Job, conversion: Conversion, output: str) -> None:
        """Its outputs are durable. Returns before the job is; waits only where too many are under way.

        Raises FatalError where the job table is lost.
        """
        dispose = route.on_success(job).action != "keep"
        completion = self._jobs.completion(job, conversion, output, dispose=dispose)
        one = _Completed(route, job, dispose, conversion.engine, conversion.convert_seconds, output, completion)
        if not self._admitted():
            self._dispatcher.done(job)
            self._left(job)
            return
        completion.record_later(self._recorded.put, one)

    def run(self) -> None:
        """Tell what is recorded, until closed. Raises FatalError where the job table is lost."""
        while (one := self._recorded.get()) is not None:
            try:
                self._tell(one)
            finally:
                with self._lock:
                    self._under_way -= 1
                    self._changed.notify()

    def close(self, seconds: float) -> None:
        """No worker is there any more: `run` returns once nothing is under way, which is waited for so long."""
        with self._lock:
            self._changed.wait_for(lambda: not self._under_way, seconds)
        self._recorded.put(None)

    def record(self, write: Callable[[], bool]) -> bool:
        """Write to the job table, however long its disk is sick; a halt leaves the job to the next start.

        False where nothing was written: then the job is no longer this worker's.
        """
        while True:
            try:
                return write()
            except EnvironmentProblem as problem:
                for health in list(self._health.values()):
                    health.fell_ill(problem)
                if self._halt.wait(RECORD_AGAIN_SECONDS):
                    return False

    def settle(self, route: Route, job: Job, state: State) -> None:
        """It is recorded that the job, which this route has run, has ended."""
        self.tell_source(route, job, state)
        self._ended(state)

    def tell_source(self, route: Route, job: Job, state: State) -> None:
        """The job that this route has run need not be waited for any more."""
        began, now = route.documents(job), self._routes[job.watch].documents(job)
        began.settled(job, state)
        if now is not began:  # the watch was configured anew meanwhile, and both may wait for it
            now.settled(job, state)

    def unrecorded(self, job: Job) -> None:
        """What was made of the document is in the sink, and yet that is not the end of the job: somebody else has ended
        it, or the daemon halts and does it again."""
        if not self._halt.is_set():
            self._log.warning("delivered for a job that had ended before", **about(job))

    def _admitted(self) -> bool:
        """Wait for room. False at a halt."""
        with self._lock:
            while self._under_way >= MOST_UNDER_WAY:
                if self._halt.is_set():
                    return False
                self._changed.wait(LOOK_SECONDS)
            self._under_way += 1
            return True

    def _tell(self, one: _Completed) -> None:
        job = one.job
        ended = self.record(one.completion.outcome)
        if ended:
            if one.dispose:
                self._janitor.add(job)
            self.settle(one.route, job, State.COMPLETED)
        self._dispatcher.done(job)  # also where somebody else has ended it, or the daemon halts
        self._left(job)
        if ended:
            self._log.info(
                "converted",
                **about(job),
                engine=one.engine,
                seconds=round(one.convert_seconds, 3),
                output=one.output,
            )
        else:
            self.unrecorded(job)


def about(job: Job) -> dict[str, object]:
    """What a line of the log says about which job it is."""
    return {"job": job.id, "watch": job.watch, "source": display(job.source)}
