"""What a path leads to is asked, but not waited for without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon import config
from daemon.errors import ConfigError
from daemon.ground import Ground, Look, Patience
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


def test_many_silences_cost_little_more_than_one_and_are_forgiven() -> None:
    done = threading.Event()
    now = [0.0]
    patience = Patience(0.2, lambda: now[0])
    costs = []
    for _ in range(10):
        costs.append(patience.next_seconds)
        assert not patience.answered(done.wait, False)
    assert costs[0] == 0.1
    assert sum(costs) < 4 * costs[0]
    assert patience.answered(lambda: 1, 2) == 1
    now[0] = 100.0
    assert not patience.answered(done.wait, False)
    assert patience.next_seconds == costs[1], "after a while it had been whole again"
    done.set()


def test_what_is_well_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("folder")
    ground = Ground(str(tmp_path))
    real = str((tmp_path / "folder").resolve())
    assert ground.look(f"{tmp_path}/link") == Look(real, is_folder=True, is_file=False)
    assert ground.look(f"{tmp_path}/file").is_file
    assert ground.look(f"{tmp_path}/none")[1:] == (False, False)


def test_a_dead_mount_is_taken_as_named_and_what_is_beside_it_judged(tmp_path: Path, mount: Path) -> None:
    dead = "".join(f'[[watch]]\nname = "w{n}"\nsource = "{mount}/in{n}"\nsink = "{mount}/out{n}"\n' for n in range(10))
    file = tmp_path / "c.toml"
    file.write_text(dead)
    with ThreadPoolExecutor(1) as thread:
        read = thread.submit(config.load, str(file)).result(60.0)
    assert [watch.source for watch in read.watches] == [f"{mount}/in{n}" for n in range(10)]
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    file.write_text(f'{dead}[[watch]]\nname = "well"\nsource = "real"\nsink = "link"\n')
    with pytest.raises(ConfigError, match="the same folder as"):
        config.load(str(file))
