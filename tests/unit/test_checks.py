"""The checks of `doctor` that need no server and no converter, with real folders and file systems."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemon import __version__, install
from daemon import config as configuration
from daemon.checks import canary, folders, inotify, machine, reporting, running, state, subject, tree, unit, watches
from daemon.checks.base import Check, Finding, Group, Level, Stopping, ok, warning
from daemon.checks.remedies import remedy_for, user
from daemon.cli import doctor
from daemon.db import open_for_writing
from daemon.errors import EnvironmentProblem, UsageError
from daemon.monitor import MonitorServer
from daemon.settings import Limits, Notify, Watch
from daemon.sinks.folder import CANARY_PREFIX
from daemon.statedir import StateDir
from daemon.words import Disposal

LIMITS = Limits(1 << 20, 1 << 20, 1 << 20, 60.0, 1 << 30)
CONFIG = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'
BOUND = os.geteuid() != 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with the given options."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        path = tmp_path / f"disk{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
        if BOUND or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """For this thread and those it starts, permissions bind, whoever runs the tests."""
    if not BOUND:
        os.seteuid(65534)
    try:
        yield
    finally:
        if not BOUND:
            os.seteuid(0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that `unprivileged` can reach and write to: those of pytest are the user's alone."""
    with tempfile.TemporaryDirectory(prefix="convertd-test-") as folder:
        if not BOUND:
            os.chown(folder, 65534, -1)
        yield Path(folder)


@contextmanager
def modes_of(modes: dict[Path, int]) -> Iterator[None]:
    """These permissions for a while: what is closed cannot be removed."""
    for path, mode in reversed(modes.items()):
        path.chmod(mode)
    try:
        yield
    finally:
        for path in modes:
            path.chmod(0o755)


def by_level(found: list[Finding]) -> dict[Level, list[Finding]]:
    return {level: [finding for finding in found if finding.level is level] for level in Level}


def only_problem(found: list[Finding]) -> Finding:
    problems = by_level(found)[Level.PROBLEM]
    assert len(problems) == 1, found
    assert problems[0].remedy
    return problems[0]


# -- canaries ----------------------------------------------------------------------------------------------------------


