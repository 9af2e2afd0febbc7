"""kill -9 of a daemon between buckets that deletes or moves its sources: no source is gone without its result."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path

import pytest

from tests import documents
from tests.fault.outcome import integrity, no_orphans
from tests.fault.test_kill import mixed
from tests.harness import DEADLINE_SECONDS, Daemon, until
from tests.servers import Bucket

KILLS = 25
KINDS = ("txt", "md", "html", "pdf", "csv")  # whose engines are there at once: converters are started fifty times
FIRST_DOCUMENTS = 200
ALWAYS_LEFT = 120  # so many documents at each kill: the suspects among them never run alone while we still kill
WITH_FAULTS = ("-m", "tests.fault.daemon_with_faults")
SIDE_BY_SIDE = 2  # runs, to use the time in which one waits
CONFIG = """
state_dir = "state"
workers = {workers}
[[watch]]
name = "box"
source = "s3://{bucket}/{root}in/"
sink = "s3://{bucket}/{root}out/"
poll_interval = "100ms"
on_success = "{on_success}"
[watch.s3]
endpoint_url = "{endpoint_url}"
"""


class Box(Daemon):
    """A daemon from `in/` to `out/` of a bucket, below `root`, with everything that was ever put into it."""

    def __init__(self, folder: Path, bucket: Bucket, on_success: str, root: str = "", workers: int = 2) -> None:
        where = {"workers": workers, "bucket": bucket.name, "root": root, "endpoint_url": bucket.server.endpoint_url}
        folder.mkdir(exist_ok=True)
        super().__init__(folder, CONFIG.format(on_success=on_success, **where), env=bucket.server.env())
        self.bucket = bucket
        self.root = root
        self.sources: dict[str, bytes] = {}
        self._documents = (found for found in map(mixed, count()) if found[0].endswith(KINDS))

    def supply(self, sources: Mapping[str, bytes]) -> None:
        self.sources.update(sources)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda item: self.bucket.put(f"{self.root}in/{item[0]}", item[1]), sources.items()))

    def supply_up_to(self, documents: int) -> None:
        """Mixed ones, until there were so many in all."""
        self.supply(dict(islice(self._documents, max(0, documents - len(self.sources)))))

    def left(self) -> set[str]:
        return self.below("in/")

    def below(self, prefix: str) -> set[str]:
        return {key.removeprefix(self.root + prefix) for key in self.bucket.keys(self.root + prefix)}

    def torn(self, name: str) -> str | None:
        """Why the result of a document is not whole, if it is not."""
        markdown = self.bucket.get(f"{self.root}out/{name}.md")
        sidecar = self.bucket.get(f"{self.root}out/{name}.json")
        if not markdown or not sidecar:
            return f"{name} has no result"
        told = json.loads(sidecar)
        if told["markdown_sha256"] != hashlib.sha256(markdown).hexdigest():
            return f"{name}.md is not what its sidecar says"
        if told["sha256"] != hashlib.sha256(self.sources[name]).hexdigest():
            return f"{name}.json is that of another document"
        return None

    def nothing_lost(self) -> None:
        """Right after a death: a source that is gone has its result, and its job is completed, durably."""
        gone = set(self.sources) - self.left()
        assert not {f"{name}.md" for name in gone} - self.below("out/"), "a source is gone without its result"
        assert not gone - set(completed(self)), "a source is gone whose job is not completed"

    def done(self) -> None:
        """After a run to the end: every document has its whole result, and nothing else is left."""
        assert self.left() == set()
        with ThreadPoolExecutor(8) as pool:
            assert [complaint for complaint in pool.map(self.torn, self.sources) if complaint] == []
        expected = {f"{name}{suffix}" for name in self.sources for suffix in (".md", ".json")}
        assert self.below("out/") == expected
        assert integrity(self) == "ok"
        assert not list((self.state / "spool").iterdir())

    def counted(self) -> Counter[str]:
        """How many completed jobs each document has; no job is anything else but, at most, vanished: a listing may
        have been older than a deletion."""
        jobs = self.jobs()
        assert {job["state"] for job in jobs} <= {"completed", "vanished"}
        return Counter(job["source"] for job in jobs if job["state"] == "completed")


def completed(daemon: Daemon) -> list[str]:
    """The documents of all jobs that are completed."""
    return [os.fsdecode(source) for (source,) in daemon.rows("SELECT source FROM jobs WHERE state = 'completed'")]


@pytest.fixture
def seed() -> int:
    return random.SystemRandom().randrange(2**32)


def test_killed_at_random_moments_while_sources_are_deleted(tmp_path: Path, bucket: Bucket, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    box = Box(tmp_path, bucket, "delete")
    box.supply_up_to(FIRST_DOCUMENTS)
    with_work_left = deleted = 0
    for kills_left in range(KILLS, 0, -1):
        done = len(completed(box))
        box.supply_up_to(done + ALWAYS_LEFT)  # a fast machine is given more
        budget = max(0, len(box.sources) - ALWAYS_LEFT - done)
        kill_when(box, done + chance.randint(0, 2 * budget // kills_left), chance)
        box.nothing_lost()
        with_work_left += len(completed(box)) < len(box.sources)
        deleted += len(box.left()) < len(box.sources)
    no_orphans()
    assert box.once() == 0, box.log.read_text()[-3000:]
    assert with_work_left >= KILLS - 5, "the documents were done before most kills"
    assert deleted >= 5, "hardly a source was deleted before the last kill"
    box.done()
    assert box.counted() == Counter(box.sources.keys()), "a document was lost or converted again"


def kill_when(box: Box, jobs: int, chance: random.Random) -> None:
    """Start it and kill it: soon after so many jobs are completed; in every fifth round at any moment of its start."""
    at_start = chance.random() < 0.2
    process = box.launch()
    if at_start:
        threading.Event().wait(chance.uniform(0, 1))
    else:
        until(lambda: len(completed(box)) >= jobs, f"{jobs} jobs are completed")
        threading.Event().wait(chance.uniform(0, 0.1))
    assert process.poll() is None, f"the daemon ended by itself:\n{box.log.read_text()[-3000:]}"
    box.kill()


SOURCES = {"a.txt": b"the river a is long", "deep/er/b.html": documents.html("the river b is long")}
CASES = [
    *(("delete", at) for at in ("put:3", "published:1", "remove:1", "delete:1", "deleted:1")),
    *(("move", at) for at in ("copy:1", "copied:1", "deleted:1")),
]


def test_dies_at_each_step_of_a_publish_and_of_a_disposal(tmp_path: Path, bucket: Bucket) -> None:
    """All are made first: a source is not disposed of within 5 s of its last change, and so that passes only once."""
    boxes = []
    for number, (action, at) in enumerate(CASES):
        root = f"{number}/"
        on_success = "delete" if action == "delete" else f"move:s3://{bucket.name}/{root}done/"
        boxes.append((action, at, Box(tmp_path / str(number), bucket, on_success, root, workers=1)))
        boxes[-1][2].supply(SOURCES)
        bucket.put(f"{root}out/a.txt.error.json", b"{}")  # as if an earlier version had failed
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        list(pool.map(lambda case: dies(*case), boxes))
    no_orphans()


def dies(action: str, at: str, box: Box) -> None:
    box.entry = WITH_FAULTS
    code = box.launch("--once", env={"CONVERTD_DIE_AT": at}).wait(DEADLINE_SECONDS)
    assert code == -signal.SIGKILL, f"{at} was not reached: {box.log.read_text()[-3000:]}"
    box.nothing_lost()
    for name in set(SOURCES) - box.left():
        assert box.torn(name) is None
        assert action == "delete" or box.bucket.get(f"{box.root}done/{name}") == SOURCES[name]
    box.entry = ("-m", "daemon")
    assert box.once() == 0, box.log.read_text()[-3000:]
    box.done()
    assert box.counted() == Counter(SOURCES.keys())
    moved = {name: box.bucket.get(f"{box.root}done/{name}") for name in box.below("done/")}
    assert moved == (SOURCES if action == "move" else {})
