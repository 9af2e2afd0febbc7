"""Queues on SQLite that the job table is compared with, each used as its documentation says, every commit durable.

None of them is watched by anybody meanwhile, and the tables are simpler than convertd's: no history, no counters.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Protocol

TIMEOUT_SECONDS = 60.0
PAGE = 512
"""As many as convertd's discovery enqueues at once."""


class Queue(Protocol):
    """What is compared. `take` and `finish` may be called from many threads, each of which calls `connect` before the
    clock starts. Once `settle` returns, within the clock, all that is finished is durable."""

    def connect(self) -> None: ...
    def put(self, count: int) -> None: ...
    def take(self) -> Any: ...
    def finish(self, taken: Any) -> None: ...
    def settle(self) -> None: ...


class Prompt:
    """What is finished is durable at once."""

    def settle(self) -> None:
        """Nothing is left to wait for."""


class PerThread(Prompt):
    """One sqlite3 connection a thread: WAL, synchronous=FULL, a page enqueued in one transaction, one transaction a
    claim and one a completion."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "queue.db")
        self._local = threading.local()
        self._connection().execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, source TEXT NOT NULL, state TEXT NOT NULL, finished_at REAL)"
        )
        self._connection().execute("CREATE INDEX pending ON jobs (id) WHERE state = 'pending'")

    def connect(self) -> None:
        self._connection()

    def put(self, count: int) -> None:
        connection = self._connection()
        for start in range(0, count, PAGE):
            rows = [(f"folder/document-{name:07}.pdf",) for name in range(start, min(start + PAGE, count))]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO jobs (source, state) VALUES (?, 'pending')", rows)
            connection.execute("COMMIT")

    def take(self) -> int:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute(
            """UPDATE jobs SET state = 'processing'
               WHERE id = (SELECT id FROM jobs WHERE state = 'pending' ORDER BY id LIMIT 1) RETURNING id"""
        ).fetchall()
        connection.execute("COMMIT")
        return int(rows[0][0])

    def finish(self, taken: int) -> None:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE jobs SET state = 'completed', finished_at = 1.0 WHERE id = ?", (taken,))
        connection.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self._path, timeout=TIMEOUT_SECONDS, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._local.connection = connection
        return connection


class Huey(Prompt):
    """SqliteHuey, fsync=True (synchronous=FULL); a task is gone once it is taken, its result is stored."""

    def __init__(self, folder: str) -> None:
        from huey import SqliteHuey

        self._huey = SqliteHuey(filename=os.path.join(folder, "huey.db"), fsync=True, timeout=TIMEOUT_SECONDS)

        @self._huey.task()  # type: ignore[untyped-decorator]
        def convert(number: int) -> int:
            return number

        self._task = convert

    def connect(self) -> None:
        self._huey.storage.queue_size()  # one connection for all threads, opened at the first use

    def put(self, count: int) -> None:
        for number in range(count):
            self._huey.enqueue(self._task.s(number))

    def take(self) -> Any:
        return self._huey.dequeue()

    def finish(self, taken: Any) -> None:
        self._huey.execute(taken)


class PersistQueue(Prompt):
    """persist-queue's SQLiteAckQueue for many threads. It leaves synchronous to SQLite, where FULL is what most builds
    have, and all have here. Each get says after which job it wants the next: else the library looks through all that
    are done, the more of them the longer."""

    def __init__(self, folder: str) -> None:
        import persistqueue

        self._queue = persistqueue.SQLiteAckQueue(
            os.path.join(folder, "persist"), multithreading=True, timeout=TIMEOUT_SECONDS
        )
        self._queue._putter.execute("PRAGMA synchronous = FULL")
        self._last: int | None = None

    def connect(self) -> None:
        pass  # its connections are open

    def put(self, count: int) -> None:
        for number in range(count):
            self._queue.put(number)

    def take(self) -> int:
        last = self._last
        got = self._queue.get(block=False, id=last, next_in_order=last is not None, raw=True)
        self._last = int(got["pqid"])
        return self._last

    def finish(self, taken: int) -> None:
        self._queue.ack(id=taken)


class LiteQueue(Prompt):
    """litequeue, one queue object a thread. It has no durable mode: it sets synchronous=NORMAL, which is put back to
    FULL here. A page is enqueued in one transaction."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, "lite.db")
        self._local = threading.local()
        self._queue()

    def connect(self) -> None:
        self._queue()

    def put(self, count: int) -> None:
        queue = self._queue()
        for start in range(0, count, PAGE):
            with queue.transaction(mode="IMMEDIATE"):
                for number in range(start, min(start + PAGE, count)):
                    queue.put(str(number))

    def take(self) -> str:
        return str(self._queue().pop().message_id)

    def finish(self, taken: str) -> None:
        self._queue().done(taken)

    def _queue(self) -> Any:
        queue = getattr(self._local, "queue", None)
        if queue is None:
            import litequeue

            queue = self._local.queue = litequeue.LiteQueue(self._path, timeout=TIMEOUT_SECONDS)
            queue.conn.execute("PRAGMA synchronous = FULL")
        return queue


PEERS: dict[str, Callable[[str], Queue]] = {
    "a sqlite3 connection per thread": PerThread,
    "huey": Huey,
    "persist-queue": PersistQueue,
    "litequeue": LiteQueue,
}
