"""Watches that come and go while a backlog drains: every document of a configured watch is converted exactly once."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from tests.harness import Daemon, running, until

HEAD = """
state_dir = "state"
workers = 2
[engines]
text = ["tests.engines_for_tests:Slow"]
"""
WATCH = '[[watch]]\nname = "{name}"\nsource = "{name}"\nsink = "{name}-out"\npriority = {priority}\n'
STEADY, GUESTS = 350, {"early": 70, "middle": 50, "late": 30}


def configured(*guests: str, priority: int = 5) -> str:
    """The steady watch and these."""
    watches = [WATCH.format(name=name, priority=priority) for name in ("steady", *guests)]
    return HEAD + "".join(watches)


def fill(folder: Path, count: int) -> None:
    """So many documents, each with words of its own."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03}.txt").write_text(f"report {number} of {folder.name}, which takes 0.03")


def reload(daemon: Daemon, config: str, times: int) -> None:
    """Have a configuration read, and wait until it is the one that is served."""
    assert daemon.config is not None
    assert daemon.process is not None
    daemon.config.write_text(config)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: events(daemon)["reloaded"] == times, f"reload {times} is applied")


def events(daemon: Daemon) -> Counter[str]:
    return Counter(record["event"] for record in daemon.said())


def converted(daemon: Daemon) -> Counter[str]:
    """How often each document was said to be converted."""
    return Counter(f"{one['watch']}/{one['source']}" for one in daemon.said() if one["event"] == "converted")


def some_more(daemon: Daemon) -> None:
    """Wait until further documents are converted."""
    seen = sum(converted(daemon).values())
    until(lambda: sum(converted(daemon).values()) > seen + 40, "some more are converted")


def test_every_document_is_converted_exactly_once_while_watches_come_and_go(tmp_path: Path) -> None:
    for name, count in {"steady": STEADY, **GUESTS}.items():
        fill(tmp_path / name, count)
    with running(tmp_path, configured()) as daemon:
        for times in range(3):
            # A changed priority makes the steady watch one that is changed, too: served anew, with nothing repeated.
            reload(daemon, configured(*GUESTS, priority=5 + times), times * 2 + 1)
            some_more(daemon)
            reload(daemon, configured("late"), times * 2 + 2)
        assert sum(converted(daemon).values()) < STEADY, "the watches came and went while the backlog was there"
        reload(daemon, configured(*GUESTS), 7)
        expected = {
            f"{name}/{number:03}.txt": 1
            for name, count in {"steady": STEADY, **GUESTS}.items()
            for number in range(count)
        }
        until(lambda: len(converted(daemon)) == len(expected), "all are converted")
        jobs = daemon.jobs()
        assert daemon.stop() == 0
    assert converted(daemon) == expected
    assert {(job["state"], job["attempts"]) for job in jobs} == {("completed", 1)}
    assert len(jobs) == len(expected)
    for document in expected:
        watch, name = document.split("/")
        assert f"of {watch}," in (tmp_path / f"{watch}-out" / f"{name}.md").read_text()
