"""Which folders and prefixes may not lie in one another, because documents would be lost or go in circles."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from enum import IntEnum
from itertools import combinations
from typing import NamedTuple

from daemon.ground import Ground


class Role(IntEnum):
    """What a place is for. Of two that conflict, the one with the higher role is the mistake."""

    SOURCE = 0
    SINK = 1
    MOVE = 2
    STATE = 3


class Place(NamedTuple):
    """A folder, or a prefix of a bucket by its URL, named at `key`.

    `takes_away` tells that documents of this source are deleted or moved. `server` is where the bucket is, "" for
    AWS; None for a folder.
    """

    key: str
    role: Role
    path: str
    takes_away: bool = False
    server: str | None = None

    @property
    def kind(self) -> str:
        return "folder" if self.server is None else "prefix"


class Overlap(NamedTuple):
    """`place` lies where it may not: `relation` is how it lies to `other`."""

    place: Place
    other: Place
    relation: str

    @property
    def allowed(self) -> str:
        """What may stand in its stead."""
        return _ALLOWED[self.place.role].format(self.place.kind)


_ALLOWED = {
    Role.SOURCE: 'a {} apart from it, or on_success = "keep" and on_failure = "keep" for both',
    Role.SINK: "a {} apart from every source and from the other sinks",
    Role.MOVE: "move: to a {} apart from every source and sink",
    Role.STATE: "a {} apart from every source, sink and move: target",
}


def overlaps(places: Sequence[Place], ground: Ground) -> Iterator[Overlap]:
    """All pairs that may not be, symbolic links of folders resolved; buckets are compared on one server only, and a
    folder that does not answer, whose links are not known, with none that does.

    A result in a source would be converted again; a moved document in a source too, and in a sink it could be
    overwritten by a result; two sinks in one could overwrite each other's results. Two sources may share documents
    only where neither takes them away. Move targets may be shared: a move never overwrites.
    """
    real = {place.path: _with_separator(place, ground) for place in places}
    for first, second in combinations(sorted(places, key=lambda place: place.role), 2):
        if first.server != second.server or _may_share(first, second):
            continue
        if first.server is None and ground.look(first.path).answered != ground.look(second.path).answered:
            continue
        relation = _relation(real[second.path], real[first.path])
        if relation:
            yield Overlap(second, first, relation.format(second.kind))


def _may_share(first: Place, second: Place) -> bool:
    if first.role is second.role is Role.SOURCE:
        return not (first.takes_away or second.takes_away)
    return first.role is second.role is Role.MOVE


def _with_separator(place: Place, ground: Ground) -> str:
    """A place lies in another where its path, written like this, starts with the other's."""
    if place.server is not None:
        return place.path
    return os.path.join(ground.real(place.path), "")


def _relation(path: str, other: str) -> str:
    if path == other:
        return "the same {} as"
    if path.startswith(other):
        return "which lies in"
    return "which holds" if other.startswith(path) else ""
