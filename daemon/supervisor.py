"""The life of the daemon: starts its threads, watches over them, drains them at a stop.

Every thread that ends before its time ends the process: a daemon that lost a part of itself is worse than one that is
restarted, and a restart loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from daemon import __version__
from daemon.control import ControlServer
from daemon.discovery import Discovery
from daemon.dispatch import Dispatcher
from daemon.disposal import HANDS, Janitor
from daemon.errors import ConvertdError, FatalError
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.model import State
from daemon.pool import ConverterPool
from daemon.worker import Worker

DRAIN_SECONDS = 25.0
STOP_AT_ONCE_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 2.0
ONCE_SICK_SECONDS = 60.0
ONCE_UNREADY_SECONDS = 60.0
RATE_WINDOW_SECONDS = 60.0
LOOK_SECONDS = 0.2
ONCE_LOOK_SECONDS = 0.05
RECHECK_SECONDS = 0.6


class Tally:
    """Counts what has ended since the start. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._started = monotonic()
        self._recent: list[float] = []
        self.ended = 0
        self.changed = 0
        self.completed = 0
        self.failed = 0

    def add(self, state: State) -> None:
        """A job has ended."""
        now = self._monotonic()
        with self._lock:
            self.ended += 1
            self.changed += state is State.SUPERSEDED
            self.completed += state is State.COMPLETED
            self.failed += state is State.FAILED
            self._recent.append(now)
            if self._recent[0] < now - 2 * RATE_WINDOW_SECONDS:
                self._recent = [ended for ended in self._recent if ended >= now - RATE_WINDOW_SECONDS]

    def note_change(self) -> None:
        """A document was found changed outside of a job."""
        with self._lock:
            self.changed += 1

    def per_second(self) -> float:
        """Jobs ended per second over the last minute."""
        now = self._monotonic()
        window = min(RATE_WINDOW_SECONDS, max(now - self._started, 1.0))
        with self._lock:
            return sum(ended >= now - window for ended in self._recent) / window

    @property
    def uptime_seconds(self) -> float:
        return self._monotonic() - self._started


@dataclass(frozen=True)
class Parts:
    """Everything that the supervisor keeps going; put together by `daemon.app`."""

    dispatcher: Dispatcher
    jobs: JobTable
    pool: ConverterPool
    discoveries: Sequence[Discovery]
    workers: Sequence[Worker]
    janitor: Janitor
    health: Mapping[str, Health]
    sweeps: Mapping[str, Callable[[], None]]
    control: ControlServer
    writer_alive: Callable[[], bool]
    stop_fetching: Callable[[], None]
    stop_discovery: threading.Event
    stop_slots: threading.Event
    halt: threading.Event


class Drain:
    """When `--once` is at its end: everything that was there is converted and disposed of, or will not be.

    Asked again and again by one thread.
    """

    def __init__(self, parts: Parts, tally: Tally, log: Log) -> None:
        self._parts = parts
        self._tally = tally
        self._log = log
        self._progress = (-1, -1)
        self._sick_since: float | None = None
        self._idle_since: float | None = None

    def exit_code(self) -> int | None:
        """The exit code, once it is known."""
        now = time.monotonic()
        progress = (self._tally.ended, self._tally.changed)
        if self._progress != progress:
            self._progress = progress
            self._sick_since = self._idle_since = None
        if any(health.sick for health in self._parts.health.values()):
            self._sick_since = self._sick_since or now
        if self._sick_since is not None and now - self._sick_since > ONCE_SICK_SECONDS:
            self._log.error("giving up: the surroundings are sick", seconds=ONCE_SICK_SECONDS)
            return 1
        # The order of the questions matters: a file leaves discovery after it is queued, and the queue after it is
        # due for disposal.
        left = [discovery.left for discovery in self._parts.discoveries]
        if None in left or not self._parts.dispatcher.idle():
            self._idle_since = None
            return None
        self._idle_since = self._idle_since or now
        unready, undisposed = sum(number or 0 for number in left), self._parts.janitor.backlog()
        if not unready and not undisposed:
            # A document found changed goes back to discovery, which takes a moment to look at it.
            settled = now - self._idle_since >= (RECHECK_SECONDS if self._tally.changed else ONCE_LOOK_SECONDS / 2)
            return (1 if self._tally.failed else 0) if settled else None
        if now - self._idle_since <= ONCE_UNREADY_SECONDS:
            return None
        self._log.error("giving up on files that do not become free", still_written=unready, not_disposed_of=undisposed)
        return 1


