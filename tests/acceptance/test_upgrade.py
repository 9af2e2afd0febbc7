"""Upgrades from every layout that the job table has had, and the way back: nothing is lost, nothing is done twice."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests import earlier
from tests.earlier import CONFIG, DONE, LAYOUTS, Layout, rows
from tests.fixtures.make import kept
from tests.harness import DEADLINE_SECONDS, Daemon, until

JOBS = (
    "SELECT id, source, version, state, attempts, error_kind, error, output, engine, finished_at FROM jobs ORDER BY id"
)
MEMORY = "SELECT source, version, converted_version, converted_sha256 FROM documents ORDER BY source"
WAITED = ("pending", "processing")
WITH_FAULTS = ("-m", "tests.fault.daemon_with_faults")
STEPS = ("backup", "backup written", "backed up", "migrating", "migrated", "migration committed")
BY_NAME = {layout.name: layout for layout in LAYOUTS}


class Home:
    """The folders of an earlier daemon, with what it knew."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self.layout = layout
        self.table = folder / "state" / "convertd.db"
        self.backup = folder / "state" / f"convertd.db.v{layout.version}.bak"
        self.jobs = {row[0]: row for row in rows(self.table, JOBS)}
        self.memory = {row[0]: row for row in rows(self.table, MEMORY)}
        self.outputs = self._outputs()

    def daemon(self, **kwargs: Any) -> Daemon:
        return Daemon(self.folder, CONFIG, **kwargs)

    def goes_on(self, daemon: Daemon, exit_code: int = 0) -> None:
        """A daemon takes over: what waited is converted, all else is as it was, and files are where they were."""
        daemon.start()
        until(lambda: not [state for (state,) in rows(self.table, STATES) if state in WAITED], "all is done")
        status = daemon.status()
        assert status["jobs"]["failed"] == 1
        assert daemon.stop() == exit_code
        self.is_kept()

    def is_kept(self) -> None:
        now = {row[0]: row for row in rows(self.table, JOBS)}
        assert now.keys() == self.jobs.keys(), "no job is lost, and there is none for what had one"
        for number, before in self.jobs.items():
            if before[3] in WAITED:
                assert now[number][3] == "completed", now[number]
            else:
                assert now[number] == before
        memory = {row[0]: row for row in rows(self.table, MEMORY)}
        assert memory.keys() == self.memory.keys()
        for source, before in self.memory.items():
            assert before[3] is None or memory[source][3] == before[3]
        assert self.outputs.items() <= self._outputs().items(), "nothing is converted a second time"

    def has_backup(self) -> None:
        """The backup holds what the table held, and is whole."""
        assert rows(self.backup, "PRAGMA integrity_check") == [("ok",)]
        assert rows(self.backup, "PRAGMA user_version") == [(self.layout.version,)]
        assert {row[0]: row for row in rows(self.backup, JOBS)} == self.jobs
        assert {row[0]: row for row in rows(self.backup, MEMORY)} == self.memory

    def _outputs(self) -> dict[Path, tuple[int, int]]:
        """Of documents whose job has ended."""
        ended = {os.fsdecode(row[1]) for row in self.jobs.values() if row[3] == "completed"}
        paths = [self.folder / "outbox" / f"{name}.md" for name in ended]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


STATES = "SELECT state FROM jobs"


def unpacked(folder: Path, name: str) -> Home:
    earlier.unpack(kept(BY_NAME[name]), folder)
    return Home(folder, BY_NAME[name])


@pytest.mark.parametrize("name", BY_NAME)
def test_a_state_is_brought_up_to_date(tmp_path: Path, name: str) -> None:
    home = unpacked(tmp_path, name)
    assert {"completed", "failed", "vanished", "superseded", "processing", "pending"} == {
        state for (state,) in rows(home.table, STATES)
    }
    home.goes_on(home.daemon())
    home.has_backup()
    assert not list(home.folder.glob("state/*.tmp*"))
    assert layout_of(home.table) == layout_of(new_table(tmp_path)) | AS_IT_WAS.get(name, {})


def new_table(folder: Path) -> Path:
    (folder / "new").mkdir()
    daemon = Daemon(folder / "new", CONFIG)
    assert daemon.once() == 0
    return daemon.state / "convertd.db"


