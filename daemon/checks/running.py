"""Runs groups of checks side by side, each with a deadline, and ends them without a trace when nobody wants to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from daemon.checks.base import Finding, Group, Stopping, problem
from daemon.errors import ConvertdError, Stopped

AT_ONCE = 8
CLEAN_SECONDS = 15.0


def side_by_side(groups: Sequence[Group]) -> Iterator[tuple[Group, list[Finding]]]:
    """The groups in their order, each with what it has found, as soon as that is known.

    Closing the iterator, or an exception such as Ctrl-C where it waits, has those that run take away what they have
    put somewhere; that is waited for, but not for ever.
    """
    begun = threading.Lock()

    def begin_next() -> None:
        with begun:
            run = next(waiting, None)
        if run is not None:
            run.start()

    runs = [Run(group, begin_next) for group in groups]
    waiting = iter(runs)
    for _ in range(AT_ONCE):
        begin_next()
    try:
        for run in runs:
            yield run.group, run.findings()
    finally:
        for run in runs:
            run.stop()
        deadline = time.monotonic() + CLEAN_SECONDS
        for run in runs:
            run.wait(deadline)


class Run:
    """One group in a thread that does not keep the process: a dead mount must not either.

    Its place is free, so that the next can begin, once it has ended or is late: what hangs holds up nobody. Runs begin
    in their order; so whoever waits for one after the other waits for none that has not begun.
    """

    def __init__(self, group: Group, begin_next: Callable[[], None]) -> None:
        self.group = group
        self._begin_next = begin_next
        self._stopping = Stopping()
        self._began = time.monotonic()
        # Not by `join`: one that Ctrl-C interrupts takes the thread for ended (Python 3.11).
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._has_place = True
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=f"check-{group.title}", daemon=True)

    def start(self) -> None:
        self._began = time.monotonic()
        self._thread.start()

    def findings(self) -> list[Finding]:
        """What was found within the time, which counts from when it began."""
        if not self._done.wait(max(0.0, self._began + self.group.seconds - time.monotonic())):
            self._stopping.set()
            self._give_up_place()
            late = problem(f"no answer within {self.group.seconds:.0f} s", self.group.remedy)
            return [*self._found, late]
        return self._found

    def stop(self) -> None:
        self._stopping.set()

    def wait(self, deadline: float) -> None:
        """For its end, or until then."""
        self._done.wait(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        try:
            if not self._stopping():
                self._check()
        finally:
            try:
                self._give_up_place()
            finally:
                self._done.set()

    def _give_up_place(self) -> None:
        with self._lock:  # once only: it may end just as it is late
            if self._has_place:
                self._has_place = False
                self._begin_next()

    def _check(self) -> None:
        try:
            for finding in self.group.check(self._stopping):
                self._found.append(finding)
        except Stopped:
            pass
        except ConvertdError as error:
            self._found.append(problem(error.message, error.hint or "Mend what the message names."))
        except Exception as error:
            self._found.append(problem(f"the check failed: {error!r}", "Report this; the other checks stand."))
