"""Sick surroundings pause the watch, blame no document, use up no attempt; once mended, it goes on by itself."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from daemon import app, logs
from daemon import config as configuration
from daemon.cli.common import Place
from daemon.errors import EnvironmentProblem
from daemon.statedir import StateDir
from tests import documents, earlier
from tests.fault.outcome import integrity, torn
from tests.fixtures.make import kept
from tests.harness import DEADLINE_SECONDS, ROOT, Daemon, until

CONFIG = """
state_dir = "state"
workers = 2
[retry]
attempts = 3
backoff = ["50ms"]
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""

UPGRADED = 'raise ImportError("libmissing.so.1: cannot open shared object file")'
MENDED = """
from daemon.converters.base import Converted

class Engine:
    name = "mended"

    def version(self):
        return "2"

    def convert(self, document, options):
        return Converted(document.content.decode())
"""

Start = Callable[..., Daemon]


@pytest.fixture
def bound() -> tuple[str, ...]:
    """A prefix of commands by which permissions bind even root."""
    if os.geteuid() != 0:
        return ()
    less = "-dac_override,-dac_read_search"
    prefix = ("setpriv", f"--bounding-set={less}", f"--inh-caps={less}")
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        pytest.skip("permissions do not bind root, and setpriv cannot change that here")
    return prefix


@pytest.fixture
def start(tmp_path: Path, bound: tuple[str, ...]) -> Iterator[Start]:
    """Starts a daemon that permissions bind."""
    daemons: list[Daemon] = []

    def begin(config: str = CONFIG) -> Daemon:
        daemons.append(Daemon(tmp_path, config, prefix=bound))
        return daemons[-1].start()

    yield begin
    for daemon in daemons:
        daemon.inbox.chmod(0o755)
        daemon.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mounts a file system of a given size."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            pytest.skip(f"a file system cannot be mounted here: {result.stderr.strip()}")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_full_sink(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    filler = fill(small_disk("outbox", "1m"))
    try:
        daemon.start()
        names = drop(daemon, 12)
        assert str(daemon.outbox) in paused(daemon)
        nothing_blamed(daemon)
        filler.unlink()
        goes_on(daemon, names)
    finally:
        daemon.close()


