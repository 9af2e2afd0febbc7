"""Repeats in the log are counted, and said to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemon.repeats import MOST_KINDS, WINDOW_SECONDS, Repeats


class Book:
    """What was written about repeats, a clock, and a timer that goes off when told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.repeats = Repeats(
            lambda *line: self.lines.append(line), lambda: self.now, lambda *timer: self.timers.append(timer)
        )

    def says(self, event: str, level: str = "warning", **values: Any) -> bool:
        return self.repeats.is_new(level, event, {"event": event, **values})


def test_the_first_is_written_and_the_rest_is_counted() -> None:
    book = Book()
    assert book.says("attempt failed", watch="a", error="no", job=1)
    assert not any(book.says("attempt failed", watch="a", error="no", job=number) for number in range(5))
    assert book.lines == []
    book.now = WINDOW_SECONDS
    assert book.says("attempt failed", watch="a", error="no", job=6)
    assert book.lines == [("warning", "attempt failed (repeated 5 times)", {"watch": "a", "error": "no"})]


def test_what_differs_is_no_repeat() -> None:
    book = Book()
    assert book.says("attempt failed", watch="a", error="no")
    assert book.says("attempt failed", watch="b", error="no")
    assert book.says("attempt failed", watch="a", error="never")
    assert book.says("error file not written", watch="a", error="no")
    assert book.says("attempt failed", "error", watch="a", error="no")
    assert book.says("event not delivered", target="command", error="no")
    assert book.says("event not delivered", target="webhook", error="no")
    assert book.says("converter replaced", reason="SIGSEGV", pid=1)
    assert not book.says("converter replaced", reason="SIGSEGV", pid=2)


def test_a_line_a_document_is_never_held_back() -> None:
    book = Book()
    for number in range(3):
        assert book.says("converted", "info", watch="a", job=number)
        assert book.says("failed", watch="a", job=number, error="The document holds no text.")
        assert book.says("superseded", "info", watch="a", job=number)


def test_no_thread_to_be_had_is_no_error() -> None:
    def refuse(seconds: float, call: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    book = Book()
    book.repeats = Repeats(lambda *line: book.lines.append(line), lambda: book.now, refuse)
    assert book.says("attempt failed", error="no")
    assert not book.says("attempt failed", error="no")
    book.now = WINDOW_SECONDS
    book.says("started")
    book.says("watch paused", error="sick")
    assert book.lines == [("warning", "attempt failed (repeated 1 time)", {"error": "no"})]


def test_how_often_is_said_even_if_nothing_follows() -> None:
    book = Book()
    book.says("attempt failed", error="no")
    book.says("watch paused", error="sick")
    assert book.timers == [], "a line that came once needs no second"
    book.now = 10
    book.says("attempt failed", error="no")
    book.now = 20
    book.says("watch paused", error="sick")
    ((seconds, flush),) = book.timers
    assert WINDOW_SECONDS - 10 <= seconds <= WINDOW_SECONDS
    book.now = 10 + seconds
    flush()
    events = [event for _, event, _ in book.lines]
    assert events == ["attempt failed (repeated 1 time)", "watch paused (repeated 1 time)"]


def test_the_timer_goes_on_while_something_is_counted() -> None:
    book = Book()
    book.says("a", error="no")
    book.says("a", error="no")
    book.now = 30
    book.says("b", error="no")
    book.says("b", error="no")
    book.now = WINDOW_SECONDS + 1
    book.timers.pop()[1]()
    assert [event for _, event, _ in book.lines] == ["a (repeated 1 time)"]
    assert len(book.timers) == 1
    book.now = WINDOW_SECONDS + 31
    book.timers.pop()[1]()
    assert len(book.lines) == 2
    assert book.timers == []


def test_no_flood_fills_the_memory() -> None:
    book = Book()
    for number in range(3 * MOST_KINDS):
        assert book.says("attempt failed", error=str(number))
        book.says("attempt failed", error=str(number))
    assert len(book.lines) >= 2 * MOST_KINDS, "what is forgotten early is said early"
