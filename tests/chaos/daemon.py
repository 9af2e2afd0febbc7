"""`convertd` under test: a clock that jumps, fault points at every step, an audit and, if asked for, a planted bug.

Its surroundings are named by the environment: CHAOS_CONTROL is the control folder (see `hooks`), CHAOS_SINKS are the
folders in which results appear, CHAOS_PLANT is the bug. Some pauses, tries and sizes are smaller (`_hurry`).
"""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.hooks import Clock, Faults, Journal, follow, step
from tests.chaos.model import POISON


def main() -> None:
    folder = Path(os.environ["CHAOS_CONTROL"])
    journal, clock = Journal(folder), Clock()
    time.time = clock
    faults = Faults(folder, journal)
    follow(folder, clock, faults)

    from tests.chaos import audit, plants

    _hurry()
    if plant := os.environ.get("CHAOS_PLANT"):
        plants.PLANTS[plant].apply()
    audit.install(journal, clock, [os.fsencode(sink) for sink in os.environ["CHAOS_SINKS"].split(os.pathsep)])
    _poison(journal)
    _steps(faults)

    from daemon import app, cli

    app.running = functools.partial(app.running, fault=faults)
    cli.main()


def _hurry() -> None:
    """Sick surroundings are looked at again soon, sources disposed of soon and batches complete soon: a round is not to
    wait for that. Nor for results so large that it takes a small machine long to convert them: the parts of uploads are
    smaller."""
    from daemon import batches, builder, disposal, manifests
    from daemon.s3 import clients, download, writing
    from daemon.sources import disposer, s3_disposer, s3_polling

    changes: dict[Any, dict[str, Any]] = {
        builder: {"REMOTE_PAUSE_SECONDS": 2.0},
        batches: {"QUIET_SECONDS": 1.5},
        manifests: {"AGAIN_SECONDS": 2.0},
        disposal: {"AGAIN_SECONDS": (0.3, 0.6, 1.0, 2.0)},
        disposer: {"QUIET_SECONDS": 1.5},
        s3_disposer: {"QUIET_SECONDS": 1.5},
        s3_polling: {"RETRY_SECONDS": (0.2, 0.5, 1.0, 2.0, 2.0)},
        download: {"BACKOFF_SECONDS": 0.05},
        clients: {"TRIES": 2},
        writing: {"PARTS_ABOVE_BYTES": 6 << 20, "PART_BYTES": 5 << 20},
    }
    for module, values in changes.items():
        for name, value in values.items():
            assert name in vars(module)
            setattr(module, name, value)


def _poison(journal: Journal) -> None:
    """Documents with this name kill the daemon, once it is durable that they are being converted."""
    from daemon.model import Stage
    from daemon.pipeline import Pipeline

    original = Pipeline._convert

    def convert(self: Any, source: Any, job: Any, document: Any) -> Any:
        if POISON.encode() in job.source:
            self._jobs.stage(job, Stage.CONVERT)
            self._jobs._writer.call(lambda db: None)
            journal.add("poisoned", f"{job.id}")
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, source, job, document)

    Pipeline._convert = convert  # type: ignore[method-assign]


def _steps(fault: Faults) -> None:
    """Fault points beside those that the daemon has, from discovery to disposal."""
    from daemon.disposal import Janitor
    from daemon.files import RootFolder
    from daemon.jobs import Completion, JobTable
    from daemon.jobs.disposals import Disposals
    from daemon.pipeline import Pipeline
    from daemon.s3.download import Downloader
    from daemon.sources import folder, s3
    from daemon.sources.scan import Tree

    step(Tree, "_list", "list folder", fault)
    step(RootFolder, "_check", "look at folder", fault)
    step(JobTable, "enqueue", "enqueue", fault)
    step(JobTable, "enqueue", "enqueued", fault, after=True)
    step(JobTable, "start", "start", fault)
    step(folder, "open_regular", "open source", fault)
    step(Downloader, "fill", "download", fault)
    step(Downloader, "fill", "downloaded", fault, after=True)
    step(Pipeline, "_convert", "convert", fault)
    step(Pipeline, "_convert", "converted", fault, after=True)
    step(folder.FolderSource, "verify", "verify", fault)
    step(s3.S3Source, "verify", "verify", fault)
    step(Pipeline, "_deliver", "deliver", fault)
    step(Pipeline, "_deliver", "delivered", fault, after=True)
    step(JobTable, "submit", "submit", fault)
    step(JobTable, "submit", "submitted", fault, after=True)
    step(JobTable, "completion", "complete", fault)
    step(Completion, "outcome", "completed", fault, after=True)
    step(JobTable, "fail", "fail", fault)
    step(JobTable, "back_off", "back off", fault)
    step(Janitor, "_dispose", "dispose", fault)
    step(Disposals, "done", "record disposal", fault)
    step(Disposals, "done", "disposal recorded", fault, after=True)


if __name__ == "__main__":
    main()
