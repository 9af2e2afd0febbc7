"""The log: values can neither forge lines nor steer a terminal, and nothing that happens to the stream is an error."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TextIO

import pytest

from daemon import logs

EVIL = "a\nforged: line\x1b[31m"


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_value_stays_on_its_line(form: str) -> None:
    stream = io.StringIO()
    log = logs.build("info", form, stream)
    log.info("converted", source=EVIL, warnings=[EVIL])
    log.debug("not shown")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[31m" not in stream.getvalue()


def test_json_holds_the_value_as_it_is() -> None:
    stream = io.StringIO()
    logs.build("info", "json", stream).info("converted", source=EVIL)
    assert json.loads(stream.getvalue())["source"] == EVIL


def test_a_traceback_keeps_its_lines_and_loses_its_escapes() -> None:
    stream = io.StringIO()
    log = logs.build("info", "console", stream)
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        log.error("internal error", exc_info=True)
    assert "Traceback" in stream.getvalue() and len(stream.getvalue().splitlines()) > 2
    assert "\x1b[31m" not in stream.getvalue()


def test_what_an_exception_says_forges_no_line_among_those_of_its_traceback() -> None:
    stream = io.StringIO()
    log = logs.build("info", "console", stream)
    log.error("internal error", exception=f"Traceback\nValueError: no such page in {EVIL}")
    log.info("next")
    assert [line[0] == " " for line in stream.getvalue().splitlines()] == [False, True, True, True, False]


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    log = logs.build("info", "json", stream)
    stream.close()
    log.error("nobody hears this")


@pytest.mark.parametrize("form", ["console", "json"])
def test_repeats_are_counted_and_not_written(form: str) -> None:
    stream = io.StringIO()
    log = logs.build("info", form, stream)
    for number in range(5):
        log.warning("attempt failed", watch="a", error=EVIL, job=number)
        log.info("converted", watch="a", job=number)
    assert len(stream.getvalue().splitlines()) == 1 + 5


# -- under systemd -----------------------------------------------------------------------------------------------------


def journal(stream: TextIO) -> dict[str, str]:
    """The environment that systemd gives to a process whose stream goes to the journal."""
    status = os.fstat(stream.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


def test_lines_for_the_journal_say_their_priority(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        log = logs.build("debug", "auto", stream, journal(stream))
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d", source=EVIL)
        stream.seek(0)
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>"]
    assert json.loads(lines[3][3:])["source"] == EVIL


def test_every_line_of_a_traceback_says_its_priority(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream:
        log = logs.build("info", "console", stream, journal(stream))
        try:
            raise ValueError("no")
        except ValueError:
            log.error("internal error", exc_info=True)
        stream.seek(0)
        lines = stream.read().splitlines()
    assert len(lines) > 2 and all(line.startswith("<3>") for line in lines)


def test_a_stream_that_goes_elsewhere_gets_no_priorities(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stream, (tmp_path / "other").open("w") as other:
        assert logs.is_journal(stream, journal(stream))
        assert not logs.is_journal(stream, journal(other))
        assert not logs.is_journal(stream, {})
    assert not logs.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
