"""News for others, in the job table until they were delivered: recorded in the very transaction of what they tell.

Each target (the command, the webhook) gets every event in order and at its own pace: its row in `targets` says how far
it is. At most `LIMIT` events are kept. Past that the oldest are dropped, and counted for each target that missed them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.db import Connection, Readers, Writer

LIMIT = 100_000
LOOK_EVERY = 256
"""How many events are recorded between two looks at the limit."""
LAST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Event:
    """`payload` is JSON (`daemon.events`); `id` gives the order."""

    id: int
    payload: str


class Outbox:
    """All methods may be called from any thread, `record` only in an operation of the job table's writer."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        clock: Callable[[], float] = time.time,
        limit: int = LIMIT,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._clock = clock
        self._limit = limit
        self._targets: frozenset[str] = frozenset()
        self._heard: Callable[[], None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether there is anybody to be told; else no event need be made."""
        return bool(self._targets)

    def listen(self, heard: Callable[[], None]) -> None:
        """Have this called whenever there may be something to deliver."""
        self._heard = heard

    def record(self, db: Connection, payload: str | None) -> None:
        """Within an operation: this has happened (None: nothing has). Once it is durable, call `announce`."""
        if payload is None:
            return
        db.execute(
            "INSERT INTO events (created_at, payload) SELECT ?, ? WHERE EXISTS (SELECT 1 FROM targets)",
            (self._clock(), payload),
        )
        if db.changes() and (last := db.last_insert_rowid()) % LOOK_EVERY == 0:
            _drop(db, last - self._limit)

    def announce(self) -> None:
        """What was recorded is durable: it may be delivered."""
        self._heard()

    def join(self, target: str) -> int:
        """Keep events for this target from now on, or as before; returns the last event that it has got."""

        def operation(db: Connection) -> int:
            db.execute(
                """INSERT OR IGNORE INTO targets (name, delivered)
                   VALUES (?, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0))""",
                (target,),
            )
            return int(next(iter(db.execute("SELECT delivered FROM targets WHERE name = ?", (target,))))[0])

        delivered = self._writer.call(operation)
        self._targets |= {target}
        return delivered

    def leave(self, target: str) -> None:
        """Keep nothing for this target any more."""

        def operation(db: Connection) -> None:
            db.execute("DELETE FROM targets WHERE name = ?", (target,))
            _forget_delivered(db)

        self._writer.call(operation)
        self._targets -= {target}

    def after(self, event_id: int, limit: int) -> list[Event]:
        """The next events behind this one, in their order."""
        rows = self._readers.rows("SELECT id, payload FROM events WHERE id > ? ORDER BY id LIMIT ?", (event_id, limit))
        return [Event(*row) for row in rows]

    def delivered(self, target: str, event_id: int) -> None:
        """The target has got everything up to this event. Not durable on return: after a crash it may be told again."""

        def operation(db: Connection) -> None:
            db.execute(
                "UPDATE targets SET delivered = ? WHERE name = ? AND delivered < ?", (event_id, target, event_id)
            )
            _forget_delivered(db)

        self._writer.post(operation, patient=True)


def _drop(db: Connection, up_to: int) -> None:
    """Too much has gathered: whoever has not got these events never will."""
    db.execute(
        "UPDATE targets SET dropped = dropped + ? - delivered, delivered = ? WHERE delivered < ?", (up_to, up_to, up_to)
    )
    _forget_delivered(db)


def _forget_delivered(db: Connection) -> None:
    """Drop what nobody waits for."""
    db.execute("DELETE FROM events WHERE id <= coalesce((SELECT min(delivered) FROM targets), ?)", (LAST_ID,))
