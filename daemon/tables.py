"""Reading parsed TOML: each key is checked where it is taken, and every mistake is collected, none raised."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import TypeVar

from daemon.values import Parser, Refusal
from daemon.words import printable, show

T = TypeVar("T")

_BARE_KEY = r"[A-Za-z0-9_-]+"


class Mistakes:
    """Collects the mistakes of one configuration as lines. `labels` renames keys for whoever did not write them."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._labels = labels or {}

    def label(self, key: str) -> str:
        """What the user knows this key as."""
        return self._labels.get(key, key)

    def add(self, key: str, found: str, allowed: str, reason: str = "") -> None:
        """One mistake: `found` is already fit to be shown, see `show`."""
        what = f"{found}; {reason}" if reason else found
        self.lines.append(printable(f"{self.label(key)}: found {what}; allowed: {allowed}"))


class Table:
    """One table of the file. Whoever reads it takes each key it knows, then calls `finish`: the rest is unknown."""

    def __init__(self, values: Mapping[str, object], mistakes: Mistakes, key: str = "") -> None:
        self._values = values
        self._mistakes = mistakes
        self._key = key
        self._known: list[str] = []
        self._refused: set[str] = set()

    def value(self, key: str, parse: Parser[T], default: T, *, required: bool = False) -> T:
        """The parsed value; `default` where there is none or it is refused."""
        if self._take(key):
            try:
                return parse(self._values[key])
            except Refusal as refusal:
                self.refuse(key, show(self._values[key]), refusal.allowed, refusal.reason)
        elif required:
            self.refuse(key, "nothing", _allowed_by(parse))
        return default

    def values(
        self,
        key: str,
        parse: Parser[T],
        default: tuple[T, ...],
        what: str,
        *,
        empty: bool = False,
        repeated: bool = False,
    ) -> tuple[T, ...]:
        """A list of values. `what` names them; it may be `empty`, and values may be `repeated`, only where said so."""
        if not self._take(key):
            return default
        found = self._values[key]
        if not isinstance(found, list) or not (found or empty):
            self.refuse(key, show(found), f"a list of {what}" + ("" if empty else ", at least one"))
            return default
        parsed: list[T] = []
        for index, item in enumerate(found):
            try:
                one = parse(item)
            except Refusal as refusal:
                self._refuse_item(key, index, show(item), refusal.allowed, refusal.reason)
                continue
            if one in parsed and not repeated:
                self._refuse_item(key, index, f"{show(item)} again", "each of them once")
            parsed.append(one)
        return tuple(parsed) if len(parsed) == len(found) else default

    def table(self, key: str) -> Table:
        """A table below this one, empty where there is none."""
        values: object = self._values[key] if self._take(key) else {}
        if not isinstance(values, dict):
            self.refuse(key, show(values), f"a table: [{self.path(key)}]")
            values = {}
        return Table(values, self._mistakes, self.path(key))

    def tables(self, key: str) -> list[Table]:
        """The tables of `[[key]]`."""
        values: object = self._values[key] if self._take(key) else []
        if not isinstance(values, list) or not all(isinstance(item, dict) for item in values):
            self.refuse(key, show(values), f"tables with double brackets: [[{self.path(key)}]]")
            values = []
        return [Table(item, self._mistakes, f"{self.path(key)}[{index}]") for index, item in enumerate(values)]

    def take_all(self) -> list[str]:
        """All keys that are there, taken, whatever they are."""
        self._known += self._values
        return list(self._values)

    def sound(self, *keys: str) -> bool:
        """Whether none of these was refused."""
        return self._refused.isdisjoint(keys)

    def refuse(self, key: str, found: str, allowed: str, reason: str = "") -> None:
        """Note a mistake at this key."""
        self._refused.add(key)
        self._mistakes.add(self.path(key), found, allowed, reason)

    def refuse_all(self, found: str, allowed: str, reason: str = "") -> None:
        """Note a mistake that is about the whole table."""
        self._mistakes.add(self._key, found, allowed, reason)

    def path(self, key: str) -> str:
        """The key's path from the top of the file, as TOML writes it."""
        shown = key if re.fullmatch(_BARE_KEY, key) else json.dumps(key)
        return f"{self._key}.{shown}" if self._key else shown

    def finish(self) -> None:
        """Every key that nobody took is a mistake."""
        for key in self._values:
            if key not in self._known:
                allowed = f"{', '.join(sorted(self._known))}{did_you_mean(key, self._known)}"
                self._mistakes.add(self.path(key), "an unknown key", allowed)

    def _refuse_item(self, key: str, index: int, found: str, allowed: str, reason: str = "") -> None:
        self._refused.add(key)
        self._mistakes.add(f"{self.path(key)}[{index}]", found, allowed, reason)

    def _take(self, key: str) -> bool:
        self._known.append(key)
        return key in self._values


def did_you_mean(found: str, allowed: Collection[str]) -> str:
    """The nearest of the allowed words as a question in brackets, or nothing."""
    import difflib

    near = difflib.get_close_matches(found.lower(), list(allowed), 1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def _allowed_by(parse: Parser[object]) -> str:
    try:
        parse(None)
    except Refusal as refusal:
        return refusal.allowed
    raise AssertionError("a parser that takes nothing for a value")
