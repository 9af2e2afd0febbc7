"""`submit` and `batch` as their users meet them: files without an inbox, and folders that are asked about together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from daemon.cli import submit
from daemon.cli.common import locate
from daemon.errors import NotRunning
from daemon.manifests import AT_ONCE
from daemon.sources.version import file_version
from tests import documents
from tests.harness import Daemon, convertd, environment, until
from tests.servers import Bucket

CONFIG = """
state_dir = "state"
workers = 2
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
batch = "subfolder"
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, CONFIG)
    yield daemon
    daemon.close()


def mine(daemon: Daemon, name: str, content: bytes) -> str:
    """A file of the user's."""
    path = daemon.folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return str(path)


def copies(daemon: Daemon) -> list[str]:
    """What the daemon has kept of what was handed in."""
    return os.listdir(daemon.state / "submitted")


def progress(daemon: Daemon, batch: str) -> dict[str, Any]:
    result = daemon.command("batch", batch, "--json")
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def export(daemon: Daemon, batch: str) -> list[dict[str, Any]]:
    result = daemon.command("batch", batch, "--jsonl")
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def rewind(daemon: Daemon, seconds: float = 100.0) -> None:
    """Make all batches look as if nothing had come for so long. Only while no daemon runs."""
    connection = apsw.Connection(str(daemon.state / "convertd.db"))
    connection.execute("UPDATE batches SET last_added_at = last_added_at - ?", (seconds,))
    connection.close()


def test_files_are_converted_without_an_inbox(daemon: Daemon) -> None:
    assert daemon.config is not None
    daemon.config.write_text(CONFIG + 'on_success = "move:done"\non_failure = "move:bad"\n')
    daemon.start()
    pdf, text = documents.pdf(["words of a"]), b"words of b"
    files = [mine(daemon, "a.pdf", pdf), mine(daemon, "deep/b.txt", text)]
    before = [file_version(os.stat(file)) for file in files]
    result = daemon.command("submit", *files, "--batch", "monday", "--wait")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "batch monday"
    assert "words of a" in daemon.markdown("submitted/monday/a.pdf").read_text()
    assert "words of b" in daemon.markdown("submitted/monday/b.txt").read_text()
    sidecar = json.loads((daemon.outbox / "submitted/monday/a.pdf.json").read_bytes())
    assert (sidecar["source"], sidecar["size_bytes"]) == ("submitted/monday/a.pdf", len(pdf))
    for line in (f"→ {daemon.markdown('submitted/monday/a.pdf')}", f"→ {daemon.markdown('submitted/monday/b.txt')}"):
        assert line in result.stdout
    until(lambda: not copies(daemon), "no copy is kept of what is converted")
    assert [file_version(os.stat(file)) for file in files] == before
    assert not (daemon.folder / "done").exists() or os.listdir(daemon.folder / "done") == []


def test_the_batch_is_named_if_nobody_names_it(daemon: Daemon) -> None:
    daemon.start()
    result = daemon.command("submit", mine(daemon, "a.txt", b"words of one"), "--wait")
    batch = result.stdout.splitlines()[0].removeprefix("batch ")
    assert daemon.markdown(f"submitted/{batch}/a.txt").read_text().strip() == "words of one"
    other = daemon.command("submit", mine(daemon, "a.txt", b"words of one"), "--wait").stdout.splitlines()[0]
    assert other != f"batch {batch}"
    assert progress(daemon, batch)["jobs"]["completed"] == 1


def test_more_files_than_fit_in_one_message(daemon: Daemon) -> None:
    daemon.start()
    files = [mine(daemon, f"{number}.txt", b"number %d" % number) for number in range(40)]
    result = daemon.command("submit", *files, "--batch", "many", "--wait")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 1 + 40 + 40
    assert {line["markdown"].strip() for line in export(daemon, "many")} == {f"number {n}" for n in range(40)}


