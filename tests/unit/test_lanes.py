"""What the dispatcher is made of, without its threads."""

from __future__ import annotations

import pytest

from daemon.dispatch.lanes import Lanes
from daemon.dispatch.later import SUSPECT_PATIENCE_SECONDS, Delayed, Suspects, Withheld
from daemon.dispatch.roll import Lane, Roll
from daemon.model import Job
from tests.unit.test_dispatch import Clock, job

LONGEST_RUN_SECONDS = 700.0


def make(clock: Clock, capacity: int = 100, running_per_watch: int | None = None) -> Lanes:
    lanes = Lanes(["a", "b"], clock, clock, 100.0, capacity, running_per_watch, lambda: LONGEST_RUN_SECONDS)
    lanes.release_suspects()
    return lanes


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ran(lanes: Lanes) -> list[int]:
    """The numbers of all jobs that run, each ended before the next."""
    numbers = []
    while (next_job := lanes.next()) is not None:
        numbers.append(next_job.id)
        lanes.done(next_job)
    return numbers


def test_a_job_that_is_next_runs_until_it_is_done(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1), job(2, watch="b", priority=9)], 0.0)
    first = lanes.next()
    assert first is not None and first.id == 2
    assert (lanes.running(), lanes.running_of([1, 2])) == ([first], {2})
    assert (lanes.census().pending, lanes.census().running) == (1, 1)
    lanes.done(first)
    assert ran(lanes) == [1]
    assert lanes.idle() and not lanes.backlog()
    assert lanes.next() is None


def test_what_is_beyond_the_capacity_is_left_until_the_lane_is_low(clock: Clock) -> None:
    lanes = make(clock, capacity=4)
    jobs = [job(number) for number in range(1, 7)]
    lanes.add(jobs, 0.0)
    assert (lanes.low(), lanes.backlog(), lanes.room("a", 99)) == (None, 4, 0)
    for number in (1, 2, 3):
        taken = lanes.next()
        assert taken is not None and taken.id == number
        lanes.done(taken)
    assert lanes.low() == "a"
    assert lanes.low() is None, "it is being refilled"
    limit = lanes.refill_begins("a")
    assert limit == 5
    lanes.refill_ends("a", [(waiting, 0.0) for waiting in jobs[3:]], limit)
    assert ran(lanes) == [4, 5, 6]
    assert lanes.idle()


def test_a_refill_that_failed_is_tried_again(clock: Clock) -> None:
    lanes = make(clock)
    lanes.open("c", ())
    assert lanes.low() == "c"
    lanes.refill_ends("c", None, lanes.refill_begins("c"))
    assert not lanes.idle()
    assert lanes.low() == "c"


def test_of_two_lanes_that_are_read_neither_brings_back_what_ended(clock: Clock) -> None:
    lanes = make(clock)
    jobs = [job(1), job(2, watch="b")]
    lanes.add(jobs, 0.0)
    limits = {watch: lanes.refill_begins(watch) for watch in "ab"}
    assert sorted(ran(lanes)) == [1, 2]
    lanes.refill_ends("a", [(jobs[0], 0.0)], limits["a"])
    lanes.refill_ends("b", [(jobs[1], 0.0)], limits["b"])
    assert lanes.idle()
    lanes.refill_ends("a", [(jobs[0], 0.0)], lanes.refill_begins("a"))
    assert ran(lanes) == [1], "it is pending again, and nothing is remembered of its end"


def test_a_pause_is_lifted_by_its_own_reason(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1)], 0.0)
    lanes.pause("a", "disk")
    lanes.pause("a", "operator")
    lanes.resume("a", "disk")
    assert lanes.paused("a") and lanes.holds_back("a") and lanes.next() is None
    lanes.resume("a", "operator")
    assert not lanes.holds_back("a") and not lanes.holds_back("unknown")
    assert ran(lanes) == [1]


def test_what_waits_for_some_watches_can_be_left_out(clock: Clock) -> None:
    lanes = make(clock, capacity=2)
    lanes.add([job(number) for number in (1, 2, 3)], 0.0)
    first = lanes.next()
    lanes.pause("a", "operator")
    assert (lanes.held_back({"operator", "retired"}), lanes.held_back(["disk"])) == (["a"], [])
    assert not lanes.idle(but_for="a"), "what runs counts"
    assert first is not None
    lanes.done(first)
    assert lanes.idle(but_for="a") and not lanes.idle(but_for="b")
    census = lanes.census("a")
    assert (census.pending, census.running, census.more) == (1, 0, True)
    assert lanes.census("b").pending == 0


