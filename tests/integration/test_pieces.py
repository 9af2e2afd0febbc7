"""What takes a command long is done in pieces: no answer is waited for in vain, and no lock held for minutes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from daemon import control, operations
from daemon.cli import common
from daemon.cli.prune import command as prune
from daemon.cli.retry import command as retry
from daemon.control import ControlServer
from daemon.db import Readers, Writer
from daemon.errors import EnvironmentProblem
from daemon.jobs import JobTable
from daemon.model import Candidate, Job
from daemon.operations import Down, Operations
from daemon.sources.base import Source
from daemon.statedir import StateDir
from daemon.switches import Switches

PATIENCE_SECONDS = 20.0
DEADLINE_SECONDS = 60.0


class Turns:
    """One step may be taken, and another one for each answer that a command has got."""

    def __init__(self) -> None:
        self._turns = threading.Semaphore(1)

    def take(self) -> None:
        assert self._turns.acquire(timeout=DEADLINE_SECONDS), "the answer to the step before has not come"

    def answered(self) -> None:
        self._turns.release()


class Places:
    """A source whose documents are gone, but for some."""

    def __init__(self, look: Callable[[], None], there: frozenset[bytes] = frozenset(), sick: bool = False) -> None:
        self._look = look
        self._there = there
        self._sick = sick
        self.looked_for: list[bytes] = []

    def exists(self, source: bytes) -> bool:
        self._look()
        self.looked_for.append(source)
        return source in self._there

    def vouch(self) -> None:
        if self._sick:
            raise EnvironmentProblem("it is empty", "Mount it.")


class Retrying(Down):
    """A daemon that takes its time with each of the jobs that it is given back."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def retried(self, jobs: list[Job]) -> None:
        self._turns.take()


class Table:
    """A job table whose jobs are all cancelled, of two watches."""

    def __init__(self, state: StateDir) -> None:
        self.writer = Writer(state.database)
        self.writer.start()
        self.jobs = JobTable(self.writer, Readers(state.database))
        self.switches = Switches(self.writer, Readers(state.database))

    def add(self, watch: str, number: int) -> None:
        self.jobs.register(watch, f"/{watch}", "/out")
        names = (b"%05d \xff" % index for index in range(number))
        new, _ = self.jobs.enqueue(watch, [Candidate(name, "1", 1) for name in names], 5)
        self.jobs.cancel([job.id for job in new])

    def fail_all(self) -> None:
        self.writer.call(lambda db: db.execute("UPDATE jobs SET state = 'failed'"))


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    return state


@pytest.fixture
def table(state: StateDir) -> Iterator[Table]:
    table = Table(state)
    yield table
    table.writer.close()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    """Given to whoever serves; pieces are as small as may be, and commands less patient."""
    turns = Turns()

    def ask(path: str, command: str, **values: Any) -> dict[str, Any]:
        answer = control.ask(path, command, timeout_seconds=PATIENCE_SECONDS, **values)
        if command in ("forget", "retry"):
            turns.answered()
        return answer

    monkeypatch.setattr(common, "ask", ask)
    monkeypatch.setattr(operations, "PIECE_SECONDS", 0.0)
    monkeypatch.setattr(operations, "CHUNK", 100)
    return turns


@contextmanager
def serving(state: StateDir, table: Table, sources: dict[str, Places], running: Down) -> Iterator[Operations]:
    subject = Operations(
        state.database, table.jobs, table.switches, lambda: cast(dict[str, Source], sources), running, lambda gone: None
    )
    server = ControlServer(state.socket, subject.handlers())
    server.start()
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield subject
    finally:
        server.close()
        thread.join(DEADLINE_SECONDS)


def run(command: Any, state: StateDir, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, [*arguments, "--state-dir", state.path], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_a_prune_may_take_longer_than_an_answer(state: StateDir, table: Table, turns: Turns) -> None:
    table.add("first", 520)
    table.add("second", 20)
    there = frozenset(b"%05d \xff" % index for index in (0, 1, 10, 19))
    sources = {"second": Places(turns.take, there), "first": Places(turns.take)}
    with serving(state, table, sources, Down()):
        assert run(prune, state, "--older-than", "0s") == (
            0,
            "540 jobs dropped, 536 vanished documents forgotten\n",
            "",
        )
    assert {watch: len(source.looked_for) for watch, source in sources.items()} == {"first": 520, "second": 20}
    assert table.jobs.history.orphans("first", b"") == []
    assert table.jobs.history.orphans("second", b"") == sorted(there)


def test_a_watch_that_cannot_be_trusted_keeps_its_documents_and_the_others_go_on(
    state: StateDir, table: Table, turns: Turns
) -> None:
    for watch in ("first", "second", "third"):
        table.add(watch, 3)
    sources = {watch: Places(turns.take, sick=watch == "second") for watch in ("first", "second", "third")}
    with serving(state, table, sources, Down()):
        assert run(prune, state, "--older-than", "0s") == (
            1,
            "9 jobs dropped, 6 vanished documents forgotten\n",
            "not forgotten: watch second: it is empty. Mount it.\n",
        )
    assert len(table.jobs.history.orphans("second", b"")) == 3


def test_a_retry_may_take_longer_than_an_answer(state: StateDir, table: Table, turns: Turns) -> None:
    table.add("inbox", 550)
    table.fail_all()
    with serving(state, table, {}, Retrying(turns)):
        assert run(retry, state, "--failed") == (
            0,
            "550 queued again\n550 of them belong to a watch that is not configured, and wait until it is\n",
            "",
        )
    assert len(table.jobs.pending("inbox", 1000)) == 550


def test_each_number_is_retried_once_and_each_refusal_told(state: StateDir, table: Table, turns: Turns) -> None:
    table.add("inbox", 250)
    with serving(state, table, {"inbox": Places(turns.take)}, Retrying(turns)):
        status, stdout, stderr = run(retry, state, *map(str, range(300, 0, -1)), "7")
    assert (status, stdout) == (1, "250 queued again\n")
    assert stderr.count("does not exist") == common.REFUSALS_SHOWN and "and 30 more" in stderr


def test_what_fails_while_a_retry_goes_on_is_not_retried(state: StateDir, table: Table, turns: Turns) -> None:
    table.add("inbox", 150)
    table.fail_all()
    with serving(state, table, {}, Down()) as subject:
        first = subject.retry({"failed": True})
        table.add("later", 1)
        table.fail_all()
        last = subject.retry(first["rest"])
    assert (first["retried"], last["retried"], "rest" in last) == (100, 50, False)


def test_a_daemon_that_starts_gets_the_lock_between_two_pieces(
    state: StateDir, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(state)
    table.add("inbox", 12)
    table.writer.close()
    looking, looked_for = threading.Event(), []
    source = Places(looking.set)
    monkeypatch.setattr(common, "_sources", lambda place: {"inbox": source})

    def start() -> None:
        assert looking.wait(DEADLINE_SECONDS)
        with state.lock(DEADLINE_SECONDS):
            looked_for.append(len(source.looked_for))

    daemon = threading.Thread(target=start)
    daemon.start()
    try:
        assert run(prune, state, "--older-than", "0s") == (0, "12 jobs dropped, 12 vanished documents forgotten\n", "")
    finally:
        looking.set()
        daemon.join(DEADLINE_SECONDS)
    assert 1 <= looked_for[0] < 12
