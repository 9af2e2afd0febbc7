"""The watches that are served: what a reload does to those that are sick, paused, or not ready yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from daemon.config import Config, Watch, for_folders
from daemon.db import Readers, Writer
from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem
from daemon.health import Health
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.pipeline import Policy
from daemon.reload import Reload
from daemon.roster import Post, Roster
from daemon.switches import Switches


class Lines:
    """A log that is read by tests."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda event, **values: self.lines.append((event, values))


class House:
    """A roster over a real job table; `building` is called while a post is made."""

    def __init__(self, folder: Path) -> None:
        database = str(folder / "convertd.db")
        self.writer = Writer(database)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(database))
        self.switches = Switches(self.writer, Readers(database))
        self.dispatcher = Dispatcher((), self.jobs.pending, time.time, time.monotonic)
        self.building: Callable[[str], None] = lambda name: None
        self.config = for_folders(str(folder / "in"), str(folder / "out"), str(folder / "state"))
        self.roster = Roster(self.build, self.jobs, self.dispatcher, self.switches)

    def watch(self, name: str, **values: Any) -> Watch:
        return self.config.watches[0]._replace(name=name, **values)

    def build(self, watch: Watch) -> Post:
        self.building(watch.name)
        route = SimpleNamespace(watch=watch, source=None, sink=None)
        health = Health(watch.name, lambda size_bytes: None, self.dispatcher, cast(Any, Lines()))
        return Post(cast(Any, route), health, cast(Any, None), cast(Any, None), threading.Event())


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    built = House(tmp_path)
    yield built
    built.writer.close()


def test_a_sick_watch_that_is_changed_is_given_another_try(house: House) -> None:
    house.roster.serve([house.watch("a")])
    before = house.roster.health["a"]
    before.fell_ill(EnvironmentProblem("no such folder", ""))
    assert house.dispatcher.paused("a")
    house.roster.serve([house.watch("a", priority=9)])
    assert not house.dispatcher.paused("a")
    before.fell_ill(EnvironmentProblem("no such folder", ""))
    assert not house.dispatcher.paused("a"), "whoever served it before has nothing to say any more"
    house.roster.health["a"].fell_ill(EnvironmentProblem("full", ""))
    before.retire()
    assert house.dispatcher.paused("a")
    house.roster.health["a"].check_recovery()
    assert not house.dispatcher.paused("a")


def test_no_job_is_handed_out_before_its_watch_can_be_served(house: House) -> None:
    house.jobs.register("parked", "in", "out")
    house.jobs.enqueue("parked", [Candidate(b"a.txt", "1", 1)], 5)
    seen = []

    def look(name: str) -> None:
        seen.append((house.dispatcher.paused(name), name in house.roster.routes))

    house.building = look
    house.roster.serve([house.watch("parked")])
    assert seen == [(True, False)]
    assert not house.dispatcher.paused("parked")


def test_a_pause_holds_for_a_watch_that_comes_back_from_its_first_moment_on(house: House) -> None:
    house.jobs.register("parked", "in", "out")
    house.switches.pause("parked")
    resumed: list[str] = []
    original = house.dispatcher.resume

    def resume(watch: str, reason: str) -> None:
        original(watch, reason)
        resumed.append(reason)
        assert house.dispatcher.paused(watch)

    house.dispatcher.resume = resume  # type: ignore[method-assign]
    house.roster.serve([house.watch("parked")])
    assert resumed
    assert house.dispatcher.paused("parked")


def test_a_pause_that_comes_while_its_watch_is_made_holds_from_its_first_moment_on(house: House) -> None:
    def pause(name: str) -> None:
        house.switches.pause(None)
        house.roster.heed_switches()

    seen: dict[str, bool] = {}
    original = house.dispatcher.resume

    def resume(watch: str, reason: str) -> None:
        original(watch, reason)
        seen.setdefault(watch, house.dispatcher.paused(watch))

    house.building = pause
    house.dispatcher.resume = resume  # type: ignore[method-assign]
    house.roster.serve([house.watch("a"), house.watch("b")])
    assert seen == {"a": True, "b": True}


@pytest.mark.parametrize("paused", [True, False])
def test_a_watch_is_served_though_the_pauses_cannot_be_read_again(
    house: House, paused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what is to be served cannot be taken back: it is begun with the pauses of a moment ago."""
    house.jobs.register("a", "in", "out")
    if paused:
        house.switches.pause("a")

    def sicken(name: str) -> None:
        def fail() -> None:
            raise EnvironmentProblem("the disk is sick", "")

        monkeypatch.setattr(house.switches, "paused", fail)

    house.building = sicken
    change = house.roster.serve([house.watch("a")])
    assert [post.route.watch.name for post in change.begun] == ["a"]
    assert house.dispatcher.paused("a") is paused


def test_pauses_at_the_same_time_all_hold(house: House) -> None:
    names = [f"watch{number}" for number in range(8)]
    house.roster.serve([house.watch(name) for name in names])
    together = threading.Barrier(len(names))

    def pause(name: str) -> None:
        together.wait(30)
        house.switches.pause(name)
        house.roster.heed_switches()

    for round_number in range(5):
        threads = [threading.Thread(target=pause, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert all(house.dispatcher.paused(name) for name in names), round_number
        house.switches.resume(None)
        house.roster.heed_switches()


def test_watches_are_in_the_order_of_the_configuration(house: House) -> None:
    house.roster.serve([house.watch("a"), house.watch("b")])
    house.roster.serve([house.watch("c"), house.watch("b"), house.watch("a")])
    assert [watch.name for watch in house.roster.watches()] == ["c", "b", "a"]


def test_nothing_is_changed_where_the_switches_cannot_be_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def sick() -> None:
        raise EnvironmentProblem("the disk hangs", "")

    house.roster.serve([house.watch("a")])
    monkeypatch.setattr(house.switches, "paused", sick)
    with pytest.raises(EnvironmentProblem):
        house.roster.serve([house.watch("b")])
    assert [watch.name for watch in house.roster.watches()] == ["a"]


def test_a_reload_takes_up_what_waits_for_watches_that_have_come_or_changed(house: House) -> None:
    files = [("a", "b"), ("a", "b", "c"), ("b",), ("b", "a")]
    priorities = iter(range(1, 10))
    taken_up: list[set[str]] = []

    def load(path: str) -> Config:
        names = files.pop(0)
        watches = [house.watch(name, priority=next(priorities) if name == "b" else 5) for name in names]
        return house.config._replace(path=path, watches=tuple(watches))

    reload = Reload(
        house.config._replace(path="/etc/convertd.toml"),
        Policy(house.config.limits, house.config.retry),
        house.roster,
        lambda notify: None,
        lambda watches: taken_up.append(set(watches)),
        cast(Any, Lines()),
        load,
    )
    while files:
        reload()
    assert taken_up == [{"a", "b"}, {"b", "c"}, {"b"}, {"a", "b"}]


def test_what_needs_a_restart_is_compared_with_what_the_daemon_runs_with(house: House) -> None:
    def loaded(**values: Any) -> Config:
        return house.config._replace(path="/etc/convertd.toml", **values)

    files = [loaded(workers=7), loaded(workers=7), loaded()]
    log = Lines()
    reload = Reload(
        loaded(),
        Policy(house.config.limits, house.config.retry),
        house.roster,
        lambda notify: None,
        lambda watches: None,
        cast(Any, log),
        lambda path: files.pop(0),
    )
    told = []
    while files:
        log.lines.clear()
        reload()
        told.append([values["keys"] for event, values in log.lines if "restart" in event])
    assert told == [[["workers"]], [["workers"]], []]
