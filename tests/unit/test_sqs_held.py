"""Which messages wait for what: nothing is deleted too early, and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.model import Candidate
from daemon.s3.queues import Message
from daemon.sources.sqs_held import Held

A, B = b"a", b"b"


def message(name: str, receipt: str = "1") -> Message:
    return Message(name, f"{name}-{receipt}", "{}")


def hold(held: Held, one: Message, *sources: bytes, since: float = 0.0, hidden_until: float = 60.0) -> Message:
    held.hold(one, dict.fromkeys(sources), since=since, hidden_until=hidden_until)
    return one


def ids(messages: list[Message]) -> list[str]:
    return sorted(one.id for one in messages)


def test_a_message_is_done_with_when_all_its_documents_are() -> None:
    held = Held()
    hold(held, message("m"), A, B)
    held.wait_for(A, "1")
    held.wait_for(B, "1")
    held.ended(A, "1")
    assert held.finished() == [] and not held.news.is_set()
    held.ended(B, "1")
    assert held.finished() == [message("m")] and held.news.is_set()
    assert len(held) == 1, "it is in hand until it is deleted"
    held.deleted(held.finished())
    assert len(held) == 0


def test_a_message_about_nothing_is_done_with_at_once() -> None:
    held = Held()
    hold(held, message("m"))
    assert ids(held.finished()) == ["m"]


def test_a_document_that_is_gone_is_not_waited_for() -> None:
    held = Held()
    hold(held, message("m"), A)
    held.gone(A)
    assert ids(held.finished()) == ["m"]


def test_the_end_of_an_older_version_counts_for_no_message() -> None:
    held = Held()
    hold(held, message("old"), A)
    held.wait_for(A, "1")
    hold(held, message("new"), A)
    held.ended(A, "1")
    assert held.finished() == [], "the document is about to be looked at"
    held.wait_for(A, "2")
    held.ended(A, "1")
    assert held.finished() == []
    held.ended(A, "2")
    assert ids(held.finished()) == ["new", "old"]


def test_a_superseded_version_leaves_its_messages_waiting() -> None:
    held = Held()
    hold(held, message("m"), A)
    held.wait_for(A, "2")
    assert not held.superseded(A, "1"), "nobody waits for that one"
    assert held.superseded(A, "2")
    held.ended(A, "2")
    assert held.finished() == [] and held.waited_for() == []
    held.wait_for(A, "3")
    assert held.waited_for() == [A]
    held.ended(A, "3")
    assert ids(held.finished()) == ["m"]


def test_of_a_message_that_comes_again_only_the_last_receipt_counts() -> None:
    held = Held()
    first = hold(held, message("m", "1"), A)
    again = hold(held, message("m", "2"), A)
    held.forget([first])
    held.wait_for(A, "1")
    held.ended(A, "1")
    assert held.finished() == [again]
    third = hold(held, message("m", "3"), A)
    held.deleted([again])
    assert len(held) == 1
    held.gone(A)
    assert held.finished() == [third]


def test_a_forgotten_message_waits_for_nothing() -> None:
    held = Held()
    lost, kept = hold(held, message("lost"), A, B), hold(held, message("kept"), A)
    held.forget([lost])
    held.wait_for(A, "1")
    held.wait_for(B, "1")
    held.ended(B, "1")
    held.ended(A, "1")
    assert held.finished() == [kept]
    assert len(held) == 1


def test_abandoned_messages_are_left_to_the_queue() -> None:
    held = Held()
    hold(held, message("m"), A, B)
    held.abandon(A)
    held.abandon(b"unheard of")
    assert len(held) == 0 and held.waited_for() == []


def test_the_last_version_told_is_remembered() -> None:
    held = Held()
    told = Candidate(A, "5-x", 5)
    held.hold(message("m"), {A: told}, since=0, hidden_until=60)
    hold(held, message("n"), A)
    assert held.told(A) == told
    assert held.told(B) is None
    held.gone(A)
    assert held.told(A) is None


def test_messages_are_hidden_again_in_time() -> None:
    held = Held()
    first = hold(held, message("first"), A, hidden_until=60)
    second = hold(held, message("second"), B, hidden_until=80)
    assert held.to_hide(60) == []
    assert held.to_hide(61) == [first]
    assert held.to_hide(90, only={B}) == [second]
    assert held.to_hide(90, only=set()) == []
    held.hidden([first, message("second", "of another time")], 120)
    assert held.to_hide(90) == [second]


def test_old_messages_are_found() -> None:
    held = Held()
    old = hold(held, message("old"), A, since=10)
    hold(held, message("young"), A, since=20)
    assert held.older_than(15) == [old]


def test_after_the_end_what_runs_may_still_be_done_with() -> None:
    held = Held()
    running, mixed = hold(held, message("running"), A), hold(held, message("mixed"), A, B)
    waiting, done = hold(held, message("waiting"), B), hold(held, message("done"))
    assert held.rest() == ([], []), "nothing before the end"
    held.wait_for(A, "1")
    held.wait_for(B, "1")
    held.close({A})
    assert held.rest() == ([done], [waiting])
    assert held.rest() == ([], []), "each is told once"
    held.ended(A, "1")
    assert held.rest() == ([running], [mixed])
    assert len(held) == 0


def test_after_the_end_what_is_given_back_is_left_to_others() -> None:
    held = Held()
    early, late, newer = hold(held, message("early"), A), hold(held, message("late"), B), hold(held, message("c"), b"c")
    held.given_back(A)
    held.wait_for(b"c", "1")
    held.close({A, B, b"c"})
    assert held.rest() == ([], [early])
    held.given_back(B)
    assert held.rest() == ([], [late])
    held.superseded(b"c", "1")
    assert held.rest() == ([], [newer])


@pytest.mark.parametrize("end", [Held.ended, Held.superseded])
def test_what_was_called_off_may_run_again_in_a_newer_version(end: Callable[[Held, bytes, str], object]) -> None:
    held = Held()
    held.given_back(A)
    end(held, A, "1")
    newer = hold(held, message("newer"), A)
    held.wait_for(A, "2")
    held.close({A})
    assert held.rest() == ([], []), "it is worked on"
    held.ended(A, "2")
    assert held.rest() == ([newer], [])
