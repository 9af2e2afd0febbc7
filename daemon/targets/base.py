"""What a target of notifications is: somebody who is told of events, one after the other."""

from __future__ import annotations

from typing import Protocol

from daemon.outbox import Event


class Undelivered(Exception):
    """An event could not be delivered and is to be tried again. The text says why, and holds no secret."""


class Target(Protocol):
    """Used by one thread; `abort` may be called from any."""

    @property
    def address(self) -> str:
        """What it is known as to people. Holds no secret."""
        ...

    def deliver(self, event: Event) -> None:
        """Tell of one event; on return the target has taken it. Raises Undelivered, within a bounded time."""
        ...

    def abort(self) -> None:
        """End a delivery that is under way, and refuse those to come: they raise Undelivered."""
        ...

    def close(self) -> None:
        """Free what is kept between deliveries. Idempotent."""
        ...
