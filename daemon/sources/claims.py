"""Names that documents are just being moved to: two watches may have one target."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from daemon.errors import NotYet

AGAIN_SECONDS = 1.0


class Claims:
    """Which names are being looked at, and taken if they are free. One for all sources of a daemon; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[bytes] = set()

    @contextmanager
    def of(self, location: bytes) -> Iterator[None]:
        """Have this name to oneself. Raises NotYet where somebody else has it: a copy may take long, and whoever
        waited for its end could not dispose of anything else."""
        with self._lock:
            if location in self._claimed:
                raise NotYet("another document is just being moved to this name", AGAIN_SECONDS)
            self._claimed.add(location)
        try:
            yield
        finally:
            with self._lock:
                self._claimed.remove(location)
