"""Whether the daemon works, for whoever asks just now (`/healthz`): the dispatcher and the job table's writer answer.

`daemon.pulse` asks the same for a watchdog, at steps of its own: it remembers what it saw, this remembers nothing.
"""

from __future__ import annotations

import threading

from daemon.db import Writer
from daemon.dispatch import Dispatcher
from daemon.errors import ConvertdError

PATIENCE_SECONDS = 5.0


class Vitals:
    """May be asked from any thread, by several at once. The questions cost no disk and hold up no work."""

    def __init__(self, writer: Writer, dispatcher: Dispatcher, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._writer = writer
        self._dispatcher = dispatcher
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._answered: threading.Event | None = None

    def trouble(self) -> str | None:
        """What does not work; None where all is well. Takes no longer than twice the patience."""
        if not self._dispatcher.answers(self._patience_seconds):
            return f"the dispatcher has handed out nothing for {self._patience_seconds:g} s"
        try:
            answered = self._question()
        except ConvertdError as error:
            return error.message
        if not answered.wait(self._patience_seconds):
            return f"the job table's writer has carried out nothing for {self._patience_seconds:g} s"
        return None

    def _question(self) -> threading.Event:
        """One for all who ask while it is not answered: what stands still must not fill up with questions."""
        with self._lock:
            if self._answered is None or self._answered.is_set():
                answered = self._answered = threading.Event()
                self._writer.post(lambda connection: answered.set())
            return self._answered