def test_a_canary_leaves_nothing_and_tells_what_works(tmp_path: Path) -> None:
    abilities = canary.try_out(os.fsencode(tmp_path))
    assert abilities.locks and abs(abilities.skew_seconds) < 1 and not abilities.folds
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "flock", "rename", "unlink"])
def test_a_canary_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    real = os.unlink
    if step == "flock":
        monkeypatch.setattr("fcntl.flock", fail)
    elif step == "unlink":
        calls = iter([fail])

        def unlink(name: bytes, *, dir_fd: int) -> None:
            next(calls, real)(name, dir_fd=dir_fd)

        monkeypatch.setattr(os, "unlink", unlink)
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(KeyboardInterrupt):
        canary.try_out(os.fsencode(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_a_kill_has_left_is_taken_away_later(tmp_path: Path) -> None:
    old, young = tmp_path / (os.fsdecode(CANARY_PREFIX) + "old"), tmp_path / (os.fsdecode(CANARY_PREFIX) + "young")
    for path in (old, young):
        path.touch()
    os.utime(old, (1, 1))
    canary.try_out(os.fsencode(tmp_path))
    assert os.listdir(tmp_path) == [young.name]


def test_a_canary_that_a_starting_daemon_swept_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.rename, []

    def rename(source: bytes, target: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append(source)
        if len(calls) == 1:
            os.unlink(source, dir_fd=src_dir_fd)
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", rename)
    canary.try_out(os.fsencode(tmp_path))
    assert len(calls) == 2 and os.listdir(tmp_path) == []


# -- folders -----------------------------------------------------------------------------------------------------------


def folder(path: Path, *, daemon_runs: bool = False) -> folders.Folder:
    return folders.Folder("sink", str(path), daemon_runs=daemon_runs)


def test_a_folder_that_may_not_be_written(open_place: Path, unprivileged: None) -> None:
    with modes_of({open_place: 0o555}):
        found = only_problem(list(folder(open_place).written("results")))
    assert "Permission denied" in found.what and f"chown {user()}" in found.remedy


def test_a_read_only_disk(small_disk: Callable[[str], Path]) -> None:
    found = only_problem(list(folder(small_disk("size=1m,ro")).written("results")))
    assert "Read-only file system" in found.what and "remount,rw" in found.remedy


def test_a_full_disk(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=32k")
    found = only_problem(list(folder(disk).written("results")))
    assert "No space left on device" in found.what and "df -h" in found.remedy
    assert os.listdir(disk) == []


def test_a_disk_with_little_room(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m,nr_inodes=50")
    found = list(folder(disk).room(1 << 30, "a result"))
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.PROBLEM]
    assert "1GiB" in found[0].what and "inodes" in found[1].what
    assert list(folder(small_disk("size=64m")).room(1 << 20, "a result")) == []


def test_a_folder_that_is_to_be_made_is_tried_out_beside(tmp_path: Path) -> None:
    (found,) = folder(tmp_path / "outbox").missing()
    assert found.level is Level.OK and os.listdir(tmp_path) == []


def test_a_folder_that_is_made_with_its_parents(tmp_path: Path) -> None:
    (found,) = folders.Folder("state_dir", str(tmp_path / "a" / "b"), daemon_runs=False, with_parents=True).missing()
    assert found.level is Level.OK and os.listdir(tmp_path) == []


def test_a_spool_is_needed_for_buckets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(folders.Folder, "room", lambda self, *_: looked_at.append(self.name) or iter(()))  # type: ignore[func-returns-value]
    config = configuration.defaults()
    for source in ("/inbox", "s3://bucket/in/"):
        watches = (Watch(name="a", source=source, sink="/outbox"),)
        list(state.group(StateDir(str(tmp_path)), config._replace(watches=watches), None).check(Stopping()))
    assert [name.partition(" ")[0] for name in looked_at] == ["state_dir", "state_dir", "spool"]


def test_a_folder_that_a_daemon_has_lost_is_not_made(tmp_path: Path) -> None:
    found = only_problem(list(folder(tmp_path / "outbox", daemon_runs=True).missing()))
    assert "is gone" in found.what and os.listdir(tmp_path) == []


def test_a_folder_without_a_parent_and_a_file_in_its_place(tmp_path: Path) -> None:
    assert "mkdir -p" in only_problem(list(folder(tmp_path / "a" / "b").missing())).remedy
    (tmp_path / "file").touch()
    assert "is no folder" in only_problem(list(folder(tmp_path / "file").missing())).what


@pytest.mark.parametrize(
    ("path", "error", "remedy"), [("x" * 300, "too long", "255 bytes"), ("file/a/b", "Not a directory", "namei -l")]
)
@pytest.mark.parametrize("with_parents", [True, False])
def test_a_folder_that_can_never_be_made(
    tmp_path: Path, path: str, error: str, remedy: str, with_parents: bool
) -> None:
    (tmp_path / "file").touch()
    place = folders.Folder("sink", str(tmp_path / path), daemon_runs=False, with_parents=with_parents)
    found = only_problem(list(place.missing()))
    assert error in found.what and remedy in found.remedy
    assert os.listdir(tmp_path) == ["file"]


def test_a_server_s_clock_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "try_out", lambda _: canary.Abilities(True, True, -120.0))
    found = list(folder(tmp_path).written("results"))
    assert found[1].level is Level.WARNING and "-120 s" in found[1].what


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.EACCES, "chown"), (errno.EROFS, "remount"), (errno.ENOSPC, "df"), (errno.ENOENT, "mkdir"),
     (errno.ESTALE, "umount"), (errno.EIO, "dmesg")],
)  # fmt: skip
def test_every_error_of_the_system_has_a_remedy(number: int, word: str) -> None:
    assert word in remedy_for(OSError(number, os.strerror(number)), "/some where")
    assert "'/some where'" in remedy_for(OSError(number, os.strerror(number)), "/some where")


# -- sources -----------------------------------------------------------------------------------------------------------


def look(path: Path) -> tree.Tree:
    return tree.look_through(str(path), lambda: False)


def test_a_tree_is_counted_and_what_is_in_the_way_is_found(tmp_path: Path) -> None:
    (tmp_path / "a" / ".b").mkdir(parents=True)
    (tmp_path / "a" / "x.pdf").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path)
    found = look(tmp_path)
    assert (found.folders, found.whole, found.asked) == (3, True, True)
    assert found.link == str(tmp_path / "a" / "link")
    assert not found.closed_folder and not found.closed_file and not found.fixed_folder


