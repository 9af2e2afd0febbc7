"""When `run --once` is at its end, and with which exit code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.config import Watch
from daemon.dispatch import Dispatcher
from daemon.model import State
from daemon.once import SICK_SECONDS, UNREADY_SECONDS, Once
from daemon.roster import OPERATOR, RETIRED
from daemon.tally import Tally
from tests.unit.test_dispatch import Clock, job, take
from tests.unit.test_roster import Lines

MOMENT_SECONDS = 1.0


class Daemon:
    """A dispatcher with two watches whose surroundings are as the test says; `ask` lets time pass."""

    def __init__(self) -> None:
        self.clock, self.log = Clock(), Lines()
        self.dispatcher = Dispatcher(["a", "b"], lambda watch, limit: [], self.clock, self.clock)
        self.tally = Tally(self.clock)
        self.posts = {watch: post(watch) for watch in ("a", "b")}
        roster = cast(Any, SimpleNamespace(posts=lambda: list(self.posts.values())))
        janitor = cast(Any, SimpleNamespace(backlog=lambda: 0))
        self.once = Once(roster, self.dispatcher, janitor, self.tally, cast(Any, self.log), self.clock)

    def ask(self, seconds: float = 3 * MOMENT_SECONDS) -> int | None:
        """The exit code if there is one within so long, with which nothing else happens."""
        until = self.clock.now + seconds
        while (code := self.once.exit_code()) is None and self.clock.now < until:
            self.clock.now += MOMENT_SECONDS
        return code

    def said(self) -> list[str]:
        return [event for event, _ in self.log.lines]


def post(watch: str, **values: Any) -> Any:
    """A watch that is well, and through with looking at what is there."""
    return SimpleNamespace(
        route=SimpleNamespace(watch=Watch(watch, "in", "out", **values)),
        health=SimpleNamespace(sick=False),
        discovery=SimpleNamespace(left=0),
    )


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


def test_it_ends_when_all_has_been_looked_at_and_converted(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1)])
    daemon.posts["b"].discovery.left = None
    assert daemon.ask() is None
    taken = take(daemon.dispatcher)
    daemon.posts["b"].discovery.left = 0
    assert daemon.ask() is None, "it runs"
    daemon.dispatcher.done(taken)
    assert daemon.ask() == 0
    daemon.tally.add(State.FAILED)
    assert (daemon.ask(), daemon.said()) == (1, [])


@pytest.mark.parametrize(("reason", "said"), [(OPERATOR, "convertd pause"), (RETIRED, "configured again")])
def test_what_is_held_back_is_not_waited_for(daemon: Daemon, reason: str, said: str) -> None:
    daemon.dispatcher.add([job(1), job(2), job(3, watch="b")])
    running = take(daemon.dispatcher)
    daemon.dispatcher.pause("a", reason)
    other = take(daemon.dispatcher)
    assert (running.watch, other.watch) == ("a", "b")
    daemon.dispatcher.done(other)
    assert daemon.ask() is None, "what runs comes to its end"
    daemon.dispatcher.done(running)
    daemon.dispatcher.pause("a", "environment")
    daemon.posts["a"].discovery.left = 7  # of a queue, nothing more is received
    assert daemon.ask() == 0
    (line,) = daemon.log.lines
    assert said in line[0] and line[1] == {"jobs": 1, "more": False}


def test_what_is_sick_is_no_operators_doing(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1)])
    daemon.dispatcher.pause("a", "environment")
    assert daemon.ask() is None


def test_a_pause_that_holds_nothing_back_is_not_spoken_of(daemon: Daemon) -> None:
    daemon.dispatcher.pause("a", OPERATOR)
    assert (daemon.ask(), daemon.said()) == (0, [])


def test_what_stays_sick_is_given_up(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1, watch="b")])
    working = take(daemon.dispatcher)
    daemon.posts["a"].health.sick = True
    assert daemon.ask(SICK_SECONDS) is None
    daemon.tally.add(State.COMPLETED)
    assert daemon.ask(SICK_SECONDS) is None, "it is waited for as long again after each document"
    assert (daemon.ask(), daemon.said()) == (1, ["giving up: the surroundings are sick"])
    assert daemon.dispatcher.running() == [working]


def test_a_sickness_that_is_over_is_no_reason_to_give_up_a_long_conversion(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1, watch="b")])
    working = take(daemon.dispatcher)
    daemon.posts["a"].health.sick = True
    assert daemon.ask() is None
    daemon.posts["a"].health.sick = False
    assert daemon.ask(10 * SICK_SECONDS) is None
    daemon.dispatcher.done(working)
    daemon.tally.add(State.COMPLETED)
    assert (daemon.ask(), daemon.said()) == (0, [])


def test_nor_to_give_up_one_that_is_to_be_tried_later(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1)], daemon.clock.now + 10 * SICK_SECONDS)
    daemon.posts["a"].health.sick = True
    assert daemon.ask() is None
    daemon.posts["a"].health.sick = False
    assert daemon.ask(5 * SICK_SECONDS) is None


def test_a_source_that_falls_sick_again_and_again_is_given_up(daemon: Daemon) -> None:
    daemon.posts["a"].discovery.left = None
    codes = []
    for number in range(int(SICK_SECONDS / 2)):
        daemon.posts["a"].health.sick = number % 10 == 0
        codes.append(daemon.ask())
    assert (codes[0], codes[-1]) == (None, 1)


def test_a_source_that_takes_long_to_be_looked_at_and_was_sick_for_a_moment_is_waited_for(daemon: Daemon) -> None:
    daemon.posts["a"].discovery.left = None
    daemon.posts["a"].health.sick = True
    assert daemon.ask() is None
    daemon.posts["a"].health.sick = False
    assert daemon.ask(5 * SICK_SECONDS) is None
    daemon.posts["a"].discovery.left = 0
    assert (daemon.ask(), daemon.said()) == (0, [])


def test_what_fails_at_each_try_is_given_up_though_it_is_tried_in_between(daemon: Daemon) -> None:
    daemon.dispatcher.add([job(1)])
    codes = []
    for _ in range(int(SICK_SECONDS)):
        daemon.posts["a"].health.sick = True
        codes.append(daemon.ask())
        daemon.posts["a"].health.sick = False
        working = take(daemon.dispatcher)
        codes.append(daemon.ask(SICK_SECONDS))
        daemon.dispatcher.give_back(working)
    assert (codes[:4], codes[-1]) == ([None] * 4, 1)


def test_a_file_that_is_too_young_is_waited_for(daemon: Daemon) -> None:
    daemon.posts["a"] = post("a", settle_seconds=300.0)
    daemon.posts["a"].health.sick, daemon.posts["a"].discovery.left = True, None
    assert daemon.ask() is None
    daemon.posts["a"].health.sick, daemon.posts["a"].discovery.left = False, 2
    assert daemon.ask(300.0 + UNREADY_SECONDS) is None
    assert daemon.ask() == 1
    assert daemon.log.lines == [
        ("giving up on files that do not become free", {"still_written": 2, "not_disposed_of": 0})
    ]


def test_a_file_that_does_not_become_free_is_waited_for_no_longer_because_of_others(daemon: Daemon) -> None:
    daemon.posts["a"] = post("a", settle_seconds=300.0)
    daemon.posts["b"].discovery.left = 1
    assert daemon.ask(UNREADY_SECONDS) is None
    assert daemon.ask() == 1
