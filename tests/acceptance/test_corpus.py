"""The project's collection of real and of malformed documents through the daemon; skipped where it is absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.harness import ROOT, Daemon, alive, children_of, running, until

CORPUS = ROOT.parent / "shared" / "corpus"
DEADLINE_SECONDS = 150

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the collection of documents is not here")


CONFIG = """
state_dir = "state"
[ocr]
mode = "{ocr}"
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""


# OCR of the malformed images finds no text in them and takes a minute.
@pytest.mark.parametrize(("part", "ocr"), [("docs", "auto"), ("robust", "off")])
def test_every_document_ends_one_way(tmp_path: Path, part: str, ocr: str) -> None:
    """All dropped at once: the daemon stays up, and the files, status and jobs agree on what became of each."""
    sources = copied(CORPUS / part, tmp_path / "inbox" / ".copying")
    with running(tmp_path, CONFIG.format(ocr=ocr)) as daemon:
        assert daemon.process is not None
        pid, children = daemon.process.pid, set()
        (daemon.inbox / ".copying").rename(daemon.inbox / "dropped")

        def ended() -> bool:
            children.update(children_of(pid))
            return len(list(results(daemon, ".md"))) + len(list(results(daemon, ".error.json"))) >= len(sources)

        until(ended, "every document is converted or fails", DEADLINE_SECONDS)
        until(lambda: not (daemon.jobs("--state", "processing") or daemon.jobs("--state", "pending")), "all jobs end")
        agree(daemon, sources)
        assert daemon.status()["daemon"]["pid"] == pid
        assert daemon.stop() == 0
        assert not [child for child in children if alive(child)]
    assert not [path for path in tmp_path.rglob(".convertd-*") if path.is_file()]
    assert daemon.once() == 0
    assert len(daemon.jobs()) == len(sources)  # a second run converts nothing


def agree(daemon: Daemon, sources: list[str]) -> None:
    converted, failed = set(results(daemon, ".md")), set(results(daemon, ".error.json"))
    assert converted | failed == set(sources)
    assert not converted & failed
    jobs = daemon.jobs()
    assert sorted(job["source"] for job in jobs) == sorted(sources)
    assert {job["source"] for job in jobs if job["state"] == "completed"} == converted
    assert {job["source"] for job in jobs if job["state"] == "failed"} == failed
    expected = {"pending": 0, "processing": 0, "completed": len(converted), "failed": len(failed)}
    assert daemon.status()["jobs"] == expected
    for source in converted:
        assert (daemon.outbox / f"{source}.json").exists(), source
    kinds = {source: json.loads(daemon.error(source).read_bytes())["kind"] for source in failed}
    assert "internal" not in kinds.values(), kinds


def results(daemon: Daemon, suffix: str) -> set[str]:
    """The sources of which there is such a result."""
    found = (path for path in daemon.outbox.rglob(f"*{suffix}") if path.is_file())
    return {str(path.relative_to(daemon.outbox)).removesuffix(suffix) for path in found}


def copied(folder: Path, target: Path) -> list[str]:
    """Copy the documents of a folder, not the expectations beside them; returns the paths they are to have."""
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith(".tests.json"):
            relative = path.relative_to(folder)
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).write_bytes(path.read_bytes())
            names.append(os.path.join("dropped", relative))
    return names
