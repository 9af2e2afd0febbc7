"""Keeps the converter children: starts them, hands out ready ones, replaces those that are gone or unfit.

One permanent thread starts all children, since they die with the thread that started them. It also waits until they
are ready and notices those that die while nobody converts with them.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable

from daemon.converters import wire
from daemon.converters.process import ChildGone, ChildProcess
from daemon.errors import EnvironmentProblem, FatalError, Stopped

START_SECONDS = 60.0
START_ATTEMPTS = 3
START_AGAIN_SECONDS = (2.0, 5.0, 10.0, 30.0)
REAP_AGAIN_SECONDS = 0.5
CLOSE_SECONDS = 10.0
CANNOT_START_HINT = (
    "Mend what the error names (memory, process limits, an engine's library); convertd goes on by itself."
)

DIED_IDLE = "died while idle"

OnEvent = Callable[[str, dict[str, object]], None]


class Keeper:
    """Holds `size` children ready. All methods may be called from any thread.

    `on_event` hears, from the thread that found out, of children that did not start (while none does, not of the same
    reason again) or had to be replaced for another reason than long service.
    """

    def __init__(self, settings: wire.Settings, size: int, on_event: OnEvent, spool: str = "") -> None:
        self._settings = settings
        self._spool = spool
        self._size = size
        self._on_event = on_event
        self._state = threading.Condition()
        self._starting: list[ChildProcess] = []
        self._idle: list[ChildProcess] = []
        self._busy: set[ChildProcess] = set()
        self._hung_up: set[ChildProcess] = set()  # of the busy ones; whoever has it may not notice
        self._ended: list[ChildProcess] = []  # killed, not yet reaped
        self._failures: list[str] = []  # of starts, in a row
        self._trouble = ""  # why none could be started when one was wanted; until one has been
        self._tried_again = 0
        self._again_at = 0.0
        self._started = 0
        self._sandbox_told = False
        self._stopping = False
        self._death: BaseException | None = None
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="converter-keeper", daemon=True)

    def start(self) -> None:
        """Start the children; returns at once."""
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """Whether all has been ended by `kill`. Raises `FatalError` where that is because the thread has died: nobody
        wants a stop, and no document is to blame for the end of its child."""
        self.raise_if_dead()
        return self._stopping

    def raise_if_dead(self) -> None:
        """Raise `FatalError` where the thread has died."""
        if self._death is not None:
            what = f"the thread that keeps the converters has died: {self._death!r}"
            raise FatalError(what, "Nothing is lost; start it again.") from self._death

    @property
    def restarts(self) -> int:
        """How many children were started beyond the first of each place."""
        return max(0, self._started - self._size)

    def children(self) -> dict[str, list[ChildProcess]]:
        """The living children by what they do."""
        with self._state:
            return {"starting": list(self._starting), "idle": list(self._idle), "busy": list(self._busy)}

    def take(self, *, fresh: bool = False) -> ChildProcess:
        """A ready child, a `fresh` one if no document may have spoilt it; waits for one to start, but not for ever.

        Raises `EnvironmentProblem` if none can be started, which no document can be the cause of, `Stopped` after
        `kill`, `FatalError` if the thread has died.
        """
        with self._state:
            if self._given_up(fresh):
                self._try_again()
            while not self._stopping and not self._ready(fresh):
                if self._given_up(fresh) and (fresh or not self._busy):  # one that is busy may serve this one, too
                    if not (self._idle or self._busy):
                        self._trouble = self._failures[-1]
                    raise _cannot_start(self._failures[-1])
                if fresh:
                    self._make_room()
                self._state.wait(1.0)
            if self.stopping:
                raise Stopped("the converters are stopping")
            child = self._ready(fresh)[-1]
            self._idle.remove(child)
            self._busy.add(child)
            return child

    def probe(self) -> None:
        """Raise `EnvironmentProblem` where none could be started when one was wanted, and none has been since. Does not
        wait; who asks has it tried again, less and less often."""
        with self._state:
            if not self._trouble:
                return
            if time.monotonic() >= self._again_at:
                self._try_again()
            raise _cannot_start(self._trouble)

    def give_back(self, child: ChildProcess) -> str:
        """Return a child; one that is `unfit` or has died is ended and replaced in the background. Tells why it is."""
        with self._state:
            self._busy.remove(child)
            if child in self._hung_up:
                self._hung_up.remove(child)
                child.unfit = child.unfit or DIED_IDLE
            if child.unfit or self._stopping:
                self._dismiss(child)
            else:
                self._idle.append(child)
                self._state.notify_all()
            if child.unfit and not child.documents and not self._stopping:
                self._failures.append(child.unfit)
            recovered = child.documents > 0 and bool(self._failures)
            if recovered:
                self._failures.clear()
            if child.unfit or recovered:
                self._nudge()
            return child.unfit

    def kill(self) -> None:
        """End all children now, and for good. Does not wait."""
        with self._state:
            self._stopping = True
            for child in [*self._starting, *self._idle, *self._busy]:
                child.kill()
            self._state.notify_all()
            self._nudge()

    def close(self) -> None:
        """`kill`, and reap them. Idempotent."""
        self.kill()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)
        with self._state:
            if not self._thread.is_alive() and self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def _ready(self, fresh: bool) -> list[ChildProcess]:
        return [child for child in self._idle if not (fresh and child.documents)]

    def _given_up(self, fresh: bool) -> bool:
        return len(self._failures) >= START_ATTEMPTS and not self._starting and not self._ready(fresh)

    def _try_again(self) -> None:
        """Whatever kept them from starting may be mended by now."""
        pause_seconds = START_AGAIN_SECONDS[min(self._tried_again, len(START_AGAIN_SECONDS) - 1)]
        self._tried_again += 1
        self._again_at = time.monotonic() + pause_seconds
        self._failures.clear()
        self._nudge()

    def _make_room(self) -> None:
        """End an idle child where all have served and none would be started otherwise."""
        alive = len(self._starting) + len(self._idle) + len(self._busy)
        if self._idle and not self._starting and alive >= self._size:
            self._dismiss(self._idle.pop(0))
            self._nudge()

    def _dismiss(self, child: ChildProcess) -> None:
        child.kill()
        self._ended.append(child)

    def _nudge(self) -> None:
        """Have the thread look around. Called with the lock held, so that the descriptor is not closed meanwhile."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._spawn_missing()
                self._watch()
                self._reap()
        except BaseException as error:
            self._death = error  # first: the children die with this thread
            raise
        finally:
            self._end_all()

    def _end_all(self) -> None:
        self.kill()
        with self._state:
            self._ended += [*self._starting, *self._idle]
            self._starting, self._idle = [], []
        deadline = time.monotonic() + CLOSE_SECONDS / 2
        self._reap()
        while (self._ended or self._busy) and time.monotonic() < deadline:
            self._watch()
            self._reap()

    def _spawn_missing(self) -> None:
        with self._state:
            alive = len(self._starting) + len(self._idle) + len(self._busy)
            missing = 0 if len(self._failures) >= START_ATTEMPTS else self._size - alive
        for _ in range(missing):
            self._spawn()

    def _spawn(self) -> None:
        try:
            child = ChildProcess(self._settings, self._spool)
        except OSError as error:
            self._failed_to_start(None, str(error))
            return
        with self._state:
            self._started += 1
            self._starting.append(child)
            if self._stopping:
                child.kill()
        try:
            child.introduce()
        except OSError:
            pass  # dead already, which the watch sees

    def _watch(self) -> None:
        """Wait until something happens to a child, or somebody nudges. Of those that convert, too: they are given back
        without a nudge, and must be watched from then on."""
        with self._state:
            starting, ended = list(self._starting), list(self._ended)
            ready = [*self._idle, *(self._busy - self._hung_up)]
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        for child in starting:
            poll.register(child, select.POLLIN)
        for child in [*ready, *ended]:
            poll.register(child, 0)  # hang-ups only: what an idle child says is found when it is used
        happened = {fd for fd, _ in poll.poll(self._patience_milliseconds(starting))}
        if self._wake in happened:
            os.eventfd_read(self._wake)
        for child in starting:
            if child.fileno() in happened:
                self._arrived(child)
            elif time.monotonic() > child.started + START_SECONDS:
                self._failed_to_start(child, f"it was not ready within {START_SECONDS:g} s")
        for child in ready:
            if child.fileno() in happened:
                self._died(child)

    def _patience_milliseconds(self, starting: list[ChildProcess]) -> int | None:
        seconds = [child.started + START_SECONDS - time.monotonic() for child in starting]
        if self._ended or self._stopping:
            seconds.append(REAP_AGAIN_SECONDS)
        return int(max(0.0, min(seconds)) * 1000) + 1 if seconds else None

    def _arrived(self, child: ChildProcess) -> None:
        try:
            child.become_ready()
        except ChildGone:
            child.kill()
            child.reap()
            self._failed_to_start(child, child.last_line() or "it ended without a word")
            return
        with self._state:
            self._starting.remove(child)
            self._idle.insert(0, child)  # those that have converted already are taken first: they are warmer
            self._trouble, self._tried_again = "", 0
            self._state.notify_all()
        facts = child.facts
        if facts and not (facts.landlock_abi and facts.seccomp) and not self._sandbox_told:
            self._sandbox_told = True
            values: dict[str, object] = {"landlock_abi": facts.landlock_abi, "seccomp": facts.seccomp}
            self._on_event("converter sandbox incomplete", values)

    def _failed_to_start(self, child: ChildProcess | None, reason: str) -> None:
        with self._state:
            if child is not None:
                self._starting.remove(child)
                self._dismiss(child)
            if self._stopping:
                return
            self._failures.append(reason)
            is_news = reason != self._trouble
            self._state.notify_all()
            if child is None:
                self._nudge()  # there may be no child whose news would lead to the next attempt
        if is_news:
            self._on_event("converter did not start", {"reason": reason})

    def _died(self, child: ChildProcess) -> None:
        with self._state:
            if child in self._busy:
                self._hung_up.add(child)
            if child not in self._idle:
                return
            self._idle.remove(child)
            self._dismiss(child)
            if not child.documents:
                self._failures.append("it died before its first document")
        if not self._stopping:
            self._on_event("converter replaced", {"pid": child.pid, "reason": DIED_IDLE})

    def _reap(self) -> None:
        with self._state:
            ended = list(self._ended)
        for child in ended:
            if child.reap(0.05):
                child.close()
                with self._state:
                    self._ended.remove(child)


def _cannot_start(reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"no converter can be started: {reason}", CANNOT_START_HINT, certain=True)
