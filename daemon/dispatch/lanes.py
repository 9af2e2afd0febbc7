"""The jobs that wait and run, in memory: a lane per watch, and what is not in a lane.

Two jobs of one document never run at the same time, so an older result cannot overwrite a newer one. A job that has
been interrupted twice is a suspect: it runs alone, after everything else, or once it has waited long enough. Nobody
waits without end for that: what hangs, on a server that is gone for instance, counts as not running where a suspect
waits to be alone, and a suspect that hangs keeps no others out.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable

from daemon.dispatch.later import SUSPECT_AFTER_INTERRUPTIONS, Delayed, Suspects, Withheld
from daemon.dispatch.roll import Census, Lane, Roll
from daemon.model import Job

Document = tuple[str, bytes]


class Lanes:
    """Decides which job is next. Knows of no threads: whoever uses it holds a lock, and wakes who waits.

    A lane holds at most `capacity` jobs that are ready; what is beyond is left to the job table, until the lane is
    `low`. Jobs that are dropped are forgotten at once where they are counted, and from the queues as they are come
    across. Where for longer than `longest_run_seconds()` no job has begun or ended, all that run hang.
    """

    def __init__(
        self,
        watches: Iterable[str],
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        longest_delay_seconds: float,
        capacity: int,
        running_per_watch: int | None,
        longest_run_seconds: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._longest_delay_seconds = longest_delay_seconds
        self._capacity = capacity
        self._running_per_watch = running_per_watch
        self._longest_run_seconds = longest_run_seconds
        self._lanes = {watch: Lane() for watch in watches}
        self._delayed = Delayed(monotonic)
        self._suspects = Suspects(monotonic)
        self._roll = Roll()
        self._withheld = Withheld()
        self._running: dict[Document, Job] = {}
        self._behind: dict[Document, list[Job]] = {}
        self._alone: Document | None = None  # of the suspect that runs, and does not hang
        self._hanging: set[Document] = set()  # of those that run
        self._moved_at = monotonic()  # when a job last began or ended

    # -- what comes and goes -----------------------------------------------------------------------------------

    def open(self, watch: str, paused: Iterable[str]) -> None:
        """Make a lane that is still to be filled, paused for these reasons."""
        self._lanes[watch] = Lane(overflow=True, paused=set(paused))

    def add(self, jobs: Collection[Job], not_before: float) -> None:
        """Queue jobs that are pending in the job table."""
        job_ids = {job.id for job in jobs}
        self._take_out(job_ids & self._roll.dropped)
        self._roll.are_pending(job_ids)
        for job in jobs:
            self._add(job, not_before)

    def drop(self, job_ids: Iterable[int]) -> None:
        """Forget queued jobs that are no longer pending in the job table."""
        running = {job.id for job in self._running.values()}
        for job_id in job_ids:
            self._roll.drop(job_id, runs=job_id in running)

    def withhold(self, job_ids: Iterable[int]) -> set[int]:
        """From now on these are not next; returns those that were not withheld before."""
        return self._withheld.add(job_ids)

    def let_out(self, job_ids: set[int]) -> None:
        """Take back what `withhold` has said of these."""
        for job in self._withheld.let_out(job_ids):
            heapq.heappush(self._lanes[job.watch].ready, (*job.rank, job))

    def pause(self, watch: str, reason: str) -> None:
        """None of the watch's jobs is next, until `resume` for the same reason."""
        self._lanes[watch].paused.add(reason)

    def resume(self, watch: str, reason: str) -> None:
        """Lift a pause."""
        self._lanes[watch].paused.discard(reason)

    def release_suspects(self) -> None:
        """They may run when nothing else is left."""
        self._suspects.held = False

    # -- one job's way -----------------------------------------------------------------------------------------

    def next(self) -> Job | None:
        """The job that is to run now, which counts as running from here on; None where there is none."""
        if self._delayed.heap:
            self._release_delayed()
        if self._suspects.waiting or self._alone is not None:
            self._note_what_hangs()
        if self._alone is not None:
            return None
        suspect = self._suspect() if self._suspects.waiting and not self._suspects.held else None
        if suspect is not None and self._suspects.patience_is_over(self._may_be_next):
            return self._run_alone(suspect)
        job = self._first_ready()
        if job is not None:
            return self._run(job)
        return self._run_alone(suspect) if suspect is not None else None

    def done(self, job: Job) -> None:
        """The job no longer runs. What waited for it to end is queued."""
        document = job.watch, job.source
        del self._running[document]
        self._lanes[job.watch].running -= 1
        self._hanging.discard(document)
        if document == self._alone:
            self._alone = None
        self._moved_at = self._monotonic()
        dropped = self._roll.dropped
        behind = self._behind.pop(document, ())
        pending = [waiting for waiting in behind if waiting.id not in dropped] if behind else ()
        self._roll.forget(job.id)
        for waiting in behind:
            self._roll.forget(waiting.id)
        for waiting in pending:
            self._add(waiting, 0.0)

    def give_back(self, job: Job, not_before: float) -> None:
        """The job no longer runs, and is pending in the job table again, as it stands there."""
        self.done(job)
        self._add(job, not_before)

    # -- refilling ---------------------------------------------------------------------------------------------

    def low(self) -> str | None:
        """A watch of which the job table holds more than memory, while there is room for it. It counts as being
        refilled from here on."""
        for watch, lane in self._lanes.items():
            if lane.overflow and watch not in self._roll.refilling and len(lane.ready) <= self._capacity // 4:
                self._roll.refilling.add(watch)
                return watch
        return None

    def refill_begins(self, watch: str) -> int:
        """Says how many pending jobs of the watch are to be read."""
        self._roll.refilling.add(watch)
        self._lanes[watch].missed = False
        return self._capacity + len(self._roll.known)

    def refill_ends(self, watch: str, found: list[tuple[Job, float]] | None, limit: int) -> None:
        """These were found, each with its not-before time, of at most `limit`; None where they could not be read."""
        lane = self._lanes[watch]
        if found is not None:
            lane.overflow = False
            for job, not_before in self._roll.new_of(found):
                self._add(job, not_before)
            lane.overflow = len(found) == limit or lane.missed
        self._roll.refilled(watch)

    # -- questions ---------------------------------------------------------------------------------------------

    def watches(self) -> list[str]:
        """Those that there are lanes for."""
        return list(self._lanes)

    def paused(self, watch: str) -> bool:
        """Whether jobs of the watch are held back, for whatever reason."""
        return bool(self._lanes[watch].paused)

    def holds_back(self, watch: str) -> bool:
        """Whether there is a lane for the watch, and it is paused. Needs no lock."""
        lane = self._lanes.get(watch)
        return lane is not None and bool(lane.paused)

    def room(self, watch: str, slots: int) -> int:
        """See `Dispatcher.room`."""
        lane = self._lanes[watch]
        closed = lane.paused or lane.overflow or watch in self._roll.refilling
        return 0 if closed else max(0, slots - lane.held)

    def running(self) -> list[Job]:
        """The jobs that run."""
        return list(self._running.values())

    def running_of(self, job_ids: Collection[int]) -> set[int]:
        """Those of these jobs that run."""
        return {job.id for job in self._running.values() if job.id in job_ids}

    def held_back(self, reasons: Collection[str]) -> list[str]:
        """The watches that are paused for one of these reasons, whatever other reasons there are."""
        return [watch for watch, lane in self._lanes.items() if not lane.paused.isdisjoint(reasons)]

    def census(self, watches: Collection[str] | None = None) -> Census:
        """How many jobs wait and run, of these watches or of all."""
        lanes = [lane for watch, lane in self._lanes.items() if watches is None or watch in watches]
        running = sum(lane.running for lane in lanes)
        return Census(sum(lane.held for lane in lanes) - running, running, any(lane.overflow for lane in lanes))

    def idle(self, but_for: Collection[str] = ()) -> bool:
        """Whether nothing waits or runs, here or in the job table. Of the watches `but_for` nothing runs; what waits
        does not count."""
        return not any(
            lane.running if watch in but_for else lane.held or lane.overflow for watch, lane in self._lanes.items()
        )

    def backlog(self) -> int:
        """Jobs in memory, what was dropped and has not been come across included."""
        return len(self._roll.known)

    def next_in_seconds(self) -> float:
        """When there may be another job though nothing happens; infinite where that is never."""
        return self._delayed.due_in_seconds()

    # -- in between --------------------------------------------------------------------------------------------

    def _add(self, job: Job, not_before: float) -> None:
        lane = self._lanes.get(job.watch)
        if lane is None:
            return
        if job.id in self._roll.known:
            self._keep_for_later(job)
            return
        delay_seconds = min(not_before - self._clock(), self._longest_delay_seconds)
        if delay_seconds > 0:
            self._roll.hold(lane, job.id)
            self._delayed.add(job, delay_seconds)
        elif job.interruptions >= SUSPECT_AFTER_INTERRUPTIONS:
            self._roll.hold(lane, job.id)
            self._suspects.add(job)
        elif len(lane.ready) >= self._capacity or (lane.overflow and not lane.may_come_first(job)):
            lane.overflow = lane.missed = True
        else:
            self._roll.hold(lane, job.id)
            heapq.heappush(lane.ready, (*job.rank, job))

    def _keep_for_later(self, job: Job) -> None:
        """A job that ended in the table is retried while its worker has not said so here yet."""
        document = (job.watch, job.source)
        running = self._running.get(document)
        if running is not None and running.id == job.id:
            others = [waiting for waiting in self._behind.get(document, []) if waiting.id != job.id]
            self._behind[document] = [*others, job]
            self._roll.dropped.discard(job.id)

    def _take_out(self, dropped: set[int]) -> None:
        """Jobs that were dropped are pending again, before anybody has come across what was left of them."""
        dropped -= self.running_of(dropped)
        if not dropped:
            return
        for lane in self._lanes.values():
            lane.ready = [entry for entry in lane.ready if entry[1] not in dropped]
            heapq.heapify(lane.ready)
        self._delayed.remove(dropped)
        self._suspects.remove(dropped)
        self._withheld.remove(dropped)
        for document, waiting in self._behind.items():
            self._behind[document] = [job for job in waiting if job.id not in dropped]
        for job_id in dropped:
            self._roll.forget(job_id)

    def _release_delayed(self) -> None:
        while (job := self._delayed.take_due()) is not None:
            dropped = job.id in self._roll.dropped
            self._roll.forget(job.id)
            if not dropped:
                self._add(job, 0.0)

    def _first_ready(self) -> Job | None:
        while True:
            best: Lane | None = None
            for lane in self._lanes.values():
                self._discard_dropped(lane)
                if lane.ready and self._may_run(lane) and (best is None or lane.ready[0] < best.ready[0]):
                    best = lane
            if best is None:
                return None
            job = heapq.heappop(best.ready)[2]
            if job.id in self._withheld.ids:
                self._withheld.aside.append(job)
            elif (job.watch, job.source) not in self._running:
                return job
            else:
                self._behind.setdefault((job.watch, job.source), []).append(job)

    def _discard_dropped(self, lane: Lane) -> None:
        while lane.ready and lane.ready[0][1] in self._roll.dropped:
            self._roll.forget(heapq.heappop(lane.ready)[1])

    def _may_run(self, lane: Lane) -> bool:
        alone = self._running_per_watch is None or len(self._lanes) == 1
        return not lane.paused and (alone or lane.running < (self._running_per_watch or 0))

    def _suspect(self) -> Job | None:
        for job in self._suspects.remove(self._roll.dropped):
            self._roll.forget(job.id)
        return self._suspects.first(self._may_be_next)

    def _may_be_next(self, suspect: Job) -> bool:
        """Not where another job of its watch hangs: it might do the same, and hold all others up for as long again."""
        hangs = any(watch == suspect.watch for watch, _ in self._hanging)
        return not (hangs or self._lanes[suspect.watch].paused or suspect.id in self._withheld.ids)

    def _note_what_hangs(self) -> None:
        # As long as one of those that run does not hang it ends in time; so if none has, there is none.
        if self._monotonic() - self._moved_at > self._longest_run_seconds():
            self._hanging.update(self._running)
            self._alone = None

    def _run_alone(self, suspect: Job) -> Job | None:
        if self._running.keys() - self._hanging:
            return None
        self._suspects.remove({suspect.id})
        self._alone = (suspect.watch, suspect.source)
        return self._run(suspect)

    def _run(self, job: Job) -> Job:
        self._moved_at = self._monotonic()
        self._running[(job.watch, job.source)] = job
        self._lanes[job.watch].running += 1
        return job
