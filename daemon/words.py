"""Words that even the quickest commands need: of jobs, of the configuration, and text that is fit to be shown.

Loaded by every command, so it imports nothing that takes time.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import NamedTuple

SHOWN_CHARACTERS = 120
_ACTED_ON = (
    r"[\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    r"\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""Controls, separators of lines, marks of direction and all else that is there without being seen, lone surrogates."""


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


def json_text(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """JSON for people and programs: what it may leave raw, and terminals or readers of lines act on, is escaped."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    # By a pattern, as a text may be a whole document; compiled when first needed, which for most commands is never.
    return text if text.isascii() and "\x7f" not in text else re.sub(_ACTED_ON, _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1] if found[0] != "\x7f" else "\\u007f"


def show(value: object) -> str:
    """A value of the configuration as TOML would write it, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # more digits than Python writes out
        text = "an enormous number"
    except RecursionError:  # dotted keys nest without end where brackets do not
        text = "values nested too deeply"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
