"""What the service manager hears, and when."""

from __future__ import annotations

from typing import Any

from daemon.dispatch import Census
from daemon.service import Service, status_line


class Heard:
    """A notifier that keeps what it is told."""

    present = True

    def __init__(self) -> None:
        self.messages: list[dict[str, str | int]] = []

    def send(self, **values: str | int) -> None:
        self.messages.append(values)

    def keys(self) -> list[list[str]]:
        return [list(message) for message in self.messages]


class Heart:
    """A pulse that is as it is told to be."""

    waits_for_disk = False
    alive = True
    asked = 0

    def beats(self, patience_seconds: float) -> bool:
        self.asked += 1
        return self.alive


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def service(heard: Heard, heart: Heart, clock: Clock, status: Any, watchdog: float | None = 20.0) -> Service:
    return Service(heard, watchdog, heart, status, clock)  # type: ignore[arg-type]


def test_the_watchdog_is_fed_at_half_its_time_and_only_by_a_heart_that_beats() -> None:
    heard, heart, clock = Heard(), Heart(), Clock()
    told = service(heard, heart, clock, lambda: "idle")
    told.look()
    told.look()
    assert heard.keys() == [["WATCHDOG"], ["STATUS"]]
    clock.now += 10
    told.look()
    assert heard.keys().count(["WATCHDOG"]) == 2
    heart.alive = False
    clock.now += 10
    told.look()
    assert heart.asked == 3
    assert heard.keys().count(["WATCHDOG"]) == 2


def test_without_a_watchdog_nobody_is_asked() -> None:
    heard, heart = Heard(), Heart()
    service(heard, heart, Clock(), lambda: "idle", None).look()
    assert heard.keys() == [["STATUS"]]
    assert heart.asked == 0


def test_a_status_is_told_when_it_changes() -> None:
    heard, lines = Heard(), iter(["one", "one", "two"])
    told = service(heard, Heart(), Clock(), lambda: next(lines), None)
    for _ in range(3):
        told.look()
    assert heard.messages == [{"STATUS": "one"}, {"STATUS": "two"}]


def test_a_disk_that_does_not_answer_is_told() -> None:
    heard, heart = Heard(), Heart()
    heart.waits_for_disk = True
    service(heard, heart, Clock(), lambda: "idle", None).look()
    assert heard.messages == [{"STATUS": "idle; state_dir does not answer"}]


def test_a_reload_is_told_when_it_begins_and_when_it_ends() -> None:
    heard = Heard()
    with service(heard, Heart(), Clock(), lambda: "").reloading():
        assert heard.keys() == [["RELOADING", "MONOTONIC_USEC"]]
    assert heard.keys()[1:] == [["READY"]]


def test_the_watchdog_is_fed_while_the_daemon_drains_and_its_status_stays() -> None:
    heard = Heard()
    told = service(heard, Heart(), Clock(), lambda: "1 watch")
    told.stopping()
    told.look()
    assert heard.keys() == [["STOPPING", "STATUS"], ["WATCHDOG"]]


def test_a_status_line() -> None:
    watches = {"in": {"state": "running", "error": None}, "scans": {"state": "paused", "error": "disk full"}}
    live = {"watches": watches, "documents_per_second": 0.84}
    assert (
        status_line(live, Census(12, 2, False))
        == "2 watches, 12 pending, 2 processing, 0.8 documents/s; scans paused: disk full"
    )
    one = {"watches": {"in": watches["in"]}, "documents_per_second": 0.0}
    assert status_line(one, Census(10_000, 0, True)) == "1 watch, 10000+ pending, 0 processing, 0.0 documents/s"
