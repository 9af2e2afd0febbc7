"""One queue put to work, as a process of its own: `python -m tests.bench.job_table_run NAME THREADS JOBS FOLDER`.

Prints how long it took to enqueue so many jobs, and to claim and complete them in so many threads, and how often a
thread was told that the table is busy, as JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import apsw

from daemon.cli.common import Place
from daemon.cli.gathering import gather
from daemon.statedir import StateDir
from tests.bench.job_table_ours import Ours, Waiting
from tests.bench.queues import PEERS, Queue
from tests.harness import ROOT, environment

OURS, WAITING = "ours", "ours, waiting"
WAYS = {OURS: Ours, WAITING: Waiting}
STATUS_PAUSE_SECONDS = 0.02
START_SECONDS = 60.0


@dataclass(frozen=True)
class Took:
    """Seconds of the two halves, and how often somebody was told BUSY. `looked` is how often the status was asked for
    meanwhile."""

    put_seconds: float
    work_seconds: float
    busy: int
    looked: int = 0

    @property
    def seconds(self) -> float:
        return self.put_seconds + self.work_seconds


def took(name: str, threads: int, jobs: int, folder: str) -> Took:
    """Run one queue in a fresh process."""
    command = [sys.executable, "-m", "tests.bench.job_table_run", name, str(threads), str(jobs), folder]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return Took(**json.loads(done.stdout))


def main() -> None:
    """Run one queue; ours with a status loop beside it, in a process of its own as commands are."""
    name, threads, jobs, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    if name == "status":
        _status_loop(folder)
        return
    if name not in WAYS:
        print(json.dumps(asdict(worked(PEERS[name](folder), threads, jobs))))
        return
    ours = WAYS[name](folder)
    loop = [sys.executable, "-m", "tests.bench.job_table_run", "status", "0", "0", folder]
    with subprocess.Popen(loop, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as status:
        assert status.stdout and status.stdout.readline() == "ready\n"
        result = worked(ours, threads, jobs)
        assert ours.ended == jobs, f"{ours.ended} of {jobs} jobs are durable"
        looked, busy = status.communicate("")[0].split()
    ours.close()
    print(json.dumps(asdict(Took(result.put_seconds, result.work_seconds, result.busy + int(busy), int(looked)))))


def worked(queue: Queue, threads: int, jobs: int) -> Took:
    """All threads are connected before the work begins, and whatever a thread meets is raised: one that ends early
    would leave the others less to do."""
    busy = itertools.count()
    tickets = itertools.count()
    connected = threading.Barrier(threads + 1)

    def work() -> int:
        queue.connect()
        connected.wait(START_SECONDS)
        finished = 0
        while next(tickets) < jobs:
            taken = _insist(queue.take, busy)
            _insist(lambda: queue.finish(taken), busy)  # noqa: B023 (called at once)
            finished += 1
        return finished

    begun = time.perf_counter()
    queue.put(jobs)
    put_seconds = time.perf_counter() - begun
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(work) for _ in range(threads)]
        connected.wait(START_SECONDS)
        begun = time.perf_counter()
        finished = sum(worker.result() for worker in workers)
        queue.settle()
        seconds = time.perf_counter() - begun
    assert finished == jobs, f"{finished} of {jobs} jobs are finished"
    return Took(put_seconds, seconds, next(busy))


def _insist(call: Callable[[], Any], busy: itertools.count[int]) -> Any:
    while True:
        try:
            return call()
        except (sqlite3.OperationalError, apsw.BusyError) as error:
            if "locked" not in str(error).lower() and "busy" not in str(error).lower():
                raise
            next(busy)


def _status_loop(folder: str) -> None:
    """What `convertd status` does, again and again until stdin ends; a process that is told BUSY counts it."""
    place = Place(None, StateDir(folder))
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    print("ready", flush=True)
    looked = busy = 0
    while not over.wait(STATUS_PAUSE_SECONDS):
        try:
            gather(place)
        except Exception as error:
            if "busy" not in repr(error).lower() and "locked" not in repr(error).lower():
                raise
            busy += 1
        looked += 1
    print(looked, busy, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
