"""Copies of documents that are handed in: whole, durable, bounded, and nothing but regular files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon import intake as module
from daemon.errors import DocumentError, EnvironmentProblem, TransientError
from daemon.intake import Intake

LIMIT = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "submitted"
    folder.mkdir()
    return folder


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def document(tmp_path: Path, content: bytes = b"some words") -> Path:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    return path


def test_a_copy_holds_the_same_bytes_and_the_descriptor_stays_where_it_was(tmp_path: Path, folder: Path) -> None:
    content = os.urandom(3_000_001)
    with opened(document(tmp_path, content)) as fd:
        os.lseek(fd, 7, os.SEEK_SET)
        copied = Intake(str(folder)).copy(fd, len(content), LIMIT * 10)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    assert (folder / os.fsdecode(copied.name)).read_bytes() == content
    assert (copied.sha256, copied.size_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert len(os.listdir(folder)) == 1


def test_an_empty_file_is_a_document_like_any_other(tmp_path: Path, folder: Path) -> None:
    with opened(document(tmp_path, b"")) as fd:
        assert Intake(str(folder)).copy(fd, 0, LIMIT).size_bytes == 0


def test_a_file_above_the_limit_is_not_read(tmp_path: Path, folder: Path) -> None:
    path = document(tmp_path)
    os.truncate(path, LIMIT + 1)
    steps: list[str] = []
    for announced in (10, LIMIT + 1):
        with opened(path) as fd, pytest.raises(DocumentError, match=r"limits\.file_size allows 1,048,576") as error:
            Intake(str(folder), steps.append).copy(fd, announced, LIMIT)
        assert error.value.kind == "too_large"
    assert (steps, os.listdir(folder)) == ([], [])


@pytest.mark.parametrize("announced", [0, 9, 11, 500_000])
def test_another_size_than_announced_is_refused(tmp_path: Path, folder: Path, announced: int) -> None:
    with opened(document(tmp_path)) as fd, pytest.raises(TransientError, match="while it was copied"):
        Intake(str(folder)).copy(fd, announced, LIMIT)
    assert os.listdir(folder) == []


def test_what_changes_while_it_is_copied_is_refused(tmp_path: Path, folder: Path) -> None:
    path = document(tmp_path)

    def change(label: str) -> None:
        if label == "intake copied":
            path.write_bytes(b"SOME WORDS")

    with opened(path) as fd, pytest.raises(TransientError, match="changed while it was copied"):
        Intake(str(folder), change).copy(fd, 10, LIMIT)
    assert os.listdir(folder) == []


@pytest.mark.parametrize("open_other", [lambda path: os.open(path, os.O_RDONLY), lambda path: os.pipe()[0]])
def test_only_regular_files_are_taken(tmp_path: Path, folder: Path, open_other: Callable[[Path], int]) -> None:
    fd = open_other(tmp_path)
    try:
        with pytest.raises(DocumentError, match="not a regular file"):
            Intake(str(folder)).copy(fd, 0, LIMIT)
    finally:
        os.close(fd)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_PATH])
def test_a_descriptor_that_cannot_be_read_is_refused(tmp_path: Path, folder: Path, flags: int) -> None:
    with opened(document(tmp_path), flags) as fd, pytest.raises(TransientError, match="cannot be read"):
        Intake(str(folder)).copy(fd, 10, LIMIT)
    assert os.listdir(folder) == []


def test_a_disk_is_not_filled_to_its_end(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVE_BYTES", 1 << 60)
    with opened(document(tmp_path)) as fd, pytest.raises(EnvironmentProblem, match="no room for 10 bytes"):
        Intake(str(folder)).copy(fd, 10, LIMIT)
    assert os.listdir(folder) == []


def test_a_folder_that_is_gone_is_the_surroundings_fault(tmp_path: Path, folder: Path) -> None:
    folder.rmdir()
    with opened(document(tmp_path)) as fd, pytest.raises(EnvironmentProblem, match="cannot be written"):
        Intake(str(folder)).copy(fd, 10, LIMIT)
    with pytest.raises(EnvironmentProblem):
        Intake(str(folder)).sync()


def test_removing_twice_is_no_error_and_nothing_outside_is_touched(tmp_path: Path, folder: Path) -> None:
    intake = Intake(str(folder))
    with opened(document(tmp_path)) as fd:
        copied = intake.copy(fd, 10, LIMIT)
    intake.remove([copied.name])
    intake.remove([copied.name])
    assert os.listdir(folder) == []
    for name in (b"../a.txt", b"..", b"", b"/etc/passwd"):
        with pytest.raises(ValueError, match="not a name"):
            intake.remove([name])
    assert (tmp_path / "a.txt").exists()


def test_a_sweep_removes_what_nobody_wants(tmp_path: Path, folder: Path) -> None:
    intake = Intake(str(folder))
    with opened(document(tmp_path)) as fd:
        wanted, unwanted = intake.copy(fd, 10, LIMIT), intake.copy(fd, 10, LIMIT)
    (folder / "half.tmp").write_bytes(b"so")
    assert intake.sweep(lambda names: {wanted.name} & set(names)) == 2
    assert os.listdir(folder) == [os.fsdecode(wanted.name)]
    assert unwanted.name != wanted.name
