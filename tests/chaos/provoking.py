"""What makes a daemon come to a fault point: one that is armed where nothing passes is met by nobody."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from threading import Event

from tests.chaos import operators
from tests.chaos.hooks import WAIT
from tests.chaos.layout import Watch
from tests.chaos.model import Model, compose, compose_large
from tests.chaos.places import Folder
from tests.chaos.waiting import within
from tests.chaos.world import World
from tests.chaos.writing import appear

PASS_SECONDS, OPEN_SECONDS = 6.0, 1.5
GIVE_BACK, REMOVE, PART = "give back", "remove", "part"
IN_PARTS_BYTES = 11 << 20
"""A result so large is uploaded in three parts (see `daemon.py`)."""

PASSED_BY: dict[str, Callable[[Watch], bool]] = {
    **dict.fromkeys(("list folder", "look at folder", "open source"), lambda watch: watch.in_folder),
    **dict.fromkeys(("download", "downloaded"), lambda watch: not watch.in_folder),
    **dict.fromkeys(("write", "rename", "sync", "back off"), lambda watch: isinstance(watch.sink, Folder)),
    **dict.fromkeys(("put", PART, "published", REMOVE), lambda watch: not isinstance(watch.sink, Folder)),
    **dict.fromkeys(("dispose", "record disposal", "disposal recorded"), lambda watch: watch.action != "keep"),
    **dict.fromkeys(
        ("hide", "hidden", "sync source", "disposed"), lambda watch: watch.in_folder and watch.action != "keep"
    ),
    **dict.fromkeys(("unlink", GIVE_BACK), lambda watch: watch.in_folder and watch.action == "delete"),
    **dict.fromkeys(
        ("make target", "move", "sync target", "moved"), lambda watch: watch.in_folder and watch.action == "move"
    ),
    **dict.fromkeys(("copy across", "copied across"), lambda watch: watch.across),
    **dict.fromkeys(("delete", "deleted"), lambda watch: not watch.in_folder and watch.action != "keep"),
    **dict.fromkeys(("copy", "copied"), lambda watch: not watch.in_folder and watch.action == "move"),
}
"""By the documents of which watches; of all, where a label is not here."""


def is_of_submission(label: str) -> bool:
    """Whether only a document that is handed in passes there."""
    return label.startswith(("intake", "submit"))


def provoke(world: World, model: Model, chance: random.Random, label: str, times: int) -> str:
    """Have the daemon come there, about so many times; returns what was done for it."""
    if is_of_submission(label):
        world.ensure()
        return operators.submit(world, model, chance)
    watches = [watch for watch in world.watches.values() if PASSED_BY.get(label, bool)(watch)]
    if not watches:
        return "nobody passes there"
    watch = chance.choice(watches)
    if label == "back off":
        world.arm("write", "EIO", 0, times)
    if label == REMOVE:
        return _mended(world, model, chance, watch)
    hostile = "Raise" if label == "fail" else ""
    for _ in range(times):
        document = model.new(watch.name, "txt")
        if label == PART:
            appear(world, document, *compose_large(chance, IN_PARTS_BYTES))
        else:
            appear(world, document, *compose(document, chance, hostile=hostile), hostile=bool(hostile))
    if label == GIVE_BACK:
        before = _waited_at_hide(world)
        world.arm("hide", WAIT, 0, 1)
        world.later(lambda: _open_while_hidden(world, before))
    return f"{times} documents of {watch.name}"


def _mended(world: World, model: Model, chance: random.Random, watch: Watch) -> str:
    """A document that fails and is then replaced by one that does not: its error file is to be removed."""
    document = model.new(watch.name, "txt")
    appear(world, document, *compose(document, chance, hostile="Raise"), hostile=True)
    content, text = compose(document, chance)

    def replace() -> None:
        failed = "SELECT 1 FROM jobs WHERE id = ? AND state = 'failed'"
        within(PASS_SECONDS, lambda: world.rows(failed, world.newest_job(document)))
        appear(world, document, content, text)

    world.later(replace)
    return f"{watch.name}: {document.name}, to be mended"


def _open_while_hidden(world: World, before: int) -> None:
    """Somebody opens the documents for writing between the daemon's look and its rename, and changes nothing: all that
    may be hidden just then, since nobody knows which it is that waits there."""
    within(PASS_SECONDS, lambda: _waited_at_hide(world) > before)
    with contextlib.ExitStack() as opened:
        for watch in filter(PASSED_BY["hide"], world.watches.values()):
            assert isinstance(watch.source, Folder)
            for name in watch.source.names():
                with contextlib.suppress(FileNotFoundError):
                    opened.enter_context((watch.source.path / name).open("r+b"))
        Event().wait(OPEN_SECONDS)


def _waited_at_hide(world: World) -> int:
    return world.journal("fired").count(f"{WAIT} at hide")
