"""The janitor: disposals that are due, called off, overtaken or stuck, on a real table and real files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.db import Readers, Writer
from daemon.disposal import Janitor
from daemon.errors import DocumentError, EnvironmentProblem, Kind, Stopped
from daemon.globs import Filter
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Disposal, Job
from daemon.sources.base import Source
from daemon.sources.folder import FolderSource
from daemon.sources.version import file_version
from tests.harness import until

DELETE = Disposal("delete")
CONVERSION = Conversion(b"x", "ab" * 32, "text/plain", "text", "1")


class Quiet:
    """A log that says nothing."""

    def _log(self, event: str, **values: Any) -> None: ...

    debug = info = warning = error = _log


@dataclass
class Bench:
    inbox: Path
    jobs: JobTable
    source: FolderSource
    notes: list[str | None]

    def completed(self, name: str) -> Job:
        """A document that was converted and whose disposal is due."""
        path = self.inbox / name
        path.write_bytes(b"content")
        status = path.stat()
        (job,), _ = self.jobs.enqueue("inbox", [Candidate(os.fsencode(name), file_version(status), 7)], 5)
        self.jobs.start(job)
        assert self.jobs.complete(job, CONVERSION, "", dispose=True)
        return job

    def run(self, job: Job, until_true: Callable[[Janitor], bool], disposal: Disposal = DELETE) -> None:
        """Give the disposal to a janitor and wait."""
        janitor = Janitor({"inbox": self.source}, self.jobs, Quiet(), lambda watch, text: self.notes.append(text))
        janitor.add(job, disposal)
        thread = threading.Thread(target=janitor.run)
        thread.start()
        try:
            until(lambda: until_true(janitor), "the janitor is done", 30)
        finally:
            janitor.stop()
            thread.join(30)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    writer = Writer(str(tmp_path / "convertd.db"))
    writer.start()
    jobs = JobTable(writer, Readers(str(tmp_path / "convertd.db")))
    jobs.register("inbox", "/in", "/out")
    (tmp_path / "inbox").mkdir()
    source = FolderSource(
        str(tmp_path / "inbox"), Filter(["**/*"], []), clock=lambda: 4e9
    )  # long after the last change
    yield Bench(tmp_path / "inbox", jobs, source, [])
    writer.close()


def test_a_due_disposal_is_carried_out_and_recorded(bench: Bench) -> None:
    job = bench.completed("a.txt")
    bench.run(job, lambda janitor: not janitor.backlog())
    assert os.listdir(bench.inbox) == []
    assert bench.jobs.disposals.due() == []


def test_one_that_a_retry_has_called_off_is_not(bench: Bench) -> None:
    job = bench.completed("a.txt")
    bench.jobs.retry([job.id])
    bench.run(job, lambda janitor: not janitor.backlog())
    assert os.listdir(bench.inbox) == ["a.txt"]


def test_one_of_a_version_that_is_no_longer_the_newest_is_not(bench: Bench) -> None:
    job = bench.completed("a.txt")
    bench.jobs.enqueue("inbox", [Candidate(b"a.txt", "newer", 7)], 5)
    bench.run(job, lambda janitor: not janitor.backlog())
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert bench.jobs.disposals.due() == []


def test_one_that_cannot_succeed_stays_due_and_is_shown(bench: Bench) -> None:
    job = bench.completed("a.txt")
    target = bench.inbox.parent / "file"
    target.write_text("in the way")
    bench.run(job, lambda janitor: bool(bench.notes), Disposal("move", str(target)))
    assert os.listdir(bench.inbox) != []
    assert "a.txt" in (bench.notes[0] or "")
    assert len(bench.jobs.disposals.due()) == 1


@pytest.mark.parametrize("what", ["kept", "gone", "deleted"])
def test_a_full_disk_puts_off_whatever_end_it_has(bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    job = bench.completed("a.txt")
    if what == "kept":
        bench.jobs.enqueue("inbox", [Candidate(b"a.txt", "newer", 7)], 5)
    disposal = DELETE
    if what == "gone":
        (bench.inbox / "a.txt").unlink()
        disposal = Disposal("move", str(bench.inbox.parent / "done"))
    monkeypatch.setattr("daemon.disposal.AGAIN_SECONDS", (0.01,))
    left = [3]

    def sick(write: Callable[..., None], *arguments: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise EnvironmentProblem("the job table cannot be written")
        write(*arguments)

    for name in ("done", "keep_source"):
        monkeypatch.setattr(bench.jobs.disposals, name, partial(sick, getattr(bench.jobs.disposals, name)))
    bench.run(job, lambda janitor: not janitor.backlog(), disposal)
    assert left[0] < 0
    assert bench.jobs.disposals.due() == []
    assert os.listdir(bench.inbox) == (["a.txt"] if what == "kept" else [])


def test_nothing_is_disposed_of_while_it_is_held(bench: Bench) -> None:
    job = bench.completed("a.txt")
    janitor = Janitor({"inbox": bench.source}, bench.jobs, Quiet())
    with janitor.held([1]):
        janitor.add(job, DELETE)
        thread = threading.Thread(target=janitor.run)
        thread.start()
        until(lambda: janitor.backlog() == 1, "the disposal is known")
        bench.jobs.retry([job.id])
    until(lambda: not janitor.backlog(), "the janitor is done")
    janitor.stop()
    thread.join(30)
    assert os.listdir(bench.inbox) == ["a.txt"]


class Stubborn:
    """A source whose disposals end when the test says so, with the error that it says."""

    def __init__(self, error: Exception | None = None) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.error = error

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        self.entered.set()
        assert self.let_go.wait(60)
        if self.error is not None:
            raise self.error
        return None

    def recheck(self, source: bytes) -> None: ...


def test_a_watch_whose_server_does_not_answer_holds_up_no_other(bench: Bench) -> None:
    stuck = bench.completed("stuck.txt")
    bench.jobs.register("other", "/in", "/out")
    silent = Stubborn()
    janitor = Janitor({"inbox": cast(Source, silent), "other": bench.source}, bench.jobs, Quiet())
    janitor.add(stuck, DELETE)
    threads = [threading.Thread(target=janitor.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert silent.entered.wait(30)
        job = bench.completed("a.txt")
        janitor.add(replace(job, watch="other"), DELETE)
        until(lambda: os.listdir(bench.inbox) == ["stuck.txt"], "the other watch's document is deleted", 30)
        with janitor.held([job.id]):  # a retry of another job is not held up either
            pass
    finally:
        silent.let_go.set()
        janitor.stop()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize(
    "error", [DocumentError(Kind.UNREADABLE, "it is archived"), KeyError("LastModified"), Stopped("")]
)
def test_no_error_of_one_document_ends_the_janitor(bench: Bench, error: Exception) -> None:
    job = bench.completed("a.txt")
    source = Stubborn(error)
    notes: list[str | None] = []
    source.let_go.set()
    janitor = Janitor({"inbox": cast(Source, source)}, bench.jobs, Quiet(), lambda watch, text: notes.append(text))
    janitor.add(job, DELETE)
    thread = threading.Thread(target=janitor.run)
    thread.start()
    until(lambda: notes, "the operator is told", 30)
    assert thread.is_alive()
    janitor.stop()
    thread.join(30)
    assert len(bench.jobs.disposals.due()) == 1
