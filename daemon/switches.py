"""What operators have switched off, all watches or some: kept in the job table, so it outlives restarts."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.db import Connection, Readers, Writer
from daemon.errors import UsageError


@dataclass(frozen=True, slots=True)
class Paused:
    """Whether everything is paused, and the watches that are paused besides."""

    all: bool
    watches: frozenset[str]

    def holds(self, watch: str) -> bool:
        """Whether this watch is."""
        return self.all or watch in self.watches


class Switches:
    """All methods may be called from any thread; changes are durable on return."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def paused(self) -> Paused:
        """What is paused now."""
        (everything,) = self._readers.rows("SELECT paused FROM dispatch")[0]
        names = self._readers.rows("SELECT name FROM watches WHERE paused")
        return Paused(bool(everything), frozenset(row[0] for row in names))

    def pause(self, watch: str | None) -> None:
        """Pause one watch or, without a name, all, those to come included. Raises UsageError for an unknown one."""
        self._set(watch, 1)

    def resume(self, watch: str | None) -> None:
        """Lift the pause of one watch or, without a name, all there are. Raises UsageError for an unknown one."""
        self._set(watch, 0)

    def _set(self, watch: str | None, paused: int) -> None:
        def operation(db: Connection) -> bool:
            if watch is not None:
                db.execute("UPDATE watches SET paused = ? WHERE name = ?", (paused, watch))
                return db.changes() == 1
            db.execute("UPDATE dispatch SET paused = ?", (paused,))
            if not paused:
                db.execute("UPDATE watches SET paused = 0 WHERE paused")
            return True

        if not self._writer.call(operation):
            raise UsageError(f"there is no watch {watch}", "convertd status lists them.")