def test_sink_with_room_for_a_canary_but_not_for_the_result(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    outbox = small_disk("outbox", "2m")
    filler = fill(outbox, leave_bytes=256 << 10)
    try:
        daemon.start()
        daemon.drop("long.txt", b"long " * (100 << 10))
        paused(daemon)
        nothing_blamed(daemon)
        filler.unlink()
        goes_on(daemon, ["long.txt"])
    finally:
        daemon.close()


def test_full_state_dir(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    state = small_disk("state", "8m")
    try:
        daemon.start()
        before = drop(daemon, 3, "before")
        for name in before:
            assert daemon.outcome(name) == "converted"
        filler = fill(state)
        names = drop(daemon, 60)
        assert "full" in paused(daemon) or "No space" in paused(daemon)
        filler.unlink()
        goes_on(daemon, [*before, *names])
        assert daemon.stop() == 0
        assert integrity(daemon) == "ok"
    finally:
        daemon.close()


def test_state_dir_with_room_for_jobs_but_not_for_a_large_result(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    filler = fill(small_disk("state", "32m"), leave_bytes=6 << 20)
    try:
        daemon.start()
        line = b"the river rises in the hills and falls into the sea\n"
        for number in range(8):
            daemon.drop(f"large{number}.txt", line * (8 * 2**20 // len(line)))
        assert "spool" in paused(daemon)
        nothing_blamed(daemon)
        filler.unlink()
        goes_on(daemon, [f"large{number}.txt" for number in range(8)])
    finally:
        daemon.close()


def test_a_start_on_a_full_state_dir_says_that_it_has_to_be_started_again(tmp_path: Path) -> None:
    def full(label: str) -> None:
        raise apsw.FullError("database or disk is full")

    config = configuration.for_folders(*(str(tmp_path / name) for name in ("inbox", "outbox", "state")), checks=[])
    with (
        pytest.raises(EnvironmentProblem, match="job table") as raised,
        app.running(config, logs.build("error", "json"), once=False, fault=full),
    ):
        pass
    assert "start it again" in raised.value.hint
    assert "by itself" not in raised.value.hint


def test_a_first_start_on_a_full_state_dir_is_no_traceback(
    tmp_path: Path, small_disk: Callable[[str, str], Path]
) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    try:
        fill(small_disk("state", "1m"))
        assert daemon.launch().wait(DEADLINE_SECONDS) == 1
        said = daemon.log.read_text()
        assert "start it again" in said and "Traceback" not in said
    finally:
        daemon.close()


def test_no_room_for_the_backup_of_an_older_table(tmp_path: Path, small_disk: Callable[[str, str], Path]) -> None:
    """It is said, nothing is changed, and with room for it all goes well."""
    state = small_disk("state", "2m")
    earlier.unpack(kept(earlier.LAYOUTS[1]), tmp_path)
    daemon = Daemon(tmp_path, CONFIG)
    table = daemon.state / "convertd.db"
    before = earlier.rows(table, "SELECT * FROM jobs"), earlier.rows(table, "SELECT * FROM documents")
    filler = fill(state, leave_bytes=64 << 10)
    try:
        assert daemon.once() == 1
        assert "cannot be brought up to date" in (said := daemon.log.read_text())
        assert "room for a copy" in said and "Free space" in said
        assert earlier.rows(table, "PRAGMA user_version") == [(1,)]
        assert (earlier.rows(table, "SELECT * FROM jobs"), earlier.rows(table, "SELECT * FROM documents")) == before
        assert not [name for name in os.listdir(state) if "bak" in name]
        filler.unlink()
        assert daemon.once() == 0
        assert integrity(daemon) == "ok"
        assert [name for name in os.listdir(state) if "bak" in name] == ["convertd.db.v1.bak"]
    finally:
        daemon.close()


def test_sink_taken_away_and_put_back(start: Start, tmp_path: Path) -> None:
    daemon = start()
    first = drop(daemon, 2, "first")
    goes_on(daemon, first)
    daemon.outbox.rename(tmp_path / "elsewhere")
    names = drop(daemon, 8)
    assert str(daemon.outbox) in paused(daemon)
    nothing_blamed(daemon)
    assert not daemon.outbox.exists(), "an empty sink was made in the place of the one that was taken away"
    (tmp_path / "elsewhere").rename(daemon.outbox)
    goes_on(daemon, [*first, *names])


def test_source_taken_away_and_put_back(start: Start, tmp_path: Path) -> None:
    daemon = start()
    names = drop(daemon, 8)
    goes_on(daemon, names)
    daemon.inbox.rename(tmp_path / "elsewhere")
    assert str(daemon.inbox) in paused(daemon)
    assert not daemon.inbox.exists(), "an empty source was made in the place of the one that was taken away"
    (tmp_path / "elsewhere" / "later.txt").write_bytes(b"the river later")
    (tmp_path / "elsewhere").rename(daemon.inbox)
    goes_on(daemon, [*names, "later.txt"])
    assert len(daemon.jobs()) == len(names) + 1, "documents were converted again"


def test_source_taken_away_with_work_in_the_queue(start: Start, tmp_path: Path) -> None:
    daemon = start(CONFIG + '[engines]\ntext = ["tests.engines_for_tests:Slow"]\n')
    names = [f"slow{number}.txt" for number in range(12)]
    for name in names:
        daemon.drop(name, b"the river takes 0.2")
    until(lambda: daemon.status()["jobs"]["processing"], "conversions have begun")
    daemon.inbox.rename(tmp_path / "elsewhere")
    paused(daemon)
    nothing_blamed(daemon)
    (tmp_path / "elsewhere").rename(daemon.inbox)
    goes_on(daemon, names)


def test_converters_that_cannot_be_started(tmp_path: Path) -> None:
    engine = tmp_path / "engines" / "upgraded.py"
    engine.parent.mkdir()
    engine.write_text(UPGRADED)
    env = {"PYTHONPATH": f"{ROOT}{os.pathsep}{engine.parent}"}
    daemon = Daemon(tmp_path, CONFIG + '[engines]\ntext = ["upgraded:Engine"]\n', env=env)

    def restarts() -> int:
        live = Place(None, StateDir(str(daemon.state))).live()
        assert live is not None
        return int(live["converters"]["restarts"])

    try:
        daemon.start()
        names = drop(daemon, 4)
        assert "libmissing.so.1" in paused(daemon)
        tried = restarts()
        until(lambda: restarts() >= tried + 6, "it has been tried again, and again")
        nothing_blamed(daemon)
        said = daemon.log.read_text()
        assert "watch resumed" not in said
        assert said.count("converter did not start") < restarts()
        engine.write_text(MENDED)
        goes_on(daemon, names)
        assert daemon.log.read_text().count("watch paused") == 1
    finally:
        daemon.close()


@pytest.mark.parametrize("which", ["inbox", "outbox"])
def test_permission_taken_away_and_given_back(start: Start, which: str) -> None:
    daemon = start()
    first = drop(daemon, 1, "first")
    goes_on(daemon, first)
    sick = getattr(daemon, which)
    sick.chmod(0o300 if which == "inbox" else 0o500)
    names = drop(daemon, 5)  # a folder need not be readable to put something there
    assert str(sick) in paused(daemon)
    nothing_blamed(daemon)
    sick.chmod(0o755)
    goes_on(daemon, [*first, *names])


def test_one_unreadable_document_fails_and_the_others_go_on(start: Start) -> None:
    daemon = start()
    bad = daemon.inbox / "secret.txt"
    bad.touch(mode=0o000)
    names = drop(daemon, 5)
    assert daemon.outcome("secret.txt") == "unreadable"
    error = json.loads(daemon.error("secret.txt").read_bytes())
    assert error["attempts"] == 3
    assert error["hint"]
    for name in names:
        assert daemon.outcome(name) == "converted"
    assert daemon.status()["watches"][0]["state"] == "running"


def drop(daemon: Daemon, count: int, prefix: str = "document") -> list[str]:
    names = []
    for number in range(count):
        text = f"the river {prefix} {number}"
        suffix, content = ("txt", text.encode()) if number % 2 else ("html", documents.html(text))
        names.append(daemon.drop(f"{prefix}{number}.{suffix}", content).name)
    return names


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """A file that takes all the room there is, or all but so much."""
    filler = disk / ".filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(file.tell() - leave_bytes)
    return filler


def paused(daemon: Daemon) -> str:
    """Wait until the watch is paused; what `status` says why."""

    def reason() -> str | None:
        watch = daemon.status()["watches"][0]
        return str(watch["error"]) if watch["state"] == "paused" else None

    return str(until(reason, "the watch is paused"))


def nothing_blamed(daemon: Daemon) -> None:
    """No document has failed, gone or lost an attempt."""
    for job in daemon.jobs():
        assert job["state"] in ("pending", "processing", "completed"), job
        assert job["state"] == "completed" or job["attempts"] == 0, job
    assert not list(daemon.outbox.rglob("*.error.json"))


def goes_on(daemon: Daemon, names: list[str]) -> None:
    """Without anybody's help everything is converted, by the same process and each at its first attempt."""
    for name in names:
        assert daemon.outcome(name) == "converted"
        assert torn(daemon.markdown(name)) is None
    until(lambda: daemon.status()["jobs"]["completed"] == len(daemon.jobs()), "all jobs are completed")
    assert {job["attempts"] for job in daemon.jobs()} == {1}
    until(lambda: daemon.status()["watches"][0]["state"] == "running", "the watch is running again")
    assert daemon.process is not None
    assert daemon.process.poll() is None


@pytest.mark.parametrize("freed", [True, False])
def test_an_error_file_whose_place_is_taken_is_tried_again_for_a_while(start: Start, freed: bool) -> None:
    """Nobody would learn why the document failed; but it must come to an end."""
    patient = CONFIG.replace("50ms", "300ms") if freed else CONFIG
    daemon = start(patient)
    in_the_way = daemon.error("bad.pdf") / "folder"
    in_the_way.mkdir(parents=True)
    daemon.drop("bad.pdf", b"%PDF-1.4 and no more than that\n%%EOF\n")
    until(lambda: daemon.rows("SELECT 1 FROM jobs WHERE attempts > 0"), "its place is taken")
    if freed:
        shutil.rmtree(daemon.error("bad.pdf"))
        assert daemon.outcome("bad.pdf") == "corrupt"
    until(lambda: [job["state"] for job in daemon.jobs()] == ["failed"], "it has failed")
    assert daemon.rows("SELECT error_kind FROM jobs WHERE source = ?", b"bad.pdf") == [("corrupt",)]
    assert ("error file not written" in daemon.log.read_text()) is not freed
    assert daemon.outcome(drop(daemon, 1)[0]) == "converted"
