"""What the service manager hears of the daemon: that it is ready, what it does, that it lives, that it stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from daemon.dispatch import Census
from daemon.pulse import Pulse
from daemon.systemd import Notifier

STATUS_SECONDS = 5.0


class Service:
    """`ready`, `reloading` and `stopping` are called by the supervisor; a thread of its own does the rest.

    The thread is not among those that end the daemon when they end: if it dies, the watchdog is fed no longer.
    It goes on while the daemon drains. `watchdog_seconds` is how long the manager waits for a sign of life, None for
    ever; `status` makes a line for people.
    """

    def __init__(
        self,
        notifier: Notifier,
        watchdog_seconds: float | None,
        pulse: Pulse,
        status: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier = notifier
        self._beat_seconds = None if watchdog_seconds is None else watchdog_seconds / 2
        self._pulse = pulse
        self._status = status
        self._monotonic = monotonic
        self._said = ""
        self._next_beat = 0.0
        self._stopping = False

    def ready(self) -> None:
        """The daemon serves: tell, and go on telling."""
        if self._notifier.present:
            self._notifier.send(READY=1)
            threading.Thread(target=self._run, name="service-manager", daemon=True).start()

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

    def look(self) -> None:
        """Say what has changed, and feed the watchdog if that is due and deserved."""
        now = self._monotonic()
        if self._beat_seconds is not None and now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            if self._pulse.beats(self._beat_seconds / 4):
                self._notifier.send(WATCHDOG=1)
        line = self._line()
        if line != self._said and not self._stopping:
            self._said = line
            self._notifier.send(STATUS=line)

    def _line(self) -> str:
        return f"{self._status()}{'; state_dir does not answer' if self._pulse.waits_for_disk else ''}"

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            self.look()
            pause.wait(self._pause_seconds())

    def _pause_seconds(self) -> float:
        if self._beat_seconds is None:
            return STATUS_SECONDS
        return max(0.0, min(STATUS_SECONDS, self._next_beat - self._monotonic()))


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