def test_what_is_in_the_way_in_a_hidden_folder_is_in_nobody_s(open_place: Path, unprivileged: None) -> None:
    """None is ever entered: a bin of somebody else, a snapshot that is read-only."""
    made = [open_place / "a" / ".Trash-1000", open_place / ".snap", open_place / ".snap" / "b"]
    for path in made:
        path.mkdir(parents=True)
        (path / "x.pdf").touch(0)
    modes = dict(zip(made, (0, 0o555, 0o555), strict=True))
    with modes_of(modes):
        found = look(open_place)
    assert (found.folders, found.whole, found.asked) == (5, True, None)
    assert not found.closed_folder and not found.closed_file and not found.fixed_folder
    with modes_of({open_place / "a": 0o555}):
        assert look(open_place).fixed_folder == str(open_place / "a")


def test_a_folder_that_vanishes_before_it_is_entered_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    def vanishes() -> bool:
        if (tmp_path / "a").exists():
            (tmp_path / "a").rmdir()
        return False

    steps = iter([False])  # before the root is entered
    found = tree.look_through(str(tmp_path), lambda: next(steps, None) is None and vanishes())
    assert (found.folders, found.whole) == (1, True)
    assert not found.closed_folder and not found.fixed_folder


def test_a_tree_is_looked_through_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(tree, "MOST_ENTRIES", 5)
    assert not look(tmp_path).whole
    assert not tree.look_through(str(tmp_path), lambda: True).whole


def watch(path: Path, **more: Any) -> Watch:
    return Watch(**{"name": "inbox", "source": str(path / "inbox"), "sink": str(path / "outbox"), **more})


