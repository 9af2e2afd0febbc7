"""Draining a backlog: `python -m tests.bench.drain --corpus DIR [--documents 500] [--rounds 3] [--json FILE]`.

The daemon drains N documents (the corpus cycled, without its OCR set) and, interleaved in the same run, the bare
engines convert the same list with the same routing in as many processes, reading from disk and writing the Markdown
without any sync. Printed are documents per second, the ratio, and the memory of daemon and children after the drain.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.measure import corpus_documents, private_bytes
from tests.harness import Daemon, children_of, environment

BARE = """
import os, sys, mmap
from daemon.converters.route import Router
from daemon.converters.base import Options, EngineError
from daemon.converters.tessdata import tessdata_dir_for
router = Router(Options(tessdata_dir=tessdata_dir_for(("eng",), None)))
router.warm()
print("ready", flush=True)
for line in sys.stdin:
    source, target = line.rstrip("\\n").split("\\t")
    with open(source, "rb") as file:
        data = file.read()
    try:
        markdown = router.convert(os.path.basename(source), data, lambda engine: None).converted.markdown
        with open(target, "w", encoding="utf-8", errors="replace") as file:
            file.write(markdown)
    except EngineError:
        pass
    print("done", flush=True)
os._exit(0)
"""

SINGLE_THREADED = {"RAYON_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1", "TOKIO_WORKER_THREADS": "1"}


def prepare(corpus: Path, count: int, folder: Path) -> list[Path]:
    """`count` documents under names of their own."""
    originals = corpus_documents(corpus, without=("ocr",))
    copies = []
    for number in range(count):
        original = originals[number % len(originals)]
        copy = folder / f"{number:05}-{original.name}"
        shutil.copy(original, copy)
        copies.append(copy)
    return copies


def bare(documents: list[Path], outbox: Path, processes: int) -> float:
    """Seconds that the bare engines take in so many processes that pull from one list."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", BARE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(SINGLE_THREADED),
        )
        for _ in range(processes)
    ]
    for worker in workers:
        assert worker.stdout and worker.stdout.readline() == "ready\n"
    left = iter(documents)
    taking = threading.Lock()

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
            assert worker.stdout.readline() == "done\n"

    feeders = [threading.Thread(target=feed, args=(worker,)) for worker in workers]
    started = time.perf_counter()
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    return time.perf_counter() - started


def daemon_drain(documents: list[Path], folder: Path) -> dict[str, float]:
    """Seconds from the moment all documents are in the inbox of a warm daemon to the last one's end; memory then."""
    daemon = Daemon(folder)
    try:
        daemon.start()
        daemon.drop("warm-up.html", b"<h1>warm</h1>")
        daemon.outcome("warm-up.html")
        staged = folder / "staged"
        staged.mkdir()
        for path in documents:
            shutil.copy(path, staged / path.name)
        started = time.perf_counter()
        os.rename(staged, daemon.inbox / "batch")
        pause = threading.Event()
        while outcomes(daemon) < len(documents):
            pause.wait(0.1)  # rarely: listing a large folder takes time from the daemon
        seconds = time.perf_counter() - started
        assert daemon.process is not None
        pid = daemon.process.pid
        memory = {"daemon_mib": private_bytes(pid) / 2**20}
        for number, child in enumerate(children_of(pid)):
            memory[f"child_{number}_mib"] = private_bytes(child) / 2**20
        daemon.stop()
        return {"seconds": seconds, **memory}
    finally:
        daemon.close()


def outcomes(daemon: Daemon) -> int:
    """How many documents of the batch have ended, by their files: one directory listing, no help of the daemon."""
    batch = daemon.outbox / "batch"
    names = os.listdir(batch) if batch.exists() else []
    return sum(name.endswith((".md", ".error.json")) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    processes = len(os.sched_getaffinity(0))
    rounds = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "documents").mkdir()
            (folder / "bare").mkdir()
            (folder / "daemon").mkdir()
            documents = prepare(arguments.corpus, arguments.documents, folder / "documents")
            bare_seconds = bare(documents, folder / "bare", processes)
            ours = daemon_drain(documents, folder / "daemon")
            row = {"bare_seconds": bare_seconds, **ours, "ratio": bare_seconds / ours["seconds"]}
            rounds.append(row)
            print(f"round {number}: " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()), flush=True)
    ratio = statistics.median(row["ratio"] for row in rounds)
    print(f"throughput of the daemon / bare engines, median: {ratio:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()
