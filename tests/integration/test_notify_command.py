"""The command that is told of events: what it gets, and that it can hold up and spoil nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from daemon.outbox import Event
from daemon.targets import command as module
from daemon.targets.base import Undelivered
from daemon.targets.command import Command
from tests.harness import alive, until

EVENT = Event(1, json.dumps({"id": "abc", "source": "ä" * 50_000}, ensure_ascii=False))
SECRET = {"AWS_SECRET_ACCESS_KEY": "hunter2", "LD_PRELOAD": "/x.so", "PYTHONPATH": "/x"}


def sh(script: str, *arguments: str, run_seconds: float = 60.0) -> Command:
    return Command(["/bin/sh", "-c", script, "sh", *arguments], {"PATH": os.environ["PATH"], **SECRET}, run_seconds)


def why(target: Command) -> str:
    with pytest.raises(Undelivered) as caught:
        target.deliver(EVENT)
    return str(caught.value)


def test_the_event_is_on_its_standard_input(tmp_path: Path) -> None:
    sh('cat > "$1"; echo noise', str(tmp_path / "got")).deliver(EVENT)
    assert (tmp_path / "got").read_text() == EVENT.payload


def test_a_command_that_does_not_read_is_told_all_the_same() -> None:
    Command(["true"], os.environ).deliver(EVENT)


def test_it_gets_nothing_of_the_environment_that_may_be_secret(tmp_path: Path) -> None:
    code = (
        "import json, os, sys\n"
        "json.dump([dict(os.environ), os.getcwd(), os.listdir('/proc/self/fd')], open(sys.argv[1], 'w'))"
    )
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", **SECRET}
    Command([sys.executable, "-c", code, str(tmp_path / "got")], environ).deliver(EVENT)
    seen, folder, descriptors = json.loads((tmp_path / "got").read_text())
    assert seen == {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    assert folder == "/"
    assert {"0", "1", "2"} <= set(descriptors) and len(descriptors) <= 5, "no descriptor of the daemon's"


def test_a_failing_command_says_why() -> None:
    assert why(sh("echo first; echo 'no such topic' >&2; exit 3")) == "exit code 3: no such topic"
    assert why(sh("exit 1")) == "exit code 1"
    assert why(sh("kill -TERM $$")) == "was ended by signal 15"
    assert why(sh(r"printf 'a\033[31mb'; exit 1")) == r"exit code 1: a\x1b[31mb"


def test_a_command_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    (tmp_path / "tell").write_text("#!/bin/sh\n")
    assert why(Command(["/nowhere/tell"], {})) == "cannot be started: No such file or directory"
    assert why(Command(["tell"], {"PATH": "/nowhere"})) == "cannot be started: No such file or directory"
    assert why(Command([str(tmp_path / "tell")], {})) == "cannot be started: Permission denied"


def test_a_command_may_end_as_a_shell_does_that_finds_none() -> None:
    assert why(sh("exit 127")) == "exit code 127"
    assert why(sh("/nowhere/other")).startswith("exit code 127: sh: ")


@pytest.mark.parametrize("call", ["memfd_create", "pidfd_open"])
def test_a_process_that_has_no_descriptor_to_spare_delivers_nothing(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, call, refuse)
    assert why(sh("true")) == "cannot be started: Too many open files"


def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    target = sh('sleep 600 & echo $! > "$1"; echo waiting; wait', str(tmp_path / "pid"), run_seconds=0.5)
    assert why(target) == "did not end within 0.5 s: waiting"
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), "what it started is gone")


def test_none_is_started_beside_one_that_has_outlived_its_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    target = sh("exec sleep 600", run_seconds=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(module, "REAP_SECONDS", 0.1)
        patch.setattr(module, "_kill", lambda process: None)
        assert why(target) == "did not end within 0.1 s"
        assert why(target).startswith("the one before was killed, but has not ended")
    assert target._last is not None
    module._kill(target._last)
    until(lambda: why(target) == "did not end within 0.1 s", "another one is started")


def test_what_stays_in_the_background_holds_up_nothing(tmp_path: Path) -> None:
    sh('sleep 600 & echo $! > "$1"', str(tmp_path / "pid")).deliver(EVENT)
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_what_prints_in_the_background_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRINTED_BYTES", 1000)
    with subprocess.Popen(["/bin/sh", "-c", "head -c 1000000 /dev/zero & exit 0"], stdout=subprocess.PIPE) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        until(lambda: _waiting_bytes(pipe) == module.READ_BYTES, "the pipe is full")
        assert len(module._listen(process, time.monotonic() + 60)) == module.SHOWN_BYTES


def _waiting_bytes(pipe: int) -> int:
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_command_that_prints_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PRINTED_BYTES", 100_000)
    assert why(sh("yes")) == "printed more than 100,000 bytes"


def test_a_command_that_prints_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    sh("head -c 500000 /dev/zero").deliver(EVENT)


def test_an_abort_kills_it_and_refuses_the_next(tmp_path: Path) -> None:
    target = sh('echo $$ > "$1.tmp"; mv "$1.tmp" "$1"; exec sleep 600', str(tmp_path / "pid"))
    failed: list[str] = []
    thread = threading.Thread(target=lambda: failed.append(why(target)))
    thread.start()
    until((tmp_path / "pid").exists, "it runs")
    target.abort()
    thread.join(30)
    assert failed == ["was ended by signal 9"]
    assert why(target) == "stopped"


def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        sh("true").deliver(EVENT)
        why(sh("false"))
        why(Command(["/nowhere/tell"], {}))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_address_is_the_name_of_the_program() -> None:
    assert Command(["/opt/own/tell", "--token", "hunter2"], {}).address == "tell"
