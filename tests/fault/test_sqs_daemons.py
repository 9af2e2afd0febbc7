"""Real daemons on one queue: two share the work, one is killed, one drains and ends, one is stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fault.daemon_on_a_queue import HIDDEN_SECONDS
from tests.harness import Daemon, until
from tests.servers import Bucket, Queue, queue_for

DOCUMENTS = 300
WORKERS = 2
IN_HAND = 2 * WORKERS
"""A daemon takes up twice as many documents as it converts at once."""
CONFIG = """
state_dir = "state"
workers = {workers}
[[watch]]
name = "events"
source = "sqs://{queue}"
prefix = "s3://{bucket}/in/"
sink = "s3://{bucket}/out/"
[watch.s3]
endpoint_url = "{endpoint_url}"
"""


@pytest.fixture
def queue(moto_bucket: Bucket) -> Iterator[Queue]:
    with queue_for(moto_bucket, prefix="in/") as queue:
        yield queue


class Machine(Daemon):
    """A daemon with a state of its own on the queue that all share."""

    def __init__(self, folder: Path, bucket: Bucket, queue: Queue) -> None:
        folder.mkdir()
        names = {"bucket": bucket.name, "queue": queue.address.name, "endpoint_url": bucket.server.endpoint_url}
        super().__init__(folder, CONFIG.format(workers=WORKERS, **names), ("-m", "tests.fault.daemon_on_a_queue"))
        self.env = bucket.server.env()

    def up(self) -> Machine:
        self.start(env=self.env)
        return self

    def drain(self) -> int:
        return self.launch("--once", env=self.env).wait(120)

    def sources(self, *states: str) -> set[str]:
        return {job["source"] for job in self.jobs() if not states or job["state"] in states}


@pytest.fixture
def machines(moto_bucket: Bucket, queue: Queue, tmp_path: Path) -> Iterator[list[Machine]]:
    several = [Machine(tmp_path / name, moto_bucket, queue) for name in ("one", "two")]
    yield several
    for machine in several:
        machine.close()


def put(bucket: Bucket, number: int) -> str:
    name = f"{number % 7}/{number:03}.txt"
    bucket.put(f"in/{name}", f"document number {number} tells of rivers".encode())
    return name


def converted(bucket: Bucket) -> set[str]:
    return {key.removeprefix("out/").removesuffix(".md") for key in bucket.keys("out/") if key.endswith(".md")}


def deliveries(bucket: Bucket) -> dict[str, list[str]]:
    """The digest of every Markdown file that was ever written to its key."""
    found: dict[str, list[str]] = {}
    pages = bucket.client.get_paginator("list_object_versions").paginate(Bucket=bucket.name, Prefix="out/")
    for version in [version for page in pages for version in page.get("Versions", [])]:
        if version["Key"].endswith(".md"):
            found.setdefault(version["Key"], []).append(version["ETag"])
    return found


@pytest.mark.timeout(600)
def test_what_a_killed_daemon_had_in_hand_is_done_by_the_other(
    moto_bucket: Bucket, queue: Queue, machines: list[Machine]
) -> None:
    killed, other = machines
    moto_bucket.client.put_bucket_versioning(
        Bucket=moto_bucket.name, VersioningConfiguration={"Status": "Enabled"}
    )  # so that what is written over is still there to be compared
    with ThreadPoolExecutor(4) as putters:
        names = set(putters.map(lambda number: put(moto_bucket, number), range(DOCUMENTS)))
    killed.up()
    other.up()
    until(lambda: len(converted(moto_bucket)) >= DOCUMENTS // 2, "half of them are converted", 120)
    killed.kill()
    assert len(converted(moto_bucket)) < DOCUMENTS
    until(lambda: converted(moto_bucket) == names, "all are converted", HIDDEN_SECONDS + 120)
    until(lambda: queue.counts() == (0, 0), "the queue is empty", 2 * HIDDEN_SECONDS)
    assert other.stop() == 0

    assert killed.sources("completed") and other.sources("completed"), "both took part"
    assert killed.sources("completed") | other.sources("completed") == names
    assert other.sources() == other.sources("completed")
    assert killed.sources() - other.sources() <= killed.sources("completed")
    assert len(killed.sources() & other.sources()) <= IN_HAND
    written = deliveries(moto_bucket)
    assert len(written) == DOCUMENTS
    assert sum(map(len, written.values())) <= DOCUMENTS + IN_HAND
    assert [key for key, digests in written.items() if len(set(digests)) != 1] == []
    for number in range(DOCUMENTS):
        text = moto_bucket.get(f"out/{number % 7}/{number:03}.txt.md")
        assert text is not None and text.split() == f"document number {number} tells of rivers".encode().split()


def test_once_drains_the_queue_and_ends(moto_bucket: Bucket, queue: Queue, machines: list[Machine]) -> None:
    machine = machines[0]
    names = {put(moto_bucket, number) for number in range(20)}
    moto_bucket.delete("in/never-there")
    assert machine.drain() == 0
    assert queue.counts() == (0, 0)
    assert converted(moto_bucket) == names == machine.sources("completed")
    moto_bucket.put("in/bad.pdf", b"%PDF-1.4 and nothing else")
    assert machine.drain() == 1, "a document failed"
    assert queue.counts() == (0, 0), "and its message is done with all the same"
    assert machine.drain() == 0
    assert len(machine.jobs()) == 21


def test_a_daemon_that_waits_for_messages_stops_at_once(
    moto_bucket: Bucket, queue: Queue, machines: list[Machine]
) -> None:
    machine = machines[0].up()
    put(moto_bucket, 1)
    until(lambda: machine.sources("completed"), "the document is converted")
    until(lambda: queue.counts() == (0, 0), "the queue is empty")
    since = time.monotonic()
    assert machine.stop() == 0
    assert time.monotonic() - since < 8
    assert "paused" not in machine.log.read_text()
