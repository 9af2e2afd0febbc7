"""What is owed to a queue: nothing that goes on for long keeps the messages in hand from being hidden again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import pytest

from daemon.errors import EnvironmentProblem
from daemon.s3.queues import Message, MessageQueue, Refused
from daemon.sources.base import Watcher
from daemon.sources.sqs_held import Held
from daemon.sources.sqs_keeper import LONGEST_HOLD_SECONDS, Keeper
from tests.harness import until

NOW = 1_000_000.0
HIDDEN_SECONDS = 1
WORKED_ON = Message("worked on", "1", "{}")


class Unpaused:
    """A watch that is not paused."""

    def paused(self) -> bool:
        return False

    def running(self) -> set[bytes]:
        return {b"a"}


class Requests:
    """A queue that hides what it is told to; each test says what comes of deleting."""

    def __init__(self, delete: Callable[[list[Message]], list[Message]]) -> None:
        self.delete = delete
        self.hidden: list[tuple[Message, int]] = []
        self.hides = True

    def hide(self, messages: list[Message], seconds: int) -> Refused:
        if not self.hides:
            raise EnvironmentProblem("hiding is not allowed", "allow it")
        self.hidden.extend((message, seconds) for message in messages)
        return Refused([], [])


@contextmanager
def keeping(queue: Requests, held: Held) -> Iterator[Keeper]:
    keeper = Keeper(cast(MessageQueue, queue), held, cast(Watcher, Unpaused()), HIDDEN_SECONDS, lambda: NOW)
    keeper.start()
    yield keeper
    keeper.close()


def hold_done(held: Held, name: str) -> None:
    held.hold(Message(name, "1", "{}"), {}, since=NOW, hidden_until=NOW + 60)


def hold_worked_on(held: Held, since: float = NOW) -> None:
    """It is about to show itself."""
    held.hold(WORKED_ON, {b"a": None}, since=since, hidden_until=NOW)


def test_messages_are_hidden_again_while_others_are_done_with_all_the_time() -> None:
    held, numbers, ended = Held(), itertools.count(), threading.Event()

    def delete(messages: list[Message]) -> list[Message]:
        number = next(numbers)
        if number == 3:
            hold_worked_on(held)
        if not ended.wait(0.001):
            hold_done(held, f"next {number}")
        return []

    queue = Requests(delete)
    hold_done(held, "first")
    with keeping(queue, held):
        try:
            until(lambda: (WORKED_ON, HIDDEN_SECONDS) in queue.hidden, "it is hidden again", 10)
        finally:
            ended.set()


def refuse(messages: list[Message]) -> list[Message]:
    raise EnvironmentProblem("deleting is not allowed", "allow it")


def fail(messages: list[Message]) -> list[Message]:
    """One InternalError for each of them."""
    return messages


@pytest.mark.parametrize("delete", [refuse, fail])
def test_while_nothing_is_deleted_messages_are_hidden_again(delete: Callable[[list[Message]], list[Message]]) -> None:
    held, queue = Held(), Requests(delete)
    hold_done(held, "done")
    hold_worked_on(held)
    with keeping(queue, held) as keeper:
        until(lambda: (WORKED_ON, HIDDEN_SECONDS) in queue.hidden, "it is hidden again", 10)
        until(lambda: raises(keeper), "the problem is told", 10)


def test_while_nothing_is_deleted_old_messages_are_shown() -> None:
    held, queue = Held(), Requests(refuse)
    hold_done(held, "done")
    hold_worked_on(held, since=NOW - LONGEST_HOLD_SECONDS - 1)
    with keeping(queue, held):
        until(lambda: (WORKED_ON, 0) in queue.hidden, "it is shown", 10)


def test_while_nothing_is_hidden_messages_are_deleted() -> None:
    deleted: list[Message] = []

    def delete(messages: list[Message]) -> list[Message]:
        deleted.extend(messages)
        return []

    held, queue = Held(), Requests(delete)
    queue.hides = False
    hold_worked_on(held)
    with keeping(queue, held) as keeper:
        until(lambda: raises(keeper), "the problem is told", 10)
        hold_done(held, "done")
        until(lambda: deleted, "it is deleted", 10)
        queue.hides = True
        until(lambda: not raises(keeper), "the problem is over", 10)
    assert [message.id for message in deleted] == ["done"]


def raises(keeper: Keeper) -> bool:
    try:
        keeper.check()
    except EnvironmentProblem:
        return True
    return False
