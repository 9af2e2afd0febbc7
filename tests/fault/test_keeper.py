"""The daemon ends where the thread that keeps the converters has died: a service manager starts it again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from daemon.cli.common import Place
from daemon.statedir import StateDir
from tests.harness import Daemon, until


def test_a_daemon_without_keeper_ends_though_nothing_is_to_be_converted(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, entry=("-m", "tests.fault.daemon_without_keeper")).start()

    place = Place(None, StateDir(str(daemon.state)))

    def idle() -> list[int]:
        live = place.live() or {"converters": {"children": []}}
        return [child["pid"] for child in live["converters"]["children"] if child["state"] == "idle"]

    os.kill(until(idle, "a converter is ready")[0], signal.SIGKILL)
    assert daemon.process is not None
    assert daemon.process.wait(60) == 1
    assert "the thread that keeps the converters has died: SystemError" in daemon.log.read_text()
