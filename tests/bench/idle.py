"""A daemon with nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench.measure import cpu_seconds
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import children_of, running

WATCHES = ("one", "two", "three")
ROUND_SECONDS, QUICK_ROUND_SECONDS = 60.0, 10.0
WARM_SECONDS = 5.0


def idle(setting: Setting) -> Iterator[Row]:
    """Five minutes in five rounds, daemon and converters together."""
    watches = "".join(f'[[watch]]\nname = "{name}"\nsource = "{name}"\nsink = "out-{name}"\n' for name in WATCHES)
    folder, shares = Path(setting.folder), []
    for name in WATCHES:
        (folder / name).mkdir()
    seconds = setting.sized(ROUND_SECONDS, QUICK_ROUND_SECONDS)
    pause = threading.Event()
    with running(folder, f'state_dir = "state"\n{watches}') as daemon:
        assert daemon.process is not None
        pid = daemon.process.pid
        pause.wait(WARM_SECONDS)
        for _ in range(setting.rounds):
            before = _used(pid)
            pause.wait(seconds)
            shares.append(100 * (_used(pid) - before) / seconds)
        daemon.stop()
    yield Row(
        f"idle: three watches, {seconds:.0f} s a round: share of a processor, %",
        "",
        "",
        shares,
        AT_MOST,
        target=0.5,
    )


def _used(pid: int) -> float:
    return cpu_seconds(pid) + sum(cpu_seconds(child) for child in children_of(pid))


BENCH = Bench(
    name="idle",
    work="5 minutes with three watches and nothing to do",
    against="nothing: an absolute figure",
    to_reach="≤ 0.5 % of a processor",
    feels="While nothing comes it is as if it were not there.",
    run=idle,
)
