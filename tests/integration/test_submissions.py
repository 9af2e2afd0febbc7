"""`submit` from the socket to the job table: files become jobs, durable before the answer, and nothing is left over."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon import submissions as module
from daemon.config import Watch, defaults
from daemon.control import ControlServer, ask
from daemon.db import Readers, Writer
from daemon.dispatch import Dispatcher
from daemon.errors import EnvironmentProblem, SourceChanged, SourceVanished, UsageError
from daemon.intake import Intake
from daemon.jobs import JobTable
from daemon.model import Disposal, Job
from daemon.pipeline import Policy
from daemon.sources.submitted import SubmittedSource
from daemon.submissions import AT_ONCE, Submissions


class Dead(Exception):
    """The daemon ends here."""


@dataclass
class Bench:
    folder: Path
    jobs: JobTable
    dispatcher: Dispatcher
    intake: Intake
    submissions: Submissions
    steps: list[str]
    die_at: list[str] = field(default_factory=list)

    def submit(self, contents: dict[str, bytes], **request: Any) -> list[dict[str, Any]]:
        """Hand these over; what became of each."""
        paths = []
        for number, (name, content) in enumerate(contents.items()):
            path = self.folder / "mine" / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            paths.append(path)
        return self.submit_paths(paths, **request)

    def submit_paths(self, paths: list[Path], **request: Any) -> list[dict[str, Any]]:
        with ExitStack() as stack:
            fds = [os.open(path, os.O_RDONLY) for path in paths]
            for fd in fds:
                stack.callback(os.close, fd)
            described = [{"name": path.name, "size_bytes": path.stat().st_size} for path in paths]
            answer = self.submissions.submit({"files": described, "batch": "x"} | request, fds)
        found: list[dict[str, Any]] = answer["files"]
        return found

    def copies(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "submitted").iterdir()}

    def pending(self) -> list[Job]:
        return [job for job, _ in self.jobs.pending("inbox", 100)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    database = str(tmp_path / "convertd.db")
    writer = Writer(database)
    writer.start()
    jobs = JobTable(writer, Readers(database), clock=lambda: 1000.0)
    watches = [Watch("inbox", "/in", "/out", priority=4), Watch("second", "/in2", "/out2")]
    for watch in watches:
        jobs.register(watch.name, watch.source, watch.sink)
    (tmp_path / "submitted").mkdir()
    steps: list[str] = []
    die_at: list[str] = []

    def fault(label: str) -> None:
        steps.append(label)
        if label in die_at:
            raise Dead(label)

    intake = Intake(str(tmp_path / "submitted"), fault)
    dispatcher = Dispatcher(["inbox", "second"], jobs.pending, lambda: 1000.0, lambda: 0.0)
    settings = defaults()
    policy = Policy(settings.limits._replace(file_size_bytes=1000), settings.retry)
    submissions = Submissions(intake, jobs, dispatcher, lambda: watches, policy, fault)
    yield Bench(tmp_path, jobs, dispatcher, intake, submissions, steps, die_at)
    writer.close()


def test_files_become_jobs_of_the_first_watch_with_its_priority(bench: Bench) -> None:
    first, second = bench.submit({"a.txt": b"one", "b.txt": b"two"})
    assert (first, second) == (
        {"name": "a.txt", "job": 1, "state": "pending", "new": True},
        {"name": "b.txt", "job": 2, "state": "pending", "new": True},
    )
    jobs = bench.pending()
    assert [(job.source, job.batch, job.priority) for job in jobs] == [
        (b"submitted/x/a.txt", "x", 4),
        (b"submitted/x/b.txt", "x", 4),
    ]
    assert [bench.copies()[os.fsdecode(job.location or b"")] for job in jobs] == [b"one", b"two"]
    assert len(bench.copies()) == 2
    assert bench.dispatcher.backlog() == 2


def test_a_watch_and_a_priority_can_be_named(bench: Bench) -> None:
    bench.submit({"a.txt": b"one"}, watch="second", priority=9)
    ((job, _),) = bench.jobs.pending("second", 9)
    assert (job.watch, job.priority) == ("second", 9)


def test_names_are_bytes(bench: Bench) -> None:
    (outcome,) = bench.submit({"\udcff\n%41.txt": b"one"})
    assert outcome["name"] == "\udcff\n%41.txt"
    assert bench.pending()[0].source == b"submitted/x/\xff\n%41.txt"


def test_names_are_the_same_bytes_under_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as locale:
        locale.setattr(os, "fsencode", lambda name: name.encode("ascii", "surrogateescape"))
        names, _ = module._files({"files": [{"name": "ü.txt", "size_bytes": 1}]}, 1)
    assert names == ["ü.txt".encode()]


@pytest.mark.parametrize("name", [5, None, ["a"], "\ud800"])
def test_what_is_no_name_is_refused(name: object) -> None:
    with pytest.raises(UsageError, match="names its files"):
        module._files({"files": [{"name": name, "size_bytes": 1}]}, 1)


def test_the_same_again_changes_nothing_and_leaves_no_copy(bench: Bench) -> None:
    bench.submit({"a.txt": b"one"})
    copies = bench.copies()
    (again,) = bench.submit({"a.txt": b"one"})
    assert again == {"name": "a.txt", "job": 1, "state": "pending", "new": False}
    assert (bench.copies(), len(bench.pending())) == (copies, 1)


def test_another_file_of_the_same_name_is_refused_alone(bench: Bench) -> None:
    bench.submit({"a.txt": b"one"})
    refused, taken = bench.submit({"a.txt": b"other", "b.txt": b"two"})
    assert "another document of that name (job 1)" in refused["error"]
    assert taken["new"]
    assert sorted(bench.copies().values()) == [b"one", b"two"]


def test_two_of_one_name_at_once_are_told_apart(bench: Bench) -> None:
    for number, content in enumerate((b"one", b"one", b"other")):
        (bench.folder / str(number)).mkdir()
        (bench.folder / str(number) / "a.txt").write_bytes(content)
    first, same, other = bench.submit_paths([bench.folder / str(number) / "a.txt" for number in range(3)])
    assert (first["job"], first["new"], same["job"], same["new"]) == (1, True, 1, False)
    assert "another document" in other["error"]
    assert list(bench.copies().values()) == [b"one"]


def test_a_file_that_cannot_be_taken_stops_no_other(bench: Bench) -> None:
    large, folder, good = bench.folder / "large", bench.folder / "folder", bench.folder / "good"
    large.write_bytes(b"x" * 1001)
    folder.mkdir()
    good.write_bytes(b"x" * 1000)
    outcomes = bench.submit_paths([large, folder, good])
    assert "limits.file_size allows 1,000" in outcomes[0]["error"]
    assert "not a regular file" in outcomes[1]["error"]
    assert outcomes[2]["new"]
    assert len(bench.copies()) == 1


@pytest.mark.parametrize(
    "request_",
    [
        {"batch": None},
        {"batch": "a/b"},
        {"batch": ".."},
        {"batch": 7},
        {"watch": "third"},
        {"watch": ["inbox"]},
        {"priority": 0},
        {"priority": 11},
        {"priority": "high"},
        {"priority": True},
        {"files": None},
        {"files": [{}]},
        {"files": []},
        {"files": [{"name": "a.txt", "size_bytes": 3}] * 2},
        {"files": [{"name": "a.txt", "size_bytes": -1}]},
        {"files": [{"name": "a.txt", "size_bytes": 3.0}]},
        {"files": [{"name": "../a.txt", "size_bytes": 3}]},
        {"files": [{"name": "..", "size_bytes": 3}]},
        {"files": [{"name": "", "size_bytes": 3}]},
        {"files": [{"name": "a\0", "size_bytes": 3}]},
        {"files": [{"name": "a" * 256, "size_bytes": 3}]},
        {"files": [{"name": "\ud800", "size_bytes": 3}]},
    ],
)
def test_a_request_that_makes_no_sense_is_refused_whole(bench: Bench, request_: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        bench.submit({"a.txt": b"one"}, **request_)
    assert (bench.copies(), bench.pending(), bench.steps) == ({}, [], [])


@pytest.mark.parametrize(
    ("label", "recorded"),
    [
        ("intake copy", False),
        ("intake copied", False),
        ("intake rename", False),
        ("intake sync", False),
        ("submit record", False),
        ("submit recorded", True),
        ("submit answer", True),
    ],
)
def test_whoever_got_no_answer_asks_again_and_nothing_is_lost_or_left(bench: Bench, label: str, recorded: bool) -> None:
    bench.die_at.append(label)
    with pytest.raises(Dead):
        bench.submit({"a.txt": b"one"})
    assert len(bench.pending()) == recorded
    bench.die_at.clear()
    bench.intake.sweep(bench.jobs.history.spooled)  # as at start
    assert list(bench.copies().values()) == [b"one"] * recorded
    (outcome,) = bench.submit({"a.txt": b"one"})
    assert outcome == {"name": "a.txt", "job": 1, "state": "pending", "new": not recorded}
    (job,) = bench.pending()
    assert bench.copies() == {os.fsdecode(job.location or b""): b"one"}


def test_a_sick_disk_refuses_and_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def sick(*arguments: Any) -> Any:
        raise EnvironmentProblem("the job table cannot be written", "")

    monkeypatch.setattr(bench.jobs, "submit", sick)
    with pytest.raises(EnvironmentProblem):
        bench.submit({"a.txt": b"one", "b.txt": b"two"})
    assert bench.copies() == {}


def test_files_that_are_slow_to_read_hold_up_no_other_command(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on = threading.Semaphore(0), threading.Event()
    copy = Intake.copy

    def slow(self: Intake, *arguments: Any) -> Any:
        entered.release()
        assert go_on.wait(60)
        return copy(self, *arguments)

    monkeypatch.setattr(Intake, "copy", slow)
    path = str(bench.folder / "control.sock")
    server = ControlServer(path, {"status": lambda request: {}}, {"submit": bench.submissions.submit})
    server.start()
    threading.Thread(target=server.run, daemon=True).start()
    document = bench.folder / "a.txt"
    document.write_bytes(b"one")
    answers: list[dict[str, Any]] = []

    def submit() -> None:
        with document.open("rb") as file:
            described = [{"name": "a.txt", "size_bytes": 3}]
            answers.append(ask(path, "submit", descriptors=[file.fileno()], files=described, batch="x"))

    threads = [threading.Thread(target=submit) for _ in range(AT_ONCE)]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            assert entered.acquire(timeout=30)
        submit()
        assert answers == [{"busy": True}]
        assert ask(path, "status") == {}
    finally:
        go_on.set()
        for thread in threads:
            thread.join(30)
        server.close()
    assert [answer["busy"] for answer in answers] == [True] + [False] * AT_ONCE
    assert len(bench.pending()) == 1


def test_every_step_is_a_fault_point(bench: Bench) -> None:
    bench.submit({"a.txt": b"one"})
    assert bench.steps == [
        "intake copy",
        "intake copied",
        "intake rename",
        "intake sync",
        "submit record",
        "submit recorded",
        "submit answer",
    ]
    assert module.AT_ONCE < 16


# -- the copies as documents -------------------------------------------------------------------------------------------


def taken(bench: Bench) -> tuple[SubmittedSource, Job]:
    bench.submit({"a.txt": b"one"})
    return SubmittedSource(bench.intake), bench.pending()[0]


def test_a_copy_is_fetched_and_removed(bench: Bench) -> None:
    source, job = taken(bench)
    with source.fetch(job) as document:
        assert (os.pread(document.fd, 10, 0), document.size_bytes) == (b"one", 3)
        source.verify(job, document)
    source.verify(job, None)
    assert source.dispose(job, Disposal("move", "/nowhere")) is None
    assert source.dispose(job, Disposal("delete")) is None
    assert bench.copies() == {}
    with pytest.raises(SourceVanished), source.fetch(job):
        pass


def test_a_copy_that_lost_a_part_is_no_document(bench: Bench) -> None:
    source, job = taken(bench)
    os.truncate(bench.folder / "submitted" / os.fsdecode(job.location or b""), 1)
    with pytest.raises(SourceChanged, match="damaged"), source.fetch(job):
        pass