def test_delayed_jobs_come_when_they_are_due(clock: Clock) -> None:
    delayed = Delayed(clock)
    assert delayed.due_in_seconds() == float("inf")
    for number, seconds in ((1, 3.0), (2, 1.0), (3, 2.0)):
        delayed.add(job(number), seconds)
    delayed.remove({3})
    assert (delayed.take_due(), delayed.due_in_seconds()) == (None, 1.0)
    clock.now += 3.0
    assert [found.id for found in iter(delayed.take_due, None) if found] == [2, 1]


def test_the_patience_is_that_of_those_which_may_run(clock: Clock) -> None:
    suspects = Suspects(clock)
    suspects.add(job(1))
    clock.now += SUSPECT_PATIENCE_SECONDS
    suspects.add(job(2))
    clock.now += 1.0

    def second(suspect: Job) -> bool:
        return suspect.id == 2

    assert suspects.patience_is_over(lambda suspect: True)
    assert not suspects.patience_is_over(second)
    assert not suspects.patience_is_over(lambda suspect: False)
    assert suspects.first(second) == job(2)
    assert [removed.id for removed in suspects.remove({1, 7})] == [1]
    assert suspects.first(lambda suspect: True) == job(2)


def started(lanes: Lanes) -> Job:
    """The next job, which there has to be."""
    next_job = lanes.next()
    assert next_job is not None
    return next_job


def test_a_suspect_is_not_held_up_for_ever_by_what_hangs_and_nobody_else_by_both(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1, watch="b"), job(2, interruptions=2), job(3)], 0.0)
    hanging = started(lanes)
    assert hanging.watch == "b"
    clock.now += SUSPECT_PATIENCE_SECONDS + 1
    assert lanes.next() is None, "the suspect's turn comes when nothing else runs"
    clock.now += LONGEST_RUN_SECONDS - SUSPECT_PATIENCE_SECONDS
    suspect = started(lanes)
    assert suspect.id == 2
    assert lanes.next() is None, "it runs alone, but for what hangs"
    lanes.done(suspect)
    lanes.add([job(4, interruptions=2)], 0.0)
    assert ran(lanes) == [3, 4], "what hangs is waited for once"
    lanes.done(hanging)
    assert lanes.idle()


def test_what_runs_long_side_by_side_is_waited_for(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1), job(2), job(3), job(4, interruptions=2), job(5)], 0.0)
    running = [started(lanes) for _ in range(3)]
    clock.now += SUSPECT_PATIENCE_SECONDS + 1
    for long in running:
        assert lanes.next() is None
        lanes.done(long)
        clock.now += LONGEST_RUN_SECONDS - 1
    assert ran(lanes) == [4, 5]


def test_a_suspect_that_hangs_keeps_no_others_out(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1, interruptions=2), job(2, interruptions=2), job(3, watch="b", interruptions=2)], 0.0)
    hanging = started(lanes)
    lanes.add([job(4), job(5, watch="b")], 0.0)
    clock.now += LONGEST_RUN_SECONDS
    assert (hanging.id, lanes.next()) == (1, None)
    clock.now += 1
    other = started(lanes)
    assert other.id == 3, "2 might hang as well: it is of the same watch"
    assert lanes.next() is None
    lanes.done(other)
    assert ran(lanes) == [4, 5]
    lanes.done(hanging)
    assert ran(lanes) == [2]
    assert lanes.idle()


def test_what_hung_and_ends_after_all_does_not_let_others_in_with_a_suspect(clock: Clock) -> None:
    lanes = make(clock)
    lanes.add([job(1, watch="b"), job(2, interruptions=2)], 0.0)
    hanging = started(lanes)
    clock.now += LONGEST_RUN_SECONDS + 1
    suspect = started(lanes)
    lanes.add([job(3)], 0.0)
    lanes.done(hanging)
    assert lanes.next() is None
    lanes.done(suspect)
    assert ran(lanes) == [3]


def test_who_withholds_twice_lets_out_what_was_theirs() -> None:
    withheld = Withheld()
    mine, theirs = withheld.add([1, 2]), withheld.add([2, 3])
    assert (mine, theirs) == ({1, 2}, {3})
    withheld.aside += [job(1), job(2), job(3)]
    assert [back.id for back in withheld.let_out(theirs)] == [3]
    withheld.remove({1})
    assert [back.id for back in withheld.let_out(mine)] == [2]
    assert not withheld.ids and not withheld.aside


def test_what_is_dropped_counts_for_no_lane_and_is_known_until_it_is_forgotten() -> None:
    roll, lane = Roll(), Lane()
    roll.hold(lane, 1)
    roll.hold(lane, 2)
    roll.drop(1, runs=False)
    roll.drop(2, runs=True)
    roll.drop(3, runs=False)
    assert (lane.held, sorted(roll.known), roll.dropped) == (1, [1, 2], {1, 2})
    roll.forget(1)
    roll.forget(2)
    assert (lane.held, roll.known, roll.dropped) == (0, {}, set())
