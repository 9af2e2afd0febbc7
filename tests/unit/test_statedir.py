"""One process at a time."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from daemon.errors import AlreadyRunning, EnvironmentProblem, UsageError
from daemon.statedir import StateDir


def test_a_second_holder_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    with state.lock(0), pytest.raises(AlreadyRunning, match=str(os.getpid())) as caught:
        state.lock(0)
    assert caught.value.exit_code == 4
    state.lock(0).release()


def test_a_starting_daemon_waits_for_a_command_to_end(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    held = state.lock(0)
    got: list[bool] = []

    def start() -> None:
        state.lock(30).release()
        got.append(True)

    thread = threading.Thread(target=start)
    thread.start()
    held.release()
    thread.join(30)
    assert got == [True]


def test_the_state_is_private(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    assert Path(state.path).stat().st_mode & 0o777 == 0o700
    assert Path(state.spool).stat().st_mode & 0o777 == 0o700


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        StateDir(str(tmp_path / "file" / "state")).create()


def test_a_lock_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    (tmp_path / "state" / "lock").mkdir()
    with pytest.raises(EnvironmentProblem, match="cannot be written") as caught:
        state.lock(0)
    assert "start it again" in caught.value.hint


def test_a_lock_needs_no_room_for_the_number_of_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    state = StateDir(str(tmp_path / "state"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        held = state.lock(0)
    with held, pytest.raises(AlreadyRunning, match="pid unknown"):
        state.lock(0)
