"""What an operator does to a running daemon, and to one that is down: pause, resume, cancel, retry --engine, reload."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from daemon.control import ControlServer
from daemon.statedir import StateDir
from tests.harness import Daemon, environment, running, until

HEAD = """
state_dir = "state"
workers = 1
[engines]
text = ["tests.engines_for_tests:Command"]
"""
WATCH = """
[[watch]]
name = "{name}"
source = "{name}"
sink = "{name}-out"
"""
CONFIG = HEAD + WATCH.format(name="inbox").replace("inbox-out", "outbox")


def states(daemon: Daemon) -> dict[str, str]:
    """Document → state of its newest job."""
    return {job["source"]: job["state"] for job in reversed(daemon.jobs())}


def job_of(daemon: Daemon, name: str) -> dict[str, Any]:
    """The newest job of a document, once there is one."""
    found: dict[str, Any] = until(
        lambda: next((job for job in daemon.jobs() if job["source"] == name), None), f"{name} is queued"
    )
    return found


def test_a_pause_holds_work_back_and_outlives_restarts(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        assert daemon.command("pause").returncode == 0
        daemon.drop("a.txt", b"Echo a")
        until(lambda: states(daemon) == {"a.txt": "pending"}, "it is found and queued")
        assert daemon.status()["watches"][0]["state"] == "paused"
        assert daemon.stop() == 0
        daemon.start()
        daemon.drop("b.txt", b"Echo b")
        until(lambda: len(states(daemon)) == 2, "both are queued")
        assert set(states(daemon).values()) == {"pending"}
        resumed = daemon.command("resume")
        assert (resumed.returncode, resumed.stdout) == (0, "everything goes on\n")
        assert [daemon.outcome(name) for name in ("a.txt", "b.txt")] == ["converted", "converted"]


def test_one_watch_is_paused_while_the_daemon_is_down(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    try:
        daemon.start().stop()
        assert daemon.command("pause", "inbox").returncode == 0
        unknown = daemon.command("pause", "nowhere")
        assert unknown.returncode == 2
        assert "nowhere" in unknown.stderr
        forged = daemon.command("pause", "x\n\x1b[31mconvertd: done")
        assert forged.stderr.splitlines()[0] == "convertd: there is no watch x\\n\\x1b[31mconvertd: done"
        daemon.drop("a.txt", b"Echo a")
        daemon.start()
        until(lambda: states(daemon) == {"a.txt": "pending"}, "it is queued and held back")
        assert daemon.command("resume", "inbox").returncode == 0
        assert daemon.outcome("a.txt") == "converted"
    finally:
        daemon.close()


def test_a_drain_ends_without_what_is_held_back(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, HEAD + WATCH.format(name="inbox").replace("inbox-out", "outbox") + WATCH.format(name="b"))
    try:
        assert daemon.once() == 0
        assert daemon.command("pause", "inbox").returncode == 0
        daemon.drop("a.txt", b"Echo a")
        (daemon.folder / "b" / "b.txt").write_bytes(b"Echo b")
        assert daemon.once() == 0
        assert states(daemon) == {"a.txt": "pending", "b.txt": "completed"}
        (said,) = [line for line in daemon.said() if "convertd pause" in line["event"]]
        assert (said["level"], said["jobs"]) == ("warning", 1)
        assert daemon.command("resume", "inbox").returncode == 0
        assert (daemon.once(), daemon.outcome("a.txt")) == (0, "converted")
    finally:
        daemon.close()


def test_a_command_waits_for_a_daemon_that_is_just_starting(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    daemon.start().stop()
    server = ControlServer(StateDir(str(daemon.state)).socket, {"pause": lambda request: {}})
    with StateDir(str(daemon.state)).lock(0):
        pausing = subprocess.Popen(
            [sys.executable, "-m", "daemon", "pause", *daemon.where], cwd=tmp_path, env=environment()
        )
        until(lambda: holds_open(pausing.pid, "/state/lock"), "it has found no daemon and waits for the state_dir")
        server.start()
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            assert pausing.wait(60) == 0
        finally:
            server.close()
            thread.join(30)


def blocks_hang_ups(pid: int) -> bool:
    """Whether the process keeps a SIGHUP for later, or has a handler for it."""
    masks = re.findall(r"^Sig(?:Blk|Cgt):\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return any(int(mask, 16) & 1 for mask in masks)


def holds_open(pid: int, ending: str) -> bool:
    """Whether the process has such a file open."""
    with suppress(OSError):
        return any(os.readlink(file).endswith(ending) for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_jobs_are_called_off_whether_they_wait_or_run(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        daemon.drop("loop.txt", b"Loop")
        until(lambda: job_of(daemon, "loop.txt")["stage"] == "convert", "the converter is at it")
        daemon.drop("waiting.txt", b"Echo waiting")
        numbers = [str(job_of(daemon, name)["id"]) for name in ("loop.txt", "waiting.txt")]
        result = daemon.command("cancel", *numbers)
        assert (result.returncode, result.stdout) == (0, "2 cancelled\n"), result.stderr
        until(lambda: set(states(daemon).values()) == {"cancelled"}, "both have ended")
        assert not daemon.error("loop.txt").exists()
        again = daemon.command("cancel", numbers[0])
        assert again.returncode == 1
        assert "nothing to cancel" in again.stderr
        unknown = daemon.command("cancel", *map(str, range(1000, 1500)))
        assert (unknown.returncode, unknown.stdout) == (1, "0 cancelled\n")
        assert unknown.stderr.count("\n") == 21 and "not cancelled: and 480 more" in unknown.stderr
        daemon.drop("next.txt", b"Echo next")
        assert daemon.outcome("next.txt") == "converted", "the converter was replaced"
        assert daemon.command("retry", numbers[1]).returncode == 0
        assert daemon.outcome("waiting.txt") == "converted"


def test_what_an_engine_made_is_made_again(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        for name in ("a.txt", "b.txt"):
            daemon.drop(name, b"Echo words")
            assert daemon.outcome(name) == "converted"
        engine = daemon.jobs()[0]["engine"]
        version = json.loads((daemon.outbox / "a.txt.json").read_bytes())["engine_version"]
        assert "0 queued again" in daemon.command("retry", "--engine", f"{engine}<{version}").stdout
        assert "2 queued again" in daemon.command("retry", "--engine", engine).stdout
        until(lambda: all(job["attempts"] == 1 and job["state"] == "completed" for job in daemon.jobs()), "made again")
        assert daemon.command("retry", "--engine", "no engine at all").returncode == 2


def test_a_reload_adds_removes_and_changes_watches(tmp_path: Path) -> None:
    with running(tmp_path, HEAD + WATCH.format(name="one") + WATCH.format(name="two")) as daemon:
        put(daemon, "one", "a.txt")
        put(daemon, "two", "a.txt")
        reload(daemon, HEAD + WATCH.format(name="one") + 'exclude = ["*.skip"]\n' + WATCH.format(name="three"))
        until(lambda: [watch["name"] for watch in daemon.status()["watches"]] == ["one", "three"], "it is reloaded")
        put(daemon, "three", "a.txt")
        put(daemon, "one", "b.txt")
        (daemon.folder / "one" / "c.skip").write_bytes(b"Echo c")
        (daemon.folder / "two" / "parked.txt").write_bytes(b"Echo parked")
        put(daemon, "one", "d.txt")
        assert not (daemon.folder / "two-out" / "parked.txt.md").exists()
        assert not (daemon.folder / "one-out" / "c.skip.md").exists()
        reload(daemon, HEAD + WATCH.format(name="two"))
        until((daemon.folder / "two-out" / "parked.txt.md").exists, "a watch that comes back goes on")
        assert len(daemon.jobs()) == 6, "nothing was converted twice"


def test_a_watch_that_comes_back_after_a_restart_disposes_of_what_was_due(tmp_path: Path) -> None:
    both = HEAD + WATCH.format(name="one") + WATCH.format(name="two") + 'on_success = "delete"\n'
    daemon = Daemon(tmp_path, both)
    try:
        put(daemon.start(), "two", "a.txt")
        until(lambda: states(daemon) == {"a.txt": "completed"}, "it is due to be deleted, after a time of quiet")
        daemon.kill()
        assert daemon.config is not None
        daemon.config.write_text(HEAD + WATCH.format(name="one"))
        daemon.start()
        put(daemon, "one", "b.txt")
        reload(daemon, both)
        until(lambda: not (daemon.folder / "two" / "a.txt").exists(), "the source is deleted", 30)
    finally:
        daemon.close()


def test_a_bad_file_is_refused_and_the_old_one_kept(tmp_path: Path) -> None:
    with running(tmp_path, HEAD + WATCH.format(name="one")) as daemon:
        reload(daemon, HEAD + WATCH.format(name="one") + "priority = 99\n")
        until(lambda: "configuration refused" in daemon.log.read_text(), "it is refused")
        assert "watch[0].priority" in daemon.log.read_text()
        put(daemon, "one", "a.txt")


def test_a_reload_mends_a_watch_that_was_configured_wrongly(tmp_path: Path) -> None:
    with running(tmp_path, HEAD + WATCH.format(name="one")) as daemon:
        put(daemon, "one", "a.txt")
        reload(daemon, HEAD + WATCH.format(name="one").replace('"one"\nsink', '"gone/one"\nsink'))
        until(lambda: daemon.status()["watches"][0]["state"] == "paused", "there is no such folder")
        reload(daemon, HEAD + WATCH.format(name="one"))
        put(daemon, "one", "b.txt")


def test_a_hang_up_while_the_daemon_starts_is_heeded_and_ends_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, HEAD + WATCH.format(name="one"))
    lock = StateDir(str(daemon.state)).lock(0)
    try:
        process = daemon.launch()
        until(lambda: blocks_hang_ups(process.pid), "it is loading")
        process.send_signal(signal.SIGHUP)
        until(lambda: holds_open(process.pid, "/state/lock"), "it waits for the state_dir")
        process.send_signal(signal.SIGHUP)
        lock.release()
        until(lambda: "reloaded" in daemon.log.read_text(), "the configuration is read again")
        put(daemon, "one", "a.txt")
    finally:
        daemon.close()


def test_a_watch_that_comes_back_has_its_disposals_carried_out(tmp_path: Path) -> None:
    one = HEAD + WATCH.format(name="one")
    both = one + WATCH.format(name="two") + 'on_success = "delete"\n'
    with running(tmp_path, both) as daemon:
        put(daemon, "two", "a.txt")
        until(lambda: states(daemon) == {"a.txt": "completed"}, "that is recorded")
        source = daemon.folder / "two" / "a.txt"
        assert source.exists(), "it is left alone for some seconds"
        daemon.kill()
        assert daemon.config is not None
        daemon.config.write_text(one)
        daemon.start()
        reload(daemon, both)
        until(lambda: not source.exists(), "it is deleted")


STICKING = """
import errno
from daemon import cli
from daemon.sources import disposer

