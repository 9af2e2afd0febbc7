"""What the campaign changes in the daemon under test is there to be changed.

The campaign itself would find out too, but late: that a name has moved from one module to another shows here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.plants import PLANTS
from tests.harness import ROOT, environment


@pytest.mark.parametrize("plant", ["", *PLANTS])
def test_the_daemon_under_test_starts(plant: str, tmp_path: Path) -> None:
    sink = tmp_path / "delete" / "out"
    sink.mkdir(parents=True)
    surroundings = {"CHAOS_CONTROL": os.fspath(tmp_path), "CHAOS_SINKS": os.fspath(sink), "CHAOS_PLANT": plant}
    result = subprocess.run(
        [sys.executable, "-m", "tests.chaos.daemon", "--version"],
        capture_output=True,
        text=True,
        env=environment() | surroundings,
        cwd=ROOT,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("convertd")
