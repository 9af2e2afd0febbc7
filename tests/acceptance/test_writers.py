"""However a document gets into the inbox, it is converted when it is whole, once, and its source is left intact."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import documents
from tests.harness import Daemon, running, until

CONFIG = """
state_dir = "state"
workers = 2
[engines]
text = ["tests.engines_for_tests:Command", "text"]
[[watch]]
name = "inbox"
source = "inbox"
sink = "outbox"
on_success = "{on_success}"
"""
FOLDERS = 1000
LATE_WRITERS = 100


@pytest.fixture(scope="module", params=["keep", "delete"])
def on_success(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def daemon(on_success: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with running(tmp_path_factory.mktemp("writers"), CONFIG.format(on_success=on_success)) as daemon:
        yield daemon
        if on_success == "delete":  # checked once, since a source is left alone until 5 s after its last change
            before = daemon.jobs()
            until(lambda: not files(daemon.inbox), "all sources are deleted")
            assert [job["id"] for job in daemon.jobs()] == [job["id"] for job in before]


def files(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones too."""
    return [path for path in folder.rglob("*") if path.is_file()]


def reads(markdown: Path, content: str) -> bool:
    """Whether the output is there and holds this."""
    return markdown.exists() and markdown.read_text().strip() == content.strip()


class Container:
    """A document that is worth nothing until its last byte is there."""

    def __init__(self, kind: str, words: str = "") -> None:
        lines = [f"{words}line {number} of forty" for number in range(40)]
        self.name = f"document.{kind}"
        self.lines = lines
        self.content = documents.pdf(lines) if kind == "pdf" else documents.docx("\n".join(lines))

    @property
    def chunks(self) -> list[bytes]:
        size = len(self.content) // 6 + 1
        return [self.content[start : start + size] for start in range(0, len(self.content), size)]

    def whole_in(self, markdown: Path) -> bool:
        text = markdown.read_text()
        return all(line in text for line in self.lines)


@pytest.fixture(params=["pdf", "docx"])
def container(request: pytest.FixtureRequest) -> Container:
    return Container(request.param)


def converted_once(daemon: Daemon, on_success: str, source: str, container: Container) -> None:
    """One job, no failure, the output whole; the source as it was written, or deleted."""
    assert daemon.outcome(source) == "converted"
    [job] = finished(daemon, source)
    assert job["state"] == "completed"
    assert container.whole_in(daemon.markdown(source))
    intact(daemon, on_success, source, container.content)


def finished(daemon: Daemon, source: str) -> list[dict[str, Any]]:
    """The jobs of a document, newest first, once all have ended."""

    def ended() -> list[dict[str, Any]]:
        jobs = [job for job in daemon.jobs() if job["source"] == source]
        return [] if any(job["state"] in ("pending", "processing") for job in jobs) else jobs

    found: list[dict[str, Any]] = until(ended, f"the jobs of {source} end")
    return found


def intact(daemon: Daemon, on_success: str, source: str, content: bytes) -> None:
    """The source is as its writer left it; where it is to be deleted it may be gone already."""
    try:
        assert (daemon.inbox / source).read_bytes() == content
    except FileNotFoundError:
        assert on_success == "delete"


def waits_for(daemon: Daemon, path: Path, reason: str) -> None:
    until(lambda: reason in daemon.command("why", str(path)).stdout, f"{path.name} waits: {reason}")


# ---------------------------------------------------------------- documents that are worth nothing until complete


def test_writer_that_holds_the_file_open(daemon: Daemon, on_success: str, container: Container) -> None:
    path = daemon.inbox / "held" / container.name
    path.parent.mkdir(exist_ok=True)
    with path.open("wb", buffering=0) as file:
        for number, chunk in enumerate(container.chunks):
            file.write(chunk)
            waits_for(daemon, path, "another process has it open for writing")
            progress(daemon, f"held/beside-{container.name}-{number}.txt")
        assert not [job for job in daemon.jobs() if job["source"] == f"held/{container.name}"]
    converted_once(daemon, on_success, f"held/{container.name}", container)


