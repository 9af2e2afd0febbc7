"""Actions on documents: they come, change, are rewritten under the daemon's hands, and go."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from threading import Event

from tests.chaos.hooks import WAIT
from tests.chaos.layout import Watch
from tests.chaos.model import (
    HOSTILE,
    HOSTILE_FILES,
    HOSTILE_WEIGHTS,
    KINDS,
    POISON,
    Document,
    Model,
    compose,
    compose_large,
)
from tests.chaos.places import Folder
from tests.chaos.world import World
from tests.chaos.writing import appear, wait_until_fetched, write
from tests.fault_proxy import Fault, FaultProxy

FOLDERS = ("", "", "", "one/", "one/two/", "three/")
LARGE_LINES = 30_000
SPOOLED_RESULT_BYTES = 3 << 20
DIVIDED_SOURCE_BYTES = 34 << 20
"""The daemon keeps a result that is so large in its spool, and downloads an object that is so large in ranges."""
FETCH_SECONDS = 6.0
CONVERT = "convert"
SKIPPED = "skipped: "


def drop(world: World, model: Model, chance: random.Random) -> str:
    """A handful of new documents at once."""
    watch = _watch(world, chance)
    names = []
    for _ in range(chance.choice((1, 3, 6, 12))):
        document = model.new(watch.name, chance.choice(KINDS), chance.choice(FOLDERS) + "d")
        appear(world, document, *compose(document, chance))
        names.append(document.name)
    return f"{watch.name}: {', '.join(names)}"


def drop_folder(world: World, model: Model, chance: random.Random) -> str:
    """A folder with documents in it appears at once, by a rename; sometimes it is filled further right then."""
    watch = _folder_watch(world, chance)
    assert isinstance(watch.source, Folder)
    name = f"folder{len(model):04}"
    more = chance.choice((0, 0, 5))
    documents = [model.new(watch.name, chance.choice(KINDS), f"{name}/d") for _ in range(chance.randint(1, 8) + more)]
    first = documents[: len(documents) - more]
    hidden = watch.source.path / f".{name}"
    with contextlib.ExitStack() as locked:
        for document in first:
            locked.enter_context(document.lock)
            content, text = compose(document, chance)
            document.current = document.written(content, text)
            path = hidden / document.name.removeprefix(f"{name}/")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        hidden.rename(watch.source.path / name)
    for document in documents[len(first) :]:
        appear(world, document, *compose(document, chance))
    return f"{watch.name}: {name}, {len(documents)} documents"


def drop_while_down(world: World, model: Model, chance: random.Random) -> str:
    """What came while the daemon was not there is found by its scan alone."""
    if chance.random() < 0.5:
        world.kill()
    else:
        world.terminate()
    done = [drop(world, model, chance) for _ in range(2)]
    if known := _documents(world, model, chance, files_only=True):
        done.append(_replaced(world, known[0], chance))
    world.ensure()
    return "; ".join(done)


def drop_large(world: World, model: Model, chance: random.Random) -> str:
    """Of many lines, or with a result that lies in the spool; in a bucket sometimes one that comes in ranges, too."""
    watch, spooled, divided = _watch(world, chance), chance.random() < 0.5, chance.random() < 0.5
    document = model.new(watch.name, "txt")
    source_bytes = 0
    if watch.name == "keep" or not spooled:  # its sink is small, and what lies there stays there
        appear(world, document, *compose(document, chance, lines=LARGE_LINES))
    else:
        if divided and not watch.in_folder and watch.done is None:  # where they are moved to they are read all the time
            source_bytes = DIVIDED_SOURCE_BYTES
        appear(world, document, *compose_large(chance, SPOOLED_RESULT_BYTES, source_bytes))
    return f"{document.watch}: {document.name}, {len(document.versions[-1].content):,} bytes"


def drop_hostile(world: World, model: Model, chance: random.Random) -> str:
    """One that does to an engine of the tests what it says, or one that a real engine is to refuse."""
    watch = _watch(world, chance)
    if chance.random() < 0.3:
        what = chance.choice(sorted(HOSTILE_FILES))
        kind, make = HOSTILE_FILES[what]
        document = model.new(watch.name, kind, "hostile")
        appear(world, document, make(), "", hostile=True)
    else:
        what = chance.choices(HOSTILE, HOSTILE_WEIGHTS)[0]
        document = model.new(watch.name, "txt", "hostile")
        appear(world, document, *compose(document, chance, hostile=what), hostile=True)
    return f"{document.watch}: {document.name} ({what})"


def drop_poison(world: World, model: Model, chance: random.Random) -> str:
    document = model.new(_watch(world, chance).name, "txt", POISON)
    appear(world, document, *compose(document, chance))
    return f"{document.watch}: {document.name}"


def replace(world: World, model: Model, chance: random.Random) -> str:
    known = _documents(world, model, chance)
    return _replaced(world, known[0], chance) if known else SKIPPED + "no document"


def _replaced(world: World, document: Document, chance: random.Random) -> str:
    hostile = "Crash" if document.kind == "txt" and chance.random() < 0.05 else ""
    content, text = compose(document, chance, hostile=hostile)
    if not appear(world, document, content, text, hostile=bool(hostile)):
        return SKIPPED + "it is being written"
    return f"{document.watch}: {document.name} version {len(document.versions)}"


def rewrite_in_place(world: World, model: Model, chance: random.Random) -> str:
    """Truncated and written anew in pieces, kept open all the while, most often one that is just being converted."""
    watch = _folder_watch(world, chance)
    fresh = chance.random() < 0.7
    known = [] if fresh else [one for one in _documents(world, model, chance, files_only=True) if one.kind == "txt"]
    document = known[0] if known else model.new(watch.name, "txt")
    if not known:  # it waits for a converter, behind others or by itself: it is fetched and not yet read for a while
        others = chance.choice((0, 4))
        if not others and not world.is_armed(CONVERT):
            world.arm(CONVERT, WAIT, 0, 1)
        for other in [model.new(watch.name, "txt") for _ in range(others)]:
            appear(world, other, *compose(other, chance, slow=True))
        appear(world, document, *compose(document, chance, lines=chance.randint(20, 200)))
    content, text = compose(document, chance, lines=chance.randint(20, 200))
    pauses = [chance.uniform(0.02, most) for most in (0.5, 0.5, 2.0)]  # what is torn stays until somebody has looked
    before = chance.choice((0.0, 0.01, 0.05, 0.2))

    def rewrite() -> None:
        if not known:
            wait_until_fetched(world, document)
        write(world, document, content, text, pauses, before)

    world.later(rewrite)
    return f"{document.watch}: {document.name} version {len(document.versions) + 1}"


def write_slowly(world: World, model: Model, chance: random.Random) -> str:
    """A new document that is visible from its first byte on, and open until its last."""
    document = model.new(_folder_watch(world, chance).name, "txt")
    content, text = compose(document, chance, lines=50)
    pauses = [chance.uniform(0.05, 0.5) for _ in range(4)]
    world.later(lambda: write(world, document, content, text, pauses, 0.0))
    return f"{document.watch}: {document.name}"


def break_off(world: World, model: Model, chance: random.Random) -> str:
    """The writer dies: the first half is all that there will ever be, until it comes again."""
    document = model.new(_folder_watch(world, chance).name, "txt")
    content, _ = compose(document, chance, lines=40)
    half = content[: content.index(b"\n", len(content) // 2)]
    world.later(lambda: write(world, document, half, half.decode(), [chance.uniform(0.05, 0.3)], 0.0))
    return f"{document.watch}: {document.name}"


def touch(world: World, model: Model, chance: random.Random) -> str:
    """Another time and another mode, the same bytes."""
    for document in _documents(world, model, chance, files_only=True):
        with document.lock:
            place = world.watches[document.watch].source
            assert isinstance(place, Folder)
            path = place.path / document.name
            try:
                os.utime(path)
                path.chmod(0o640)
            except FileNotFoundError:
                continue
        return f"{document.watch}: {document.name}"
    return SKIPPED + "no document"


def delete(world: World, model: Model, chance: random.Random) -> str:
    known = _documents(world, model, chance)
    if not known or not known[0].lock.acquire(blocking=False):
        return SKIPPED + "no document, or it is being written"
    try:
        known[0].current = None
        world.watches[known[0].watch].source.remove(known[0].name)
    finally:
        known[0].lock.release()
    return f"{known[0].watch}: {known[0].name}"


def swap_while_fetched(world: World, model: Model, chance: random.Random, seconds: float = FETCH_SECONDS) -> str:
    """An object is replaced by one of the same size while it is fetched, and put back before anybody looks again. It is
    to be fetched, and to be answered, within so long."""
    if world.proxy is None:
        return SKIPPED + "no buckets"
    document = model.new("bkeep", "txt")
    content, text = compose(document, chance, lines=20)
    world.ensure()
    with document.lock:
        # It is noted as it comes back in the end. The other one is no version: nobody is to see its words.
        fetched = _stalled(world.proxy, f"/{document.watch}/in/{document.name}")
        source = world.watches["bkeep"].source
        document.current = document.written(content, text)
        source.put(document.name, content)
        try:
            if not fetched.fired.wait(seconds):
                return SKIPPED + f"{document.name} was not fetched"
            source.put(document.name, content.replace(b"rivers", b"brooks"))
        finally:
            fetched.released.set()
            _answered(world.proxy, document.name, seconds)
            source.put(document.name, content)
    return f"{document.watch}: {document.name}"


def _stalled(proxy: FaultProxy, path: str) -> Fault:
    whole = Fault(
        "stall_before_headers",
        method="GET",
        path=re.escape(path),
        headers=lambda head: head.get("range") != "bytes=0-0",
    )
    return proxy.inject(whole)


def _answered(proxy: FaultProxy, name: str, seconds: float) -> None:
    """Wait until the fetch that was held up has been answered, not for long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not any(seen.status for seen in proxy.requests("GET", re.escape(name))):
        Event().wait(0.01)


# -- which of them -----------------------------------------------------------------------------------------------


def _watch(world: World, chance: random.Random) -> Watch:
    return chance.choice(list(world.watches.values()))


def _folder_watch(world: World, chance: random.Random) -> Watch:
    return chance.choice([watch for watch in world.watches.values() if watch.in_folder])


def _documents(world: World, model: Model, chance: random.Random, *, files_only: bool = False) -> list[Document]:
    """In a random order: those that may be changed. Where a bucket's objects are disposed of they may not, as many a
    server knows no conditional deletion."""
    known = [
        document
        for document in model
        if not (document.poison or document.submitted)
        and (world.watches[document.watch].in_folder or (document.watch == "bkeep" and not files_only))
    ]
    chance.shuffle(known)
    return known
