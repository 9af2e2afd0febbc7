"""The log: one line an event, console on a terminal and JSON elsewhere. Values can never forge a line.

Under systemd each line says its priority to the journal (sd-daemon(3)). Repeats are counted instead of written
(`daemon.repeats`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, TextIO, cast

from daemon.model import printable
from daemon.repeats import Repeats

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


class Log(Protocol):
    """What the rest of convertd needs of a log. Safe to use from any thread."""

    def debug(self, event: str, **values: Any) -> Any: ...
    def info(self, event: str, **values: Any) -> Any: ...
    def warning(self, event: str, **values: Any) -> Any: ...
    def error(self, event: str, **values: Any) -> Any: ...


class Lossy:
    """A stream that is never an error: a full disk or a closed terminal under the log must not stop the work."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def build(level: str, form: str, stream: TextIO = sys.stderr, environ: Mapping[str, str] = os.environ) -> Log:
    """A log that writes to `stream`. `form` is auto, json or console; auto is console on a terminal."""
    import structlog

    console = form == "console" or (form == "auto" and stream.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty())
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=True)
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *([_printable] if console else []),
        renderer,
        *([_with_priority] if is_journal(stream, environ) else []),
    ]
    logger = structlog.WriteLogger(cast(TextIO, Lossy(stream)))
    filtering = structlog.make_filtering_bound_logger(getattr(logging, level.upper()))

    def wrapped(*first: Any) -> Any:
        return structlog.wrap_logger(
            logger, processors=[*first, *processors], wrapper_class=filtering, cache_logger_on_first_use=True
        )

    bare = wrapped()
    repeats = Repeats(lambda method, event, values: getattr(bare, method)(event, **values))

    def once(_: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if not repeats.is_new(method, str(event.get("event")), event):
            raise structlog.DropEvent
        return event

    return cast(Log, wrapped(once))


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether what is written to the stream goes to the journal, and nowhere else."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _with_priority(logger: Any, method: str, text: str) -> str:
    """Every line of it: the journal takes each for a message of its own."""
    prefix = f"<{PRIORITIES.get(method, 6)}>"
    return "\n".join(prefix + line for line in text.split("\n"))


def _printable(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
    """Control characters in a value would break the console's line, or steer the terminal."""
    return {key: _harmless(key, value) for key, value in event.items()}


def _harmless(key: str, value: Any) -> Any:
    if key == "exception":  # a traceback keeps its lines; none of them begins as one of the log does
        return "\n".join(f"  {printable(line)}" for line in str(value).split("\n"))
    return value if isinstance(value, (int, float)) or value is None else printable(str(value))
