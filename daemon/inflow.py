"""What is on its way to the job table's writer, and when the writer is woken for it."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

BATCH = 256
PATIENT = 64
LINGER_SECONDS = 0.01
FOR_EVER = -1.0

T = TypeVar("T")


class Inflow(Generic[T]):
    """Items from any thread for one that takes them in batches, in the order in which they were put.

    An item wakes the taker at once, unless it is patient: nobody waits for it, so it goes with what comes next, or
    once it has waited `linger_seconds`, or when `PATIENT` items wait. That way a commit is shared by all that happens
    to a few documents, where each would have several of its own.
    """

    def __init__(self, linger_seconds: float = LINGER_SECONDS) -> None:
        self._linger_seconds = linger_seconds
        self._lock = threading.Lock()
        self._bell = threading.Lock()  # a semaphore of at most one: released by who rings, acquired by who is woken
        self._bell.acquire()
        self._rung = False
        self._items: list[T] = []
        self._hurry = False
        self._closed = False

    def put(self, item: T, *, patient: bool = False) -> None:
        """Hand an item over."""
        with self._lock:
            self._items.append(item)
            waiting = len(self._items)
            hurries = not self._hurry and (not patient or waiting >= PATIENT)
            self._hurry |= hurries
            if hurries or waiting == 1:
                self._ring()

    def close(self) -> None:
        """What has been put is still handed out, without lingering; then `take` returns None."""
        with self._lock:
            self._closed = self._hurry = True
            self._ring()

    def take(self) -> list[T] | None:
        """Wait for items; at most `BATCH` of them. None once closed and empty. For one thread."""
        while True:
            with self._lock:
                waiting, hurry = bool(self._items), self._hurry
            if not hurry:
                self._await_bell(self._linger_seconds if waiting else FOR_EVER)
                if not waiting:
                    continue
            batch = self._next_batch()
            if batch or self._closed:
                return batch or None

    def __len__(self) -> int:
        return len(self._items)

    def drain(self) -> list[T]:
        """All that is there, without waiting."""
        with self._lock:
            items, self._items = self._items, []
            return items

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._bell.release()

    def _await_bell(self, seconds: float) -> None:
        if self._bell.acquire(timeout=seconds):
            with self._lock:
                self._rung = False

    def _next_batch(self) -> list[T]:
        with self._lock:
            batch, self._items = self._items[:BATCH], self._items[BATCH:]
            self._hurry = bool(self._items) or self._closed
            return batch
