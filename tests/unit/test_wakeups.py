"""What wakes, what does not, and when the kernel's word is not to be had for all."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.sources.wakeups import Wakeups


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a file and a folder in it."""
    inner = tmp_path / "watched"
    (inner / "sub").mkdir(parents=True)
    (inner / "old.txt").write_bytes(b"x")
    return inner


@pytest.fixture
def wakeups(folder: Path) -> Iterator[Wakeups]:
    subject = Wakeups()
    subject.add(os.fsencode(folder))
    yield subject
    subject.close()


def moved_in(folder: Path) -> None:
    (folder.parent / "outside.txt").touch()
    (folder.parent / "outside.txt").rename(folder / "new.txt")


WAKING: dict[str, Callable[[Path], object]] = {
    "a new file": lambda folder: (folder / "new.txt").touch(),
    "a file moved in": moved_in,
    "a file renamed": lambda folder: (folder / "old.txt").rename(folder / "new.txt"),
    "a file written": lambda folder: (folder / "old.txt").write_bytes(b"y"),
    "other times": lambda folder: os.utime(folder / "old.txt", (1, 1)),
    "other permissions": lambda folder: (folder / "old.txt").chmod(0o600),
    "a new folder": lambda folder: (folder / "new").mkdir(),
    "a folder renamed": lambda folder: (folder / "sub").rename(folder / "new"),
    "the folder moved": lambda folder: folder.rename(folder.parent / "elsewhere"),
}


@pytest.mark.parametrize("happens", WAKING.values(), ids=WAKING)
def test_what_wakes(happens: Callable[[Path], object], folder: Path, wakeups: Wakeups) -> None:
    assert not wakeups.wait(0)
    happens(folder)
    assert wakeups.wait(0)
    assert not wakeups.wait(0), "it is said once"


QUIET: dict[str, Callable[[Path], object]] = {
    "reading": lambda folder: (folder / "old.txt").read_bytes(),
    "listing": lambda folder: list(folder.iterdir()),
    "removing": lambda folder: (folder / "old.txt").unlink(),
    "a folder that was not told": lambda folder: (folder / "sub" / "new.txt").touch(),
}


@pytest.mark.parametrize("happens", QUIET.values(), ids=QUIET)
def test_what_does_not(happens: Callable[[Path], object], folder: Path, wakeups: Wakeups) -> None:
    happens(folder)
    assert not wakeups.wait(0)


def test_a_folder_wakes_under_its_new_name_and_one_in_its_place_once_it_is_told(folder: Path, wakeups: Wakeups) -> None:
    wakeups.add(os.fsencode(folder / "sub"))
    (folder / "sub").rename(folder / "moved")
    (folder / "sub").mkdir()
    assert wakeups.wait(0)
    (folder / "moved" / "new.txt").touch()
    assert wakeups.wait(0)
    (folder / "sub" / "new.txt").touch()
    assert not wakeups.wait(0)
    wakeups.add(os.fsencode(folder / "sub"))
    (folder / "sub" / "newer.txt").touch()
    assert wakeups.wait(0)


def test_more_than_can_be_said_at_once_comes_to_an_end(folder: Path, wakeups: Wakeups) -> None:
    for number in range(5000):
        (folder / f"{number}.txt").touch()
    said = 0
    while wakeups.wait(0):
        said += 1
    assert 1 < said < 100
    (folder / "last.txt").touch()
    assert wakeups.wait(0)


def test_what_cannot_be_listed_either_is_no_reason_to_end(folder: Path, wakeups: Wakeups) -> None:
    (folder / "link").symlink_to(folder / "sub")
    for name in ("absent", "old.txt", "link"):
        wakeups.add(os.fsencode(folder / name))
    assert not wakeups.blind
    assert wakeups.wait(0), "by the new link"
    (folder / "sub" / "new.txt").touch()
    assert not wakeups.wait(0), "the link is not followed"
    wakeups.add(os.fsencode(folder / "link"), follow=True)
    (folder / "sub" / "newer.txt").touch()
    assert wakeups.wait(0)


def test_too_many_folders_make_it_blind(tmp_path: Path) -> None:
    with few() as wakeups:
        for name in "abc":
            added(wakeups, tmp_path / name)
        assert not wakeups.blind
        wakeups.add(os.fsencode(tmp_path / "a"))
        assert not wakeups.blind, "it was told before"
        added(wakeups, tmp_path / "d")
        assert wakeups.blind
        added(wakeups, tmp_path / "e")
        assert wakeups.blind


def test_folders_that_are_gone_do_not_count(tmp_path: Path) -> None:
    with few() as wakeups:
        for _ in range(10):
            added(wakeups, tmp_path / "a")
            (tmp_path / "a").rmdir()
        for name in "abc":
            added(wakeups, tmp_path / name)
        assert not wakeups.blind
        (tmp_path / "c" / "new.txt").touch()
        assert wakeups.wait(0)


@contextmanager
def few() -> Iterator[Wakeups]:
    """No more than three folders."""
    wakeups = Wakeups(3)
    yield wakeups
    wakeups.close()


def added(wakeups: Wakeups, folder: Path) -> None:
    folder.mkdir()
    wakeups.add(os.fsencode(folder))


def test_what_the_kernel_refuses_makes_it_blind(folder: Path, wakeups: Wakeups) -> None:
    wakeups.add(os.fsencode(folder) + b"/sub" * 2000)
    assert wakeups.blind
    wakeups.close()


def test_without_a_descriptor_it_is_blind_from_the_start(folder: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        wakeups = Wakeups()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert wakeups.blind
    wakeups.add(os.fsencode(folder))
    wakeups.close()
