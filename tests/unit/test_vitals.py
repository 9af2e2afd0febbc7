"""Whether the daemon works, for whoever asks just now."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.db import Connection, Writer
from daemon.dispatch import Dispatcher
from daemon.vitals import Vitals

PATIENCE_SECONDS = 0.2


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(str(tmp_path / "convertd.db"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    made = Dispatcher(["a"], lambda watch, limit: [], lambda: 0.0, lambda: 0.0)
    yield made
    made.stop()


def test_all_is_well(writer: Writer, dispatcher: Dispatcher) -> None:
    vitals = Vitals(writer, dispatcher)
    assert vitals.trouble() is None
    threads = [threading.Thread(target=dispatcher.take) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert [vitals.trouble() for _ in range(20)] == [None] * 20, "whoever waits for a job answers, as often as asked"
    dispatcher.stop()
    for thread in threads:
        thread.join(30)
    assert vitals.trouble() is None


def test_several_may_ask_at_once(writer: Writer, dispatcher: Dispatcher) -> None:
    vitals = Vitals(writer, dispatcher)
    waiting = threading.Thread(target=dispatcher.take)
    waiting.start()
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(vitals.trouble())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [None] * 8
    dispatcher.stop()
    waiting.join(30)


def test_a_writer_that_hangs(writer: Writer, dispatcher: Dispatcher) -> None:
    vitals = Vitals(writer, dispatcher, PATIENCE_SECONDS)
    begun, go = threading.Event(), threading.Event()

    def hang(connection: Connection) -> None:
        begun.set()
        go.wait(60)

    writer.post(hang)
    assert begun.wait(30)
    expected = "the job table's writer has carried out nothing for 0.2 s"
    assert [vitals.trouble() for _ in range(3)] == [expected] * 3
    go.set()
    writer.call(lambda connection: None)
    assert vitals.trouble() is None


def test_a_writer_that_is_gone(writer: Writer, dispatcher: Dispatcher) -> None:
    writer.close()
    assert Vitals(writer, dispatcher).trouble() == "the job table is closed"


def test_a_dispatcher_that_is_locked(writer: Writer, dispatcher: Dispatcher) -> None:
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        with dispatcher._changed:
            held.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    assert Vitals(writer, dispatcher, PATIENCE_SECONDS).trouble() == "the dispatcher has handed out nothing for 0.2 s"
    go.set()
    thread.join(30)


def test_a_dispatcher_that_is_locked_while_somebody_asks(
    writer: Writer, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He is not to wait for the lock without end, having had it once."""
    dispatcher._waiting = 1  # so that he looks more than once
    asking, go = threading.Event(), threading.Event()
    monkeypatch.setattr(dispatcher._changed, "notify_all", asking.set)
    told: list[str | None] = []

    def hold() -> None:
        assert asking.wait(30)
        with dispatcher._lock:
            go.wait(60)

    def ask() -> None:
        told.append(Vitals(writer, dispatcher, PATIENCE_SECONDS).trouble())

    threads = [threading.Thread(target=target) for target in (hold, ask)]
    for thread in threads:
        thread.start()
    threads[1].join(30)
    assert told == ["the dispatcher has handed out nothing for 0.2 s"]
    go.set()
    threads[0].join(30)


def test_nobody_who_waits_looks_for_a_job(writer: Writer, dispatcher: Dispatcher) -> None:
    dispatcher._waiting = 1  # one that was lost
    assert Vitals(writer, dispatcher, PATIENCE_SECONDS).trouble() == "the dispatcher has handed out nothing for 0.2 s"
