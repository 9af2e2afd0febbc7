"""Parsers of configuration values: each turns a value of the file into what the program uses, or refuses it.

A parser never guesses: what it cannot take it answers with `Refusal`, which says what would have been allowed.

Every command reads the configuration first, so what takes long to load is loaded by the parser that needs it, and
patterns are compiled (and kept, by `re`) at their first use.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from daemon.buckets import Prefix, Queue
from daemon.ground import Ground
from daemon.words import Disposal

T = TypeVar("T")
Parser = Callable[[object], T]

LARGEST_BYTES = 2**50
LONGEST_ADDRESS = 300

_SIZE_UNITS = {
    "b": 1,
    **{letter + "b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{letter + "ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}
_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]+)"
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)://"
_AUTHORITY = r"[A-Za-z][A-Za-z0-9+.-]*://([^/]*)"
_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_ENDPOINT = rf"(?i:(https?)://((?:{_LABEL}\.)*{_LABEL}|\[[0-9a-f:.]+\])(?::([0-9]{{1,5}}))?/?)"
_STANDARD_PORTS = {"http": 80, "https": 443}
_REGION = r"(?![0-9]+$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_LANGUAGE = r"[A-Za-z][A-Za-z0-9_-]*(/[A-Za-z][A-Za-z0-9_-]*)?"
_ENGINE = r"(?a:[a-z0-9][a-z0-9_-]*|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)"
_WATCH_NAME = r"[A-Za-z0-9._-]+"


class Refusal(ValueError):
    """A value is not allowed; `allowed` says what is, `reason` more where that helps."""

    def __init__(self, allowed: str, reason: str = "") -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.reason = reason


class Secret(Exception):
    """A value is not allowed and may hold a secret: it must not be shown, `found` says in its stead what it is."""

    def __init__(self, found: str, allowed: str, reason: str) -> None:
        super().__init__(found)
        self.found = found
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


def flag(value: object) -> bool:
    """True or false."""
    if isinstance(value, bool):
        return value
    raise Refusal("true, false")


def watch_name(value: object) -> str:
    """A name that can be typed and shown anywhere."""
    if isinstance(value, str) and re.fullmatch(_WATCH_NAME, value):
        return value
    raise Refusal("a name of letters, digits, dots, hyphens and underscores (A-Z a-z 0-9 . _ -)")


def language(value: object) -> str:
    """A Tesseract language."""
    if isinstance(value, str) and re.fullmatch(_LANGUAGE, value):
        return value
    joined = isinstance(value, str) and "+" in value
    raise Refusal(
        'the name of a Tesseract language, such as "eng" or "chi_sim"', "one language an entry" if joined else ""
    )


def engine(value: object) -> str:
    """An engine's name, or where its class is. Whether there is such an engine is not known here."""
    if isinstance(value, str) and re.fullmatch(_ENGINE, value):
        return value
    raise Refusal('the name of an engine, such as "xberg", or "package.module:Class"')


def glob(value: object) -> str:
    """A glob that `daemon.globs` understands."""
    from daemon.globs import Globs

    if not isinstance(value, str):
        raise Refusal('a glob, such as "**/*.pdf"')
    try:
        Globs([value])
    except ValueError as error:
        raise Refusal(str(error)) from error
    return value


def folder(ground: Ground) -> Parser[str]:
    """A folder, made absolute. It need not exist, but may not be a file."""

    def parse(value: object) -> str:
        allowed = "a folder"
        path = _absolute(ground.base, value, allowed)
        if ground.look(path).is_file:
            raise Refusal(allowed, "it is a file")
        return path

    return parse


def file(ground: Ground) -> Parser[str]:
    """A file, made absolute.

    It need not exist, as what systemd hands to a service is there for that service only, but may not be a folder.
    Raises Secret for what looks like the content of a file.
    """

    def parse(value: object) -> str:
        allowed = "the path of a file"
        if isinstance(value, str) and not value.isprintable():
            raise Secret("what is no path", allowed, "the content of the file does not belong here")
        path = _absolute(ground.base, value, allowed)
        if ground.look(path).is_folder:
            raise Refusal(allowed, "it is a folder")
        return path

    return parse


def location(ground: Ground, schemes: Sequence[str]) -> Parser[str]:
    """A folder, or a URL of one of these schemes: s3, sqs. Raises Secret for a URL with a user or a password."""
    parse_folder = folder(ground)
    urls = {"s3": _prefix_url, "sqs": _queue_url}
    allowed = " or ".join(["a folder", *(f'"{scheme}://…"' for scheme in schemes)])

    def parse(value: object) -> str:
        scheme = re.match(_SCHEME, value.strip()) if isinstance(value, str) else None
        if scheme is not None:
            _refuse_credentials(scheme.string, allowed)
        try:
            _refuse_space_around(value, allowed)
            if scheme is not None and scheme[1] in schemes:
                return urls[scheme[1]](scheme.string)
            return parse_folder(value)
        except Refusal as refusal:
            raise Refusal(allowed, refusal.reason) from refusal

    return parse


