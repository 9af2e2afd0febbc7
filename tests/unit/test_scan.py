"""Walking a tree and noticing which of its folders have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.sources.scan import Tree
from tests.watching import Clock, Everything


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one.txt").touch()
    return tmp_path


def tree(folder: Path, clock: Clock) -> Tree:
    return Tree(os.fsencode(folder), Everything().takes, clock.time)


def names(subject: Tree, start: bytes = b"", *, known: bool = True) -> list[bytes]:
    return [found.source for batch in subject.walk(start, known=known) for found in batch]


def test_a_folder_in_which_nothing_happens_is_not_listed_again(folder: Path) -> None:
    subject = tree(folder, Clock(10))
    assert names(subject) == [b"a/b/one.txt"]
    assert list(subject.changed()) == []


def test_a_new_name_changes_its_folder_only(folder: Path) -> None:
    subject = tree(folder, Clock(10))
    names(subject)
    (folder / "a" / "b" / "two.txt").touch()
    os.utime(folder / "a" / "b", (1, 1))
    assert list(subject.changed()) == [b"a/b"]
    assert sorted(names(subject, b"a/b")) == [b"a/b/one.txt", b"a/b/two.txt"]


def test_a_name_that_came_within_the_tick_of_the_listing_is_found(folder: Path) -> None:
    subject = tree(folder, Clock())
    names(subject)
    before = (folder / "a" / "b").stat().st_mtime_ns
    (folder / "a" / "b" / "two.txt").touch()
    os.utime(folder / "a" / "b", ns=(before, before))
    assert b"a/b" in list(subject.changed())


def test_subfolders_that_are_known_can_be_passed_over(folder: Path) -> None:
    subject = tree(folder, Clock(10))
    names(subject)
    (folder / "a" / "new").mkdir()
    (folder / "a" / "new" / "two.txt").touch()
    assert names(subject, b"a", known=False) == [b"a/new/two.txt"]
    assert sorted(names(subject, b"a")) == [b"a/b/one.txt", b"a/new/two.txt"]


def test_folders_that_are_gone_are_forgotten(folder: Path) -> None:
    subject = tree(folder, Clock(10))
    names(subject)
    (folder / "a" / "b" / "one.txt").unlink()
    (folder / "a" / "b").rmdir()
    list(subject.changed())
    assert names(subject, b"a/b") == []
    assert subject.unreadable == {}


def test_hidden_folders_and_links_are_not_entered(folder: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "two.txt").touch()
    (folder / "link").symlink_to(folder / "a")
    (folder / "link.txt").symlink_to(folder / "a" / "b" / "one.txt")
    assert names(tree(folder, Clock())) == [b"a/b/one.txt"]


def test_a_root_that_is_gone_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        names(tree(folder / "absent", Clock()))


def test_signs_of_life_come_from_folders_in_which_nothing_is_taken(tmp_path: Path) -> None:
    for number in range(5000):
        (tmp_path / f".{number}").touch()
    assert list(tree(tmp_path, Clock()).walk()) == [[], []]
