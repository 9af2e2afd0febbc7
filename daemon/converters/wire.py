"""What the daemon and a converter child say to each other over their socketpair: typed messages in frames.

A frame is a length of four bytes and a MessagePack map. The Markdown of a result follows its frame unframed, and a
document travels as a descriptor beside its task. Either side treats what does not fit as `ProtocolError`: a child
works on hostile documents, so nothing it says is believed beyond the limits written here.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Annotated, TypeVar

import msgspec

from daemon.converters.base import Options
from daemon.errors import Kind

FRAME_LIMIT_BYTES = 1 << 20
TEXT_LIMIT = 4096
WARNINGS_LIMIT = 500
WARNING_LIMIT = 400  # characters: all of them fit into a frame
SEND_SECONDS = 10.0
LENGTH = struct.Struct(">I")
TIMEVAL = struct.Struct("@ll")
DESCRIPTOR = struct.Struct("@i")
LATE = 1.01
"""A deadline may be missed by a hundredth of the time: the kernel need not be told anew how long to wait, each time."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=1 << 48)]
Pages = Annotated[int, msgspec.Meta(ge=0, lt=10_000_000)]
Text = Annotated[str, msgspec.Meta(max_length=TEXT_LIMIT)]
Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class ProtocolError(Exception):
    """The other side said something that no frame may hold."""


