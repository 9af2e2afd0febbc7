"""Commands in odd situations: a broken configuration, a stopped daemon, names and logs that are not as usual."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.common import print_json
from tests.harness import DEADLINE_SECONDS, Daemon, convertd, environment, until

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


def printing(folder: Path, *arguments: str, stdout: int, env: dict[str, str] | None = None) -> Any:
    """Run a command whose standard output is this descriptor."""
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        cwd=folder,
        env=environment(env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def python_says(stderr: str) -> bool:
    """Whether the interpreter has spoken, instead of convertd."""
    return any(words in stderr for words in ("Traceback", "Exception ignored", "BrokenPipe"))


WORDS = {"short": b"some words", "long": b"some words\n\n" * 3000}
"""The Markdown of the one is written when the buffer is emptied, that of the other at once."""


@pytest.fixture
def converted(daemon: Daemon) -> list[list[str]]:
    """Commands that print, of a folder in which one document was converted."""
    assert daemon.config is not None
    daemon.config.write_text(CONFIG + 'batch = "subfolder"\n')
    daemon.drop("x/a\u202e\u2028.txt", "words → \U0001f600 ü".encode())
    assert daemon.once() == 0
    return [["--help"], *([*command, *daemon.where] for command in (["status"], ["jobs"], ["batch", "x", "--jsonl"]))]


@pytest.mark.parametrize("words", WORDS)
def test_markdown_that_does_not_fit_on_the_disk_is_said_to_be_lost(tmp_path: Path, words: str) -> None:
    (tmp_path / "a.txt").write_bytes(WORDS[words])
    with open("/dev/full", "wb") as full:
        result = printing(tmp_path, "convert", "a.txt", stdout=full.fileno())
    assert "convertd: standard output cannot be written: No space left on device\n  → Free space" in result.stderr
    assert (result.returncode, python_says(result.stderr)) == (1, False)


def test_what_commands_print_on_a_full_disk_is_said_to_be_lost(tmp_path: Path, converted: list[list[str]]) -> None:
    for arguments in converted:
        with open("/dev/full", "wb") as full:
            result = printing(tmp_path, *arguments, stdout=full.fileno())
        assert "cannot be written: No space left on device" in result.stderr, arguments
        assert (result.returncode, python_says(result.stderr)) == (1, False), arguments


def test_a_reader_that_is_gone_is_no_news(tmp_path: Path, converted: list[list[str]]) -> None:
    for words in WORDS:
        (tmp_path / f"{words}.txt").write_bytes(WORDS[words])
    for arguments in [*converted, ["convert", "short.txt"], ["convert", "long.txt"]]:
        ours, theirs = os.pipe()
        os.close(ours)
        try:
            result = printing(tmp_path, *arguments, stdout=theirs)
        finally:
            os.close(theirs)
        assert (result.returncode, python_says(result.stderr)) == (1, False), (arguments, result.stderr)
        assert "→" not in result.stderr, "nothing else went wrong either"


def test_nothing_is_converted_for_a_closed_output(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"some words")
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "daemon", "convert", "a.txt"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True, timeout=DEADLINE_SECONDS
    )
    assert (result.returncode, python_says(result.stderr)) == (2, False)
    assert "standard output is closed" in result.stderr and "-o DIR" in result.stderr


def test_a_terminal_without_all_characters_is_told_the_others_by_their_numbers(
    daemon: Daemon, converted: list[list[str]]
) -> None:
    daemon.env["PYTHONIOENCODING"] = "latin-1"
    status = daemon.command("status")
    assert (status.returncode, status.stderr) == (0, "")
    assert f"{daemon.inbox} \\u2192 {daemon.outbox}" in status.stdout
    refused = daemon.command("batch", "\u2192")
    assert (refused.returncode, "there is no batch \\u2192\n  \\u2192 It may" in refused.stderr) == (2, True)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_an_export_is_a_line_a_document_whatever_it_holds(
    daemon: Daemon, converted: list[list[str]], encoding: str
) -> None:
    daemon.env["PYTHONIOENCODING"] = encoding
    result = daemon.command("batch", "x", "--jsonl")
    (line,) = result.stdout.splitlines()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["source"], found["markdown"].strip()) == ("x/a\u202e\u2028.txt", "words → \U0001f600 ü")
