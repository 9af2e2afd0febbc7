"""The main job as its users meet it: folders in, Markdown out, and the commands that look at it and steer it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests import documents
from tests.harness import Daemon, convertd, running, until

# fmt: off
JOB_KEYS = [
    "id", "watch", "source", "version", "state", "stage", "priority", "attempts", "error", "output", "engine",
    "pages", "size_bytes", "discovered_at", "started_at", "finished_at",
]
SIDECAR_KEYS = [
    "source", "version", "sha256", "size_bytes", "media_type", "engine", "engine_version", "convertd_version",
    "pages", "title", "characters", "markdown_sha256", "warnings", "attempts", "discovered_at", "started_at",
    "finished_at", "convert_seconds",
]
ERROR_KEYS = [
    "source", "version", "kind", "message", "hint", "attempts", "retry_command", "failed_at",
]
# fmt: on
CONFIG = """
state_dir = "state"
workers = 2
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
"""


@pytest.fixture
def folders(tmp_path: Path) -> Daemon:
    """`convertd run inbox outbox`, not yet started."""
    return Daemon(tmp_path)


def outputs(daemon: Daemon) -> dict[str, tuple[int, int, bytes]]:
    """Every file of the sink: a conversion, even to the same bytes, makes a new inode."""
    return {
        str(path.relative_to(daemon.outbox)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in daemon.outbox.rglob("*")
        if path.is_file()
    }


def counts(daemon: Daemon) -> tuple[int, int, int, int]:
    jobs = daemon.status()["jobs"]
    return jobs["pending"], jobs["processing"], jobs["completed"], jobs["failed"]


def settled(daemon: Daemon, completed: int, failed: int) -> None:
    until(lambda: counts(daemon) == (0, 0, completed, failed), f"{completed} jobs completed, {failed} failed")


# ---------------------------------------------------------------- run --once


def test_once_converts_what_is_there_and_nothing_twice(folders: Daemon) -> None:
    folders.drop("report.pdf", documents.pdf(["a page", "another page"], title="Report"))
    folders.drop("sub/letter.docx", documents.docx("dear reader"))
    assert folders.once() == 0
    assert sorted(outputs(folders)) == [
        "report.pdf.json",
        "report.pdf.md",
        "sub/letter.docx.json",
        "sub/letter.docx.md",
    ]
    before = outputs(folders)
    assert folders.once() == 0
    assert outputs(folders) == before
    assert len(folders.jobs()) == 2


def test_once_exits_1_if_a_job_failed(folders: Daemon) -> None:
    folders.drop("empty.pdf.txt", b"")
    folders.drop("good.txt", b"words")
    assert folders.once() == 1
    assert folders.outcome("good.txt") == "converted"
    assert folders.outcome("empty.pdf.txt") == "empty"
    assert folders.once() == 0  # nothing failed this time: it was not tried again
    assert counts(folders) == (0, 0, 1, 1)


def test_output_is_as_the_contract_says(folders: Daemon) -> None:
    content = documents.pdf(["first page", "second page"])
    folders.drop("report.pdf", content)
    folders.drop("empty.txt", b"")
    folders.drop("blank.txt", b" \n")
    assert folders.once() == 1
    sidecar = json.loads((folders.outbox / "report.pdf.json").read_bytes())
    assert list(sidecar) == SIDECAR_KEYS
    markdown = folders.markdown("report.pdf").read_bytes()
    assert sidecar["markdown_sha256"] == hashlib.sha256(markdown).hexdigest()
    assert sidecar["sha256"] == hashlib.sha256(content).hexdigest()
    assert (sidecar["source"], sidecar["size_bytes"], sidecar["pages"]) == ("report.pdf", len(content), 2)
    assert (sidecar["media_type"], sidecar["attempts"]) == ("application/pdf", 1)
    error = json.loads(folders.error("empty.txt").read_bytes())
    assert list(error) == ERROR_KEYS
    assert error["kind"] == "empty"
    assert not folders.markdown("empty.txt").exists()
    assert folders.markdown("blank.txt").read_bytes() == b""
    assert json.loads((folders.outbox / "blank.txt.json").read_bytes())["warnings"]


# ---------------------------------------------------------------- versions


def test_changed_document_is_converted_again(folders: Daemon) -> None:
    folders.drop("note.txt", b"the first words")
    assert folders.once() == 0
    folders.drop("note.txt", b"the other words")
    assert folders.once() == 0
    assert folders.markdown("note.txt").read_text().strip() == "the other words"
    assert [job["state"] for job in folders.jobs()] == ["completed", "completed"]


def test_same_bytes_are_not_converted_again(folders: Daemon) -> None:
    """A chmod, and a copy away and back that keeps the times, change the file's identity only."""
    path = folders.drop("note.txt", b"words that stay")
    assert folders.once() == 0
    before = outputs(folders)
    path.chmod(0o640)
    assert folders.once() == 0
    saved = folders.folder / "saved.txt"
    subprocess.run(["cp", "-p", path, saved], check=True)
    path.unlink()
    subprocess.run(["cp", "-p", saved, path], check=True)
    assert folders.once() == 0
    assert outputs(folders) == before
    assert [job["state"] for job in folders.jobs()] == ["completed"]


