"""`convertd status --watch` on a terminal and through a pipe, beside a real daemon."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import DEADLINE_SECONDS, Daemon, environment, running, until

CONFIG = 'state_dir = "state"\nocr.mode = "off"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path, CONFIG) as daemon:
        yield daemon


class Watching:
    """The command as a process, and what it has printed so far."""

    def __init__(self, daemon: Daemon, *options: str, terminal: bool = False) -> None:
        self._end, theirs = pty.openpty() if terminal else os.pipe()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0)) if terminal else None
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", "status", "--watch", *options, *daemon.where],
            cwd=daemon.folder,
            env=environment({"TERM": "xterm-256color"}),
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        self._printed = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def shows(self, text: str) -> None:
        """Wait until this was printed."""
        until(lambda: text in self.printed, f"{text!r} is shown: {self.printed[-2000:]}")

    @property
    def printed(self) -> str:
        return self._printed.decode("utf-8", "replace")

    def interrupt(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        _, said = self.process.communicate(timeout=DEADLINE_SECONDS)
        self._reader.join(DEADLINE_SECONDS)
        os.close(self._end)
        assert b"Traceback" not in said, said
        return self.process.returncode

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._end, 1 << 16)
            except OSError:  # a terminal whose other end is closed
                return
            if not chunk:
                return
            self._printed += chunk


def test_on_a_terminal_it_is_drawn_until_ctrl_c(daemon: Daemon) -> None:
    watching = Watching(daemon, terminal=True)
    watching.shows("0 of 0")
    daemon.drop("a.txt", b"some words")
    daemon.drop("b.pdf", b"no pdf at all \0\1\2")
    watching.shows("2 of 2")
    watching.shows("last failures")
    watching.shows("b.pdf")
    daemon.command("pause", "inbox")
    watching.shows("! inbox: by `convertd pause inbox`")
    daemon.stop()
    watching.shows("convertd is not running")
    daemon.start()
    watching.shows("\x1b[1mconvertd 0.")
    assert watching.interrupt() == 0
    assert watching.printed.rstrip().endswith("\x1b[?25h"), "the cursor is back"


def test_through_a_pipe_there_are_lines(daemon: Daemon) -> None:
    watching = Watching(daemon)
    watching.shows("watch inbox is running")
    daemon.drop("a.txt", b"some words")
    watching.shows("completed 1  failed 0")
    daemon.command("pause")
    watching.shows("watch inbox is paused: by `convertd pause`")
    assert watching.interrupt() == 0
    assert "\x1b" not in watching.printed


def test_as_json_there_is_an_object_a_line(daemon: Daemon) -> None:
    watching = Watching(daemon, "--json")
    until(lambda: watching.printed.count("\n") >= 2, "two looks")
    assert watching.interrupt() == 0
    for line in watching.printed.splitlines():
        assert json.loads(line)["watches"][0]["name"] == "inbox"


def test_where_nothing_has_run_there_is_nothing_to_watch(tmp_path: Path) -> None:
    idle = Daemon(tmp_path, CONFIG)
    assert idle.command("status", "--watch").returncode == 2
