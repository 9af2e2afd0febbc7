"""Tells a command: it is started anew for each event, with the JSON of it on its standard input.

It gets none of the daemon's environment that may hold credentials, and `RUN_SECONDS`; past them it is killed with all
that it has started. What it prints is read and forgotten, but for the end of it where the command fails.

Whoever starts a program waits until the kernel has found and loaded it, and Python lets none of its threads go on
meanwhile: on a mount that does not answer that would be for ever. So a shell is started, which is always there, and
becomes the command; nobody but it waits for the mount.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from daemon.model import printable
from daemon.outbox import Event
from daemon.targets.base import Undelivered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.settings import Notify

RUN_SECONDS = 30.0
REAP_SECONDS = 5.0
SHOWN_BYTES = 500
PRINTED_BYTES = 1 << 20
READ_BYTES = 1 << 16
STARTER = "convertd-start"
"""What the shell calls itself where it complains."""
START = ("/bin/sh", "-c", 'unset PWD; exec "$@"', STARTER)
"""Becomes the command that follows. Shells export PWD, which the command would not have got."""
NOT_STARTED = (126, 127)
"""What the shell ends with where it cannot become the command; the command itself may, too."""
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR")
"""What a command needs to find programs, files and its language. All other variables may be somebody's secret."""


class Command:
    """A `targets.base.Target`. Exit code 0 means delivered."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], run_seconds: float = RUN_SECONDS) -> None:
        self._argv = tuple(argv)
        self._environment = {key: value for key, value in environ.items() if key in KEPT or key.startswith("LC_")}
        self._run_seconds = run_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._last: subprocess.Popen[bytes] | None = None  # done with, but where SIGKILL does not reach it not yet gone
        self._aborted = False

    @classmethod
    def configured(cls, settings: Notify) -> Command:
        return cls(settings.command, os.environ)

    @property
    def address(self) -> str:
        return printable(os.path.basename(self._argv[0]))

    def deliver(self, event: Event) -> None:
        deadline = time.monotonic() + self._run_seconds
        try:
            with self._running(event.payload.encode()) as process:
                said = _listen(process, deadline)
                code = _wait(process, deadline)
        except OSError as error:  # no descriptor or no memory to spare, say
            raise Undelivered(f"cannot be started: {error.strerror}") from error
        if code != 0:
            raise Undelivered(_reason(code, said, self._run_seconds))

    def abort(self) -> None:
        with self._lock:
            self._aborted = True
            if self._process is not None:
                _kill(self._process)

    def close(self) -> None:
        pass

    @contextmanager
    def _running(self, content: bytes) -> Iterator[subprocess.Popen[bytes]]:
        """The process, which is killed afterwards. It reads from memory: one that does not read holds up nobody."""
        memory = os.memfd_create("event", os.MFD_CLOEXEC)
        try:
            os.write(memory, content)
            os.lseek(memory, 0, os.SEEK_SET)
            process = self._start(memory)
        finally:
            os.close(memory)
        try:
            yield process
        finally:
            with self._lock:
                self._process = None
                if process.returncode is None:
                    _kill(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(REAP_SECONDS)
            self._last = process
            assert process.stdout is not None
            process.stdout.close()

    def _start(self, stdin: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._aborted:
                raise Undelivered("stopped")
            if self._last is not None and self._last.poll() is None:  # they would become more with each attempt
                raise Undelivered("the one before was killed, but has not ended: what it waits for does not answer")
            self._process = subprocess.Popen(
                (*START, *self._argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
            return self._process


def _listen(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Read what it prints until it ends (or the time does), whoever else may still hold the pipe; the end of it."""
    assert process.stdout is not None
    said, total_bytes = b"", 0
    ended = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(process.stdout, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(int(left * 1000) + 1)}
            if process.stdout.fileno() in ready:
                chunk = os.read(process.stdout.fileno(), READ_BYTES)
                said, total_bytes = (said + chunk)[-SHOWN_BYTES:], total_bytes + len(chunk)
                if not chunk:
                    poll.unregister(process.stdout)
            if ended in ready:  # all that it has printed itself was in the pipe, which holds no more than was read
                break
            if total_bytes > PRINTED_BYTES:
                raise Undelivered(f"printed more than {PRINTED_BYTES:,} bytes")
    finally:
        os.close(ended)
    return said


def _wait(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit code; None where it is still running."""
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group. Until the process is reaped its number is nobody else's."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _reason(code: int | None, said: bytes, run_seconds: float) -> str:
    lines = said.decode("utf-8", "replace").strip().splitlines()
    if code in NOT_STARTED and lines and lines[-1].startswith(f"{STARTER}: "):
        return f"cannot be started: {_complaint(lines[-1])}"
    because = f": {printable(lines[-1])}" if lines else ""
    if code is None:
        return f"did not end within {run_seconds:g} s{because}"
    return f"was ended by signal {-code}{because}" if code < 0 else f"exit code {code}{because}"


def _complaint(line: str) -> str:
    """The error that the shell names at the end of its line, after the path."""
    error = printable(line.rpartition(": ")[2])
    return os.strerror(errno.ENOENT) if error == "not found" else error
