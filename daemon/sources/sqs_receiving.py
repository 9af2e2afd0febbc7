"""Receives messages, looks at the documents they tell of and queues those that are new."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from daemon.buckets import Prefix
from daemon.errors import DocumentError, EnvironmentProblem, Stopped, TransientError
from daemon.model import Candidate, display, printable
from daemon.s3.queues import MOST_AT_ONCE, Message, MessageQueue
from daemon.sources.base import Ledger, Watcher
from daemon.sources.s3_version import object_version
from daemon.sources.sqs_held import Held
from daemon.sources.sqs_keeper import Keeper, settle
from daemon.sources.sqs_messages import Created, Unreadable, created
from daemon.sources.waiting import Rechecks

LOOKERS = 10
SHORT_WAIT_SECONDS = 1
"""How long a request waits for messages while an answer may be needed soon. Even so it asks all servers of SQS."""
EMPTY_IN_A_ROW = 2
"""So many empty answers mean that the queue is empty."""
NO_ROOM_SECONDS = 0.02
LOOK_SECONDS = 0.25
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
CHECK_SECONDS = 60.0
UNREADABLE_AGAIN_SECONDS = 10
UNREADABLE_LONGEST_SECONDS = 600
NOTED_SECONDS = 1.5 * UNREADABLE_LONGEST_SECONDS


class Documents(Protocol):
    """The bucket behind the queue."""

    def look(self, source: bytes) -> Candidate | None:
        """The document at this path as it is now; None where there is none that this watch takes."""
        ...

    def probe(self) -> None:
        """Raise EnvironmentProblem if queue or bucket as a whole cannot be reached now."""
        ...


class Receiving:
    """One run of a queue as a source, in one thread.

    The documents are converted as they are now and not as an event once saw them: events that come late, twice or in
    the wrong order change nothing, and nobody needs their sequence numbers.
    """

    def __init__(
        self,
        queue: MessageQueue,
        place: Prefix,
        documents: Documents,
        held: Held,
        rechecks: Rechecks,
        ledger: Ledger,
        watcher: Watcher,
        stopped: Callable[[], bool],
        *,
        wait_seconds: int,
        hidden_seconds: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._place = place
        self._documents = documents
        self._held = held
        self._rechecks = rechecks
        self._ledger = ledger
        self._watcher = watcher
        self._stopped = stopped
        self._wait_seconds = wait_seconds
        self._hidden_seconds = hidden_seconds
        self._monotonic = monotonic
        self._keeper = Keeper(queue, held, watcher, hidden_seconds, monotonic)
        self._lookers = ThreadPoolExecutor(LOOKERS, thread_name_prefix="sqs-look")
        self._note = Note(watcher, monotonic)
        self._empty = self._failures = 0
        self._sick = False
        self._checked = monotonic()

    def run(self) -> None:
        """Receive until stopped. Raises FatalError where the keeper has died."""
        self._keeper.start()
        try:
            while not self._stopped():
                self._watcher.beat()
                try:
                    self._round()
                except Stopped:
                    return
                except EnvironmentProblem as problem:
                    self._fall_ill(problem)
        finally:
            self._keeper.close()
            self._lookers.shutdown(cancel_futures=True)

    def _round(self) -> None:
        self._keeper.check()
        self._recover()
        self._look(self._rechecks.take() | self._forgotten())
        # A message that is still to be deleted counts as taken up: no more are ever in hand than there are slots.
        room = self._watcher.room() - len(self._held.finished())
        if room > 0:
            self._receive(room)
        left = len(self._held) + (self._empty < EMPTY_IN_A_ROW)
        self._rechecks.report(self._watcher, left)
        if room <= 0:
            self._rechecks.wait(LOOK_SECONDS if self._watcher.paused() else NO_ROOM_SECONDS)
        elif not left:
            # Here `--once` ends, and not while a request waits: what comes when nobody listens any more is hidden.
            self._rechecks.wait(LOOK_SECONDS)

    def _fall_ill(self, problem: EnvironmentProblem) -> None:
        if self._stopped():
            return
        seconds = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._sick = True
        self._watcher.sick(problem)
        self._rest(seconds)

    def _recover(self) -> None:
        """After a failure: is the queue there again? What failed may fail again all the same, later and later."""
        if self._sick:
            self._queue.require()
            self._sick = False
            self._watcher.well()

    def _rest(self, seconds: float) -> None:
        until = self._monotonic() + seconds
        while not self._stopped() and (left := until - self._monotonic()) > 0:
            self._watcher.beat()
            time.sleep(min(left, LOOK_SECONDS))

    # -- messages ----------------------------------------------------------------------------------------------

    def _receive(self, room: int) -> None:
        asked = self._monotonic()
        busy = self._empty < EMPTY_IN_A_ROW or len(self._held) > 0
        wait_seconds = min(self._wait_seconds, SHORT_WAIT_SECONDS) if busy else self._wait_seconds
        messages = self._queue.receive(min(room, MOST_AT_ONCE), wait_seconds, self._hidden_seconds)
        if self._stopped():  # perhaps for a new configuration, which may take what this one would have deleted
            settle(self._queue, [], messages)
            return
        self._failures = 0
        self._empty = 0 if messages else self._empty + 1
        self._take(messages, asked)
        if not messages:  # not every server waits when it is asked to
            self._rest(asked + LOOK_SECONDS - self._monotonic())

    def _take(self, messages: list[Message], asked: float) -> None:
        sources: set[bytes] = set()
        unreadable: list[Message] = []
        for message in messages:
            try:
                told = self._told(created(message.body))
            except Unreadable as reason:
                unreadable.append(message)
                self._note.say(message.id, _unreadable(message, reason))
                continue
            self._held.hold(message, told, since=asked, hidden_until=asked + self._hidden_seconds)
            sources.update(told)
        self._note.take_back()
        self._look(sources)
        for message in unreadable:
            self._leave(message)

    def _leave(self, message: Message) -> None:
        """What cannot be read is neither deleted nor held: the queue brings it again, soon at first, until its
        dead-letter policy has seen enough of it."""
        self._queue.hide([message], min(UNREADABLE_LONGEST_SECONDS, UNREADABLE_AGAIN_SECONDS * message.receipts))

    def _told(self, events: Iterable[Created]) -> dict[bytes, Candidate | None]:
        """The documents of the watch among what was created, each with its version where the events say it."""
        told: dict[bytes, Candidate | None] = {}
        for event in events:
            relative = self._place.relative(event.key)
            if event.bucket != self._place.bucket or relative is None:
                continue
            source = relative.encode()
            told[source] = None
            if event.etag is not None and event.size_bytes is not None:
                told[source] = Candidate(source, object_version(event.etag, event.size_bytes), event.size_bytes)
        return told

    # -- documents ---------------------------------------------------------------------------------------------

    def _forgotten(self) -> set[bytes]:
        """From time to time: documents that are waited for although they have no job, whatever became of it."""
        if self._monotonic() - self._checked < CHECK_SECONDS:
            return set()
        self._checked = self._monotonic()
        waited_for = self._held.waited_for()
        return set(waited_for) - self._ledger.unfinished(waited_for) if waited_for else set()

    def _look(self, sources: set[bytes]) -> None:
        """Queue what is new among these documents, and find out whose end there is to wait for.

        Raises EnvironmentProblem when it has done what it could; the rest is looked at again.
        """
        found: list[Candidate] = []
        unsure: dict[bytes, DocumentError | TransientError] = {}
        problem: EnvironmentProblem | None = None
        looks: Mapping[bytes, Future[Candidate | None]] = {
            source: self._lookers.submit(self._documents.look, source) for source in sorted(sources)
        }
        for source, look in looks.items():
            try:
                candidate = look.result()
            except EnvironmentProblem as error:
                problem = error
                self._rechecks.add(source)
            except (DocumentError, TransientError) as error:
                unsure[source] = error
            else:
                if candidate is None or _is_folder(candidate):
                    self._held.gone(source)
                else:
                    found.append(candidate)
        self._queue_new(found)
        if problem is not None:
            self._look_again(unsure)
            raise problem
        if unsure:
            self._judge(unsure)

    def _look_again(self, sources: Iterable[bytes]) -> None:
        for source in sources:
            self._rechecks.add(source)

    def _judge(self, unsure: Mapping[bytes, DocumentError | TransientError]) -> None:
        """What a look cannot tell, a job finds out, which has its attempts and an end that is told: it is queued in the
        version that the message told of. Where that told none, the queue brings the message again."""
        try:
            self._documents.probe()
        except EnvironmentProblem:
            self._look_again(unsure)
            raise
        told = {source: self._held.told(source) for source in unsure}
        self._queue_new([candidate for candidate in told.values() if candidate is not None])
        for source, candidate in told.items():
            if candidate is None:
                self._held.abandon(source)
                self._note.say(source, f"{display(source)}: {unsure[source].message}")

    def _queue_new(self, found: list[Candidate]) -> None:
        if not found:
            return
        for candidate in found:
            self._held.wait_for(candidate.source, candidate.version)
        if unknown := self._ledger.unknown(found):
            self._ledger.enqueue(unknown)
        unfinished = self._ledger.unfinished([candidate.source for candidate in found])
        ended = [candidate for candidate in found if candidate.source not in unfinished]
        # One that ended as superseded or vanished meanwhile is not known in this version any more.
        changed = {candidate.source for candidate in self._ledger.unknown(ended)} if ended else set()
        for candidate in ended:
            if candidate.source not in changed:
                self._held.ended(candidate.source, candidate.version)
        self._look_again(changed)


class Note:
    """What the watch is told of messages that cannot be dealt with: of one at a time, as long as it keeps coming."""

    def __init__(self, watcher: Watcher, monotonic: Callable[[], float]) -> None:
        self._watcher = watcher
        self._monotonic = monotonic
        self._about: object = None
        self._until = 0.0

    def say(self, about: object, text: str) -> None:
        """This has come, again or for the first time."""
        now = self._monotonic()
        if self._about in (None, about) or now >= self._until:
            self._about, self._until = about, now + NOTED_SECONDS
            self._watcher.note(text)

    def take_back(self) -> None:
        """If it has not come for long."""
        if self._about is not None and self._monotonic() >= self._until:
            self._about = None
            self._watcher.note(None)


def _unreadable(message: Message, reason: Unreadable) -> str:
    return (
        f"message {printable(message.id)} cannot be read: {reason}. It is left to the dead-letter policy of the queue: "
        "look at it there, and at who may send to the queue"
    )


def _is_folder(candidate: Candidate) -> bool:
    """What some tools put where a folder would be."""
    return candidate.size_bytes == 0 and candidate.source.endswith(b"/")
