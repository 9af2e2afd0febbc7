"""What the service manager hears of the daemon: that it is ready, what it does, that it lives, that it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from daemon.dispatch import Census
from daemon.errors import ConvertdError
from daemon.pulse import Pulse
from daemon.systemd import Notifier

STATUS_SECONDS = 5.0


class Service:
    """`ready`, `reloading` and `stopping` are called by the supervisor; two threads of its own do the rest.

    They are not among those that end the daemon when they end, and go on while it drains. What makes the status may
    wait for whatever is sick, so it has a thread apart from the one that feeds the watchdog.
    `watchdog_seconds` is how long the manager waits for a sign of life, None for ever; `status` makes a line for
    people, or raises ConvertdError where there is none to be had.
    """

    def __init__(
        self,
        notifier: Notifier,
        watchdog_seconds: float | None,
        pulse: Pulse,
        status: Callable[[], str],
    ) -> None:
        self._notifier = notifier
        self._beat_seconds = None if watchdog_seconds is None else watchdog_seconds / 2
        self._pulse = pulse
        self._status = status
        self._said = ""
        self._stopping = False

    def ready(self) -> None:
        """The daemon serves: tell, and go on telling."""
        if not self._notifier.present:
            return
        self._notifier.send(READY=1)
        _every(STATUS_SECONDS, self.tell, "service-status")
        if self._beat_seconds is not None:
            _every(self._beat_seconds, partial(self.feed, self._beat_seconds / 4), "service-watchdog")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Around the reading of the configuration."""
        self._notifier.send(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)
        try:
            yield
        finally:
            self._notifier.send(READY=1)

    def stopping(self) -> None:
        """The daemon drains."""
        self._stopping = True
        self._notifier.send(STOPPING=1, STATUS="stopping: running conversions are brought to their end")

    def feed(self, patience_seconds: float) -> None:
        """Feed the watchdog, if that is deserved."""
        if self._pulse.beats(patience_seconds):
            self._notifier.send(WATCHDOG=1)

    def tell(self) -> None:
        """Say what has changed."""
        try:
            line = self._status()
        except ConvertdError as error:
            line = error.message
        if self._pulse.waits_for_disk:
            line += "; state_dir does not answer"
        if line != self._said and not self._stopping:
            self._said = line
            self._notifier.send(STATUS=line)


def _every(seconds: float, act: Callable[[], None], name: str) -> None:
    """Do it now and then, in a thread, to the end of the process."""
    never = threading.Event()

    def run() -> None:
        while True:
            begun = time.monotonic()
            act()
            never.wait(max(0.0, begun + seconds - time.monotonic()))

    threading.Thread(target=run, name=name, daemon=True).start()


def status_line(live: Mapping[str, Any], census: Census) -> str:
    """What the daemon does, of `Supervisor.status`, in one line."""
    watches: Mapping[str, Mapping[str, Any]] = live["watches"]
    more = "+" if census.more else ""
    parts = [
        f"{len(watches)} watch{'' if len(watches) == 1 else 'es'}, {census.pending}{more} pending, "
        f"{census.running} processing, {live['documents_per_second']:.1f} documents/s"
    ]
    for name, watch in watches.items():
        if watch["state"] != "running":
            parts.append(f"{name} {watch['state']}" + (f": {watch['error']}" if watch["error"] else ""))
    return "; ".join(parts)
