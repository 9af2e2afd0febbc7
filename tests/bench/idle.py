"""A daemon with nothing to do, over folders whose files are all converted."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench import corpus
from tests.bench.measure import cpu_seconds
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, children_of, running, until

WATCHES = ("one", "two", "three")
ROUND_SECONDS, QUICK_ROUND_SECONDS = 60.0, 10.0
FILES, QUICK_FILES = 300, 30
"""In each folder."""
CONVERT_SECONDS = 300.0
WARM_SECONDS = 5.0


def idle(setting: Setting) -> Iterator[Row]:
    """Five minutes in five rounds, daemon and converters together. The whole of them is judged: a round in which much
    is done, now and then, counts."""
    watches = "".join(f'[[watch]]\nname = "{name}"\nsource = "{name}"\nsink = "out-{name}"\n' for name in WATCHES)
    folder, shares = Path(setting.folder), []
    count = setting.sized(FILES, QUICK_FILES)
    for name in WATCHES:
        corpus.small(folder / name, count)
    seconds = setting.sized(ROUND_SECONDS, QUICK_ROUND_SECONDS)
    pause = threading.Event()
    with running(folder, f'state_dir = "state"\n{watches}') as daemon:
        assert daemon.process is not None
        pid = daemon.process.pid
        until(lambda: _converted(daemon) == count * len(WATCHES), "all are converted", CONVERT_SECONDS)
        pause.wait(WARM_SECONDS)
        for _ in range(setting.rounds):
            before = _used(pid)
            pause.wait(seconds)
            shares.append(100 * (_used(pid) - before) / seconds)
        daemon.stop()
    label = f"idle: three watches with {count} converted files each"
    whole = seconds * setting.rounds
    yield Row(
        f"{label}: share of a processor over {whole:.0f} s, %", "", "", [statistics.mean(shares)], AT_MOST, target=0.5
    )
    yield Row(f"{label}: the same, {seconds:.0f} s a round", "", "", shares)


def _converted(daemon: Daemon) -> int:
    return int(daemon.status()["jobs"].get("completed", 0))


def _used(pid: int) -> float:
    return cpu_seconds(pid) + sum(cpu_seconds(child) for child in children_of(pid))


BENCH = Bench(
    name="idle",
    work="5 minutes with three watches, all of whose files are converted",
    against="nothing: an absolute figure",
    to_reach="≤ 0.5 % of a processor",
    feels="While nothing comes it is as if it were not there.",
    run=idle,
)
