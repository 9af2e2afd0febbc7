"""What a check finds out, and how it is asked to end early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """Only a problem keeps convertd from doing what its configuration says."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One line of `convertd doctor`. Whatever is not ok comes with a remedy: a command, or an edit."""

    level: Level
    what: str
    remedy: str = ""


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, what)


def warning(what: str, remedy: str) -> Finding:
    """It works, but not as well as it could, or not for ever."""
    return Finding(Level.WARNING, what, remedy)


def problem(what: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding(Level.PROBLEM, what, remedy)


class Stopping:
    """Set when nobody waits for a check any more. Checks may say what helps to end what they are just doing."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._interrupts: list[Callable[[], None]] = []

    def __call__(self) -> bool:
        """Whether to end: with the next step, and leaving nothing behind."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask for the end."""
        self._event.set()
        with self._lock:
            interrupts = list(self._interrupts)
        for interrupt in interrupts:
            interrupt()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """While this lasts, `interrupt` is called at the end; it may be called from any thread."""
        with self._lock:
            self._interrupts.append(interrupt)
        if self._event.is_set():
            interrupt()
        try:
            yield
        finally:
            with self._lock:
                self._interrupts.remove(interrupt)


Check = Callable[[Stopping], Iterator[Finding]]
"""Yields what it finds as it finds it, in a thread of its own. Takes what it needs when it is made."""


class Group(NamedTuple):
    """Checks that follow each other. They may take so many `seconds`; `remedy` is what helps where they take longer."""

    title: str
    check: Check
    seconds: float = 30.0
    remedy: str = "Look for a disk, a mount or a server that does not answer; then run convertd doctor again."
