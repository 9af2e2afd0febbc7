"""Who is to blame for an error, and when a watch goes on."""

from __future__ import annotations

from typing import Any

from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem, Stopped
from daemon.health import BAD_FOR_SECONDS, STALLED_AFTER_SECONDS, Health
from tests.unit.test_dispatch import job, nothing_to_take, take


class Surroundings:
    """What the probe finds: free bytes, or a problem."""

    def __init__(self) -> None:
        self.free_bytes = 1 << 40
        self.problem: EnvironmentProblem | None = None

    def probe(self, size_bytes: int) -> None:
        if self.problem is not None:
            raise self.problem
        if size_bytes > self.free_bytes:
            raise EnvironmentProblem("no space left", "make room")


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def _log(self, event: str, **values: Any) -> None:
        self.events.append(event)

    debug = info = warning = error = _log


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make() -> tuple[Health, Surroundings, Dispatcher, Lines, Clock]:
    clock, surroundings, lines = Clock(), Surroundings(), Lines()
    dispatcher = Dispatcher(["a"], lambda watch, limit: [], clock, clock)
    return Health("a", surroundings.probe, dispatcher, lines, clock), surroundings, dispatcher, lines, clock


def test_with_well_surroundings_the_document_is_to_blame() -> None:
    health, _, dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    assert not health.blames_environment(100)
    assert take(dispatcher).id == 1


def test_a_disk_with_room_for_a_canary_only_is_sick_for_a_large_result() -> None:
    health, surroundings, dispatcher, lines, _ = make()
    dispatcher.add([job(1)])
    surroundings.free_bytes = 1000
    assert not health.blames_environment(100)
    assert health.blames_environment(5000)
    assert health.condition().state == "paused"
    assert "no space left" in (health.condition().error or "")
    assert nothing_to_take(dispatcher)
    surroundings.free_bytes = 2000
    health.check_recovery()
    assert health.sick, "there is still no room for what failed"
    surroundings.free_bytes = 6000
    health.check_recovery()
    assert not health.sick
    assert take(dispatcher).id == 1
    assert lines.events == ["watch paused", "watch resumed"]


def test_the_same_problem_is_logged_once() -> None:
    health, surroundings, _, lines, _ = make()
    surroundings.problem = EnvironmentProblem("gone", "")
    for _ in range(5):
        assert health.blames_environment()
    assert lines.events == ["watch paused"]


def test_a_source_that_reports_itself_sick_pauses_its_watch() -> None:
    health, surroundings, dispatcher, _, _ = make()
    surroundings.problem = EnvironmentProblem("folder gone", "mount it")
    health.sick_source(surroundings.problem)
    dispatcher.add([job(1)])
    assert nothing_to_take(dispatcher)
    health.check_recovery()
    assert health.condition().error == "folder gone (mount it)"
    surroundings.problem = None
    health.check_recovery()
    assert health.condition().state == "running"


def test_a_silent_source_is_shown_as_stalled() -> None:
    health, _, _, _, clock = make()
    clock.now = STALLED_AFTER_SECONDS + 1
    assert health.condition().state == "stalled"
    health.beat()
    assert health.condition().state == "running"


def test_a_note_is_shown_and_stops_nothing() -> None:
    health, _, dispatcher, lines, _ = make()
    health.note("polling: no inotify watches left")
    health.note("polling: no inotify watches left")
    dispatcher.add([job(1)])
    assert health.condition().error == "polling: no inotify watches left"
    assert take(dispatcher).id == 1
    assert lines.events == ["watch note"]


def test_what_is_known_to_be_sick_is_not_asked_again_at_once() -> None:
    """A server that does not answer costs each probe its time-outs: many workers must not queue for that."""
    clock = Clock()
    probes: list[int] = []

    def probe(size_bytes: int) -> None:
        probes.append(size_bytes)
        raise EnvironmentProblem("it does not answer", "")

    health = Health("a", probe, Dispatcher(["a"], lambda watch, limit: [], clock, clock), Lines(), clock)
    assert health.blames_environment()
    assert health.blames_environment()
    assert len(probes) == 1
    clock.now += BAD_FOR_SECONDS
    assert health.blames_environment()
    assert len(probes) == 2


def test_a_stop_while_it_is_probed_is_no_illness() -> None:
    clock, lines = Clock(), Lines()
    answers: list[Exception] = [Stopped("stopping"), EnvironmentProblem("sick", "")]

    def probe(size_bytes: int) -> None:
        raise answers.pop()

    health = Health("a", probe, Dispatcher(["a"], lambda watch, limit: [], clock, clock), lines, clock)
    assert health.blames_environment()
    health.check_recovery()
    assert health.sick
