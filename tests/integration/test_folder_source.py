"""Discovery in a real folder: what is dropped in any way is queued once it is whole, and nothing else is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import EnvironmentProblem
from daemon.sources import changes
from daemon.sources.folder import FolderSource
from tests.harness import until
from tests.watching import Clock, Everything, Watched, pdf, watched


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


def source(inbox: Path, clock: Clock | None = None, **options: Any) -> FolderSource:
    clock = clock or Clock()
    return FolderSource(str(inbox), Everything(), clock=clock.time, monotonic=clock.monotonic, **options)


@pytest.fixture
def running(inbox: Path, clock: Clock) -> Iterator[Watched]:
    with watched(source(inbox, clock)) as state:
        yield state


# -- what is there at the start ------------------------------------------------------------------------------------


def test_what_is_there_at_the_start_is_queued(inbox: Path) -> None:
    (inbox / "a" / "b").mkdir(parents=True)
    for name in ("one.txt", "a/two.txt", "a/b/three.txt"):
        (inbox / name).write_bytes(b"x")
    with watched(source(inbox, Clock(5))) as state:
        state.drained()
        state.queued("one.txt", "a/two.txt", "a/b/three.txt")


def test_the_oldest_come_first(inbox: Path) -> None:
    for age, name in enumerate("badc"):
        (inbox / name).write_bytes(b"x")
        os.utime(inbox / name, (1000 - age, 1000 - age))
    with watched(source(inbox, Clock(5))) as state:
        state.drained()
        assert [found.source for found in state.ledger.jobs] == [b"c", b"d", b"a", b"b"]


def test_many_files_are_queued_in_batches(inbox: Path) -> None:
    for number in range(1500):
        (inbox / f"{number}.txt").touch()
    with watched(source(inbox, Clock(5))) as state:
        state.drained()
        assert len(state.ledger.jobs) == 1500


def test_a_missing_inbox_is_made_at_the_start(tmp_path: Path) -> None:
    with watched(source(tmp_path / "new")) as state:
        (tmp_path / "new" / "a.txt").write_bytes(b"x")
        state.queued("a.txt")


# -- how files arrive ----------------------------------------------------------------------------------------------


def test_a_rename_into_place(running: Watched, inbox: Path) -> None:
    (inbox / ".a.tmp").write_bytes(pdf())
    (inbox / ".a.tmp").rename(inbox / "a.pdf")
    running.queued("a.pdf")
    assert running.watcher.left == 0


def test_a_writer_in_another_process_is_waited_for(running: Watched, inbox: Path) -> None:
    """It has written all but the last chunk, and sleeps: longer than any time-out of ours but the lease's answer."""
    script = (
        "import sys\n"
        "file = open(sys.argv[1], 'wb')\n"
        "for line in sys.stdin:\n"
        "    file.write(b'%PDF-1.4\\n' + b'x' * 5000 + b'%%EOF\\n'); file.flush(); print('written', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(inbox / "a.pdf")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdin is not None and writer.stdout is not None
        for _ in range(3):
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "written\n"
            until(lambda: running.watcher.left == 1, "the file is known to be unfinished")
            assert running.ledger.jobs == []
        writer.stdin.close()
    running.queued("a.pdf")
    assert running.ledger.sizes(b"a.pdf") == [(inbox / "a.pdf").stat().st_size]
    running.drained()


def test_a_pdf_that_is_closed_and_reopened_is_queued_once(running: Watched, inbox: Path) -> None:
    content = pdf()
    (inbox / "a.pdf").write_bytes(content[:-500])
    until(lambda: running.watcher.left == 1, "the cut off file is seen")
    with (inbox / "a.pdf").open("ab") as file:
        file.write(content[-500:])
    running.queued("a.pdf")
    assert running.ledger.sizes(b"a.pdf") == [len(content)]


def test_a_pdf_that_stays_cut_off_is_taken_as_it_is(inbox: Path, clock: Clock, running: Watched) -> None:
    (inbox / "a.pdf").write_bytes(pdf()[:-500])
    until(lambda: running.watcher.left == 1, "the cut off file is seen")
    assert running.ledger.jobs == []
    clock.ahead_seconds += 31
    running.queued("a.pdf")
    running.drained()


def test_a_cut_off_file_that_is_removed_is_no_longer_waited_for(running: Watched, inbox: Path) -> None:
    (inbox / "a.pdf").write_bytes(pdf()[:-500])
    until(lambda: running.watcher.left == 1, "the cut off file is seen")
    (inbox / "a.pdf").unlink()
    running.drained()
    assert running.ledger.jobs == []


def test_a_thousand_new_folders_with_a_file_each(running: Watched, inbox: Path, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / "from" / str(number)).mkdir(parents=True)
        (tmp_path / "from" / str(number) / "a.txt").write_bytes(b"x")
    subprocess.run(["cp", "-r", str(tmp_path / "from"), str(inbox / "to")], check=True)
    running.queued(*(f"to/{number}/a.txt" for number in range(1000)))


def test_a_folder_that_is_moved_in(running: Watched, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "deep" / "a.txt").write_bytes(b"x")
    (tmp_path / "from" / ".hidden").mkdir()
    (tmp_path / "from" / ".hidden" / "b.txt").write_bytes(b"x")
    (tmp_path / "from").rename(inbox / "to")
    running.queued("to/deep/a.txt")
    (inbox / "to" / "deep" / "later.txt").write_bytes(b"x")
    running.queued("to/deep/a.txt", "to/deep/later.txt")


def test_an_editor_that_saves_by_rename(running: Watched, inbox: Path) -> None:
    (inbox / "a.txt").write_bytes(b"one")
    running.queued("a.txt")
    (inbox / ".a.swp").write_bytes(b"second")
    (inbox / ".a.swp").replace(inbox / "a.txt")
    until(lambda: running.ledger.sizes(b"a.txt") == [3, 6], "the second version is queued")


def test_a_change_in_place_is_a_new_version(running: Watched, inbox: Path) -> None:
    (inbox / "a.txt").write_bytes(b"one")
    running.queued("a.txt")
    with (inbox / "a.txt").open("ab") as file:
        file.write(b" more")
    until(lambda: running.ledger.sizes(b"a.txt") == [3, 8], "the second version is queued")


def test_strange_names_are_names(running: Watched, inbox: Path) -> None:
    names = [b"new\nline.txt", b"\xff\xfe.txt", b"x" * 251 + b".txt", "ünï.txt".encode(), b"caf\xe9/in.txt", b"..a.txt"]
    root = os.fsencode(inbox)
    os.mkdir(root + b"/caf\xe9")
    for name in names:
        with open(root + b"/" + name, "wb") as file:
            file.write(b"x")
    wanted = [name for name in names if not name.startswith(b".")]
    running.queued(*wanted)
    (inbox / "after.txt").write_bytes(b"x")
    running.queued("after.txt", *wanted)


def test_a_root_whose_name_is_not_utf8_is_polled(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(root)
    clock = Clock()
    with watched(FolderSource(os.fsdecode(root), Everything(), clock=clock.time, monotonic=clock.monotonic)) as state:
        assert "not UTF-8" in str(state.watcher.notes[-1])
        with open(root + b"/a.txt", "wb") as file:
            file.write(b"x")
        state.queued("a.txt")


# -- what is never taken -------------------------------------------------------------------------------------------


def test_only_regular_files_are_taken(running: Watched, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "s.txt").write_bytes(b"s")
    os.mkfifo(inbox / "fifo.txt")
    (inbox / "link.txt").symlink_to(tmp_path / "secret")
    (inbox / "links").symlink_to(tmp_path / "secrets")
    (inbox / "loop").symlink_to(inbox)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inbox / "socket.txt"))
        (inbox / ".hidden.txt").write_bytes(b"x")
        (inbox / "good.txt").write_bytes(b"x")
        running.queued("good.txt")
        running.drained()


