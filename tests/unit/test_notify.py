"""Delivery: in order, until the target has taken it, and no target waits for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon import notify
from daemon.errors import EnvironmentProblem
from daemon.meters import UNMETERED
from daemon.notify import LONGEST_SECONDS, Line, Messenger
from daemon.outbox import Event
from daemon.settings import Notify
from daemon.targets.base import Undelivered
from tests.harness import until
from tests.unit.test_health import Lines
from tests.unit.test_outbox import Box

BOTH = Notify(command=("tell",), webhook="https://a.example/x")


class Told:
    """A target that remembers; `broken` says what it fails with, `held` keeps it from answering."""

    def __init__(self, name: str = "a") -> None:
        self.address = name
        self.payloads: list[str] = []
        self.attempts = 0
        self.broken: str | None = None
        self.held: threading.Event | None = None
        self.closed = 0

    def deliver(self, event: Event) -> None:
        self.attempts += 1
        if self.held is not None:
            assert self.held.wait(60)
        if self.broken is not None:
            raise Undelivered(self.broken)
        self.payloads.append(event.payload)

    def abort(self) -> None:
        self.broken = "stopped"
        if self.held is not None:
            self.held.set()

    def close(self) -> None:
        self.closed += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.writer.close()


@contextmanager
def thread(work: Callable[[], None], stop: Callable[[], None]) -> Iterator[threading.Thread]:
    running = threading.Thread(target=work, daemon=True)
    running.start()
    try:
        yield running
    finally:
        stop()
        running.join(30)
        assert not running.is_alive()


@contextmanager
def line_to(box: Box, target: Told, clock: Callable[[], float] = time.monotonic) -> Iterator[Line]:
    """A line at work, with the shortest spread of its waits."""
    line = Line("webhook", box.outbox, Lines(), UNMETERED, clock, spread=lambda: 1.0)
    box.outbox.listen(line.wake)
    line.serve(target, box.outbox.join("webhook"))
    with thread(line.run, line.abort):
        yield line


def announce(box: Box, *payloads: str) -> None:
    box.record(*payloads)
    box.outbox.announce()


def test_events_arrive_in_order_and_are_gone_then(box: Box) -> None:
    told = Told()
    expected = [str(number) for number in range(3 * notify.CHUNK + 1)]
    with line_to(box, told):
        announce(box, *expected[:100])
        announce(box, *expected[100:])
        until(lambda: len(told.payloads) == len(expected), "all arrive")
        until(lambda: box.state()["webhook"][0] == 0, "the job table knows")
    assert told.payloads == expected
    assert box.after(0) == []
    assert told.closed, "nothing is kept open while nothing comes"


def test_events_that_never_stop_coming_are_recorded_too(box: Box) -> None:
    told, clock = Told(), Clock()
    with line_to(box, told, clock):
        for number in range(1, 21):
            clock.now += notify.RECORD_SECONDS / 4  # each comes before there is any rest
            announce(box, str(number))
            until(lambda: len(told.payloads) == number, "it arrives")  # noqa: B023
            assert box.state()["webhook"][0] <= 5, "what waits is bounded, and what a crash would tell again"


def test_what_waits_at_the_start_is_delivered(box: Box) -> None:
    box.outbox.join("webhook")
    box.record("a", "b")
    told = Told()
    with line_to(box, told):
        until(lambda: told.payloads == ["a", "b"], "both arrive")


def test_a_failing_target_is_tried_again_later_and_later(box: Box) -> None:
    told, clock = Told(), Clock()
    told.broken = "answered 500"
    with line_to(box, told, clock) as line:
        announce(box, "a", "b")
        for failures, seconds in enumerate((1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300), start=1):
            condition = until(partial(_failed, line, failures), f"attempt {failures} fails")
            assert condition["again_in_seconds"] == min(seconds, LONGEST_SECONDS)
            assert condition["error"] == "answered 500"
            clock.now += seconds - 0.5
            line.wake()
            assert told.attempts == failures, "news do not hurry it"
            clock.now += 0.5
            line.wake()
        told.broken = None
        clock.now += 300
        line.wake()
        until(lambda: told.payloads == ["a", "b"], "both arrive, in order")
        condition = line.condition()
        assert condition == {"address": "a", "error": None, "failures": 0, "again_in_seconds": None}


def _failed(line: Line, failures: int) -> dict[str, Any] | None:
    condition = line.condition()
    return condition if condition is not None and condition["failures"] == failures else None


def test_a_target_that_breaks_ends_no_thread(box: Box) -> None:
    class Broken(Told):
        def deliver(self, event: Event) -> None:
            if not self.payloads and not self.attempts:
                self.attempts += 1
                raise MemoryError("none left")
            super().deliver(event)

    told, clock = Broken(), Clock()
    with line_to(box, told, clock) as line:
        announce(box, "a")
        condition = until(lambda: _failed(line, 1), "it is seen")
        assert condition["error"] == "internal error: MemoryError('none left')"
        clock.now += 1
        line.wake()
        until(lambda: told.payloads == ["a"], "it arrives")


def test_an_event_that_fails_holds_up_those_behind_it_and_no_other_target(box: Box) -> None:
    dead, well = Told("dead"), Told("well")
    dead.held = threading.Event()
    messenger = Messenger(box.outbox, Lines(), UNMETERED, lambda name, _: {"command": well, "webhook": dead}[name])
    messenger.configure(BOTH)
    with running(messenger):
        announce(box, "a", "b", "c")
        until(lambda: well.payloads == ["a", "b", "c"], "the command hears everything")
        assert dead.payloads == []
        until(lambda: box.state()["command"][0] == 0, "the job table knows")
        assert box.state()["webhook"][0] == 3
        dead.held.set()
        until(lambda: dead.payloads == ["a", "b", "c"], "so does the webhook, later")


@contextmanager
def running(messenger: Messenger) -> Iterator[None]:
    threads = [threading.Thread(target=line.run, daemon=True) for line in messenger.lines]
    for one in threads:
        one.start()
    try:
        yield
    finally:
        messenger.finish(0)
        for one in threads:
            one.join(30)
            assert not one.is_alive()


def test_the_end_waits_for_what_can_be_delivered(box: Box) -> None:
    told = Told()
    messenger = Messenger(box.outbox, Lines(), UNMETERED, lambda name, _: told if name == "webhook" else None)
    messenger.configure(BOTH)
    announce(box, *map(str, range(200)))
    with running(messenger):
        messenger.finish(60)
        assert len(told.payloads) == 200
    assert box.state()["webhook"][0] == 0


def test_the_end_does_not_wait_for_a_target_that_fails(box: Box) -> None:
    told = Told()
    told.broken = "down"
    messenger = Messenger(box.outbox, Lines(), UNMETERED, lambda name, _: told if name == "webhook" else None)
    messenger.configure(BOTH)
    announce(box, "a")
    with running(messenger):
        messenger.finish(60)
    assert told.attempts <= 1
    assert box.state()["webhook"][0] == 1


def test_the_end_does_not_wait_for_a_target_that_hangs(box: Box) -> None:
    told = Told()
    told.held = threading.Event()
    messenger = Messenger(box.outbox, Lines(), UNMETERED, lambda name, _: told if name == "webhook" else None)
    messenger.configure(BOTH)
    announce(box, "a")
    with running(messenger):
        until(lambda: told.attempts, "it is being told")
        messenger.finish(60, hurry=lambda: True)
    assert told.payloads == []
    assert box.state()["webhook"][0] == 1, "it is told again at the next start"


def test_the_end_does_not_wait_for_another_attempt_at_a_target_that_failed(box: Box) -> None:
    told = Told()
    told.broken = "down"
    clock = Clock()
    with line_to(box, told, clock) as line:
        announce(box, "a")
        until(partial(_failed, line, 1), "the first attempt fails")
        told.held = threading.Event()
        clock.now += 1
        line.wake()
        until(lambda: told.attempts == 2, "the second one hangs")
        line.finish()
        assert line.ended(60)


def test_targets_come_and_go(box: Box) -> None:
    told = {"command": Told(), "webhook": Told()}
    configured = lambda name, settings: told[name] if getattr(settings, name) else None  # noqa: E731
    messenger = Messenger(box.outbox, Lines(), UNMETERED, configured)
    messenger.configure(Notify())
    with running(messenger):
        announce(box, "nobody hears")
        messenger.configure(Notify(webhook="https://a.example/"))
        assert set(messenger.conditions()) == {"webhook"}
        announce(box, "one hears")
        until(lambda: told["webhook"].payloads == ["one hears"], "the webhook hears")
        messenger.configure(Notify(command=("tell",)))
        announce(box, "another hears")
        until(lambda: told["command"].payloads == ["another hears"], "the command hears")
        assert set(messenger.conditions()) == {"command"}
        messenger.configure(Notify())
        assert messenger.conditions() == {}
        assert not box.outbox.wanted
    assert told["webhook"].payloads == ["one hears"]


def test_a_webhook_that_moved_gets_what_the_old_one_could_not(box: Box) -> None:
    old, new = Told("old"), Told("new")
    old.broken = "answered 404"
    messenger = Messenger(box.outbox, Lines(), UNMETERED, lambda name, settings: _moved(name, settings, old, new))
    messenger.configure(Notify(webhook="https://old.example/"))
    with running(messenger):
        announce(box, "a", "b")
        until(lambda: old.attempts, "the old one fails")
        messenger.configure(Notify(webhook="https://new.example/"))
        until(lambda: new.payloads == ["a", "b"], "the new one is told, at once")


def _moved(name: str, settings: Notify, old: Told, new: Told) -> Told | None:
    if name != "webhook" or settings.webhook is None:
        return None
    return old if "old" in settings.webhook else new


def test_the_same_configuration_again_changes_nothing(box: Box) -> None:
    built = []

    def build(name: str, settings: Notify) -> Told | None:
        built.append(name)
        return Told()

    messenger = Messenger(box.outbox, Lines(), UNMETERED, build)
    messenger.configure(BOTH)
    messenger.configure(Notify(command=("tell",), webhook="https://a.example/x"))
    assert built == ["command", "webhook"]


def test_a_sick_disk_is_waited_for(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    told, clock = Told(), Clock()

    def sick(event_id: int, limit: int) -> list[Event]:
        raise EnvironmentProblem("the disk is sick")

    monkeypatch.setattr(box.outbox, "after", sick)
    with line_to(box, told, clock) as line:
        announce(box, "a")
        condition = until(lambda: _failed(line, 1), "it is seen")
        assert condition["error"] == "the disk is sick"
        monkeypatch.undo()
        clock.now += 1
        line.wake()
        until(lambda: told.payloads == ["a"], "it arrives")
