"""What a child says about one document, from the daemon's side."""

from __future__ import annotations

from daemon.converters import wire
from daemon.errors import DocumentError

PROGRESS_LIMIT = 200_000  # messages about one document; more are an attempt to keep the parent busy


class Talk:
    """The replies about one document, until its outcome."""

    def __init__(self, channel: wire.Channel, token: int, deadline: float) -> None:
        self._channel = channel
        self._token = token
        self._deadline = deadline
        self.engine = ""
        """Which engine is at work."""
        self.last = False
        """Whether the child said that it ends."""

    def outcome(self, result_bytes: int) -> tuple[wire.Result, bytes]:
        """The result and its Markdown, or DocumentError as the child reports it."""
        for _ in range(PROGRESS_LIMIT):
            reply = self._channel.receive(wire.TO_PARENT, self._deadline)
            if isinstance(reply, wire.Ready) or reply.token != self._token:
                raise wire.ProtocolError("an answer to no question")
            if isinstance(reply, wire.Failure):
                self.last = reply.last
                raise DocumentError(reply.kind, reply.message)
            if isinstance(reply, wire.Result):
                return reply, self._markdown(reply, result_bytes)
            if isinstance(reply, wire.End):
                raise wire.ProtocolError("an end without a beginning")
            self.engine = reply.engine
        raise wire.ProtocolError("endless talk")

    def _markdown(self, result: wire.Result, result_bytes: int) -> bytes:
        if result.size_bytes > result_bytes:
            raise wire.ProtocolError("a result above its limit")
        markdown = self._channel.receive_bytes(result.size_bytes, self._deadline)
        if self._channel.receive(wire.TO_PARENT, self._deadline) != wire.End(self._token):
            raise wire.ProtocolError("a result that does not end where it should")
        return markdown