def test_writer_that_closes_and_reopens(daemon: Daemon, on_success: str, container: Container) -> None:
    path = daemon.inbox / "reopened" / container.name
    path.parent.mkdir(exist_ok=True)
    for number, chunk in enumerate(container.chunks):
        if number:
            waits_for(daemon, path, "its end is missing")
            progress(daemon, f"reopened/beside-{container.name}-{number}.txt")
        with path.open("ab") as file:
            file.write(chunk)
    converted_once(daemon, on_success, f"reopened/{container.name}", container)


def progress(daemon: Daemon, name: str) -> None:
    """The daemon takes another document meanwhile: it had every occasion to take the unfinished one."""
    daemon.drop(name, b"Echo words")
    assert daemon.outcome(name) == "converted"


def test_rename_into_place(daemon: Daemon, on_success: str, container: Container) -> None:
    path = daemon.inbox / "renamed" / container.name
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_bytes(container.content)
    unfinished.rename(path)
    converted_once(daemon, on_success, f"renamed/{container.name}", container)


def test_a_thousand_folders_copied(daemon: Daemon, on_success: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(FOLDERS):
        (tree / str(number)).mkdir(parents=True)
        (tree / str(number) / "a.pdf").write_bytes(documents.pdf([f"document {number} words"]))
    subprocess.run(["cp", "-r", str(tree), str(daemon.inbox)], check=True)
    until(lambda: sum(1 for _ in daemon.outbox.glob("tree/*/a.pdf.md")) == FOLDERS, "all are converted")
    until(lambda: not daemon.jobs("--state", "processing"), "all jobs have ended")
    jobs = [job for job in daemon.jobs() if job["source"].startswith("tree/")]
    assert len(jobs) == FOLDERS
    assert {job["state"] for job in jobs} == {"completed"}
    for number in range(FOLDERS):
        assert f"document {number} words" in daemon.markdown(f"tree/{number}/a.pdf").read_text()
    if on_success == "keep":
        assert sum(1 for _ in daemon.inbox.glob("tree/*/a.pdf")) == FOLDERS


def test_folder_moved_in(daemon: Daemon, on_success: str, container: Container, tmp_path: Path) -> None:
    folder = tmp_path / f"moved-{container.name}"
    names = ["a", "b/c", "b/d/e/f"]
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / container.name).write_bytes(container.content)
    subprocess.run(["mv", str(folder), str(daemon.inbox)], check=True)
    for name in names:
        converted_once(daemon, on_success, f"{folder.name}/{name}/{container.name}", container)


@pytest.mark.parametrize("kind", ["pdf", "docx"])
def test_replaced_quickly(daemon: Daemon, on_success: str, kind: str) -> None:
    """Each version is whole, so any may be converted, but the last output is that of the last version."""
    source = f"replaced.{kind}"
    versions = [Container(kind, f"version {number} ") for number in range(12)]
    for version in versions:
        daemon.drop(source, version.content)
    until(
        lambda: daemon.markdown(source).exists() and versions[-1].whole_in(daemon.markdown(source)),
        "the last version is converted",
    )
    jobs = finished(daemon, source)
    assert {job["state"] for job in jobs} <= {"completed", "superseded", "vanished"}
    assert versions[-1].whole_in(daemon.markdown(source))
    assert not daemon.error(source).exists()
    intact(daemon, on_success, source, versions[-1].content)


# ---------------------------------------------------------------- text: the last output is whole


def ends_as(daemon: Daemon, on_success: str, source: str, content: str) -> None:
    markdown = daemon.markdown(source)
    until(partial(reads, markdown, content), "the last content is there")
    assert {job["state"] for job in finished(daemon, source)} <= {"completed", "superseded", "vanished"}
    assert reads(markdown, content)
    intact(daemon, on_success, source, content.encode())


def test_text_written_in_pieces(daemon: Daemon, on_success: str) -> None:
    """Nobody can tell that a text is not complete, so pieces may be converted, but the last output is whole."""
    path, content = daemon.inbox / "pieces.txt", ""
    for number in range(6):
        content += f"Echo piece {number}.\n"
        with path.open("a") as file:
            file.write(f"Echo piece {number}.\n")
        if number % 2:
            assert daemon.outcome("pieces.txt") == "converted"
    ends_as(daemon, on_success, "pieces.txt", content)


