"""What every sink must do, wherever it writes to. A new sink adds its bench to BENCHES."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore
from typing import Protocol

import pytest

from daemon.buckets import Prefix
from daemon.errors import EnvironmentProblem, TransientError
from daemon.naming import MANIFEST
from daemon.s3.clients import Clients
from daemon.sinks import REGISTRY
from daemon.sinks.base import Sink, Surroundings
from daemon.sinks.folder import FolderSink
from daemon.sinks.s3 import S3Sink
from tests.harness import environment
from tests.servers import Bucket, s3_settings

NARROW = "Screenshot at 9.00\u202fAM"  # as one kind of computer names them, with a space that is not printable
FILES = {".json": b"{}", ".md": b"# hi"}


class Bench(Protocol):
    """A sink with a way to look at it from outside."""

    sink: Sink

    def files(self) -> dict[str, bytes]: ...
    def leftovers(self) -> list[str]: ...
    def break_down(self) -> None: ...
    def mend(self) -> None: ...
    def at_step(self, action: Callable[[str], None]) -> Sink: ...
    def publish_and_die(self, name: str, step: int) -> None: ...


class FolderBench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "outbox"
        self.sink: Sink = FolderSink(str(self.folder))

    def files(self) -> dict[str, bytes]:
        return {
            os.fsencode(path.relative_to(self.folder)).decode("utf-8", "backslashreplace"): path.read_bytes()
            for path in self.folder.rglob("*")
            if path.is_file() and ".convertd-tmp" not in path.parts
        }

    def leftovers(self) -> list[str]:
        return os.listdir(self.folder / ".convertd-tmp")

    def break_down(self) -> None:
        self.folder.rename(self.folder.parent / "away")

    def mend(self) -> None:
        (self.folder.parent / "away").rename(self.folder)

    def at_step(self, action: Callable[[str], None]) -> Sink:
        return FolderSink(str(self.folder), fault=action)

    def publish_and_die(self, name: str, step: int) -> None:
        script = (
            "import itertools, os, sys\n"
            "from daemon.sinks.folder import FolderSink\n"
            "steps = itertools.count()\n"
            "die = lambda label: os._exit(9) if next(steps) == int(sys.argv[3]) else None\n"
            "FolderSink(sys.argv[1], fault=die).publish(sys.argv[2], {'.json': b'{}', '.md': b'# hi'})\n"
        )
        command = [sys.executable, "-c", script, str(self.folder), name, str(step)]
        assert subprocess.run(command, timeout=60, env=environment()).returncode == 9


class S3Bench:
    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.bucket = bucket
        self.settings = s3_settings(bucket.server, folder)
        self.place = Prefix(bucket.name, "out/")
        self.sink: Sink = self.at_step(lambda label: None)

    def files(self) -> dict[str, bytes]:
        return {key.removeprefix("out/"): self.bucket.get(key) or b"" for key in self.bucket.keys("out/")}

    def leftovers(self) -> list[str]:
        uploads = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name).get("Uploads", [])
        return [upload["Key"] for upload in uploads]

    def break_down(self) -> None:
        self.kept = {key: self.bucket.get(key) or b"" for key in self.bucket.keys("")}
        self.bucket.drop()

    def mend(self) -> None:
        self.bucket.client.create_bucket(Bucket=self.bucket.name)
        for key, content in self.kept.items():
            self.bucket.put(key, content)

    def at_step(self, action: Callable[[str], None]) -> Sink:
        return S3Sink(self.place, Surroundings(Clients(4), BoundedSemaphore(4), action), self.settings)

    def publish_and_die(self, name: str, step: int) -> None:
        script = (
            "import itertools, os, sys, threading\n"
            "from daemon.s3.clients import Clients\n"
            "from daemon.settings import S3\n"
            "from daemon.sinks.base import Surroundings\n"
            "from daemon.sinks.s3 import S3Sink\n"
            "steps = itertools.count()\n"
            "die = lambda label: os._exit(9) if next(steps) == int(sys.argv[3]) else None\n"
            "around = Surroundings(Clients(1), threading.BoundedSemaphore(1), die)\n"
            "sink = S3Sink.at(sys.argv[1], around, S3(endpoint_url=sys.argv[4]))\n"
            "sink.publish(sys.argv[2], {'.json': b'{}', '.md': b'# hi'})\n"
        )
        command = [sys.executable, "-c", script, self.place.url, name, str(step), self.bucket.server.endpoint_url]
        assert subprocess.run(command, timeout=60, env=environment(self.bucket.server.env())).returncode == 9


def folder_bench(request: pytest.FixtureRequest, folder: Path) -> Bench:
    return FolderBench(folder)


def s3_bench(request: pytest.FixtureRequest, folder: Path) -> Bench:
    return S3Bench(folder, request.getfixturevalue("bucket"))


BENCHES = {"folder": folder_bench, "s3": s3_bench}


def test_every_sink_has_a_bench() -> None:
    assert set(BENCHES) == set(REGISTRY)


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield BENCHES[request.param](request, tmp_path)


def test_a_folder_that_a_unit_leaves_read_only_comes_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = FolderSink(str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("daemon.sinks.folder.write_durably", refuse)
    with pytest.raises(TransientError) as caught:
        sink.publish("a", FILES)
    assert "convertd install" in caught.value.hint
    with pytest.raises(EnvironmentProblem) as sick:
        sink.probe(0)
    assert "convertd install" in sick.value.hint


def test_the_location_is_as_it_is(bench: Bench) -> None:
    assert bench.sink.publish(f"a/{NARROW}.png", FILES).endswith(f"a/{NARROW}.png.md")


def test_results_appear_under_their_names(bench: Bench) -> None:
    location = bench.sink.publish("a/b.pdf", FILES)
    assert location.endswith("a/b.pdf.md")
    assert bench.files() == {"a/b.pdf.json": b"{}", "a/b.pdf.md": b"# hi"}
    assert bench.leftovers() == []


def test_results_replace_what_was_there(bench: Bench) -> None:
    bench.sink.publish("b.pdf", FILES)
    bench.sink.publish("b.pdf", {".json": b"{1}", ".md": b"new"})
    assert bench.files() == {"b.pdf.json": b"{1}", "b.pdf.md": b"new"}


def test_results_are_removed_and_what_is_not_there_does_not_matter(bench: Bench) -> None:
    bench.sink.publish("a/b.pdf", {".error.json": b"{}"})
    bench.sink.remove("a/b.pdf", (".error.json", ".other"))
    bench.sink.remove("a/b.pdf", (".error.json",))
    bench.sink.remove("nowhere/b.pdf", (".error.json",))
    assert bench.files() == {}


def test_what_was_published_can_be_read_back(bench: Bench) -> None:
    large = os.urandom(3_000_000)
    bench.sink.publish("a/b.pdf", {".json": b"{}", ".md": large})
    assert bench.sink.read("a/b.pdf", ".md") == large
    assert bench.sink.read("a/b.pdf", ".json") == b"{}"
    assert [bench.sink.read(name, ".md") for name in ("a/c.pdf", "a", "nowhere/b.pdf", "a/b.pdf.md/x")] == [None] * 4
    with pytest.raises(ValueError, match="not a name below the sink"):
        bench.sink.read("../b.pdf", ".md")


def test_nothing_can_be_read_of_a_sink_that_is_gone(bench: Bench) -> None:
    bench.sink.publish("a", FILES)
    bench.break_down()
    with pytest.raises((EnvironmentProblem, TransientError)):
        bench.sink.read("a", ".md")
    bench.mend()
    assert bench.sink.read("a", ".md") == FILES[".md"]


def test_a_folder_that_is_missing_is_not_made_by_who_reads_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="No such file"):
        FolderSink(str(tmp_path / "outbox")).read("a", ".md")
    assert not (tmp_path / "outbox").exists()


def test_content_may_be_a_view_of_memory(bench: Bench) -> None:
    bench.sink.publish("x", {MANIFEST: memoryview(b"{}\n")})
    bench.sink.publish("x", {MANIFEST: memoryview(b"{}\n{}\n")})
    bench.sink.publish("empty", {MANIFEST: memoryview(b"")})
    assert bench.files() == {"x.manifest.jsonl": b"{}\n{}\n", "empty.manifest.jsonl": b""}


def test_a_name_may_be_any_text(bench: Bench) -> None:
    for name in ("ünï.pdf", "new%0Aline.pdf", "a/" * 100 + "deep.pdf", "x" * 240):
        bench.sink.publish(name, {".md": name.encode()})
    assert sorted(bench.files().values()) == sorted(
        name.encode() for name in ("ünï.pdf", "new%0Aline.pdf", "a/" * 100 + "deep.pdf", "x" * 240)
    )


@pytest.mark.parametrize("name", ["../b.pdf", "a/../../b.pdf", "/etc/b.pdf"])
def test_nothing_is_written_outside(bench: Bench, name: str) -> None:
    with pytest.raises(ValueError, match="not a name below the sink"):
        bench.sink.publish(name, FILES)


def test_the_commit_mark_comes_last_and_no_file_is_ever_partial(bench: Bench) -> None:
    """At every step the sink holds whole files only: the old ones or the new ones, the `.md` after the `.json`."""
    old, new = {".json": b"old json", ".md": b"old md"}, {".json": b"new" * 100_000, ".md": b"NEW" * 100_000}
    seen: list[dict[str, bytes]] = []
    sink = bench.at_step(lambda label: seen.append(bench.files()))
    sink.publish("b.pdf", old)
    sink.publish("b.pdf", new)
    stages = [{}, {"b.pdf.json": old[".json"]}, {"b.pdf.json": old[".json"], "b.pdf.md": old[".md"]}]
    stages += [{"b.pdf.json": new[".json"], "b.pdf.md": old[".md"]}]
    stages += [{"b.pdf.json": new[".json"], "b.pdf.md": new[".md"]}]
    assert [stage for index, stage in enumerate(seen) if index == 0 or stage != seen[index - 1]] == stages


def test_what_a_crash_leaves_behind_is_swept(bench: Bench) -> None:
    steps: list[str] = []
    bench.at_step(steps.append).publish("dry", FILES)
    for step in range(len(steps)):
        bench.publish_and_die(f"a/{step}", step)
        bench.sink.sweep()
        assert bench.leftovers() == []
        bench.sink.publish(f"a/{step}", FILES)
        assert {f"a/{step}.json", f"a/{step}.md"} <= set(bench.files())


def test_a_sweep_leaves_a_running_publish_alone(bench: Bench) -> None:
    other = threading.Thread(target=bench.sink.sweep)

    def sweep(label: str) -> None:
        if label in ("rename", "put") and not other.ident:
            other.start()
            other.join()

    bench.at_step(sweep).publish("a", FILES)
    assert set(bench.files()) == {"a.json", "a.md"}


def test_without_locks_a_sweep_removes_only_what_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a SIGHUP, beside the publishes and probes of the same daemon."""

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # as of a folder on NFS

    monkeypatch.setattr("daemon.sinks.folder.fcntl.flock", flock)
    folder = tmp_path / "outbox"
    sweeper = FolderSink(str(folder))
    FolderSink(str(folder), fault=lambda label: sweeper.sweep()).publish("a", FILES)
    assert {path.name for path in folder.iterdir()} == {"a.json", "a.md", ".convertd-tmp"}
    left = [folder / ".convertd-tmp" / "b.tmp", folder / ".convertd-canary-c"]
    for path in left:
        path.write_bytes(b"left behind")
    sweeper.sweep()
    assert all(path.exists() for path in left)
    FolderSink(str(folder), clock=lambda: time.time() + 90_000).sweep()
    assert not any(path.exists() for path in left)


