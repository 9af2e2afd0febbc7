"""Sinks that fold names, where `A/x` and `a/x` are one file: nobody's results are replaced by those of another.

On a real file system of that kind, where one can be mounted; and anywhere with links, by which two names of a folder
are one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from daemon.checks import canary
from daemon.errors import DocumentError
from daemon.sinks.base import Origin
from daemon.sinks.folder import TEMPORARY, FolderSink
from tests.harness import Daemon, convertd, running, until

DISKS = (
    ("vfat", ("mkfs.vfat",)),
    ("exfat", ("mkfs.exfat",)),
    ("exfat-fuse", ("mkfs.exfat",)),
    ("ext4", ("mkfs.ext4", "-q", "-O", "casefold")),
)
CONFIG = """
state_dir = "state"
ocr.mode = "off"
[[watch]]
name = "inbox"
source = "inbox"
sink = "{}"
on_success = "delete"
"""
UPPER, LOWER = Origin(b"A/x.txt", "1"), Origin(b"a/x.txt", "1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that folds names."""
    if os.geteuid() != 0:
        pytest.skip("needs the right to mount")
    image, mounted = tmp_path / "image", tmp_path / "disk"
    mounted.mkdir()
    if not any(mount(kind, command, image, mounted) for kind, command in DISKS):
        pytest.skip("no file system that folds names can be made and mounted here")
    try:
        yield folding(mounted / "outbox")
    finally:
        subprocess.run(["umount", mounted], check=True)


def mount(kind: str, make: tuple[str, ...], image: Path, folder: Path) -> bool:
    if shutil.which(make[0]) is None:
        return False
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(64 << 20)
    commands = ([*make, str(image)], ["mount", "-o", "loop", "-t", kind, str(image), str(folder)])
    return all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)


def folding(folder: Path) -> Path:
    folder.mkdir()
    subprocess.run(["chattr", "+F", folder], capture_output=True)  # ext4 is told so of each folder
    return folder


