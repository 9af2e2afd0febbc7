"""What a child says about one document, from the daemon's side."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator

from daemon.converters import wire
from daemon.converters.room import kept
from daemon.errors import DocumentError
from daemon.model import printable

PROGRESS_LIMIT = 20_000  # messages about one document; more are an attempt to keep the parent busy
TALK_BYTES = 8 << 20  # in frames about one document, beside its Markdown
BEGIN_SECONDS = 10.0  # a child that is well begins within milliseconds
PIECE_BYTES = 1 << 20


class Talk:
    """The replies about one document, until its outcome."""

    def __init__(self, channel: wire.Channel, token: int, deadline: float, spool: str = "") -> None:
        self._channel = channel
        self._token = token
        self._deadline = deadline
        self._spool = spool
        self._begin_by = time.monotonic() + BEGIN_SECONDS
        self._heard_before_bytes = channel.heard_bytes
        self.begun = False
        """Whether the child has said anything about it: until then the document has not touched it."""
        self.engine = self.first_engine = ""
        """Which engine is at work, and which was first."""
        self.last = False
        """Whether the child said that it ends."""

    def outcome(self, result_bytes: int) -> tuple[wire.Result, bytes | memoryview]:
        """The result and its Markdown, or DocumentError as the child reports it. Raises what `kept` does."""
        for _ in range(PROGRESS_LIMIT):
            reply = self._next()
            if isinstance(reply, wire.Ready) or reply.token != self._token:
                raise wire.ProtocolError("an answer to no question")
            self.begun = True
            if self._channel.heard_bytes - self._heard_before_bytes > TALK_BYTES:
                break
            if isinstance(reply, wire.Failure):
                self.last = reply.last
                raise DocumentError(reply.kind, printable(reply.message))
            if isinstance(reply, wire.Result):
                return reply, self._markdown(reply, result_bytes)
            if isinstance(reply, wire.End):
                raise wire.ProtocolError("an end without a beginning")
            self.engine = printable(reply.engine)
            self.first_engine = self.first_engine or self.engine
        raise wire.ProtocolError("endless talk")

    def _next(self) -> wire.Reply:
        if self.begun:
            return self._channel.receive(wire.TO_PARENT, self._deadline)
        return self._channel.receive_first(wire.TO_PARENT, self._begin_by)

    def _markdown(self, result: wire.Result, result_bytes: int) -> bytes | memoryview:
        if result.size_bytes > result_bytes:
            raise wire.ProtocolError("a result above its limit")
        markdown = kept(self._pieces(result.size_bytes), result.size_bytes, self._spool)
        if self._channel.receive(wire.TO_PARENT, self._deadline) != wire.End(self._token):
            raise wire.ProtocolError("a result that does not end where it should")
        return markdown

    def _pieces(self, size_bytes: int) -> Iterator[bytes]:
        """The Markdown as it comes; ProtocolError if it is no UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for at in range(0, size_bytes, PIECE_BYTES):
                piece = self._channel.receive_bytes(min(PIECE_BYTES, size_bytes - at), self._deadline)
                decoder.decode(piece)
                yield piece
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise wire.ProtocolError("a result that is no text") from error