class Settings(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Parent to child, once: how to run. `parent` is the pid the child must not outlive."""

    options: Options
    memory_bytes: Count
    result_bytes: Count
    parent: int


class Task(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Parent to child: convert the document whose descriptor comes along. Replies carry the same `token`."""

    token: Count
    name: bytes


class Ready(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Child to parent, once: engines are loaded, and this much of the sandbox is closed."""

    landlock_abi: Count
    seccomp: bool


class Progress(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Child to parent: this engine starts."""

    token: Count
    engine: Text


class Result(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Child to parent: done; `size_bytes` of Markdown in UTF-8 follow, and `End`."""

    token: Count
    size_bytes: Count
    sha256: Digest
    media_type: Text
    engine: Text
    engine_version: Text
    pages: Pages | None
    title: Text | None
    characters: Count
    warnings: Annotated[tuple[Text, ...], msgspec.Meta(max_length=WARNINGS_LIMIT)]


class End(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Child to parent: here the Markdown ended. Found elsewhere, something else was written in between."""

    token: Count


class Failure(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Child to parent: the document cannot be converted. After a `last` word the child ends."""

    token: Count
    kind: Kind
    message: Text
    last: bool = False


PIECES_LIMIT = 100
SHORT_BYTES = 16 << 10
"""What is as short goes along with its neighbours, in one system call: each of them costs the daemon's threads a change
of hands."""

Message = TypeVar("Message")
TO_CHILD: msgspec.msgpack.Decoder[Settings | Task] = msgspec.msgpack.Decoder(Settings | Task)
Reply = Ready | Progress | Result | End | Failure
TO_PARENT: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


class Channel:
    """One end of the socketpair. Not thread-safe. One that `reads_ahead` would lose a descriptor that comes along.

    To send may take `send_seconds` at a stretch. A child's end has no such limit: the daemon may be stopped for a
    while, or wait for its disk, and a child that sends for too long is killed like one that converts for too long.

    Every call raises `ProtocolError` for garbage, `EOFError` or `OSError` when the other side is gone, and
    `TimeoutError` past a `deadline` (of `time.monotonic`).
    """

    def __init__(self, end: socket.socket, *, reads_ahead: bool = False, send_seconds: float | None = None) -> None:
        # Blocking reads bounded by the kernel: with MSG_WAITALL it fills one buffer of the right size, so that a
        # large result is neither joined from chunks nor waited for with a system call a chunk.
        end.settimeout(None)
        self._end = end
        self._reads_ahead = reads_ahead
        self._ahead = b""
        self._patience_seconds = 0.0
        self.heard_bytes = 0
        """How long the frames received were together."""
        if send_seconds is not None:
            self._bound(socket.SO_SNDTIMEO, send_seconds)

    def fileno(self) -> int:
        return self._end.fileno()

    def close(self) -> None:
        self._end.close()

    def send(self, message: msgspec.Struct, descriptor: int | None = None) -> None:
        """Send a message, and what goes along."""
        frame = _frame(message)
        sent = 0
        if descriptor is not None:
            along = (socket.SOL_SOCKET, socket.SCM_RIGHTS, DESCRIPTOR.pack(descriptor))
            sent = self._end.sendmsg([frame], [along])
        if sent < len(frame):
            self._end.sendall(memoryview(frame)[sent:])

    def send_around(self, message: msgspec.Struct, body: bytes, last: msgspec.Struct) -> None:
        """Send a body between two messages."""
        parts = [_frame(message), body, _frame(last)]
        for part in [b"".join(parts)] if len(body) <= SHORT_BYTES else parts:
            self._end.sendall(part)

    def receive(self, decoder: msgspec.msgpack.Decoder[Message], deadline: float | None = None) -> Message:
        """The next message."""
        return self._decoded(decoder, self.receive_bytes(LENGTH.size, deadline), deadline)

    def receive_first(self, decoder: msgspec.msgpack.Decoder[Message], deadline: float) -> Message:
        """The next message, which is a short one, of a channel that reads ahead. Raises `ProtocolError` if only the
        beginning is there: what is short is sent at once, so the rest would be waited for in vain."""
        self._ahead = self._ahead or self._some(LENGTH.size, deadline)
        if not self._ahead:
            raise EOFError
        if len(self._ahead) < LENGTH.size + int.from_bytes(self._ahead[: LENGTH.size], "big"):
            raise ProtocolError("half a message")
        return self.receive(decoder, deadline)

    def receive_with_descriptor(self, decoder: msgspec.msgpack.Decoder[Message]) -> tuple[Message, int | None]:
        """The next message and the descriptor that came with it, which is the caller's to close.

        To read ahead does no harm where each message has one: the kernel ends what is read behind what a descriptor
        comes along with. There is room for one only (CMSG_SPACE would have it for two, and who closes the second?).
        """
        self._ahead, along, _, _ = self._end.recvmsg(SHORT_BYTES, socket.CMSG_LEN(DESCRIPTOR.size))
        descriptor = DESCRIPTOR.unpack(along[0][2])[0] if along else None
        return self.receive(decoder), descriptor

    def receive_bytes(self, size_bytes: int, deadline: float | None = None) -> bytes:
        """Exactly so many bytes, in one object."""
        content = self._ahead
        if not content:
            content = self._some(size_bytes, deadline)
        if len(content) < size_bytes:
            content = self._rest(content, size_bytes, deadline)
        self._ahead = content[size_bytes:]
        return content if len(content) == size_bytes else content[:size_bytes]

    def _rest(self, beginning: bytes, size_bytes: int, deadline: float | None) -> bytes:
        """What comes in more than one piece: a signal was in between, or somebody means to keep the receiver busy."""
        content, at = bytearray(size_bytes), len(beginning)
        content[:at] = beginning
        view = memoryview(content)
        for _ in range(PIECES_LIMIT):
            self._wait_until(deadline)
            try:
                received = self._end.recv_into(view[at:], size_bytes - at, socket.MSG_WAITALL)
            except BlockingIOError:
                raise TimeoutError from None
            if not received:
                raise EOFError
            at += received
            if at == size_bytes:
                return bytes(content)
        raise ProtocolError("a message in too many pieces")

    @property
    def surplus(self) -> bool:
        """Whether more came along with what has been received."""
        return bool(self._ahead)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[Message], length: bytes, deadline: float | None) -> Message:
        (size_bytes,) = LENGTH.unpack(length)
        if not 0 < size_bytes <= FRAME_LIMIT_BYTES:
            raise ProtocolError(f"a frame claims {size_bytes} bytes")
        self.heard_bytes += size_bytes
        try:
            return decoder.decode(self.receive_bytes(size_bytes, deadline))
        except (msgspec.DecodeError, RecursionError) as error:
            raise ProtocolError(f"a frame cannot be read: {error}") from error

    def _some(self, size_bytes: int, deadline: float | None) -> bytes:
        """So many bytes or, as it comes, fewer or more: none at the end."""
        self._wait_until(deadline)
        try:
            if self._reads_ahead and size_bytes <= SHORT_BYTES:
                return self._end.recv(SHORT_BYTES)
            return self._end.recv(size_bytes, socket.MSG_WAITALL)
        except BlockingIOError:
            raise TimeoutError from None

    def _wait_until(self, deadline: float | None) -> None:
        if deadline is None:
            return
        seconds = deadline - time.monotonic()
        if not 0 < seconds <= self._patience_seconds <= seconds * LATE:
            self._patience_seconds = 0.0
            self._bound(socket.SO_RCVTIMEO, seconds)
            self._patience_seconds = seconds

    def _bound(self, option: int, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError
        microseconds = max(1, int(seconds * 1e6))  # zero would mean for ever
        self._end.setsockopt(socket.SOL_SOCKET, option, TIMEVAL.pack(*divmod(microseconds, 1_000_000)))


def _frame(message: msgspec.Struct) -> bytes:
    content = msgspec.msgpack.encode(message)
    if len(content) > FRAME_LIMIT_BYTES:
        raise ProtocolError(f"a message of {len(content)} bytes is too long to send")
    return LENGTH.pack(len(content)) + content


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; neither survives an exec unless passed on by name."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """Text from a library as it can be sent: valid Unicode within the limit."""
    return text[:limit].encode("utf-8", "replace").decode()


def clean_warnings(warnings: Sequence[str]) -> tuple[str, ...]:
    """Warnings as they can be sent: as many as fit, and how many do not."""
    if len(warnings) > WARNINGS_LIMIT:
        kept = WARNINGS_LIMIT - 1
        warnings = [*warnings[:kept], f"There are {len(warnings) - kept:,} warnings more."]
    return tuple(clean(warning, WARNING_LIMIT) for warning in warnings)


def file_name(name: bytes) -> str:
    """The name of a task as engines get it."""
    return os.fsdecode(name)
