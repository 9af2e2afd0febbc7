"""The commit that makes a job `completed`, which its worker need not wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from daemon.db import Connection, Writer
from daemon.errors import EnvironmentProblem
from daemon.jobs import documents, ending
from daemon.meters import Meter
from daemon.model import Conversion, Job, State
from daemon.outbox import Outbox

T = TypeVar("T")


class Completion:
    """Made by `JobTable.completion`; one of `record` and `record_later` is called first.

    Holds nothing of the document, so that many may be under way. There is one for every job: it is one small object,
    and no closures.
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_engines",
        "_error",
        "_event",
        "_job",
        "_meter",
        "_news",
        "_outbox",
        "_sha256",
        "_then",
        "_values",
        "_writer",
    )

    def __init__(
        self,
        writer: Writer,
        outbox: Outbox,
        meter: Meter,
        job: Job,
        conversion: Conversion,
        values: ending.Values,
        event: str | None,
    ) -> None:
        self._writer = writer
        self._outbox = outbox
        self._meter = meter
        self._job = job
        self._sha256 = conversion.sha256
        self._engines = conversion.engine, conversion.first_engine
        self._values = values
        self._event = event
        self._then: Callable[[Any], None] | None = None
        self._news: Any = None
        self._error: BaseException | None = None
        self._changed = False

    def record(self) -> bool:
        """Durable on return. False where the row was no longer processing. Raises what `Writer.call` raises."""
        return self._told(self._writer.call(self._carry_out))

    def record_later(self, then: Callable[[T], None], news: T) -> None:
        """Have it recorded soon. `then` is called with `news` when it is durable or has failed, in the writer's thread,
        which it must not hold up; `outcome` tells which."""
        self._then, self._news = then, news
        self._writer.post(self._carry_out, self, patient=True)

    def outcome(self) -> bool:
        """What `record` would have returned or raised. For after `then`, which may be long ago: what a sick disk has
        refused is recorded anew, each time that this is called."""
        if isinstance(self._error, EnvironmentProblem):
            return self.record()
        if self._error is not None:
            raise self._error
        return self._told(self._changed)

    def set_result(self, value: bool) -> None:
        self._changed = value
        self._call_back()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._call_back()

    def _carry_out(self, db: Connection) -> bool:
        changed = ending.complete(db, self._job, self._values)
        if changed:
            documents.converted(db, self._job, self._sha256)
            self._outbox.record(db, self._event)
        return changed

    def _told(self, changed: bool) -> bool:
        if changed:
            tell(self._meter, self._outbox, self._job, State.COMPLETED, self._event)
            self._meter.converted(*self._engines)
        return changed

    def _call_back(self) -> None:
        """Once, and then forget whom: he holds this, and both would wait for the garbage collector."""
        then, news = self._then, self._news
        self._then = self._news = None
        assert then is not None
        then(news)


def tell(meter: Meter, outbox: Outbox, job: Job, outcome: str, event: str | None) -> None:
    """Whoever counts or waits for news hears of the end of a job, now that it is durable."""
    meter.ended(job.watch, outcome)
    if event is not None:
        outbox.announce()
