"""When `run --once` is at its end, and with which exit code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.dispatch import Dispatcher
from daemon.model import State
from daemon.roster import OPERATOR, RETIRED
from daemon.supervisor import Drain, Tally
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
        parts = SimpleNamespace(
            dispatcher=self.dispatcher,
            roster=SimpleNamespace(posts=lambda: list(self.posts.values())),
            janitor=SimpleNamespace(backlog=lambda: 0),
        )
        self.drain = Drain(cast(Any, parts), self.tally, cast(Any, self.log), self.clock)

    def ask(self, seconds: float = 3 * MOMENT_SECONDS) -> int | None:
        """The exit code if there is one within so long, with which nothing else happens."""
        until = self.clock.now + seconds
        while (code := self.drain.exit_code()) is None and self.clock.now < until:
            self.clock.now += MOMENT_SECONDS
        return code

    def said(self) -> list[str]:
        return [event for event, _ in self.log.lines]


def post(watch: str, **values: Any) -> Any:
    """A watch that is well, and through with looking at what is there."""
    return SimpleNamespace(
        route=SimpleNamespace(watch=SimpleNamespace(name=watch, **values)),
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
