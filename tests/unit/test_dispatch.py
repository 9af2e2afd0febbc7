"""The dispatcher: order, pauses, delays, suspects, one job a document, overflow to the job table."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest

from daemon.dispatch import SUSPECT_PATIENCE_SECONDS, Dispatcher
from daemon.model import Job


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Table:
    """The pending jobs of a job table, as `refill` sees them."""

    def __init__(self) -> None:
        self.rows: list[tuple[Job, float]] = []
        self.asked = 0

    def refill(self, watch: str, limit: int) -> list[tuple[Job, float]]:
        self.asked += 1
        rows = [(job, after) for job, after in self.rows if job.watch == watch]
        return sorted(rows, key=lambda row: (-row[0].priority, row[0].id))[:limit]


def job(number: int, source: str | None = None, *, watch: str = "a", priority: int = 5, interruptions: int = 0) -> Job:
    name = source or f"{number}.pdf"
    return Job(number, watch, name.encode(), "1", 1, priority, 0, interruptions, 0.0)


def make(capacity: int = 100) -> tuple[Dispatcher, Table, Clock]:
    table, clock = Table(), Clock()
    dispatcher = Dispatcher(["a", "b"], table.refill, clock, clock, 100.0, capacity)
    dispatcher.release_suspects()
    return dispatcher, table, clock


def take(dispatcher: Dispatcher) -> Job:
    """Take in a thread with a deadline, so that a lost job fails the test instead of hanging it."""
    result: list[Job | None] = []
    thread = threading.Thread(target=lambda: result.append(dispatcher.take()), daemon=True)
    thread.start()
    thread.join(10)
    assert result and result[0] is not None
    return result[0]


def nothing_to_take(dispatcher: Dispatcher) -> bool:
    with dispatcher._changed:
        return dispatcher._lanes.next() is None


def test_priority_goes_before_age_across_watches() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1), job(2, priority=9, watch="b"), job(3, priority=9), job(4)])
    assert [take(dispatcher).id for _ in range(4)] == [2, 3, 1, 4]


def test_a_paused_watch_hands_out_nothing_and_others_go_on() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1), job(2, watch="b")])
    dispatcher.pause("a", "environment")
    assert take(dispatcher).id == 2
    assert nothing_to_take(dispatcher)
    dispatcher.resume("a", "environment")
    assert take(dispatcher).id == 1


def test_every_reason_for_a_pause_must_be_lifted() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    dispatcher.pause("a", "environment")
    dispatcher.pause("a", "operator")
    dispatcher.resume("a", "environment")
    assert nothing_to_take(dispatcher)


def test_two_versions_of_a_document_never_run_together() -> None:
    dispatcher, _, _ = make()
    old, new, other = job(1, "x"), job(2, "x"), job(3, "y")
    dispatcher.add([old, new, other])
    assert take(dispatcher) is old
    assert take(dispatcher) is other
    assert nothing_to_take(dispatcher)
    dispatcher.done(old)
    assert take(dispatcher) is new


def test_a_delayed_job_waits_for_its_time() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1)], not_before=clock.now + 5)
    assert nothing_to_take(dispatcher)
    assert not dispatcher.idle()
    clock.now += 6
    assert take(dispatcher).id == 1


def test_a_clock_set_back_holds_nothing_up() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1)], not_before=clock.now + 1e6)
    clock.now += 101
    assert take(dispatcher).id == 1


def test_a_suspect_runs_alone_and_last() -> None:
    dispatcher, _, _ = make()
    suspect, normal = job(1, interruptions=2), job(2)
    dispatcher.add([suspect, normal])
    assert take(dispatcher) is normal
    assert nothing_to_take(dispatcher)
    dispatcher.done(normal)
    assert take(dispatcher) is suspect
    dispatcher.add([job(3)])
    assert nothing_to_take(dispatcher)
    dispatcher.done(suspect)
    assert take(dispatcher).id == 3


def test_a_suspect_waits_at_the_start_until_the_rest_is_known() -> None:
    table, clock = Table(), Clock()
    dispatcher = Dispatcher(["a"], table.refill, clock, clock)
    dispatcher.add([job(1, interruptions=2)])
    assert nothing_to_take(dispatcher)
    dispatcher.release_suspects()
    assert take(dispatcher).id == 1


def test_a_suspect_is_not_starved_by_a_steady_stream() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1, interruptions=2), job(2), job(3)])
    running = take(dispatcher)
    clock.now += SUSPECT_PATIENCE_SECONDS + 1
    assert nothing_to_take(dispatcher), "while one runs the suspect must wait, and nothing may pass it any more"
    dispatcher.done(running)
    assert take(dispatcher).id == 1


def test_dropped_jobs_are_not_handed_out() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1), job(2), job(3, interruptions=2)])
    dispatcher.add([job(4)], not_before=clock.now + 1)
    dispatcher.drop([1, 3, 4])
    assert take(dispatcher).id == 2
    clock.now += 2
    assert nothing_to_take(dispatcher)


def test_a_job_is_handed_out_once_however_often_it_is_added() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    dispatcher.add([job(1)])
    taken = take(dispatcher)
    assert nothing_to_take(dispatcher)
    dispatcher.done(taken)
    assert dispatcher.idle()


def test_a_retry_that_comes_before_the_worker_is_done_is_not_lost() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    taken = take(dispatcher)
    dispatcher.add([job(1)])  # its row is failed already, and retried: pending
    assert nothing_to_take(dispatcher)
    dispatcher.done(taken)
    assert not dispatcher.idle()
    dispatcher.done(take(dispatcher))
    assert dispatcher.idle()


def test_a_refill_does_not_bring_back_what_runs() -> None:
    dispatcher, table, _ = make()
    table.rows = [(job(1), 0.0)]
    dispatcher.fill()
    taken = take(dispatcher)
    dispatcher.fill()
    dispatcher.done(taken)
    assert dispatcher.idle()


def test_what_is_dropped_and_pending_again_is_handed_out_wherever_it_lies() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1), job(2), job(3, "same"), job(4, "same"), job(5, interruptions=2)])
    dispatcher.add([job(6)], not_before=1050.0)
    assert [take(dispatcher).id for _ in range(3)] == [1, 2, 3]
    assert nothing_to_take(dispatcher), "4 waits behind 3, 5 for all others to end, 6 for its time"
    dispatcher.pause("a", "operator")
    dispatcher.add([job(7), job(8)])
    dispatcher.drop([4, 5, 6, 8])
    dispatcher.add([job(4, "same"), job(5), job(6), job(8)])
    dispatcher.resume("a", "operator")
    assert [take(dispatcher).id for _ in range(4)] == [5, 6, 7, 8]
    assert nothing_to_take(dispatcher), "4 waits behind 3"
    dispatcher.done(job(3, "same"))
    assert take(dispatcher).id == 4
    clock.now = 2000.0
    assert nothing_to_take(dispatcher), "none is handed out twice"


def test_what_is_withheld_is_not_handed_out_and_keeps_its_place() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1), job(2), job(3), job(4), job(5), job(6, interruptions=2)])
    running = take(dispatcher)
    with dispatcher.withheld([1, 2, 3, 6, 99]):
        assert take(dispatcher).id == 4
        dispatcher.give_back(running)
        dispatcher.drop([3])
        assert take(dispatcher).id == 5
        assert nothing_to_take(dispatcher)
        assert not dispatcher.idle()
        clock.now += SUSPECT_PATIENCE_SECONDS + 1
        assert nothing_to_take(dispatcher)
    for number in (4, 5):
        dispatcher.done(job(number))
    clock.now -= SUSPECT_PATIENCE_SECONDS + 1
    for number in (1, 2, 6):
        assert take(dispatcher).id == number
        dispatcher.done(job(number))
    assert dispatcher.idle()


def test_a_dropped_version_behind_a_running_one_stays_dropped() -> None:
    dispatcher, _, _ = make()
    first, second, third = job(1, "x"), job(2, "x"), job(3, "x")
    dispatcher.add([first, second])
    assert take(dispatcher) is first
    assert nothing_to_take(dispatcher)
    dispatcher.drop([2])
    dispatcher.add([third])
    dispatcher.done(first)
    assert take(dispatcher) is third
    dispatcher.done(third)
    assert dispatcher.idle()


def test_a_retry_that_is_cancelled_while_its_worker_has_not_said_that_it_ended_does_not_run() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1, "x"), job(2, "y")])
    first = take(dispatcher)
    dispatcher.add([job(1, "x")])
    dispatcher.drop([1])
    dispatcher.done(first)
    assert take(dispatcher).id == 2


def test_what_is_retried_once_more_then_runs_once() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1, "x"), job(2, "y")])
    first = take(dispatcher)
    dispatcher.add([job(1, "x")])
    dispatcher.drop([1])
    dispatcher.add([job(1, "x")])
    dispatcher.done(first)
    again = take(dispatcher)
    assert again.id == 1
    dispatcher.done(again)
    assert take(dispatcher).id == 2
    assert nothing_to_take(dispatcher)


def test_what_is_given_back_comes_again_with_its_attempts() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    taken = take(dispatcher)
    dispatcher.give_back(replace(taken, attempts=1))
    assert take(dispatcher).attempts == 1


def test_more_jobs_than_memory_holds_all_come_in_order() -> None:
    dispatcher, table, _ = make(capacity=8)
    jobs = [job(number) for number in range(1, 101)]
    for one in jobs:
        table.rows.append((one, 0.0))
        dispatcher.add([one])
    seen = []
    for _ in jobs:
        taken = take(dispatcher)
        seen.append(taken.id)
        table.rows = [row for row in table.rows if row[0].id != taken.id]
        dispatcher.done(taken)
    assert seen == [one.id for one in jobs]
    assert dispatcher.idle()
    assert 0 < table.asked <= 40


def test_a_job_added_during_a_refill_is_not_lost() -> None:
    table, clock = Table(), Clock()
    dispatcher: Dispatcher

    def refill(watch: str, limit: int) -> list[tuple[Job, float]]:
        rows = table.refill(watch, limit)
        if watch == "a" and table.asked == 1:
            late = job(50)
            table.rows.append((late, 0.0))
            dispatcher.add([late])
        return rows

    dispatcher = Dispatcher(["a"], refill, clock, clock, 100.0, 4)
    for number in range(1, 8):
        table.rows.append((job(number), 0.0))
        dispatcher.add([job(number)])
    seen = set()
    for _ in range(8):
        taken = take(dispatcher)
        seen.add(taken.id)
        table.rows = [row for row in table.rows if row[0].id != taken.id]
        dispatcher.done(taken)
    assert seen == {1, 2, 3, 4, 5, 6, 7, 50}


def test_a_job_that_ends_during_a_refill_does_not_come_back() -> None:
    table, clock = Table(), Clock()
    dispatcher: Dispatcher
    running: list[Job] = []

    def refill(watch: str, limit: int) -> list[tuple[Job, float]]:
        rows = table.refill(watch, limit)
        if running:
            dispatcher.done(running.pop())
        return rows

    dispatcher = Dispatcher(["a"], refill, clock, clock, 100.0, 4)
    dispatcher.add([job(1)])
    running.append(take(dispatcher))
    table.rows = [(job(1), 0.0)]
    dispatcher.fill()
    assert nothing_to_take(dispatcher)
    assert dispatcher.idle()


@pytest.mark.parametrize("retried", [False, True])
def test_a_job_that_is_cancelled_during_a_refill_does_not_come_back_unless_it_is_retried(*, retried: bool) -> None:
    table, clock = Table(), Clock()
    dispatcher: Dispatcher

    def refill(watch: str, limit: int) -> list[tuple[Job, float]]:
        rows = table.refill(watch, limit)
        with dispatcher.withheld([8]):
            dispatcher.drop([8])
        if retried:
            dispatcher.add([job(8)])
        return rows

    dispatcher = Dispatcher(["a"], refill, clock, clock, 100.0, 4)
    table.rows = [(job(8), 0.0), (job(9), 0.0)]
    dispatcher.fill()
    assert [take(dispatcher).id for _ in range(1 + retried)] == ([8, 9] if retried else [9])
    assert nothing_to_take(dispatcher)


def test_a_job_that_is_withheld_during_a_refill_comes_when_it_is_let_out_unless_it_is_cancelled() -> None:
    dispatcher, table, _ = make()
    table.rows = [(job(8), 0.0), (job(9), 0.0)]
    with dispatcher.withheld([8, 9]):
        dispatcher.fill()
        assert nothing_to_take(dispatcher)
        dispatcher.drop([8])
    assert take(dispatcher).id == 9
    assert nothing_to_take(dispatcher)


def test_what_has_ended_during_a_refill_is_remembered_no_longer_than_that() -> None:
    dispatcher, table, _ = make()
    dispatcher.drop([7])
    table.rows = [(job(7), 0.0)]
    dispatcher.fill()
    assert take(dispatcher).id == 7, "it was pending when the refill began"
    assert dispatcher._lanes._roll._ended_meanwhile == set()


def test_what_is_held_leaves_no_room_until_it_ends() -> None:
    dispatcher, _, clock = make()
    assert dispatcher.room("a", 8) == 8
    dispatcher.add([job(1, "x"), job(2, "x"), job(3), job(4, interruptions=2), job(5, watch="b")])
    dispatcher.add([job(6)], not_before=clock.now + 5)
    dispatcher.add([job(3)])
    assert (dispatcher.room("a", 8), dispatcher.room("b", 8)) == (3, 7)
    first = take(dispatcher)
    assert take(dispatcher).id == 3, "the second of x waits behind the first"
    assert dispatcher.room("a", 8) == 3
    assert dispatcher.room("a", 5) == dispatcher.room("a", 1) == dispatcher.room("a", 0) == 0
    dispatcher.done(first)
    assert dispatcher.room("a", 8) == 4
    second = take(dispatcher)
    dispatcher.give_back(second, clock.now + 5)
    assert dispatcher.room("a", 8) == 4, "what is given back has not ended"


def test_what_is_dropped_makes_room_at_once_and_what_runs_when_it_is_done() -> None:
    dispatcher, _, clock = make()
    dispatcher.add([job(1), job(2), job(3, interruptions=2)])
    dispatcher.add([job(4)], not_before=clock.now + 5)
    running = take(dispatcher)
    dispatcher.drop([1, 2, 3, 4, 2, 99])
    assert dispatcher.room("a", 4) == 3
    dispatcher.done(running)
    clock.now += 6
    assert nothing_to_take(dispatcher)
    assert dispatcher.room("a", 4) == 4
    assert dispatcher.idle()


def test_a_retry_of_what_still_runs_holds_one_slot() -> None:
    dispatcher, _, _ = make()
    dispatcher.add([job(1)])
    taken = take(dispatcher)
    dispatcher.add([job(1)])
    assert dispatcher.room("a", 2) == 1
    dispatcher.done(taken)
    assert dispatcher.room("a", 2) == 1
    dispatcher.done(take(dispatcher))
    assert dispatcher.room("a", 2) == 2


def test_there_is_no_room_while_paused_or_stopped() -> None:
    dispatcher, _, _ = make()
    for reason in ("operator", "environment"):
        dispatcher.pause("a", reason)
    dispatcher.resume("a", "operator")
    assert (dispatcher.room("a", 2), dispatcher.room("b", 2)) == (0, 2)
    dispatcher.resume("a", "environment")
    assert dispatcher.room("a", 2) == 2
    dispatcher.stop()
    assert dispatcher.room("a", 2) == 0


def test_there_is_no_room_while_the_job_table_holds_more() -> None:
    dispatcher, table, _ = make(capacity=4)
    for number in range(1, 7):
        table.rows.append((job(number), 0.0))
        dispatcher.add([job(number)])
    assert (dispatcher.room("a", 100), dispatcher.room("b", 100)) == (0, 100)
    for _ in range(6):
        taken = take(dispatcher)
        table.rows = [row for row in table.rows if row[0].id != taken.id]
        dispatcher.done(taken)
    assert dispatcher.room("a", 100) == 100


def test_there_is_no_room_while_the_job_table_is_read() -> None:
    rooms: list[int] = []

    def refill(watch: str, limit: int) -> list[tuple[Job, float]]:
        rooms.append(dispatcher.room("a", 5))
        return [(job(1), 0.0)]

    clock = Clock()
    dispatcher = Dispatcher(["a"], refill, clock, clock)
    dispatcher.fill()
    assert (rooms, dispatcher.room("a", 5)) == ([0], 4)


@pytest.mark.parametrize("seed", range(5))
def test_room_is_right_whatever_becomes_of_the_jobs(seed: int) -> None:
    generator = random.Random(seed)
    dispatcher, _, clock = make()
    held: dict[int, Job] = {}
    running: dict[int, Job] = {}
    retried: set[int] = set()

    def add(number: int) -> None:
        watch, source, priority = generator.choice("ab"), generator.choice("uvwxyz"), generator.randint(1, 3)
        interruptions = generator.choice([0, 0, 0, 2])
        held[number] = job(number, source, watch=watch, priority=priority, interruptions=interruptions)
        dispatcher.add([held[number]], generator.choice([0.0, clock.now + 10]))

    def run() -> None:
        with dispatcher._changed:
            taken = dispatcher._lanes.next()
        if taken is not None:
            running[taken.id] = taken

    def end() -> None:
        ended = running.pop(generator.choice(list(running)))
        if ended.id in retried:
            retried.discard(ended.id)
        else:
            del held[ended.id]
        dispatcher.done(ended)

    def give_back() -> None:
        _, given = running.popitem()
        retried.discard(given.id)
        dispatcher.give_back(given, generator.choice([0.0, clock.now + 10]))

    def drop() -> None:
        number = generator.choice(list(held))
        if number not in running:
            del held[number]
        retried.discard(number)
        dispatcher.drop([number])

    def retry() -> None:
        number = generator.choice(list(held))
        if number not in retried:
            retried.update({number} & running.keys())
            dispatcher.add([held[number]])

    for number in range(1, 1000):
        clock.now += 1
        chosen = generator.choice([run, run, end, give_back, drop, retry, None, None])
        if chosen is None:
            add(number)
        elif chosen is run or (running if chosen in (end, give_back) else held):
            chosen()
        for watch in "ab":
            assert dispatcher.room(watch, 1000) == 1000 - sum(one.watch == watch for one in held.values())


def test_stop_ends_the_waiting() -> None:
    dispatcher, _, _ = make()
    ended = threading.Event()

    def wait() -> None:
        assert dispatcher.take() is None
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    dispatcher.stop()
    assert ended.wait(10)


def test_no_watch_holds_all_workers_while_there_are_others() -> None:
    clock = Clock()
    dispatcher = Dispatcher(["a", "b"], Table().refill, clock, clock, 100.0, running_per_watch=2)
    dispatcher.add([job(number, watch="a", priority=9) for number in range(1, 5)])
    first, second = take(dispatcher), take(dispatcher)
    assert nothing_to_take(dispatcher), "two of this watch are running"
    dispatcher.add([job(9, watch="b")])
    assert take(dispatcher).id == 9
    dispatcher.done(first)
    assert take(dispatcher).id == 3
    dispatcher.give_back(second)
    assert take(dispatcher).id == 2


def test_a_watch_that_is_alone_may_hold_all_workers() -> None:
    clock = Clock()
    dispatcher = Dispatcher(["a"], Table().refill, clock, clock, 100.0, running_per_watch=1)
    dispatcher.add([job(1), job(2)])
    assert [take(dispatcher).id, take(dispatcher).id] == [1, 2]


def test_waiting_counts_so_that_low_priorities_are_not_starved() -> None:
    dispatcher, _, _ = make()
    old = replace(job(1, priority=1), discovered_at=0.0)
    urgent = [replace(job(number, priority=10), discovered_at=number * 1000.0) for number in range(2, 12)]
    dispatcher.add([*urgent, old])
    order = [take(dispatcher).id for _ in range(11)]
    assert order[0] == 2, "the urgent one goes first"
    assert order.index(1) == 4, "nine steps of priority are worth an hour and a half"


def test_a_watch_that_is_opened_later_is_loaded_from_the_table() -> None:
    table, clock = Table(), Clock()
    table.rows = [(job(7, watch="new"), 0.0)]
    dispatcher = Dispatcher([], table.refill, clock, clock, 100.0)
    assert not dispatcher.has("new")
    dispatcher.open("new")
    assert dispatcher.has("new")
    assert take(dispatcher).id == 7
