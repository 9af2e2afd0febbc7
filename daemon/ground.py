"""The ground that a configuration stands on: what its paths lead to, as far as that can be told in good time.

Whoever asks a mount whose server is gone is held up by the kernel, where neither a timeout nor a signal reaches. So it
is asked in a thread that can be left behind, and nobody waits there for long.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, NoReturn, TypeVar

T = TypeVar("T")

LEAST_SECONDS = 0.25
"""Enough for what is well to answer, on a busy machine too."""
FORGIVEN_SECONDS = 60.0
LONG_SECONDS = 5.0
"""The patience of who can do nothing for a watch without the answer: a disk that has slept gives one by then."""


class Patience:
    """Waits so long for the first that does not answer: each silence halves what the next one is worth, down to
    `LEAST_SECONDS`.

    So what is well is heard among many that are not. It is whole again a while after the last silence.
    """

    def __init__(self, seconds: float = 1.0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.next_seconds = self._whole_seconds = seconds
        """What the next silence would cost."""
        self._monotonic = monotonic
        self._silent_at = monotonic()
        self._asked: _Asked | None = None

    def answered(self, question: Callable[[], T], otherwise: T) -> T:
        """What the question is answered with in good time, or else `otherwise`. Raises what the question raises.

        Not to be called by two threads at once.
        """
        if self._monotonic() - self._silent_at > FORGIVEN_SECONDS:
            self.next_seconds = self._whole_seconds
        self._asked = asked = self._asked or _Asked()
        asked.questions.put(question)
        try:
            outcome = asked.outcomes.get(timeout=self.next_seconds)
        except Empty:
            self._asked = None
            self.next_seconds = max(self.next_seconds / 2, LEAST_SECONDS)
            self._silent_at = self._monotonic()
            return otherwise
        answer: T = outcome()
        return answer


class Look(NamedTuple):
    """What a path leads to. `real` is the path without symbolic links; where it is not `answered`, as it is named."""

    real: str
    is_folder: bool
    is_file: bool
    answered: bool = True


class Ground:
    """Where a configuration lies: relative paths are relative to `base`. Each path is looked at once.

    One that does not answer is taken as named, and for neither a folder nor a file.
    """

    def __init__(self, base: str, patience: Patience | None = None) -> None:
        self.base = base
        self._patience = patience or Patience()
        self._looks: dict[str, Look] = {}

    def look(self, path: str) -> Look:
        """What this absolute path leads to."""
        if path not in self._looks:
            self._looks[path] = self._patience.answered(partial(_look, path), Look(path, False, False, answered=False))
        return self._looks[path]

    def real(self, path: str) -> str:
        """This absolute path without symbolic links."""
        return self.look(path).real


def reach(path: str) -> str:
    """The path without symbolic links, once it answers.

    Asked from the top: to ask a dead mount for itself can be ended by SIGKILL; to ask it for a name that another
    process is asking it for cannot, and would keep this process from ending.
    """
    return os.path.realpath(path)


def answers(path: str) -> bool:
    """Always true, but of what lies on a dead mount: there it never returns."""
    real = reach(path)
    for place in (real, os.path.dirname(real)):
        with suppress(OSError):  # what a server that is gone has said of names is remembered for a while, but not this
            os.statvfs(place)
    return True


def is_mount_point(path: bytes) -> bool:
    """Whether something is mounted at this absolute path, by what the kernel knows: the mount itself is not asked."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounted = {re.sub(rb"\\([0-7]{3})", _unescaped, line.split(b" ", 5)[4]) for line in file}
    except OSError:  # no /proc here
        return False
    return path in mounted


def _unescaped(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])


def _look(path: str) -> Look:
    real = reach(path)
    is_folder = os.path.isdir(real)
    return Look(real, is_folder, not is_folder and os.path.exists(real))


class _Asked:
    """A thread that answers one question after the other, until this object is gone."""

    def __init__(self) -> None:
        self.questions: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.outcomes: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        threading.Thread(target=_answer, args=(self.questions, self.outcomes), name="asked", daemon=True).start()
        weakref.finalize(self, self.questions.put, None)


def _answer(questions: SimpleQueue[Callable[[], Any] | None], outcomes: SimpleQueue[Callable[[], Any]]) -> None:
    while (question := questions.get()) is not None:
        outcomes.put(_outcome(question))


def _outcome(question: Callable[[], Any]) -> Callable[[], Any]:
    """Gives the answer, or raises what the question did, in whatever thread it is called."""
    try:
        answer = question()
    except BaseException as error:
        return partial(_raise, error)
    return lambda: answer


def _raise(error: BaseException) -> NoReturn:
    raise error
