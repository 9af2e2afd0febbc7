"""Keeps what is owed to the queue: messages done with are deleted, those in hand stay hidden from other daemons."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from daemon.errors import ConvertdError, EnvironmentProblem, FatalError
from daemon.s3.queues import Message, MessageQueue
from daemon.sources.base import Watcher
from daemon.sources.sqs_held import Held

LONGEST_HOLD_SECONDS = 11.5 * 3600
"""SQS lets nobody hide a message for more than 12 hours."""
HIDE_AGAIN_SHARE = 3  # of the time that a message is hidden: with one part of so many gone it is hidden anew
LOOKS_PER_HIDING = 12
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
JOIN_SECONDS = 0.7


class Keeper:
    """A thread beside the one that receives. `close` ends it; `check` raises what it meets.

    It must not be the receiving thread, which waits for looks at a bucket, and not those of the workers, which must not
    wait for the queue.
    """

    def __init__(
        self,
        queue: MessageQueue,
        held: Held,
        watcher: Watcher,
        hidden_seconds: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._held = held
        self._watcher = watcher
        self._hidden_seconds = hidden_seconds
        self._monotonic = monotonic
        self._ending = threading.Event()
        self._failures = 0
        self._problem: EnvironmentProblem | None = None
        self._died: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sqs-keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def check(self) -> None:
        """Raise EnvironmentProblem while the queue does not take what is owed to it: then nothing more may be received,
        or documents would be converted again and again. Raises FatalError if the thread has died."""
        if self._died is not None:
            raise FatalError(f"a part of convertd died: {self._died!r}") from self._died
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        """Delete what is done with, show others at once what will not be done here, and end.

        A queue that does not answer is not waited for: it shows the messages to others by itself, later.
        """
        self._ending.set()
        self._held.news.set()
        self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                self._held.news.wait(self._hidden_seconds / LOOKS_PER_HIDING)
                self._held.news.clear()
                self._tidy()
            self._held.close(self._watcher.running())
            settle_rest(self._queue, self._held)
        except BaseException as error:
            self._died = error  # who calls `check` passes it on

    def _tidy(self) -> None:
        """All of it, whatever fails: a queue that lets nobody delete may yet hide what is worked on."""
        problems = [_problem(step) for step in (self._hide_again, self._show_old, self._delete)]
        self._problem = next((problem for problem in problems if problem is not None), None)
        if self._problem is None:
            self._failures = 0
        else:
            self._ending.wait(RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)])
            self._failures += 1
            self._held.news.set()  # what could not be deleted is no news any more

    def _delete(self) -> None:
        """What is done with meanwhile is news and has its turn after what else is owed."""
        if finished := self._held.finished():
            again = self._queue.delete(finished)
            self._held.deleted([message for message in finished if message not in again])
            if again:
                raise EnvironmentProblem(f"the queue did not delete {len(again)} messages", "convertd tries it again.")

    def _show_old(self) -> None:
        old = self._held.older_than(self._monotonic() - LONGEST_HOLD_SECONDS)
        if old:
            self._queue.hide(old, 0)
            self._held.forget(old)

    def _hide_again(self) -> None:
        """While the watch is paused others shall have what has not begun here."""
        now = self._monotonic()
        soon = now + self._hidden_seconds * (HIDE_AGAIN_SHARE - 1) / HIDE_AGAIN_SHARE
        messages = self._held.to_hide(soon, self._watcher.running() if self._watcher.paused() else None)
        if messages:
            refused = self._queue.hide(messages, self._hidden_seconds)
            self._held.forget(refused.lost)
            kept = [message for message in messages if message not in refused.lost + refused.again]
            self._held.hidden(kept, now + self._hidden_seconds)


def _problem(step: Callable[[], None]) -> EnvironmentProblem | None:
    try:
        step()
    except EnvironmentProblem as problem:
        return problem
    return None


def settle_rest(queue: MessageQueue, held: Held) -> None:
    """After `held.close`: have said to the queue what can be said now."""
    settle(queue, *held.rest())


def settle(queue: MessageQueue, finished: list[Message], idle: list[Message]) -> None:
    """Have these deleted, and those shown to others at once. If that cannot be said, the queue brings them again.

    One that does not answer is not waited for: the thread that tells how jobs end serves all watches.
    """
    if finished or idle:
        thread = threading.Thread(target=_say_rest, args=(queue, finished, idle), name="sqs-rest", daemon=True)
        thread.start()
        thread.join(JOIN_SECONDS)


def _say_rest(queue: MessageQueue, finished: list[Message], idle: list[Message]) -> None:
    with suppress(ConvertdError):
        if finished:
            queue.delete(finished)
        if idle:
            queue.hide(idle, 0)
