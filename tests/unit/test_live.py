"""`convertd status --watch` without a daemon: what is shown, and when."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from daemon.cli import notes
from daemon.cli.common import Place
from daemon.cli.live import Lines
from daemon.cli.screen import Screen, picture
from daemon.cli.snapshot import Snapshot, Work, duration, take
from daemon.cli.status import command as status
from daemon.cli.why import command as why
from daemon.db import Readers, Writer
from daemon.errors import DocumentError, Kind
from daemon.jobs import JobTable
from daemon.model import Candidate
from daemon.statedir import StateDir
from daemon.switches import Switches

NONE = {"pending": 0, "processing": 0, "completed": 0, "failed": 0}


def snapshot(
    *, state: str = "running", error: str | None = None, rate: float = 0.0, work: tuple[Work, ...] = (), **jobs: int
) -> Snapshot:
    counts = {**NONE, **jobs}
    status = {
        "daemon": {"running": True, "pid": 7, "version": "1.2", "uptime_seconds": 65.0, "state": "running"},
        "jobs": counts,
        "watches": [{"name": "inbox", "state": state, "error": error, "jobs": counts}],
        "oldest_pending_seconds": None,
        "documents_per_second": rate,
    }
    return Snapshot(status, list(work), [])


def text(shown: Snapshot, done: int = 0) -> str:
    return "\n".join("".join(piece for piece, _ in line) for line in picture(shown, done))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (4800, "1 h 20 min"),
        (86400, "1 d"),
        (97200, "1 d 3 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_time_left_is_known_only_where_something_moves() -> None:
    assert snapshot(pending=10, processing=2, rate=4.0).seconds_left == 3.0
    assert snapshot(pending=10, rate=0.0).seconds_left is None
    assert snapshot(rate=4.0).seconds_left is None


def test_the_picture_shows_progress_watches_work_and_failures() -> None:
    shown = snapshot(pending=3, processing=1, completed=9, rate=2.0, work=(Work(5, "a.pdf", "convert", 61.0),))
    failure = {"id": 4, "source": "bad.pdf", "error_kind": "corrupt", "error": "no end\x1b[2J"}
    shown = shown._replace(failures=[failure])
    lines = text(shown, 4).splitlines()
    assert lines[0] == "convertd 1.2, pid 7, running, up 1 min"
    assert lines[1].count("━") == 40 and lines[1].endswith("4 of 8, 2.0/s, 2 s left")
    assert lines[4].split() == ["inbox", "running", "3", "1", "9", "0"]
    assert any(line.split() == ["1", "min", "convert", "a.pdf", "(job", "5)"] for line in lines)
    assert lines[-1] == "job 4  bad.pdf  corrupt: no end\\x1b[2J"


def test_a_daemon_that_is_gone_or_silent_is_shown() -> None:
    gone = snapshot()
    gone.status["daemon"] |= {"running": False, "pid": None, "version": None, "uptime_seconds": None}
    assert "not running" in text(gone)
    gone.status["daemon"] |= {"running": True, "pid": 7}
    assert "does not answer" in text(gone)


def test_nothing_is_taken_for_markup_and_nothing_is_drawn_twice() -> None:
    output = io.StringIO()
    shown = snapshot(processing=1, work=(Work(5, "[bold]x[/bold] [link=y].pdf", "convert", 1.0),))
    with Screen(Console(file=output, force_terminal=True, width=100, height=40)) as screen:
        screen.show(shown)
        drawn = output.tell()
        screen.show(snapshot(processing=1, work=(Work(5, "[bold]x[/bold] [link=y].pdf", "convert", 1.2),)))
        assert output.tell() == drawn
        screen.show(snapshot(completed=1))
        assert output.tell() > drawn
    assert "[bold]x[/bold] [link=y].pdf (job 5)" in output.getvalue()
    assert "1 of 1" in output.getvalue()


def test_lines_tell_what_is_news(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for shown in (
        snapshot(pending=2, rate=1.0),
        snapshot(pending=2, rate=2.0),
        snapshot(pending=1, completed=1, rate=2.0),
        snapshot(pending=1, completed=1, state="paused", error="by `convertd pause`"),
    ):
        lines.show(shown)
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "running  pending 2  processing 0  completed 0  failed 0  1.0/s, 2 s left",
        "watch inbox is running",
        "running  pending 1  processing 0  completed 1  failed 0  2.0/s, 0 s left",
        "watch inbox is paused: by `convertd pause`",
    ]


def notified(error: str | None = None, *, dropped: int = 0, oldest: float = 90.0) -> Snapshot:
    shown = snapshot()
    target = {"address": "https://a.example", "error": error, "failures": 3 if error else 0, "again_in_seconds": oldest}
    shown.status["notify"] = {
        "webhook": {**target, "waiting": 2 if error else 0, "oldest_seconds": oldest, "dropped": dropped}
    }
    return shown


def test_the_picture_tells_of_events_that_are_not_delivered() -> None:
    assert "notify" not in text(notified())
    expected = (
        "! notify webhook https://a.example: answered 500\\x1b[2J; 2 events wait, the first for 90 s;"
        " tried again in 90 s; 256 events were dropped, as too many waited"
    )
    assert expected in text(notified("answered 500\x1b[2J", dropped=256)).splitlines()


def test_lines_tell_of_events_that_are_not_delivered_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines, down, untried = Lines(), notified(), notified()
    down.status["notify"]["webhook"] |= notes.UNKNOWN
    untried.status["notify"]["webhook"]["waiting"] = 2
    for shown in (
        notified(),
        notified("answered 500"),
        down,
        untried,
        notified("answered 500", oldest=91.0),
        notified("answered 500", dropped=256),
        notified(dropped=256),
        notified(),
        notified(),
    ):
        lines.show(shown)
    said = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines() if "notify" in line]
    assert said == [
        "notify webhook: answered 500",
        "notify webhook: answered 500; 256 events were dropped, as too many waited",
        "notify webhook: 256 events were dropped, as too many waited",
        "notify webhook: events are delivered again",
    ]


# -- from a job table ------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Iterator[tuple[JobTable, Switches, StateDir]]:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    with closing(Writer(state.database)) as writer:
        writer.start()
        jobs = JobTable(writer, Readers(state.database))
        for name in ("inbox", "other"):
            (tmp_path / name).mkdir()
            jobs.register(name, str(tmp_path / name), str(tmp_path / "out" / name))
        yield jobs, Switches(writer, Readers(state.database)), state


def test_what_is_at_work_is_told_by_converters_and_job_table(
    table: tuple[JobTable, Switches, StateDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, _, state = table
    new, _ = jobs.enqueue("inbox", [Candidate(b"%d.pdf" % number, "1", 1) for number in range(4)], 5)
    for job in new[:3]:
        jobs.start(job)
    jobs.fail(new[2], DocumentError(Kind.CORRUPT, "no end"), attempts=1, dispose=False)
    child = {"pid": 1, "state": "busy", "documents": 1, "job": new[0].id, "name": "0.pdf", "busy_seconds": 1.5}
    live: dict[str, Any] = {
        "pid": 1,
        "version": "1",
        "uptime_seconds": 1.0,
        "state": "running",
        "documents_per_second": 0.5,
        "watches": {"inbox": {"state": "running", "error": None}},
        "converters": {"children": [child]},
    }
    monkeypatch.setattr(Place, "live", lambda _: live)
    place = Place(None, state)
    with place.table() as db:
        taken = take(place, db)
        assert [(work.source, work.stage) for work in taken.work] == [("0.pdf", "convert"), ("1.pdf", "fetch/wait")]
        assert taken.work[0].seconds == 1.5
        assert [failure["source"] for failure in taken.failures] == ["2.pdf"]
        assert [watch["name"] for watch in taken.status["watches"]] == ["inbox"], "those that the daemon serves"
        assert (taken.open_jobs, taken.ended_jobs) == (3, 1)
        monkeypatch.setattr(Place, "live", lambda _: None)
        assert take(place, db).work == []


@pytest.mark.parametrize("everything", [True, False])
def test_a_pause_is_told_with_the_daemon_down(
    table: tuple[JobTable, Switches, StateDir], tmp_path: Path, everything: bool
) -> None:
    _, switches, state = table
    switches.pause(None if everything else "inbox")
    printed = CliRunner().invoke(status, ["--state-dir", state.path]).stdout
    assert printed.count(": paused ") == (2 if everything else 1)
    assert ("! by `convertd pause` (go on: convertd resume)" in printed) == everything
    assert ("! by `convertd pause inbox` (go on: convertd resume inbox)" in printed) != everything
    (tmp_path / "inbox" / "a.pdf").touch()
    told = CliRunner().invoke(why, [str(tmp_path / "inbox" / "a.pdf"), "--state-dir", state.path]).stdout
    assert ("all watches are paused" in told) == everything
    assert ("watch inbox is paused: by `convertd pause inbox`" in told) != everything
    switches.resume(None)
    assert "paused" not in CliRunner().invoke(status, ["--state-dir", state.path]).stdout


def test_a_job_table_of_before_there_were_pauses(tmp_path: Path) -> None:
    from daemon import switches
    from daemon.db import reader
    from daemon.schema import MIGRATIONS

    path = os.path.join(tmp_path, "old.db")
    with closing(Writer(path)) as writer:
        writer.start()
        writer.call(lambda db: db.execute("DROP TABLE dispatch"))
    assert len(MIGRATIONS) > 1
    with reader(path) as db:
        assert switches.read(db.execute) == (False, frozenset())
