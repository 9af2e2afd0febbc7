"""kill -9 of the daemon: at random moments and at every commit boundary. Nothing is lost, torn or left behind."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from tests import documents
from tests.fault.outcome import Reader, integrity, leftovers, no_orphans, torn
from tests.harness import Daemon, until

DOCUMENTS = 300
KILLS = 25
ALWAYS_LEFT = 250  # so many documents at each kill: the suspects among them never run alone while we still kill
WITH_FAULTS = ("-m", "tests.fault.daemon_with_faults")
CONFIG = """
state_dir = "state"
workers = 2
[log]
level = "debug"
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""


def mixed(number: int) -> tuple[str, bytes]:
    """A small document of one of many kinds; its text names it."""
    text = f"document number {number} tells of rivers"
    kinds = {
        "txt": text.encode(),
        "md": f"# Rivers\n\n{text}\n".encode(),
        "html": documents.html(text),
        "docx": documents.docx(text),
        "pdf": documents.pdf([text]),
        "csv": f"what,text\nnote,{text}\n".encode(),
        "rtf": documents.rtf(text),
        "eml": documents.eml(text),
        "odt": documents.odt(text),
        "xlsx": documents.xlsx([["what", "text"], ["note", text]]),
    }
    suffix = list(kinds)[number % len(kinds)]
    return f"{number:03}.{suffix}", kinds[suffix]


def published(outbox: Path) -> int:
    return sum(name.endswith(".md") for name in os.listdir(outbox)) if outbox.exists() else 0


@pytest.fixture
def seed() -> int:
    return random.SystemRandom().randrange(2**32)


def test_killed_at_random_moments_while_draining(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    daemon = Daemon(tmp_path)
    sources: dict[str, bytes] = {}

    def supply(number_of_documents: int) -> None:
        for number in range(len(sources), number_of_documents):
            name, content = mixed(number)
            sources[name] = content
            daemon.drop(name, content)

    supply(DOCUMENTS)
    with_work_left = 0
    with Reader(daemon.outbox) as seen:
        for kills_left in range(KILLS, 0, -1):
            done = published(daemon.outbox)
            supply(done + ALWAYS_LEFT)  # a fast machine is given more
            budget = max(0, len(sources) - ALWAYS_LEFT - done)
            kill_when(daemon, done + chance.randint(0, 2 * budget // kills_left), chance.uniform(0, 1), chance)
            with_work_left += published(daemon.outbox) < len(sources)
        no_orphans()
        assert daemon.once() == 0, daemon.log.read_text()[-3000:]
    assert with_work_left >= KILLS - 5, "the documents were done before most kills"
    assert seen.complaints == []
    assert seen.looks >= DOCUMENTS
    assert_all_done(daemon, sources)


def kill_when(daemon: Daemon, outputs: int, latest_seconds: float, chance: random.Random) -> None:
    """Start it and kill it: soon after so many outputs are there; in every fifth round at any moment of its start."""
    at_start = chance.random() < 0.2
    process = daemon.launch()
    if at_start:
        threading.Event().wait(latest_seconds * 0.7)
    else:
        until(lambda: published(daemon.outbox) >= outputs, f"{outputs} outputs")
        threading.Event().wait(latest_seconds / 20)
    assert process.poll() is None, f"the daemon ended by itself:\n{daemon.log.read_text()[-3000:]}"
    daemon.kill()


def assert_all_done(daemon: Daemon, sources: dict[str, bytes]) -> None:
    """Every document has its whole output, no job failed, and nothing else is left."""
    for name, content in sources.items():
        assert torn(daemon.markdown(name)) is None
        assert (daemon.inbox / name).read_bytes() == content
        number = int(name.split(".")[0])
        assert f"document number {number} tells of rivers" in daemon.markdown(name).read_text().replace("\\", "")
    assert not list(daemon.outbox.rglob("*.error.json"))
    jobs = daemon.jobs()
    assert {job["state"] for job in jobs} == {"completed"}
    assert sorted(job["source"] for job in jobs) == sorted(sources)
    assert integrity(daemon) == "ok"
    assert leftovers(daemon.outbox) == []
    no_orphans()
