"""What is owed to a queue: nothing that goes on for long keeps the messages in hand from being hidden again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from daemon.s3.queues import Message, MessageQueue, Refused
from daemon.sources.base import Watcher
from daemon.sources.sqs_held import Held
from daemon.sources.sqs_keeper import Keeper
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

    def hide(self, messages: list[Message], seconds: int) -> Refused:
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
