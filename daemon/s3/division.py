"""How a large object is divided among connections.

One reads it from its beginning. While that is not fast, because the network or the server gives each connection only so
much, more and more others take parts from its end, until all meet. So a fast network costs one request, and a slow one
no time: nothing has to be known about it beforehand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

FAST_BYTES_PER_SECOND = 100e6
"""Of one connection: where each gives that much, more of them would hardly give more."""

FIRST_LOOK_SECONDS = 0.003
STEP_SECONDS = 0.002
LOOK_SECONDS = 0.01
LATE = 2.0
PART_SECONDS = 0.25
SMALLEST_PART_BYTES = 2 << 20
LARGEST_FIRST_PART_BYTES = 16 << 20


@dataclass(slots=True)
class Span:
    """The bytes from `start` to `end` of an object, which one reader reads; those before `at` it has. `end` may come
    nearer at any time."""

    start: int
    end: int
    at: int = field(init=False)

    def __post_init__(self) -> None:
        self.at = self.start


class Division:
    """One object among at most `most` readers: the thread that runs it, and helpers from a pool.

    `read` fills a span; several threads call it at once. A pool that is busy costs time, and nothing else.
    """

    def __init__(self, size_bytes: int, most: int, read: Callable[[Span], None], pool: ThreadPoolExecutor) -> None:
        self._most = most
        self._read = read
        self._pool = pool
        self._lock = threading.Lock()
        self._first = Span(0, size_bytes)
        self._spans = [self._first]
        self._part_bytes = min(LARGEST_FIRST_PART_BYTES, -(-size_bytes // most))
        self._helpers: list[Future[None]] = []
        self._readers = 1
        self._over = threading.Event()  # nothing is left to be given out
        self._given_up = False

    def run(self) -> None:
        """Read all of it. Raises what `read` raises; either way nobody reads any more then."""
        self._call(self._watch)
        try:
            self._fill(self._first)
            self._over.set()
            for helper in self._begun():
                helper.result()
        except BaseException:
            self._give_up()
            raise
        finally:
            wait(self._begun())

    def _watch(self) -> None:
        """Have others help where that is called for, the one who watches among them."""
        more = self._helpers_wanted()
        if more:
            self._call(self._watch, *[self._help] * (more - 1))
            self._help()

    def _helpers_wanted(self) -> int:
        """Wait until more readers would help; says how many. 0: there is no need any more."""
        if self._readers == 1 and self._over.wait(FIRST_LOOK_SECONDS):
            return 0
        while self._readers < self._most:
            before, since = self._came_bytes(), time.monotonic()
            pause = LOOK_SECONDS if before else STEP_SECONDS
            if self._over.wait(pause):
                return 0
            took = time.monotonic() - since
            if took > LATE * pause:
                continue  # this machine is busy: how little came says nothing of the network
            if self._came_bytes() - before < self._readers * FAST_BYTES_PER_SECOND * took:
                more = min(self._readers, self._most - self._readers) if before else 1
                self._readers += more
                return more
        return 0

    def _help(self) -> None:
        """Read parts from the end until there are no more; how large they are goes by how long the last one took."""
        wanted_bytes = float(self._part_bytes)
        while (span := self._take(wanted_bytes)) is not None:
            since = time.monotonic()
            self._fill(span)
            wanted_bytes = (span.end - span.start) * PART_SECONDS / max(time.monotonic() - since, 1e-6)

    def _fill(self, span: Span) -> None:
        try:
            self._read(span)
        except BaseException:
            self._give_up()
            raise

    def _take(self, wanted_bytes: float) -> Span | None:
        with self._lock:
            left = self._first.end - self._first.at
            if self._given_up or left < 2 * SMALLEST_PART_BYTES:
                self._over.set()
                return None
            size_bytes = int(min(max(wanted_bytes, SMALLEST_PART_BYTES), left // 2))
            span = Span(self._first.end - size_bytes, self._first.end)
            self._first.end = span.start
            self._spans.append(span)
            return span

    def _give_up(self) -> None:
        """Have all readers end soon."""
        with self._lock:
            self._given_up = True
            for span in self._spans:
                span.end = 0
            self._over.set()

    def _call(self, *tasks: Callable[[], None]) -> None:
        with self._lock:
            if not self._over.is_set():
                self._helpers += [self._pool.submit(task) for task in tasks]

    def _begun(self) -> list[Future[None]]:
        """The helpers that have begun; those that have not never will. To be called once it is over."""
        with self._lock:
            return [helper for helper in self._helpers if not helper.cancel()]

    def _came_bytes(self) -> int:
        with self._lock:
            return sum(span.at - span.start for span in self._spans)
