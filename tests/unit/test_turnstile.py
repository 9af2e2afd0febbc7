"""Who passes the turnstile, and when."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.errors import Stopped
from daemon.turnstile import Turnstile
from tests.harness import until


def never() -> bool:
    return False


def test_the_lowest_order_passes_first() -> None:
    turnstile = Turnstile(1)
    passed: list[tuple[int, int]] = []

    def enter(order: tuple[int, int]) -> None:
        with turnstile.passed(order, never):
            passed.append(order)

    orders = [(-1, 3), (-10, 9), (-1, 2), (-5, 1), (-10, 4)]
    with ThreadPoolExecutor(len(orders)) as threads, turnstile.passed((0, 0), never):
        for order in orders:
            threads.submit(enter, order)
        until(lambda: turnstile.waiting == len(orders), "all wait")
    assert passed == sorted(orders)


def test_no_more_than_its_places_are_inside() -> None:
    turnstile, lock = Turnstile(3), threading.Lock()
    inside = most = 0

    def enter(number: int) -> None:
        nonlocal inside, most
        with turnstile.passed((0, number), never):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(500)))
    assert inside == 0 and 1 <= most <= 3


def test_who_is_stopped_leaves_the_queue_to_the_others() -> None:
    turnstile, stop = Turnstile(1), threading.Event()

    def enter() -> str:
        with turnstile.passed((0, 2), never):
            return "passed"

    def give_up() -> str:
        with pytest.raises(Stopped), turnstile.passed((0, 1), stop.is_set):
            pass
        return "stopped"

    with ThreadPoolExecutor(2) as threads:
        with turnstile.passed((0, 0), never):
            stopped, passed = threads.submit(give_up), threads.submit(enter)
            until(lambda: turnstile.waiting == 2, "both wait")
            stop.set()
            turnstile.wake()
            assert stopped.result(20) == "stopped"
            assert not passed.done()
        assert passed.result(20) == "passed"


def test_a_place_is_given_back_after_an_error() -> None:
    turnstile = Turnstile(1)
    for _ in range(2):
        with pytest.raises(KeyError), turnstile.passed((0, 0), never):
            raise KeyError
