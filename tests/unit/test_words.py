"""Text that is fit to be shown."""

from __future__ import annotations

import json
import sys
import unicodedata

from daemon.words import json_text

ACTED_ON = [
    char
    for char in map(chr, range(0x7F, sys.maxunicode + 1))
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
]
"""Controls, formats, surrogates and separators of lines."""
HARMLESS = "Grüße,\xa0日本\u3000語 \U0001f600"


def test_json_has_nothing_that_a_terminal_or_a_reader_of_lines_acts_on() -> None:
    value = {f"key {char}": f"{HARMLESS}\\{char}\n" for char in ACTED_ON}
    text = json_text(value)
    assert not set(ACTED_ON) & set(text)
    assert len(text.splitlines()) == 1
    assert text.count(HARMLESS) == len(value), "what is harmless stays legible"
    assert json.loads(text) == value
    assert json.loads(json_text(value, indent=2)) == value


def test_json_for_who_has_no_other_characters_is_ascii() -> None:
    text = json_text({"a": HARMLESS + "\x7f\x85"}, ascii_only=True)
    assert text.isascii() and text.isprintable()
    assert json.loads(text) == {"a": HARMLESS + "\x7f\x85"}
