"""Hands the jobs that `lanes` decides on to workers: waits, wakes, and reads what memory does not hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from daemon.dispatch.lanes import Lanes
from daemon.dispatch.roll import Census
from daemon.errors import EnvironmentProblem
from daemon.model import Job

CAPACITY = 10_000
LONGEST_WAIT_SECONDS = 60.0
SHORTEST_WAIT_SECONDS = 0.01
ANSWER_STEP_SECONDS = 0.01

Refill = Callable[[str, int], list[tuple[Job, float]]]


class Dispatcher:
    """Hands pending jobs to workers. All methods may be called from any thread.

    A lane per watch holds at most `capacity` of its pending jobs; what is beyond stays in the job table and is fetched
    through the pending index when the lane runs low.

    `refill(watch, limit)` must return the first pending jobs of the watch from the job table, in order.
    `clock` tells wall time, which not-before times are in; what is left until then is measured by `monotonic`, and
    never taken for longer than `longest_delay_seconds`, so that a clock that jumps holds nothing up.
    Where there are several watches, at most `running_per_watch` jobs of each run at once: a server that does not answer
    must not hold all workers. Where for longer than `longest_run_seconds()` no job has begun or ended, those that run
    hang, and none that has to run alone waits for them.
    """

    def __init__(
        self,
        watches: Iterable[str],
        refill: Refill,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        longest_delay_seconds: float = float("inf"),
        capacity: int = CAPACITY,
        running_per_watch: int | None = None,
        longest_run_seconds: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._refill = refill
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # to be entered by the lock, which is quicker
        self._lanes = Lanes(
            watches, clock, monotonic, longest_delay_seconds, capacity, running_per_watch, longest_run_seconds
        )
        self._stopped = False
        self._waiting = 0  # threads in `take` that nothing is there for
        self._turns = 0  # of `take`
        self._seen_turns = 0  # by `moves`
        self._seen_waiting = False

    def has(self, watch: str) -> bool:
        """Whether there is a lane for the watch."""
        with self._lock:
            return watch in self._lanes.watches()

    def open(self, watch: str, paused: Iterable[str] = ()) -> None:
        """Make a lane for a new watch, paused for these reasons; the next `take` loads it from the job table."""
        with self._lock:
            self._lanes.open(watch, paused)
            self._changed.notify_all()

    def add(self, jobs: Iterable[Job], not_before: float = 0.0) -> None:
        """Queue jobs that are pending in the job table."""
        jobs = list(jobs)
        with self._lock:
            self._lanes.add(jobs, not_before)
            self._changed.notify_all()

    def drop(self, job_ids: Iterable[int]) -> None:
        """Forget queued jobs that are no longer pending in the job table."""
        with self._lock:
            self._lanes.drop(job_ids)

    @contextmanager
    def withheld(self, job_ids: Iterable[int]) -> Iterator[None]:
        """While this lasts none of these jobs is handed out: for who changes them in the job table."""
        with self._lock:
            ids = self._lanes.withhold(job_ids)
        try:
            yield
        finally:
            with self._lock:
                self._lanes.let_out(ids)
                self._changed.notify_all()

    def fill(self) -> None:
        """Load every lane from the job table, as at start."""
        with self._lock:
            watches = self._lanes.watches()
        for watch in watches:
            self._fill(watch)

    def take(self) -> Job | None:
        """The next job, waiting for one; None once stopped. The caller must call `done` or `give_back` for it."""
        while True:
            with self._lock:
                self._turns += 1
                if self._stopped:
                    return None
                job = self._lanes.next()
                low = self._lanes.low()
                if job is None and low is None:
                    self._waiting += 1
                    self._changed.wait(self._seconds_to_wait())
                    self._waiting -= 1
                    continue
            if low is not None:
                self._refill_or_wait(low)
            if job is not None:
                return job

    def done(self, job: Job) -> None:
        """The job has reached a final state in the job table."""
        with self._lock:
            self._lanes.done(job)
            self._changed.notify_all()

    def give_back(self, job: Job, not_before: float = 0.0) -> None:
        """The job is pending in the job table again, as it stands there."""
        with self._lock:
            self._lanes.give_back(job, not_before)
            self._changed.notify_all()

    def release_suspects(self) -> None:
        """Everything that was there at the start is queued: suspects may run when nothing else is left."""
        with self._lock:
            self._lanes.release_suspects()
            self._changed.notify_all()

    def pause(self, watch: str, reason: str) -> None:
        """Stop handing out jobs of a watch, until `resume` for the same reason. Idempotent."""
        with self._lock:
            self._lanes.pause(watch, reason)

    def resume(self, watch: str, reason: str) -> None:
        """Lift a pause. Idempotent."""
        with self._lock:
            self._lanes.resume(watch, reason)
            self._changed.notify_all()

    def stop(self) -> None:
        """Make every `take` return None from now on."""
        with self._lock:
            self._stopped = True
            self._changed.notify_all()

    def idle(self, but_for: Collection[str] = ()) -> bool:
        """Whether no job is queued, delayed or running; of the watches `but_for`, whether none is running."""
        with self._lock:
            return self._lanes.idle(but_for)

    def held_back(self, reasons: Collection[str]) -> list[str]:
        """The watches that are paused for one of these reasons."""
        with self._lock:
            return self._lanes.held_back(reasons)

    def backlog(self) -> int:
        """Jobs in memory that have not ended: at most a few more than there are, less where lanes overflow."""
        with self._lock:
            return self._lanes.backlog()

    def census(self, watches: Collection[str] | None = None) -> Census:
        """How many jobs wait and run, of these watches or of all, without asking the job table."""
        with self._lock:
            return self._lanes.census(watches)

    def moves(self, seconds: float) -> bool:
        """Whether `take` still works: its lock can be had within the time, and of those that waited in it at the last
        call somebody has looked for a job since. Where all are busy with jobs, there is nothing to be seen."""
        if not self._changed.acquire(timeout=seconds):
            return False
        try:
            moved = not self._seen_waiting or self._turns != self._seen_turns
            self._seen_turns, self._seen_waiting = self._turns, self._waiting > 0
            self._changed.notify_all()
            return moved
        finally:
            self._changed.release()

    def answers(self, seconds: float) -> bool:
        """Whether `take` works: its lock can be had within the time, and if somebody waits in it, somebody looks for a
        job when called to."""
        deadline, turns = time.monotonic() + seconds, None
        while (left := deadline - time.monotonic()) > 0:
            if not self._lock.acquire(timeout=left):
                return False
            try:
                turns = self._turns if turns is None else turns
                if not self._waiting or self._turns != turns:
                    return True
                self._changed.notify_all()
            finally:
                self._lock.release()
            time.sleep(ANSWER_STEP_SECONDS)  # not in `wait`, which has no bound for getting the lock back
        return False

    def room(self, watch: str, slots: int) -> int:
        """How many more jobs of the watch may be added by someone who must not add more than `slots` can run.

        That is `slots` less those that are queued, delayed or running. It is 0 while the watch is paused, while the
        job table holds more of its jobs than memory does, while these are being read, and once stopped.
        """
        with self._lock:
            return 0 if self._stopped else self._lanes.room(watch, slots)

    def paused(self, watch: str) -> bool:
        """Whether jobs of the watch are held back, for whatever reason."""
        with self._lock:
            return self._lanes.paused(watch)

    def holds_back(self, watch: str) -> bool:
        """The same of a watch that may be gone by now, and without waiting for anything: for whoever looks on."""
        return self._lanes.holds_back(watch)

    def running(self) -> list[Job]:
        """The jobs that workers hold now."""
        with self._lock:
            return self._lanes.running()

    def runs(self, job_ids: Collection[int], seconds: float = 0.0) -> set[int]:
        """Those of these jobs that workers hold; waits so long for them to be done."""
        with self._lock:
            self._changed.wait_for(lambda: not self._lanes.running_of(job_ids), seconds)
            return self._lanes.running_of(job_ids)

    def _refill_or_wait(self, watch: str) -> None:
        try:
            self._fill(watch)
        except EnvironmentProblem:
            with self._lock:
                self._changed.wait(1.0)

    def _fill(self, watch: str) -> None:
        """Read the first pending jobs of a watch. The query runs without the lock: it must not hold up the workers."""
        with self._lock:
            limit = self._lanes.refill_begins(watch)
        found: list[tuple[Job, float]] | None = None
        try:
            found = self._refill(watch, limit)
        finally:
            with self._lock:
                self._lanes.refill_ends(watch, found, limit)
                self._changed.notify_all()

    def _seconds_to_wait(self) -> float:
        return max(SHORTEST_WAIT_SECONDS, min(LONGEST_WAIT_SECONDS, self._lanes.next_in_seconds()))
