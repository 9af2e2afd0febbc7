"""Where a fetched document lies until it is converted: in memory, or in the spool. Either way it is a descriptor.

What lies in memory is bounded over all workers by a budget; whoever does not fit waits its turn. Nothing has a name
in any folder, so a crash leaves nothing behind.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from daemon.errors import EnvironmentProblem, Stopped
from daemon.spool import room

LOOK_SECONDS = 0.25
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Payload:
    """Room for one document. `fd` is to be written by `os.pwrite` until `seal`, and only read after it."""

    def __init__(self, fd: int, *, in_memory: bool) -> None:
        self.fd = fd
        self.in_memory = in_memory

    def seal(self) -> None:
        """Nobody can change the document any more, not even a converter that was taken over."""
        if self.in_memory:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, SEALS)
            return
        readable = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(self.fd)
        self.fd = readable

    def close(self) -> None:
        """Give the room back. Call once."""
        os.close(self.fd)


class Budget:
    """So many bytes for all. Those that wait are served by order, none is overtaken by a smaller one."""

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = total_bytes
        self._changed = threading.Condition()
        self._waiting: list[tuple[tuple[float, int], int]] = []
        self._numbered = 0

    @contextmanager
    def reserved(self, size_bytes: int, order: tuple[float, int], stopped: Callable[[], bool]) -> Iterator[None]:
        """Hold so many bytes, at most the total. The lowest order goes first. Raises Stopped while waiting."""
        with self._changed:
            self._numbered += 1
            ticket = (order, self._numbered)
            heapq.heappush(self._waiting, ticket)
            try:
                while self._waiting[0] != ticket or self._free_bytes < size_bytes:
                    if stopped():
                        raise Stopped("stopped while waiting for memory")
                    self._changed.wait(LOOK_SECONDS)
                self._free_bytes -= size_bytes
            finally:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()


class Payloads:
    """Makes room for documents that are fetched from elsewhere. Thread-safe.

    Up to `spool_above_bytes`, which must not exceed `in_flight_bytes`, a document lies in memory; a larger one in an
    unnamed file of the folder `spool`.
    """

    def __init__(
        self, spool: str, in_flight_bytes: int, spool_above_bytes: int, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self._spool = spool
        self._spool_above_bytes = spool_above_bytes
        self._budget = Budget(in_flight_bytes)
        self._stopped = stopped

    @contextmanager
    def new(self, size_bytes: int, order: tuple[float, int]) -> Iterator[Payload]:
        """Room for a document of exactly `size_bytes`, given back at the end.

        Waits for memory, the lowest `order` first. Raises Stopped, EnvironmentProblem where the spool's disk is full,
        and TransientError for its other errors.
        """
        if size_bytes <= self._spool_above_bytes:
            with self._budget.reserved(size_bytes, order, self._stopped):
                yield from _kept(_in_memory(size_bytes))
        else:
            yield from _kept(Payload(room(self._spool, size_bytes), in_memory=False))


def _kept(payload: Payload) -> Iterator[Payload]:
    try:
        yield payload
    finally:
        payload.close()


def _in_memory(size_bytes: int) -> Payload:
    try:
        fd = os.memfd_create("document", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size_bytes)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        hint = "Lower limits.in_flight, or raise the limit of memory or open files; convertd goes on by itself."
        message = f"no memory for a document of {size_bytes:,} bytes: {error.strerror}"
        raise EnvironmentProblem(message, hint, certain=True) from error
    return Payload(fd, in_memory=True)
