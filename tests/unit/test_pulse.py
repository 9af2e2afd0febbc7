"""What feeds the watchdog, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from daemon.db import Writer
from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem
from daemon.pulse import Pulse
from tests.harness import until

PATIENCE = 0.2  # of a pulse that is to find nothing; one that finds something returns at once
LONG = 60.0


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(str(tmp_path / "convertd.db"))
    writer.start()
    yield writer
    writer.close()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(["a"], lambda watch, limit: [], lambda: 0.0, lambda: 0.0)
    yield dispatcher
    dispatcher.stop()


def well() -> None:
    """A disk that answers."""


def sick() -> None:
    raise EnvironmentProblem("no space left")


def held(writer: Writer) -> threading.Event:
    """Make the writer's thread stand still until the event is set."""
    release, begun = threading.Event(), threading.Event()

    def operation(connection: object) -> None:
        begun.set()
        release.wait(LONG)

    writer.post(operation)
    assert begun.wait(LONG)
    return release


def carried_out(writer: Writer) -> None:
    """All that was posted so far is."""
    before = writer.last_progress
    writer.call(lambda connection: None)
    until(lambda: writer.last_progress > before, "the writer says that it moved")


def test_a_healthy_daemon_beats(writer: Writer, dispatcher: Dispatcher) -> None:
    pulse = Pulse(writer, dispatcher, well)
    for _ in range(3):
        assert pulse.beats(LONG)
        carried_out(writer)


def test_a_writer_that_hangs_while_its_disk_is_well_is_no_beat(writer: Writer, dispatcher: Dispatcher) -> None:
    pulse = Pulse(writer, dispatcher, well)
    assert pulse.beats(LONG)
    carried_out(writer)
    release = held(writer)
    assert pulse.beats(LONG)  # asks; what it asks for is not carried out
    assert not pulse.beats(LONG)
    assert not pulse.beats(LONG)
    release.set()
    carried_out(writer)
    assert pulse.beats(LONG)


def test_a_writer_that_waits_for_a_disk_that_does_not_answer_is_not_to_blame(
    writer: Writer, dispatcher: Dispatcher
) -> None:
    mended = threading.Event()
    pulse = Pulse(writer, dispatcher, lambda: assert_set(mended))
    release = held(writer)
    assert pulse.beats(LONG)
    for _ in range(2):
        assert pulse.beats(PATIENCE)
        assert pulse.waits_for_disk
    assert [thread.name for thread in threading.enumerate()].count("disk-probe") == 1
    mended.set()
    release.set()
    carried_out(writer)
    assert pulse.beats(LONG)
    assert not pulse.waits_for_disk


def test_a_writer_on_a_disk_that_is_full_is_not_to_blame(writer: Writer, dispatcher: Dispatcher) -> None:
    pulse = Pulse(writer, dispatcher, sick)
    release = held(writer)
    assert pulse.beats(LONG)
    assert pulse.beats(LONG)
    assert pulse.waits_for_disk
    release.set()


def test_a_closed_job_table_is_no_beat(writer: Writer, dispatcher: Dispatcher) -> None:
    writer.close()
    assert not Pulse(writer, dispatcher, well).beats(LONG)


def test_a_dispatcher_whose_lock_is_never_given_back_is_no_beat(writer: Writer, dispatcher: Dispatcher) -> None:
    pulse = Pulse(writer, dispatcher, well)
    with InAnotherThread(dispatcher._changed.acquire, dispatcher._changed.release):
        assert not pulse.beats(PATIENCE)


def test_waiting_workers_are_seen_to_move(writer: Writer, dispatcher: Dispatcher) -> None:
    worker = threading.Thread(target=dispatcher.take, daemon=True)
    worker.start()
    until(lambda: dispatcher._waiting, "a worker waits")
    for turns in (1, 2, 3):
        assert dispatcher.moves(LONG)
        until(partial(turned, dispatcher, turns + 1), "the worker has looked for a job again")


def test_workers_that_wait_and_are_not_woken_are_no_beat(dispatcher: Dispatcher) -> None:
    dispatcher._waiting = 1  # who would wait so cannot be told from one that sleeps for ever
    assert dispatcher.moves(LONG)
    assert not dispatcher.moves(LONG)


def test_where_everybody_is_busy_nothing_needs_to_move(dispatcher: Dispatcher) -> None:
    assert all(dispatcher.moves(LONG) for _ in range(3))


def turned(dispatcher: Dispatcher, times: int) -> bool:
    return dispatcher._turns >= times


def assert_set(event: threading.Event) -> None:
    assert event.wait(LONG)


class InAnotherThread:
    """Something is begun in a thread, and ended in it afterwards: a lock belongs to who took it."""

    def __init__(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        self._begun, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(begin, end), daemon=True)

    def _run(self, begin: Callable[[], object], end: Callable[[], object]) -> None:
        begin()
        self._begun.set()
        self._over.wait(LONG)
        end()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._begun.wait(LONG)

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(LONG)
