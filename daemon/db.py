"""The only module that knows APSW: one writer thread with group commit, and short read-only connections.

All changes of the job table go through `Writer`: operations from any thread queue up (`daemon.inflow`), many of them
run in one transaction, and whoever asked for one hears of it after its COMMIT (WAL, synchronous=FULL: what was
acknowledged survives a power cut). As nobody else ever writes, SQLite never answers SQLITE_BUSY. Readers see committed
rows only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import apsw

from daemon import migration
from daemon.errors import ConvertdError, EnvironmentProblem, FatalError
from daemon.faults import Fault, no_fault
from daemon.inflow import Inflow
from daemon.meters import UNMETERED, Meter
from daemon.schema import MIGRATIONS

Connection = apsw.Connection
Row = tuple[Any, ...]
T = TypeVar("T")
Operation = Callable[[Connection], T]

BUSY_TIMEOUT_MS = 10_000
READER_CACHE_KIB, WRITER_CACHE_KIB = 256, 1024
"""There is a reader a thread, and each would come to hold 2 MB of a table that the system's cache has anyway."""
CLOSE_SECONDS = 10.0
_SICK_DISK = (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)


def translate(error: apsw.Error, path: str) -> ConvertdError:
    """An APSW error as one of ours: a sick disk is the environment's, a damaged file is fatal."""
    if isinstance(error, _SICK_DISK):
        return EnvironmentProblem(
            f"the job table {path} cannot be written: {error}",
            "Check free space and permissions of state_dir; convertd goes on by itself once it can write.",
        )
    if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):
        return FatalError(
            f"the job table {path} is damaged: {error}",
            "Move it away and start again: sources that are still there are converted anew; nothing else is lost.",
        )
    return FatalError(f"the job table {path} failed: {error}", "Report this with the log.")


class Hears(Protocol):
    """Whoever is told how an operation went, in the writer's thread, which must not be kept from its work."""

    def set_result(self, value: Any) -> None:
        """It is durable."""

    def set_exception(self, error: BaseException) -> None:
        """It failed, and nothing was changed."""


