"""What the daemon under test is told while it runs: faults to meet, and how far its clock is off.

The campaign writes files into a control folder; a thread of the daemon reads them a few times a second. What has
happened is appended to other files there, one line each, so that a kill loses none of it.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REAL_TIME = time.time
LOOK_SECONDS = 0.03
DIE, WAIT = "die", "wait"
WAIT_SECONDS = 0.5
ARMED = "armed"


class Journal:
    """Lines appended to files of the control folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, file: str, text: str) -> None:
        """One line, there before this returns."""
        fd = os.open(self._folder / file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(fd, text.replace("\n", " ").encode() + b"\n")
        finally:
            os.close(fd)


class Clock:
    """The wall clock, put forward or back at will. To be installed before the daemon is imported."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self.jumps = 0

    def __call__(self) -> float:
        return REAL_TIME() + self.ahead_seconds

    def jump(self, ahead_seconds: float) -> None:
        """From now on it is so much ahead of the real one."""
        if ahead_seconds != self.ahead_seconds:
            self.ahead_seconds = ahead_seconds
            self.jumps += 1


class Faults:
    """A fault hook for `daemon.app.running`, which meets what is armed. Thread-safe.

    Which points are passed at all is noted in the journal, once each: one that nobody passes can be met by nobody.

    Armed are files, each called like its fault point: how many calls go well before, how many then meet the fault, and
    its kind: `die`, `wait`, the name of an errno, or the name of an APSW exception.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder = folder / ARMED
        self._folder.mkdir(exist_ok=True)
        self._journal = journal
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}
        self._armed: dict[str, dict[str, Any]] = {}
        self._passed: set[str] = set()

    def look(self) -> None:
        """See what is armed by now. What has been met in part stays so as long as its file is the same."""
        with self._lock:
            texts = {path.name: text for path in self._folder.iterdir() if (text := _text(path))}
            for label, text in texts.items():
                if self._texts.get(label) != text:
                    self._armed[label] = json.loads(text)
            self._armed = {label: armed for label, armed in self._armed.items() if label in texts}
            self._texts = texts

    def __call__(self, label: str) -> None:
        with self._lock:
            if label not in self._passed:
                self._passed.add(label)
                self._journal.add("passed", label)
            armed = self._armed.get(label)
            if armed is None:
                return
            if armed["skip"] > 0:
                armed["skip"] -= 1
                return
            armed["times"] -= 1
            if armed["times"] <= 0:
                del self._armed[label], self._texts[label]
                (self._folder / label).unlink(missing_ok=True)
            kind = armed["kind"]
            self._journal.add("fired", f"{kind} at {label}")
        if kind == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == WAIT:
            threading.Event().wait(WAIT_SECONDS)
        else:
            raise _error(kind)


def _text(path: Path) -> str:
    """Empty where it is gone again."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def _error(kind: str) -> Exception:
    if kind.startswith("E"):
        number = int(getattr(errno, kind))
        return OSError(number, os.strerror(number), "injected")
    import apsw

    error: Exception = getattr(apsw, kind)("injected")
    return error


def follow(folder: Path, clock: Clock, faults: Faults) -> None:
    """Begin to obey the files of the control folder; they are obeyed once before this returns."""

    def look() -> None:
        faults.look()
        try:
            clock.jump(float((folder / "clock").read_text()))
        except (FileNotFoundError, ValueError):
            clock.jump(0.0)

    def run() -> None:
        while not threading.Event().wait(LOOK_SECONDS):
            look()

    look()
    threading.Thread(target=run, name="chaos-control", daemon=True).start()


def step(owner: Any, name: str, label: str, fault: Callable[[str], None], *, after: bool = False) -> None:
    """Make a method or a function of the daemon a fault point, before or after it does its work."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def stepped(*args: Any, **kwargs: Any) -> Any:
        if not after:
            fault(label)
        result = original(*args, **kwargs)
        if after:
            fault(label)
        return result

    setattr(owner, name, stepped)
