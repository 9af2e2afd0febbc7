"""The queues that the job table is compared with do all that they are timed for, and durably."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.job_table_ours import Waiting
from tests.bench.job_table_run import WAYS, worked
from tests.bench.queues import PEERS, Queue

MODULES = {"huey": "huey", "persist-queue": "persistqueue", "litequeue": "litequeue"}
FULL = 2


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[sqlite3.Connection]]:
    """All that were opened, by whichever thread; closed at the end."""
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recorded(*arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **{**options, "check_same_thread": False}))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", recorded)
    yield opened
    for connection in opened:
        connection.close()


def made(name: str, folder: Path) -> Queue:
    """One of them, or a skip where it is not installed."""
    if name in MODULES and importlib.util.find_spec(MODULES[name]) is None:
        pytest.skip(f"{name} is not installed: the extra `bench`")
    return PEERS[name](str(folder))


@pytest.mark.parametrize("name", PEERS)
def test_every_job_is_taken_once_and_finished(name: str, tmp_path: Path) -> None:
    queue, taken = made(name, tmp_path), []

    def take() -> Any:
        got = taking()
        taken.append(getattr(got, "id", got))
        return got

    taking: Callable[[], Any] = queue.take
    queue.take = take  # type: ignore[method-assign]
    assert worked(queue, 4, 60).busy == 0
    assert len(taken) == len(set(taken)) == 60


@pytest.mark.parametrize("name", PEERS)
def test_every_commit_of_a_peer_waits_for_the_disk(
    name: str, tmp_path: Path, connections: list[sqlite3.Connection]
) -> None:
    queue = made(name, tmp_path)
    worked(queue, 2, 4)
    writing = [connection for connection in connections if _is_open(connection)]
    if name == "persist-queue":
        writing = [queue._queue._putter]  # type: ignore[attr-defined]  # the others read
    assert writing
    assert {connection.execute("PRAGMA synchronous").fetchone()[0] for connection in writing} == {FULL}


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:  # it was for making the tables
        return False
    return True


def test_a_thread_that_fails_fails_the_measurement(tmp_path: Path) -> None:
    queue = PEERS["a sqlite3 connection per thread"](str(tmp_path))
    finish = queue.finish

    def failing(taken: int) -> None:
        if taken == 5:
            raise RuntimeError("the disk is gone")
        finish(taken)

    queue.finish = failing  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        worked(queue, 4, 20)


@pytest.mark.parametrize("way", WAYS)
def test_the_job_table_does_the_same(way: str, tmp_path: Path) -> None:
    ours = WAYS[way](str(tmp_path))
    try:
        assert worked(ours, 4, 60).busy == 0
        assert ours.ended == 60
    finally:
        ours.close()
    with sqlite3.connect(tmp_path / "convertd.db") as db:
        assert db.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall() == [("completed", 60)]


def test_who_waits_has_what_is_finished_on_the_disk(tmp_path: Path) -> None:
    waiting = Waiting(str(tmp_path))
    try:
        waiting.put(1)
        waiting.finish(waiting.take())
        with sqlite3.connect(tmp_path / "convertd.db") as db:
            assert db.execute("SELECT state FROM jobs").fetchall() == [("completed",)]
    finally:
        waiting.close()