@pytest.fixture(params=["links", "disk"])
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A sink in which `A` and `a` are the same folder."""
    if request.param == "disk":
        return Path(request.getfixturevalue("disk"))
    folder = tmp_path / "outbox"
    for name, other in ((os.fsdecode(TEMPORARY), os.fsdecode(TEMPORARY.upper())), ("a", "A")):
        (folder / name).mkdir(parents=True)
        (folder / other).symlink_to(name)
    return folder


def files(text: str, origin: Origin) -> dict[str, bytes]:
    return {".json": json.dumps({"source": os.fsdecode(origin.source)}).encode(), ".md": text.encode()}


def error(origin: Origin) -> dict[str, bytes]:
    return {".error.json": files("", origin)[".json"]}


def leftovers(outbox: Path) -> list[str]:
    return os.listdir(outbox / os.fsdecode(TEMPORARY)) + [name for name in os.listdir(outbox) if "canary" in name]


def test_the_results_of_another_document_are_not_replaced(outbox: Path) -> None:
    sink = FolderSink(str(outbox))
    sink.publish("A/x.txt", files("upper", UPPER), UPPER)
    with pytest.raises(DocumentError, match=r"replace that of A/x\.txt,") as refused:
        sink.publish("a/x.txt", files("lower", LOWER), LOWER)
    assert "Rename one of the two" in refused.value.hint
    with pytest.raises(DocumentError):
        sink.publish("a/x.txt", {".md": b"without a sidecar"}, LOWER)
    assert sink.read("A/x.txt", ".md") == b"upper"
    sink.publish("A/x.txt", files("a later version", UPPER), UPPER)
    assert sink.read("a/x.txt", ".md") == b"a later version"
    assert sink.folds() and leftovers(outbox) == []


def test_the_reason_of_another_document_is_neither_replaced_nor_removed(outbox: Path) -> None:
    sink = FolderSink(str(outbox))
    sink.publish("A/x.txt", error(UPPER), UPPER)
    with pytest.raises(DocumentError, match=r"A/x\.txt"):
        sink.publish("a/x.txt", error(LOWER), LOWER)
    sink.remove("a/x.txt", (".error.json",), LOWER)
    assert sink.read("a/x.txt", ".error.json") == error(UPPER)[".error.json"]
    sink.remove("A/x.txt", (".error.json",), UPPER)
    assert sink.read("A/x.txt", ".error.json") is None


def test_what_names_no_document_is_replaced(outbox: Path) -> None:
    sink = FolderSink(str(outbox))
    for content in (b"", b"no json", b"[]", b'{"source": 1}', b'{"source_base64": "?"}'):
        sink.publish("a/x.txt", {".json": content})
        sink.publish("A/x.txt", files("upper", UPPER), UPPER)
    assert sink.read("A/x.txt", ".md") == b"upper"


def test_of_two_at_once_one_is_refused(outbox: Path) -> None:
    """Each pair is published by two threads."""
    sink = FolderSink(str(outbox))

    def publish(place: int) -> str:
        folder, number = "aA"[place % 2], place // 2
        origin = Origin(f"{folder}/{number}".encode())
        try:
            sink.publish(f"{folder}/{number}", files(folder, origin), origin)
        except DocumentError:
            return ""
        return folder

    with ThreadPoolExecutor(8) as threads:
        published = list(threads.map(publish, range(200)))
    for number, (lower, upper) in enumerate(zip(published[::2], published[1::2], strict=True)):
        assert (lower == "") != (upper == "")
        assert sink.read(f"a/{number}", ".md") == (lower or upper).encode()
        assert json.loads(sink.read(f"a/{number}", ".json") or b"")["source"] == f"{lower or upper}/{number}"
    assert leftovers(outbox) == []


def test_a_sink_that_tells_names_apart_takes_both(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    sink = FolderSink(str(outbox))
    for origin in (UPPER, LOWER):
        sink.publish(os.fsdecode(origin.source), files(origin.version, origin), origin)
    assert sorted(os.listdir(outbox)) == [os.fsdecode(TEMPORARY), "A", "a"]
    assert not sink.folds() and leftovers(outbox) == []


def test_a_folding_disk_is_found_out_and_nothing_is_left(disk: Path) -> None:
    sink = FolderSink(str(disk))
    assert canary.try_out(os.fsencode(disk)).folds
    assert sink.folds(), "the folder that the sink lies in tells it before anything was written"
    sink.publish("Invoice.pdf", files("upper", Origin(b"Invoice.pdf")), Origin(b"Invoice.pdf"))
    with pytest.raises(DocumentError, match=r"Invoice\.pdf"):
        sink.publish("invoice.pdf", files("lower", Origin(b"invoice.pdf")), Origin(b"invoice.pdf"))
    assert sorted(os.listdir(disk)) == [os.fsdecode(TEMPORARY), "Invoice.pdf.json", "Invoice.pdf.md"]
    assert leftovers(disk) == []


def test_a_command_replaces_no_other_results_either(disk: Path, tmp_path: Path) -> None:
    for name in ("Note.txt", "note.txt"):
        (tmp_path / name).write_text(f"text of {name}")
    assert convertd("convert", "Note.txt", "-o", str(disk), cwd=tmp_path).returncode == 0
    second = convertd("convert", "note.txt", "-o", str(disk), cwd=tmp_path)
    assert second.returncode == 1 and "Note.txt" in second.stderr
    assert "Note.txt" in (disk / "note.txt.md").read_text()


def ended(daemon: Daemon, source: str) -> str:
    """How the newest job of this document has ended, once it has."""

    def state() -> str | None:
        found = [job["state"] for job in daemon.jobs() if job["source"] == source]
        return found[0] if found and found[0] in ("completed", "failed") else None

    return str(until(state, f"{source} ends"))


def test_a_document_fails_rather_than_replace_another_s_result(outbox: Path, tmp_path: Path) -> None:
    with running(tmp_path, CONFIG.format(outbox)) as daemon:
        daemon.drop("A/x.txt", b"the upper text")
        assert ended(daemon, "A/x.txt") == "completed"
        kept = daemon.drop("a/x.txt", b"the lower text")
        assert ended(daemon, "a/x.txt") == "failed"
        assert b"the upper text" in (outbox / "A" / "x.txt.md").read_bytes()
        reason = json.loads((outbox / "a" / "x.txt.error.json").read_bytes())
        assert (reason["source"], reason["kind"]) == ("a/x.txt", "internal") and "A/x.txt" in reason["message"]
        kept.rename(kept.with_name("y.txt"))
        assert ended(daemon, "a/y.txt") == "completed"
        assert b"the lower text" in (outbox / "a" / "y.txt.md").read_bytes()
        daemon.drop("A/x.txt", b"a later version")
        until(lambda: b"a later version" in (outbox / "A" / "x.txt.md").read_bytes(), "it replaces its own result")
        assert (outbox / "a" / "x.txt.error.json").exists()


def test_of_two_that_were_there_at_the_start_none_is_lost(outbox: Path, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, CONFIG.format(outbox))
    for name in ("A/x.txt", "a/x.txt"):
        daemon.drop(name, f"text of {name}".encode())
    assert daemon.once() == 1
    (left,) = [path for path in daemon.inbox.rglob("*") if path.is_file()]
    (gone,) = {"A/x.txt", "a/x.txt"} - {str(left.relative_to(daemon.inbox))}
    assert f"text of {gone}".encode() in (outbox / "a" / "x.txt.md").read_bytes()
