"""The life of the daemon: starts its threads, watches over them, drains them at a stop.

Every thread that ends before its time ends the process: a daemon that lost a part of itself is worse than one that is
restarted, and a restart loses nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from daemon import __version__
from daemon.control import ControlServer
from daemon.dispatch import Dispatcher
from daemon.disposal import HANDS, Janitor
from daemon.endings import Endings
from daemon.errors import ConvertdError, FatalError
from daemon.jobs import JobTable
from daemon.logs import Log
from daemon.monitor import MonitorServer
from daemon.notify import Messenger
from daemon.once import LOOK_SECONDS as ONCE_LOOK_SECONDS
from daemon.once import Once
from daemon.pool import ConverterPool
from daemon.roster import Change, Post, Roster
from daemon.service import Service
from daemon.tally import Tally
from daemon.worker import Worker

DRAIN_SECONDS = 25.0
STOP_AT_ONCE_SECONDS = 5.0
TELL_SECONDS = 5.0
HEALTH_CHECK_SECONDS = 2.0
LOOK_SECONDS = 1.0
STARTING_LOOK_SECONDS = 0.2
OUTLASTING = ("endings", "control", "monitor", "notify-")
"""Threads that serve until all others have ended."""


@dataclass(frozen=True)
class Stops:
    """The steps of a stop: `slots` gives up what is being fetched or waits for a converter, `halt` also the waiting for
    a sick disk."""

    slots: threading.Event = field(default_factory=threading.Event)
    halt: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Parts:
    """Everything that the supervisor keeps going; put together by `daemon.app`."""

    dispatcher: Dispatcher
    jobs: JobTable
    pool: ConverterPool
    roster: Roster
    workers: Sequence[Worker]
    endings: Endings
    janitor: Janitor
    control: ControlServer
    writer_alive: Callable[[], bool]
    stop_fetching: Callable[[], None]
    stops: Stops
    reload: Callable[[], Change | None]
    service: Service
    messenger: Messenger
    monitor: MonitorServer | None


class Supervisor:
    """Runs the parts until `stop` was called or, with `once`, until nothing is left to do.

    `run` is called from the main thread; `stop` from a signal handler.
    """

    def __init__(self, parts: Parts, tally: Tally, log: Log, *, once: bool) -> None:
        self._parts = parts
        self._tally = tally
        self._log = log
        self._once = once
        self._calls: SimpleQueue[None] = SimpleQueue()
        """Ends the wait of `_watch_over`. Of all that wakes a thread only this may be used in a signal handler, which
        could meet itself in a lock."""
        self._stops = 0
        self._hang_ups = 0
        self._threads: list[threading.Thread] = []
        self._posted: dict[int, list[threading.Thread]] = {}
        self._crash: BaseException | None = None

    def stop(self) -> None:
        """First call: drain. Second call: stop at once. Safe in a signal handler."""
        self._stops += 1
        self._calls.put(None)

    def hang_up(self) -> None:
        """SIGHUP. Safe in a signal handler."""
        self._hang_ups += 1
        self._calls.put(None)

    def run(self, tick: Callable[[], None] = lambda: None) -> int:
        """Run to the end; returns the exit code. `tick` is called again and again from this thread."""
        try:
            self._start()
            self._parts.service.ready()
            self._log.info("started", version=__version__, watches=len(self._parts.roster.posts()))
            exit_code = self._watch_over(tick)
        except ConvertdError:
            self._parts.pool.kill()
            raise
        self._drain()
        self._log.info("stopped", completed=self._tally.completed, failed=self._tally.failed)
        return exit_code

    def status(self) -> dict[str, Any]:
        """The live part of `convertd status`."""
        conditions = self._parts.roster.conditions()
        return {
            "version": __version__,
            "uptime_seconds": round(self._tally.uptime_seconds, 3),
            "state": "stopping" if self._stops else "running",
            "documents_per_second": round(self._tally.per_second(), 3),
            "watches": {
                name: {"state": condition.state, "error": condition.error} for name, condition in conditions.items()
            },
            "converters": self._parts.pool.facts(),
            "notify": self._parts.messenger.conditions(),
        }

    def progress(self) -> tuple[int, int]:
        """Jobs ended since the start, and those plus what is known to be left."""
        done = self._tally.completed + self._tally.failed
        return done, done + self._parts.dispatcher.backlog()

    # -- start -------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        parts = self._parts
        if parts.monitor is not None:
            parts.monitor.start()
        parts.pool.start()
        parts.dispatcher.fill()
        parts.control.start()
        for number, worker in enumerate(parts.workers):
            self._spawn(f"worker-{number}", worker.run)
        self._spawn("endings", parts.endings.run)
        for number in range(HANDS):
            self._spawn(f"janitor-{number}", parts.janitor.run)
        self._spawn("control", parts.control.run)
        if parts.monitor is not None:
            self._spawn("monitor", parts.monitor.run)
        for line in parts.messenger.lines:
            self._spawn(f"notify-{line.name}", line.run)
        for post in parts.roster.posts():
            self._begin(post)

    def _spawn(self, name: str, work: Callable[[], None], until: threading.Event | None = None) -> threading.Thread:
        """Begin a thread that is to last until the stop, or until this event."""

        def body() -> None:
            try:
                work()
            except BaseException as error:
                self._crash = self._crash or error
                self._log.error("thread died", thread=name, error=repr(error), exc_info=True)
                self._calls.put(None)
            else:
                if until is not None and until.is_set():
                    self._threads.remove(thread)

        thread = threading.Thread(target=body, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _begin(self, post: Post) -> None:
        """Serve a watch: a thread that discovers, and one that probes, which may take as long as a network does."""
        name = post.route.watch.name
        self._posted[id(post)] = [
            self._spawn(f"health-{name}", partial(self._check_health, post), post.stop),
            self._spawn(f"discovery-{name}", post.discovery.run, post.stop),
        ]

    def _end(self, posts: Sequence[Post]) -> None:
        """Serve these no longer. What they were just doing is waited for, but not for ever."""
        for post in posts:
            post.stop.set()
        deadline = time.monotonic() + STOP_AT_ONCE_SECONDS
        for post in posts:
            for thread in self._posted.pop(id(post)):
                thread.join(max(0.0, deadline - time.monotonic()))

    def _check_health(self, post: Post) -> None:
        if post.route.sink.remote:
            post.sweep()
        while not post.stop.wait(HEALTH_CHECK_SECONDS):
            post.health.check_recovery()
            if not post.health.sick:
                post.manifests.look(post.stop.is_set)

    # -- run ---------------------------------------------------------------------------------------------------

    def _watch_over(self, tick: Callable[[], None]) -> int:
        parts = self._parts
        once = Once(parts.roster, parts.dispatcher, parts.janitor, self._tally, self._log)
        suspects_released = False
        while True:
            self._raise_if_broken()
            if self._stops:
                return 1 if self._once else 0
            if self._hang_ups:
                self._hang_ups = 0
                self._reload()
            if not suspects_released and all(post.discovery.has_seen_all() for post in self._parts.roster.posts()):
                suspects_released = True
                self._parts.dispatcher.release_suspects()
            tick()
            if self._once and (exit_code := once.exit_code()) is not None:
                return exit_code if self._complete_batches() else 1
            if self._once:
                self._await_call(ONCE_LOOK_SECONDS)
            else:
                self._await_call(LOOK_SECONDS if suspects_released else STARTING_LOOK_SECONDS)

    def _complete_batches(self) -> bool:
        """Those that earlier runs with `once` had no time to see complete. False where the surroundings are sick."""
        well = [post for post in self._parts.roster.posts() if not post.health.sick]
        for post in well:
            post.manifests.finish(lambda: self._stops > 0, post.health.blames_environment)
        return not any(post.health.sick for post in well)

    def _await_call(self, seconds: float) -> None:
        with suppress(Empty):
            self._calls.get(timeout=seconds)

    def _reload(self) -> None:
        with self._parts.service.reloading():
            change = self._parts.reload()
            if change is not None:
                self._end(change.ended)
                for post in change.begun:
                    self._begin(post)

    def _raise_if_broken(self) -> None:
        if self._crash is not None:
            if isinstance(self._crash, ConvertdError):
                raise self._crash
            raise FatalError(f"a part of convertd died: {self._crash!r}", "Nothing is lost; start it again.")
        if not self._parts.writer_alive():
            raise FatalError("the job table's writer died", "Nothing is lost; start it again.")
        self._parts.pool.raise_if_broken()
        for thread in list(self._threads):
            if not thread.is_alive() and thread in self._threads:
                raise FatalError(f"{thread.name} ended by itself", "Nothing is lost; start it again.")

    # -- stop --------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Let running conversions end within the deadline, then kill them; give their jobs back either way."""
        parts = self._parts
        parts.service.stopping()
        for post in parts.roster.posts():
            post.stop.set()
        parts.dispatcher.stop()
        parts.stops.slots.set()
        parts.stop_fetching()
        parts.janitor.stop()
        self._join(DRAIN_SECONDS, until=lambda: self._stops > 1)
        parts.stops.halt.set()
        parts.pool.kill()
        deadline = time.monotonic() + STOP_AT_ONCE_SECONDS  # for both: a service manager waits no longer than a minute
        self._join(STOP_AT_ONCE_SECONDS, until=lambda: False)
        parts.endings.close(max(0.0, deadline - time.monotonic()))
        parts.messenger.finish(TELL_SECONDS, hurry=lambda: self._stops > 1)
        parts.control.close()
        if parts.monitor is not None:
            parts.monitor.close()
        parts.jobs.release_all()
        parts.pool.close()

    def _join(self, seconds: float, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + seconds
        waiting = [thread for thread in list(self._threads) if not thread.name.startswith(OUTLASTING)]
        for thread in waiting:
            while thread.is_alive() and time.monotonic() < deadline and not until():
                thread.join(0.02)
