"""The janitor: disposals that are due, called off, overtaken or stuck, on a real table and real files; what becomes of
those that are due where a retry gives their job another end, or a reload their watch another configuration."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.db import Readers, Writer
from daemon.departures import departing
from daemon.disposal import Janitor
from daemon.errors import DocumentError, EnvironmentProblem, Kind, SourceChanged, Stopped, TransientError
from daemon.globs import Filter
from daemon.jobs import JobTable
from daemon.model import Candidate, Conversion, Disposal, Job
from daemon.operations import Down, Operations
from daemon.sources.base import Documents, Source
from daemon.sources.folder import FolderSource
from daemon.sources.version import file_version
from daemon.switches import Switches
from tests.harness import until

DELETE, KEEP = Disposal("delete"), Disposal("keep")
CONVERSION = Conversion(b"x", "ab" * 32, "text/plain", "text", "1")


class Quiet:
    """A log that says nothing."""

    def _log(self, event: str, **values: Any) -> None: ...

    debug = info = warning = error = _log


class Operated(Down):
    """A daemon with this janitor. `let_out` is called when its workers may have jobs again that were withheld."""

    def __init__(self, janitor: Janitor, let_out: Callable[[Collection[int]], None]) -> None:
        self._janitor = janitor
        self._let_out = let_out

    def disposals_held(self, job_ids: list[int]) -> AbstractContextManager[set[int]]:
        return self._janitor.held(job_ids)

    @contextmanager
    def withheld(self, job_ids: Collection[int]) -> Iterator[None]:
        yield
        self._let_out(job_ids)


@dataclass
class Bench:
    inbox: Path
    writer: Writer
    jobs: JobTable
    source: FolderSource
    notes: list[str | None]
    sources: dict[str, Documents] = field(default_factory=dict)
    configured: dict[str, Disposal] = field(default_factory=lambda: {"success": DELETE, "failure": KEEP})
    ahead_seconds: float = 0.0

    def errand(self, job: Job, reason: str) -> tuple[Documents, Disposal]:
        return self.sources.get(job.watch, self.source), self.configured[reason]

    def janitor(self) -> Janitor:
        return Janitor(
            self.errand,
            self.jobs,
            Quiet(),
            lambda watch, text: self.notes.append(text),
            monotonic=lambda: time.monotonic() + self.ahead_seconds,
        )

    def moves_to(self, name: str) -> Disposal:
        return Disposal("move", str(self.inbox.parent / name))

    def in_the_way(self, name: str) -> Path:
        """What makes it impossible to move anything to the folder of this name."""
        path = self.inbox.parent / name
        path.write_text("in the way")
        return path

    def hidden(self) -> bool:
        return any(name.startswith(".convertd-disposing-") for name in os.listdir(self.inbox))

    def stuck(self) -> tuple[Janitor, Job]:
        """A document that is hidden, as it cannot be moved to where it was to go."""
        self.in_the_way("full")
        self.configured["success"] = self.moves_to("full")
        janitor, job = self.janitor(), self.completed("a.txt")
        janitor.add(job)
        self.step(janitor)
        assert self.hidden()
        return janitor, job

    def taken(self, name: str, watch: str = "inbox") -> Job:
        """A document that is being converted."""
        path = self.inbox / name
        path.write_bytes(b"content")
        status = path.stat()
        (job,), _ = self.jobs.enqueue(watch, [Candidate(os.fsencode(name), file_version(status), 7)], 5)
        self.jobs.start(job)
        return job

    def completed(self, name: str, watch: str = "inbox") -> Job:
        """A document that was converted and whose disposal is due."""
        job = self.taken(name, watch)
        assert self.jobs.complete(job, CONVERSION, "", dispose=True)
        return job

    def fails(self, job: Job) -> None:
        assert self.jobs.fail(job, DocumentError(Kind.CORRUPT, "no end"), attempts=1, dispose=True)

    def operations(
        self, janitor: Janitor, let_out: Callable[[Collection[int]], None] = lambda job_ids: None
    ) -> Operations:
        """What commands ask of the daemon."""
        database = str(self.inbox.parent / "convertd.db")
        switches = Switches(self.jobs._writer, Readers(database))
        running = Operated(janitor, let_out)
        served = {"inbox": cast(Source, self.sources.get("inbox", self.source))}
        return Operations(database, self.jobs, switches, lambda: served, running, lambda copies: None)

    def retried(self, janitor: Janitor, job: Job) -> None:
        """As an operator has it done, up to the moment at which a worker has it again."""
        with janitor.held([job.id]):
            assert [retried.id for retried in self.jobs.retry([job.id])[0]] == [job.id]
        self.jobs.start(job)

    def held_open(self, janitor: Janitor, job: Job) -> None:
        """Its disposal was put off, as somebody had the document open."""
        with open(self.inbox / os.fsdecode(job.source), "ab"):
            janitor.add(job)
            self.step(janitor)
            assert janitor.backlog() == 1

    def step(self, janitor: Janitor) -> None:
        """Whatever is due by now, put off ones included, is tried once more."""
        self.ahead_seconds += 100.0
        while (job := janitor._take_due()) is not None:
            try:
                janitor._dispose(job)
            finally:
                del janitor._acting[job.watch]

    def run(self, job: Job, until_true: Callable[[Janitor], bool], disposal: Disposal = DELETE) -> None:
        """Give the disposal to a janitor and wait."""
        self.configured["success"] = disposal
        janitor = self.janitor()
        janitor.add(job)
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
    yield Bench(tmp_path / "inbox", writer, jobs, source, [])
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


@pytest.mark.parametrize("action", ["delete", "move"])
def test_one_that_was_begun_is_finished_though_a_newer_version_has_come(bench: Bench, action: str) -> None:
    job, target = bench.completed("a.txt"), bench.inbox.parent / "done"
    disposal = Disposal(action, str(target) if action == "move" else "")
    sick = ["hidden"]

    def fault(label: str) -> None:
        if label in sick:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    bench.source = FolderSource(str(bench.inbox), Filter(["**/*"], []), clock=lambda: 4e9, fault=fault)
    bench.run(job, lambda janitor: bool(bench.notes), disposal)
    (hidden,) = os.listdir(bench.inbox)
    assert hidden.startswith(".convertd-disposing-")
    sick.clear()
    (bench.inbox / "a.txt").write_bytes(b"newer")
    bench.jobs.enqueue("inbox", [Candidate(b"a.txt", "newer", 5)], 5)
    bench.run(job, lambda janitor: not janitor.backlog(), disposal)
    assert [(path.name, path.read_bytes()) for path in bench.inbox.iterdir()] == [("a.txt", b"newer")]
    assert action == "delete" or (target / "a.txt").read_bytes() == b"content"
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
    janitor = bench.janitor()
    with janitor.held([1]):
        janitor.add(job)
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
        self.asked = 0

    def dispose(self, job: Job, disposal: Disposal) -> bytes | None:
        self.asked += 1
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
    bench.sources["inbox"] = cast(Documents, silent)
    janitor = bench.janitor()
    janitor.add(stuck)
    threads = [threading.Thread(target=janitor.run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert silent.entered.wait(30)
        job = bench.completed("a.txt", "other")
        janitor.add(job)
        until(lambda: os.listdir(bench.inbox) == ["stuck.txt"], "the other watch's document is deleted", 30)
        with janitor.held([job.id]):  # a retry of another job is not held up either
            pass
    finally:
        silent.let_go.set()
        janitor.stop()
        for thread in threads:
            thread.join(30)


def test_a_retry_refuses_the_one_whose_disposal_does_not_end_and_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.disposal.HELD_SECONDS", 0.1)
    bench.jobs.register("other", "/in", "/out")
    stuck, other = bench.taken("stuck.txt"), bench.taken("a.txt", "other")
    for job in (stuck, other):
        bench.fails(job)
    silent = Stubborn()
    bench.sources["inbox"] = cast(Documents, silent)
    janitor = bench.janitor()
    janitor.add(stuck)
    thread = threading.Thread(target=janitor.run)
    thread.start()
    try:
        assert silent.entered.wait(30)
        answer = bench.operations(janitor).retry({"failed": True})
    finally:
        silent.let_go.set()
        janitor.stop()
        thread.join(30)
    (refusal,) = answer["refused"]
    assert answer["retried"] == 1
    assert refusal.startswith(f"job {stuck.id} has its document moved or deleted just now")
    assert [job.id for job, _ in bench.jobs.pending("other", 10)] == [other.id]


def test_two_retries_at_once_may_hold_the_same_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.disposal.HELD_SECONDS", 0.05)
    janitor, job = bench.janitor(), bench.completed("a.txt")
    janitor.add(job)
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(janitor.held([job.id]))
        second.enter_context(janitor.held([job.id]))
        first.close()
        bench.step(janitor)
        assert os.listdir(bench.inbox) == ["a.txt"], "the other one holds it still"
    assert janitor._take_due() is not None
    with janitor.held([job.id]) as one, janitor.held([job.id]) as another:
        assert one == another == {job.id}


@pytest.mark.parametrize(
    "error", [DocumentError(Kind.UNREADABLE, "it is archived"), KeyError("LastModified"), Stopped("")]
)
def test_no_error_of_one_document_ends_the_janitor(bench: Bench, error: Exception) -> None:
    job = bench.completed("a.txt")
    source = Stubborn(error)
    source.let_go.set()
    bench.sources["inbox"] = cast(Documents, source)
    janitor = bench.janitor()
    janitor.add(job)
    thread = threading.Thread(target=janitor.run)
    thread.start()
    until(lambda: bench.notes, "the operator is told", 30)
    assert thread.is_alive()
    janitor.stop()
    thread.join(30)
    assert len(bench.jobs.disposals.due()) == 1


def test_a_document_that_failed_after_a_retry_is_not_deleted_for_its_earlier_success(bench: Bench) -> None:
    bench.configured["failure"] = bench.moves_to("bad")
    janitor = bench.janitor()
    job = bench.completed("a.txt")
    bench.held_open(janitor, job)
    bench.retried(janitor, job)
    bench.fails(job)
    bench.step(janitor)  # before anybody has told of the failure
    janitor.add(job)
    bench.step(janitor)
    assert os.listdir(bench.inbox) == []
    assert (bench.inbox.parent / "bad" / "a.txt").read_bytes() == b"content"
    assert janitor.backlog() == 0


def test_a_document_that_was_converted_after_a_retry_is_not_taken_for_one_that_failed(bench: Bench) -> None:
    bench.configured = {"success": bench.moves_to("done"), "failure": bench.moves_to("bad")}
    janitor = bench.janitor()
    job = bench.taken("a.txt")
    bench.fails(job)
    bench.held_open(janitor, job)
    bench.retried(janitor, job)
    assert bench.jobs.complete(job, CONVERSION, "", dispose=True)
    bench.step(janitor)
    assert (bench.inbox.parent / "done" / "a.txt").read_bytes() == b"content"
    assert not (bench.inbox.parent / "bad").exists()


def test_one_that_a_retry_has_called_off_while_it_was_put_off_is_not(bench: Bench) -> None:
    janitor = bench.janitor()
    job = bench.completed("a.txt")
    bench.held_open(janitor, job)
    bench.retried(janitor, job)
    bench.step(janitor)
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert janitor.backlog() == 0


def test_a_document_is_looked_for_where_a_disposal_in_between_has_moved_it(bench: Bench) -> None:
    """Its first disposal was put off; then it failed, was quarantined, and is converted from there."""
    bench.configured["failure"] = bench.moves_to("bad")
    janitor = bench.janitor()
    job = bench.completed("a.txt")
    bench.held_open(janitor, job)
    bench.retried(janitor, job)
    bench.fails(job)
    janitor.add(job)
    bench.step(janitor)
    assert (bench.inbox.parent / "bad" / "a.txt").exists()
    bench.retried(janitor, job)
    assert bench.jobs.complete(job, CONVERSION, "", dispose=True)
    janitor.add(job)
    bench.step(janitor)
    assert not (bench.inbox.parent / "bad" / "a.txt").exists()


def test_a_reload_leads_what_is_stuck_to_the_new_target(bench: Bench) -> None:
    janitor, job = bench.stuck()
    assert "a.txt" in (bench.notes[-1] or "")
    bench.configured["success"] = bench.moves_to("done")
    janitor.add(job)  # as a reload does; nobody waits for the pause to be over
    assert janitor.backlog() == 1
    bench.step(janitor)
    assert os.listdir(bench.inbox) == []
    assert (bench.inbox.parent / "done" / "a.txt").read_bytes() == b"content"
    assert janitor.backlog() == 0
    assert bench.notes[-1] is None


@pytest.mark.parametrize("again", [True, False])
def test_what_is_to_be_kept_after_a_reload_comes_back_under_its_name(bench: Bench, *, again: bool) -> None:
    janitor, job = bench.stuck()
    bench.configured["success"] = KEEP
    if again:
        janitor.add(job)
    bench.step(janitor)
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert bench.jobs.disposals.due() == []
    assert janitor.backlog() == 0


def test_what_cannot_be_brought_back_just_now_is_brought_back_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    janitor, _ = bench.stuck()
    bench.configured["success"] = KEEP

    def refuse(*arguments: Any, **values: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.sources.disposer.rename_noreplace", refuse)
        bench.step(janitor)
    assert bench.hidden()
    assert len(bench.jobs.disposals.due()) == 1
    bench.step(janitor)
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert bench.jobs.disposals.due() == []


def test_what_is_stuck_in_hiding_and_is_to_be_kept_now_comes_back_beside_a_newer_version(bench: Bench) -> None:
    janitor, _ = bench.stuck()
    bench.taken("a.txt")
    bench.configured["success"] = KEEP
    bench.step(janitor)
    assert sorted(os.listdir(bench.inbox)) == ["a.txt", "a~1.txt"]
    assert bench.jobs.disposals.due() == []


def test_what_is_hidden_and_to_be_kept_waits_for_a_source_that_is_away(bench: Bench) -> None:
    janitor, _ = bench.stuck()
    bench.configured["success"] = KEEP
    away = bench.inbox.rename(bench.inbox.parent / "away")
    bench.step(janitor)
    assert len(bench.jobs.disposals.due()) == 1
    away.rename(bench.inbox)
    bench.step(janitor)
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert bench.jobs.disposals.due() == []


def test_what_a_retry_calls_off_comes_back_though_nobody_fetches_it(bench: Bench) -> None:
    """The job is cancelled before a worker has it, as where its watch is paused."""
    janitor, job = bench.stuck()
    found: list[list[str]] = []

    def let_out(job_ids: Collection[int]) -> None:
        if list(job_ids) == [job.id]:
            found.append(os.listdir(bench.inbox))

    operations = bench.operations(janitor, let_out)
    assert operations.retry({"ids": [job.id]}) == {"retried": 1, "parked": 0, "refused": []}
    assert found == [["a.txt"]], "it is there before it can be fetched"
    assert operations.cancel({"ids": [job.id]})["cancelled"] == 1
    bench.step(janitor)
    assert os.listdir(bench.inbox) == ["a.txt"]
    assert janitor.backlog() == 0


def test_what_a_retry_calls_off_comes_back_beside_what_has_its_name_now(bench: Bench) -> None:
    janitor, job = bench.stuck()
    (bench.inbox / "a.txt").write_bytes(b"newer")
    bench.operations(janitor).retry({"ids": [job.id]})
    assert {path.name: path.read_bytes() for path in bench.inbox.iterdir()} == {
        "a.txt": b"newer",
        "a~1.txt": b"content",
    }


def test_what_is_hidden_stays_so_where_its_retry_is_refused(bench: Bench) -> None:
    """A newer version has a job: this one is still to be moved away."""
    janitor, job = bench.stuck()
    bench.taken("a.txt")
    assert bench.operations(janitor).retry({"ids": [job.id]})["retried"] == 0
    assert bench.hidden()
    assert "a~1.txt" not in os.listdir(bench.inbox)


def test_what_cannot_be_brought_back_by_a_retry_is_brought_back_by_the_fetch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    janitor, job = bench.stuck()

    def refuse(*arguments: Any, **values: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("daemon.sources.disposer.rename_noreplace", refuse)
        assert bench.operations(janitor).retry({"ids": [job.id]})["retried"] == 1
    assert bench.hidden()
    with pytest.raises(SourceChanged), bench.source.fetch(job):
        pass
    assert os.listdir(bench.inbox) == ["a.txt"]


def test_a_retry_does_not_wait_for_a_disk_that_does_not_answer(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.hidden.LONG_SECONDS", 0.5)
    jobs = [bench.completed(f"{number}.txt") for number in range(3)]
    silent = Stubborn()
    bench.sources["inbox"] = cast(Documents, silent)
    try:
        assert bench.operations(bench.janitor()).retry({"ids": [job.id for job in jobs]})["retried"] == 3
        assert silent.entered.wait(30)
        assert silent.asked == 1, "the others are not asked for"
    finally:
        silent.let_go.set()


def test_what_is_hidden_comes_back_before_its_watch_gets_another_source(bench: Bench) -> None:
    janitor, job = bench.stuck()
    bench.jobs.register("inbox", str(bench.inbox), "/out")
    with departing(bench.jobs, janitor.held, {"inbox": str(bench.inbox.parent / "other")}):
        bench.step(janitor)
        assert os.listdir(bench.inbox) == ["a.txt"], "it is not hidden again meanwhile"
    assert bench.jobs.disposals.due_among([job.id]) == {job.id}


def test_what_is_hidden_stays_so_where_its_watch_keeps_its_source(bench: Bench) -> None:
    janitor, _ = bench.stuck()
    bench.jobs.register("inbox", str(bench.inbox), "/out")
    bench.jobs.register("other", "/other", "/out")
    for sources in ({"inbox": str(bench.inbox)}, {"other": "/elsewhere"}):
        with departing(bench.jobs, janitor.held, sources):
            assert bench.hidden()


def test_a_source_that_is_gone_is_not_made_to_look_for_what_is_hidden(bench: Bench) -> None:
    janitor, _ = bench.stuck()
    bench.jobs.register("inbox", str(bench.inbox), "/out")
    renamed = bench.inbox.rename(bench.inbox.parent / "renamed")
    with departing(bench.jobs, janitor.held, {"inbox": str(renamed)}):
        assert not bench.inbox.exists()


def test_a_watch_gets_another_source_though_a_disposal_in_the_old_one_hangs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.disposal.HELD_SECONDS", 0.1)
    janitor, job = bench.stuck()
    bench.jobs.register("inbox", str(bench.inbox), "/out")
    janitor._acting["inbox"] = job.id
    with departing(bench.jobs, janitor.held, {"inbox": "/other"}):
        assert bench.hidden()


def test_one_that_is_added_again_and_again_is_there_once(bench: Bench) -> None:
    """As by a watch that is removed and comes back, while somebody is at it and while nobody is."""
    job = bench.completed("a.txt")
    source = Stubborn()
    bench.sources["inbox"] = cast(Documents, source)
    janitor = bench.janitor()
    for _ in range(3):
        janitor.add(job)
    assert janitor.backlog() == 1
    thread = threading.Thread(target=janitor.run)
    thread.start()
    try:
        assert source.entered.wait(30)
        for _ in range(3):
            janitor.add(job)
        assert janitor.backlog() == 2, "one that is carried out, and one that looks again"
        source.error = TransientError(Kind.UNREADABLE, "the target is full")
        source.let_go.set()
        until(lambda: janitor.backlog() == 1 and bench.notes, "it is put off", 30)
    finally:
        source.let_go.set()
        janitor.stop()
        thread.join(30)
