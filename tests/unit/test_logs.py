"""The log: values can neither forge lines nor steer a terminal, and nothing that happens to the stream is an error."""

from __future__ import annotations

import io
import json

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


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    log = logs.build("info", "json", stream)
    stream.close()
    log.error("nobody hears this")