def check(watch: Watch, condition: dict[str, str | None] | None = None) -> list[Finding]:
    group = watches.group(watch, LIMITS, inotify.Tally(), condition)
    return list(group.check(Stopping()))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    for name in ("inbox", "outbox", "done"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_a_watch_that_is_well(places: Path) -> None:
    assert {finding.level for finding in check(watch(places))} == {Level.OK}


def test_a_source_is_written_to_only_if_documents_are_taken_away(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[bytes] = []
    monkeypatch.setattr(
        folders,
        "try_out",
        lambda path: tried.append(path) or canary.Abilities(True, True, 0.0),  # type: ignore[func-returns-value]
    )
    check(watch(places))
    assert tried == [os.fsencode(places / "outbox")]
    check(watch(places, on_success=Disposal("move", str(places / "done"))))
    assert {os.fsdecode(path).rpartition("/")[2] for path in tried} == {"outbox", "inbox", "done"}


@pytest.mark.parametrize(
    ("formats", "word", "remedy"),
    [(("md", "json"), "documents fails", "convertd plan --name inbox"), (("md",), "replaces", '["md", "json"]')],
)
def test_a_sink_that_folds_names(
    places: Path, monkeypatch: pytest.MonkeyPatch, formats: tuple[str, ...], word: str, remedy: str
) -> None:
    monkeypatch.setattr(folders, "try_out", lambda _: canary.Abilities(True, True, 0.0, folds=True))
    (found,) = by_level(check(watch(places, formats=formats, on_success=Disposal("move", str(places / "done")))))[
        Level.WARNING
    ]
    assert found.what.startswith(f"sink {places}/outbox takes names") and word in found.what and remedy in found.remedy


def test_a_closed_folder_keeps_nobody_from_the_others(open_place: Path, unprivileged: None) -> None:
    """As `lost+found`, which every file system of its own has."""
    (open_place / "outbox").mkdir()
    closed = open_place / "inbox" / "lost+found"
    closed.mkdir(parents=True)
    with modes_of({closed: 0}):
        found = by_level(check(watch(open_place)))
    assert not found[Level.PROBLEM]
    (told,) = found[Level.WARNING]
    assert told.what == f"{closed} cannot be read: documents in it are not seen"
    assert f"setfacl -R -m u:{user_of(closed)}:rX {closed}, or live with it" in told.remedy


@pytest.mark.parametrize(
    ("keys", "remedy"),
    [
        (("on_success",), ', or on_success = "keep"'),
        (("on_failure",), ', or on_failure = "keep"'),
        (("on_success", "on_failure"), ', or on_success = "keep" and on_failure = "keep"'),
    ],
)
def test_a_folder_that_documents_cannot_be_taken_from(
    open_place: Path, unprivileged: None, keys: tuple[str, ...], remedy: str
) -> None:
    fixed = open_place / "inbox" / "fixed"
    fixed.mkdir(parents=True)
    (open_place / "outbox").mkdir()
    (open_place / "done").mkdir()
    disposal = Disposal("move", str(open_place / "done"))
    with modes_of({fixed: 0o555}):
        found = only_problem(check(watch(open_place, **dict.fromkeys(keys, disposal))))
    assert found.what.startswith(f"{fixed} cannot be written") and found.remedy.endswith(remedy)


def test_a_source_that_is_read_only_is_told_once(open_place: Path, unprivileged: None) -> None:
    for name in ("inbox", "outbox"):
        (open_place / name).mkdir()
    with modes_of({open_place / "inbox": 0o555}):
        found = only_problem(check(watch(open_place, on_success=Disposal("delete"))))
    assert found.what.startswith("source ")


def user_of(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return str(path.stat().st_uid)


def test_links_to_folders_are_told(places: Path) -> None:
    (places / "inbox" / "link").symlink_to("/")
    (found,) = by_level(check(watch(places)))[Level.WARNING]
    assert "noticed late" in found.what and "rm " in found.remedy


def test_a_network_file_system_is_polled(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "filesystem_type", lambda _: "nfs4")
    found = check(watch(places, poll_interval_seconds=10.0))
    assert any("lies on nfs4: listed every 10s" in finding.what for finding in found)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [("by `convertd pause inbox` (go on: …)", "convertd resume inbox"), ("the disk is full", "Mend what it names")],
)
def test_what_the_daemon_says_of_the_watch(places: Path, error: str, remedy: str) -> None:
    (found,) = by_level(check(watch(places), {"state": "paused", "error": error}))[Level.WARNING]
    assert error in found.what and remedy in found.remedy


@pytest.mark.parametrize(
    ("folders", "limit", "enough", "wanted"),
    [
        (95, 1000, True, 0),
        (95, 210, False, 420),
        (95, 180, False, 380),
        (5000, 6000, False, 12000),
        (5000, 7000, True, 0),
    ],
)
def test_the_limits_of_inotify(tmp_path: Path, folders: int, limit: int, enough: bool, wanted: int) -> None:
    (tmp_path / "max_user_watches").write_text(f"{limit}\n")
    (tmp_path / "max_user_instances").write_text("128\n")
    tally = inotify.Tally()
    tally.add(folders)
    (found,) = inotify.check(tally, str(tmp_path))
    assert found.level is (Level.OK if enough else Level.WARNING)
    assert enough or f"max_user_watches={wanted} " in found.remedy


def test_a_watch_takes_two_instances_of_inotify(tmp_path: Path) -> None:
    (tmp_path / "max_user_instances").write_text("128\n")
    tally = inotify.Tally()
    for _ in range(60):
        tally.add(1)
    (found,) = inotify.check(tally, str(tmp_path))
    assert "120 of the 128 inotify instances" in found.what and "max_user_instances=256 " in found.remedy


# -- state_dir, machine, reporting -------------------------------------------------------------------------------------


def examine_state(path: Path, live: dict[str, Any] | None = None) -> list[Finding]:
    path.chmod(0o700)
    return list(state.group(StateDir(str(path)), None, live).check(Stopping()))


def live(version: str | None) -> dict[str, Any]:
    return {"pid": 1, "version": version, "state": "running", "watches": {}}


def test_a_job_table_and_its_backups(tmp_path: Path) -> None:
    open_for_writing(StateDir(str(tmp_path)).database).close()
    (tmp_path / "convertd.db.v1.bak").write_bytes(b"x")
    found = examine_state(tmp_path)
    assert {finding.level for finding in found} == {Level.OK}, found
    assert any("rm " in finding.what and "v1.bak" in finding.what for finding in found)


def test_a_state_dir_that_others_may_look_into(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o755)
    found = list(state.group(StateDir(str(state_dir)), None, None).check(Stopping()))
    assert "chmod 700" in by_level(found)[Level.WARNING][0].remedy


def test_a_job_table_of_a_newer_convertd(tmp_path: Path) -> None:
    with closing(open_for_writing(StateDir(str(tmp_path)).database)) as db:
        db.pragma("user_version", 99)
    assert "newer convertd" in only_problem(examine_state(tmp_path)).what


@pytest.mark.parametrize(
    ("version", "level"), [(__version__, Level.OK), ("0.0.1", Level.WARNING), (None, Level.PROBLEM)]
)
def test_the_daemon_that_runs(tmp_path: Path, version: str | None, level: Level) -> None:
    assert examine_state(tmp_path, live(version))[0].level is level


def test_a_state_dir_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "filesystem_type", lambda _: "nfs4")
    assert "local disk" in only_problem(examine_state(tmp_path)).remedy


@pytest.mark.parametrize("locked", [True, False])
def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked: bool) -> None:
    monkeypatch.setattr(folders, "try_out", lambda _: canary.Abilities(False, False, 0.0))
    found = list(folder(tmp_path).written("results", locked=locked))
    assert found[1].level is (Level.PROBLEM if locked else Level.WARNING) and "locked" not in found[0].what


