"""What is on its way to the writer: nothing is lost, in order, at once for whom somebody waits, else together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from daemon.inflow import BATCH, PATIENT, Inflow
from tests.harness import until

AGES = 3600.0


def taken_by(inflow: Inflow[int]) -> tuple[list[list[int]], threading.Thread]:
    """Takes until the inflow is closed, in a thread of its own."""
    batches: list[list[int]] = []

    def take() -> None:
        while (batch := inflow.take()) is not None:
            batches.append(batch)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    return batches, thread


def within(seconds: float, call: Callable[[], list[int] | None]) -> list[int] | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result(seconds)


def test_what_is_there_is_handed_out_at_once_and_in_order() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    for number in range(3):
        inflow.put(number)
    assert within(30, inflow.take) == [0, 1, 2]


def test_who_waits_for_an_item_is_woken_by_it() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    batches, _ = taken_by(inflow)
    for number in range(100):
        inflow.put(number)
        until(lambda number=number: batches and batches[-1] == [number], "it is taken")  # type: ignore[misc]
    inflow.close()


def test_a_patient_item_waits_for_one_that_is_not() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    batches, _ = taken_by(inflow)
    inflow.put(0, patient=True)
    inflow.put(1, patient=True)
    inflow.put(2)
    until(lambda: batches, "they are taken")
    assert batches == [[0, 1, 2]]
    inflow.close()


def test_a_patient_item_does_not_wait_for_ever() -> None:
    inflow: Inflow[int] = Inflow(0.001)
    batches, _ = taken_by(inflow)
    for number in range(20):
        inflow.put(number, patient=True)
        until(lambda number=number: [number] in batches, "it is taken")  # type: ignore[misc]
    inflow.close()


def test_many_patient_items_wait_no_longer() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    batches, _ = taken_by(inflow)
    for number in range(PATIENT - 1):
        inflow.put(number, patient=True)
    assert not batches
    inflow.put(PATIENT - 1, patient=True)
    until(lambda: batches, "they are taken")
    assert batches == [list(range(PATIENT))]
    inflow.close()


def test_a_batch_is_bounded_and_what_is_left_comes_at_once() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    for number in range(2 * BATCH + 1):
        inflow.put(number, patient=True)
    batches, thread = taken_by(inflow)
    until(lambda: sum(map(len, batches)) == 2 * BATCH + 1, "all are taken")
    assert [len(batch) for batch in batches] == [BATCH, BATCH, 1]
    inflow.close()
    thread.join(30)
    assert not thread.is_alive()


def test_closing_hands_out_what_is_left_and_ends_the_waiting() -> None:
    inflow: Inflow[int] = Inflow(AGES)
    inflow.put(0, patient=True)
    inflow.close()
    assert within(30, inflow.take) == [0]
    assert within(30, inflow.take) is None
    waiting: Inflow[int] = Inflow(AGES)
    _, thread = taken_by(waiting)
    waiting.close()
    thread.join(30)
    assert not thread.is_alive()


def test_nothing_is_lost_and_each_thread_s_items_stay_in_order() -> None:
    inflow: Inflow[int] = Inflow(0.0001)
    batches, thread = taken_by(inflow)

    def put(start: int) -> None:
        for number in range(start, start + 2000):
            inflow.put(number, patient=number % 3 != 0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(0, 80_000, 10_000)))
    until(lambda: sum(map(len, batches)) == 16_000, "all are taken")
    inflow.close()
    thread.join(30)
    items = [item for batch in batches for item in batch]
    for start in range(0, 80_000, 10_000):
        assert [item for item in items if start <= item < start + 10_000] == list(range(start, start + 2000))
