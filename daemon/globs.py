"""Which files of a source are taken: the watch's include and exclude patterns, and names that are never taken.

Patterns are matched part by part against the path relative to the source, without backtracking over the whole path:
the time is bounded by parts of the pattern x parts of the path, so that no tree, however deep and repetitive, can
hold up the daemon. Patterns and names are compared without regard to case, because scanners write `.PDF`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from itertools import pairwise

Part = re.Pattern[str] | None
"""A pattern for one part of a path; None is `**`, any number of parts."""

ALTERNATIVES_AT_MOST = 1000
LENGTH_AT_MOST = 1000
IGNORED_NAMES = (b"thumbs.db", b"desktop.ini")
IGNORED_STARTS = (b".", b"~$")
IGNORED_ENDS = (b".part", b".partial", b".tmp", b".crdownload", b".filepart", b".swp")

_LAST_LETTERS = {case for name in (*IGNORED_NAMES, *IGNORED_ENDS) for case in (name[-1:], name[-1:].upper())}

_BRACE_OR_CLASS = re.compile(r"\[!?\]?[^\]/]*\]|[{},]")
_ANYWHERE = "**/"


class Filter:
    """Decides which paths a watch takes. Immutable; safe to use from any thread.

    `include` and `exclude` are globs on the path relative to the source: `*` and `?` stay within one part, `[abc]`
    and `[!abc]` are classes, `**` is any number of folders (none included), `{a,b}` alternatives, and a pattern that
    ends in `/` means all that lies below. Raises ValueError, saying what is allowed, for a malformed one.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include_patterns = tuple(include)
        self._exclude_patterns = tuple(exclude)
        self._include = Globs(include)
        self._exclude = Globs(exclude)
        self._takes_all = self._include.match_all and not exclude

    def takes(self, relative: bytes) -> bool:
        """Whether the file at this path is the watch's business."""
        if _ignored(relative) is not None:
            return False
        if self._takes_all:
            return True
        path = _text(relative)
        return self._include.match(path) and not self._exclude.match(path)

    def why(self, relative: bytes) -> str | None:
        """The rule by which this path is not taken, as a sentence; None if it is taken."""
        if (rule := _ignored(relative)) is not None:
            return rule
        path = _text(relative)
        if not self._include.match(path):
            return f"no pattern of include matches: {_listed(self._include_patterns)}{self._elsewhere(path)}"
        for pattern in self._exclude_patterns:
            if Globs([pattern]).match(path):
                return f'exclude has "{pattern}"'
        return None

    def _elsewhere(self, path: str) -> str:
        """The usual misunderstanding: `*.pdf` is for the source's own files, `**/*.pdf` for all below too."""
        for pattern in self._include_patterns:
            if not pattern.startswith(_ANYWHERE) and Globs([_ANYWHERE + pattern]).match(path):
                return f' ("{_ANYWHERE}{pattern}" would match in every folder)'
        return ""


class Globs:
    """A set of globs: a path matches if one of them does. Raises ValueError like `Filter`."""

    def __init__(self, patterns: Sequence[str]) -> None:
        compiled = [_parts(plain) for pattern in patterns for plain in _expand(_checked(pattern))]
        self.match_all = any(parts == ["**", "*"] for parts in compiled)
        names = [parts[1] for parts in compiled if len(parts) == 2 and parts[0] == "**"]
        self._names = _regex("|".join(fnmatch.translate(name) for name in names)) if names else None
        self._paths = [
            [None if part == "**" else _regex(fnmatch.translate(part)) for part in parts]
            for parts in compiled
            if len(parts) != 2 or parts[0] != "**"
        ]

    def match(self, path: str) -> bool:
        """Whether one of the globs matches the whole path."""
        if self.match_all:
            return True
        if self._names is not None and self._names.match(path[path.rfind("/") + 1 :]):
            return True
        if not self._paths:
            return False
        names = path.split("/")
        return any(_match(parts, names) for parts in self._paths)


def _checked(pattern: str) -> str:
    if not pattern or "\0" in pattern:
        raise ValueError("a glob that is not empty")
    if len(pattern) > LENGTH_AT_MOST:
        raise ValueError(f"a glob of at most {LENGTH_AT_MOST} characters")
    parts = pattern.rstrip("/").split("/")
    if pattern.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError('a glob relative to the source, without empty parts, "." and ".."')
    return pattern


def _expand(pattern: str) -> list[str]:
    """The pattern without its `{a,b}`: one pattern for each choice. Braces without a comma are literal."""
    depth, start, cuts = 0, 0, [0]
    for found in _BRACE_OR_CLASS.finditer(pattern):
        mark, position = found[0], found.start()
        if mark == "{":
            depth += 1
            if depth == 1:
                start, cuts = position, [position]
        elif mark == "}" and depth:
            depth -= 1
            if depth == 0 and len(cuts) > 1:
                cuts.append(position)
                return _choices(pattern[:start], pattern, cuts)
        elif mark == "," and depth == 1:
            cuts.append(position)
    if depth:
        raise ValueError('a glob whose "{" is closed by a "}"; a literal one is written [{]')
    return [pattern]


def _choices(head: str, pattern: str, cuts: list[int]) -> list[str]:
    tails = _expand(pattern[cuts[-1] + 1 :])
    expanded: list[str] = []
    for left, right in pairwise(cuts):
        expanded += [head + choice + tail for choice in _expand(pattern[left + 1 : right]) for tail in tails]
        if len(expanded) > ALTERNATIVES_AT_MOST:
            raise ValueError(f"a glob with at most {ALTERNATIVES_AT_MOST} alternatives")
    return expanded


def _parts(pattern: str) -> list[str]:
    """The parts of a plain pattern; `x/` and `x/**` become `x/**/*`, the files below x."""
    parts = (pattern + "**" if pattern.endswith("/") else pattern).split("/")
    return [*parts, "*"] if parts[-1] == "**" else parts


def _match(parts: Sequence[Part], names: Sequence[str]) -> bool:
    """Match names one by one; on a mismatch only the last `**` need take one more, never an earlier one."""
    at = taken = 0
    star, star_taken = -1, 0
    while taken < len(names):
        part = parts[at] if at < len(parts) else _NOTHING
        if part is None:
            star, star_taken = at, taken
            at += 1
        elif part.match(names[taken]):
            at += 1
            taken += 1
        elif star >= 0:
            star_taken += 1
            at, taken = star + 1, star_taken
        else:
            return False
    return at == len(parts)


def _ignored(relative: bytes) -> str | None:
    """Why this path is never taken, whatever the patterns say."""
    if relative[-1:] not in _LAST_LETTERS and b"/." not in relative and b"~$" not in relative and relative[:1] != b".":
        return None  # most, and quickly: a bucket may have millions of them
    if relative.startswith(b".") or b"/." in relative:
        return 'names starting with "." are never taken'
    name = relative[relative.rfind(b"/") + 1 :].lower()
    if name.startswith(IGNORED_STARTS):
        return 'names starting with "~$" are never taken'
    if name.endswith(IGNORED_ENDS):
        return f'names ending in "{_text(name[name.rfind(b".") :])}" are never taken'
    if name in IGNORED_NAMES:
        return f'files called "{_text(name)}" are never taken'
    return None


def _regex(expression: str) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE)


def _text(relative: bytes) -> str:
    return relative.decode("utf-8", "surrogateescape")


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(f'"{pattern}"' for pattern in patterns)


_NOTHING = re.compile(r"(?!)")
