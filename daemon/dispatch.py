"""Which job is next: pending jobs in memory, by rank (model.Job.rank), without asking the database for each.

A lane per watch holds at most `capacity` of its pending jobs; what is beyond stays in the job table and is fetched
through the pending index when the lane runs low. Two jobs of one document never run at the same time, so an older
result cannot overwrite a newer one. A job whose conversion was interrupted twice by the death of the daemon is a
suspect: it runs alone, after everything else, or once it has waited `SUSPECT_PATIENCE_SECONDS`; at a start not before
`release_suspects` says that everything else is known.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from daemon.errors import EnvironmentProblem
from daemon.model import Job

CAPACITY = 10_000
SUSPECT_AFTER_INTERRUPTIONS = 2
SUSPECT_PATIENCE_SECONDS = 600.0
ANSWER_STEP_SECONDS = 0.01

Refill = Callable[[str, int], list[tuple[Job, float]]]
Document = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Census:
    """Jobs that wait and jobs that run. `more` says that the job table holds further ones that wait."""

    pending: int
    running: int
    more: bool


@dataclass
class _Lane:
    """The jobs of one watch. `overflow` says that the job table holds more pending ones than memory does, `missed`
    that one was left to the job table since the last refill began. `held` counts those in memory, in whatever queue,
    and those that run, but not what has been dropped and only waits to be come across."""

    ready: list[tuple[float, int, Job]] = field(default_factory=list)
    held: int = 0
    running: int = 0
    overflow: bool = False
    missed: bool = False
    refilling: bool = False
    paused: set[str] = field(default_factory=set)


class Dispatcher:
    """Hands pending jobs to workers. All methods may be called from any thread.

    `refill(watch, limit)` must return the first pending jobs of the watch from the job table, in order.
    `clock` tells wall time, which not-before times are in; what is left until then is measured by `monotonic`, and
    never taken for longer than `longest_delay_seconds`, so that a clock that jumps holds nothing up.
    Where there are several watches, at most `running_per_watch` jobs of each run at once: a server that does not answer
    must not hold all workers.
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
    ) -> None:
        self._longest_delay_seconds = longest_delay_seconds
        self._lanes = {watch: _Lane() for watch in watches}
        self._refill = refill
        self._clock = clock
        self._monotonic = monotonic
        self._capacity = capacity
        self._running_per_watch = running_per_watch
        self._changed = threading.Condition()
        self._delayed: list[tuple[float, int, Job]] = []
        self._suspects: list[tuple[float, Job]] = []
        self._known: dict[int, _Lane | None] = {}  # the lane that holds the job; None once it was dropped
        self._dropped: set[int] = set()
        self._withheld: set[int] = set()
        self._aside: list[Job] = []  # of these, those that were next
        self._ended_while_refilling: set[int] = set()
        self._running: dict[Document, Job] = {}
        self._behind: dict[Document, list[Job]] = {}
        self._alone = False
        self._suspects_held = True
        self._stopped = False
        self._waiting = 0  # threads in `take` that nothing is there for
        self._turns = 0  # of `take`
        self._seen_turns = 0  # by `moves`
        self._seen_waiting = False

    def has(self, watch: str) -> bool:
        """Whether there is a lane for the watch."""
        with self._changed:
            return watch in self._lanes

    def open(self, watch: str, paused: Iterable[str] = ()) -> None:
        """Make a lane for a new watch, paused for these reasons; the next `take` loads it from the job table."""
        with self._changed:
            self._lanes[watch] = _Lane(overflow=True, paused=set(paused))
            self._changed.notify_all()

    def add(self, jobs: Iterable[Job], not_before: float = 0.0) -> None:
        """Queue jobs that are pending in the job table."""
        jobs = list(jobs)
        with self._changed:
            self._take_out({job.id for job in jobs} & self._dropped)
            for job in jobs:
                self._ended_while_refilling.discard(job.id)  # it is pending, whatever it was before
                self._add(job, not_before)
            self._changed.notify_all()

    def drop(self, job_ids: Iterable[int]) -> None:
        """Forget queued jobs that are no longer pending in the job table."""
        with self._changed:
            running = {job.id for job in self._running.values()}
            for job_id in job_ids:
                if job_id in self._known:
                    self._dropped.add(job_id)
                    if job_id not in running:
                        self._let_go(job_id)

    @contextmanager
    def withheld(self, job_ids: Iterable[int]) -> Iterator[None]:
        """While this lasts none of these jobs is handed out: for who changes them in the job table."""
        with self._changed:
            ids = set(job_ids) - self._withheld
            self._withheld |= ids
        try:
            yield
        finally:
            with self._changed:
                self._withheld -= ids
                back = [job for job in self._aside if job.id in ids]
                self._aside = [job for job in self._aside if job.id not in ids]
                for job in back:
                    heapq.heappush(self._lanes[job.watch].ready, (*job.rank, job))
                self._changed.notify_all()

    def fill(self) -> None:
        """Load every lane from the job table, as at start."""
        with self._changed:
            lanes = list(self._lanes.items())
        for watch, lane in lanes:
            self._fill(watch, lane)

    def take(self) -> Job | None:
        """The next job, waiting for one; None once stopped. The caller must call `done` or `give_back` for it."""
        while True:
            with self._changed:
                self._turns += 1
                if self._stopped:
                    return None
                job = self._next()
                low = self._lane_to_refill()
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
        with self._changed:
            self._leave(job)
            self._changed.notify_all()

    def give_back(self, job: Job, not_before: float = 0.0) -> None:
        """The job is pending in the job table again, as it stands there."""
        with self._changed:
            self._leave(job)
            self._add(job, not_before)
            self._changed.notify_all()

    def release_suspects(self) -> None:
        """Everything that was there at the start is queued: suspects may run when nothing else is left."""
        with self._changed:
            self._suspects_held = False
            self._changed.notify_all()

    def pause(self, watch: str, reason: str) -> None:
        """Stop handing out jobs of a watch, until `resume` for the same reason. Idempotent."""
        with self._changed:
            self._lanes[watch].paused.add(reason)

    def resume(self, watch: str, reason: str) -> None:
        """Lift a pause. Idempotent."""
        with self._changed:
            self._lanes[watch].paused.discard(reason)
            self._changed.notify_all()

    def stop(self) -> None:
        """Make every `take` return None from now on."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def idle(self) -> bool:
        """Whether no job is queued, delayed or running."""
        with self._changed:
            return not (self._known.keys() - self._dropped) and not any(lane.overflow for lane in self._lanes.values())

    def backlog(self) -> int:
        """Jobs in memory that have not ended: at most a few more than there are, less where lanes overflow."""
        with self._changed:
            return len(self._known)

    def census(self) -> Census:
        """How many jobs wait and run, without asking the job table."""
        with self._changed:
            running = len(self._running)
            more = any(lane.overflow for lane in self._lanes.values())
            return Census(max(0, len(self._known) - running), running, more)

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
        if not self._changed.acquire(timeout=seconds):
            return False
        try:
            turns = self._turns
            for _ in range(1 + int(seconds / ANSWER_STEP_SECONDS)):
                if not self._waiting or self._turns != turns:
                    return True
                self._changed.notify_all()
                self._changed.wait(ANSWER_STEP_SECONDS)
            return self._turns != turns
        finally:
            self._changed.release()

    def room(self, watch: str, slots: int) -> int:
        """How many more jobs of the watch may be added by someone who must not add more than `slots` can run.

        That is `slots` less those that are queued, delayed or running. It is 0 while the watch is paused, while the
        job table holds more of its jobs than memory does, while these are being read, and once stopped.
        """
        with self._changed:
            lane = self._lanes[watch]
            closed = self._stopped or lane.paused or lane.overflow or lane.refilling
            return 0 if closed else max(0, slots - lane.held)

    def paused(self, watch: str) -> bool:
        """Whether jobs of the watch are held back, for whatever reason."""
        with self._changed:
            return bool(self._lanes[watch].paused)

    def holds_back(self, watch: str) -> bool:
        """The same of a watch that may be gone by now, and without waiting for anything: for whoever looks on."""
        lane = self._lanes.get(watch)
        return lane is not None and bool(lane.paused)

    def running(self) -> list[Job]:
        """The jobs that workers hold now."""
        with self._changed:
            return list(self._running.values())

    def runs(self, job_ids: Collection[int], seconds: float = 0.0) -> set[int]:
        """Those of these jobs that workers hold; waits so long for them to be done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held_of(job_ids), seconds)
            return self._held_of(job_ids)

    def _refill_or_wait(self, watch: str) -> None:
        try:
            self._fill(watch, self._lanes[watch])
        except EnvironmentProblem:
            with self._changed:
                self._changed.wait(1.0)

    def _fill(self, watch: str, lane: _Lane) -> None:
        """Read the first pending jobs of a lane. The query runs without the lock: it must not hold up the workers."""
        with self._changed:
            lane.refilling = True
            lane.missed = False
            limit = self._capacity + len(self._known)
        found: list[tuple[Job, float]] | None = None
        try:
            found = self._refill(watch, limit)
        finally:
            with self._changed:
                self._take_in(lane, found, limit)
                self._changed.notify_all()

    # Everything below is called with the lock held.

    def _take_in(self, lane: _Lane, found: list[tuple[Job, float]] | None, limit: int) -> None:
        lane.refilling = False
        if found is not None:
            lane.overflow = False
            for job, not_before in found:
                if job.id not in self._ended_while_refilling and job.id not in self._known:
                    self._add(job, not_before)
            lane.overflow = len(found) == limit or lane.missed
        if not any(other.refilling for other in self._lanes.values()):
            self._ended_while_refilling.clear()

    def _add(self, job: Job, not_before: float) -> None:
        lane = self._lanes.get(job.watch)
        if lane is None:
            return
        if job.id in self._known:
            self._keep_for_later(job)
            return
        self._dropped.discard(job.id)
        delay_seconds = min(not_before - self._clock(), self._longest_delay_seconds)
        if delay_seconds > 0:
            self._hold(lane, job)
            heapq.heappush(self._delayed, (self._monotonic() + delay_seconds, job.id, job))
        elif job.interruptions >= SUSPECT_AFTER_INTERRUPTIONS:
            self._hold(lane, job)
            self._suspects.append((self._monotonic(), job))
        elif len(lane.ready) >= self._capacity or (lane.overflow and self._after_all(lane, job)):
            lane.overflow = lane.missed = True
        else:
            self._hold(lane, job)
            heapq.heappush(lane.ready, (*job.rank, job))

    def _hold(self, lane: _Lane, job: Job) -> None:
        self._known[job.id] = lane
        lane.held += 1

    def _let_go(self, job_id: int) -> None:
        lane = self._known.get(job_id)
        if lane is not None:
            self._known[job_id] = None
            lane.held -= 1

    def _held_of(self, job_ids: Collection[int]) -> set[int]:
        return {job.id for job in self._running.values() if job.id in job_ids}

    def _take_out(self, dropped: set[int]) -> None:
        """Jobs that were dropped are pending again, before anybody has come across what was left of them."""
        dropped -= {job.id for job in self._running.values()}
        if not dropped:
            return
        for lane in self._lanes.values():
            lane.ready = [entry for entry in lane.ready if entry[1] not in dropped]
            heapq.heapify(lane.ready)
        self._delayed = [entry for entry in self._delayed if entry[1] not in dropped]
        heapq.heapify(self._delayed)
        self._suspects = [entry for entry in self._suspects if entry[1].id not in dropped]
        self._aside = [job for job in self._aside if job.id not in dropped]
        for document, waiting in self._behind.items():
            self._behind[document] = [job for job in waiting if job.id not in dropped]
        for job_id in dropped:
            self._forget(job_id)

    def _keep_for_later(self, job: Job) -> None:
        """A job that ended in the table is retried while its worker has not said so here yet."""
        document = (job.watch, job.source)
        running = self._running.get(document)
        if running is not None and running.id == job.id:
            self._behind.setdefault(document, []).append(job)

    def _after_all(self, lane: _Lane, job: Job) -> bool:
        """Whether jobs that only the job table holds may come before this one."""
        return not lane.ready or job.rank >= lane.ready[0][:2]

    def _next(self) -> Job | None:
        self._release_delayed()
        if self._alone:
            return None
        suspect = None if self._suspects_held else self._suspect()
        if suspect is not None and self._patience_is_over():
            return self._run(suspect, alone=True) if not self._running else None
        job = self._first_ready()
        if job is not None:
            return self._run(job)
        if suspect is not None and not self._running:
            return self._run(suspect, alone=True)
        return None

    def _first_ready(self) -> Job | None:
        while True:
            best: _Lane | None = None
            for lane in self._lanes.values():
                self._discard_dropped(lane)
                if lane.ready and self._may_run(lane) and (best is None or lane.ready[0] < best.ready[0]):
                    best = lane
            if best is None:
                return None
            job = heapq.heappop(best.ready)[2]
            if job.id in self._withheld:
                self._aside.append(job)
            elif (job.watch, job.source) not in self._running:
                return job
            else:
                self._behind.setdefault((job.watch, job.source), []).append(job)

    def _may_run(self, lane: _Lane) -> bool:
        alone = self._running_per_watch is None or len(self._lanes) == 1
        return not lane.paused and (alone or lane.running < (self._running_per_watch or 0))

    def _discard_dropped(self, lane: _Lane) -> None:
        while lane.ready and lane.ready[0][1] in self._dropped:
            self._forget(heapq.heappop(lane.ready)[1])

    def _suspect(self) -> Job | None:
        for entry in list(self._suspects):
            if entry[1].id in self._dropped:
                self._suspects.remove(entry)
                self._forget(entry[1].id)
        return next((job for _, job in self._suspects if self._may_be_next(job)), None)

    def _may_be_next(self, suspect: Job) -> bool:
        return not self._lanes[suspect.watch].paused and suspect.id not in self._withheld

    def _patience_is_over(self) -> bool:
        waited_since = min(since for since, job in self._suspects if self._may_be_next(job))
        return self._monotonic() - waited_since > SUSPECT_PATIENCE_SECONDS

    def _run(self, job: Job, *, alone: bool = False) -> Job:
        if alone:
            self._suspects = [entry for entry in self._suspects if entry[1].id != job.id]
            self._alone = True
        self._running[(job.watch, job.source)] = job
        self._lanes[job.watch].running += 1
        return job

    def _leave(self, job: Job) -> None:
        del self._running[(job.watch, job.source)]
        self._lanes[job.watch].running -= 1
        self._forget(job.id)
        self._alone = False
        for waiting in self._behind.pop((job.watch, job.source), []):
            dropped = waiting.id in self._dropped
            self._forget(waiting.id)
            if not dropped:
                self._add(waiting, 0.0)

    def _forget(self, job_id: int) -> None:
        self._let_go(job_id)
        self._known.pop(job_id, None)
        self._dropped.discard(job_id)
        if any(lane.refilling for lane in self._lanes.values()):
            self._ended_while_refilling.add(job_id)

    def _release_delayed(self) -> None:
        while self._delayed and self._delayed[0][0] <= self._monotonic():
            _, job_id, job = heapq.heappop(self._delayed)
            dropped = job_id in self._dropped
            self._forget(job_id)
            if not dropped:
                self._add(job, 0.0)

    def _seconds_to_wait(self) -> float:
        if not self._delayed:
            return 60.0
        return max(0.01, min(60.0, self._delayed[0][0] - self._monotonic()))

    def _lane_to_refill(self) -> str | None:
        for watch, lane in self._lanes.items():
            if lane.overflow and not lane.refilling and len(lane.ready) <= self._capacity // 4:
                lane.refilling = True
                return watch
        return None