def test_editor_saves_by_rename(daemon: Daemon, on_success: str) -> None:
    path, content = daemon.inbox / "edited.txt", ""
    for number in range(5):
        content = f"Echo save {number}.\n"
        swap = path.with_name(".edited.txt.swp")
        swap.write_text(content)
        swap.rename(path)
        if number in (0, 3):
            assert daemon.outcome("edited.txt") == "converted"
    ends_as(daemon, on_success, "edited.txt", content)


def test_text_overwritten_in_place(daemon: Daemon, on_success: str) -> None:
    path, content = daemon.inbox / "overwritten.txt", ""
    for number in range(20):
        content = f"Echo version {number}. " + "words " * (2000 - 90 * number)
        path.write_text(content)
    ends_as(daemon, on_success, "overwritten.txt", content)


# ---------------------------------------------------------------- a writer that comes back


def test_append_while_it_is_converted(daemon: Daemon, on_success: str) -> None:
    path = daemon.drop("appended.txt", b"Slow first words 1.5")
    until(lambda: stage(daemon, "appended.txt") == "convert", "the conversion has begun")
    with path.open("a") as file:
        file.write(" and the later words 0")
    ends_as(daemon, on_success, "appended.txt", "Slow first words 1.5 and the later words 0")


def test_append_by_a_writer_that_holds_it_open(daemon: Daemon, on_success: str) -> None:
    """Opened while it is converted, written after its output has appeared: before the source may be disposed of."""
    path = daemon.drop("held-open.txt", b"Slow first words 1")
    until(lambda: stage(daemon, "held-open.txt") == "convert", "the conversion has begun")
    with path.open("a") as file:
        assert daemon.outcome("held-open.txt") == "converted"
        file.write(" and the later words 0")
    ends_as(daemon, on_success, "held-open.txt", "Slow first words 1 and the later words 0")


def test_append_each_time_it_was_converted(daemon: Daemon, on_success: str) -> None:
    path, content = daemon.inbox / "appended-often.txt", ""
    markdown = daemon.markdown("appended-often.txt")
    for number in range(4):
        content += f"Echo entry {number}. "
        with path.open("a") as file:
            file.write(f"Echo entry {number}. ")
        until(partial(reads, markdown, content), "the entry is converted")
    ends_as(daemon, on_success, "appended-often.txt", content)


def test_append_at_the_moment_of_deletion(tmp_path: Path) -> None:
    """What a writer could still write is in the end in an output: the deletion sees it, or comes before the writer."""
    with running(tmp_path, CONFIG.format(on_success="delete")) as daemon:
        contents = {f"{number}.txt": f"Echo first words {number}." for number in range(LATE_WRITERS)}
        for name, content in contents.items():
            daemon.drop(name, content.encode())
        # Deleted is what has been quiet for 5 s: the writers come back shortly before and after, in random order.
        moments = {name: (daemon.inbox / name).stat().st_ctime + random.uniform(4.97, 5.06) for name in contents}
        late = []
        for name in sorted(moments, key=lambda name: moments[name]):
            until(partial(passed, moments[name]), "the writer comes back")
            try:
                file = os.open(daemon.inbox / name, os.O_WRONLY | os.O_APPEND)
            except FileNotFoundError:
                continue
            os.write(file, b" And the late words.")
            os.close(file)
            late.append(name)
        for name in late:
            contents[name] += " And the late words."
        for name, content in contents.items():
            until(partial(reads, daemon.markdown(name), content), f"{name} is converted with all its words")
        until(lambda: not files(daemon.inbox), "all sources are deleted")
        for name, content in contents.items():
            assert reads(daemon.markdown(name), content)
        assert not daemon.jobs("--state", "failed")


def passed(moment: float) -> bool:
    return time.time() >= moment


def stage(daemon: Daemon, source: str) -> str | None:
    return next((job["stage"] for job in daemon.jobs("--state", "processing") if job["source"] == source), None)