def test_an_error_leaves_nothing_and_says_what_was_too_much(bench: Bench) -> None:
    def full(label: str) -> None:
        if label in ("rename", "put"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TransientError, match="No space left on device") as error:
        bench.at_step(full).publish("a/b.pdf", FILES)
    assert error.value.size_bytes == 6
    assert "a/b.pdf" in error.value.message
    assert bench.files() == {}
    assert bench.leftovers() == []


def test_the_probe_leaves_nothing(bench: Bench) -> None:
    bench.sink.probe(3_000_000)
    assert bench.files() == {}
    assert bench.leftovers() == []


def test_a_sink_that_is_gone_is_sick_and_not_made_again(bench: Bench) -> None:
    bench.sink.publish("a", FILES)
    bench.break_down()
    with pytest.raises((EnvironmentProblem, TransientError)):  # some servers only say that it is not allowed
        bench.sink.publish("b", FILES)
    with pytest.raises(EnvironmentProblem):
        bench.sink.probe(0)
    with pytest.raises(EnvironmentProblem):
        bench.sink.sweep()
    bench.mend()
    bench.sink.probe(0)
    bench.sink.publish("b", FILES)
    assert len(bench.files()) == 4


def test_many_threads_publish_at_once(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: bench.sink.publish(f"{number % 10}/{number}", FILES), range(100)))
    assert len(bench.files()) == 200
    assert bench.leftovers() == []