def test_a_clock_that_was_never_set() -> None:
    assert only_problem(list(machine.clock(86_400.0))).what == "the clock says 1970-01-02"
    assert next(iter(machine.clock(time.time()))).level is Level.OK


def test_a_limit_of_open_files() -> None:
    assert next(iter(machine.open_files(2, 1024))).level is Level.OK
    (found,) = machine.open_files(64, 1024)
    assert found.level is Level.WARNING and "ulimit -n 2304" in found.remedy


def test_a_temporary_folder_that_runs_nothing_and_holds_little(small_disk: Callable[[str], Path]) -> None:
    found = list(machine.temporary(str(small_disk("size=1m,noexec"))))
    assert ["noexec" in finding.what for finding in found] == [True, False]
    assert {finding.level for finding in found} == {Level.WARNING}


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "2000", "memory.max": "3000"}, 2000),
        ("0::/a/b\n", {"a/b/memory.max": "1000", "a/memory.max": "2000"}, 1000),
        ("0::/../../outside\n", {"memory.max": "1000"}, 1000),
        ("5:cpu:/x\n4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "1000", "x/memory.max": "5"}, 1000),
        ("4:memory:/outside\n", {"memory/memory.limit_in_bytes": "1000"}, 1000),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, 4000),
        ("0::/a\n", {"a/memory.max": "max"}, 4000),
        ("0::/a\n", {}, 4000),
        ("", {}, 4000),
    ],
)
def test_the_memory_that_control_groups_allow(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int
) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, limit in limits.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    assert machine.memory_bytes(4000, str(tmp_path / "groups"), str(tmp_path / "root")) == expected
    assert machine.memory_bytes(4000, str(tmp_path / "none"), str(tmp_path / "root")) == 4000


def test_limits_that_do_not_fit_into_memory() -> None:
    config = configuration.defaults()
    needed = config.limits.in_flight_bytes + config.limits.converter_memory_bytes
    assert list(machine.memory(config, needed)) == []
    (found,) = machine.memory(config, needed - 1)
    assert found.level is Level.WARNING and "limits.in_flight" in found.what


def test_without_a_temporary_folder_the_machine_is_examined_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile._candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    (found,) = [finding for finding in machine.check(None, Stopping()) if "none" in finding.what]
    assert found.level is Level.WARNING and "cannot be used: No such file" in found.what and "TMPDIR" in found.remedy


def report(path: Path, more: str, *, daemon_runs: bool = False) -> list[Finding]:
    (path / "convertd.toml").write_text(more + CONFIG)
    config = configuration.load(str(path / "convertd.toml"))
    assert reporting.wanted(config) == bool(more)
    return list(reporting.group(config, daemon_runs=daemon_runs).check(Stopping()))


