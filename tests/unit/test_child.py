"""A document as the converter process holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.converters.base import Document
from daemon.converters.child import mapped


@pytest.fixture
def document(tmp_path: Path) -> int:
    path = tmp_path / "document.bin"
    path.write_bytes(bytes(range(256)) * 64)
    return os.open(path, os.O_RDONLY)


def test_made_into_bytes_a_document_is_read_from_its_beginning(document: int) -> None:
    os.lseek(document, 100, os.SEEK_SET)
    with mapped(document, os.fstat(document).st_size) as data:
        content = Document("document.bin", data, "text").content
        assert content == data[:] == bytes(range(256)) * 64
    os.close(document)


def test_what_one_call_does_not_read_comes_from_the_map(document: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reads 2 GiB at most: here it reads 1,000 bytes at most."""
    read = os.pread
    with mapped(document, os.fstat(document).st_size) as data:
        monkeypatch.setattr(os, "pread", lambda fd, size_bytes, at: read(fd, min(size_bytes, 1000), at))
        assert bytes(data) == data[:]
    os.close(document)


def test_the_descriptor_is_not_used_once_it_may_be_that_of_another_document(document: int, tmp_path: Path) -> None:
    with mapped(document, os.fstat(document).st_size) as data:
        held = memoryview(data)  # by something that an engine has left behind
    other = tmp_path / "other.bin"
    other.write_bytes(b"x" * 256 * 64)
    os.dup2(os.open(other, os.O_RDONLY), document)
    with pytest.raises(OSError, match="Bad file descriptor"):
        bytes(data)
    held.release()
    os.close(document)