def test_a_folder_removed_from_the_sink_is_made_again(tmp_path: Path) -> None:
    sink = FolderSink(str(tmp_path / "outbox"))
    sink.publish("a/b/c", FILES)
    for path in sorted((tmp_path / "outbox" / "a").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    sink.publish("a/b/d", FILES)
    assert (tmp_path / "outbox" / "a" / "b" / "d.md").read_bytes() == b"# hi"


def test_a_file_system_mounted_inside_a_sink_is_written_too(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    inner = shm / f"convertd-sink-{os.getpid()}"
    inner.mkdir()
    try:
        sink = FolderSink(str(tmp_path / "outbox"))
        sink.probe(0)
        (tmp_path / "outbox" / "inner").symlink_to(inner)
        sink.publish("inner/a", FILES)
        assert {path.name: path.read_bytes() for path in inner.iterdir()} == {"a.json": b"{}", "a.md": b"# hi"}
        assert os.listdir(tmp_path / "outbox" / ".convertd-tmp") == []
    finally:
        for path in inner.iterdir():
            path.unlink()
        inner.rmdir()


def test_a_full_disk_is_the_surroundings_fault(tmp_path: Path) -> None:
    """A real one: a tiny tmpfs, where the test may mount."""
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(outbox)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        sink = FolderSink(str(outbox))
        sink.publish("small", FILES)
        with pytest.raises(TransientError, match="No space left on device") as error:
            sink.publish("large", {".json": b"{}", ".md": b"x" * 1_000_000})
        assert sorted(os.listdir(outbox)) == [".convertd-tmp", "small.json", "small.md"]
        assert os.listdir(outbox / ".convertd-tmp") == []
        sink.probe(0)
        with pytest.raises(EnvironmentProblem, match="No space left on device"):
            sink.probe(error.value.size_bytes)
        assert os.listdir(outbox / ".convertd-tmp") == []
    finally:
        subprocess.run(["umount", str(outbox)], check=True)
    with pytest.raises(EnvironmentProblem, match="no longer mounted"):
        sink.publish("later", FILES)
    assert os.listdir(outbox) == []