def test_who_is_told_can_be_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = f'metrics.listen = "127.0.0.1:{port}"\n'
        assert f":{port}" in only_problem(report(tmp_path, taken)).remedy
        assert report(tmp_path, taken, daemon_runs=True) == []
        assert report(tmp_path, f'notify.webhook = "http://127.0.0.1:{port}/x"\n')[0].level is Level.OK
    (found,) = report(tmp_path, f'notify.webhook = "http://127.0.0.1:{port}/token"\n')
    assert found.level is Level.WARNING and "token" not in found.what
    assert "no program" in only_problem(report(tmp_path, 'notify.command = ["no-such-program-1"]\n')).what
    assert report(tmp_path, 'notify.command = ["true"]\n')[0].level is Level.OK
    assert report(tmp_path, "") == [] and not reporting.wanted(configuration.defaults())
    assert Notify() == configuration.defaults().notify


def speaks_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("at", [("::1", "127.0.0.1"), ("::1",)])
def test_doctor_tries_the_address_that_the_daemon_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[str, ...]
) -> None:
    if len(at) == 1 and not speaks_ipv6():
        pytest.skip("needs IPv6")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda _, *more, **options: [real(name, *more, **options)[0] for name in at]
    )
    with socket.create_server((at[-1], 0), family=socket.AF_INET if len(at) == 2 else socket.AF_INET6) as server:
        port = server.getsockname()[1]
        found = only_problem(report(tmp_path, f'metrics.listen = "localhost:{port}"\n'))
        assert "Address already in use" in found.what and f":{port}" in found.remedy
        with pytest.raises(UsageError, match="Address already in use"):
            MonitorServer("localhost", port, {}).start()
    (found,) = report(tmp_path, f'metrics.listen = "localhost:{port}"\n')
    assert found.level is Level.OK


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_that_is_not_of_this_machine(tmp_path: Path, host: str) -> None:
    found = only_problem(report(tmp_path, f'metrics.listen = "{host}:9464"\n'))
    assert found.remedy.startswith("Name an address of this machine")


def test_a_secret_that_everybody_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    text = f'[notify]\nwebhook = "http://127.0.0.1:9/"\nsecret_file = "{secret}"\n'
    text = text + CONFIG.replace("state_dir", "#")
    (tmp_path / "convertd.toml").write_text(text)
    config = configuration.load(str(tmp_path / "convertd.toml"))
    found = []
    for content, mode in ((None, 0), (b"", 0o600), (b"x", 0o644), (b"x", 0o600)):
        if content is not None:
            secret.write_bytes(content)
            secret.chmod(mode)
        found.append(next(iter(reporting.group(config, daemon_runs=False).check(Stopping()))).level)
    assert found == [Level.PROBLEM, Level.PROBLEM, Level.WARNING, Level.OK]


def test_a_secret_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    config = configuration.defaults()._replace(notify=Notify(webhook="http://127.0.0.1:9/", secret_file=str(fifo)))
    ((_, found),) = running.side_by_side([reporting.group(config, daemon_runs=False)._replace(seconds=10.0)])
    with open(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "w"):  # frees who waits
        pass
    assert "no regular file" in only_problem(found).what


def test_a_secret_that_the_service_manager_hands_over(tmp_path: Path) -> None:
    secret = "/run/credentials/convertd-none.service/notify"
    config = configuration.defaults()._replace(notify=Notify(webhook="http://127.0.0.1:9/", secret_file=secret))
    found = next(iter(reporting.group(config, daemon_runs=False).check(Stopping())))
    assert found.level is Level.WARNING
    assert "LoadCredential=notify:FILE, systemctl cat convertd-none.service" in found.remedy


def unit_of(tmp_path: Path, text: str) -> Finding | None:
    """What is found of the unit for this configuration in the folder `units`."""
    (tmp_path / "convertd.toml").write_text(text)
    config = configuration.load(str(tmp_path / "convertd.toml"))
    found = unit.group(config, str(tmp_path / "units"))
    return None if found is None else next(iter(found.check(Stopping())))


