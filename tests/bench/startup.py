"""How long `convertd status` takes, in units of `python -c pass`: with a daemon up and with none.

    python -m tests.bench.startup [--runs N] [--python INTERPRETER]

The runs are interleaved, so that what else the machine does falls on all of them alike. Another interpreter is named
to measure without what an environment adds to every start of Python, such as the import hook of an editable install;
it must find convertd's dependencies.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.harness import environment, running

ALLOWED = 8.0
STATUS = "from daemon.cli import main; main()"


def main() -> None:
    """Measure, print, and exit 1 where a ratio is above what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ratios = _ratios(Path(folder), options.python, options.runs)
    sys.exit(max(ratios) > ALLOWED)


def _ratios(folder: Path, python: str, runs: int) -> list[float]:
    config = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'
    bare = [python, "-c", "pass"]
    status = [python, "-c", STATUS, "status", "--config", str(folder / "convertd.toml")]
    with running(folder, config):
        up = _compare("daemon up", bare, status, folder, runs)
    return [up, _compare("daemon down", bare, status, folder, runs)]


def _compare(what: str, bare: Sequence[str], status: Sequence[str], folder: Path, runs: int) -> float:
    for command in (bare, status):  # compiled once, as by an installation
        _seconds(command, folder)
    pairs = [(_seconds(bare, folder), _seconds(status, folder)) for _ in range(runs)]
    bare_seconds, status_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio: float = status_seconds / bare_seconds
    print(f"{what}: {status_seconds * 1e3:.0f} ms, python -c pass {bare_seconds * 1e3:.0f} ms: ratio {ratio:.2f}")
    return ratio


def _seconds(command: Sequence[str], folder: Path) -> float:
    env = environment({"PYTHONPYCACHEPREFIX": str(folder / "pyc")})
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
