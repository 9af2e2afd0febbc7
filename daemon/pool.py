"""The pool of converter children: who may convert next, and what becomes of a child afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from daemon.converters import wire
from daemon.converters.base import Options
from daemon.converters.process import ChildGone, ChildProcess
from daemon.errors import DocumentError, Kind, Stopped, TransientError
from daemon.keeper import Keeper, OnEvent
from daemon.model import Conversion, display
from daemon.turnstile import Turnstile

SPOILED = (Kind.CRASHED, Kind.OUT_OF_MEMORY, Kind.INTERNAL)
"""Verdicts that a document before may have brought about. Not a time-out: that one is not paid twice."""

ATTEMPTS = 5
"""How many children may die under one document before they have taken it."""


@dataclass(frozen=True)
class ChildSettings:
    """What children run with. `memory_bytes` bounds a child's address space, `rss_bytes` is the resident memory after
    a document above which it is replaced, `result_bytes` the largest Markdown accepted."""

    options: Options
    memory_bytes: int
    documents_per_child: int = 500
    rss_bytes: int = 768 << 20
    result_bytes: int = 256 << 20


class Slot:
    """The right to convert, held by one thread."""

    def __init__(self, convert: Callable[[int, str, float], Conversion]) -> None:
        self._convert = convert

    def convert(self, fd: int, name: str, timeout_seconds: float) -> Conversion:
        """Convert the document behind `fd`, which stays the caller's; its position does not matter.

        Takes `timeout_seconds` at most once a child is there. Raises `DocumentError` for whatever the document did,
        `EnvironmentProblem` if no child can be started, `Stopped` after `ConverterPool.kill`.
        """
        return self._convert(fd, name, timeout_seconds)


class ConverterPool:
    """`size` converter children. All methods may be called from any thread.

    `on_event` hears of children that did not start or were replaced for another reason than long service, and once
    of a sandbox that the kernel cannot close; it is called from the thread that found out.
    """

    def __init__(self, settings: ChildSettings, size: int, on_event: OnEvent) -> None:
        self._settings = settings
        self._on_event = on_event
        told = wire.Settings(settings.options, settings.memory_bytes, settings.result_bytes, os.getpid())
        self._keeper = Keeper(told, size, on_event)
        self._turnstile = Turnstile(size)
        self._lock = threading.Lock()
        self._work: dict[ChildProcess, tuple[str, float]] = {}  # the document and since when

    def start(self) -> None:
        """Start the children; returns at once."""
        self._keeper.start()

    @contextmanager
    def slot(self, order: tuple[int, int], stopped: Callable[[], bool]) -> Iterator[Slot]:
        """Wait for a slot, the lowest `order` first. Raises `Stopped` soon after `stopped()` or a `kill`."""
        with self._turnstile.passed(order, lambda: self._keeper.stopping or stopped()):
            yield Slot(self._convert)

    def kill(self) -> None:
        """End all children at once, and for good; conversions under way raise `Stopped`. Does not wait."""
        self._keeper.kill()
        self._turnstile.wake()

    def close(self) -> None:
        """End all children (they keep nothing worth waiting for) and reap them. Idempotent."""
        self.kill()
        self._keeper.close()

    def facts(self) -> dict[str, object]:
        """For `status`: the children, what they do for how long, and how many were replaced so far."""
        now = time.monotonic()
        with self._lock:
            work = dict(self._work)
        children = []
        for state, members in self._keeper.children().items():
            for child in members:
                name, since = work.get(child, ("", now))
                children.append(
                    {
                        "pid": child.pid,
                        "state": state,
                        "documents": child.documents,
                        "name": display(os.fsencode(name)) or None,
                        "busy_seconds": round(now - since, 3),
                    }
                )
        return {"children": children, "restarts": self._keeper.restarts}

    def _convert(self, fd: int, name: str, timeout_seconds: float) -> Conversion:
        doubt: DocumentError | None = None
        for _ in range(ATTEMPTS):
            child = self._keeper.take()
            if doubt is not None and child.documents:
                child.unfit = "a second opinion needs a fresh one"
                self._keeper.give_back(child)
                continue
            served = child.documents > 0
            with self._lock:
                self._work[child] = (name, time.monotonic())
            try:
                return child.convert(fd, name, timeout_seconds)
            except ChildGone:
                child.unfit = child.unfit or "died while idle"
            except DocumentError as error:
                if self._keeper.stopping:
                    raise Stopped("the conversion was stopped") from error
                if doubt is not None or not served or error.kind not in SPOILED:
                    raise
                doubt = error  # an earlier document may have spoilt the child: a fresh one decides
            except Exception as error:
                if self._keeper.stopping:
                    raise Stopped("the conversion was stopped") from error
                raise
            except BaseException:
                child.unfit = "interrupted"
                raise
            finally:
                self._give_back(child)
        raise doubt or TransientError(Kind.INTERNAL, f"{ATTEMPTS} converters died before they took the document")

    def _give_back(self, child: ChildProcess) -> None:
        with self._lock:
            del self._work[child]
        reason = child.unfit
        if not reason and self._served_long(child):
            child.unfit = "long service"
        self._keeper.give_back(child)
        if reason and not self._keeper.stopping:
            self._on_event("converter replaced", {"pid": child.pid, "reason": reason})

    def _served_long(self, child: ChildProcess) -> bool:
        return (
            child.documents >= self._settings.documents_per_child
            or child.resident_bytes() > self._settings.rss_bytes
            or child.lost_address_space()
        )
