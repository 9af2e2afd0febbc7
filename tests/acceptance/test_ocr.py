"""OCR out of the box, and in further languages by configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import documents
from tests.harness import Daemon

CONFIG = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n[ocr]\n'


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


def convert(folder: Path, options: str, name: str, content: bytes) -> str:
    """The Markdown of a document under these OCR options."""
    daemon = Daemon(folder, CONFIG + options)
    try:
        daemon.drop(name, content)
        assert daemon.once() == 0, daemon.log.read_text()
        return daemon.markdown(name).read_text()
    finally:
        daemon.close()


def test_a_scan_is_read_without_any_configuration(folder: Path) -> None:
    scan = documents.scanned_pdf(["The quick brown fox\njumps over the lazy dog"])
    assert "quick brown fox" in convert(folder, "", "scan.pdf", scan)


def test_with_ocr_off_a_scan_is_a_blank_document(folder: Path) -> None:
    scan = documents.scanned_pdf(["The quick brown fox"])
    assert convert(folder, 'mode = "off"\n', "scan.pdf", scan).strip() == ""


def test_another_language_is_read_once_its_data_is_installed(folder: Path) -> None:
    scan = documents.scanned_pdf(["Die Größe der Straße\nüber fünf schöne Brücken"])
    markdown = convert(folder, 'languages = ["deu"]\n', "scan.pdf", scan)
    assert "Größe" in markdown and "Brücken" in markdown


def test_a_language_that_is_not_installed_is_a_mistake_found_at_the_start(folder: Path) -> None:
    daemon = Daemon(folder, CONFIG + 'languages = ["eng", "tlh"]\n')
    daemon.drop("a.txt", b"words")
    assert daemon.once() == 2
    assert "ocr.languages[1]" in daemon.log.read_text()
    assert not daemon.outbox.exists(), "nothing is started"