def make(path):
    if b"/full" in path:
        raise OSError(errno.ENOSPC, "No space left on device")
    made(path)

made, disposer.make_directories = disposer.make_directories, make
cli.main()
"""


def test_a_reload_frees_documents_that_are_stuck_on_the_way_to_a_target(tmp_path: Path) -> None:
    one = HEAD + WATCH.format(name="one")
    with running(tmp_path, one + 'on_success = "move:full"\n', entry=("-c", STICKING)) as daemon:
        stick(daemon, "one", "a.txt")
        reload(daemon, one + 'on_success = "move:done"\n')
        until((daemon.folder / "done" / "a.txt").exists, "it is moved to where documents go now", 30)
        assert os.listdir(daemon.folder / "one") == []


@pytest.mark.parametrize("runs", [True, False])
def test_a_retry_brings_back_what_is_stuck_though_its_job_does_not_begin(tmp_path: Path, *, runs: bool) -> None:
    with running(
        tmp_path, HEAD + WATCH.format(name="one") + 'on_success = "move:full"\n', entry=("-c", STICKING)
    ) as daemon:
        stick(daemon, "one", "a.txt")
        if runs:
            assert daemon.command("pause").returncode == 0
        else:
            daemon.kill()
        assert daemon.command("retry", "1").stdout == "1 queued again\n"
        assert os.listdir(daemon.folder / "one") == ["a.txt"]


@pytest.mark.parametrize("how", ["reload", "restart"])
def test_what_is_stuck_comes_back_before_its_watch_gets_another_source(tmp_path: Path, how: str) -> None:
    one = HEAD + WATCH.format(name="one")
    with running(tmp_path, one + 'on_success = "move:full"\n', entry=("-c", STICKING)) as daemon:
        stick(daemon, "one", "a.txt")
        elsewhere = one.replace('source = "one"', 'source = "elsewhere"')
        if how == "reload":
            reload(daemon, elsewhere)
        else:
            assert daemon.stop() == 0
            assert daemon.config is not None
            daemon.config.write_text(elsewhere)
            daemon.start()
        until(lambda: os.listdir(daemon.folder / "one") == ["a.txt"], "it is back", 30)


RARELY_LOOKING = """
from daemon import cli, supervisor
supervisor.LOOK_SECONDS = supervisor.STARTING_LOOK_SECONDS = 3600
cli.main()
"""


def test_signals_need_not_wait_until_the_daemon_looks_around(tmp_path: Path) -> None:
    with running(tmp_path, HEAD + WATCH.format(name="one"), entry=("-c", RARELY_LOOKING)) as daemon:
        put(daemon, "one", "a.txt")
        reload(daemon, HEAD + WATCH.format(name="two"))
        put(daemon, "two", "a.txt")
        assert daemon.stop() == 0


def put(daemon: Daemon, watch: str, name: str) -> None:
    """Drop a document into a watch's folder and wait for its result."""
    folder = daemon.folder / watch
    until(folder.exists, f"{folder} is made")
    (folder / f".{name}").write_bytes(b"Echo words")
    (folder / f".{name}").rename(folder / name)
    until((daemon.folder / f"{watch}-out" / f"{name}.md").exists, f"{name} is converted")


def stick(daemon: Daemon, watch: str, name: str) -> None:
    """The same with a document that is to be moved to the folder `full`, and is hidden, as `STICKING` forbids it."""
    put(daemon, watch, name)
    until(lambda: not (daemon.folder / watch / name).exists(), "it is about to be moved", 30)


def reload(daemon: Daemon, config: str) -> None:
    """Replace the configuration and have it read."""
    assert daemon.config is not None
    assert daemon.process is not None
    daemon.config.write_text(config)
    daemon.process.send_signal(signal.SIGHUP)