class Answer(Generic[T]):
    """What a caller waits for. (`concurrent.futures` does the same, and takes longer to import than a status.)"""

    __slots__ = ("_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._value: T | None = None

    def set_result(self, value: T) -> None:
        self._value = value
        self._done.set()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._done.set()

    def result(self) -> T:
        """Wait for it; raises what the operation raised. To be called once."""
        self._done.wait()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it knows this frame: what knows it here would wait for the garbage collector with it
        return self._value  # type: ignore[return-value]


class Entry(NamedTuple):
    """An operation, and who hears of it."""

    operation: Operation[Any]
    hears: Hears | None


class Writer:
    """The single read-write connection, owned by one thread.

    `call` and `post` may be used from any thread but the writer's own. After `close`, or once the thread has died,
    both raise FatalError; what was acknowledged stays. An operation must have no effect but on the connection: a
    batch in which one operation fails is rolled back and its operations are run again, each for itself.
    """

    def __init__(self, path: str, fault: Fault = no_fault, meter: Meter = UNMETERED) -> None:
        self._path = path
        self._fault = fault
        self._meter = meter
        self._inflow: Inflow[Entry] = Inflow()
        self._thread = threading.Thread(target=self._run, name="job-table-writer", daemon=True)
        self._closed = threading.Event()
        self._dead: BaseException | None = None
        self.commits = 0
        self.last_progress = time.monotonic()
        self._connection = open_for_writing(path, fault)

    def start(self) -> None:
        """Begin to carry out operations; those queued before wait until then."""
        self._thread.start()

    def call(self, operation: Operation[T]) -> T:
        """Run the operation and return its result once it is durable.

        Raises what the operation raised, EnvironmentProblem where the disk is sick (nothing was changed), and
        FatalError where the table cannot be used any more.
        """
        answer: Answer[T] = Answer()
        self._put(Entry(operation, answer))
        return answer.result()

    def post(self, operation: Operation[Any], hears: Hears | None = None, *, patient: bool = False) -> None:
        """Run the operation in the next batch, which a patient one waits for; an error nobody hears of is dropped.

        `hears` is told what `call` would return or raise.
        """
        self._put(Entry(operation, hears), patient=patient)

    def close(self) -> None:
        """Carry out what is queued, then close the connection. Idempotent. Waits no longer than `CLOSE_SECONDS`."""
        if not self._closed.is_set():
            self._closed.set()
            self._inflow.close()
        if self._thread.ident is not None:
            self._thread.join(timeout=CLOSE_SECONDS)
        else:
            self._connection.close()

    def alive(self) -> bool:
        """Whether operations are being carried out."""
        return self._thread.is_alive() and self._dead is None

    def _put(self, entry: Entry, *, patient: bool = False) -> None:
        if self._closed.is_set() or self._dead is not None:
            raise FatalError("the job table is closed", "")
        self._inflow.put(entry, patient=patient)
        if self._dead is not None:
            self._fail_waiting(self._dead)

    def _run(self) -> None:
        try:
            while (batch := self._inflow.take()) is not None:
                self._carry_out(batch)
                self.last_progress = time.monotonic()
            self._empty_log()
            self._connection.close()
            self._dead = FatalError("the job table is closed")
        except BaseException as error:
            self._dead = error
        finally:
            self._fail_waiting(self._dead)

    def _empty_log(self) -> None:
        """Readers that are still open keep the write-ahead log from being removed. Whoever puts a backup in the place
        of the table must not find it filled: SQLite would apply it to the backup."""
        self._connection.set_busy_timeout(0)
        with suppress(apsw.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _carry_out(self, batch: Sequence[Entry]) -> None:
        try:
            results = self._transact([entry.operation for entry in batch])
        except Exception as error:
            if len(batch) > 1:
                for entry in batch:
                    self._carry_out([entry])
            elif batch[0].hears is not None:
                batch[0].hears.set_exception(translate(error, self._path) if isinstance(error, apsw.Error) else error)
            return
        for entry, result in zip(batch, results, strict=True):
            if entry.hears is not None:
                entry.hears.set_result(result)

    def _transact(self, operations: list[Operation[Any]]) -> list[Any]:
        connection = self._connection
        began = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(connection) for operation in operations]
            self._fault("before-commit")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.commits += 1
        self._meter.committed(time.monotonic() - began)
        self._fault("after-commit")
        return results

    def _fail_waiting(self, error: BaseException | None) -> None:
        for entry in self._inflow.drain():
            if entry.hears is not None:
                entry.hears.set_exception(FatalError(f"the job table's writer has died: {error}", ""))


class Readers:
    """One read-only connection a thread, kept open, for the daemon's own frequent look-ups."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._local = threading.local()

    def rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[Row]:
        """All rows of a query on committed data."""
        try:
            return list(self._connection().execute(sql, bindings))
        except apsw.Error as error:
            raise translate(error, self._path) from error

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READONLY)
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.execute(f"PRAGMA cache_size = {-READER_CACHE_KIB}")
            self._local.connection = connection
        return connection


@contextmanager
def reader(path: str, *, any_layout: bool = False) -> Iterator[Connection]:
    """A short read-only connection on committed rows. Works beside a running writer.

    Raises FileNotFoundError where there is no table yet, UsageError where this user may not read it or where its
    layout is an older or a newer one, unless `any_layout` will do.
    """
    try:
        connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.CantOpenError as error:
        raise FileNotFoundError(path) from error
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if not any_layout:
            migration.refuse_newer(connection, path, len(MIGRATIONS))
            migration.refuse_older(connection, path, len(MIGRATIONS))
        yield connection
    except apsw.Error as error:
        raise translate(error, path) from error
    finally:
        connection.close()


def open_for_writing(path: str, fault: Fault = no_fault) -> Connection:
    """Open, create or migrate the job table.

    A table of an older version is copied to PATH.vN.bak first; a newer one is refused with UsageError.
    """
    try:
        connection = apsw.Connection(path)
    except apsw.Error as error:
        raise translate(error, path) from error
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        migration.refuse_newer(connection, path, len(MIGRATIONS))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = {-WRITER_CACHE_KIB}")
        _migrate(connection, path, fault)
    except apsw.Error as error:
        connection.close()
        raise translate(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: Connection, path: str, fault: Fault) -> None:
    try:
        migration.migrate(connection, path, MIGRATIONS, fault)
    except (OSError, *_SICK_DISK) as error:
        raise EnvironmentProblem(
            f"the job table {path} cannot be brought up to date, which takes room for a copy of it; it is as it was: "
            f"{error}",
            "Free space or mend the permissions of state_dir, and start again.",
        ) from error
