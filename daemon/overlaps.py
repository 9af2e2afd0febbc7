"""Which folders of a configuration may not lie in one another, because documents would be lost or go in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations


class Role(IntEnum):
    """What a folder is for. Of two that conflict, the one with the higher role is the mistake."""

    SOURCE = 0
    SINK = 1
    MOVE = 2
    STATE = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A folder named at `key`. `takes_away` tells that documents of this source are deleted or moved."""

    key: str
    role: Role
    path: str
    takes_away: bool = False


@dataclass(frozen=True, slots=True)
class Overlap:
    """`place` lies where it may not: `relation` is how it lies to `other`."""

    place: Place
    other: Place
    relation: str


ALLOWED = {
    Role.SOURCE: 'a folder apart from it, or on_success = "keep" and on_failure = "keep" for both',
    Role.SINK: "a folder apart from every source and from the other sinks",
    Role.MOVE: "move: to a folder apart from every source and sink",
    Role.STATE: "a folder apart from every source, sink and move: target",
}


def overlaps(places: Sequence[Place]) -> Iterator[Overlap]:
    """All pairs that may not be, symbolic links resolved.

    A result in a source would be converted again; a moved document in a source too, and in a sink it could be
    overwritten by a result; two sinks in one could overwrite each other's results. Two sources may share documents
    only where neither takes them away. Move targets may be shared: a move never overwrites.
    """
    real = {place.path: os.path.realpath(place.path) for place in places}
    for first, second in combinations(sorted(places, key=lambda place: place.role), 2):
        if _may_share(first, second):
            continue
        relation = _relation(real[second.path], real[first.path])
        if relation:
            yield Overlap(second, first, relation)


def _may_share(first: Place, second: Place) -> bool:
    if first.role is second.role is Role.SOURCE:
        return not (first.takes_away or second.takes_away)
    return first.role is second.role is Role.MOVE


def _relation(path: str, other: str) -> str:
    if path == other:
        return "the same folder as"
    common = os.path.commonpath([path, other])
    if common == other:
        return "which lies in"
    return "which holds" if common == path else ""
