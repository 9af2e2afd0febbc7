"""What operators have switched off, all watches or some: kept in the job table, so it outlives restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from daemon.db import Connection, Readers, Row, Writer
from daemon.errors import UsageError


class Paused(NamedTuple):
    """Whether everything is paused, and the watches that are paused besides."""

    all: bool
    watches: frozenset[str]

    def holds(self, watch: str) -> bool:
        """Whether this watch is."""
        return self.all or watch in self.watches

    def reason(self, watch: str) -> str | None:
        """By which command this watch is paused, for people; None where it is not."""
        if self.all:
            return "by `convertd pause` (go on: convertd resume)"
        return f"by `convertd pause {watch}` (go on: convertd resume {watch})" if watch in self.watches else None


def read(rows: Callable[[str], Iterable[Row]]) -> Paused:
    """What is paused, by the answers to queries on a job table; nothing where it is of before there were pauses."""
    if not any(rows("SELECT 1 FROM sqlite_master WHERE name = 'dispatch'")):
        return Paused(False, frozenset())
    everything = any(rows("SELECT 1 FROM dispatch WHERE paused"))
    return Paused(everything, frozenset(row[0] for row in rows("SELECT name FROM watches WHERE paused")))


class Switches:
    """All methods may be called from any thread; changes are durable on return."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    def paused(self) -> Paused:
        """What is paused now."""
        return read(self._readers.rows)

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