def test_a_unit_that_is_of_an_older_configuration(tmp_path: Path) -> None:
    watch = '[[watch]]\nname = "{0}"\nsource = "/srv/{0}/in"\nsink = "/srv/{0}/out put"\n'
    old, new = watch.format("old"), watch.format("old") + watch.format("new")
    assert unit_of(tmp_path, old) is None
    config = configuration.load(str(tmp_path / "convertd.toml"))
    file = tmp_path / "units" / "convertd.service"
    file.parent.mkdir()
    file.write_text(install.plan(config, for_user=False).text)
    found = unit_of(tmp_path, old)
    assert found is not None and found.level is Level.OK
    found = unit_of(tmp_path, new)
    assert found is not None and found.level is Level.WARNING
    assert found.what.endswith('the service lacks: ReadWritePaths="/srv/new/out put"')
    assert "convertd install --config" in found.remedy
    (tmp_path / "units" / "convertd.service.d").mkdir()
    (tmp_path / "units" / "convertd.service.d" / "own.conf").write_text(
        '[Service]\nReadWritePaths="/srv/new/out put"\n'
    )
    found = unit_of(tmp_path, new)
    assert found is not None and found.level is Level.OK
    found = unit_of(tmp_path, 'metrics.listen = "0.0.0.0:9464"\n' + new)
    assert found is not None and found.what.endswith("the service lacks: a network")
    file.write_text("# somebody else's\n[Service]\n")
    found = unit_of(tmp_path, new)
    assert found is not None and found.level is Level.OK and "not looked at" in found.what


def test_a_unit_whose_service_cannot_see_what_it_reads(tmp_path: Path) -> None:
    """Sources that are kept, data of OCR and secrets in homes reach the service only where its unit binds them."""
    watch = '[[watch]]\nname = "a"\nsource = "{0}"\nsink = "/srv/out"\n'
    assert unit_of(tmp_path, watch.format("/srv/in")) is None
    config = configuration.load(str(tmp_path / "convertd.toml"))
    file = tmp_path / "units" / "convertd.service"
    file.parent.mkdir()
    file.write_text(install.plan(config, for_user=False).text)
    at_home = watch.format("/home/nobody/in")
    found = unit_of(tmp_path, at_home)
    assert found is not None and found.level is Level.WARNING
    assert found.what.endswith("the service lacks: BindReadOnlyPaths=/home/nobody/in")
    found = unit_of(tmp_path, 'ocr.tessdata_dir = "/root/data"\n' + watch.format("/srv/in"))
    assert found is not None and found.what.endswith("the service lacks: BindReadOnlyPaths=/root")
    with file.open("a") as unit_file:
        unit_file.write("[Service]\nBindPaths=-/home/nobody/in\n")
    found = unit_of(tmp_path, at_home)
    assert found is not None and found.level is Level.OK


def test_a_unit_that_starts_another_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit_of(tmp_path, CONFIG)
    config = configuration.load(str(tmp_path / "convertd.toml"))
    file = tmp_path / "units" / "convertd.service"
    file.parent.mkdir()
    file.write_text(install.plan(config, for_user=False).text)
    here = (["/home/nobody/venv/bin/convertd"], ["/home/nobody/venv"])
    monkeypatch.setattr(install, "program", lambda: here)
    monkeypatch.setattr(unit, "program", lambda: here)
    found = unit_of(tmp_path, CONFIG)
    assert found is not None and found.level is Level.OK


# -- what is examined --------------------------------------------------------------------------------------------------


def test_all_mistakes_are_problems_with_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text("workers = -1\nretry.attempts = 0\n" + CONFIG)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "convertd.db").touch()
    found = subject.subject(str(path), None, {})
    assert found.config is None and found.state == StateDir(str(tmp_path / "state"))
    assert [finding.what.partition(":")[0] for finding in found.findings] == ["workers", "retry.attempts"]
    assert all("allowed: a whole number" in finding.remedy for finding in found.findings)


@pytest.mark.parametrize("named", ["", " ", ".", "inbox"])
def test_a_folder_that_was_refused_as_state_dir_is_not_examined_as_one(tmp_path: Path, named: str) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text(CONFIG.replace('"state"', f'"{named}"'))
    (tmp_path / "inbox").mkdir()
    found = subject.subject(str(path), None, {})
    assert found.state is None and "state_dir" in found.findings[0].what


