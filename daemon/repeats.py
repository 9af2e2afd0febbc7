"""Keeps what goes wrong a thousand times a minute from filling the log: repeats are counted instead of written.

A line is a repeat if the event, the watch or target and the error are those of an earlier line. The first is written,
what follows within `WINDOW_SECONDS` is counted, and then one line says how often. Lines without an error, and the one
line that each document gets at its end, always pass.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WINDOW_SECONDS = 60.0
MOST_KINDS = 1000
"""Of lines remembered at once."""
ONE_EACH = frozenset({"converted", "failed"})

Values = dict[str, Any]
Write = Callable[[str, str, Values], None]
Timer = Callable[[float, Callable[[], None]], None]


@dataclass
class _Kind:
    level: str
    event: str
    values: Values
    until: float
    repeats: int = 0


class Repeats:
    """Thread-safe. `write(level, event, values)` writes the line that says how often; it must not come back here."""

    def __init__(
        self,
        write: Write,
        monotonic: Callable[[], float] = time.monotonic,
        later: Timer | None = None,
    ) -> None:
        self._write = write
        self._monotonic = monotonic
        self._later = later or _later
        self._lock = threading.Lock()
        self._kinds: dict[tuple[Any, ...], _Kind] = {}
        self._awaited = False

    def is_new(self, level: str, event: str, values: Values) -> bool:
        """Whether the line is to be written; else it has been counted."""
        error = values.get("error", values.get("reason"))
        if error is None or event in ONE_EACH:
            return True
        key = (level, event, values.get("watch"), values.get("target"), str(error))
        with self._lock:
            over = self._over()
            kind = self._kinds.get(key)
            if kind is not None:
                kind.repeats += 1
                self._await()
            else:
                same: Values = {name: values[name] for name in ("watch", "target", "error", "reason") if name in values}
                self._kinds[key] = _Kind(level, event, same, self._monotonic() + WINDOW_SECONDS)
        self._say(over)
        return kind is None

    def flush(self) -> None:
        """Say how often, of those whose time is over."""
        with self._lock:
            self._awaited = False
            over = self._over()
            if any(kind.repeats for kind in self._kinds.values()):
                self._await()
        self._say(over)

    def _say(self, over: list[_Kind]) -> None:
        for kind in over:
            times = f"{kind.repeats} time{'' if kind.repeats == 1 else 's'}"
            self._write(kind.level, f"{kind.event} (repeated {times})", kind.values)

    # Called with the lock held.

    def _over(self) -> list[_Kind]:
        """Forget the oldest: those whose time is over, and what is too much. Returns those that have been repeated."""
        now, over = self._monotonic(), []
        while self._kinds:
            key = next(iter(self._kinds))
            if self._kinds[key].until > now and len(self._kinds) < MOST_KINDS:
                break
            kind = self._kinds.pop(key)
            if kind.repeats:
                over.append(kind)
        return over

    def _await(self) -> None:
        """Have `flush` called even if no line comes after this one."""
        if not self._awaited:
            self._awaited = True
            first = next(iter(self._kinds.values()))
            try:
                self._later(max(0.0, first.until - self._monotonic()) + 0.1, self.flush)
            except RuntimeError:  # no thread to be had: the next line that comes will do it, and no log is an error
                self._awaited = False


def _later(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.name, timer.daemon = "log-repeats", True
    timer.start()
