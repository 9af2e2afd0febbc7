"""What is dropped into an inbox is never run, whatever it is called and wherever convertd was started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.converters.process import import_folders
from tests.harness import ROOT

# `python -m daemon` with only the package importable, as where convertd is installed; the checkout is no help then.
START = """
import runpy, sys
sys.path.append({root!r})
runpy.run_module('daemon', run_name='__main__', alter_sys=True)
"""
NAMES = ("msgspec", "html", "sysconfig", "structlog", "xberg", "hashlib", "site")


def test_converters_import_nothing_from_a_folder_that_merely_is_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, library = tmp_path / "inbox", tmp_path / "library"
    monkeypatch.setattr(sys, "path", ["", str(inbox), str(library), *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(library))
    folders = import_folders()
    assert str(inbox) not in folders and "" not in folders
    assert {str(library), str(ROOT)} <= set(folders)


@pytest.mark.parametrize("name", NAMES)
def test_a_document_named_like_a_module_is_a_document(tmp_path: Path, name: str) -> None:
    inbox, marker = tmp_path / "inbox", tmp_path / "marker"
    inbox.mkdir()
    (inbox / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').write('run')\nraise ImportError('taken over')\n")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            START.format(root=str(ROOT)),
            "run",
            ".",
            "../outbox",
            "--state-dir",
            "../state",
            "--once",
        ],
        cwd=inbox,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        stderr=subprocess.DEVNULL,
        timeout=90,
    )
    assert run.returncode == 0
    assert not marker.exists()
    assert (tmp_path / "outbox" / f"{name}.py.md").exists()
