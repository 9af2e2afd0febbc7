"""Whether the surroundings of one watch are in order: decides who is to blame for an error, pauses and resumes.

An error counts as the environment's only if the watch's own probe fails too (ask whether converters start, list the
source, write a canary to the spool and the sink); else it is the document's. A sick watch hands out no jobs until a
probe succeeds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.dispatch import Dispatcher
from daemon.errors import ConvertdError, EnvironmentProblem, Stopped
from daemon.logs import Log

REASON = "environment"
STALLED_AFTER_SECONDS = 120.0
REMIND_SECONDS = 600.0
GOOD_FOR_SECONDS = 0.5
BAD_FOR_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What `status` says of a watch: `state` is running, paused or stalled."""

    state: str
    error: str | None


class Health:
    """The condition of one watch. All methods may be called from any thread; `probe` is run by one at a time.

    `probe(size_bytes)` raises EnvironmentProblem where something is sick; `size_bytes` is what must be writable.
    """

    def __init__(
        self,
        watch: str,
        probe: Callable[[int], None],
        dispatcher: Dispatcher,
        log: Log,
        monotonic: Callable[[], float] = time.monotonic,
        longest_pause_seconds: float = 0.0,
    ) -> None:
        self._watch = watch
        self._probe = probe
        self._dispatcher = dispatcher
        self._log = log
        self._monotonic = monotonic
        self._probing = threading.Lock()
        self._switching = threading.Lock()
        self._retired = False
        self._problem: EnvironmentProblem | None = None
        self._note: str | None = None
        self._needed_bytes = 0
        self._quiet_until = -REMIND_SECONDS
        self._announced = False
        self._last_good = -GOOD_FOR_SECONDS
        self._last_bad = -BAD_FOR_SECONDS
        self._last_beat = monotonic()
        self._longest_pause_seconds = longest_pause_seconds
        self._pause_seconds = 0.0

    def blames_environment(self, size_bytes: int = 0) -> bool:
        """Probe now; True (and the watch is paused) where the surroundings are sick.

        Without a size, a probe that went well a moment ago counts: a thousand files removed at once are one question.
        """
        with self._probing:
            if not size_bytes and self._monotonic() - self._last_good < GOOD_FOR_SECONDS:
                return False
            if self._problem is not None and self._monotonic() - self._last_bad < BAD_FOR_SECONDS:
                return True  # a probe of a server that does not answer takes long: one worker at a time is enough
            try:
                self._probe(size_bytes)
                self._last_good = self._monotonic()
            except EnvironmentProblem as problem:
                self._needed_bytes = size_bytes
                self._last_bad = self._monotonic()
                self.fell_ill(problem)
                return True
            return False

    def fell_ill(self, problem: EnvironmentProblem) -> None:
        """Pause the watch. Logged once, and again every `REMIND_SECONDS` of a sickness that comes back."""
        with self._switching:
            if self._retired:
                return
            self._dispatcher.pause(self._watch, REASON)
            self._problem = problem
        now = self._monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + REMIND_SECONDS
            self._log.error("watch paused", watch=self._watch, error=problem.message, hint=problem.hint)
            self._announced = True

    def check_recovery(self) -> None:
        """If the watch is sick: probe, and resume it where all is well again.

        Probes become rarer with the time, up to one in `longest_pause_seconds`: what they ask a server may cost money.
        """
        if self._problem is None or self._monotonic() - self._last_bad < self._pause_seconds:
            return
        with self._probing:
            try:
                self._probe(self._needed_bytes)
            except EnvironmentProblem as problem:
                self._problem, self._last_bad = problem, self._monotonic()
                self._pause_seconds = min(self._longest_pause_seconds, self._pause_seconds * 1.5 + 1.0)
                return
            except Stopped:
                return
        self._needed_bytes = 0
        self._pause_seconds = 0.0
        self._resume()
        if self._announced:
            self._announced = False
            self._log.info("watch resumed", watch=self._watch)

    def retire(self) -> None:
        """Another health takes over the watch, well until it finds otherwise: this one pauses nothing any more."""
        self._resume(retire=True)

    def _resume(self, *, retire: bool = False) -> None:
        with self._switching:
            if self._retired:
                return
            self._retired = retire
            self._problem = None
            self._dispatcher.resume(self._watch, REASON)

    @property
    def sick(self) -> bool:
        """Whether the watch is paused for its surroundings."""
        return self._problem is not None

    def condition(self) -> Condition:
        """For `status`."""
        problem = self._problem
        if problem is not None:
            return Condition("paused", f"{problem.message} ({problem.hint})" if problem.hint else problem.message)
        silent = self._monotonic() - self._last_beat
        if silent > STALLED_AFTER_SECONDS:
            return Condition("stalled", f"the source has not answered for {silent:.0f} s")
        return Condition("running", self._note)

    # What a source reports (sources.base.Watcher, but `drained`).

    def beat(self) -> None:
        self._last_beat = self._monotonic()

    def sick_source(self, error: Exception) -> None:
        problem = error if isinstance(error, ConvertdError) else None
        self.fell_ill(EnvironmentProblem(problem.message if problem else str(error), problem.hint if problem else ""))

    def note(self, text: str | None) -> None:
        """Something an operator should know that stops nothing."""
        if text and text != self._note:
            self._log.warning("watch note", watch=self._watch, note=text)
        self._note = text
