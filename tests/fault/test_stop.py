"""Stops by signal give work back or end it, a second daemon is refused, and a document that kills is found out."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from daemon.schema import MIGRATIONS
from tests.fault.outcome import integrity, interruptions, is_converter, no_orphans, states, torn
from tests.harness import Daemon, children_of, until

CONFIG = """
state_dir = "state"
workers = {workers}
[limits]
convert_time = "5m"
[engines]
text = ["tests.engines_for_tests:{engine}"]
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""
DEATHS = 5

Make = Callable[..., Daemon]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A daemon whose text documents are converted by one of the test engines."""
    daemons: list[Daemon] = []

    def build(engine: str, workers: int = 2) -> Daemon:
        daemons.append(Daemon(tmp_path, CONFIG.format(engine=engine, workers=workers)))
        return daemons[-1]

    yield build
    for daemon in daemons:
        daemon.close()


def test_sigterm_drains_what_is_being_converted(make: Make) -> None:
    daemon = make("Slow").start()
    names = [f"slow{number}.txt" for number in range(8)]
    for name in names:
        daemon.drop(name, b"the river takes 1.5")
    until(lambda: len(converting(daemon)) == 2, "two conversions are under way")
    assert daemon.process is not None
    assert sum(map(is_converter, children_of(daemon.process.pid))) == 2
    begun = converting(daemon)
    assert daemon.stop() == 0
    no_orphans()
    after = states(daemon)
    assert sorted(after) == names
    assert set(after.values()) == {"pending", "completed"}
    assert all(after[name] == "completed" for name in begun), "a conversion was thrown away that had time to end"
    assert set(interruptions(daemon).values()) == {0}
    finish(daemon, names)


def test_second_sigterm_stops_at_once(make: Make) -> None:
    daemon = make("Loop").start()
    names = [f"loop{number}.txt" for number in range(4)]
    for name in names:
        daemon.drop(name, b"round and round")
    until(lambda: len(converting(daemon)) == 2, "two conversions are under way")
    process = daemon.process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    until(lambda: daemon.status()["daemon"].get("state") == "stopping", "the daemon is stopping")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert "stopped" in daemon.log.read_text()
    no_orphans()
    assert states(daemon) == dict.fromkeys(names, "pending")
    assert set(interruptions(daemon).values()) == {0}
    finish(make("Echo"), names)


def test_a_stop_while_starting(make: Make) -> None:
    """SIGTERM as soon as it says that it has started: whatever it was just doing, it ends in order."""
    daemon = make("Echo")
    for number in range(4):
        daemon.drop(f"{number}.txt", b"the river")
    process = daemon.launch()
    until(lambda: b"started" in daemon.log.read_bytes(), "the daemon has started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    finish(daemon, [f"{number}.txt" for number in range(4)])


def test_second_daemon_on_the_same_state_dir_is_refused(make: Make) -> None:
    first = make("Echo").start()
    assert first.process is not None
    second = first.command("run")
    assert second.returncode == 4
    assert str(first.process.pid) in second.stderr
    first.drop("a.txt", b"the river")
    assert first.outcome("a.txt") == "converted"


def test_newer_job_table_is_refused_and_left_alone(make: Make) -> None:
    daemon = make("Echo")
    daemon.drop("a.txt", b"the river")
    assert daemon.once() == 0
    table = daemon.state / "convertd.db"
    newer = apsw.Connection(str(table))
    newer.pragma("user_version", len(MIGRATIONS) + 1)
    newer.close()
    before = table.read_bytes()
    result = daemon.command("run", "--once")
    assert result.returncode == 2
    assert "newer convertd" in result.stderr
    assert table.read_bytes() == before


def test_a_document_whose_conversion_is_always_interrupted_ends_as_crashed(make: Make) -> None:
    daemon = make("Slow")
    daemon.drop("endless.txt", b"round and round 600")
    for _ in range(DEATHS):
        daemon.start()
        until(lambda: converting(daemon) == ["endless.txt"], "the endless document is being converted")
        daemon.kill()
    no_orphans()
    others = [f"other{number}.txt" for number in range(4)]
    for name in others:
        daemon.drop(name, b"the river takes 0")
    assert daemon.once() == 1
    assert json.loads(daemon.error("endless.txt").read_bytes())["kind"] == "crashed"
    assert states(daemon) == {"endless.txt": "failed", **dict.fromkeys(others, "completed")}
    for name in others:
        assert torn(daemon.markdown(name)) is None


def test_a_document_that_was_interrupted_twice_lets_the_others_go_first(make: Make) -> None:
    daemon = make("Slow", workers=1)
    daemon.drop("endless.txt", b"round and round 600")
    daemon.start()
    until(lambda: converting(daemon) == ["endless.txt"], "the endless document is being converted")
    others = [f"other{number}.txt" for number in range(6)]
    for name in others:
        daemon.drop(name, b"the river takes 0.1")
    until(lambda: len(states(daemon)) == 7, "the others wait for the only converter")
    daemon.kill()
    daemon.start()
    until(lambda: converting(daemon) == ["endless.txt"], "the endless document is being converted again")
    daemon.kill()
    daemon.start()
    assert interruptions(daemon)["endless.txt"] == 2
    for name in others:
        assert daemon.outcome(name) == "converted"
    until(lambda: converting(daemon) == ["endless.txt"], "the suspect has its turn")
    assert states(daemon) == {"endless.txt": "processing", **dict.fromkeys(others, "completed")}


def converting(daemon: Daemon) -> list[str]:
    return [job["source"] for job in daemon.jobs("--state", "processing") if job["stage"] == "convert"]


def finish(daemon: Daemon, names: list[str]) -> None:
    """The next run does the rest; nothing is lost."""
    assert daemon.once() == 0, daemon.log.read_text()[-3000:]
    assert states(daemon) == dict.fromkeys(names, "completed")
    for name in names:
        assert torn(daemon.markdown(name)) is None
    assert integrity(daemon) == "ok"
