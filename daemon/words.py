"""Words that even the quickest commands need: of jobs, of the configuration, and text that is fit to be shown.

Loaded by every command, so it imports nothing that takes time.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import NamedTuple

SHOWN_CHARACTERS = 120


class State(StrEnum):
    """The state of a job. The last three are final without being failures."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    VANISHED = "vanished"
    SUPERSEDED = "superseded"


class Stage(StrEnum):
    """What a processing job does now."""

    FETCH = "fetch"
    CONVERT = "convert"
    DELIVER = "deliver"


class Disposal(NamedTuple):
    """What becomes of a source document after its job: `action` is keep, delete or move; `target` is where to."""

    action: str = "keep"
    target: str = ""


def display(source: bytes) -> str:
    """A source path as text for people: undecodable bytes and control characters are shown, not emitted."""
    return printable(source.decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Text that a document or a library chose, as one line that can neither steer a terminal nor forge a second one."""
    if text.isprintable():  # as nearly all is
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def show(value: object) -> str:
    """A value of the configuration as TOML would write it, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # more digits than Python writes out
        text = "an enormous number"
    except RecursionError:  # dotted keys nest without end where brackets do not
        text = "values nested too deeply"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
