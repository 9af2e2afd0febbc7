"""Deleting and moving sources: no crash at any step and no other writer loses a byte."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.config import Watch
from daemon.errors import EnvironmentProblem, NotYet, SourceChanged, SourceVanished, TransientError
from daemon.files import rename_noreplace
from daemon.model import Candidate, Disposal, Job
from daemon.sources.base import Surroundings
from daemon.sources.folder import FolderSource
from daemon.sources.mover import copy_durably, numbered
from daemon.sources.version import file_version
from tests.harness import until
from tests.watching import Clock, Everything, job_for, tree, watched

CONTENT = b"what was converted"


class PowerCut(BaseException):
    """The process ends here."""


class Bench:
    """An inbox with a converted document, and a way to end the process at a step of its disposal."""

    def __init__(self, folder: Path, target: Path | None = None) -> None:
        self.inbox = folder / "inbox"
        self.target = target or folder / "done"
        (self.inbox / "sub").mkdir(parents=True)
        self.document = self.inbox / "sub" / "a.txt"
        self.document.write_bytes(CONTENT)
        self.job = self.job_of(self.document)
        self.clock = Clock(10)
        self.steps: list[str] = []
        self.at_step: Callable[[str], None] = lambda label: None
        self.source = self.new_source()

    def another_job(self) -> Job:
        """That of a second document."""
        path = self.inbox / "sub" / "b.txt"
        path.write_bytes(CONTENT)
        return self.job_of(path, 2)

    def job_of(self, path: Path, job_id: int = 1, location: bytes | None = None) -> Job:
        status = path.stat()
        found = Candidate(os.fsencode(path.relative_to(self.inbox)), file_version(status), status.st_size)
        return job_for(found, job_id, location)

    def new_source(self) -> FolderSource:
        """As after a restart."""
        return FolderSource(
            str(self.inbox),
            Everything(),
            clock=self.clock.time,
            monotonic=self.clock.monotonic,
            fault=self._step,
        )

    def _step(self, label: str) -> None:
        self.steps.append(label)
        self.at_step(label)

    def do_at(self, step: int, action: Callable[[], None]) -> None:
        """Run `action` at the step of this number."""
        self.steps.clear()
        self.at_step = lambda label: action() if len(self.steps) == step + 1 else None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def cut() -> None:
    raise PowerCut


DELETE = Disposal("delete")


def disposals(bench: Bench) -> dict[str, Disposal]:
    return {"delete": DELETE, "move": Disposal("move", str(bench.target))}


def steps_of(bench: Bench, disposal: Disposal) -> list[str]:
    bench.source.dispose(bench.job, disposal)
    return list(bench.steps)


@pytest.fixture(params=["delete", "move", "move across"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """`move across` is a move to another file system, as the kernel would refuse it."""
    name: str = request.param
    if name == "move across":
        pretend_other_device(monkeypatch)
    return name.split()[0]


def pretend_other_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if not os.path.samestat(os.fstat(src_dir_fd), os.fstat(dst_dir_fd)):
            raise OSError(errno.EXDEV, "Invalid cross-device link", old)
        rename_noreplace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr("daemon.sources.disposer.rename_noreplace", rename)


def test_a_crash_at_any_step_is_finished_by_the_next_call(kind: str, tmp_path: Path) -> None:
    (tmp_path / "dry").mkdir()
    dry = Bench(tmp_path / "dry")
    count = len(steps_of(dry, disposals(dry)[kind]))
    assert count >= 4
    for step in range(count):
        folder = tmp_path / str(step)
        folder.mkdir()
        bench = Bench(folder)
        disposal = disposals(bench)[kind]
        bench.do_at(step, cut)
        with pytest.raises(PowerCut):
            bench.source.dispose(bench.job, disposal)
        bench.at_step = lambda label: None
        location = bench.new_source().dispose(bench.job, disposal)
        assert tree(bench.inbox) == {}, f"after a crash at {bench.steps[step]}"
        if kind == "move":
            assert location == os.fsencode(bench.target / "sub" / "a.txt")
            assert tree(bench.target) == {"sub/a.txt": CONTENT}
        else:
            assert location is None
        assert bench.document.parent.is_dir(), "folders stay"


def test_two_crashes_in_a_row_lose_nothing_either(kind: str, tmp_path: Path) -> None:
    (tmp_path / "dry").mkdir()
    count = len(steps_of(dry := Bench(tmp_path / "dry"), disposals(dry)[kind]))
    for first in range(count):
        for second in range(count):
            folder = tmp_path / f"{first}-{second}"
            folder.mkdir()
            bench = Bench(folder)
            disposal = disposals(bench)[kind]
            for step in (first, second):
                bench.do_at(step, cut)
                try:
                    bench.new_source().dispose(bench.job, disposal)
                except PowerCut:
                    everything = tree(bench.inbox) | (tree(bench.target) if bench.target.exists() else {})
                    assert kind == "delete" or CONTENT in everything.values()
            bench.at_step = lambda label: None
            bench.new_source().dispose(bench.job, disposal)
            assert tree(bench.inbox) == {}
            assert kind == "delete" or tree(bench.target) == {"sub/a.txt": CONTENT}


def test_a_new_file_under_the_same_name_survives_at_any_step(kind: str, tmp_path: Path) -> None:
    """Dropped by a rename at each step, with and without a crash at that very step."""
    (tmp_path / "dry").mkdir()
    count = len(steps_of(dry := Bench(tmp_path / "dry"), disposals(dry)[kind]))
    for step in range(count):
        for crash in (False, True):
            folder = tmp_path / f"{step}-{crash}"
            folder.mkdir()
            bench = Bench(folder)

            def drop(bench: Bench = bench, crash: bool = crash) -> None:
                fresh = bench.inbox / ".fresh"
                fresh.write_bytes(b"newer")
                fresh.rename(bench.document)
                if crash:
                    raise PowerCut

            bench.do_at(step, drop)
            for _ in range(2):
                try:
                    bench.new_source().dispose(bench.job, disposals(bench)[kind])
                except (PowerCut, SourceChanged):
                    pass
                bench.at_step = lambda label: None
            assert b"newer" in tree(bench.inbox).values()
            assert not [name for name in tree(bench.inbox) if ".convertd" in name]


@pytest.mark.parametrize("name", ["delete", "move"])
def test_a_writer_that_appends_before_the_file_is_hidden_loses_nothing(bench: Bench, name: str) -> None:
    def append() -> None:
        with bench.document.open("ab") as file:
            file.write(b" and more")

    bench.do_at(0, append)
    with pytest.raises(SourceChanged):
        bench.source.dispose(bench.job, disposals(bench)[name])
    assert tree(bench.inbox) == {"sub/a.txt": CONTENT + b" and more"}


@pytest.mark.parametrize("name", ["delete", "move"])
def test_a_writer_that_holds_the_hidden_file_open_gets_it_back(bench: Bench, name: str) -> None:
    writers = []
    bench.do_at(0, lambda: writers.append(bench.document.open("ab")))
    with pytest.raises(NotYet):
        bench.source.dispose(bench.job, disposals(bench)[name])
    writers[0].write(b" and more")
    writers[0].close()
    assert tree(bench.inbox) == {"sub/a.txt": CONTENT + b" and more"}
    with pytest.raises(SourceChanged):
        bench.source.dispose(bench.job, disposals(bench)[name])


def test_a_file_that_is_held_open_is_not_even_renamed(bench: Bench) -> None:
    with bench.document.open("ab"), pytest.raises(NotYet) as early:
        bench.source.dispose(bench.job, DELETE)
    assert bench.steps == []
    assert early.value.seconds > 0
    bench.source.dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {}


def test_bytes_that_lost_their_name_become_a_document_of_their_own(bench: Bench) -> None:
    """The hidden file was changed through an open descriptor, and its name has been taken meanwhile."""
    writers = []

    def at_step(label: str) -> None:
        if label == "hide":
            writers.append(bench.document.open("ab"))
        if label == "hidden":
            writers[0].write(b" and more")
            writers[0].close()
            bench.document.write_bytes(b"newer")

    bench.at_step = at_step
    with pytest.raises(SourceChanged):
        bench.source.dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {"sub/a.txt": b"newer", "sub/a~1.txt": CONTENT + b" and more"}
    with watched(bench.source) as state:
        state.queued("sub/a.txt", "sub/a~1.txt")


def test_discovery_is_told_of_a_name_that_comes_back(bench: Bench) -> None:
    writers = []
    bench.do_at(0, lambda: writers.append(bench.document.open("ab")))
    with watched(bench.source) as state:
        state.drained()
        with pytest.raises(NotYet):
            bench.source.dispose(bench.job, DELETE)
        assert 1 in state.watcher.lefts, "it counts as left at once"
        writers[0].write(b" and more")
        writers[0].close()
        until(lambda: len(CONTENT) + 9 in state.ledger.sizes(b"sub/a.txt"), "the newer version is queued")
        state.drained()


def test_a_rename_by_link_and_unlink_is_finished(bench: Bench) -> None:
    """As file systems without a rename that replaces nothing do it: a crash leaves both names."""
    bench.do_at(1, cut)
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, DELETE)
    (hidden,) = bench.document.parent.iterdir()
    os.link(hidden, bench.document)
    bench.new_source().dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {}


def test_a_move_by_link_and_unlink_is_finished(bench: Bench) -> None:
    bench.do_at(1, cut)
    move = Disposal("move", str(bench.target))
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, move)
    (hidden,) = bench.document.parent.iterdir()
    (bench.target / "sub").mkdir(parents=True)
    os.link(hidden, bench.target / "sub" / "a.txt")
    location = bench.new_source().dispose(bench.job, move)
    assert location == os.fsencode(bench.target / "sub" / "a.txt")
    assert tree(bench.inbox) == {}
    assert tree(bench.target) == {"sub/a.txt": CONTENT}


def test_a_copy_that_was_given_its_name_by_link_and_unlink_is_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_other_device(monkeypatch)
    move = Disposal("move", str(bench.target))

    def link_only(label: str) -> None:
        if label == "copied across":
            (hidden,) = (bench.target / "sub").iterdir()
            os.link(hidden, bench.target / "sub" / "a.txt")
            cut()

    bench.at_step = link_only
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, move)
    bench.at_step = lambda label: None
    assert bench.new_source().dispose(bench.job, move) == os.fsencode(bench.target / "sub" / "a.txt")
    assert tree(bench.inbox) == {}
    assert tree(bench.target) == {"sub/a.txt": CONTENT}


def test_a_chmod_or_a_link_does_not_hinder_a_disposal(bench: Bench) -> None:
    bench.document.chmod(0o640)
    os.link(bench.document, bench.inbox / "other name.txt")
    bench.source.dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {"other name.txt": CONTENT}


def test_another_file_with_the_same_size_and_time_is_not_disposed_of(bench: Bench) -> None:
    status = bench.document.stat()
    (bench.inbox / ".copy").write_bytes(CONTENT[::-1])
    os.utime(bench.inbox / ".copy", ns=(status.st_atime_ns, status.st_mtime_ns))
    (bench.inbox / ".copy").rename(bench.document)
    with pytest.raises(SourceChanged):
        bench.source.dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {"sub/a.txt": CONTENT[::-1]}


def test_a_linked_folder_does_not_lead_a_disposal_astray(bench: Bench, tmp_path: Path) -> None:
    (bench.inbox / "sub").rename(tmp_path / "outside")
    (bench.inbox / "sub").symlink_to(tmp_path / "outside")
    assert bench.source.dispose(bench.job, DELETE) is None
    assert (tmp_path / "outside" / "a.txt").read_bytes() == CONTENT


def test_a_clock_that_is_behind_is_not_waited_for_for_ever(bench: Bench) -> None:
    bench.clock.ahead_seconds = -10_000
    with pytest.raises(NotYet) as early:
        bench.source.dispose(bench.job, DELETE)
    assert early.value.seconds <= 5
    bench.clock.ahead_seconds += early.value.seconds
    bench.source.dispose(bench.job, DELETE)
    assert tree(bench.inbox) == {}


# -- moving --------------------------------------------------------------------------------------------------------


def test_a_move_never_overwrites(bench: Bench) -> None:
    (bench.target / "sub").mkdir(parents=True)
    (bench.target / "sub" / "a.txt").write_bytes(b"older")
    (bench.target / "sub" / "a~1.txt").write_bytes(b"old")
    location = bench.source.dispose(bench.job, Disposal("move", str(bench.target)))
    assert location == os.fsencode(bench.target / "sub" / "a~2.txt")
    assert tree(bench.target) == {"sub/a.txt": b"older", "sub/a~1.txt": b"old", "sub/a~2.txt": CONTENT}


def test_a_move_across_file_systems_keeps_content_time_and_mode(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    target = shm / f"convertd-test-{os.getpid()}"
    bench = Bench(tmp_path, target)
    bench.document.chmod(0o640)
    os.utime(bench.document, ns=(1, 123_456_789))
    job = bench.job_of(bench.document)
    try:
        target.mkdir()
        (target / "sub").mkdir()
        (target / "sub" / "a.txt").write_bytes(b"older")
        location = bench.source.dispose(job, Disposal("move", str(target)))
        assert location == os.fsencode(target / "sub" / "a~1.txt")
        assert tree(target) == {"sub/a.txt": b"older", "sub/a~1.txt": CONTENT}
        status = (target / "sub" / "a~1.txt").stat()
        assert (status.st_mtime_ns, status.st_mode & 0o777) == (123_456_789, 0o640)
        moved = job_for(Candidate(job.source, job.version, job.size_bytes), location=location)
        with bench.source.fetch(moved) as document:
            assert os.pread(document.fd, 100, 0) == CONTENT
        assert bench.source.dispose(moved, DELETE) is None
        assert tree(target) == {"sub/a.txt": b"older"}
    finally:
        for path in sorted(target.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        target.rmdir()


def pretend_coarse_times(monkeypatch: pytest.MonkeyPatch, grain_ns: int) -> None:
    """As where a copy is made on NTFS (100 ns), exFAT (10 ms) or FAT (2 s)."""
    utime = os.utime

    def rounded(fd: int, ns: tuple[int, int]) -> None:
        utime(fd, ns=(ns[0] - ns[0] % grain_ns, ns[1] - ns[1] % grain_ns))

    monkeypatch.setattr("daemon.sources.mover.os.utime", rounded)


@pytest.mark.parametrize("grain_ns", [100, 10_000_000, 2_000_000_000])
def test_a_copy_whose_time_is_rounded_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grain_ns: int
) -> None:
    """At a crash after any step, and at a retry."""
    dry = Bench(tmp_path / "dry")
    with monkeypatch.context() as patch:
        pretend_other_device(patch)
        count = len(steps_of(dry, disposals(dry)["move"]))
    assert count >= 8
    for step in range(count):
        bench = Bench(tmp_path / str(step))
        os.utime(bench.document, ns=(1, 1_700_000_001_987_654_321))
        job, move = bench.job_of(bench.document), Disposal("move", str(bench.target))
        with monkeypatch.context() as patch:
            pretend_other_device(patch)
            pretend_coarse_times(patch, grain_ns)
            bench.do_at(step, cut)
            with pytest.raises(PowerCut):
                bench.source.dispose(job, move)
            bench.at_step = lambda label: None
            location = bench.new_source().dispose(job, move)
        assert tree(bench.inbox) == {} and tree(bench.target) == {"sub/a.txt": CONTENT}, bench.steps
        assert location == os.fsencode(bench.target / "sub" / "a.txt")
        moved = job_for(Candidate(job.source, job.version, job.size_bytes), location=location)
        with bench.source.fetch(moved) as document:
            bench.source.verify(moved, document)
        bench.source.dispose(moved, DELETE)
        assert tree(bench.target) == {}


def test_another_document_is_not_taken_for_a_copy_whose_time_was_rounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a crash before the document itself is unlinked: only its content tells that there is no copy yet."""
    bench = Bench(tmp_path)
    os.utime(bench.document, ns=(1, 1_700_000_001_987_654_321))
    pretend_other_device(monkeypatch)
    (bench.target / "sub").mkdir(parents=True)
    other = bench.target / "sub" / "a.txt"
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(1, 1_700_000_000_000_000_000))
    location = bench.source.dispose(bench.job_of(bench.document), Disposal("move", str(bench.target)))
    assert location == os.fsencode(bench.target / "sub" / "a~1.txt")
    assert tree(bench.target) == {"sub/a.txt": CONTENT[::-1], "sub/a~1.txt": CONTENT}