def prefix(value: object) -> str:
    """A prefix of a bucket: its URL, which then always ends with "/". Raises Secret like `location`."""
    allowed = '"s3://BUCKET/PREFIX/"'
    if not isinstance(value, str):
        raise Refusal(allowed)
    _refuse_credentials(value, allowed)
    try:
        _refuse_space_around(value, allowed)
        return _prefix_url(value)
    except Refusal as refusal:
        raise Refusal(allowed, refusal.reason) from refusal


def endpoint_url(value: object) -> str:
    """The address of a server, always written in the same way. Raises Secret where it may hold a password."""
    allowed = 'the address of a server, such as "https://HOST" or "http://HOST:PORT"'
    if isinstance(value, list | dict):  # in which there may be a URL with a password
        raise Secret("what is no URL", allowed, "")
    if not isinstance(value, str):
        raise Refusal(allowed)
    if any(char in value for char in "@?"):
        reason = "credentials come from credentials_file, profile or the environment"
        raise Secret("a URL with a user, a password or a query", allowed, reason)
    found = re.fullmatch(_ENDPOINT, value) if len(value) <= LONGEST_ADDRESS else None
    if found is None or not sound_host(found[2]):
        has_path = "/" in value.partition("://")[2]
        raise Refusal(allowed, "it has a path" if has_path else "")
    scheme, host = found[1].lower(), found[2].lower()
    port = int(found[3] or _STANDARD_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise Refusal(allowed, "ports go from 1 to 65535")
    return f"{scheme}://{host}" if port == _STANDARD_PORTS[scheme] else f"{scheme}://{host}:{port}"


def word(value: object) -> str:
    """A word of a command."""
    if isinstance(value, str) and value and "\0" not in value:
        return value
    raise Refusal("a word of a command: a program, or one argument")


def region(value: object) -> str:
    """The name of a region. Which there are is known to the server only."""
    if isinstance(value, str) and re.fullmatch(_REGION, value):
        return value
    raise Refusal('the name of a region, such as "eu-central-1"')


def profile(value: object) -> str:
    """The name of a profile in the files of the AWS tools."""
    if isinstance(value, str) and value.strip() and value.isprintable():
        return value
    raise Refusal("the name of a profile")


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


def _absolute(base: str, value: object, allowed: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise Refusal(allowed)
    _refuse_space_around(value, allowed)
    if scheme := re.match(_SCHEME, value):
        raise Refusal(allowed, f"{scheme[0]} is not understood here")
    if value == "~" or value.startswith("~/"):
        raise Refusal(allowed, "~ is not expanded here: write the path out")
    return os.path.abspath(os.path.join(base, value))


def _prefix_url(url: str) -> str:
    try:
        return Prefix.parse(url).url
    except ValueError as error:
        raise Refusal("", str(error)) from error


def _queue_url(url: str) -> str:
    try:
        return Queue.parse(url).url
    except ValueError as error:
        raise Refusal("", str(error)) from error


def _refuse_credentials(url: str, allowed: str) -> None:
    authority = re.match(_AUTHORITY, url.strip())
    if authority and "@" in authority[1]:
        reason = "credentials come from [watch.s3] credentials_file, profile or the environment"
        raise Secret("a URL with a user or a password", allowed, reason)


def _refuse_space_around(value: object, allowed: str) -> None:
    """It is nearly always a slip, and what it named would be another place: made anew, empty, and watched in vain."""
    if isinstance(value, str) and value.strip() and value != value.strip():
        raise Refusal(allowed, 'white space around it: remove it, or where a name has it add a slash ("./ in", "in /")')


def sound_host(host: str) -> bool:
    """Whether what stands in brackets, if anything does, is an address of IPv6."""
    if not host.startswith("["):
        return True
    import ipaddress

    try:
        return bool(ipaddress.IPv6Address(host[1:-1]))
    except ValueError:
        return False


def _amount(value: object, units: Mapping[str, float]) -> float | None:
    """A number as it is, or a number with a unit; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if isinstance(value, int) or math.isfinite(value) else None
    found = re.fullmatch(_AMOUNT, value) if isinstance(value, str) else None
    factor = units.get(found[2].lower()) if found else None
    return float(found[1]) * factor if found and factor is not None else None
