"""Commands in odd situations: a broken configuration, a stopped daemon, names and logs that are not as usual."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.cli.common import print_json
from tests.harness import Daemon, convertd, environment, until

CONFIG = 'state_dir = "state"\n[[watch]]\nname = "inbox"\nsource = "inbox"\nsink = "outbox"\n'


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path, CONFIG)
    yield daemon
    daemon.close()


def test_a_retry_of_a_converted_document_makes_its_output_again(daemon: Daemon) -> None:
    daemon.drop("a.txt", b"some words")
    assert daemon.once() == 0
    daemon.markdown("a.txt").unlink()
    assert daemon.command("retry", "1").returncode == 0
    assert daemon.once() == 0
    assert daemon.markdown("a.txt").read_text().strip() == "some words"


def test_a_sidecar_of_before_sidecars_were_given_up_does_not_describe_other_markdown(daemon: Daemon) -> None:
    assert daemon.config is not None
    daemon.drop("a.txt", b"some words")
    daemon.drop("b.txt", b"other words")
    assert daemon.once() == 0
    daemon.config.write_text(CONFIG + 'formats = ["md"]\n')
    foreign = daemon.markdown("b.txt").with_suffix(".json")
    foreign.write_text('{"source": "of somebody else"}')
    daemon.drop("a.txt", b"some more words")
    daemon.drop("b.txt", b"more words")
    assert daemon.once() == 0
    assert daemon.markdown("a.txt").read_text().strip() == "some more words"
    assert not daemon.markdown("a.txt").with_suffix(".json").exists()
    assert daemon.markdown("b.txt").read_text().strip() == "more words"
    assert foreign.read_text() == '{"source": "of somebody else"}'


def test_a_disposal_is_called_off_by_a_changed_configuration(daemon: Daemon) -> None:
    assert daemon.config is not None
    daemon.config.write_text(CONFIG + 'on_success = "delete"\n')
    source = daemon.drop("a.txt", b"some words")
    daemon.start()
    until(lambda: daemon.status()["jobs"]["completed"] == 1, "the document is converted")
    daemon.kill()
    assert source.exists(), "a source is deleted no sooner than 5 s after its last change"
    daemon.config.write_text(CONFIG)
    assert daemon.once() == 0
    assert os.listdir(daemon.inbox) == ["a.txt"]
    assert "disposed" not in daemon.command("why", str(source)).stdout


def test_a_stopped_process_is_told_apart_from_none(daemon: Daemon) -> None:
    process = daemon.start().process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        status = daemon.status()
    finally:
        process.send_signal(signal.SIGCONT)
    assert status["daemon"] == {
        "running": True,
        "pid": process.pid,
        "version": None,
        "uptime_seconds": None,
        "state": "not answering",
    }


def test_looking_works_with_a_broken_configuration(daemon: Daemon) -> None:
    daemon.drop("a.txt", b"some words")
    assert daemon.once() == 0
    assert daemon.config is not None
    daemon.config.write_text(CONFIG.replace("[[watch]]", "workers = -1\n[[watch]]") + 'prioritee = 3\nformats = "md"\n')
    result = daemon.command("status", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["jobs"]["completed"] == 1
    assert [key in result.stderr for key in ("workers", "prioritee", "formats")] == [True, True, True]
    run = daemon.command("run", "--once")
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 3, "one line a mistake"


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox" / "a.txt").write_bytes(b"some words")
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            [sys.executable, "-m", "daemon", "run", "inbox", "outbox", "--once"],
            cwd=tmp_path,
            env=environment(),
            stderr=full,
            timeout=90,
        )
    assert run.returncode == 0
    assert (tmp_path / "outbox" / "a.txt.md").exists()


def test_folders_whose_names_are_not_utf8(tmp_path: Path) -> None:
    inbox = os.path.join(os.fsencode(tmp_path), b"in\xff")
    os.mkdir(inbox)
    with open(os.path.join(inbox, b"caf\xe9.txt"), "wb") as file:
        file.write(b"some words")
    folders = [os.fsdecode(inbox), os.fsdecode(os.path.join(os.fsencode(tmp_path), b"out\xfe"))]
    run = convertd("run", *folders, "--once", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    status = convertd("status", "--json", cwd=tmp_path)
    assert json.loads(status.stdout)["watches"][0]["source"].endswith("in\\xff")
    why = convertd("why", os.path.join(folders[0], "caf\udce9.txt"), cwd=tmp_path)
    assert "completed" in why.stdout, why.stderr


def test_why_finds_a_document_by_whatever_link_it_is_named(daemon: Daemon, tmp_path: Path) -> None:
    daemon.drop("sub/a.txt", b"some words")
    assert daemon.once() == 0
    (tmp_path / "link").symlink_to(daemon.inbox)
    result = daemon.command("why", str(tmp_path / "link" / "sub" / "a.txt"))
    assert "completed" in result.stdout and ".." not in result.stdout
    assert daemon.command("why", str(tmp_path / "elsewhere.txt")).returncode == 2


@pytest.mark.parametrize(
    "arguments", [("why", "99999999999999999999"), ("retry", "99999999999999999999"), ("why", "²")]
)
def test_numbers_that_are_none_are_wrong_use(daemon: Daemon, arguments: tuple[str, str]) -> None:
    daemon.once()
    result = daemon.command(*arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_json_carries_no_character_that_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"source": "a\x7f\x85\u2028\x9b é"}
    print_json(value)
    written = capsys.readouterr().out
    assert all(char.isprintable() for char in written.rstrip("\n"))
    assert json.loads(written) == value
