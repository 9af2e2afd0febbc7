"""The commit that makes a job `completed`, which its worker need not wait for."""

from __future__ import annotations

from collections.abc import Callable

from daemon.db import Operation, Writer
from daemon.errors import EnvironmentProblem


class Completion:
    """Made by `JobTable.completion`; one of `record` and `record_later` is called first.

    Holds nothing of the document, so that many may be under way.
    """

    def __init__(self, writer: Writer, operation: Operation[bool], told: Callable[[bool], bool]) -> None:
        self._writer = writer
        self._operation = operation
        self._told = told
        self._then: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._changed = False

    def record(self) -> bool:
        """Durable on return. False where the row was no longer processing. Raises what `Writer.call` raises."""
        return self._told(self._writer.call(self._operation))

    def record_later(self, then: Callable[[], None]) -> None:
        """Have it recorded soon. `then` is called when it is durable or has failed, in the writer's thread, which it
        must not hold up; `outcome` tells which."""
        self._then = then
        self._writer.post(self._operation, self, patient=True)

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

    def _call_back(self) -> None:
        """Once, and then forget whom: he holds this, and both would wait for the garbage collector."""
        then, self._then = self._then, None
        assert then is not None
        then()
