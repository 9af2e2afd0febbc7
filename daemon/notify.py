"""Delivers events from the outbox: one thread a target, in order, each event until the target has taken it.

A target that fails is tried again after `FIRST_SECONDS`, then twice as long each time up to `LONGEST_SECONDS`; the
events wait in the job table meanwhile, and no other target and no conversion waits with them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from daemon import targets
from daemon.errors import EnvironmentProblem, FatalError
from daemon.logs import Log
from daemon.meters import Meter
from daemon.model import printable
from daemon.outbox import Event, Outbox
from daemon.targets.base import Target, Undelivered

if TYPE_CHECKING:
    from daemon.settings import Notify

CHUNK = 64
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
RECORD_SECONDS = 0.5
"""How long a delivery may go unrecorded (it is repeated should the daemon die meanwhile), and a connection unused."""
END_SECONDS = 1.0

Build = Callable[[str, "Notify"], Target | None]


class Line:
    """The way of events to one target: one thread is in `run`, any other may call the rest."""

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        log: Log,
        meter: Meter,
        monotonic: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._outbox = outbox
        self._log = log
        self._meter = meter
        self._monotonic = monotonic
        self._spread = spread
        self._changed = threading.Condition()
        self._target: Target | None = None
        self._got = 0
        """The last event that the target has got."""
        self._recorded = 0
        self._recorded_at = 0.0
        self._news = False
        self._failures = 0
        self._error: str | None = None
        self._again_at = 0.0
        self._finishing = False
        self._ended = False
        self._open: Target | None = None
        """The target that may hold something open; the thread's own."""

    def serve(self, target: Target | None, got: int = 0) -> None:
        """Deliver to this target, which has got everything up to the event `got`; None: to nobody."""
        with self._changed:
            self._target = target
            self._got = self._recorded = got
            self._failures, self._error, self._again_at = 0, None, 0.0
            self._wake()

    def wake(self) -> None:
        """There may be something to deliver."""
        with self._changed:
            self._wake()

    def finish(self) -> None:
        """Make `run` return once everything is delivered or an attempt fails; at once where the last one has failed."""
        with self._changed:
            self._finishing = True
            failing = self._failures > 0
            self._changed.notify_all()
        if failing:
            self.abort()

    def abort(self) -> None:
        """Make `run` return now. What was under way is delivered again at the next start."""
        with self._changed:
            self._finishing = True
            target, self._target = self._target, None
            self._changed.notify_all()
        if target is not None:
            target.abort()

    def record(self) -> None:
        """Have the job table know how far the target is. It is told in the background: nothing waits for the disk."""
        with self._changed:
            got, known = self._got, self._recorded
            self._recorded, self._recorded_at = got, self._monotonic()
        if known < got:
            self._outbox.delivered(self.name, got)

    def ended(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> bool:
        """Whether `run` has returned, waiting for it, but not once `hurry` says so."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not self._ended and time.monotonic() < deadline and not hurry():
                self._changed.wait(0.05)
            return self._ended

    def condition(self) -> dict[str, Any] | None:
        """For `status`; None where nobody is told."""
        with self._changed:
            if self._target is None:
                return None
            again = round(max(0.0, self._again_at - self._monotonic()), 1) if self._failures else None
            return {
                "address": self._target.address,
                "error": self._error,
                "failures": self._failures,
                "again_in_seconds": again,
            }

    def run(self) -> None:
        """Deliver until stopped. Raises FatalError where the job table is lost."""
        try:
            while (target := self._wait()) is not None:
                if self._open is not target:
                    self._rest()
                    self._open = target
                try:
                    self._deliver(target)
                except EnvironmentProblem as problem:
                    self._failed(target, problem.message)
        finally:
            with suppress(FatalError):  # others find that, too
                self._rest()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    # -- in the thread -----------------------------------------------------------------------------------------

    def _wait(self) -> Target | None:
        """Whom to deliver to now; None at the end."""
        with self._changed:
            while True:
                if self._target is not None and self._news and self._monotonic() >= self._again_at:
                    self._news = False
                    return self._target
                if self._finishing:
                    return None
                if not self._changed.wait(self._patience()):
                    self._rest()

    def _patience(self) -> float | None:
        """For how long there is nothing to do unless somebody calls."""
        if self._target is not None and self._news:
            return max(0.0, self._again_at - self._monotonic())
        return None if self._open is None else RECORD_SECONDS

    def _deliver(self, target: Target) -> None:
        """Deliver what there is, or the next few; the first that fails ends it."""
        events = self._outbox.after(self._got, CHUNK)
        for event in events:
            if self._target is not target:
                return  # another one is served now, or none
            if not self._attempt(target, event):
                return
            if self._monotonic() - self._recorded_at > RECORD_SECONDS:
                self.record()
        if len(events) == CHUNK:
            self.wake()

    def _rest(self) -> None:
        """Nothing comes for a while."""
        self.record()
        if self._open is not None:
            self._open.close()
            self._open = None

    def _attempt(self, target: Target, event: Event) -> bool:
        try:
            target.deliver(event)
        except Undelivered as error:
            self._failed(target, str(error))
            return False
        except Exception as error:  # no trouble with a target may end the daemon
            self._failed(target, printable(f"internal error: {error!r}"))
            return False
        with self._changed:
            if self._target is not target:
                return False
            self._got = event.id
            failures, self._failures, self._error = self._failures, 0, None
        self._meter.notified(self.name, True)
        if failures:
            self._log.info("events are delivered again", target=self.name, failures=failures)
        return True

    def _failed(self, target: Target, error: str) -> None:
        with self._changed:
            if self._target is not target:
                return  # nobody is interested any more
            self._failures += 1
            self._error = error
            longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self._failures - 1, 32))
            seconds = longest * (1 + self._spread()) / 2
            self._again_at = self._monotonic() + seconds
            self._news = True
        self._meter.notified(self.name, False)
        self._log.warning("event not delivered", target=self.name, error=error, again_in_seconds=round(seconds, 1))
        self.record()

    # Called with the lock held.

    def _wake(self) -> None:
        self._news = True
        self._changed.notify_all()


class Messenger:
    """All targets. `configure` is called by one thread, everything else by any."""

    def __init__(
        self,
        outbox: Outbox,
        log: Log,
        meter: Meter,
        build: Build = targets.build,
        names: tuple[str, ...] = tuple(targets.REGISTRY),
    ) -> None:
        self._outbox = outbox
        self._build = build
        self.lines = tuple(Line(name, outbox, log, meter) for name in names)
        self._settings: Notify | None = None
        outbox.listen(self.wake)

    def configure(self, settings: Notify) -> None:
        """Tell these targets from now on, and no others. Raises EnvironmentProblem where the job table cannot be
        written; what was changed until then stays."""
        if settings == self._settings:
            return
        for line in self.lines:
            line.record()
            target = self._build(line.name, settings)
            if target is None:
                line.serve(None)
                self._outbox.leave(line.name)
            else:
                line.serve(target, self._outbox.join(line.name))
        self._settings = settings

    def wake(self) -> None:
        """There may be something to deliver."""
        for line in self.lines:
            line.wake()

    def finish(self, seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Deliver what can be delivered at once, then end; what is left is delivered after the next start."""
        for line in self.lines:
            line.finish()
        deadline = time.monotonic() + seconds
        for line in self.lines:
            line.ended(max(0.0, deadline - time.monotonic()), hurry)
        for line in self.lines:
            line.abort()
        for line in self.lines:
            line.ended(END_SECONDS)

    def conditions(self) -> dict[str, dict[str, Any]]:
        """For `status`: what is configured, and how it does."""
        found = {line.name: line.condition() for line in self.lines}
        return {name: condition for name, condition in found.items() if condition is not None}
