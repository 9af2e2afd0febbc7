"""Parsers of configuration values: each turns a value of the file into what the program uses, or refuses it.

A parser never guesses: what it cannot take it answers with `Refusal`, which says what would have been allowed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from daemon.globs import Globs
from daemon.model import Disposal

T = TypeVar("T")
Parser = Callable[[object], T]

LARGEST_BYTES = 2**50

_SIZE_UNITS = {
    "b": 1,
    **{letter + "b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{letter + "ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(r"(\d{1,15}(?:\.\d{1,15})?) ?([A-Za-z]+)", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(/[A-Za-z][A-Za-z0-9_-]*)?")
_ENGINE = re.compile(r"[a-z0-9][a-z0-9_-]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_WATCH_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Refusal(ValueError):
    """A value is not allowed; `allowed` says what is, `reason` more where that helps."""

    def __init__(self, allowed: str, reason: str = "") -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.reason = reason


def whole_number(low: int, high: int) -> Parser[int]:
    """An integer from `low` to `high`."""

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise Refusal(f"a whole number from {low} to {high}")

    return parse


def size_bytes(low: int) -> Parser[int]:
    """A size of at least `low` bytes: "512MiB", "1.5GB", or a number of bytes."""

    def parse(value: object) -> int:
        amount = _amount(value, _SIZE_UNITS)
        if amount is not None and low <= amount <= LARGEST_BYTES:
            return int(amount)
        least = f" of at least {format_size(low)}" if low > 1 else ""
        raise Refusal(f'a size{least}: a number of bytes, or one with B, KiB, MiB, GiB, TiB, such as "2GiB"')

    return parse


def duration_seconds(low: float, high: float) -> Parser[float]:
    """A time from `low` to `high` seconds: "20ms", "5m", or a number of seconds."""

    def parse(value: object) -> float:
        amount = _amount(value, _TIME_UNITS)
        if amount is not None and low <= amount <= high:
            return amount
        bounds = f"{format_seconds(low)} to {format_seconds(high)}"
        raise Refusal(f'a time from {bounds}: a number of seconds, or one with ms, s, m, h, d, such as "5m"')

    return parse


def one_of(*words: str) -> Parser[str]:
    """One of these words."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise Refusal(", ".join(f'"{word}"' for word in words))

    return parse


def text(value: object) -> str:
    """Any string."""
    if isinstance(value, str):
        return value
    raise Refusal("a string")


def watch_name(value: object) -> str:
    """A name that can be typed and shown anywhere."""
    if isinstance(value, str) and _WATCH_NAME.fullmatch(value):
        return value
    raise Refusal("a name of letters, digits, dots, hyphens and underscores (A-Z a-z 0-9 . _ -)")


def language(value: object) -> str:
    """A Tesseract language."""
    if isinstance(value, str) and _LANGUAGE.fullmatch(value):
        return value
    joined = isinstance(value, str) and "+" in value
    raise Refusal(
        'the name of a Tesseract language, such as "eng" or "chi_sim"', "one language an entry" if joined else ""
    )


def engine(value: object) -> str:
    """An engine's name, or where its class is. Whether there is such an engine is not known here."""
    if isinstance(value, str) and _ENGINE.fullmatch(value):
        return value
    raise Refusal('the name of an engine, such as "xberg", or "package.module:Class"')


def glob(value: object) -> str:
    """A glob that `daemon.globs` understands."""
    if not isinstance(value, str):
        raise Refusal('a glob, such as "**/*.pdf"')
    try:
        Globs([value])
    except ValueError as error:
        raise Refusal(str(error)) from error
    return value


def folder(base: str) -> Parser[str]:
    """A folder, made absolute; relative paths are relative to `base`. It need not exist, but may not be a file."""

    def parse(value: object) -> str:
        allowed = "a folder"
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            raise Refusal(allowed)
        if scheme := _SCHEME.match(value):
            raise Refusal(allowed, f"{scheme[0]} is not understood here")
        if value == "~" or value.startswith("~/"):
            raise Refusal(allowed, "~ is not expanded here: write the path out")
        path = os.path.abspath(os.path.join(base, value))
        if os.path.exists(path) and not os.path.isdir(path):
            raise Refusal(allowed, "it is a file")
        return path

    return parse


def location(base: str, schemes: Sequence[str], unsupported: Collection[str]) -> Parser[str]:
    """A folder, or a URL of one of these schemes unless that is `unsupported`."""
    parse_folder = folder(base)
    urls = [f'"{scheme}://…"' for scheme in schemes if scheme not in unsupported]

    def parse(value: object) -> str:
        scheme = _SCHEME.match(value) if isinstance(value, str) else None
        if scheme is not None and scheme[1] in schemes:
            if scheme[1] not in unsupported:
                return scheme.string
            raise Refusal(" or ".join(["a folder", *urls]), f"{scheme[0]} is not supported by this version")
        try:
            return parse_folder(value)
        except Refusal as refusal:
            raise Refusal(" or ".join([refusal.allowed, *urls]), refusal.reason) from refusal

    return parse


def disposal(words: Sequence[str], target: Parser[str]) -> Parser[Disposal]:
    """One of these words, or `move:` and a target."""
    allowed = ", ".join(f'"{word}"' for word in words) + ' or "move:DIR"'

    def parse(value: object) -> Disposal:
        if isinstance(value, str) and value in words:
            return Disposal(value)
        if isinstance(value, str) and value.startswith("move:"):
            try:
                return Disposal("move", target(value.removeprefix("move:").strip()))
            except Refusal as refusal:
                raise Refusal(f"{allowed} where DIR is {refusal.allowed}", refusal.reason) from refusal
        raise Refusal(allowed)

    return parse


def format_size(size: int) -> str:
    """With the largest unit that divides it: 512MiB."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def format_seconds(seconds: float) -> str:
    """With the largest unit that divides it: 100ms, 1d."""
    for unit, factor in (("d", 86400_000), ("h", 3600_000), ("m", 60_000), ("s", 1000)):
        if seconds and round(seconds * 1000) % factor == 0:
            return f"{round(seconds * 1000) // factor}{unit}"
    return f"{round(seconds * 1000)}ms" if seconds else "0s"


def _amount(value: object, units: Mapping[str, float]) -> float | None:
    """A number as it is, or a number with a unit; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if isinstance(value, int) or math.isfinite(value) else None
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    factor = units.get(found[2].lower()) if found else None
    return float(found[1]) * factor if found and factor is not None else None
