"""A mount whose server is gone holds up the watches that lie on it, and nobody else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dead_mount import dead_mount
from tests.harness import ROOT, Daemon, convertd, environment, running, until

WATCH = '[[watch]]\nname = "{}"\nsource = "{}"\nsink = "{}"\n'
CONFIG = (
    '[ocr]\nmode = "off"\n'
    + WATCH.format("from-it", "dead/in", "out")
    + WATCH.format("to-it", "other", "dead/out")
    + WATCH.format("well", "inbox", "outbox")
)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[ExitStack]:
    """Closing it takes the mount away."""
    with ExitStack() as stack:
        stack.enter_context(dead_mount(tmp_path / "dead"))
        yield stack


def states(daemon: Daemon) -> dict[str, str]:
    return {watch["name"]: watch["state"] for watch in daemon.status()["watches"]}


def test_only_its_watches_wait_for_it(tmp_path: Path, mount: ExitStack) -> None:
    with running(tmp_path, CONFIG) as daemon:
        daemon.drop("a.txt", b"a")
        assert daemon.outcome("a.txt") == "converted"
        assert states(daemon) == {"from-it": "paused", "to-it": "paused", "well": "running"}
        assert "completed" in daemon.command("why", str(daemon.inbox / "a.txt")).stdout

        assert daemon.config is not None
        daemon.config.write_text(CONFIG + WATCH.format("later", "dead/later", "later"))
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: states(daemon).get("later") == "paused", "the watch that came later waits, too")
        daemon.drop("b.txt", b"b")
        assert daemon.outcome("b.txt") == "converted"

        mount.close()
        assert not list((tmp_path / "dead").iterdir()), "nothing is made where it was mounted"
        for folder in ("in", "out", "later"):
            (tmp_path / "dead" / folder).mkdir()
        until(lambda: set(states(daemon).values()) == {"running"}, "all go on")
        (tmp_path / "dead/in/c.txt").write_bytes(b"c")
        until((tmp_path / "out/c.txt.md").exists, "what lay in wait is converted")
        assert daemon.stop() == 0


LOOKS = """
import sys, threading
from daemon.checks.folders import Folder
look = Folder("source", sys.argv[1], daemon_runs=True)
threading.Thread(target=lambda: list(look.missing()), daemon=True).start()
sys.stdin.read(1)
"""


def test_a_doctor_that_has_looked_for_what_the_daemon_waits_for_can_end(tmp_path: Path, mount: ExitStack) -> None:
    """The kernel has whoever asks for a name that another process is asking for wait where SIGKILL does not reach."""
    folder = str(tmp_path / "dead/in")
    daemon = subprocess.Popen(["/usr/bin/stat", folder])
    doctor: subprocess.Popen[bytes] | None = None
    try:
        until(lambda: is_held_up(daemon.pid), "it waits for the mount")
        command = [sys.executable, "-c", LOOKS, folder]
        doctor = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE)
        pid = doctor.pid
        until(lambda: any(is_held_up(int(task.name)) for task in tasks(pid)), "so does a thread of this one")
        doctor.communicate(b"x", timeout=60)
    finally:
        mount.close()  # before anybody is waited for
        for process in filter(None, (daemon, doctor)):
            process.kill()
            process.wait(60)


def tasks(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").iterdir())


def is_held_up(pid: int) -> bool:
    """Whether this process or thread waits for a file system of FUSE."""
    return Path(f"/proc/{pid}/wchan").read_text() in ("request_wait_answer", "d_alloc_parallel")


def test_plan_tells_of_it_and_of_the_others(tmp_path: Path, mount: ExitStack) -> None:
    (tmp_path / "convertd.toml").write_text(CONFIG)
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_bytes(b"a")
    result = convertd("plan", "--json", cwd=tmp_path)
    assert result.returncode == 1
    looks = {watch["name"]: watch for watch in json.loads(result.stdout)["watches"]}
    assert looks["well"]["new"] == 1
    assert "does not answer" in looks["from-it"]["error"]
    assert "does not answer" in looks["to-it"]["error"]


TELLS = """
import sys, threading
from daemon.outbox import Event
from daemon.targets.command import Command
from daemon.targets.base import Undelivered

def tell():
    try:
        Command([sys.argv[1]], {}, run_seconds=1.0).deliver(Event(1, "{}"))
    except Undelivered as error:
        print(error, flush=True)

thread = threading.Thread(target=tell)
thread.start()
while thread.is_alive():
    thread.join(0.1)
    print("tick", flush=True)
"""


def test_a_command_that_is_on_it_holds_up_only_who_is_to_be_told(tmp_path: Path, mount: ExitStack) -> None:
    command = [sys.executable, "-c", TELLS, str(tmp_path / "dead/tell")]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    try:
        lines = process.communicate(timeout=30)[0].splitlines()
    finally:
        mount.close()  # before anybody is waited for
        process.kill()
        process.communicate(timeout=60)
    assert [line for line in lines if line != "tick"] == ["did not end within 1 s"]
    assert lines[:5] == ["tick"] * 5, "all else goes on meanwhile"
