"""What the service manager hears, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable

from daemon.dispatch import Census
from daemon.service import Service, status_line
from tests.harness import until


class Heard:
    """A notifier that keeps what it is told."""

    present = True

    def __init__(self) -> None:
        self.messages: list[dict[str, str | int]] = []

    def send(self, **values: str | int) -> None:
        self.messages.append(values)

    def said(self) -> list[list[str]]:
        return [list(message) for message in self.messages]


class Heart:
    """A pulse that is as it is told to be."""

    waits_for_disk = False
    alive = True
    asked = 0

    def beats(self, patience_seconds: float) -> bool:
        self.asked += 1
        return self.alive


def service(heard: Heard, heart: Heart, status: Callable[[], str] = lambda: "idle") -> Service:
    return Service(heard, 20.0, heart, status)  # type: ignore[arg-type]


def test_the_watchdog_is_fed_only_by_a_heart_that_beats() -> None:
    heard, heart = Heard(), Heart()
    told = service(heard, heart)
    told.feed(1.0)
    heart.alive = False
    told.feed(1.0)
    heart.alive = True
    told.feed(1.0)
    assert heart.asked == 3
    assert heard.said() == [["WATCHDOG"], ["WATCHDOG"]]


def test_who_is_ready_is_fed_and_tells_its_status() -> None:
    heard = Heard()
    service(heard, Heart()).ready()
    until(lambda: len(heard.messages) == 3, "the threads have said what there is to say")
    assert heard.said()[0] == ["READY"]
    assert sorted(heard.said()[1:]) == [["STATUS"], ["WATCHDOG"]]


def test_a_status_that_cannot_be_made_starves_nobody() -> None:
    heard, never = Heard(), threading.Event()

    def status() -> str:
        never.wait(60)
        return ""

    service(heard, Heart(), status).ready()
    until(lambda: ["WATCHDOG"] in heard.said(), "the watchdog is fed")
    never.set()


def test_a_status_is_told_when_it_changes() -> None:
    heard, lines = Heard(), iter(["one", "one", "two"])
    told = service(heard, Heart(), lambda: next(lines))
    for _ in range(3):
        told.tell()
    assert heard.messages == [{"STATUS": "one"}, {"STATUS": "two"}]


def test_a_disk_that_does_not_answer_is_told() -> None:
    heard, heart = Heard(), Heart()
    heart.waits_for_disk = True
    service(heard, heart).tell()
    assert heard.messages == [{"STATUS": "idle; state_dir does not answer"}]


def test_a_reload_is_told_when_it_begins_and_when_it_ends() -> None:
    heard = Heard()
    with service(heard, Heart()).reloading():
        assert heard.said() == [["RELOADING", "MONOTONIC_USEC"]]
    assert heard.said()[1:] == [["READY"]]


def test_the_watchdog_is_fed_while_the_daemon_drains_and_its_status_stays() -> None:
    heard = Heard()
    told = service(heard, Heart())
    told.stopping()
    told.feed(1.0)
    told.tell()
    assert heard.said() == [["STOPPING", "STATUS"], ["WATCHDOG"]]


def test_a_status_line() -> None:
    watches = {"in": {"state": "running", "error": None}, "scans": {"state": "paused", "error": "disk full"}}
    live = {"watches": watches, "documents_per_second": 0.84}
    assert (
        status_line(live, Census(12, 2, False))
        == "2 watches, 12 pending, 2 processing, 0.8 documents/s; scans paused: disk full"
    )
    one = {"watches": {"in": watches["in"]}, "documents_per_second": 0.0}
    assert status_line(one, Census(10_000, 0, True)) == "1 watch, 10000+ pending, 0 processing, 0.0 documents/s"
