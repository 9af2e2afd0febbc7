"""The news of a folder tree are asked for when there may be some, of every folder that is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.sources import changes
from daemon.sources.changes import Changes
from daemon.sources.folder import FolderSource
from daemon.sources.wakeups import Wakeups
from tests.harness import until
from tests.watching import Clock, Everything, watched

NEVER_SECONDS = 10**6


class Asked:
    """A watch of watchfiles that remembers how long it was asked for news, and in which steps."""

    def __init__(self, notify: Any) -> None:
        self._notify = notify
        self.milliseconds = 0
        self.steps: list[int] = []

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop: None) -> Any:
        self.milliseconds += timeout_ms
        self.steps.append(step_ms)
        return self._notify.watch(debounce_ms, step_ms, timeout_ms, stop)

    def close(self) -> None:
        self._notify.close()


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox" / "sub").mkdir(parents=True)
    return tmp_path / "inbox"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """What was asked, by the watches that are armed."""
    arm, all_asked = changes._arm, []

    def armed(path: str) -> Any:
        all_asked.append(Asked(arm(path)))
        return all_asked[-1]

    monkeypatch.setattr(changes, "_arm", armed)
    return all_asked


@pytest.fixture
def news(inbox: Path, asked: list[Asked], monkeypatch: pytest.MonkeyPatch) -> Iterator[Changes]:
    """Asked when the kernel says that something happens, and never else."""
    monkeypatch.setattr(changes, "LOOK_SECONDS", NEVER_SECONDS)
    monkeypatch.setattr(changes, "LISTEN_SECONDS", 10)
    subject = Changes(os.fsencode(inbox))
    subject.entering(b"")
    subject.entering(b"sub")
    subject.wait(0)
    yield subject
    subject.close()


def test_while_nothing_happens_nothing_is_asked(news: Changes, asked: list[Asked]) -> None:
    assert news.wait(0.5) == set()
    assert asked[0].milliseconds < 100


def test_it_is_asked_now_and_then_all_the_same(
    news: Changes, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LOOK_SECONDS", 0.1)
    news.wait(0)
    assert news.wait(0.2) == news.wait(0.2) == set()
    assert asked[0].steps == [changes.NO_WAIT_MS] * 4


@pytest.mark.parametrize("name", [b"a.txt", b"sub/a.txt"])
def test_the_news_come_where_something_happens(name: bytes, news: Changes, inbox: Path) -> None:
    (inbox / os.fsdecode(name)).touch()
    assert name in news.wait(30)


def test_the_first_of_many_news_come_soon_and_the_others_together(
    news: Changes, asked: list[Asked], inbox: Path
) -> None:
    for number in range(3):
        (inbox / f"{number}.txt").touch()
        assert f"{number}.txt".encode() in news.wait(30)
    _, first, *others = asked[0].steps
    assert first < changes.STEP_MS and set(others) == {changes.STEP_MS}


# -- every folder that is there ------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Wakeups]:
    """Those by which sources are woken. Folders are found by the news alone."""
    made = []

    def make() -> Wakeups:
        made.append(Wakeups())
        return made[-1]

    monkeypatch.setattr(changes, "Wakeups", make)
    monkeypatch.setattr("daemon.sources.discovery.FOLDER_CHECK_SECONDS", NEVER_SECONDS)
    return made


def source(inbox: Path) -> FolderSource:
    clock = Clock()
    return FolderSource(str(inbox), Everything(), clock=clock.time, monotonic=clock.monotonic)


def covered(wakeups: Wakeups) -> int:
    """The folders by which it wakes, as the kernel counts them."""
    lines = Path(f"/proc/self/fdinfo/{wakeups._fd}").read_text().splitlines()
    return sum(line.startswith("inotify wd:") for line in lines)


def there(inbox: Path) -> int:
    """The folders that there are."""
    return sum(1 for _ in os.walk(inbox))


def a_nested_folder(inbox: Path) -> list[str]:
    (inbox / "a" / "b" / "c").mkdir(parents=True)
    (inbox / "a" / "b" / "c" / "new.txt").touch()
    return ["a/b/c/new.txt"]


def many_folders(inbox: Path) -> list[str]:
    names = [f"{number}/deep/new.txt" for number in range(100)]
    for name in names:
        (inbox / name).parent.mkdir(parents=True)
        (inbox / name).touch()
    return names


def a_renamed_folder(inbox: Path) -> list[str]:
    (inbox / "sub").rename(inbox / "renamed")
    (inbox / "renamed" / "new.txt").touch()
    return ["renamed/new.txt"]


def a_folder_made_anew(inbox: Path) -> list[str]:
    (inbox / "sub").rmdir()
    (inbox / "sub").mkdir()
    (inbox / "sub" / "new.txt").touch()
    return ["sub/new.txt"]


def a_folder_moved_in(inbox: Path) -> list[str]:
    outside = inbox.parent / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "new.txt").touch()
    outside.rename(inbox / "inside")
    return ["inside/deep/new.txt"]


def a_hidden_folder_shown(inbox: Path) -> list[str]:
    (inbox / ".hidden" / "deep").mkdir(parents=True)
    (inbox / ".hidden" / "deep" / "new.txt").touch()
    (inbox / ".hidden").rename(inbox / "shown")
    return ["shown/deep/new.txt"]


@pytest.mark.parametrize(
    "come",
    [
        a_nested_folder,
        many_folders,
        a_renamed_folder,
        a_folder_made_anew,
        a_folder_moved_in,
        a_hidden_folder_shown,
    ],
)
def test_folders_that_come_wake_as_well(come: Callable[[Path], list[str]], inbox: Path, told: list[Wakeups]) -> None:
    with watched(source(inbox)) as state:
        state.drained()
        state.queued(*come(inbox))
        until(lambda: covered(told[0]) == there(inbox), "all folders are told")
        (inbox / "last.txt").touch()
        until(lambda: b"last.txt" in state.ledger.sources(), "the last file is queued")
    assert len(told) == 1


def test_folders_that_go_are_let_go(inbox: Path, told: list[Wakeups]) -> None:
    with watched(source(inbox)) as state:
        state.drained()
        (inbox / "sub" / "deep").mkdir()
        until(lambda: covered(told[0]) == there(inbox), "all folders are told")
        shutil.rmtree(inbox / "sub")
        until(lambda: covered(told[0]) == there(inbox), "the others are told")


@pytest.mark.parametrize("most_folders", [0, 2])
def test_too_many_folders_are_watched_all_the_same(
    most_folders: int, inbox: Path, told: list[Wakeups], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "Wakeups", partial(Wakeups, most_folders))
    monkeypatch.setattr(changes, "LOOK_SECONDS", NEVER_SECONDS)
    with watched(source(inbox)) as state:
        state.drained()
        (inbox / "deep" / "deeper").mkdir(parents=True)
        (inbox / "deep" / "deeper" / "a.txt").touch()
        state.queued("deep/deeper/a.txt")
        (inbox / "sub" / "b.txt").touch()
        state.queued("deep/deeper/a.txt", "sub/b.txt")
        assert told == []
