"""Lets so many threads pass at a time, in order of precedence rather than of arrival."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from daemon.errors import Stopped

LOOK_SECONDS = 0.25


@dataclass(order=True)
class _Ticket:
    order: tuple[float, int]
    number: int
    changed: threading.Event = field(default_factory=threading.Event, compare=False)
    admitted: bool = field(default=False, compare=False)


class Turnstile:
    """`places` threads inside at most; of those that wait the lowest order goes first, among equals the earliest."""

    def __init__(self, places: int) -> None:
        self._lock = threading.Lock()
        self._free = places
        self._waiting: list[_Ticket] = []
        self._numbered = 0

    @contextmanager
    def passed(self, order: tuple[float, int], stopped: Callable[[], bool]) -> Iterator[None]:
        """Be inside for the duration of the context. Raises `Stopped` while waiting, at most 0.25 s late."""
        ticket = self._draw(order)
        try:
            while True:
                if stopped():
                    raise Stopped("stopped while waiting for a converter")
                if ticket.admitted:
                    break
                ticket.changed.wait(LOOK_SECONDS)
                ticket.changed.clear()
            yield
        finally:
            self._return(ticket)

    @property
    def waiting(self) -> int:
        """How many threads wait outside."""
        with self._lock:
            return len(self._waiting)

    def wake(self) -> None:
        """Have those that wait look at once whether they are stopped."""
        with self._lock:
            for ticket in self._waiting:
                ticket.changed.set()

    def _draw(self, order: tuple[float, int]) -> _Ticket:
        with self._lock:
            self._numbered += 1
            ticket = _Ticket(order, self._numbered)
            heapq.heappush(self._waiting, ticket)
            self._admit()
            return ticket

    def _return(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket.admitted:
                self._free += 1
                self._admit()
            else:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)

    def _admit(self) -> None:
        """Let in whose turn it is. Called with the lock held."""
        while self._free and self._waiting:
            ticket = heapq.heappop(self._waiting)
            self._free -= 1
            ticket.admitted = True
            ticket.changed.set()