def test_a_link_to_a_folder_is_not_watched_and_costs_only_speed(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (inbox / "link").symlink_to(tmp_path / "elsewhere")
    with watched(source(inbox)) as state:
        assert "symbolic link" in str(state.watcher.notes[-1])
        (tmp_path / "elsewhere" / "secret.txt").write_bytes(b"s")
        (inbox / "good.txt").write_bytes(b"x")
        state.queued("good.txt")


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_goes_on(inbox: Path) -> None:
    (inbox / "closed").mkdir()
    (inbox / "closed").chmod(0)
    if os.access(inbox / "closed", os.R_OK):
        pytest.skip("root reads everything")
    try:
        with watched(source(inbox)) as state:
            assert "closed cannot be read: Permission denied" in str(state.watcher.notes[-1])
            (inbox / "good.txt").write_bytes(b"x")
            state.queued("good.txt")
    finally:
        (inbox / "closed").chmod(0o700)


# -- when the watch fails ------------------------------------------------------------------------------------------


class Deaf(changes.Changes):
    """A watch that reports nothing."""

    def wait(self, seconds: float) -> set[bytes]:
        super().wait(seconds)
        return set()


class Dying(changes.Changes):
    """A watch that ends at the first news."""

    def wait(self, seconds: float) -> set[bytes]:
        if super().wait(seconds):
            raise changes.WatchLost("gone")
        return set()


class Overflowing(changes.Changes):
    """A watch that reports thousands of paths, but not those that matter."""

    def wait(self, seconds: float) -> set[bytes]:
        return {b"absent-%d" % number for number in range(5000)} if super().wait(seconds) else set()


@pytest.mark.parametrize(("broken", "rescan_seconds"), [(Deaf, 2), (Dying, 600), (Overflowing, 600)])
def test_a_watch_that_fails_loses_nothing(
    broken: type, rescan_seconds: int, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "sub").mkdir()
    (inbox / "first.txt").write_bytes(b"x")
    monkeypatch.setattr("daemon.sources.discovery.Changes", broken)
    with watched(source(inbox, rescan_interval_seconds=rescan_seconds)) as state:
        (inbox / "sub" / "a.txt").write_bytes(b"x")
        state.queued("first.txt", "sub/a.txt")
        (inbox / "first.txt").write_bytes(b"changed in place")
        until(lambda: state.ledger.sizes(b"first.txt") == [1, 16], "the full scan finds a change in place")


def test_without_inotify_the_folder_is_polled(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> object:
        raise OSError('OS file watch limit reached. about ["/inbox"]')

    monkeypatch.setattr(changes, "_arm", refuse)
    with watched(source(inbox, poll_interval_seconds=1)) as state:
        assert "max_user_watches" in str(state.watcher.notes[-1])
        (inbox / "a.txt").write_bytes(b"x")
        state.queued("a.txt")
        with (inbox / "a.txt").open("ab") as file:
            file.write(b"more")
        until(lambda: state.ledger.sizes(b"a.txt") == [1, 5], "the poll finds a change in place")


def test_a_network_file_system_is_polled_without_inotify(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(root: bytes) -> object:
        raise AssertionError("inotify sees nothing there")

    monkeypatch.setattr("daemon.sources.discovery.is_network_path", lambda path: True)
    monkeypatch.setattr("daemon.sources.discovery.Changes", never)
    clock = Clock()
    with watched(source(inbox, clock, poll_interval_seconds=0.2)) as state:
        (inbox / "a.txt").write_bytes(b"x")
        state.queued("a.txt")
        assert state.watcher.notes[-1] is None


# -- when the folder fails -----------------------------------------------------------------------------------------


def test_a_folder_that_goes_and_comes_back(running: Watched, inbox: Path, tmp_path: Path) -> None:
    inbox.rename(tmp_path / "away")
    until(lambda: running.watcher.illnesses, "the watch is sick")
    assert "No such file" in str(running.watcher.illnesses[0])
    assert running.watcher.recoveries == 0
    (tmp_path / "away" / "a.txt").write_bytes(b"x")
    (tmp_path / "away").rename(inbox)
    until(lambda: running.watcher.recoveries, "the watch is well")
    running.queued("a.txt")
    (inbox / "b.txt").write_bytes(b"x")
    running.queued("a.txt", "b.txt")
    assert len(os.listdir(tmp_path)) == 1, "no folder was made in its place"


def test_a_folder_that_is_replaced_is_watched_anew(running: Watched, inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    inbox.rename(tmp_path / "old")
    (tmp_path / "new").rename(inbox)
    (tmp_path / "old" / "lost.txt").write_bytes(b"x")
    (inbox / "a.txt").write_bytes(b"x")
    until(lambda: b"a.txt" in running.ledger.sources(), "the file in the new folder is queued")
    (inbox / "sub").mkdir()
    (inbox / "sub" / "b.txt").write_bytes(b"x")
    until(lambda: b"sub/b.txt" in running.ledger.sources(), "news of the new folder come in")
    assert b"lost.txt" not in running.ledger.sources()


def test_a_folder_in_the_inbox_can_go_at_any_time(running: Watched, inbox: Path) -> None:
    for _ in range(20):
        (inbox / "sub" / "deep").mkdir(parents=True)
        (inbox / "sub" / "deep" / "a.txt").write_bytes(b"x")
        shutil.rmtree(inbox / "sub")
    (inbox / "last.txt").write_bytes(b"x")
    until(lambda: b"last.txt" in running.ledger.sources(), "the last file is queued")
    running.drained()


# -- looking again -------------------------------------------------------------------------------------------------


def test_a_recheck_counts_as_left_until_it_is_done(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.discovery.Changes", Deaf)
    (inbox / "a.txt").write_bytes(b"one")
    subject = source(inbox)
    with watched(subject) as state:
        state.queued("a.txt")
        state.drained()
        with (inbox / "a.txt").open("ab") as file:
            file.write(b" two")
            subject.recheck(b"a.txt")
            assert state.watcher.left == 1
        until(lambda: state.ledger.sizes(b"a.txt") == [3, 7], "the new version is queued")
        state.drained()


def test_a_recheck_and_the_stop_end_the_quiet(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.discovery.Changes", Deaf)
    monkeypatch.setattr("daemon.sources.discovery.FOLDER_CHECK_SECONDS", 600)
    monkeypatch.setattr("daemon.sources.discovery.QUIET_WAITS", 10**6)
    subject = source(inbox)
    with watched(subject) as state:
        state.drained()
        (inbox / "a.txt").write_bytes(b"x")
        subject.recheck(b"a.txt")
        state.queued("a.txt")


# -- what is gone ---------------------------------------------------------------------------------------------------


def test_a_folder_that_is_missing_or_empty_does_not_vouch_for_what_is_gone(inbox: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="is empty, as one is whose disk is not mounted"):
        source(inbox).vouch()
    (inbox / ".hidden").touch()
    source(inbox).vouch()
    assert not source(inbox).exists(b"a.txt")
    inbox.rename(inbox.parent / "elsewhere")
    for look in (FolderSource.vouch, lambda missing: missing.exists(b"sub/a.txt")):
        with pytest.raises(EnvironmentProblem, match="No such file"):
            look(source(inbox))
    assert list(source(inbox).explain(b"a.txt")) == [
        f"not taken: the folder {inbox} cannot be used: No such file or directory"
    ]
    assert not inbox.exists()


def test_a_source_stops_within_a_second_in_the_middle_of_a_scan(inbox: Path) -> None:
    for number in range(2000):
        (inbox / f"{number}.txt").touch()
    with watched(source(inbox), first_scan=False) as state:
        until(lambda: state.watcher.beats, "the source has begun")
