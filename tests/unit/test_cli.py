"""What commands suggest, send and reckon by themselves, without a daemon."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner

from daemon.cli import batch, convert, submit
from daemon.cli.common import batch_command
from daemon.errors import UsageError

HOSTILE = ["$(reboot)", "a b", "-rf", "--json", "'; reboot #", "a\u202eb"]


def parsed(command: click.Command, typed: str, *rest: str) -> dict[str, Any]:
    """What a command gets when this is pasted into a shell."""
    with command.make_context(str(command.name), [*shlex.split(typed)[2:], *rest]) as context:
        return context.params


@pytest.mark.parametrize("name", HOSTILE)
def test_a_suggested_command_names_the_batch_and_does_nothing_else(name: str) -> None:
    got = parsed(batch.command, batch_command(name, "--json"))
    assert (got["name"], got["as_json"]) == (name.replace("\u202e", "\\u202e"), True)


@pytest.mark.parametrize("name", HOSTILE)
def test_more_failures_than_are_shown_are_to_be_had_by_a_command_that_is_quoted(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = {"error_kind": "corrupt", "error": "no", "source": "a", "job": 1}
    jobs = {"pending": 0, "processing": 0, "completed": 0, "failed": batch.FEW_FAILURES + 5}
    report = {"batch": name, "watch": "in", "complete": True, "reason": None, "jobs": jobs}
    times = {"first_added_at": 0.0, "last_added_at": 0.0}
    batch._print({**report, **times, "failures": [failure] * batch.FEW_FAILURES})
    *_, last = capsys.readouterr().out.splitlines()
    assert last == f"  … and 5 more: {batch_command(name, '--json')}"


@pytest.mark.parametrize("interrupted", [False, True])
def test_submit_suggests_a_command_that_is_quoted(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    def hand_over(submission: submit.Submission, files: tuple[str, ...]) -> bool:
        submission.jobs[1] = "a.txt"
        if interrupted:
            raise KeyboardInterrupt
        return False

    place = SimpleNamespace(state=SimpleNamespace(require_owner=lambda: None, socket=""))
    monkeypatch.setattr(submit, "locate", lambda *_: place)
    monkeypatch.setattr(submit.Submission, "hand_over", hand_over)
    said = CliRunner().invoke(submit.command, ["a.txt", "--batch=$(reboot)"])
    assert said.output.endswith(": convertd batch '$(reboot)'\n")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_to_be_submitted_again_goes_to_the_same_batch(name: str) -> None:
    hint = submit.Submission("", None, None, name)._again
    typed = hint.removeprefix("Submit again with ").removesuffix(": what was taken already is not taken twice.")
    assert parsed(submit.command, f"convertd submit {typed}", "a.txt")["batch"] == name.replace("\u202e", "\\u202e")


def test_the_names_of_files_are_sent_as_their_bytes_whatever_the_locale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def ask(socket: str, command: str, **values: Any) -> dict[str, Any]:
        asked.update(values)
        return {"busy": False}

    monkeypatch.setattr(submit, "ask", ask)
    with (tmp_path / "a").open("wb") as file, monkeypatch.context() as locale:
        locale.setattr(os, "fsencode", lambda name: name.encode("latin-1", "surrogateescape"))
        submit.Submission("", None, None, "x")._ask([("some/\xc3\xbc.pdf", file.fileno())])
    assert asked["files"] == [{"name": "ü.pdf", "size_bytes": 0}]


def test_two_files_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="to the same name: a, b"):
        convert._refuse_collisions(("x/b", "x/a", "c", "y/a", "y/b", "z/b"))


class Name(str):
    """Counts how often one is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)


def test_names_of_many_files_are_not_each_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    files = tuple(f"{number}.pdf" for number in range(2000))
    with monkeypatch.context() as counting:
        counting.setattr(os.path, "basename", Name)
        convert._refuse_collisions(files)
    assert Name.compared < 10 * len(files)
