"""One worker: takes a job, runs the pipeline, judges the error, records the end.

Every way a job can end is one branch of `Worker._work`; sick surroundings give it back untouched. An end that cannot
be recorded because the state's disk is sick is held until it can be; should the daemon die meanwhile, it is done again.
"""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from daemon.dispatch import SUSPECT_AFTER_INTERRUPTIONS, Dispatcher
from daemon.disposal import Janitor
from daemon.endings import Endings, about
from daemon.errors import (
    Cancelled,
    DocumentError,
    EnvironmentProblem,
    FatalError,
    Kind,
    SourceChanged,
    SourceVanished,
    Stopped,
    TransientError,
)
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import Job, State
from daemon.naming import output_name
from daemon.pipeline import Outcome, Pipeline, Policy, Route
from daemon.results import ERROR, error_file
from daemon.sinks.base import Origin

ALONE_INTERRUPTIONS_ALLOWED = 3
DOUBTS_ALLOWED = 5
REPORTS_TRIED = 5
CHANGES_REMEMBERED = 10_000


class Worker:
    """Runs jobs until the dispatcher stops. Many run side by side, each in a thread of its own.

    `run` returns at a stop and raises FatalError where the job table is lost; a job held then is redone at the next
    start.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        health: Mapping[str, Health],
        jobs: JobTable,
        dispatcher: Dispatcher,
        pipeline: Pipeline,
        endings: Endings,
        janitor: Janitor,
        policy: Policy,
        retry_command: Sequence[str],
        log: Log,
        clock: Callable[[], float],
    ) -> None:
        self._routes = routes
        self._health = health
        self._jobs = jobs
        self._dispatcher = dispatcher
        self._pipeline = pipeline
        self._endings = endings
        self._record = endings.record
        self._janitor = janitor
        self._policy = policy
        self._retry_command = retry_command
        self._log = log
        self._clock = clock
        self._doubts: dict[int, int] = {}
        self._unreported: dict[int, int] = {}
        self._changes: dict[tuple[str, bytes], str] = {}

    def run(self) -> None:
        """Work until stopped."""
        while (job := self._dispatcher.take()) is not None:
            handed_over = False
            try:
                handed_over = self._judge(self._routes[job.watch], job)
            except EnvironmentProblem as problem:  # that the document is to blame could not be made known
                self._health[job.watch].fell_ill(problem)
                self._release(job)
            except Stopped:  # while it was to be found out who is to blame
                self._release(job)
            finally:
                if not handed_over:
                    self._pipeline.left(job)

    def _judge(self, route: Route, job: Job) -> bool:
        try:
            return self._work(route, job)
        except EnvironmentProblem as problem:
            self._suspect_surroundings(route, job, problem)
            return False

    def _work(self, route: Route, job: Job) -> bool:
        """Bring the job to its end. True where `endings` has it, who carries that on."""
        try:
            self._refuse_killer(job)
            self._jobs.start(job)
            outcome = self._pipeline.run(route, job)
        except Stopped:
            self._release(job)
        except SourceChanged as changed:
            self._changed(route, job, changed)
        except SourceVanished:
            self._vanished(route, job)
        except Cancelled:
            self._end(route, job, State.CANCELLED)
        except DocumentError as error:
            self._fail(route, job, error)
        except TransientError as error:
            self._failed_attempt(route, job, error)
        except (EnvironmentProblem, FatalError):
            raise
        except Exception as error:
            self._log.error("internal error", **about(job), error=repr(error), exception=traceback.format_exc())
            self._failed_attempt(route, job, TransientError(Kind.INTERNAL, f"convertd failed: {error!r}"))
        else:
            return self._succeed(route, job, outcome)
        return False

    def _suspect_surroundings(self, route: Route, job: Job, problem: EnvironmentProblem) -> None:
        """Believe it if the watch's probe agrees; else, after a few times, it is the document's."""
        doubts = self._doubts.get(job.id, 0)
        if problem.certain or doubts < DOUBTS_ALLOWED or self._health[job.watch].blames_environment():
            self._doubts[job.id] = doubts + 1
            self._health[job.watch].fell_ill(problem)
            self._release(job)
        else:
            self._doubts.pop(job.id, None)
            self._failed_attempt(route, job, TransientError(Kind.UNREADABLE, problem.message, problem.hint))

    def _refuse_killer(self, job: Job) -> None:
        if job.interruptions >= SUSPECT_AFTER_INTERRUPTIONS + ALONE_INTERRUPTIONS_ALLOWED:
            raise DocumentError(
                Kind.CRASHED, f"convertd died {job.interruptions} times while it was converting this document"
            )

    # -- the ends of a job -------------------------------------------------------------------------------------

    def _succeed(self, route: Route, job: Job, outcome: Outcome) -> bool:
        if outcome.conversion is not None:
            self._acquit(job)
            self._endings.completed(route, job, outcome.conversion, outcome.output)
            return True
        if outcome.state is None:
            self._record(lambda: self._jobs.fold(job))
            self._endings.tell_source(route, job, State.COMPLETED)
            self._dispatcher.done(job)
        else:
            self._end(route, job, outcome.state)
        return False

    def _failed_attempt(self, route: Route, job: Job, error: TransientError) -> None:
        if self._health[job.watch].blames_environment(error.size_bytes):
            self._release(job)
        elif job.attempts + 1 >= self._policy.retry.attempts:
            self._fail(route, job, error)
        else:
            self._back_off(job, error)

    def _back_off(self, job: Job, error: TransientError) -> None:
        backoff = self._policy.retry.backoff_seconds
        seconds = backoff[min(job.attempts, len(backoff) - 1)] if backoff else 0.0
        not_before = self._clock() + seconds * random.uniform(1.0, 1.1)  # noqa: S311 (spreads load only)
        self._record(lambda: self._jobs.back_off(job, error, not_before))
        self._log.warning("attempt failed", **about(job), error=error.message, again_in_seconds=seconds)
        self._dispatcher.give_back(replace(job, attempts=job.attempts + 1), not_before)

    def _fail(self, route: Route, job: Job, error: DocumentError | TransientError) -> None:
        if not self._jobs.is_current(job):
            self._end(route, job, State.SUPERSEDED)
            return
        if self._jobs.has_output(job):
            error.message += "; the output of an earlier version is kept"
        attempts = job.attempts + 1
        content = error_file(job, error, attempts=attempts, failed_at=self._clock(), retry=self._retry_command)
        try:
            name = output_name(job.source, route.sink.name_bytes)
            route.sink.publish(name, {ERROR: content}, Origin(job.source, job.version))
        except DocumentError as taken:  # that of another document lies there
            self._log.error("error file not written", **about(job), error=taken.message)
        except TransientError as unwritten:
            if self._health[job.watch].blames_environment(unwritten.size_bytes):
                self._release(job)
                return
            unreported = self._unreported.get(job.id, 0)
            if unreported < REPORTS_TRIED:  # nobody would learn why it failed: that is worth some more attempts
                self._unreported[job.id] = unreported + 1
                self._back_off(job, unwritten)
                return
            self._log.error("error file not written", **about(job), error=unwritten.message)
        dispose = route.on_failure(job).action != "keep"
        if not self._record(lambda: self._jobs.fail(job, error, attempts=attempts, dispose=dispose)):
            self._dispatcher.done(job)
            self._endings.unrecorded(job)
            return
        if dispose:
            self._janitor.add(job)
        self._settle(route, job, State.FAILED)
        self._dispatcher.done(job)
        self._log.warning("failed", **about(job), kind=error.kind.value, error=error.message, hint=error.hint)

    def _changed(self, route: Route, job: Job, changed: SourceChanged) -> None:
        """A newer version is there, which discovery queues; in quarantine nobody would discover it."""
        if job.submitted:
            self._fail(route, job, DocumentError(Kind.UNREADABLE, changed.message, "Submit it again."))
            return
        if job.location is not None:
            hint = "Drop it into the source again: it is then converted as it is now."
            self._fail(route, job, DocumentError(Kind.UNREADABLE, "it has been changed where it was moved to", hint))
            return
        document = (job.watch, job.source)
        if self._changes.get(document) == job.version:  # and yet it was found again: not a change, but a fault
            self._changes.pop(document, None)
            self._failed_attempt(route, job, TransientError(Kind.UNREADABLE, changed.message))
            return
        if len(self._changes) > CHANGES_REMEMBERED:
            self._changes.clear()
        self._changes[document] = job.version
        self._record(lambda: self._jobs.end(job, State.SUPERSEDED))
        # Before `done`: there is no moment at which nobody has the document.
        self._routes[job.watch].source.recheck(job.source)
        self._settle(route, job, State.SUPERSEDED)
        self._dispatcher.done(job)
        self._log.info("changed while it was read", **about(job))

    def _vanished(self, route: Route, job: Job) -> None:
        """A missing folder makes every document in it look gone: ask the watch's probe before believing it."""
        if self._health[job.watch].blames_environment():
            self._release(job)
        else:
            self._end(route, job, State.VANISHED)

    def _end(self, route: Route, job: Job, state: State) -> None:
        self._record(lambda: self._jobs.end(job, state))
        self._settle(route, job, state)
        self._dispatcher.done(job)
        self._log.info(state.value, **about(job))

    def _settle(self, route: Route, job: Job, state: State) -> None:
        """Tell whoever waits for it that the job has ended."""
        self._acquit(job)
        self._endings.settle(route, job, state)

    def _acquit(self, job: Job) -> None:
        """Nothing need be held against the job any more."""
        self._doubts.pop(job.id, None)
        self._unreported.pop(job.id, None)

    def _release(self, job: Job) -> None:
        self._record(lambda: self._jobs.release(job))
        self._dispatcher.give_back(job)
