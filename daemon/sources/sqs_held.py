"""The messages in hand and the documents they wait for.

A message has been received and is hidden from other daemons until it is deleted, shown again, or its time is over. It
is done with when every document it tells of has come to its end in the version that is there now: each look at a
document makes all its messages wait for the version found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from daemon.model import Candidate
from daemon.s3.queues import Message


@dataclass(slots=True)
class _InHand:
    message: Message
    since: float
    hidden_until: float
    waits_for: set[bytes]


@dataclass(slots=True)
class _Document:
    """`version` is the one waited for, None as long as the document has to be looked at. `told` is the version that the
    last message told of, for who cannot look."""

    version: str | None = None
    told: Candidate | None = None
    messages: set[str] = field(default_factory=set)


class Held:
    """Messages in hand. Thread-safe; times are of one monotonic clock.

    `news` is set when there is something to delete. After `close` nobody receives any more, and what becomes of the
    messages whose documents are still worked on is told by `rest`.
    """

    def __init__(self) -> None:
        self.news = threading.Event()
        self._lock = threading.Lock()
        self._messages: dict[str, _InHand] = {}
        self._documents: dict[bytes, _Document] = {}
        self._finished: dict[str, Message] = {}
        self._running: set[bytes] = set()
        self._given_back: set[bytes] = set()
        self._closed = False

    def __len__(self) -> int:
        with self._lock:
            return len(self._messages) + len(self._finished)

    # -- what is received and found ----------------------------------------------------------------------------

    def hold(
        self, message: Message, told: Mapping[bytes, Candidate | None], *, since: float, hidden_until: float
    ) -> None:
        """A message was received that tells of these documents, which have to be looked at now.

        One that is in hand already has come again: only its last receipt counts.
        """
        with self._lock:
            self._let_go(message.id)
            self._finished.pop(message.id, None)
            self._messages[message.id] = _InHand(message, since, hidden_until, set(told))
            for source, candidate in told.items():
                document = self._documents.setdefault(source, _Document())
                document.version = None  # what ends from now on may be older than what the message tells of
                document.told = candidate or document.told
                document.messages.add(message.id)
            if not told:
                self._finish(message.id)

    def told(self, source: bytes) -> Candidate | None:
        """The version that the last message about this document told of, if it did."""
        with self._lock:
            document = self._documents.get(source)
            return document.told if document else None

    def wait_for(self, source: bytes, version: str) -> None:
        """This version was found: the document's messages wait for its end."""
        with self._lock:
            if document := self._documents.get(source):
                document.version = version

    def gone(self, source: bytes) -> None:
        """There is no such document: nothing is to be waited for."""
        with self._lock:
            self._end(source)

    def abandon(self, source: bytes) -> None:
        """Forget the messages about this document undeleted: the queue will bring them again."""
        with self._lock:
            if document := self._documents.get(source):
                for message_id in list(document.messages):
                    self._let_go(message_id)

    # -- what has ended ----------------------------------------------------------------------------------------

    def ended(self, source: bytes, version: str) -> None:
        """This version has come to its end."""
        with self._lock:
            document = self._documents.get(source)
            if document and document.version == version:
                self._end(source)
            self._left(source)

    def superseded(self, source: bytes, version: str) -> bool:
        """This version is no longer the document's; True where somebody has to look which one is."""
        with self._lock:
            self._left(source)
            document = self._documents.get(source)
            if document is None or document.version != version:
                return False
            document.version = None
            return True

    def given_back(self, source: bytes) -> None:
        """The document is not worked on any more: at a stop, or because it was called off, whose end is told then."""
        with self._lock:
            self._given_back.add(source)
            self._running.discard(source)

    def waited_for(self) -> list[bytes]:
        """The documents whose end is waited for."""
        with self._lock:
            return [source for source, document in self._documents.items() if document.version is not None]

    # -- what is owed to the queue -----------------------------------------------------------------------------

    def finished(self) -> list[Message]:
        """What is to be deleted."""
        with self._lock:
            return list(self._finished.values())

    def deleted(self, messages: Iterable[Message]) -> None:
        """They are no longer in the queue."""
        with self._lock:
            for message in messages:
                if self._finished.get(message.id) == message:  # else it has come again meanwhile
                    del self._finished[message.id]

    def to_hide(self, before: float, only: set[bytes] | None = None) -> list[Message]:
        """The messages that show themselves before this time; `only` those that wait for one of these documents."""
        with self._lock:
            return [
                held.message
                for held in self._messages.values()
                if held.hidden_until < before and (only is None or not held.waits_for.isdisjoint(only))
            ]

    def hidden(self, messages: Iterable[Message], until: float) -> None:
        """They have been hidden for longer."""
        with self._lock:
            for message in messages:
                held = self._messages.get(message.id)
                if held and held.message == message:
                    held.hidden_until = until

    def older_than(self, since: float) -> list[Message]:
        """The messages that were received before this time."""
        with self._lock:
            return [held.message for held in self._messages.values() if held.since < since]

    def forget(self, messages: Iterable[Message]) -> None:
        """They are no longer in hand; their documents are not affected."""
        with self._lock:
            for message in messages:
                held = self._messages.get(message.id)
                if held and held.message == message:
                    self._let_go(message.id)

    # -- at a stop ---------------------------------------------------------------------------------------------

    def close(self, running: set[bytes]) -> None:
        """Nothing is received any more; only these documents may still come to an end."""
        with self._lock:
            self._running = running - self._given_back
            self._closed = True

    def rest(self) -> tuple[list[Message], list[Message]]:
        """What can be deleted now, and what nobody here will bring to its end; each once. Nothing before `close`."""
        with self._lock:
            if not self._closed:
                return [], []
            finished, self._finished = list(self._finished.values()), {}
            idle = [held.message for held in self._messages.values() if held.waits_for.isdisjoint(self._running)]
            for message in idle:
                self._let_go(message.id)
            return finished, idle

    # Everything below is called with the lock held.

    def _left(self, source: bytes) -> None:
        """A job of this document has ended; another one of it may be next."""
        self._running.discard(source)
        self._given_back.discard(source)

    def _end(self, source: bytes) -> None:
        document = self._documents.pop(source, None)
        for message_id in document.messages if document else ():
            held = self._messages[message_id]
            held.waits_for.discard(source)
            if not held.waits_for:
                self._finish(message_id)

    def _finish(self, message_id: str) -> None:
        self._finished[message_id] = self._messages.pop(message_id).message
        self.news.set()

    def _let_go(self, message_id: str) -> None:
        held = self._messages.pop(message_id, None)
        for source in held.waits_for if held else ():
            document = self._documents[source]
            document.messages.discard(message_id)
            if not document.messages:
                del self._documents[source]
