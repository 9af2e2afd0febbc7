"""The harness itself: what it asks at a bad moment, and what it leaves behind."""

from __future__ import annotations

import gc
from pathlib import Path

import apsw

from tests.harness import Daemon, alive


def test_a_table_that_is_only_about_to_be_made_has_no_rows(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    assert daemon.rows("SELECT id FROM jobs") == []
    daemon.state.mkdir()
    apsw.Connection(str(daemon.state / "convertd.db")).execute("PRAGMA journal_mode = wal").close()
    assert daemon.rows("SELECT id FROM jobs") == []


def test_a_daemon_that_a_test_forgets_is_gone_with_it(tmp_path: Path) -> None:
    forgotten = Daemon(tmp_path)
    pid = forgotten.launch().pid
    assert alive(pid)
    del forgotten
    gc.collect()
    assert not alive(pid)
