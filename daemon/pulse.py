"""Whether the daemon's heart beats: what its service manager's watchdog is fed by.

Two things must move, or nothing does: the dispatcher and the job table's writer. Everything else may stand still for
good reasons: a source or a sink whose server does not answer is a watch that pauses, not a daemon to be restarted.
A writer that waits for its disk is no reason either: a restart mends no disk, and would wait for the same one. So a
writer that stands still is judged like a sick document: only if the disk itself is well is its thread to blame.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from daemon.db import Connection, Writer
from daemon.dispatch import Dispatcher
from daemon.errors import ConvertdError


class Pulse:
    """Asked again and again by one thread, at steps in which anything healthy has moved.

    `probe` writes to the job table's disk, and raises EnvironmentProblem where that is sick.
    """

    def __init__(
        self,
        writer: Writer,
        dispatcher: Dispatcher,
        probe: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._dispatcher = dispatcher
        self._probe = probe
        self._monotonic = monotonic
        self._asked_at: float | None = None
        self._probing: threading.Thread | None = None
        self._disk_is_well = False
        self.waits_for_disk = False
        """Whether the writer was last seen to wait for its disk."""

    def beats(self, patience_seconds: float) -> bool:
        """Whether both have moved since the last call. Takes no longer than twice the patience."""
        return self._dispatcher.moves(patience_seconds) and self._writes(patience_seconds)

    def _writes(self, patience_seconds: float) -> bool:
        if self._asked_at is not None and self._writer.last_progress < self._asked_at:
            self.waits_for_disk = self._disk_is_sick(patience_seconds)
            return self.waits_for_disk
        self.waits_for_disk = False
        self._asked_at = self._monotonic()
        try:
            self._writer.post(_nothing)
        except ConvertdError:  # it is closed, or dead, which the supervisor sees sooner
            return False
        return True

    def _disk_is_sick(self, patience_seconds: float) -> bool:
        """Ask the disk, in a thread, for it may never answer."""
        if self._probing is None or not self._probing.is_alive():
            self._disk_is_well = False
            self._probing = threading.Thread(target=self._try_disk, name="disk-probe", daemon=True)
            self._probing.start()
        self._probing.join(patience_seconds)
        return not self._disk_is_well

    def _try_disk(self) -> None:
        try:
            self._probe()
        except ConvertdError:
            return
        self._disk_is_well = True


def _nothing(connection: Connection) -> None:
    """An operation that costs no disk: only the thread that carries it out."""
