"""What `doctor` finds out about converters, by real children."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from daemon import config as configuration
from daemon.checks import converting
from daemon.checks.base import Finding, Level, Stopping
from daemon.config import Config
from daemon.converters.tessdata import packaged_dir
from daemon.errors import Stopped


def config(**ocr: Any) -> Config:
    defaults = configuration.defaults()
    return defaults._replace(ocr=defaults.ocr._replace(**ocr))


def check(config: Config) -> list[Finding]:
    return list(converting.group(config).check(Stopping()))


@pytest.fixture
def tessdata(tmp_path: Path) -> Path:
    """A folder of language data with English and none for orientation."""
    shutil.copy(Path(packaged_dir()) / "eng.traineddata", tmp_path)
    return tmp_path


def test_documents_are_converted_and_a_picture_is_read() -> None:
    found = check(config())
    assert {finding.level for finding in found} <= {Level.OK, Level.WARNING}, found
    said = "\n".join(finding.what for finding in found)
    assert "pdf: converted by liteparse" in said
    assert "OCR reads eng, by" in said


def test_each_language_is_tried_alone(tessdata: Path) -> None:
    (tessdata / "deu.traineddata").write_bytes(b"no data of a language")
    found = check(config(languages=("eng", "deu", "xyz"), tessdata_dir=str(tessdata)))
    told = {finding.level: finding.what for finding in found if "OCR" in finding.what}
    assert "reads eng" in told[Level.OK]
    assert "language deu" in told[Level.PROBLEM]
    assert not any("xyz" in finding.what for finding in found), "a missing language is a mistake of the configuration"
    assert any("osd.traineddata" in finding.what for finding in found if finding.level is Level.WARNING)


def test_engines_that_cannot_be_loaded() -> None:
    found = check(config(mode="off")._replace(engines={"pdf": ("no.such.module:Engine",)}))
    problems = [finding for finding in found if finding.level is Level.PROBLEM]
    assert len(problems) == 1 and "no converter can be started" in problems[0].what
    assert "No module named" in problems[0].what and "[engines]" in problems[0].remedy


@pytest.mark.parametrize(
    ("facts", "word"),
    [({"landlock_abi": 0, "seccomp": True}, "Landlock"), ({"landlock_abi": 4, "seccomp": False}, "seccomp")],
)
def test_a_kernel_that_lacks_a_part_of_the_sandbox(facts: dict[str, object], word: str) -> None:
    found = converting._sandbox([facts])
    assert found.level is Level.WARNING and word in found.what and found.remedy


def test_who_does_not_want_to_wait_is_not_kept() -> None:
    stopping = Stopping()
    stopping.set()
    with pytest.raises(Stopped):
        list(converting.group(config(mode="off")).check(stopping))
