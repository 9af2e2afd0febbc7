"""Runs groups of checks side by side, each with a deadline, and ends them without a trace when nobody wants to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from daemon.checks.base import Finding, Group, Stopping, problem
from daemon.errors import ConvertdError, Stopped

AT_ONCE = 8
CLEAN_SECONDS = 15.0


def side_by_side(groups: Sequence[Group]) -> Iterator[tuple[Group, list[Finding]]]:
    """The groups in their order, each with what it has found, as soon as that is known.

    Closing the iterator, or an exception such as Ctrl-C where it waits, has those that run take away what they have
    put somewhere; that is waited for, but not for ever.
    """
    slots = threading.BoundedSemaphore(AT_ONCE)
    runs = [Run(group, slots) for group in groups]
    for run in runs:
        run.start()
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
    """One group in a thread that does not keep the process: a dead mount must not either."""

    def __init__(self, group: Group, slots: threading.BoundedSemaphore) -> None:
        self.group = group
        self._slots = slots
        self._stopping = Stopping()
        self._begun = threading.Event()
        # Not by `join`: one that Ctrl-C interrupts takes the thread for ended (Python 3.11).
        self._done = threading.Event()
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=f"check-{group.title}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def findings(self) -> list[Finding]:
        """What was found within the time."""
        self._begun.wait()
        if not self._done.wait(self.group.seconds):
            self._stopping.set()
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
            with self._slots:
                self._begun.set()
                if not self._stopping():
                    self._check()
        finally:
            self._done.set()

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