# SQLite cannot change the type of a column, and keeps bytes as they are in one of either type.
AS_IT_WAS = {
    "1a": {
        "table watches": "CREATE TABLE watches (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
        "source TEXT NOT NULL, sink TEXT NOT NULL, paused INTEGER NOT NULL DEFAULT 0)"
    }
}


def layout_of(table: Path) -> dict[str, str]:
    """Table, index and trigger → how it is made, whatever the white space."""
    made = rows(table, "SELECT type || ' ' || name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'")
    return {what: re.sub(r"(?<=\() | (?=[,)])", "", " ".join(sql.split())) for what, sql in made}


@pytest.mark.parametrize("name", BY_NAME)
def test_the_way_there_and_back(tmp_path: Path, name: str) -> None:
    layout = BY_NAME[name]
    if reason := earlier.unavailable():
        pytest.skip(reason)
    code = earlier.take_out(layout.commit, tmp_path / "code")
    (folder := tmp_path / "home").mkdir()
    old = earlier.daemon_of(code, folder)
    earlier.leave_state(old)
    home = Home(folder, layout)
    home.goes_on(home.daemon())
    home.has_backup()
    home.backup.replace(home.table)
    home.goes_on(old, layout.exit_code)
    assert old.start().command("status").returncode == 0
    old.drop("later.txt", b"the river later\n")
    assert old.outcome("later.txt") == "converted"
    until(lambda: old.status()["jobs"]["processing"] == 0, "its job is done")
    assert old.stop() == layout.exit_code
    again = Home(folder, layout)
    again.goes_on(again.daemon())
    again.has_backup()
    assert {DONE[0], "later.txt"} <= {os.fsdecode(row[1]) for row in again.jobs.values()}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_of_a_migration(tmp_path: Path, step: str) -> None:
    home = unpacked(tmp_path, "1a" if step == "migrating" else "1")
    daemon = home.daemon(entry=WITH_FAULTS)
    assert daemon.launch(env={"CONVERTD_DIE_AT": f"{step}:1"}).wait(DEADLINE_SECONDS) == -signal.SIGKILL
    version = rows(home.table, "PRAGMA user_version")[0][0]
    assert (version == home.layout.version) == (step != "migration committed")
    assert {row[0]: row for row in rows(home.table, JOBS)} == home.jobs
    if home.backup.exists():
        home.has_backup()
    assert home.backup.exists() == (STEPS.index(step) >= STEPS.index("backed up"))
    home.goes_on(home.daemon())
    home.has_backup()
    assert not list(home.folder.glob("state/*.tmp*"))


def test_commands_say_that_the_table_is_older_and_leave_it_alone(tmp_path: Path) -> None:
    for name in BY_NAME:
        (folder := tmp_path / name).mkdir()
        home = unpacked(folder, name)
        for command in (["status"], ["jobs"], ["why", DONE[0]], ["batch", "any"], ["plan"], ["retry", "1"], ["pause"]):
            result = home.daemon().command(*command)
            assert result.returncode == 2, (name, command, result.stderr)
            assert "older convertd" in result.stderr
        assert {row[0]: row for row in rows(home.table, JOBS)} == home.jobs
        assert not home.backup.exists()


def test_a_newer_state_is_refused_and_left_alone(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    daemon.drop("a.txt", b"the river")
    assert daemon.once() == 0
    newer = apsw.Connection(str(daemon.state / "convertd.db"))
    newer.execute("ALTER TABLE jobs ADD COLUMN beyond TEXT; CREATE TABLE unheard_of (x)")
    newer.pragma("user_version", 1000)
    newer.pragma("journal_mode", "delete")
    newer.close()
    before = contents(daemon.state)
    daemon.drop("b.txt", b"the river b")
    daemon.log.unlink()
    assert daemon.once() == 2
    assert "made by a newer convertd" in (said := daemon.log.read_text())
    assert "Install that newer convertd again" in said
    for command in (["status"], ["jobs"], ["retry", "1"], ["prune"]):
        result = daemon.command(*command)
        assert result.returncode == 2, (command, result.stdout, result.stderr)
        assert "made by a newer convertd" in result.stderr
    assert contents(daemon.state) == before
    assert not daemon.markdown("b.txt").exists()


def contents(folder: Path) -> dict[str, bytes]:
    """All that is not the mere mark of who came last."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "lock"}