def test_a_blank_state_dir_is_not_that_of_another_daemon(tmp_path: Path) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text(CONFIG.replace('"state"', '""'))
    (tmp_path / "convertd.db").touch()
    assert subject.subject(str(path), None, {}).state is None


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_mistakes_are_told_whoever_owns_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text("workers = -1\n" + CONFIG)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "convertd.db").touch()
    monkeypatch.setattr("signal.signal", lambda *_: None)  # those of pytest stay as they are
    somebody_else = os.getuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody_else)
    result = CliRunner().invoke(doctor.command, ["--config", str(path), *options])
    assert isinstance(result.exception, UsageError) and "belongs to" in str(result.exception)
    assert "workers: found -1" in result.output


def test_what_this_machine_lacks_keeps_nothing_else_from_being_examined(tmp_path: Path) -> None:
    path = tmp_path / "convertd.toml"
    path.write_text('ocr.languages = ["xyz"]\n' + CONFIG)
    found = subject.subject(str(path), None, {})
    assert found.config is not None and [finding.level for finding in found.findings] == [Level.PROBLEM]


def test_without_a_configuration_only_the_machine_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("daemon.configfile.SYSTEM_FILE", "/nonexistent")
    found = subject.subject(None, None, {})
    assert found.state is None and found.findings[0].level is Level.WARNING


# -- side by side ------------------------------------------------------------------------------------------------------


def group(title: str, check: Check, seconds: float = 30.0) -> Group:
    return Group(title, check, seconds, "a remedy")


def test_groups_run_side_by_side_and_are_told_in_order() -> None:
    both = threading.Barrier(2, timeout=30)

    def meet(stopping: Stopping) -> Iterator[Finding]:
        both.wait()
        yield ok("met")

    found = list(running.side_by_side([group("a", meet), group("b", meet)]))
    assert [(group.title, [finding.what for finding in findings]) for group, findings in found] == [
        ("a", ["met"]),
        ("b", ["met"]),
    ]


def test_a_group_that_does_not_answer_holds_up_nobody() -> None:
    stopped = threading.Event()

    def hang(stopping: Stopping) -> Iterator[Finding]:
        yield ok("begun")
        with stopping.interrupting(stopped.set):
            stopped.wait()

    found = dict(running.side_by_side([group("a", hang, 0.05), group("b", lambda _: iter([ok("well")]))]))
    by_title = {group.title: findings for group, findings in found.items()}
    assert [finding.level for finding in by_title["a"]] == [Level.OK, Level.PROBLEM]
    assert by_title["a"][1].remedy == "a remedy" and by_title["b"] == [ok("well")]
    assert stopped.is_set()


def test_groups_that_hang_take_no_place_and_their_time_passes_together() -> None:
    released, ended = threading.Event(), threading.Event()

    def hang(stopping: Stopping) -> Iterator[Finding]:
        released.wait(20)
        ended.set()
        yield ok("too late")

    many = [group(str(number), hang, 1.0) for number in range(2 * running.AT_ONCE)]
    begun = time.monotonic()
    found = []
    for _, findings in running.side_by_side([*many, group("last", lambda _: iter([ok("well")]))]):
        found.append([finding.level for finding in findings])
        if len(found) > len(many):
            assert not ended.is_set() and time.monotonic() - begun < running.AT_ONCE
            released.set()
    assert found == [*[[Level.PROBLEM]] * len(many), [Level.OK]]


def test_what_is_under_way_ends_and_is_waited_for_when_nobody_wants_to_know() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stopping: Stopping) -> Iterator[Finding]:
        interrupted = threading.Event()
        with stopping.interrupting(interrupted.set):
            begun.set()
            interrupted.wait()
        ended.set()
        yield ok("too late")

    runs = running.side_by_side([group("a", lambda _: iter([ok("well")])), group("b", work)])
    next(iter(runs))
    assert begun.wait(30)
    with closing(runs):  # type: ignore[type-var]
        pass
    assert ended.is_set()


def raised(error: Exception, stopping: Stopping) -> Iterator[Finding]:
    yield warning("before", "x")
    raise error


@pytest.mark.parametrize(
    ("error", "what"),
    [(EnvironmentProblem("sick", "a hint"), "sick"), (ZeroDivisionError("oh"), "the check failed")],
)
def test_a_check_that_raises_is_a_problem(error: Exception, what: str) -> None:
    ((_, findings),) = running.side_by_side([group("a", partial(raised, error))])
    assert [finding.level for finding in findings] == [Level.WARNING, Level.PROBLEM]
    assert what in findings[1].what and findings[1].remedy