def test_what_cannot_be_taken_is_said_and_the_rest_is_done(daemon: Daemon) -> None:
    assert daemon.config is not None
    daemon.config.write_text('limits.file_size = "100KiB"\n' + CONFIG)
    daemon.start()
    good, large = mine(daemon, "a.txt", b"good"), mine(daemon, "large.txt", b"x" * 200_000)
    other = mine(daemon, "elsewhere/a.txt", b"other")
    os.mkfifo(daemon.folder / "mine" / "fifo")
    fifo, folder, missing = (str(daemon.folder / "mine" / name) for name in ("fifo", "deep", "missing.txt"))
    os.mkdir(folder)
    result = daemon.command("submit", good, large, other, fifo, folder, missing, "--batch", "x", "--wait")
    assert result.returncode == 1
    assert "limits.file_size allows 102,400" in result.stderr
    assert "another document of that name" in result.stderr
    assert result.stderr.count("not a regular file") == 2
    assert f"{missing}: No such file" in result.stderr
    assert daemon.markdown("submitted/x/a.txt").read_text().strip() == "good"
    assert progress(daemon, "x")["jobs"]["completed"] == 1
    nameless = daemon.command("submit", good, "--batch", "")
    assert (nameless.returncode, "not the name of a batch" in nameless.stderr) == (2, True)


def test_a_document_that_fails_is_kept_until_its_job_is_pruned(daemon: Daemon) -> None:
    daemon.start()
    locked = mine(daemon, "locked.pdf", documents.encrypted_pdf())
    result = daemon.command("submit", locked, "--batch", "x", "--wait")
    assert result.returncode == 1
    assert "encrypted" in result.stdout
    assert len(copies(daemon)) == 1
    error = json.loads(daemon.error("submitted/x/locked.pdf").read_bytes())
    assert error["kind"] == "encrypted"
    [failure] = progress(daemon, "x")["failures"]
    assert (failure["watch"], failure["source"], failure["error_kind"]) == (
        "inbox",
        "submitted/x/locked.pdf",
        "encrypted",
    )
    assert "encrypted" in daemon.command("batch", "x").stdout
    first = daemon.error("submitted/x/locked.pdf").stat().st_ino
    assert daemon.command("retry", str(failure["job"])).returncode == 0
    until(lambda: daemon.error("submitted/x/locked.pdf").stat().st_ino != first, "it is tried again")
    until(lambda: progress(daemon, "x")["jobs"]["failed"], "it has failed again")
    assert "handed in by convertd submit" in daemon.command("why", str(failure["job"])).stdout
    assert daemon.command("submit", locked, "--batch", "x", "--wait").returncode == 1, "the same job, which has failed"
    assert daemon.command("prune", "--older-than", "0s").returncode == 0
    assert copies(daemon) == []
    assert daemon.command("batch", "x").returncode == 2


def test_without_a_daemon_nothing_is_taken(daemon: Daemon) -> None:
    result = daemon.command("submit", mine(daemon, "a.txt", b"words of one"))
    assert result.returncode == 3
    assert "convertd run" in result.stderr
    for arguments in (["submit"], ["batch"], ["submit", "a.txt", "--priority", "11"], ["batch", "x", "--json"]):
        assert convertd(*arguments, *daemon.where, cwd=daemon.folder).returncode == 2


