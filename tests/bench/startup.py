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
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.rows import AT_MOST, Row, milliseconds, ratios
from tests.bench.suite import Bench, Setting
from tests.harness import environment, running

ALLOWED = 8.0
RUNS_PER_ROUND = 4
CONFIG = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'
STATUS = "from daemon.cli import main; main()"


def main() -> None:
    """Measure, print, and exit 1 where a ratio is above what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        above = False
        for what, pairs in _pairs(Path(folder), options.python, options.runs):
            bare, status = (statistics.median(column) for column in zip(*pairs, strict=True))
            above = above or status / bare > ALLOWED
            print(f"{what}: {status * 1e3:.0f} ms, python -c pass {bare * 1e3:.0f} ms: ratio {status / bare:.2f}")
    sys.exit(above)


def startup(setting: Setting) -> Iterator[Row]:
    """As many runs a round as level out what else the machine does."""
    for what, pairs in _pairs(Path(setting.folder), sys.executable, setting.rounds * RUNS_PER_ROUND):
        bare, status = ([column[index] for column in pairs] for index in (0, 1))
        yield Row(
            f"startup: `convertd status`, {what} / `python -c pass`",
            milliseconds(status),
            milliseconds(bare),
            ratios(status, bare),
            AT_MOST,
            target=ALLOWED,
        )


def _pairs(folder: Path, python: str, runs: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """With the daemon up and down: the seconds of Python alone and of a status, again and again."""
    bare = [python, "-c", "pass"]
    status = [python, "-c", STATUS, "status", "--config", str(folder / "convertd.toml")]
    with running(folder, CONFIG):
        yield "daemon up", _compared(bare, status, folder, runs)
    yield "daemon down", _compared(bare, status, folder, runs)


def _compared(bare: Sequence[str], status: Sequence[str], folder: Path, runs: int) -> list[tuple[float, float]]:
    for command in (bare, status):  # compiled once, as by an installation
        _seconds(command, folder)
    return [(_seconds(bare, folder), _seconds(status, folder)) for _ in range(runs)]


def _seconds(command: Sequence[str], folder: Path) -> float:
    env = environment({"PYTHONPYCACHEPREFIX": str(folder / "pyc")})
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


BENCH = Bench(
    name="startup",
    work="`convertd status`, from its start to its end",
    against="`python -c pass`",
    to_reach="≤ 8 times as long",
    feels="A status is there as soon as it is asked for, also from scripts.",
    run=startup,
)

if __name__ == "__main__":
    main()
