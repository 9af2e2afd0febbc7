"""What is counted while the daemon works. `daemon.metrics` does it for Prometheus, `Unmetered` for nobody."""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Told of everything once. Safe to call from any thread; takes no time to speak of, and raises nothing."""

    def ended(self, watch: str, outcome: str) -> None:
        """A job has ended: its final state, or `unchanged` where it held what was converted before."""
        ...

    def staged(self, watch: str, stage: str, seconds: float) -> None:
        """A job was in a stage (fetch, convert, deliver) for so long, whatever became of it."""
        ...

    def read(self, watch: str, size_bytes: int) -> None:
        """A document of this size was fetched."""
        ...

    def converted(self, engine: str, first_engine: str) -> None:
        """An engine made the text of a document; `first_engine` is the one that was tried first."""
        ...

    def replaced(self, reason: str) -> None:
        """A converter was replaced, or did not start."""
        ...

    def committed(self, seconds: float) -> None:
        """The job table's writer took so long for one transaction."""
        ...

    def notified(self, target: str, delivered: bool) -> None:
        """An event was delivered to a target, or an attempt at it failed."""
        ...


class Unmetered:
    """Counts nothing."""

    def ended(self, watch: str, outcome: str) -> None:
        pass

    def staged(self, watch: str, stage: str, seconds: float) -> None:
        pass

    def read(self, watch: str, size_bytes: int) -> None:
        pass

    def converted(self, engine: str, first_engine: str) -> None:
        pass

    def replaced(self, reason: str) -> None:
        pass

    def committed(self, seconds: float) -> None:
        pass

    def notified(self, target: str, delivered: bool) -> None:
        pass


UNMETERED: Meter = Unmetered()