def test_a_copy_interrupted_half_way_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_other_device(monkeypatch)
    bench = Bench(tmp_path)
    move = Disposal("move", str(bench.target))

    def half(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
        with open(os.open(target, os.O_CREAT | os.O_WRONLY, dir_fd=target_fd), "wb") as file:
            file.write(CONTENT[:3])
        raise PowerCut

    monkeypatch.setattr("daemon.sources.disposer.copy_durably", half)
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, move)
    monkeypatch.setattr("daemon.sources.disposer.copy_durably", copy_durably)
    bench.new_source().dispose(bench.job, move)
    assert tree(bench.target) == {"sub/a.txt": CONTENT}
    assert tree(bench.inbox) == {}


def test_a_move_that_fails_says_why_and_goes_on_later(bench: Bench) -> None:
    bench.target.write_bytes(b"not a folder")
    move = Disposal("move", str(bench.target))
    with pytest.raises(TransientError, match="Not a directory"):
        bench.source.dispose(bench.job, move)
    bench.target.unlink()
    bench.source.dispose(bench.job, move)
    assert tree(bench.target) == {"sub/a.txt": CONTENT}


class Disk:
    """A disk that can be taken away and comes back with what lies on it."""

    def __init__(self, folder: Path) -> None:
        self.path, self._kept = folder / "disk", folder / "kept"
        for path in (self.path, self._kept):
            path.mkdir()
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(self._kept)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("needs the right to mount")
        self.attach()

    def attach(self) -> None:
        subprocess.run(["mount", "--bind", self._kept, self.path], check=True)

    def detach(self) -> None:
        subprocess.run(["umount", self.path], check=True)

    def close(self) -> None:
        for path in (self.path, self._kept):
            if os.path.ismount(path):
                subprocess.run(["umount", path], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    try:
        yield disk
    finally:
        disk.close()


@pytest.mark.parametrize("below", ["", "done"])
def test_a_target_whose_disk_is_away_is_not_filled(tmp_path: Path, disk: Disk, below: str) -> None:
    bench = Bench(tmp_path, disk.path / below)
    move = Disposal("move", str(bench.target))
    bench.source.dispose(bench.job, move)
    second = bench.another_job()
    disk.detach()
    with pytest.raises(EnvironmentProblem, match=r"disk.* cannot be used") as away:
        bench.source.dispose(second, move)
    assert "mount its disk" in away.value.hint
    assert tree(bench.inbox) == {"sub/b.txt": CONTENT}, "it is not even hidden"
    assert list(disk.path.iterdir()) == []
    bench.source.probe()  # that documents cannot be moved is no reason to convert none
    disk.attach()
    assert bench.source.dispose(second, move) == os.fsencode(bench.target / "sub" / "b.txt")
    assert tree(bench.target) == {"sub/a.txt": CONTENT, "sub/b.txt": CONTENT}


@pytest.mark.parametrize("below", ["", "done"])
def test_what_lies_on_a_disk_that_is_away_is_not_gone(tmp_path: Path, disk: Disk, below: str) -> None:
    bench = Bench(tmp_path, disk.path / below)
    move = Disposal("move", str(bench.target))
    location = bench.source.dispose(bench.job, move)
    moved = job_for(Candidate(bench.job.source, bench.job.version, bench.job.size_bytes), location=location)
    disk.detach()
    for disposal in (DELETE, Disposal("keep"), move, Disposal("move", str(tmp_path / "elsewhere"))):
        with pytest.raises(EnvironmentProblem):
            bench.source.dispose(moved, disposal)
    with pytest.raises(EnvironmentProblem):
        bench.source.has_begun(moved)
    bench.source.probe()
    with pytest.raises(EnvironmentProblem), bench.source.fetch(moved):
        pass
    with pytest.raises(EnvironmentProblem):
        bench.source.verify(moved, None)
    with pytest.raises(EnvironmentProblem):
        bench.source.probe()
    disk.attach()
    bench.source.probe()
    with bench.source.fetch(moved) as document:
        bench.source.verify(moved, document)


def test_a_disk_is_not_waited_for_when_nobody_asks_for_it_any_more(tmp_path: Path, disk: Disk) -> None:
    bench = Bench(tmp_path, disk.path)
    location = bench.source.dispose(bench.job, Disposal("move", str(bench.target)))
    moved = job_for(Candidate(bench.job.source, bench.job.version, bench.job.size_bytes), location=location)
    disk.detach()
    with pytest.raises(EnvironmentProblem), bench.source.fetch(moved):
        pass
    bench.clock.ahead_seconds += 59
    with pytest.raises(EnvironmentProblem):
        bench.source.probe()
    bench.clock.ahead_seconds += 2
    bench.source.probe()


def test_a_disk_that_goes_before_the_first_move_is_missed(tmp_path: Path, disk: Disk) -> None:
    bench = Bench(tmp_path, disk.path)
    move = Disposal("move", str(bench.target))
    watch = Watch(name="inbox", source=str(bench.inbox), sink=str(tmp_path / "outbox"), on_success=move)
    source = FolderSource.for_watch(watch, Surroundings.for_looking())
    with watched(source):
        pass
    silent = FolderSource(str(bench.inbox), Everything(), targets=[move.target], silent=[move.target])
    disk.detach()
    for at_work in (source, silent):
        with pytest.raises(EnvironmentProblem, match="no longer mounted"):
            at_work.dispose(bench.job, move)
    assert tree(bench.inbox) == {"sub/a.txt": CONTENT}
    assert list(disk.path.iterdir()) == []


def test_a_target_that_somebody_removes_is_made_again(bench: Bench) -> None:
    move = Disposal("move", str(bench.target / "of" / "many"))
    bench.source.dispose(bench.job, move)
    shutil.rmtree(bench.target)
    bench.source.dispose(bench.another_job(), move)
    assert tree(bench.target) == {"of/many/sub/b.txt": CONTENT}


def test_a_document_that_somebody_else_removed_is_not_moved(bench: Bench) -> None:
    bench.document.unlink()
    with pytest.raises(SourceVanished):
        bench.source.dispose(bench.job, Disposal("move", str(bench.target)))


def test_a_hidden_document_is_found_by_a_retry(bench: Bench) -> None:
    """A crash left it hidden, and its disposal was called off by `retry`."""
    bench.do_at(1, cut)
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, DELETE)
    assert not bench.document.exists()
    with pytest.raises(SourceChanged), bench.new_source().fetch(bench.job):
        pass
    assert tree(bench.inbox) == {"sub/a.txt": CONTENT}


def test_hidden_documents_are_never_taken(bench: Bench) -> None:
    bench.do_at(1, cut)
    with pytest.raises(PowerCut):
        bench.source.dispose(bench.job, DELETE)
    with watched(bench.source) as state:
        state.drained()
        assert state.ledger.jobs == []


def test_free_names_are_legal_names() -> None:
    def first(name: bytes) -> list[bytes]:
        names = numbered(name)
        return [next(names) for _ in range(3)]

    assert first(b"b.pdf") == [b"b.pdf", b"b~1.pdf", b"b~2.pdf"]
    assert first(b"b")[1] == b"b~1"
    assert first(b"b.tar.gz")[1] == b"b.tar~1.gz"
    for name in (b"x" * 255, b"x" * 251 + b".pdf", ("ü" * 125 + ".text").encode(), b"a." + b"e" * 253):
        numbered_name = first(name)[1]
        assert len(numbered_name) <= 255
        assert b"~1" in numbered_name
        numbered_name.decode()
