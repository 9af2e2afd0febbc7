"""What a path leads to is asked, but not waited for without end."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon import config
from daemon.errors import ConfigError, EnvironmentProblem
from daemon.files import RootFolder
from daemon.ground import Ground, Look, Patience, is_mount_point
from tests.dead_mount import dead_mount


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    with dead_mount(tmp_path / "dead") as folder:
        yield folder


def test_an_answer_is_given_and_an_error_raised() -> None:
    patience = Patience()
    assert patience.answered(lambda: 1, 2) == 1
    with pytest.raises(ZeroDivisionError):
        patience.answered(lambda: 1 // 0, 2)


def test_the_thread_that_is_asked_ends_with_the_patience() -> None:
    patience = Patience()
    thread = patience.answered(threading.current_thread, threading.main_thread())
    assert thread is patience.answered(threading.current_thread, threading.main_thread())
    del patience
    thread.join(60.0)
    assert not thread.is_alive()


def test_each_silence_costs_less_than_the_one_before_and_is_forgiven() -> None:
    done = threading.Event()
    now = [0.0]
    patience = Patience(1.0, lambda: now[0])
    costs = []
    for _ in range(4):
        costs.append(patience.next_seconds)
        assert not patience.answered(done.wait, False)
    assert costs == [1.0, 0.5, 0.25, 0.25]
    now[0] = 100.0
    assert not patience.answered(done.wait, False)
    assert patience.next_seconds == 0.5, "after a while it had been whole again"
    done.set()


def test_what_is_well_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("folder")
    ground = Ground(str(tmp_path))
    real = str((tmp_path / "folder").resolve())
    assert ground.look(f"{tmp_path}/link") == Look(real, is_folder=True, is_file=False)
    assert ground.look(f"{tmp_path}/file").is_file
    assert ground.look(f"{tmp_path}/none") == Look(f"{tmp_path}/none", is_folder=False, is_file=False)


def test_a_dead_mount_is_taken_as_named_and_what_is_beside_it_judged(tmp_path: Path, mount: Path) -> None:
    dead = "".join(f'[[watch]]\nname = "w{n}"\nsource = "{mount}/in{n}"\nsink = "{mount}/out{n}"\n' for n in range(3))
    file = tmp_path / "c.toml"
    file.write_text(dead)
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit(config.load, str(file)).result(60.0)
    assert [watch.source for watch in read.watches] == [f"{mount}/in{n}" for n in range(3)]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    file.write_text(f'[[watch]]\nname = "well"\nsource = "real"\nsink = "link"\n{dead}')
    with pytest.raises(ConfigError, match="the same folder as"):
        config.load(str(file))


def test_what_does_not_answer_is_compared_with_nothing_that_does(tmp_path: Path, mount: Path) -> None:
    """Where its links lead is not known: a configuration that is right would be refused for as long."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/out").symlink_to(mount / "out")
    file = tmp_path / "c.toml"
    file.write_text('[[watch]]\nname = "a"\nsource = "in"\nsink = "in/out"\n')
    assert config.load(str(file)).watches[0].sink == f"{tmp_path}/in/out"


def test_the_kernel_knows_what_is_mounted_where(tmp_path: Path) -> None:
    with dead_mount(tmp_path / "a dead one") as folder:
        assert is_mount_point(os.fsencode(folder))
        assert not is_mount_point(os.fsencode(folder / "in"))
    assert not is_mount_point(os.fsencode(folder))


def test_a_silent_folder_is_neither_made_nor_taken_for_the_one_below_its_mount(tmp_path: Path) -> None:
    with dead_mount(tmp_path / "dead") as folder:
        root = RootFolder(os.fsencode(folder), silent=True)
        below = RootFolder(os.fsencode(folder / "in"), silent=True)
    with pytest.raises(EnvironmentProblem, match="no longer mounted"):
        root.check()
    with pytest.raises(EnvironmentProblem, match="No such file"):
        below.check()
    assert not (folder / "in").exists()
    (folder / "in").mkdir()
    assert below.check()
