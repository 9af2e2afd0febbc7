"""When a file is taken: real files, a clock put forward at will."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.sources.readiness import Readiness, Ready, Unready
from daemon.sources.version import file_version, may_be_copy, same_but_for_identity, same_file
from tests.watching import Clock, pdf


def readiness(folder: Path, clock: Clock, settle_seconds: float = 0.02) -> Readiness:
    return Readiness(os.fsencode(folder), settle_seconds, clock.time, clock.monotonic)


def docx() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "<w/>" * 100)
    return buffer.getvalue()


def test_a_quiet_file_is_ready_at_first_sight(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    verdict = readiness(tmp_path, Clock(5)).examine(b"a.txt")
    assert verdict == Ready(file_version((tmp_path / "a.txt").stat()), 5)


def test_a_file_that_has_just_changed_waits_for_the_rest_of_the_settle_time(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    judge = readiness(tmp_path, Clock(), settle_seconds=500)
    verdict = judge.examine(b"a.txt")
    assert isinstance(verdict, Unready)
    assert verdict.reason == "it has just changed"
    assert 0 < verdict.seconds <= 1


def test_a_file_open_for_writing_waits_however_old_it_is(tmp_path: Path) -> None:
    clock = Clock(10_000)
    judge = readiness(tmp_path, clock)
    with (tmp_path / "a.txt").open("wb") as file:
        file.write(b"hello")
        file.flush()
        delays = []
        verdict: Ready | Unready | None = None
        for _ in range(20):
            assert not isinstance(verdict, Ready)
            verdict = judge.examine(b"a.txt", verdict)
            assert isinstance(verdict, Unready)
            delays.append(verdict.seconds)
        assert delays[0] == pytest.approx(0.02)
        assert delays == sorted(delays)
        assert delays[-1] == pytest.approx(1.0)
    assert isinstance(judge.examine(b"a.txt"), Ready)


def test_a_change_time_in_the_future_is_watched_instead_of_believed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    clock = Clock(-1000)
    judge = readiness(tmp_path, clock)
    verdict = judge.examine(b"a.txt")
    assert isinstance(verdict, Unready)
    clock.ahead_seconds += 1
    assert isinstance(judge.examine(b"a.txt", verdict), Ready)


def test_on_a_network_file_system_a_file_is_watched_for_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    clock = Clock(100)
    judge = readiness(tmp_path, clock)
    judge.network = True
    first = judge.examine(b"a.txt")
    assert isinstance(first, Unready)
    clock.ahead_seconds += 1.5
    second = judge.examine(b"a.txt", first)
    assert isinstance(second, Unready)
    (tmp_path / "a.txt").write_bytes(b"more")
    clock.ahead_seconds += 1
    third = judge.examine(b"a.txt", second)
    assert isinstance(third, Unready), "it has changed: the two seconds begin again"
    clock.ahead_seconds += 2.1
    assert isinstance(judge.examine(b"a.txt", third), Ready)


@pytest.mark.parametrize("cut", [-1, -100, 8])
@pytest.mark.parametrize("make", [pdf, docx])
def test_a_cut_off_container_waits_until_it_is_quiet_for_30_seconds(
    tmp_path: Path, make: Callable[[], bytes], cut: int
) -> None:
    content = make()
    if content.startswith(b"%PDF") and cut == -1:
        cut = -30
    (tmp_path / "a").write_bytes(content[:cut])
    clock = Clock(1)
    judge = readiness(tmp_path, clock)
    verdict = judge.examine(b"a")
    assert isinstance(verdict, Unready)
    assert "end is missing" in verdict.reason
    clock.ahead_seconds = 31
    assert isinstance(judge.examine(b"a", verdict), Ready)
    (tmp_path / "a").write_bytes(content)
    clock.ahead_seconds = 1
    assert isinstance(judge.examine(b"a"), Ready), "whole, it is taken at once"


def test_the_end_of_a_document_stored_inside_is_not_the_end_of_the_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.docx", docx())
        archive.writestr("more.txt", b"x" * 200)
    (tmp_path / "a.zip").write_bytes(buffer.getvalue()[:-150])
    assert isinstance(readiness(tmp_path, Clock(1)).examine(b"a.zip"), Unready)


def test_a_zip_with_a_comment_is_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"a")
        archive.comment = b"c" * 1000
    assert isinstance(readiness(tmp_path, Clock(1)).examine(b"a.zip"), Ready)


def test_an_empty_container_waits_and_an_empty_text_does_not(tmp_path: Path) -> None:
    for name in ("a.PDF", "b.docx", "c.txt", "d"):
        (tmp_path / name).touch()
    judge = readiness(tmp_path, Clock(1))
    (tmp_path / "e.pdf").write_bytes(b"%PD")
    assert isinstance(judge.examine(b"a.PDF"), Unready)
    assert isinstance(judge.examine(b"b.docx"), Unready)
    assert isinstance(judge.examine(b"e.pdf"), Unready)
    assert isinstance(judge.examine(b"c.txt"), Ready)
    assert isinstance(judge.examine(b"d"), Ready)
    assert isinstance(readiness(tmp_path, Clock(31)).examine(b"a.PDF"), Ready)


def test_what_is_gone_or_lies_behind_a_link_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret").write_bytes(b"s")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    judge = readiness(tmp_path / "in", Clock(5))
    for source in (b"absent", b"link", b"link/secret", b"absent/file", b"../out/secret"):
        assert judge.examine(source) is None, source


def test_a_file_that_cannot_be_read_becomes_a_job_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "a.txt").chmod(0)
    if os.access(tmp_path / "a.txt", os.R_OK):
        pytest.skip("root reads everything")
    assert isinstance(readiness(tmp_path, Clock(5)).examine(b"a.txt"), Ready)


def test_versions_differ_where_the_content_may(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, ns=(-5, -7))
    first = path.stat()
    path.chmod(0o600)
    os.utime(path, ns=(-5, -7))
    touched = path.stat()
    path.unlink()
    (tmp_path / "other").touch()
    path.write_bytes(b"one")
    os.utime(path, ns=(-5, -7))
    copied = path.stat()
    path.write_bytes(b"two")
    rewritten = path.stat()
    versions = [file_version(status) for status in (first, touched, copied, rewritten)]
    assert len(set(versions)) == 4
    assert same_file(versions[0], versions[1])
    assert not same_file(versions[0], versions[2])
    assert same_but_for_identity(versions[0], versions[1])
    assert same_but_for_identity(versions[0], versions[2])
    assert not same_but_for_identity(versions[0], versions[3])


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("7-1987654321-3-4", True),
        ("8-1987654321-3-4", False),
        ("7-1987654300-3-4", True),
        ("7-1980000000-3-4", True),
        ("7-0-3-4", True),
        ("7-2000000000-3-4", True),  # one that rounds up
        ("7-1987654320-3-4", False),  # near, but not as round as any file system makes it
        ("7-1980000100-3-4", False),
        ("7-4000000000-3-4", False),
        ("7--2000000000-3-4", False),
    ],
)
def test_a_moved_file_is_known_by_a_time_that_was_rounded(version: str, *, known: bool) -> None:
    assert may_be_copy(version, "7-1987654321-1-2") is known


def test_a_time_before_the_epoch_is_rounded_like_any_other() -> None:
    assert may_be_copy("7--100-3-4", "7--7-1-2")
    assert not may_be_copy("7--101-3-4", "7--7-1-2")
