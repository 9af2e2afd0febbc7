"""The manifest of a batch: in the sink when the batch is complete, whole, once more after a crash, replaced later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon import manifests as module
from daemon.db import Connection
from daemon.errors import EnvironmentProblem, Stopped
from daemon.manifests import Manifests
from daemon.model import Candidate
from daemon.naming import batch_of
from daemon.sinks.folder import FolderSink
from tests.batching import CONVERSION, Bench


@dataclass
class Log:
    """Remembers what it was told."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def _log(self, event: str, **values: Any) -> None:
        self.events.append((event, values))

    debug = info = warning = error = _log


class Keeper(Bench):
    """The bench of batches with a sink, which may be broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "convertd.db"))
        self.folder, self.log = folder, Log()
        self.breaks: Callable[[str], None] = lambda label: None
        self.news: list[tuple[str, dict[str, int], str]] = []
        (folder / "spool").mkdir()
        self.manifests = self.keeper()

    def keeper(self, watch: str = "inbox") -> Manifests:
        return Manifests(
            watch,
            FolderSink(str(self.folder / "outbox"), fault=self.fault),
            self.batches,
            str(self.folder / "spool"),
            self.log,
            lambda db, batch, jobs, output: self.news.append((batch.name, dict(jobs), output)),
            monotonic=lambda: self.now,
        )

    def fault(self, label: str) -> None:
        self.breaks(label)

    def look(self) -> None:
        self.manifests.look(lambda: False)

    def lines(self, name: str = "x") -> list[dict[str, Any]] | None:
        path = self.folder / "outbox" / f"{name}.manifest.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else None


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    keeper = Keeper(tmp_path)
    yield keeper
    keeper.writer.close()


def test_a_complete_batch_leaves_a_line_for_each_document(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.fail("x/b")
    keeper.look()
    assert keeper.lines() is None, "something may still come"
    keeper.later()
    keeper.look()
    assert keeper.lines() == [
        {
            "source": "x/a",
            "job": 1,
            "state": "completed",
            "output": "/out/x/a.md",
            "sha256": CONVERSION.sha256,
            "markdown_sha256": "8a5d8b28d66ae90b5876fe0337b963d9f66ab1047f8c866ff4646b73a8a3aa41",
            "error_kind": None,
            "error": None,
            "hint": None,
        },
        {
            "source": "x/b",
            "job": 2,
            "state": "failed",
            "output": None,
            "sha256": None,
            "markdown_sha256": None,
            "error_kind": "corrupt",
            "error": "no",
            "hint": "Open the document in the program that made it, save it anew and drop it again.",
        },
    ]
    output = str(keeper.folder / "outbox" / "x.manifest.jsonl")
    assert keeper.news == [("x", {"completed": 1, "failed": 1}, output)]
    assert list((keeper.folder / "spool").iterdir()) == []


def test_a_line_of_it_has_nothing_that_a_reader_of_lines_acts_on(keeper: Keeper) -> None:
    names = [f"x/a{char}b ü" for char in "\x7f\x85\x9b\u2028\u2029\u202e"]
    for name in names:
        keeper.done(name)
    keeper.later()
    keeper.look()
    written = (keeper.folder / "outbox" / "x.manifest.jsonl").read_text()
    assert all(char.isprintable() for char in written.replace("\n", ""))
    assert [line["source"] for line in keeper.lines() or []] == names


def test_it_is_written_once_and_replaced_when_the_batch_completes_again(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.later()
    keeper.look()
    written = (keeper.folder / "outbox" / "x.manifest.jsonl").stat().st_ino
    keeper.look()
    assert (keeper.folder / "outbox" / "x.manifest.jsonl").stat().st_ino == written
    keeper.done("x/b")
    keeper.look()
    assert len(keeper.lines() or []) == 1, "the old one stays until the new one is there"
    keeper.later()
    keeper.look()
    assert [line["source"] for line in keeper.lines() or []] == ["x/a", "x/b"]
    assert len(keeper.news) == 2


def test_what_comes_while_it_is_written_keeps_the_batch_open(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.later()

    def arrive(label: str) -> None:
        if label == "rename":
            keeper.breaks = lambda label: None
            keeper.done("x/b")

    keeper.breaks = arrive
    keeper.look()
    assert (keeper.batch().completed_at, keeper.news) == (None, [])
    keeper.later()
    keeper.look()
    assert [line["source"] for line in keeper.lines() or []] == ["x/a", "x/b"]
    assert len(keeper.news) == 1


@pytest.mark.parametrize("label", ["write", "rename", "sync"])
def test_a_death_between_the_manifest_and_its_record_makes_it_again(keeper: Keeper, label: str) -> None:
    class Dead(BaseException):
        pass

    def die(step: str) -> None:
        if step == label:
            raise Dead

    keeper.done("x/a")
    keeper.later()
    keeper.breaks = die
    with pytest.raises(Dead):
        keeper.look()
    keeper.breaks = lambda label: None
    keeper.keeper().look(lambda: False)
    assert len(keeper.lines() or []) == 1
    assert keeper.batch().completed_at is not None


def test_one_that_cannot_be_written_is_tried_later_and_holds_up_no_other(keeper: Keeper) -> None:
    keeper.done("bad/a")
    keeper.done("x/a")
    (keeper.folder / "outbox").mkdir()
    in_the_way = keeper.folder / "outbox" / "bad.manifest.jsonl"
    in_the_way.mkdir()
    keeper.later()
    keeper.look()
    keeper.look()
    keeper.look()
    assert [event for event, _ in keeper.log.events] == ["manifest not written", "batch complete"]
    assert len(keeper.lines() or []) == 1
    in_the_way.rmdir()
    keeper.later(module.AGAIN_SECONDS)
    keeper.look()
    assert len(keeper.lines("bad") or []) == 1


@pytest.mark.parametrize("first", ["fits", "cannot be written"])
def test_at_the_end_all_that_are_due_are_tried_once(keeper: Keeper, first: str) -> None:
    names = [f"batch{number}" for number in range(2 * module.AT_ONCE)]
    for name in names:
        keeper.done(f"{name}/a")
    in_the_way = keeper.folder / "outbox" / f"{names[0]}.manifest.jsonl"
    if first != "fits":
        in_the_way.mkdir(parents=True)
    keeper.later()
    keeper.manifests.finish(lambda: False, lambda: False)
    missing = [] if first == "fits" else [names[0]]
    assert [name for name in names if name not in missing and not keeper.lines(name)] == []
    assert [values["batch"] for event, values in keeper.log.events if event == "manifest not written"] == missing
    assert keeper.due() == missing


def test_a_stop_ends_the_end(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.done("y/a")
    keeper.later()
    keeper.manifests.finish(lambda: keeper.lines("x") is not None, lambda: False)
    assert keeper.due() == ["y"]


def test_so_do_surroundings_that_are_sick(keeper: Keeper) -> None:
    """Each of the others would wait for a server that does not answer."""
    names = ["x", "y", "z"]
    for name in names:
        keeper.done(f"{name}/a")
        (keeper.folder / "outbox" / f"{name}.manifest.jsonl").mkdir(parents=True)
    keeper.later()
    keeper.manifests.finish(lambda: False, lambda: True)
    assert [values["batch"] for event, values in keeper.log.events if event == "manifest not written"] == ["x"]
    assert keeper.due() == names


def test_a_spool_that_is_gone_is_no_end_of_the_daemon(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.later()
    (keeper.folder / "spool").rmdir()
    keeper.look()
    assert [event for event, _ in keeper.log.events] == ["manifest not written"]
    assert keeper.lines() is None


def test_a_stop_ends_it_and_the_next_start_takes_it_up(keeper: Keeper) -> None:
    keeper.done("x/a")
    keeper.later()
    keeper.manifests.look(lambda: True)
    assert keeper.lines() is None

    def stopped(label: str) -> None:
        raise Stopped("")

    keeper.breaks = stopped
    keeper.look()
    assert keeper.log.events == []
    keeper.breaks = lambda label: None
    keeper.look()
    assert len(keeper.lines() or []) == 1


def test_a_batch_of_documents_that_were_known_is_forgotten(keeper: Keeper) -> None:
    job = keeper.add("x/a")
    keeper.jobs.fold(job)
    keeper.later()
    keeper.look()
    assert keeper.lines() is None
    assert keeper.batches.due("inbox", 9) == []


def test_those_of_other_watches_are_left_alone(keeper: Keeper) -> None:
    keeper.jobs.register("second", "/in2", "/out2")
    keeper.done("x/a")
    keeper.later()
    keeper.keeper("second").look(lambda: False)
    assert keeper.lines() is None


@pytest.mark.parametrize(
    ("folder", "name"),
    [(b"..", "%2E%2E"), (b"\xff\n", "%FF%0A"), (b".convertd-tmp", "%2Econvertd-tmp"), (b"x.md", "x.md")],
)
def test_no_name_leads_out_of_the_sink(keeper: Keeper, folder: bytes, name: str) -> None:
    keeper.jobs.enqueue("inbox", [Candidate(folder + b"/a", "1", 1)], 5, batch_of)
    keeper.jobs.cancel([1])
    keeper.later()
    keeper.look()
    found = sorted(path.name for path in (keeper.folder / "outbox").iterdir())
    assert found == sorted([".convertd-tmp", f"{name}.manifest.jsonl"])
    assert len(keeper.lines(name) or []) == 1


def test_a_sick_job_table_is_somebody_elses_to_report(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    def sick(*arguments: Any) -> Any:
        raise EnvironmentProblem("no", "")

    monkeypatch.setattr(keeper.batches, "due", sick)
    keeper.look()
    assert keeper.log.events == []


def test_news_that_cannot_be_recorded_leave_the_batch_open(keeper: Keeper) -> None:
    def breaks(db: Connection, *arguments: Any) -> None:
        raise EnvironmentProblem("no", "")

    keeper.done("x/a")
    keeper.later()
    sink = FolderSink(str(keeper.folder / "outbox"))
    Manifests("inbox", sink, keeper.batches, str(keeper.folder / "spool"), keeper.log, breaks).look(lambda: False)
    assert keeper.batch().completed_at is None
