"""Processes that pull documents from one list and write Markdown without any sync: the bare engines, and markitdown."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness import environment

_BARE = """
import os, sys
from daemon.converters.route import Router
from daemon.converters.base import Options
from daemon.converters.tessdata import tessdata_dir_for
router = Router(Options(ocr_mode="{ocr}", tessdata_dir=tessdata_dir_for(("eng",), None)))
router.warm()
def convert(path):
    with open(path, "rb") as file:
        data = file.read()
    return router.convert(os.path.basename(path), data, lambda engine: None).converted.markdown
"""

MARKITDOWN = """
import io, os, sys
from markitdown import MarkItDown
library = MarkItDown(enable_plugins=False)
library.convert_stream(io.BytesIO(b"<h1>warm</h1>"), file_extension=".html")
def convert(path):
    return library.convert(path).markdown
"""

_LOOP = """
print("ready", flush=True)
for line in sys.stdin:
    source, target = line.rstrip("\\n").split("\\t")
    try:
        markdown = convert(source)
        with open(target, "w", encoding="utf-8", errors="replace") as file:
            file.write(markdown)
        print("done", flush=True)
    except Exception as error:
        print("failed", flush=True)
os._exit(0)
"""


def bare(ocr: str) -> str:
    """The engines by the same routing as in the daemon; `ocr` is the mode of it."""
    return _BARE.replace("{ocr}", ocr)


GIVE_UP_SECONDS = 1800.0
SINGLE_THREADED = {"RAYON_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "TOKIO_WORKER_THREADS": "1"}


@dataclass(frozen=True)
class Pulled:
    """How long it took, and how many documents could be converted."""

    seconds: float
    converted: int


def pulled(program: str, documents: Sequence[Path], outbox: Path, processes: int) -> Pulled:
    """Have so many processes, all of them ready before the clock starts, convert the documents."""
    workers = [_started(program) for _ in range(processes)]
    left = iter(documents)
    taking = threading.Lock()
    answers: list[str] = []

    def feed(worker: subprocess.Popen[str]) -> None:
        assert worker.stdin and worker.stdout
        while True:
            with taking:
                path = next(left, None)
            if path is None:
                worker.stdin.close()
                return
            worker.stdin.write(f"{path}\t{outbox / path.name}.md\n")
            worker.stdin.flush()
            answers.append(worker.stdout.readline())

    feeders = [threading.Thread(target=feed, args=(worker,)) for worker in workers]
    os.sync()  # nothing that others have left to be written is written meanwhile
    deadline = threading.Timer(GIVE_UP_SECONDS, _kill, (workers,))
    deadline.start()
    started = time.perf_counter()
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    seconds = time.perf_counter() - started
    deadline.cancel()
    for worker in workers:
        worker.wait(60)
    assert len(answers) == len(documents) and set(answers) <= {"done\n", "failed\n"}, (
        f"a process has died, or {GIVE_UP_SECONDS:.0f} s are over"
    )
    return Pulled(seconds, answers.count("done\n"))


def _kill(workers: Sequence[subprocess.Popen[str]]) -> None:
    for worker in workers:
        worker.kill()


def _started(program: str) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [sys.executable, "-c", program + _LOOP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(SINGLE_THREADED),
    )
    assert worker.stdout and worker.stdout.readline() == "ready\n", "a process does not start: is the extra installed?"
    return worker
