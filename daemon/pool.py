"""The pool of converter children: who may convert next, and what becomes of a child afterwards."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from daemon.converters import wire
from daemon.converters.base import Options
from daemon.converters.process import ChildGone, ChildProcess
from daemon.errors import DocumentError, Kind, Stopped, TransientError
from daemon.keeper import DIED_IDLE, Keeper, OnEvent
from daemon.model import Conversion, display
from daemon.turnstile import Turnstile

ATTEMPTS = 3
"""How many children a document is given, at most one of which has served others before."""
THREADS_LEFT = 4
"""How many threads documents may leave behind in a child."""
CANCELLED = "cancelled"
LONG_SERVICE = "long service"
EXPECTED = frozenset({CANCELLED, LONG_SERVICE})
"""Why a child is replaced with nothing being wrong."""
SPOILT = frozenset({Kind.CRASHED, Kind.OUT_OF_MEMORY})
"""What an earlier document may be the cause of, by the threads and the memory that it left behind."""


@dataclass(frozen=True)
class ChildSettings:
    """What children run with. `memory_bytes` bounds a child's address space, `rss_bytes` is the resident memory after
    a document above which it is replaced, `result_bytes` the largest Markdown accepted, `spool` the folder for
    large results; without one they are kept in memory."""

    options: Options
    memory_bytes: int
    documents_per_child: int = 500
    rss_bytes: int = 768 << 20
    result_bytes: int = 256 << 20
    spool: str = ""


class Slot:
    """The right to convert, held by one thread."""

    def __init__(self, convert: Callable[[int, str, float], Conversion]) -> None:
        self._convert = convert

    def convert(self, fd: int, name: str, timeout_seconds: float) -> Conversion:
        """Convert the document behind `fd`, which stays the caller's; its position does not matter.

        Takes `timeout_seconds` at most once a child is there, and as long again where the first child may have been
        spoilt by another document. Raises `DocumentError` for whatever the document did, `TransientError` if children
        die before they begin, `EnvironmentProblem` if none can be started, either if the spool cannot take the result,
        and `Stopped` after `ConverterPool.kill`.
        """
        return self._convert(fd, name, timeout_seconds)


class ConverterPool:
    """`size` converter children. All methods may be called from any thread.

    `on_event` hears of children that did not start or were replaced ("relieved" where nothing is wrong with that), and
    once of a sandbox that the kernel cannot close; it is called from the thread that found out.
    """

    def __init__(self, settings: ChildSettings, size: int, on_event: OnEvent) -> None:
        self._settings = settings
        self._on_event = on_event
        told = wire.Settings(settings.options, settings.memory_bytes, settings.result_bytes, os.getpid())
        self._keeper = Keeper(told, size, on_event, settings.spool)
        self._turnstile = Turnstile(size)
        self._lock = threading.Lock()
        self._work: dict[ChildProcess, tuple[str, float, int]] = {}  # the document, since when, for which job

    def start(self) -> None:
        """Start the children; returns at once."""
        self._keeper.start()

    @contextmanager
    def slot(
        self, order: tuple[float, int], stopped: Callable[[], bool], called_off: Callable[[], bool] = lambda: False
    ) -> Iterator[Slot]:
        """Wait for a slot, the lowest `order` first; its second part is the job's number.

        Raises `Stopped` soon after `stopped()`, `called_off()` or a `kill`; so does a conversion that was interrupted
        because of it. A document that has its slot is converted although `stopped()`: a stop drains; one that is
        called off is not. Raises `FatalError` where the thread that keeps the children has died.
        """

        def ended() -> bool:
            return self._keeper.stopping or stopped() or called_off()

        with self._turnstile.passed(order, ended):
            yield Slot(partial(self._convert, order[1], ended, called_off))

    def raise_if_broken(self) -> None:
        """Raise `FatalError` where the thread that keeps the children has died."""
        self._keeper.raise_if_dead()

    def probe(self) -> None:
        """Raise `EnvironmentProblem` while no children can be started. Does not wait."""
        self._keeper.probe()

    def interrupt(self, job_id: int) -> None:
        """End the child that converts for this job, if there is one; have those that wait look whether to go on."""
        with self._lock:
            children = [child for child, (_, _, number) in self._work.items() if number == job_id]
        for child in children:
            child.unfit = CANCELLED
            child.kill()
        self._turnstile.wake()

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
                name, since, job_id = work.get(child, ("", now, 0))
                children.append(
                    {
                        "pid": child.pid,
                        "state": state,
                        "documents": child.documents,
                        "job": job_id or None,
                        "name": display(os.fsencode(name)) or None,
                        "busy_seconds": round(now - since, 3),
                    }
                )
        return {"children": children, "restarts": self._keeper.restarts}

    def _convert(
        self,
        job_id: int,
        stopped: Callable[[], bool],
        called_off: Callable[[], bool],
        fd: int,
        name: str,
        timeout_seconds: float,
    ) -> Conversion:
        fresh = False
        for _ in range(ATTEMPTS):
            child = self._keeper.take(fresh=fresh)
            served = child.documents > 0
            with self._lock:
                self._work[child] = (name, time.monotonic(), job_id)
            try:
                if called_off():  # while it waited for a child: `interrupt` found nobody at work
                    raise Stopped("the conversion was stopped")
                return child.convert(fd, name, timeout_seconds)
            except ChildGone as error:
                if stopped():
                    raise Stopped("the conversion was stopped") from error
                child.unfit = child.unfit or DIED_IDLE
            except DocumentError as error:
                if stopped():
                    raise Stopped("the conversion was stopped") from error
                if not served or error.kind not in SPOILT:
                    raise
            except Exception as error:
                if stopped():
                    raise Stopped("the conversion was stopped") from error
                raise
            except BaseException:
                child.unfit = "interrupted"
                raise
            finally:
                self._give_back(child)
            fresh = True  # so that the verdict on a document is never owed to another one
        raise TransientError(Kind.INTERNAL, f"{ATTEMPTS} converters died before they began with the document")

    def _give_back(self, child: ChildProcess) -> None:
        with self._lock:
            del self._work[child]
        if not child.unfit and self._served_long(child):
            child.unfit = LONG_SERVICE
        reason = self._keeper.give_back(child)
        if reason and not self._keeper.stopping:
            event = "converter relieved" if reason in EXPECTED else "converter replaced"
            self._on_event(event, {"pid": child.pid, "reason": reason})

    def _served_long(self, child: ChildProcess) -> bool:
        before, now = child.footprint_when_ready, child.footprint()
        room_bytes = self._settings.memory_bytes - before.address_space_bytes
        return (
            child.documents >= self._settings.documents_per_child
            or now.resident_bytes > self._settings.rss_bytes
            or now.address_space_bytes - before.address_space_bytes > room_bytes // 2
            or now.threads > before.threads + THREADS_LEFT
        )
