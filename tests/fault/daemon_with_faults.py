"""`convertd` that kills itself: the N-th time it reaches the fault point CONVERTD_DIE_AT, or never if N is 0.

CONVERTD_DIE_AT is LABEL:N. SIGKILL leaves no chance to tidy up, like a power cut that spares the page cache.
"""

from __future__ import annotations

import functools
import os
import signal
import threading

from daemon import app, cli


class DieAt:
    """A fault hook for `daemon.app.running`. Thread-safe."""

    def __init__(self, label: str, times: int) -> None:
        self._label = label
        self._left = times
        self._lock = threading.Lock()

    def __call__(self, label: str) -> None:
        if label == self._label:
            with self._lock:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    label, _, times = os.environ["CONVERTD_DIE_AT"].rpartition(":")
    app.running = functools.partial(app.running, fault=DieAt(label, int(times)))
    cli.main()


if __name__ == "__main__":
    main()