class Supervisor:
    """Runs the parts until `stop` was called or, with `once`, until nothing is left to do.

    `run` is called from the main thread; `stop` from a signal handler.
    """

    def __init__(self, parts: Parts, tally: Tally, log: Log, *, once: bool) -> None:
        self._parts = parts
        self._tally = tally
        self._log = log
        self._once = once
        self._wake = threading.Event()
        self._stops = 0
        self._hang_ups = 0
        self._threads: list[threading.Thread] = []
        self._crash: BaseException | None = None

    def stop(self) -> None:
        """First call: drain. Second call: stop at once. Safe in a signal handler."""
        self._stops += 1  # and nothing else: a handler that takes a lock could meet itself

    def hang_up(self) -> None:
        """SIGHUP. Safe in a signal handler."""
        self._hang_ups += 1

    def run(self, tick: Callable[[], None] = lambda: None) -> int:
        """Run to the end; returns the exit code. `tick` is called a few times a second from this thread."""
        try:
            self._start()
            self._log.info("started", version=__version__, watches=len(self._parts.health))
            exit_code = self._watch_over(tick)
        except ConvertdError:
            self._parts.pool.kill()
            raise
        self._drain()
        self._log.info("stopped", completed=self._tally.completed, failed=self._tally.failed)
        return exit_code

    def status(self) -> dict[str, Any]:
        """The live part of `convertd status`."""
        watches = {}
        for name, health in self._parts.health.items():
            condition = health.condition()
            watches[name] = {"state": condition.state, "error": condition.error}
        return {
            "version": __version__,
            "uptime_seconds": round(self._tally.uptime_seconds, 3),
            "state": "stopping" if self._stops else "running",
            "documents_per_second": round(self._tally.per_second(), 3),
            "watches": watches,
            "converters": self._parts.pool.facts(),
        }

    def progress(self) -> tuple[int, int]:
        """Jobs ended since the start, and those plus what is known to be left."""
        done = self._tally.completed + self._tally.failed
        return done, done + self._parts.dispatcher.backlog()

    # -- start -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        parts = self._parts
        parts.pool.start()
        parts.dispatcher.fill()
        parts.control.start()
        for number, worker in enumerate(parts.workers):
            self._spawn(f"worker-{number}", worker.run)
        for number in range(HANDS):
            self._spawn(f"janitor-{number}", parts.janitor.run)
        for name, health in parts.health.items():  # a thread each: a probe that gets no answer holds up no other
            self._spawn(f"health-{name}", partial(self._check_health, name, health))
        self._spawn("control", parts.control.run)
        for discovery in parts.discoveries:
            self._spawn("discovery", discovery.run)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        def body() -> None:
            try:
                work()
            except BaseException as error:
                self._crash = self._crash or error
                self._log.error("thread died", thread=name, error=repr(error), exc_info=True)
                self._wake.set()

        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _check_health(self, name: str, health: Health) -> None:
        if name in self._parts.sweeps:
            self._parts.sweeps[name]()
        while not self._parts.stop_discovery.wait(HEALTH_CHECK_SECONDS):
            health.check_recovery()

    # -- run ---------------------------------------------------------------------------------------------------

    def _watch_over(self, tick: Callable[[], None]) -> int:
        drain = Drain(self._parts, self._tally, self._log)
        suspects_released = False
        while True:
            self._raise_if_broken()
            if self._stops:
                return 1 if self._once else 0
            if self._hang_ups:
                self._hang_ups = 0
                self._log.warning("reload is not supported yet: restart to apply a changed configuration")
            if not suspects_released and all(discovery.has_seen_all() for discovery in self._parts.discoveries):
                suspects_released = True
                self._parts.dispatcher.release_suspects()
            tick()
            if self._once and (exit_code := drain.exit_code()) is not None:
                return exit_code
            self._wake.wait(ONCE_LOOK_SECONDS if self._once else LOOK_SECONDS)

    def _raise_if_broken(self) -> None:
        if self._crash is not None:
            if isinstance(self._crash, ConvertdError):
                raise self._crash
            raise FatalError(f"a part of convertd died: {self._crash!r}", "Nothing is lost; start it again.")
        if not self._parts.writer_alive():
            raise FatalError("the job table's writer died", "Nothing is lost; start it again.")
        for thread in self._threads:
            if not thread.is_alive():
                raise FatalError(f"{thread.name} ended by itself", "Nothing is lost; start it again.")

    # -- stop --------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Let running conversions end within the deadline, then kill them; give their jobs back either way."""
        parts = self._parts
        parts.stop_discovery.set()
        parts.dispatcher.stop()
        parts.stop_slots.set()
        parts.stop_fetching()
        parts.janitor.stop()
        self._join(DRAIN_SECONDS, until=lambda: self._stops > 1)
        parts.halt.set()
        parts.pool.kill()
        self._join(STOP_AT_ONCE_SECONDS, until=lambda: False)
        parts.control.close()
        parts.jobs.release_all()
        parts.pool.close()

    def _join(self, seconds: float, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        waiting = [thread for thread in self._threads if thread.name != "control"]
        for thread in waiting:
            while thread.is_alive() and time.monotonic() < deadline and not until():
                thread.join(0.02)
