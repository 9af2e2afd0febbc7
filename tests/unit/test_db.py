"""The writer: group commit, isolation of failing operations, migrations, no SQLITE_BUSY."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import apsw
import pytest

from daemon import db as database
from daemon.db import Connection, Readers, Writer, open_for_writing, reader
from daemon.errors import EnvironmentProblem, FatalError, UsageError
from daemon.inflow import Inflow
from daemon.schema import MIGRATIONS
from tests.harness import until


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "convertd.db")


@pytest.fixture
def writer(path: str) -> Iterator[Writer]:
    writer = Writer(path)
    yield writer
    writer.close()


def add(name: str) -> database.Operation[None]:
    def operation(db: Connection) -> None:
        db.execute("INSERT INTO watches (name, source, sink) VALUES (?, '', '')", (name,))

    return operation


def names(path: str) -> set[str]:
    with reader(path) as db:
        return {row[0] for row in db.execute("SELECT name FROM watches")}


def test_what_call_returned_for_is_visible_to_a_reader(path: str, writer: Writer) -> None:
    writer.start()
    writer.call(add("a"))
    assert names(path) == {"a"}


def test_operations_that_queue_up_share_one_commit(path: str, writer: Writer) -> None:
    for number in range(100):
        writer.post(add(str(number)))
    writer.start()
    writer.call(add("last"))
    assert len(names(path)) == 101
    assert writer.commits <= 2, "one for all that had queued up, one for the last"


def test_a_patient_operation_goes_with_the_next_one(path: str, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_inflow", Inflow(linger_seconds=60.0))
    writer.start()
    for number in range(10):
        writer.post(add(str(number)), patient=True)
    writer.call(add("last"))
    assert len(names(path)) == 11
    assert writer.commits == 1


def test_a_patient_operation_is_carried_out_though_nothing_comes(path: str, writer: Writer) -> None:
    writer.start()
    writer.post(add("a"), patient=True)
    until(lambda: names(path) == {"a"}, "it is carried out")


class Told:
    """Hears of an operation."""

    def __init__(self) -> None:
        self.heard: SimpleQueue[object] = SimpleQueue()

    def set_result(self, value: object) -> None:
        self.heard.put(value)

    def set_exception(self, error: BaseException) -> None:
        self.heard.put(error)


def test_who_hears_of_an_operation_hears_of_it_once_it_is_durable(path: str, writer: Writer) -> None:
    writer.start()
    good, bad = Told(), Told()

    def broken(db: Connection) -> None:
        raise ValueError("broken")

    writer.post(add("a"), good, patient=True)
    writer.post(broken, bad, patient=True)
    assert good.heard.get(timeout=30) is None
    assert names(path) == {"a"}
    assert isinstance(bad.heard.get(timeout=30), ValueError)


def test_who_hears_of_an_operation_hears_that_the_writer_has_died(path: str) -> None:
    writer = Writer(path)
    told = Told()

    def die(db: Connection) -> None:
        writer.post(add("a"), told)
        raise SystemExit

    writer.start()
    writer.post(die)
    assert isinstance(told.heard.get(timeout=30), FatalError)
    assert not writer.alive()


def test_a_failing_operation_does_not_take_its_batch_with_it(path: str, writer: Writer) -> None:
    writer.post(add("a"))

    def broken(db: Connection) -> None:
        db.execute("INSERT INTO watches (name, source, sink) VALUES ('half', '', '')")
        raise ValueError("broken")

    threads_result: list[BaseException] = []

    def caller() -> None:
        try:
            writer.call(broken)
        except ValueError as error:
            threads_result.append(error)

    thread = threading.Thread(target=caller)
    thread.start()
    writer.post(add("b"))
    writer.start()
    thread.join(10)
    writer.call(add("c"))
    assert names(path) == {"a", "b", "c"}
    assert [str(error) for error in threads_result] == ["broken"]


def test_an_error_that_was_heard_leaves_no_garbage(writer: Writer) -> None:
    raised: list[weakref.ref[Exception]] = []

    class Refused(Exception):
        def __init__(self) -> None:
            raised.append(weakref.ref(self))

    def fail(db: Connection) -> None:
        raise Refused

    writer.start()
    gc.disable()
    try:
        with suppress(Refused):
            writer.call(fail)
        writer.call(lambda db: None)  # by now its thread thinks of something else
        assert [ref() for ref in raised] == [None]
    finally:
        gc.enable()


def test_a_closed_writer_refuses(path: str) -> None:
    writer = Writer(path)
    writer.start()
    writer.close()
    with pytest.raises(FatalError):
        writer.call(add("late"))
    assert not writer.alive()


def test_close_carries_out_what_is_queued(path: str) -> None:
    writer = Writer(path)
    for number in range(1000):
        writer.post(add(str(number)))
    writer.start()
    writer.close()
    assert len(names(path)) == 1000


def test_a_closed_table_has_nothing_in_its_log_even_with_readers_about(path: str, writer: Writer) -> None:
    writer.start()
    readers = Readers(path)
    writer.call(add("a"))
    assert readers.rows("SELECT name FROM watches") == [("a",)]
    writer.close()
    assert Path(f"{path}-wal").stat().st_size == 0


def test_no_connection_holds_much_of_a_large_table(path: str, writer: Writer) -> None:
    writer.start()
    assert Readers(path).rows("PRAGMA cache_size") == [(-256,)]
    assert writer.call(lambda db: list(db.execute("PRAGMA cache_size"))) == [(-1024,)]


def test_writers_and_readers_never_meet_a_busy_database(path: str, writer: Writer) -> None:
    writer.start()
    failures: list[BaseException] = []

    def write(prefix: str) -> None:
        try:
            for number in range(200):
                writer.call(add(f"{prefix}-{number}"))
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        readers = Readers(path)
        try:
            while any(thread.is_alive() for thread in writing):
                readers.rows("SELECT count(*) FROM watches")
                names(path)
        except BaseException as error:
            failures.append(error)

    writing = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    reading = [threading.Thread(target=read) for _ in range(2)]
    for thread in writing + reading:
        thread.start()
    for thread in writing + reading:
        thread.join(60)
    assert failures == []
    assert len(names(path)) == 800


def test_a_table_of_a_newer_layout_is_refused(path: str) -> None:
    open_for_writing(path).close()
    newer = apsw.Connection(path)
    newer.pragma("user_version", 99)
    newer.pragma("journal_mode", "delete")
    newer.close()
    before = Path(path).read_bytes()
    with pytest.raises(UsageError, match="newer convertd"):
        Writer(path)
    with pytest.raises(UsageError, match="newer convertd"), reader(path):
        pass
    assert Path(path).read_bytes() == before


def test_an_older_table_is_migrated_and_its_backup_opens(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Writer(path)
    old.start()
    old.call(add("kept"))
    old.close()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE watches ADD COLUMN note TEXT"))
    writer = Writer(path)
    writer.close()
    with reader(path) as db:
        assert list(db.execute("SELECT name, note FROM watches")) == [("kept", None)]
    monkeypatch.undo()
    with reader(f"{path}.v{len(MIGRATIONS)}.bak") as db:
        assert list(db.execute("SELECT name FROM watches")) == [("kept",)]


def test_an_older_table_is_not_looked_at_before_it_is_migrated(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_for_writing(path).close()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE watches ADD COLUMN note TEXT"))
    with pytest.raises(UsageError, match="older convertd"), reader(path):
        pass


def test_a_table_that_is_only_about_to_be_made_is_none_yet(path: str) -> None:
    apsw.Connection(path).close()
    Path(path).touch()
    with pytest.raises(FileNotFoundError), reader(path):
        pass


def test_a_backup_that_a_kill_has_torn_is_made_anew(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_for_writing(path).close()
    backup = f"{path}.v{len(MIGRATIONS)}.bak"
    Path(f"{backup}.tmp").write_bytes(b"torn" * 1000)
    Path(f"{backup}.tmp-journal").write_bytes(b"torn" * 1000)
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE watches ADD COLUMN note TEXT"))
    open_for_writing(path).close()
    copy = apsw.Connection(backup)
    assert copy.pragma("integrity_check") == "ok"
    copy.close()
    assert [name.name for name in Path(path).parent.glob("*.tmp*")] == []


def test_no_room_for_the_backup_changes_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_for_writing(path).close()
    before = Path(path).read_bytes()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE watches ADD COLUMN note TEXT"))

    def full(label: str) -> None:
        if label == "backup written":
            raise apsw.FullError("FullError: database or disk is full")

    with pytest.raises(EnvironmentProblem, match="cannot be brought up to date") as refused:
        Writer(path, full)
    assert "as it was" in refused.value.message
    assert Path(path).read_bytes() == before
    assert [file.name for file in Path(path).parent.iterdir()] == ["convertd.db"]


def test_a_failed_migration_leaves_the_old_table(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_for_writing(path).close()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "ALTER TABLE watches ADD COLUMN a; BROKEN SQL"))
    with pytest.raises(FatalError):
        Writer(path)
    monkeypatch.undo()
    writer = Writer(path)
    writer.close()
    with reader(path) as db:
        assert db.pragma("user_version") == len(MIGRATIONS)


def test_a_damaged_table_is_named(path: str) -> None:
    Path(path).write_bytes(b"this is no database" * 1000)
    with pytest.raises(FatalError, match="damaged"):
        Writer(path)