def test_same_with_the_daemon_running(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        path = daemon.drop("note.txt", b"words that stay")
        assert daemon.outcome("note.txt") == "converted"
        settled(daemon, 1, 0)
        before = outputs(daemon)
        path.chmod(0o600)
        daemon.drop("marker.txt", b"marker")
        assert daemon.outcome("marker.txt") == "converted"
        settled(daemon, 2, 0)
        assert {name: value for name, value in outputs(daemon).items() if "note" in name} == before
        daemon.drop("note.txt", b"words that change")
        until(lambda: "change" in daemon.markdown("note.txt").read_text(), "the change is converted")
        settled(daemon, 3, 0)


def test_error_file_goes_when_the_document_is_mended(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.drop("report.pdf", documents.encrypted_pdf())
        assert daemon.outcome("report.pdf") == "encrypted"
        daemon.drop("report.pdf", documents.pdf(["open words"]))
        until(lambda: daemon.markdown("report.pdf").exists(), "the mended document is converted")
        settled(daemon, 1, 1)
        assert not daemon.error("report.pdf").exists()
        daemon.drop("report.pdf", documents.encrypted_pdf())
        until(daemon.error("report.pdf").exists, "the newer version fails")
        assert "open words" in daemon.markdown("report.pdf").read_text()
        told = json.loads(daemon.error("report.pdf").read_bytes())
        assert "older" in told["message"] + told["hint"] or "earlier" in told["message"] + told["hint"]


# ---------------------------------------------------------------- looking


def test_status_and_jobs_agree_with_the_files(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        for number in range(5):
            daemon.drop(f"{number}.pdf", documents.pdf([f"page {number}"]))
        for number in range(3):
            daemon.drop(f"bad{number}.txt", b"")
        settled(daemon, 5, 3)
        assert len(list(daemon.outbox.glob("*.md"))) == 5
        assert len(list(daemon.outbox.glob("*.error.json"))) == 3
        status = daemon.status()
        assert list(status) == ["daemon", "jobs", "watches", "oldest_pending_seconds", "documents_per_second"]
        assert list(status["daemon"]) == ["running", "pid", "version", "uptime_seconds", "state"]
        assert daemon.process is not None
        assert (status["daemon"]["running"], status["daemon"]["pid"]) == (True, daemon.process.pid)
        [watch] = status["watches"]
        assert list(watch) == ["name", "source", "sink", "state", "error", "jobs"]
        assert (watch["name"], watch["jobs"]) == ("inbox", status["jobs"])
        assert (watch["source"], watch["sink"]) == (str(daemon.inbox), str(daemon.outbox))
        assert status["oldest_pending_seconds"] is None
        jobs = daemon.jobs()
        assert all(list(job) == JOB_KEYS for job in jobs)
        assert [job["id"] for job in jobs] == sorted((job["id"] for job in jobs), reverse=True)
        for job in jobs:
            if job["state"] == "completed":
                assert (job["error"], job["pages"], job["stage"], job["attempts"]) == (None, 1, None, 1)
                assert Path(job["output"]).name == f"{job['source']}.md"
            else:
                assert job["error"]
        assert len(daemon.jobs("--state", "failed")) == 3
        assert daemon.command("jobs", "--json", "--limit", "2").stdout.count("\n") == 2
        assert daemon.stop() == 0
        down = daemon.status()
        assert (down["daemon"]["running"], down["daemon"]["state"]) == (False, "stopped")
        assert down["jobs"] == status["jobs"]
        assert daemon.jobs() == jobs


def test_why_tells_the_story(tmp_path: Path) -> None:
    config = CONFIG + 'exclude = ["drafts/"]\n'
    with running(tmp_path, config) as daemon:
        daemon.drop("good.txt", b"words")
        daemon.drop("bad.pdf", documents.encrypted_pdf())
        daemon.drop("drafts/idea.txt", b"not yet")
        (daemon.inbox / "upload.part").write_bytes(b"half")
        settled(daemon, 1, 1)

        def why(what: str) -> str:
            result = daemon.command("why", what)
            assert result.returncode == 0, result.stderr
            return str(result.stdout)

        ids = {job["source"]: str(job["id"]) for job in daemon.jobs()}
        for story in (why(str(daemon.inbox / "good.txt")), why(ids["good.txt"])):
            assert "completed" in story
            assert "good.txt.md" in story
        for story in (why(str(daemon.inbox / "bad.pdf")), why(ids["bad.pdf"])):
            assert "failed" in story
            assert "encrypted: " in story
            assert f"convertd retry {ids['bad.pdf']}" in story
        assert "drafts/" in why(str(daemon.inbox / "drafts" / "idea.txt"))
        assert ".part" in why(str(daemon.inbox / "upload.part"))
        assert "not there" in why(str(daemon.inbox / "missing.txt"))
        assert daemon.command("why", str(tmp_path / "elsewhere.txt")).returncode == 2
        assert daemon.command("why", "4711").returncode == 2


# ---------------------------------------------------------------- retry, prune


def test_retry_with_the_daemon_up_and_down(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        for number in range(3):
            daemon.drop(f"{number}.pdf", documents.encrypted_pdf())
        daemon.drop("good.txt", b"words")
        settled(daemon, 1, 3)
        first = daemon.error("0.pdf").stat().st_ino
        ids = {job["source"]: str(job["id"]) for job in daemon.jobs()}
        assert daemon.command("retry", ids["0.pdf"]).returncode == 0
        until(lambda: daemon.error("0.pdf").stat().st_ino != first, "the job has failed again")
        settled(daemon, 1, 3)
        before = {name: daemon.error(name).stat().st_ino for name in ("0.pdf", "1.pdf", "2.pdf")}
        result = daemon.command("retry", "--failed")
        assert (result.returncode, result.stdout) == (0, "3 queued again\n")
        until(lambda: all(daemon.error(n).stat().st_ino != inode for n, inode in before.items()), "all failed again")
        settled(daemon, 1, 3)
        good = daemon.markdown("good.txt").stat().st_ino
        assert daemon.command("retry", ids["good.txt"]).returncode == 0  # a completed one, too
        until(lambda: daemon.markdown("good.txt").stat().st_ino != good, "it is converted again")
        settled(daemon, 1, 3)
        missing = daemon.command("retry", "4711")
        assert (missing.returncode, "4711" in missing.stderr) == (1, True)
        assert daemon.command("retry").returncode == 2
        assert daemon.command("retry", "1", "--failed").returncode == 2
        assert daemon.stop() == 0

        assert daemon.command("retry", "--failed").stdout == "3 queued again\n"
        assert counts(daemon) == (3, 0, 1, 0)
        assert daemon.once() == 1
        assert counts(daemon) == (0, 0, 1, 3)


def test_prune_does_not_make_convert_again(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG) as daemon:
        for name in ("kept.txt", "gone.txt"):
            daemon.drop(name, b"words")
        daemon.drop("bad.pdf", documents.encrypted_pdf())
        settled(daemon, 2, 1)
        before = outputs(daemon)
        (daemon.inbox / "gone.txt").unlink()
        assert daemon.command("prune").stdout.startswith("0 jobs dropped")  # nothing is 90 days old
        assert daemon.command("prune", "--older-than", "0s", "--keep-failed").stdout.startswith("2 jobs dropped")
        assert counts(daemon) == (0, 0, 0, 1)
        assert "pruned" in daemon.command("why", str(daemon.inbox / "kept.txt")).stdout
        assert daemon.stop() == 0
        assert daemon.command("prune", "--older-than", "0s").stdout.startswith("1 jobs dropped")
        assert daemon.once() == 0
        assert daemon.jobs() == []
        assert outputs(daemon) == before
        daemon.drop("gone.txt", b"words")
        assert daemon.once() == 0
        assert [job["source"] for job in daemon.jobs()] == ["gone.txt"]


@pytest.mark.parametrize("mount_point", [False, True])
def test_prune_forgets_nothing_of_a_folder_whose_disk_is_not_mounted(tmp_path: Path, mount_point: bool) -> None:
    daemon = Daemon(tmp_path, CONFIG)
    for name in ("a.txt", "b.txt"):
        daemon.drop(name, b"words")
    assert daemon.once() == 0
    dropped = daemon.command("prune", "--older-than", "0s")
    assert (dropped.returncode, dropped.stdout) == (0, "2 jobs dropped, 0 vanished documents forgotten\n")
    daemon.inbox.rename(tmp_path / "disk")
    if mount_point:
        daemon.inbox.mkdir()
    kept = daemon.command("prune", "--older-than", "0s")
    assert (kept.returncode, kept.stdout) == (1, "0 jobs dropped, 0 vanished documents forgotten\n")
    assert f"not forgotten: watch inbox: the folder {daemon.inbox}" in kept.stderr
    assert "mount its disk" in kept.stderr.lower()
    assert daemon.inbox.exists() == mount_point, "a new folder was made in its place"
    if mount_point:
        daemon.inbox.rmdir()
    (tmp_path / "disk").rename(daemon.inbox)
    assert daemon.once() == 0
    assert daemon.jobs() == []


# ---------------------------------------------------------------- what becomes of the source


def test_delete_on_success(tmp_path: Path) -> None:
    with running(tmp_path, CONFIG + 'on_success = "delete"\n') as daemon:
        good, bad = daemon.drop("sub/good.txt", b"words"), daemon.drop("bad.pdf", documents.encrypted_pdf())
        until(lambda: not good.exists(), "the source is deleted")
        settled(daemon, 1, 1)
        assert bad.exists()
        first = daemon.markdown("sub/good.txt").stat().st_ino
        daemon.drop("sub/good.txt", b"words")  # the same bytes again are a new document
        until(lambda: daemon.markdown("sub/good.txt").stat().st_ino != first, "it is converted again")
        until(lambda: not good.exists(), "the source is deleted again")


def test_move_on_success_and_on_failure(tmp_path: Path) -> None:
    config = CONFIG + 'on_success = "move:done"\non_failure = "move:bad"\n'
    with running(tmp_path, config) as daemon:
        locked = documents.encrypted_pdf()
        daemon.drop("locked.pdf", locked)
        for text in ("first", "second"):
            path = daemon.drop("sub/note.txt", text.encode())
            until(partial(gone, path), "the source is moved")
        until(lambda: len(files_in(tmp_path / "done")) == 2, "both are there")
        assert files_in(tmp_path / "done") == {"sub/note.txt": b"first", "sub/note~1.txt": b"second"}

        until(lambda: files_in(tmp_path / "bad") == {"locked.pdf": locked}, "the failed document is moved")
        [job] = until(lambda: daemon.jobs("--state", "failed"), "the job has failed")
        until(lambda: "moved to" in daemon.command("why", str(job["id"])).stdout, "its new place is recorded")
        first = daemon.error("locked.pdf").stat().st_ino
        assert daemon.command("retry", str(job["id"])).returncode == 0
        until(lambda: daemon.error("locked.pdf").stat().st_ino != first, "retry finds it in its new place")
        [job] = until(lambda: daemon.jobs("--state", "failed"), "the job has failed again")
        assert "password" in job["error"]
        assert files_in(tmp_path / "bad") == {"locked.pdf": locked}
        assert files_in(daemon.inbox) == {}


def gone(path: Path) -> bool:
    return not path.exists()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- mistakes and exit codes


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "convertd.toml").write_text(
        'workers = -1\ncolour = "red"\n[limits]\nconvert_time = "soon"\n[ocr]\nlanguages = ["klingon"]\n'
        '[[watch]]\nname = "a"\nsource = "inbox"\nsink = "inbox/out"\npriority = 11\non_success = "burn"\n'
    )
    result = convertd("run", cwd=tmp_path)
    assert result.returncode == 2
    for key in ("workers", "colour", "limits.convert_time", "ocr.languages[0]", "watch[0].sink", "watch[0].priority"):
        assert key in result.stderr
    assert "watch[0].on_success" in result.stderr
    assert "Traceback" not in result.stderr
    assert os.listdir(tmp_path) == ["convertd.toml"]


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["run"], 2),
        (["run", "inbox"], 2),
        (["run", "--config", "missing.toml"], 2),
        (["status"], 2),
        (["jobs", "--state", "unheard-of"], 2),
        (["prune", "--older-than", "yesterday"], 2),
        (["unheard-of"], 2),
        (["convert", "missing.pdf"], 1),
        (["convert", "a.txt", "b.txt"], 2),
        (["--help"], 0),
        (["--version"], 0),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: list[str], exit_code: int) -> None:
    result = convertd(*arguments, cwd=tmp_path)
    assert result.returncode == exit_code
    assert (result.stderr if exit_code else result.stdout).strip()
    assert "Traceback" not in result.stderr


# ---------------------------------------------------------------- convert


def test_convert_to_stdout_and_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(documents.pdf(["words of a"]))
    (tmp_path / "b.docx").write_bytes(documents.docx("words of b"))
    (tmp_path / "bad.pdf").write_bytes(documents.encrypted_pdf())
    one = convertd("convert", "a.pdf", cwd=tmp_path)
    assert (one.returncode, one.stdout.strip()) == (0, "words of a")
    many = convertd("convert", "a.pdf", "b.docx", "-o", "out", cwd=tmp_path)
    assert (many.returncode, many.stdout) == (0, "")
    assert sorted(files_in(tmp_path / "out")) == ["a.pdf.json", "a.pdf.md", "b.docx.json", "b.docx.md"]
    assert list(json.loads((tmp_path / "out/a.pdf.json").read_bytes())) == SIDECAR_KEYS
    shutil.rmtree(tmp_path / "out")
    mixed = convertd("convert", "a.pdf", "bad.pdf", "-o", "out", cwd=tmp_path)
    assert mixed.returncode == 1
    assert "bad.pdf" in mixed.stderr
    assert "password" in mixed.stderr
    assert (tmp_path / "out/a.pdf.md").exists()
    assert not [name for name in os.listdir(tmp_path) if "state" in name or "convertd" in name]
