"""What `convertd status --watch` costs: its share of a processor on a terminal, beside an idle and a busy daemon.

python -m tests.bench.live_view [--seconds N] [--documents N]
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

from tests import documents
from tests.bench.measure import cpu_seconds
from tests.bench.rows import AT_MOST, Row
from tests.bench.suite import Bench, Setting
from tests.harness import Daemon, environment, running

CONFIG = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'
START_SECONDS = 3.0
"""Until it has loaded what it needs, which does not count."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--documents", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), CONFIG) as daemon:
        print(f"idle: {measure(daemon, options.seconds):.2f} % of a processor")
        for number in range(options.documents):
            daemon.drop(f"{number}.pdf", documents.scanned_pdf(["some words on a page"]))
        print(f"busy: {measure(daemon, options.seconds):.2f} % of a processor")
        print(f"{daemon.status()['jobs']['completed']} documents were converted meanwhile")


def live_view(setting: Setting) -> Iterator[Row]:
    """Beside a daemon that has nothing to do."""
    with running(Path(setting.folder), CONFIG) as daemon:
        shares = [measure(daemon, setting.sized(10.0, 5.0)) for _ in range(setting.rounds)]
    yield Row("live-view: `status --watch` beside an idle daemon: share of a processor, %", "", "", shares, AT_MOST, 1)


def measure(daemon: Daemon, seconds: float) -> float:
    """The share of a processor, in percent, that a view takes for so long."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", "status", "--watch", *daemon.where],
        cwd=daemon.folder,
        env=environment({"TERM": "xterm-256color"}),
        stdout=theirs,
    )
    os.close(theirs)
    threading.Thread(target=_drain, args=(ours,), daemon=True).start()
    pause = threading.Event()
    try:
        pause.wait(START_SECONDS)
        before = cpu_seconds(process.pid)
        pause.wait(seconds)
        return 100 * (cpu_seconds(process.pid) - before) / seconds
    finally:
        process.kill()  # a shell starts what it runs in the background with SIGINT ignored, and so would be the view
        process.wait()


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 1 << 16):
            pass
    except OSError:  # the view has ended
        os.close(fd)


BENCH = Bench(
    name="live-view",
    work="`convertd status --watch` beside an idle daemon",
    against="nothing: an absolute figure",
    to_reach="≤ 1 % of a processor",
    feels="It can be left open all day.",
    run=live_view,
)

if __name__ == "__main__":
    main()
