"""The body of an answer on its way into a file.

Over a connection that is not encrypted the kernel moves it from the socket into the file, through a pipe: nothing is
copied into this process, which needs no memory for it. What is encrypted is read and written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from contextlib import suppress
from typing import Any

from daemon.errors import Kind, TransientError

PIECE_BYTES = 1 << 20
READ_BYTES = 1 << 18
LAST_BYTES = 1 << 16  # read by boto3's own layers, which then know that the connection is free again

_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)


class Body:
    """A body of which `size_bytes` are expected. `raw` is urllib3's answer, of which nothing has been read.

    End it by `finish` where all of it has been moved, else by `close`.
    """

    def __init__(self, raw: Any, size_bytes: int) -> None:
        self._raw = raw
        self._left_bytes = size_bytes
        self._socket = _plain_socket(raw, size_bytes)
        self._pipe: tuple[int, int] | None = None
        self._begun = False

    def move(self, fd: int, at: int) -> int:
        """Write to `fd` at `at` what has come, or what comes next; says how many bytes, 0 at the body's end.

        Raises what reading raises (`BODY_ERRORS`), and TransientError where `fd` cannot be written.
        """
        moved = None
        if self._begun and self._socket is not None and self._left_bytes > LAST_BYTES:
            moved = self._splice(self._socket, fd, at)
        if moved is None:
            chunk: bytes = self._raw.read1(READ_BYTES)  # whatever has come; boto3's own reader waits for a full chunk
            moved = _write_all(fd, chunk, at)
        self._begun = True  # what came along with the head has been taken now
        self._left_bytes -= moved
        return moved

    def finish(self) -> None:
        """Leave the connection to the next request."""
        self._close_pipe()
        self._raw.drain_conn()  # nothing is left, but http.client does not know until it is asked
        self._raw.release_conn()

    def close(self) -> None:
        """Close the connection: what is left of the body must not be taken for the next answer."""
        self._close_pipe()
        self._raw.close()

    def _splice(self, connected: socket.socket, fd: int, at: int) -> int | None:
        """Have the kernel move it; None where it does not."""
        if self._pipe is None:
            self._pipe = os.pipe()
            with suppress(OSError):
                fcntl.fcntl(self._pipe[1], fcntl.F_SETPIPE_SZ, PIECE_BYTES)
        try:
            moved = _received(connected, self._pipe[1], min(PIECE_BYTES, self._left_bytes - LAST_BYTES))
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._socket = None
            return None
        self._raw._fp.length -= moved
        self._raw.length_remaining -= moved
        _empty(self._pipe[0], moved, fd, at)
        return moved

    def _close_pipe(self) -> None:
        for end in self._pipe or ():
            os.close(end)
        self._pipe = None


def _plain_socket(raw: Any, size_bytes: int) -> socket.socket | None:
    """The socket from which the body comes as it is, and nothing else; None where that is not certain."""
    try:
        connected, answer = raw.connection.sock, raw._fp
        exact = not answer.chunked and answer.length == raw.length_remaining == size_bytes
    except AttributeError:  # a later botocore or urllib3, or a connection that will not be kept
        return None
    return connected if type(connected) is socket.socket and exact else None


def _received(connected: socket.socket, pipe: int, most_bytes: int) -> int:
    while True:
        try:
            return os.splice(connected.fileno(), pipe, most_bytes)
        except BlockingIOError:
            ready = select.poll()
            ready.register(connected, select.POLLIN)
            seconds = connected.gettimeout()
            if not ready.poll(None if seconds is None else seconds * 1000):
                raise TimeoutError("the server has gone silent") from None


def _empty(pipe: int, left_bytes: int, fd: int, at: int) -> None:
    while left_bytes > 0:
        try:
            moved = os.splice(pipe, fd, left_bytes, offset_dst=at)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise _not_kept(error) from error
            moved = _write_all(fd, os.read(pipe, left_bytes), at)  # a file system of a rare kind
        at, left_bytes = at + moved, left_bytes - moved


def _write_all(fd: int, chunk: bytes, at: int) -> int:
    view = memoryview(chunk)
    try:
        while view:
            written = os.pwrite(fd, view, at)
            at, view = at + written, view[written:]
    except OSError as error:
        raise _not_kept(error) from error
    return len(chunk)


def _not_kept(error: OSError) -> TransientError:
    """Not the network's fault, so nothing to be asked for again."""
    return TransientError(Kind.INTERNAL, f"a fetched document cannot be kept: {error.strerror}")