def submitting(daemon: Daemon, file: str) -> subprocess.Popen[str]:
    """`submit --wait` under way, to batch x."""
    return subprocess.Popen(
        [sys.executable, "-m", "daemon", "submit", file, "--batch", "x", "--wait", *daemon.where],
        cwd=daemon.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_ends_the_waiting_and_not_the_jobs(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.command("pause").returncode == 0
    file = mine(daemon, "a.txt", b"words of one")
    waiting = submitting(daemon, file)
    assert waiting.stdout is not None and waiting.stdout.readline() == "batch x\n"
    assert waiting.stdout.readline().split() == ["1", file]
    waiting.send_signal(signal.SIGINT)
    _, stderr = waiting.communicate(timeout=60)
    assert (waiting.returncode, "convertd batch x" in stderr) == (1, True)
    assert progress(daemon, "x")["reason"] == "1 of its jobs is not final"
    assert daemon.command("resume").returncode == 0
    assert daemon.outcome("submitted/x/a.txt") == "converted"


def test_who_waits_is_told_what_holds_the_jobs_up(daemon: Daemon) -> None:
    daemon.start()
    assert daemon.command("pause", "inbox").returncode == 0
    file = mine(daemon, "a.txt", b"words of one")
    waiting = submitting(daemon, file)
    assert waiting.stderr is not None
    said = waiting.stderr.readline()
    assert said == "waiting: watch inbox is paused: by `convertd pause inbox` (go on: convertd resume inbox)\n"
    assert daemon.command("resume", "inbox").returncode == 0
    stdout, stderr = waiting.communicate(timeout=60)
    assert (waiting.returncode, stderr) == (0, ""), stdout


def test_nobody_waits_for_ever_for_a_daemon_that_is_gone(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.start()
    assert daemon.command("pause").returncode == 0
    assert daemon.command("submit", mine(daemon, "a.txt", b"words of one"), "--batch", "x").returncode == 0
    daemon.kill()
    monkeypatch.setattr(submit, "LIVE_CHECK_SECONDS", 0.0)
    monkeypatch.setattr(submit, "DOWN_SECONDS", 0.0)
    arguments = [mine(daemon, "a.txt", b"words of one"), "--batch", "x", "--wait", *daemon.where]
    with pytest.raises(NotRunning, match="1 jobs wait for it"):
        list(submit._ends(locate(str(daemon.config), None), {1: "a.txt"}))
    assert daemon.command("submit", *arguments).returncode == 3
    daemon.start()
    assert daemon.command("resume").returncode == 0
    assert daemon.command("submit", *arguments).returncode == 0


def test_a_folder_of_the_inbox_is_a_batch_with_a_manifest(daemon: Daemon) -> None:
    daemon.start()
    daemon.drop("monday/a.txt", b"words of a")
    daemon.drop("monday/deep/b.txt", b"words of b")
    daemon.drop("alone.txt", b"alone")
    for name in ("monday/a.txt", "monday/deep/b.txt", "alone.txt"):
        assert daemon.outcome(name) == "converted"
    until(lambda: progress(daemon, "monday")["jobs"]["completed"] == 2, "both jobs are final")
    assert not progress(daemon, "monday")["complete"]
    manifest = daemon.outbox / "monday.manifest.jsonl"
    assert not manifest.exists()
    daemon.stop()
    rewind(daemon)
    assert progress(daemon, "monday")["complete"], "that can be told without a daemon"
    daemon.start()
    until(manifest.exists, "the manifest is written")
    lines = {line["source"]: line for line in map(json.loads, manifest.read_text().splitlines())}
    assert set(lines) == {"monday/a.txt", "monday/deep/b.txt"}
    sidecar = json.loads((daemon.outbox / "monday/a.txt.json").read_bytes())
    assert [lines["monday/a.txt"][key] for key in ("state", "sha256", "markdown_sha256", "output")] == [
        "completed",
        sidecar["sha256"],
        sidecar["markdown_sha256"],
        str(daemon.markdown("monday/a.txt")),
    ]
    exported = {line["source"]: line for line in export(daemon, "monday")}
    assert exported["monday/a.txt"]["markdown"].strip() == "words of a"
    assert exported["monday/a.txt"]["metadata"] == sidecar
    until(lambda: progress(daemon, "monday")["watches"][0]["manifest_at"], "that is recorded")
    daemon.drop("monday/c.txt", b"late")
    assert daemon.outcome("monday/c.txt") == "converted"
    assert not progress(daemon, "monday")["complete"], "what comes later opens it again"
    daemon.stop()
    rewind(daemon)
    assert daemon.once() == 0
    assert len(manifest.read_text().splitlines()) == 3
    assert not (daemon.outbox / "alone.txt.manifest.jsonl").exists()


def test_a_drain_leaves_no_batch_without_its_manifest(daemon: Daemon) -> None:
    names = [f"batch{number:02}" for number in range(2 * AT_ONCE)]
    for name in names:
        daemon.drop(f"{name}/a.txt", b"words")
    in_the_way = daemon.outbox / f"{names[0]}.manifest.jsonl"
    in_the_way.mkdir(parents=True)
    assert daemon.once() == 0
    rewind(daemon)
    assert daemon.once() == 0
    assert [name for name in names if not (daemon.outbox / f"{name}.manifest.jsonl").is_file()] == names[:1]


def test_results_that_are_gone_are_said_to_be(daemon: Daemon) -> None:
    daemon.start()
    daemon.command(
        "submit", mine(daemon, "a.txt", b"words of a"), mine(daemon, "b.txt", b"words of b"), "--batch", "x", "--wait"
    )
    daemon.markdown("submitted/x/a.txt").unlink()
    result = daemon.command("batch", "x", "--jsonl")
    assert result.returncode == 1
    assert [json.loads(line)["markdown"] for line in result.stdout.splitlines()] == [None, "words of b"]
    assert "1 results are not in the sink" in result.stderr


def test_batches_of_one_name_in_two_watches(tmp_path: Path) -> None:
    second = '[[watch]]\nname = "second"\nsource = "inbox2"\nsink = "outbox2"\n'
    daemon = Daemon(tmp_path, CONFIG + second)
    try:
        daemon.start()
        for watch in ("inbox", "second"):
            file = mine(daemon, "a.txt", watch.encode())
            result = daemon.command("submit", file, "--watch", watch, "--batch", "x", "--wait", "--priority", "9")
            assert result.returncode == 0, result.stderr
        assert (tmp_path / "outbox2/submitted/x/a.txt.md").read_text().strip() == "second"
        assert [job["priority"] for job in daemon.jobs()] == [9, 9]
        both = progress(daemon, "x")
        assert both["jobs"]["completed"] == 2
        assert [watch["watch"] for watch in both["watches"]] == ["inbox", "second"]
        one = daemon.command("batch", "x", "--name", "second", "--jsonl")
        assert json.loads(one.stdout)["markdown"].strip() == "second"
        assert daemon.command("batch", "x", "--name", "third").returncode == 2
    finally:
        daemon.close()


BUCKETS = """
state_dir = "state"
workers = 1
[[watch]]
name = "bucket"
source = "s3://{bucket}/in/"
sink = "s3://{bucket}/out/"
on_success = "delete"
batch = "subfolder"
poll_interval = "1s"
[watch.s3]
endpoint_url = "{endpoint_url}"
"""


def test_batches_of_buckets(tmp_path: Path, bucket: Bucket) -> None:
    config = BUCKETS.format(bucket=bucket.name, endpoint_url=bucket.server.endpoint_url)
    daemon = Daemon(tmp_path, config, env=bucket.server.env())
    try:
        daemon.start()
        bucket.put("in/monday/a.txt", b"words of a")
        result = daemon.command("submit", mine(daemon, "b.txt", b"words of b"), "--batch", "monday", "--wait")
        assert result.returncode == 0, result.stderr
        assert bucket.get("out/submitted/monday/b.txt.md") == b"words of b"
        until(lambda: bucket.get("out/monday/a.txt.md"), "the object is converted")
        until(lambda: progress(daemon, "monday")["jobs"]["completed"] == 2, "both jobs are final")
        assert sorted(line["markdown"] for line in export(daemon, "monday")) == ["words of a", "words of b"]
        daemon.stop()
        rewind(daemon)
        daemon.start()
        manifest = until(lambda: bucket.get("out/monday.manifest.jsonl"), "the manifest is written")
        assert sorted(json.loads(line)["source"] for line in manifest.splitlines()) == [
            "monday/a.txt",
            "submitted/monday/b.txt",
        ]
        assert copies(daemon) == []
    finally:
        daemon.close()
