"""Engines that loop, crash, eat memory and worse: the document that makes them do so fails, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.harness import Daemon, alive, children_of, running, until

CONFIG = """
state_dir = "state"
workers = {workers}
[limits]
convert_time = "{convert_time}"
converter_memory = "1GiB"
[engines]
text = ["tests.engines_for_tests:Command"]
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""
KINDS = {
    "Loop": "timeout",
    "Crash": "crashed",
    "Abort": "crashed",
    "Exit": "crashed",
    "Garbage": "crashed",
    "Truncated": "crashed",
    "Memory": "out_of_memory",
    "NativeMemory": "out_of_memory",
    "Killed": "out_of_memory",
    "Echo": "converted",
    "Noise": "converted",
    "Thread": "converted",
}


def test_each_ends_with_its_own_error(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG.format(workers=2, convert_time="5s")) as daemon:
        assert daemon.process is not None
        drop_together(daemon, [f"{engine} document {number}" for number in range(2) for engine in KINDS])
        for number in range(2):
            for engine, kind in KINDS.items():
                name = f"together/{engine} document {number}.txt"
                assert daemon.outcome(name) == kind, engine
                if kind != "converted":
                    error = json.loads(daemon.error(name).read_bytes())
                    assert (error["attempts"], bool(error["hint"])) == (1, True), engine
        assert daemon.status()["jobs"] == {"pending": 0, "processing": 0, "completed": 6, "failed": 18}
        daemon.drop("afterwards.txt", b"Echo afterwards")
        assert daemon.outcome("afterwards.txt") == "converted"
        children = children_of(daemon.process.pid)
        assert daemon.stop() == 0
        assert not [pid for pid in children if alive(pid)]


@pytest.mark.parametrize("workers", [2, 3])
def test_a_free_worker_is_enough(tmp_path: Path, workers: int) -> None:
    """With all workers but one looping, a normal document dropped at the same moment does not wait for them."""
    with running(tmp_path, CONFIG.format(workers=workers, convert_time="5m")) as daemon:
        loops = [f"Loop {number}" for number in range(workers - 1)]
        drop_together(daemon, [*loops, "Echo normal"])
        assert daemon.outcome("together/Echo normal.txt") == "converted"
        assert not [name for name in loops if daemon.error(f"together/{name}.txt").exists()]
        states = until(
            lambda: (
                (jobs := {job["source"]: job["state"] for job in daemon.jobs()})["together/Echo normal.txt"]
                == "completed"
                and jobs
            ),
            "the job is completed",
        )
        assert [states[f"together/{name}.txt"] for name in loops] == ["processing"] * len(loops)


def test_more_loops_than_workers(tmp_path: Path) -> None:
    """The normal document's turn comes before the loops that were dropped after it, and they all end."""
    with running(tmp_path, CONFIG.format(workers=2, convert_time="3s")) as daemon:
        loops = [f"Loop {number}" for number in range(3)]
        drop_together(daemon, loops)
        until(lambda: len(daemon.jobs()) == len(loops), "the loops are queued")
        daemon.drop("Echo normal.txt", b"Echo normal")
        until(lambda: len(daemon.jobs()) == len(loops) + 1, "the normal document is queued")
        drop_together(daemon, [f"Loop later {number}" for number in range(2)], "later")
        assert daemon.outcome("Echo normal.txt") == "converted"
        assert not daemon.error("later/Loop later 1.txt").exists()
        for name in loops:
            assert daemon.outcome(f"together/{name}.txt") == "timeout"
        for number in range(2):
            assert daemon.outcome(f"later/Loop later {number}.txt") == "timeout"


def drop_together(daemon: Daemon, texts: list[str], folder: str = "together") -> None:
    """A folder with a document a text, named like it, that appears at once."""
    hidden = daemon.inbox / f".{folder}"
    hidden.mkdir()
    for text in texts:
        (hidden / f"{text}.txt").write_text(text)
    hidden.rename(daemon.inbox / folder)
